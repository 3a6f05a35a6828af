package router

import (
	"cmp"
	"container/list"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Decision is where to send a request, and why.
type Decision struct {
	// Node and Addr are the first of Candidates.
	Node string `json:"node"`
	Addr string `json:"addr"`
	// Tokens and Blocks are the size of the request; ClusterBlocks is how many of its
	// blocks, from the first on, some node holds.
	Tokens        int `json:"tokens"`
	Blocks        int `json:"blocks"`
	ClusterBlocks int `json:"cluster_blocks"`
	// Candidates has the chosen node first, then the others by cost.
	Candidates []Candidate `json:"candidates"`
	// Considered is how many nodes were compared, also beyond the limit.
	Considered int `json:"considered"`
	// LeftOut counts the nodes that were not compared.
	LeftOut LeftOut `json:"left_out,omitzero"`
	// Sampled says that chance, by Config.Temperature, took another node than the
	// cheapest; Sticky that the session stays on its node, cheapest or not.
	Sampled bool `json:"sampled,omitempty"`
	Sticky  bool `json:"sticky,omitempty"`
	// Learned says that the node announces nothing, and is taken to hold the blocks of the
	// request from now on.
	Learned bool `json:"learned,omitempty"`
	// Scorer names what ranked the nodes, when that was not the time to first token.
	Scorer string `json:"scorer,omitempty"`
	// Plan is what the chosen node should fetch from its peers.
	Plan []Transfer `json:"plan"`
	// Ahead is what it should bring into memory ahead of the request, if anything and if
	// [Config].Prefetch says so.
	Ahead *Ahead `json:"ahead,omitempty"`
}

// Router ranks nodes by estimated time to first token. It keeps an estimate of
// each node's queue. All methods may be called in parallel; given the same
// calls in the same order, with the same times, it decides the same.
type Router struct {
	index  *Index
	config Config

	scratch sync.Pool // of *scratch

	mu       sync.Mutex
	loads    map[string]*nodeLoad
	open     map[string]*routed // by id
	age      list.List          // of *routed, oldest first
	sessions sessions
	aged     time.Time // when the index last forgot what was learned
	rng      *rand.Rand
}

// scratch is what a request needs while it is routed.
type scratch struct {
	match   Match
	ranking ranking
	holders []Holder
	planned map[string]int
}

// New is a router on an index, which others keep up to date.
func New(index *Index, config Config) (*Router, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	r := &Router{
		index:  index,
		config: config.withDefaults(),
		loads:  map[string]*nodeLoad{},
		open:   map[string]*routed{},
		rng:    rand.New(rand.NewPCG(config.Seed, 0)),

		sessions: sessions{byID: map[string]*list.Element{}},
	}
	r.scratch.New = func() any { return &scratch{planned: map[string]int{}} }
	return r, nil
}

// Config is the configuration in effect, with its defaults.
func (r *Router) Config() Config { return r.config }

// Route chooses a node for the request and, unless it is a dry run, counts the
// request as waiting there from now on. now should not go back from call to
// call. It fails with [ErrNoNodes] and [ErrRequest]. q is only read, during the
// call; the caller owns the decision.
func (r *Router) Route(q Request, now time.Time) (Decision, error) {
	s, err := q.shape(&r.config)
	if err == nil {
		err = differs(ErrRequest, "the request", r.config.Layout, q.layout())
	}
	if err != nil {
		return Decision{}, err
	}
	work := r.scratch.Get().(*scratch)
	defer r.scratch.Put(work)
	m := &work.match
	r.index.Match(q.Keys, m)

	r.mu.Lock()
	d, err := r.choose(&q, s, work, now)
	r.mu.Unlock()
	if err != nil {
		return Decision{}, err
	}
	d.Tokens, d.Blocks, d.ClusterBlocks = s.tokens, len(q.Keys), m.Blocks
	d.Plan = r.index.plan(q.Keys, d.Candidates[0], work)
	d.Ahead = r.config.ahead(&d.Candidates[0])
	if !q.DryRun {
		d.Learned = r.learn(d.Node, q.Keys, now)
	}
	return d, nil
}

// choose ranks the nodes and takes one. r.mu is held.
func (r *Router) choose(q *Request, s shape, work *scratch, now time.Time) (Decision, error) {
	m, k := &work.match, &work.ranking
	r.expire(now)
	r.forgetDeparted(m.view)
	d := Decision{}
	var none Overlap
	k.nodes = k.nodes[:0]
	for at := range m.view.list {
		n := &m.view.list[at]
		if !q.allows(n.info, &d.LeftOut) {
			continue
		}
		o := &none
		if i := m.at[at]; i > 0 {
			o = &m.Nodes[i-1]
		}
		rate := cmp.Or(n.info.PrefillTokensPerSecond, r.config.PrefillTokensPerSecond)
		l := r.loadOf(n.ID)
		l.drain(now, rate)
		c := r.config.cost(s, m, o, l.tokens(), rate, l.decoding())
		c.Node, c.Addr, c.Assigned = n.ID, n.Addr, l.assigned
		k.nodes = append(k.nodes, c)
	}
	if len(k.nodes) == 0 {
		return Decision{}, r.nobody(q, m.view, d.LeftOut)
	}
	r.config.score(q, k.nodes)
	k.sort()
	d.Considered = len(k.nodes)
	if r.config.Scorer != nil {
		d.Scorer = r.config.Scorer.Name()
	}
	if i, ok := r.keep(q, k, now); ok {
		d.Sticky = true
		k.toFront(i)
	} else if i := r.sample(k); i > 0 {
		d.Sampled = true
		k.toFront(i)
	}
	d.Candidates = k.first(q.Limit)
	d.Node, d.Addr = d.Candidates[0].Node, d.Candidates[0].Addr
	if !q.DryRun {
		a := d.Assignment(q)
		r.take(&a, now)
	}
	return d, nil
}

// nobody is the error of a request that no node may take.
func (r *Router) nobody(q *Request, v *view, out LeftOut) error {
	if out.Layout > 0 {
		for at := range v.list {
			n := &v.list[at]
			if err := differs(ErrNoNodes, "the request", n.info.Layout, q.layout()); err != nil {
				return fmt.Errorf("%w (node %s; left out: %s)", err, n.ID, out.text())
			}
		}
	}
	if out.total() == 0 {
		return fmt.Errorf("%w: none is known: wait for one to join", ErrNoNodes)
	}
	return fmt.Errorf("%w: of %d known, %s: wait for another to join, or ask for less", ErrNoNodes, len(v.list), out.text())
}
