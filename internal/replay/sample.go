package replay

import (
	"context"
	"time"
)

// Sample is the occupancy of the cluster at one moment.
type Sample struct {
	// Seconds since the run began, and requests done by then.
	Seconds  float64      `json:"seconds"`
	Requests int          `json:"requests"`
	Nodes    []NodeStatus `json:"nodes"`
}

// TierHits is the number of block reads that one tier of one node has served
// during the run, for clients and peers.
type TierHits struct {
	Node string `json:"node"`
	Tier string `json:"tier"`
	Hits int64  `json:"hits"`
}

type tierOf struct{ node, tier string }

// sampler asks for the status of the nodes now and then. One goroutine at a time
// uses it.
type sampler struct {
	cfg     Config
	collect *collector
	samples thinned[Sample]
	// before is what each tier said last, hits what it has gained since the first time.
	before, hits map[tierOf]int64
	seen         []tierOf
	lost         int64
	started      bool
}

func newSampler(cfg Config, c *collector) *sampler {
	return &sampler{cfg: cfg, collect: c, samples: thinned[Sample]{most: seriesPoints}, before: map[tierOf]int64{}, hits: map[tierOf]int64{}}
}

func (s *sampler) run(ctx context.Context, stop <-chan struct{}) {
	t := time.NewTicker(s.cfg.SampleEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.sample(ctx)
		case <-stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *sampler) sample(ctx context.Context) {
	if s.cfg.Status == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.OpTimeout)
	defer cancel()
	nodes, err := s.cfg.Status(ctx)
	if err != nil {
		s.lost++
		s.cfg.Logger.Debug("no status of the nodes", "error", err)
		return
	}
	p := s.collect.progress()
	if !s.started {
		p.Elapsed = 0
	}
	for _, n := range nodes {
		for _, t := range n.Tiers {
			s.count(tierOf{n.Node, t.Tier.String()}, t.Hits)
		}
	}
	s.started = true
	s.samples.add(Sample{Seconds: p.Elapsed.Seconds(), Requests: p.Done, Nodes: nodes})
}

// count adds what a tier's counter has gained. A counter that fell back is of a
// node that started again; a node that comes later starts at 0 in the first
// sample that has it only if the run has begun.
func (s *sampler) count(t tierOf, now int64) {
	before, known := s.before[t]
	s.before[t] = now
	if !known {
		s.seen = append(s.seen, t)
		if !s.started {
			return
		}
	}
	if now < before {
		before = 0
	}
	s.hits[t] += now - before
}

func (s *sampler) byTier() []TierHits {
	all := make([]TierHits, 0, len(s.seen))
	for _, t := range s.seen {
		all = append(all, TierHits{Node: t.node, Tier: t.tier, Hits: s.hits[t]})
	}
	return all
}
