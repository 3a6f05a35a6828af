package simulate

import (
	"context"
	"slices"
	"time"
)

// progressEvery is the number of requests between two calls of Config.Progress.
const progressEvery = 256

// Run simulates a workload under one policy. It ends early when ctx does.
func Run(ctx context.Context, w *Workload, cfg Config) (Result, error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, err
	}
	cfg = cfg.withDefaults()
	c, err := newCluster(w, cfg)
	if err != nil {
		return Result{}, err
	}
	routing, evict, _ := parsePolicy(cfg.Policy) // newCluster has done so
	choose, err := c.chooser(routing)
	if err != nil {
		return Result{}, err
	}
	res := Result{
		Workload: w.Name, Policy: routing, Eviction: evict, Nodes: cfg.Nodes, Capacity: cfg.Capacity,
		Requests: len(w.Requests), Blocks: w.References, PrefillRate: c.rate,
	}
	if routing == "belady" {
		res.Eviction = "oracle"
	}
	times := make([]time.Duration, 0, len(w.Requests))
	for i := range w.Requests {
		r := &w.Requests[i]
		for _, n := range c.nodes {
			n.leave(r.At)
		}
		p, err := choose(r)
		if err != nil {
			return Result{}, err
		}
		fetched, err := c.serve(r, p, routing)
		if err != nil {
			return Result{}, err
		}
		res.Hits += p.cached
		res.Fetched += fetched
		times = append(times, c.enqueue(r, p, fetched, routing == "cairn-ahead"))
		if (i+1)%progressEvery == 0 || i+1 == len(w.Requests) {
			if err := ctx.Err(); err != nil {
				return Result{}, err
			}
			cfg.Progress(i + 1)
		}
	}
	res.finish(c, times)
	return res, nil
}

// enqueue puts a request into its node's queue and returns its time to first token. ahead:
// what it fetches comes while it waits.
func (c *cluster) enqueue(r *Request, p placement, fetched int, ahead bool) time.Duration {
	n := p.node
	compute := len(r.Keys) - p.cached
	start := max(n.busy, r.At)
	transfer := time.Duration(fetched) * c.perFetch
	if ahead && fetched > 0 {
		n.link = max(n.link, r.At) + transfer
		start = max(start, n.link)
		transfer = 0
	}
	n.busy = start + transfer + time.Duration(compute)*c.perBlock
	n.active = append(n.active, prompt{n.busy, len(r.Keys), compute})
	n.blocks += len(r.Keys)
	n.compute += compute
	n.computed += compute
	return n.busy - r.At
}

// serve does to the nodes' memories what the request does; it returns the number of
// blocks that were fetched.
func (c *cluster) serve(r *Request, p placement, routing string) (fetched int, err error) {
	if c.pool != nil {
		c.pool.touch(r, 0, p.cached)
		c.pool.put(r, p.cached, len(r.Keys))
		return 0, nil
	}
	for _, t := range slices.Backward(p.transfers) {
		t.from.store.touch(r, t.first, t.first+t.count)
		fetched += t.count
	}
	s := p.node.store
	s.touch(r, 0, len(r.Keys))
	from := p.cached
	switch routing {
	case "cairn-copy":
		from = 0
	case "cairn-ahead":
		c.keepAgain(r, p)
	}
	s.put(r, from, len(r.Keys))
	if c.index == nil {
		return fetched, nil
	}
	return fetched, c.announce(p.node)
}

// keepWithin is the default of a node's --keep-within.
const keepWithin = 2 * time.Minute

// keepAgain stores what the node has fetched again.
func (c *cluster) keepAgain(r *Request, p placement) {
	n := p.node
	if n.fetched == nil {
		n.fetched = map[uint32]time.Duration{}
	}
	for _, t := range p.transfers {
		for i := t.first; i < t.first+t.count; i++ {
			if last, again := n.fetched[r.numbers[i]]; again && r.At-last <= keepWithin {
				n.store.put(r, i, i+1)
			}
			n.fetched[r.numbers[i]] = r.At
		}
	}
}
