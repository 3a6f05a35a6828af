package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"github.com/anishathalye/porcupine"

	"cairn/internal/testseed"
)

const (
	// chaosRounds and chaosTime are the long form, shortChaos the time of the short one. A busy
	// machine needs more rounds for as many operations, at most mostRounds.
	chaosRounds = 3
	mostRounds  = 6
	chaosTime   = 60 * time.Second
	shortChaos  = 2500 * time.Millisecond
	// leastOps and leastFaults are what the long form must have had in all.
	leastOps    = 100_000
	leastFaults = 50
	// settleBound is when everything must work again after the last fault: elections
	// of NATS, and then leases.
	settleBound = 60 * time.Second
)

// TestChaos runs real processes through faults, and judges by the history of all
// operations: strict reads and writes of each block are linearizable, nothing that was
// acknowledged as durable is lost, and every other loss is declared in the log.
func TestChaos(t *testing.T) {
	seed := testseed.Of(t)
	if !long() {
		t.Parallel()
		newChaosRound(t, seed).short()
		return
	}
	var ops, answered, inPlace, faults int
	for i := uint64(0); i < chaosRounds || ops < leastOps && i < mostRounds && !t.Failed(); i++ {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			r := newChaosRound(t, seed+i)
			r.long()
			ops += len(r.h.Ops)
			for _, o := range r.h.Ops {
				if o.Outcome <= refused {
					answered++
					if o.InPlace {
						inPlace++
					}
				}
			}
			faults += len(r.faults.list)
		})
	}
	t.Logf("in all: %d operations, of which %d were carried out, %d of these in GPU memory, %d faults", ops, answered, inPlace, faults)
	if !t.Failed() && (ops < leastOps || faults < leastFaults || inPlace < leastOps/20) {
		t.Errorf("too little has happened: %d operations of %d, %d in GPU memory, %d faults of %d", ops, leastOps, inPlace, faults, leastFaults)
	}
}

// chaosRound is one cluster, its load, and what came of it.
type chaosRound struct {
	t      *testing.T
	seed   uint64
	c      *chaosCluster
	l      *chaosLoad
	faults *chaosFaults
	tail   *logTail
	h      chaosHistory
	facts  *logFacts

	started time.Duration // how long that took
}

// chaosBlocks are the blocks of a round, by namespace.
var chaosBlocks = map[string]int{spaceThrough: 2, spaceAll: 2, spaceBack: 3, spaceCopies: 1, spaceLease: 2}

func newChaosRound(t *testing.T, seed uint64) *chaosRound {
	t.Helper()
	t.Logf("%s=%d", testseed.Env, seed)
	began := time.Now()
	r := &chaosRound{t: t, seed: seed, c: startChaos(t)}
	r.started = time.Since(began)
	for _, space := range chaosSpaces {
		for i := range chaosBlocks[space] {
			r.h.Keys = append(r.h.Keys, chaosKey{space, fmt.Sprintf("k%d", i+1)})
		}
	}
	for _, n := range r.c.nodes {
		r.h.Nodes = append(r.h.Nodes, n.id)
	}
	r.l = newChaosLoad(r.c.nodes, r.h.Keys, seed)
	r.faults = &chaosFaults{c: r.c, l: r.l, seed: seed}
	r.tail = startTail(r.c.conn, r.l.began)
	r.l.run(t.Context())
	t.Cleanup(r.l.finish)
	return r
}

// short has one fault of each sort, each as soon as the one before is over.
func (r *chaosRound) short() {
	ctx := r.t.Context()
	from := time.Now()
	for i, kind := range []faultKind{faultStepDown, faultCutNATS, faultKill} {
		r.faults.inject(ctx, plannedFault{kind: kind, at: i, hold: 300 * time.Millisecond})
	}
	select {
	case <-time.After(shortChaos - time.Since(from)):
	case <-ctx.Done():
	}
	r.judge()
}

// long has both lanes of faults.
func (r *chaosRound) long() {
	ctx, cancel := context.WithTimeout(r.t.Context(), chaosTime)
	defer cancel()
	var lanes sync.WaitGroup
	lanes.Go(func() { r.faults.lane(ctx, plan(r.seed, 0, nodeFaults, 700*time.Millisecond)) })
	lanes.Go(func() { r.faults.lane(ctx, plan(r.seed, 1, natsFaults, 4*time.Second)) })
	lanes.Wait()
	r.judge()
}

// judge ends the round in good order, and looks at what came of it.
func (r *chaosRound) judge() {
	t := r.t
	t.Helper()
	for _, n := range r.c.nodes {
		n.heal()
	}
	healed := r.l.clock()
	if err := r.l.settle(t.Context(), settleBound); err != nil {
		t.Errorf("the cluster has not settled within %v after the last fault: %v", settleBound, err)
	}
	settled := r.l.clock() - healed
	r.l.finish()
	finished := r.l.clock()
	states, err := r.c.states()
	if err != nil {
		t.Error(err)
	}
	r.c.stop()
	if err := r.tail.finish(t.Context()); err != nil {
		t.Errorf("the coherence log: %v", err)
	}
	ended := r.l.clock()
	r.facts = replayLog(r.tail.entries, r.h.Keys)
	if err := r.c.compare(r.facts, states); err != nil {
		t.Error(err)
	}
	r.h.Ops, r.h.Bars, r.h.Losses, r.h.Spans = r.l.ops, r.l.bars, r.facts.losses, r.facts.spans
	slices.SortFunc(r.h.Ops, func(a, b chaosOp) int { return cmp.Compare(a.Call, b.Call) })
	for _, err := range r.faults.errs {
		t.Error(err)
	}
	for _, text := range slices.Concat(r.l.wrong, r.facts.wrong) {
		t.Error(text)
	}
	began := time.Now()
	c := checkHistory(&r.h)
	for _, v := range c.violations[:min(len(c.violations), 10)] {
		t.Error(v.text)
	}
	if len(c.violations) > 10 {
		t.Errorf("and %d more", len(c.violations)-10)
	}
	r.report(c, settled, time.Since(began))
	t.Logf("started in %v, ran for %v, settled in %v, last operation %v later, stopped and read the log in %v", r.started, healed, settled, finished-healed-settled, ended-finished)
	if t.Failed() {
		r.dump(c)
	}
}

// report says what has happened.
func (r *chaosRound) report(c *checker, settled, checked time.Duration) {
	byKind := map[faultKind]int{}
	for _, f := range r.faults.list {
		byKind[f.Kind]++
	}
	var faults []string
	for kind, n := range byKind {
		faults = append(faults, fmt.Sprintf("%d × %s", n, kind))
	}
	slices.Sort(faults)
	var counts [outcomes]int
	var latency [chaosKinds]*hdr.Histogram
	for k := range latency {
		latency[k] = newHistogram()
	}
	for _, o := range r.h.Ops {
		counts[o.Outcome]++
		if o.Outcome <= refused {
			_ = latency[o.Kind].RecordValue((o.Return - o.Call).Microseconds()) // what takes over a minute has failed
		}
	}
	var kinds []string
	ms := func(v int64) time.Duration { return (time.Duration(v) * time.Microsecond).Round(10 * time.Microsecond) }
	for k, h := range latency {
		kinds = append(kinds, fmt.Sprintf("%s %d: %v/%v", chaosKind(k), h.TotalCount(), ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(99))))
	}
	r.t.Logf("%d operations (%d done, %d refused, %d failed, %d unknown); %d faults (%s); losses declared %d, acknowledged write-back writes in them %d, barriers %d;\n"+
		"\tp50/p99: %s;\n\tlongest without a success: %s; settled %v after the last fault;\n\t%d messages of the log: %s; checked in %v",
		len(r.h.Ops), counts[done], counts[refused], counts[failed], counts[unknown], len(r.faults.list), strings.Join(faults, ", "),
		r.facts.declared, c.lost, len(r.h.Bars), strings.Join(kinds, ", "), strings.Join(r.gaps(), ", "), settled.Round(time.Millisecond),
		len(r.tail.entries), verdictText(r.facts.verdicts), checked.Round(time.Millisecond))
}

func verdictText(counts map[string]int) string {
	var list []string
	for what, n := range counts {
		list = append(list, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// gaps are the longest times, for each namespace, in which no strict operation on one of
// its blocks succeeded at any node.
func (r *chaosRound) gaps() (list []string) {
	longest, last := map[string]time.Duration{}, map[int]time.Duration{}
	ops := slices.Clone(r.h.Ops)
	slices.SortFunc(ops, func(a, b chaosOp) int { return cmp.Compare(a.Return, b.Return) })
	for _, o := range ops {
		if o.Outcome > refused || o.Kind == readSession || o.Kind == readLocal {
			continue
		}
		space := r.h.Keys[o.Key].Space
		longest[space] = max(longest[space], o.Return-last[o.Key])
		last[o.Key] = o.Return
	}
	for _, space := range chaosSpaces {
		list = append(list, fmt.Sprintf("%s %v", space, longest[space].Round(10*time.Millisecond)))
	}
	return list
}

// dump keeps everything that a person needs to understand a failure.
func (r *chaosRound) dump(c *checker) {
	dir, err := os.MkdirTemp("", "cairn-chaos-")
	if err != nil {
		r.t.Error(err)
		return
	}
	keep := func(name string, write func(io.Writer) error) {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = errors.Join(write(f), f.Close())
		}
		if err != nil {
			r.t.Error(err)
		}
	}
	keep("history.jsonl", func(w io.Writer) error { return eachJSON(w, r.h.Ops) })
	keep("losses.jsonl", func(w io.Writer) error { return eachJSON(w, r.h.Losses) })
	keep("members.jsonl", func(w io.Writer) error { return eachJSON(w, r.h.Spans) })
	keep("faults.jsonl", func(w io.Writer) error { return eachJSON(w, r.faults.list) })
	keep("log.txt", func(w io.Writer) error { return writeLog(w, r.tail.entries) })
	for _, v := range c.violations {
		if v.info != nil {
			k := r.h.Keys[v.key]
			keep(k.Space+"-"+k.Name+".html", func(w io.Writer) error { return porcupine.Visualize(chaosModel, *v.info, w) })
		}
	}
	for _, n := range r.c.nodes {
		keep(n.id+".txt", func(w io.Writer) error { _, err := io.WriteString(w, n.said+n.out.String()); return err })
	}
	r.t.Logf("history, faults, log and visualizations: %s; again with %s=%d", dir, testseed.Env, r.seed)
}

func eachJSON[T any](w io.Writer, list []T) error {
	enc := json.NewEncoder(w)
	for _, v := range list {
		if err := enc.Encode(v); err != nil {
			return err
		}
	}
	return nil
}
