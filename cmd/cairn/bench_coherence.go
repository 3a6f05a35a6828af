package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// benchCoherenceCmd measures names against raw JetStream: servers, nodes and clients are
// all in this process, and every round measures every case at one node in turn, so
// that ratios mean something on a machine that others use as well.
type benchCoherenceCmd struct {
	Replicas int           `help:"NATS servers, and replicas of the log: ${enum}." enum:"1,3" default:"3"`
	Writers  int           `help:"Writers at once on each of the three nodes, for commits a second." default:"64"`
	Readers  int           `help:"Strict readers at once on one node." default:"64"`
	Owners   int           `help:"Writers at once on one node, for write-back writes a second." default:"16"`
	Size     size          `help:"Size of values." default:"4KiB"`
	Rounds   int           `help:"Measurements of each case, taken in turn at one node after the other; medians are shown." default:"6"`
	Duration time.Duration `help:"Time of each measurement." default:"1s"`
	Only     []string      `help:"Measure only these cases, besides the baseline: commit, through, records, throughs, strict, stricts, back, backs, resp, read." placeholder:"CASE"`
	Blocks   int           `help:"Measure instead what so many names cost: memory of a node and of a NATS server in its own process, snapshot, start of a fresh node." default:"0"`
	Rest     time.Duration `help:"With --blocks: how long the NATS server rests before its memory is read; an idle one collects garbage every two minutes." default:"125s"`
	Profile  string        `help:"Write a profile of the processor to this file." type:"path" placeholder:"FILE"`
	Dir      string        `help:"Directory for temporary data; the system's by default." type:"path" placeholder:"DIR"`
}

// most bounds what one process can be asked for.
const (
	mostBenchWriters = 1 << 14
	mostBenchNames   = 1 << 24
)

func (c *benchCoherenceCmd) validate() error {
	switch {
	case c.Rounds < 1 || c.Duration <= 0 || c.Size < 1 || c.Size > 1<<20:
		return usage("--rounds and --duration must be positive, --size 1 B to 1 MiB")
	case c.Writers < 1 || c.Readers < 1 || c.Owners < 1 || max(c.Writers, c.Readers, c.Owners) > mostBenchWriters:
		return usage("--writers, --readers, --owners: want 1 to %d", mostBenchWriters)
	case c.Blocks < 0 || c.Blocks > mostBenchNames:
		return usage("--blocks %d: want 0 to %d", c.Blocks, mostBenchNames)
	}
	for _, o := range c.Only {
		if !slices.Contains(benchCaseNames, o) {
			return usage("--only %.32s: want of %s", o, strings.Join(benchCaseNames, ", "))
		}
	}
	return nil
}

func (c *benchCoherenceCmd) Run(a *app) error {
	if err := c.validate(); err != nil {
		return err
	}
	return inTemporary(c.Dir, func(dir string) error {
		if c.Blocks > 0 {
			return c.runNames(a, dir)
		}
		return c.runCases(a, dir)
	})
}

// runCases measures all cases but the one of --blocks.
func (c *benchCoherenceCmd) runCases(a *app, dir string) error {
	cl, err := startBenchCluster(a, dir, c.Replicas)
	if err != nil {
		return err
	}
	f := newFigures()
	if err := c.measure(a, cl, f); err != nil {
		return errors.Join(err, cl.stop())
	}
	if err := cl.stop(); err != nil {
		return err
	}
	return c.report(a, f)
}

// measure prepares all cases and runs them.
func (c *benchCoherenceCmd) measure(a *app, cl *benchCluster, f *figures) error {
	cases := benchCases(c)
	for _, k := range cases {
		if k.prepare == nil {
			continue
		}
		for _, n := range cl.nodes {
			if err := k.prepare(a.ctx, n); err != nil {
				return fmt.Errorf("%s: prepare: %w", k.name, err)
			}
		}
	}
	return profiled(c.Profile, func() error { return c.takeTurns(a, cl, cases, f) })
}

// takeTurns runs the rounds.
func (c *benchCoherenceCmd) takeTurns(a *app, cl *benchCluster, cases []benchCoherenceCase, f *figures) error {
	bar := progress(a.err, c.Rounds*len(cases), "runs")
	for round := range c.Rounds {
		if err := cl.align(a.ctx); err != nil {
			return err
		}
		r := &benchRound{c: c, cl: cl, n: cl.nodes[round%len(cl.nodes)], f: f}
		for _, k := range cases {
			if err := r.run(a.ctx, k); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			_ = bar.Add(1)
		}
	}
	_ = bar.Exit()
	fmt.Fprintln(a.err)
	return nil
}

// benchRound is one round of all cases, at one node.
type benchRound struct {
	c       *benchCoherenceCmd
	cl      *benchCluster
	n       *benchNode
	f       *figures
	publish float64 // the round's p50 of a bare publish in µs
}

func (r *benchRound) run(ctx context.Context, k benchCoherenceCase) error {
	if k.measure == nil {
		return nil
	}
	runtime.GC() // what the case before has left is not this one's
	return k.measure(ctx, r)
}

// report prints the medians.
func (c *benchCoherenceCmd) report(a *app, f *figures) error {
	if a.json {
		return a.printJSON(f.results())
	}
	return f.print(a.out)
}
