package router

import (
	"cmp"
	"container/list"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"cairn/block"
)

// Request asks where to send a prompt.
type Request struct {
	// ID, when there is one, lets [Router.Done] end the request. Routing an id
	// again replaces what was routed before.
	ID string `json:"id,omitempty"`
	// Keys names the prompt's whole blocks, in order (package sequence).
	Keys []block.Key `json:"keys"`
	// Tokens is the length of the prompt; 0 means exactly the blocks of Keys.
	Tokens int `json:"tokens,omitempty"`
	// BlockTokens and BlockBytes are the size of these blocks; 0 means those of
	// [Config].
	BlockTokens int   `json:"block_tokens,omitempty"`
	BlockBytes  int64 `json:"block_bytes,omitempty"`
	// Exclude lists nodes that must not be chosen; Only, when not empty, lists
	// all that may. Either way a node may serve as a peer.
	Exclude []string `json:"exclude,omitempty"`
	Only    []string `json:"only,omitempty"`
	// Zone and Labels are what the chosen node's labels must say; Zone is short for the
	// label "zone".
	Zone   string            `json:"zone,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Session, when there is one, keeps the requests that share it on one node while
	// that costs at most [Config].StickyFactor times as much as the cheapest.
	Session string `json:"session,omitempty"`
	// Hash and Salt say how Keys were made; what they say must agree with
	// [Config].Layout and with the node's.
	Hash string `json:"hash_version,omitempty"`
	Salt string `json:"salt,omitempty"`
	// Limit is the largest number of candidates in the answer; 0 means all.
	Limit int `json:"limit,omitempty"`
	// DryRun asks without adding the request to the chosen node's queue.
	DryRun bool `json:"dry_run,omitempty"`
}

// shape is the request in the units of cost.
func (q *Request) shape(c *Config) (shape, error) {
	if q.Tokens < 0 || q.BlockTokens < 0 || q.BlockBytes < 0 || q.Limit < 0 {
		return shape{}, fmt.Errorf("%w: tokens %d, block_tokens %d, block_bytes %d and limit %d must be at least 0",
			ErrRequest, q.Tokens, q.BlockTokens, q.BlockBytes, q.Limit)
	}
	s := shape{
		tokens:      q.Tokens,
		blockTokens: cmp.Or(q.BlockTokens, c.BlockTokens),
		blockBytes:  float64(cmp.Or(q.BlockBytes, c.BlockBytes)),
	}
	whole := len(q.Keys) * s.blockTokens
	if s.tokens == 0 {
		s.tokens = whole
	}
	if s.tokens < whole {
		return shape{}, fmt.Errorf("%w: %d tokens are fewer than the %d of %d blocks of %d: give the prompt's whole length, or correct block_tokens",
			ErrRequest, s.tokens, whole, len(q.Keys), s.blockTokens)
	}
	return s, nil
}

// layout is what the request says of its blocks.
func (q *Request) layout() Layout {
	return Layout{BlockTokens: q.BlockTokens, Hash: q.Hash, Salt: q.Salt}
}

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

type scratch struct {
	match   Match
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
	d, err := r.choose(&q, s, m, now)
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
func (r *Router) choose(q *Request, s shape, m *Match, now time.Time) (Decision, error) {
	r.expire(now)
	r.forgetDeparted(m.view)
	ranked := make([]Candidate, 0, len(m.view.list))
	d := Decision{}
	var none Overlap
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
		ranked = append(ranked, c)
	}
	if len(ranked) == 0 {
		return Decision{}, r.nobody(q, m.view, d.LeftOut)
	}
	r.config.score(q, ranked)
	slices.SortFunc(ranked, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(roundCost(a.Cost), roundCost(b.Cost)), cmp.Compare(a.Assigned, b.Assigned), cmp.Compare(a.Node, b.Node))
	})
	d.Considered = len(ranked)
	if r.config.Scorer != nil {
		d.Scorer = r.config.Scorer.Name()
	}
	if i, ok := r.keep(q, ranked, now); ok {
		d.Sticky = true
		toFront(ranked, i)
	} else if i := r.sample(ranked); i > 0 {
		d.Sampled = true
		toFront(ranked, i)
	}
	if q.Limit > 0 && q.Limit < len(ranked) {
		ranked = slices.Clone(ranked[:q.Limit])
	}
	d.Candidates, d.Node, d.Addr = ranked, ranked[0].Node, ranked[0].Addr
	if !q.DryRun {
		a := d.Assignment(q)
		r.take(&a, now)
	}
	return d, nil
}

// toFront makes the candidate at i the first; the others keep their order.
func toFront(ranked []Candidate, i int) {
	chosen := ranked[i]
	copy(ranked[1:i+1], ranked[:i])
	ranked[0] = chosen
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

// sample is the place of the candidate to take. r.mu is held.
func (r *Router) sample(ranked []Candidate) int {
	if r.config.Temperature == 0 {
		return 0
	}
	weight := func(c Candidate) float64 { return math.Exp((ranked[0].Cost - c.Cost) / r.config.Temperature) }
	var sum float64
	for _, c := range ranked {
		sum += weight(c)
	}
	at := r.rng.Float64() * sum
	for i, c := range ranked {
		if at -= weight(c); at < 0 {
			return i
		}
	}
	return 0
}

// Transfer says that a node should fetch a run of blocks from a peer.
type Transfer struct {
	From     string `json:"from"`
	FromAddr string `json:"from_addr"`
	To       string `json:"to"`
	// First is the place in the request of the first block, Count how many
	// follow one another from there.
	First int `json:"first_block"`
	Count int `json:"count"`
	// Tier is where the peer has them.
	Tier block.Tier `json:"tier"`
}

// plan says from whom the candidate should fetch the cached blocks that it
// lacks: from the fastest tier, and of equals from where the run goes on, then
// from the node with the fewest planned so far.
func (ix *Index) plan(keys []block.Key, c Candidate, work *scratch) []Transfer {
	plan := []Transfer{}
	if c.Peers == 0 {
		return plan
	}
	clear(work.planned)
	for i, k := range keys[:c.Cached] {
		work.holders = ix.Holders(k, work.holders[:0])
		from, ok := source(work, c.Node, plan, i)
		if !ok {
			continue
		}
		tier, _ := from.Tiers.Fastest()
		work.planned[from.Node]++
		if n := len(plan) - 1; n >= 0 && continues(plan[n], from.Node, i) && plan[n].Tier == tier {
			plan[n].Count++
			continue
		}
		plan = append(plan, Transfer{From: from.Node, FromAddr: from.Addr, To: c.Node, First: i, Count: 1, Tier: tier})
	}
	return plan
}

func continues(t Transfer, from string, at int) bool { return t.From == from && t.First+t.Count == at }

// source is the best of work.holders to fetch block i from; ok is false when to
// holds it itself or nobody does any more.
func source(work *scratch, to string, plan []Transfer, i int) (best Holder, ok bool) {
	better := func(a, b Holder) bool {
		ta, _ := a.Tiers.Fastest()
		tb, _ := b.Tiers.Fastest()
		if ta != tb {
			return ta < tb
		}
		if len(plan) > 0 {
			last := plan[len(plan)-1]
			if ca, cb := continues(last, a.Node, i), continues(last, b.Node, i); ca != cb {
				return ca
			}
		}
		if pa, pb := work.planned[a.Node], work.planned[b.Node]; pa != pb {
			return pa < pb
		}
		return a.Node < b.Node
	}
	for _, h := range work.holders {
		if h.Node == to {
			return Holder{}, false
		}
		if !ok || better(h, best) {
			best, ok = h, true
		}
	}
	return best, ok
}
