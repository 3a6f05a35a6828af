package simulate

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"cairn/eviction"
	"cairn/router"
	"cairn/tier"
)

// node is a virtual node.
type node struct {
	name     string
	store    *store
	position uint64 // of its last change in the index
	// busy is when the last prompt in its queue is finished.
	busy time.Duration
	// link is when the last block that was to be fetched ahead has come.
	link time.Duration
	// fetched is when blocks, by number in the workload, were last fetched, for cairn-ahead.
	fetched map[uint32]time.Duration
	// active are the prompts in the queue, first to last.
	active   []prompt
	blocks   int // of active prompts
	compute  int // blocks of active prompts to compute
	computed int // blocks computed in all
}

type prompt struct {
	finish          time.Duration
	blocks, compute int
}

// leave takes finished prompts off the queue.
func (n *node) leave(now time.Duration) {
	for len(n.active) > 0 && n.active[0].finish <= now {
		n.blocks -= n.active[0].blocks
		n.compute -= n.active[0].compute
		n.active = n.active[1:]
	}
}

// wait is the time until the node begins a prompt that arrives now.
func (n *node) wait(now time.Duration) time.Duration { return max(n.busy-now, 0) }

// cluster is one run's nodes.
type cluster struct {
	cfg   Config
	w     *Workload
	nodes []*node
	// pool, when there is one, is the memory of all nodes.
	pool  *store
	index *router.Index // nil when the policy needs none
	rng   *rand.Rand
	// perBlock and perFetch are the time to compute and to fetch a block.
	perBlock, perFetch time.Duration
	rate               float64 // tokens per second
}

func newCluster(w *Workload, cfg Config) (*cluster, error) {
	routing, evict, err := parsePolicy(cfg.Policy)
	if err != nil {
		return nil, err
	}
	c := &cluster{cfg: cfg, w: w, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), rate: cfg.PrefillRate}
	if c.rate == 0 {
		c.rate = float64(w.References*cfg.BlockTokens) / (float64(cfg.Nodes) * w.Duration().Seconds() * cfg.Load)
	}
	seconds := float64(cfg.BlockTokens) / c.rate
	c.perBlock = time.Duration(seconds * float64(time.Second))
	fetch := seconds * cfg.FetchCost
	if cfg.LinkBandwidth > 0 {
		fetch = float64(cfg.BlockBytes) / cfg.LinkBandwidth
	}
	c.perFetch = time.Duration(fetch * float64(time.Second))
	indexed := strings.HasPrefix(routing, "cairn")
	if indexed {
		if c.index, err = router.NewIndex(router.IndexConfig{}); err != nil {
			return nil, err
		}
	}
	for i := range cfg.Nodes {
		n := &node{name: fmt.Sprintf("n%03d", i)}
		c.nodes = append(c.nodes, n)
		if routing == "pool" || routing == "belady" {
			continue
		}
		n.store = newStore(w.Blocks, cfg.Capacity, indexed)
		ask := eviction.Config{Seed: cfg.Seed + uint64(i)}
		if indexed {
			ask.Hint = func(id uint32) tier.Hint { return c.hint(n, n.store.held[id]) }
		}
		if n.store.policy, err = eviction.New(evict, ask); err != nil {
			return nil, err
		}
		if indexed {
			if err := c.index.SetNode(router.NodeInfo{ID: n.name, Incarnation: 1, Addr: n.name, PrefillTokensPerSecond: c.rate}); err != nil {
				return nil, err
			}
		}
	}
	switch routing {
	case "pool":
		c.pool = newStore(w.Blocks, cfg.Capacity*cfg.Nodes, false)
		c.pool.policy, err = eviction.New(evict, eviction.Config{Seed: cfg.Seed})
	case "belady":
		c.pool = newStore(w.Blocks, cfg.Capacity*cfg.Nodes, false)
		c.pool.policy = newBelady(w)
	}
	return c, err
}

// hint is what a node knows of a block of its own: whether another one has it, too.
func (c *cluster) hint(n *node, number uint32) tier.Hint {
	for _, o := range c.nodes {
		if o != n && o.store.has(number) {
			return tier.Copied
		}
	}
	return 0
}

// announce tells the index what has changed on a node.
func (c *cluster) announce(n *node) error {
	if len(n.store.changes) == 0 {
		return nil
	}
	e := router.Event{Node: n.name, Incarnation: 1, First: n.position + 1, Changes: n.store.changes}
	n.position = e.Last()
	n.store.changes = n.store.changes[:0]
	return c.index.Apply(e)
}
