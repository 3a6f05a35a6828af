package main

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"cairn/internal/report"
	"cairn/internal/simulate"
	"cairn/internal/trace"
)

type simulateCmd struct {
	Trace             string   `arg:"" optional:"" help:"Trace in Mooncake's format (JSON lines); the one that is built in by default." type:"path"`
	Agents            bool     `help:"Generate a workload of agents in tool loops instead."`
	Requests          int      `help:"Simulate only so many requests; 0 is all, of generated ones 20,000." default:"0"`
	Sessions          float64  `help:"Sessions of agents that start each second." default:"1"`
	AgentTypes        int      `help:"Types of agents, each with a system prompt that its sessions share." default:"24"`
	AgentSteps        float64  `help:"Steps of a session of an agent, on average." default:"6"`
	Nodes             int      `help:"Number of virtual nodes." default:"8"`
	Capacity          []int    `help:"Blocks that each node holds." default:"500,2000,8000"`
	Policies          []string `help:"Policies: random, round-robin, least-loaded, hash, dynamo, llm-d, cairn, cairn-copy, cairn-affinity, cairn-ahead, and the bounds pool and belady; optionally / and lru or hazard." default:"random,round-robin,least-loaded,hash,dynamo,llm-d,cairn/lru,cairn,cairn-copy,cairn-affinity,cairn-ahead,pool,pool/hazard,belady"`
	AffinityTolerance float64  `help:"With the policy cairn-affinity, how much later than from the fastest node the first token may come, as a share of the time to compute what is cached nowhere; up to 1; 0 is the built-in value." default:"0"`
	Load              float64  `help:"Share of the time for which nodes would be busy without any cache; says how fast they are." default:"0.8"`
	Prefill           float64  `help:"Tokens that a node computes each second, instead of --load." default:"0"`
	FetchCost         float64  `help:"Time to fetch a block from another node, as a share of the time to compute it." default:"0.1"`
	Link              size     `help:"Bytes each second between nodes, instead of --fetch-cost." default:"0"`
	BlockTokens       int      `help:"Tokens of a block." default:"512"`
	Block             size     `help:"Bytes of a block." default:"512KiB"`
	Seed              uint64   `help:"Makes what is random repeatable." default:"1"`
	SVG               string   `name:"svg" help:"Drawing to write: hit ratio and time to first token over capacity." placeholder:"FILE"`
}

// simulation is the answer as JSON.
type simulation struct {
	Workload string            `json:"workload"`
	Seconds  float64           `json:"seconds"`
	Distinct int               `json:"distinct_blocks"`
	Infinite float64           `json:"infinite_cache_hit_ratio"`
	Results  []simulate.Result `json:"results"`
}

func (c *simulateCmd) Run(a *app) error {
	if c.Requests < 0 {
		return usage("--requests %d: want 0 for all, or more", c.Requests)
	}
	if len(c.Capacity) == 0 || len(c.Policies) == 0 {
		return usage("--capacity and --policies must name at least one each")
	}
	var errs []error
	for _, capacity := range c.Capacity {
		for _, p := range c.Policies {
			err := c.config(capacity, p).Validate()
			if err != nil && !slices.ContainsFunc(errs, func(e error) bool { return e.Error() == err.Error() }) {
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	requests, name, err := c.requests()
	if err != nil {
		return err
	}
	bound, err := trace.Measure(requests)
	if err != nil {
		return usageError{err}
	}
	w, err := simulate.Load(name, requests, 0)
	if err != nil {
		return usageError{err}
	}
	s := simulation{Workload: name, Seconds: w.Duration().Seconds(), Distinct: w.Blocks, Infinite: bound.Ratio()}
	if s.Results, err = c.run(a, w); err != nil {
		return err
	}
	if c.SVG != "" {
		if err := c.draw(s); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(s)
	}
	fmt.Fprintf(a.out, "%s: %d requests in %.0f s, %d blocks, %d distinct; an infinite cache finds %.2f %%\n\n",
		name, len(w.Requests), s.Seconds, w.References, w.Blocks, 100*s.Infinite)
	return simulate.WriteTable(a.out, s.Results)
}

// requests are those of the file, the generator or the built-in trace.
func (c *simulateCmd) requests() (iter.Seq2[trace.Request, error], string, error) {
	limits := trace.Limits{BlockTokens: c.BlockTokens}
	switch {
	case c.Agents && c.Trace != "":
		return nil, "", usage("--agents makes requests: leave %s out, or --agents", c.Trace)
	case c.Agents:
		g := simulate.Agents{Requests: c.Requests, Rate: c.Sessions, Types: c.AgentTypes, Steps: c.AgentSteps, Seed: c.Seed}
		if err := g.Validate(); err != nil {
			return nil, "", usageError{err}
		}
		return g.Trace(), g.Name(), nil
	case c.Trace != "":
		return first(trace.ReadFile(c.Trace, limits), c.Requests), filepath.Base(c.Trace), nil
	}
	return first(trace.Bundled(), c.Requests), trace.BundledName, nil
}

func (c *simulateCmd) config(capacity int, policy string) simulate.Config {
	return simulate.Config{
		Nodes: c.Nodes, Capacity: capacity, BlockTokens: c.BlockTokens, BlockBytes: int64(c.Block), PrefillRate: c.Prefill, Load: c.Load,
		FetchCost: c.FetchCost, LinkBandwidth: float64(c.Link), Policy: policy, AffinityTolerance: c.AffinityTolerance, Seed: c.Seed,
	}
}

// run simulates every policy at every capacity, with a progress bar.
func (c *simulateCmd) run(a *app, w *simulate.Workload) ([]simulate.Result, error) {
	bar := progress(a.err, len(c.Capacity)*len(c.Policies)*len(w.Requests), "requests")
	defer func() {
		_ = bar.Exit()
		fmt.Fprintln(a.err)
	}()
	var results []simulate.Result
	for _, capacity := range c.Capacity {
		for _, p := range c.Policies {
			bar.Describe(fmt.Sprintf("%s, %d blocks a node", p, capacity))
			cfg, before := c.config(capacity, p), len(results)*len(w.Requests)
			cfg.Progress = func(done int) { _ = bar.Set(before + done) } // a bar that cannot be drawn must not stop the work
			r, err := simulate.Run(a.ctx, w, cfg)
			if err != nil {
				return nil, err
			}
			results = append(results, r)
		}
	}
	return results, nil
}

// colours are for policies in turn, greys for bounds.
var (
	colours = []string{"#2368c4", "#c2571a", "#8a5cc2", "#97731a", "#c62868", "#d08bd0", "#4a9b2f", "#0f7b6c", "#1aa0b8", "#7a4b2a", "#5560a0"}
	greys   = map[string]string{"pool/lru": "#b4bbc5", "pool/hazard": "#7a8594", "belady/oracle": "#1c2127"}
)

// draw writes the drawing.
func (c *simulateCmd) draw(s simulation) error {
	hit := report.Panel{Title: "Prefix hit ratio", X: "blocks a node", Y: "blocks found", Percent: true}
	ttft := report.Panel{Title: "Mean time to first token", X: "blocks a node", Y: "seconds"}
	for _, r := range s.Results {
		at := slices.IndexFunc(hit.Curves, func(k report.Curve) bool { return k.Name == r.Name() })
		if at < 0 {
			at = len(hit.Curves)
			k := report.Curve{Name: r.Name(), Colour: colours[at%len(colours)]}
			if grey, bound := greys[r.Name()]; bound {
				k.Colour, k.Dashed = grey, true
			}
			hit.Curves, ttft.Curves = append(hit.Curves, k), append(ttft.Curves, k)
		}
		h, t := &hit.Curves[at], &ttft.Curves[at]
		h.X, h.Y = append(h.X, float64(r.Capacity)), append(h.Y, r.HitRatio)
		t.X, t.Y = append(t.X, float64(r.Capacity)), append(t.Y, r.MeanTTFT)
	}
	f, err := os.Create(c.SVG)
	if err != nil {
		return usage("--svg: %w", err)
	}
	return errors.Join(report.WriteCurves(f, []report.Panel{hit, ttft}), f.Close())
}
