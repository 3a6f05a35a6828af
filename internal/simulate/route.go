package simulate

import (
	"time"

	"cairn/router"
)

// placement is where a request goes, and what is cached for it.
type placement struct {
	node *node
	// cached is how many blocks, from the first on, need not be computed.
	cached int
	// transfers are those of them that come from other nodes.
	transfers []transfer
}

// transfer is a run of blocks of a request that a node sends.
type transfer struct {
	from         *node
	first, count int
}

// chooser is a way of routing. It changes nothing but its own state.
type chooser func(r *Request) (placement, error)

func (c *cluster) chooser(routing string) (chooser, error) {
	switch routing {
	case "random":
		return c.private(func(*Request) *node { return c.nodes[c.rng.IntN(len(c.nodes))] }), nil
	case "round-robin":
		at := -1
		return c.private(func(*Request) *node { at++; return c.nodes[at%len(c.nodes)] }), nil
	case "least-loaded":
		return c.private(c.leastLoaded), nil
	case "hash":
		return c.private(c.hashed), nil
	case "dynamo":
		return c.private(c.dynamo), nil
	case "llm-d":
		return c.private(c.llmd), nil
	case "pool", "belady":
		return func(r *Request) (placement, error) {
			return placement{node: c.leastLoaded(r), cached: c.pool.prefix(r)}, nil
		}, nil
	}
	scorer := router.ScoreTTFT
	if routing == "cairn-affinity" {
		scorer = router.ScoreAffinity
	}
	prefetch := "off"
	if routing == "cairn-ahead" {
		prefetch = "host"
	}
	return c.cairn(scorer, prefetch)
}

// private is a way of routing in which a node uses only what it holds.
func (c *cluster) private(choose func(*Request) *node) chooser {
	return func(r *Request) (placement, error) {
		n := choose(r)
		return placement{node: n, cached: n.store.prefix(r)}, nil
	}
}

// best is the node with the lowest cost; of equals, one drawn at random.
func (c *cluster) best(cost func(*node) float64) *node {
	var best *node
	lowest, ties := 0.0, 0
	for _, n := range c.nodes {
		v := cost(n)
		switch {
		case best == nil || v < lowest:
			best, lowest, ties = n, v, 1
		case v == lowest:
			if ties++; c.rng.IntN(ties) == 0 {
				best = n
			}
		}
	}
	return best
}

func (c *cluster) leastLoaded(r *Request) *node {
	return c.best(func(n *node) float64 { return n.wait(r.At).Seconds() })
}

// hashed is rendezvous hashing on the first two blocks.
func (c *cluster) hashed(r *Request) *node {
	h := r.Keys[min(1, len(r.Keys)-1)].Hash64()
	var best *node
	var most uint64
	for i, n := range c.nodes {
		if v := mix(h + uint64(i)*0x9e3779b97f4a7c15); best == nil || v > most {
			best, most = n, v
		}
	}
	return best
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// dynamo counts the blocks that the node has to compute, with this request.
func (c *cluster) dynamo(r *Request) *node {
	return c.best(func(n *node) float64 {
		return float64(n.compute + len(r.Keys) - n.store.prefix(r))
	})
}

// llmd weighs two scores: the share of the prompt that is cached, twice, and the load,
// from a half for an empty queue to nothing at loadThreshold.
func (c *cluster) llmd(r *Request) *node {
	const loadThreshold = 128
	return c.best(func(n *node) float64 {
		prefix := float64(n.store.prefix(r)) / float64(len(r.Keys))
		load := 0.5 * (1 - float64(min(len(n.active), loadThreshold))/loadThreshold)
		return -(2*prefix + load)
	})
}

// cairn asks the real router, which ranks nodes by the scorer of that name.
func (c *cluster) cairn(name, prefetch string) (chooser, error) {
	scorer, err := router.NamedScorer(name, router.ScorerConfig{AffinityTolerance: c.cfg.AffinityTolerance})
	if err != nil {
		return nil, err
	}
	// What a block costs to fetch is given by the bandwidth; a node's own memory
	// costs next to nothing.
	const instant = 1e18
	cfg := router.Config{
		PrefillTokensPerSecond: c.rate, BlockTokens: c.cfg.BlockTokens, BlockBytes: c.cfg.BlockBytes,
		Bandwidth:   router.Bandwidth{VRAM: instant, Host: instant, Disk: instant, Peer: float64(c.cfg.BlockBytes) / max(c.perFetch.Seconds(), 1e-9)},
		PeerLatency: 1e-9, Seed: c.cfg.Seed, Scorer: scorer, Prefetch: prefetch,
	}
	rt, err := router.New(c.index, cfg)
	if err != nil {
		return nil, err
	}
	byName := map[string]*node{}
	for _, n := range c.nodes {
		byName[n.name] = n
	}
	epoch := time.Unix(0, 0)
	return func(r *Request) (placement, error) {
		now := epoch.Add(r.At)
		for _, n := range c.nodes {
			if err := rt.SetLoad(n.name, int(n.wait(r.At).Seconds()*c.rate), now); err != nil {
				return placement{}, err
			}
		}
		d, err := rt.Route(router.Request{Keys: r.Keys}, now)
		if err != nil {
			return placement{}, err
		}
		p := placement{node: byName[d.Node], cached: d.Candidates[0].Cached}
		for _, t := range d.Plan {
			p.transfers = append(p.transfers, transfer{byName[t.From], t.First, t.Count})
		}
		return p, nil
	}, nil
}
