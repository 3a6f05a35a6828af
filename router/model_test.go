package router

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

// model is the index as one would write it without regard to speed or memory.
type model struct {
	nodes map[string]*modelNode
}

type modelNode struct {
	incarnation, position uint64
	announced, gone       bool
	addr                  string
	blocks                map[block.Key]block.TierMask
}

func (m *model) enter(id string, incarnation uint64) *modelNode {
	n := m.nodes[id]
	if n != nil && (incarnation < n.incarnation || incarnation == n.incarnation && n.gone) {
		return nil
	}
	if n == nil || incarnation > n.incarnation {
		n = &modelNode{incarnation: incarnation, blocks: map[block.Key]block.TierMask{}}
		m.nodes[id] = n
	}
	return n
}

func (m *model) apply(e Event) (gap bool) {
	n := m.enter(e.Node, e.Incarnation)
	if n == nil {
		return false
	}
	if e.First > n.position+1 {
		return true
	}
	for i, c := range e.Changes {
		if e.First+uint64(i) <= n.position {
			continue
		}
		n.position++
		if c.Stored {
			n.blocks[c.Key] = n.blocks[c.Key].With(c.Tier)
		} else if n.blocks[c.Key] = n.blocks[c.Key].Without(c.Tier); n.blocks[c.Key] == 0 {
			delete(n.blocks, c.Key)
		}
	}
	return false
}

func (m *model) load(id string, incarnation, covered uint64, entries []Entry) {
	n := m.enter(id, incarnation)
	if n == nil || n.position > covered {
		return
	}
	n.position, n.blocks = covered, map[block.Key]block.TierMask{}
	for _, e := range entries {
		n.blocks[e.Key] |= e.Tiers
	}
}

func (m *model) remove(id string, incarnation uint64) {
	if n := m.nodes[id]; n == nil || incarnation >= n.incarnation {
		m.nodes[id] = &modelNode{incarnation: incarnation, gone: true}
	}
}

func (m *model) holders(k block.Key) map[string]Holder {
	out := map[string]Holder{}
	for id, n := range m.nodes {
		if t := n.blocks[k]; n.announced && t != 0 {
			out[id] = Holder{Node: id, Addr: n.addr, Tiers: t}
		}
	}
	return out
}

// overlap is what Match says of a node, in a form that compares.
type overlap struct {
	Prefix            int
	PrefixTiers, Held TierBlocks
	Best              TierBlocks
}

func (m *model) match(keys []block.Key) (blocks int, tiers TierBlocks, nodes map[string]overlap) {
	nodes = map[string]overlap{}
	for i, k := range keys {
		holders := m.holders(k)
		if len(holders) == 0 {
			return blocks, tiers, nodes
		}
		best := block.Tier(block.Tiers)
		for _, h := range holders {
			t, _ := h.Tiers.Fastest()
			best = min(best, t)
		}
		for id, h := range holders {
			t, _ := h.Tiers.Fastest()
			o := nodes[id]
			o.Held[t]++
			o.Best[best]++
			if o.Prefix == i {
				o.Prefix++
				o.PrefixTiers[t]++
			}
			nodes[id] = o
		}
		tiers[best]++
		blocks++
	}
	return blocks, tiers, nodes
}

func overlapsOf(m *Match) map[string]overlap {
	out := map[string]overlap{}
	for i := range m.Nodes {
		o := &m.Nodes[i]
		out[m.Node(o)] = overlap{o.Prefix, o.PrefixTiers, o.Held, o.best}
	}
	return out
}

// world drives an index and the model by the same random operations.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	ix     *Index
	model  model
	chains [][]block.Key
	nodes  int
}

func newWorld(t *testing.T, seed uint64, nodes int) *world {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &world{t: t, rng: rng, ix: newIndex(t, Exact, 0), model: model{map[string]*modelNode{}}, nodes: nodes}
	for range 6 {
		w.chains = append(w.chains, chain(rng, 1+rng.IntN(60)))
	}
	return w
}

func (w *world) key() block.Key {
	c := w.chains[w.rng.IntN(len(w.chains))]
	return c[w.rng.IntN(len(c))]
}

func (w *world) node() string { return nodeName(w.rng.IntN(w.nodes)) }

func (w *world) incarnation(id string) uint64 {
	var now uint64 = 1
	if n := w.model.nodes[id]; n != nil {
		now = n.incarnation
	}
	switch w.rng.IntN(20) {
	case 0:
		return now + 1
	case 1:
		return max(now, 1) - 1
	}
	return now
}

func (w *world) changes() []Change {
	var out []Change
	switch w.rng.IntN(3) {
	case 0: // a run of a chain, as a node that serves it would announce
		c := w.chains[w.rng.IntN(len(w.chains))]
		tier := block.Tier(w.rng.IntN(block.Tiers))
		stored := w.rng.IntN(4) > 0
		for _, k := range c[:w.rng.IntN(len(c)+1)] {
			out = append(out, Change{Key: k, Tier: tier, Stored: stored})
		}
	default:
		for range w.rng.IntN(40) {
			out = append(out, Change{Key: w.key(), Tier: block.Tier(w.rng.IntN(block.Tiers)), Stored: w.rng.IntN(2) == 0})
		}
	}
	return out
}

func (w *world) step() {
	id := w.node()
	incarnation := w.incarnation(id)
	switch p := w.rng.IntN(100); {
	case p < 75:
		var position uint64
		if n := w.model.nodes[id]; n != nil && n.incarnation == incarnation {
			position = n.position
		}
		e := Event{Node: id, Incarnation: incarnation, First: position + 1, Changes: w.changes()}
		switch w.rng.IntN(8) {
		case 0:
			e.First += uint64(w.rng.IntN(3))
		case 1:
			e.First -= min(position, uint64(w.rng.IntN(50)))
		}
		gap := w.model.apply(e)
		err := w.ix.Apply(e)
		var ge *GapError
		if gap != errors.Is(err, ErrGap) || gap != errors.As(err, &ge) || err != nil && !gap {
			w.t.Fatalf("apply %d at %d: %v, want gap %v", len(e.Changes), e.First, err, gap)
		}
		if gap && (ge.Node != id || ge.Incarnation != incarnation || ge.Got != e.First || ge.Expected != w.model.nodes[id].position+1) {
			w.t.Fatalf("gap is %+v", ge)
		}
	case p < 85:
		if n := w.model.enter(id, incarnation); n != nil {
			n.announced, n.addr = true, id+":7000"
		}
		if err := w.ix.SetNode(NodeInfo{ID: id, Incarnation: incarnation, Addr: id + ":7000"}); err != nil {
			w.t.Fatal(err)
		}
	case p < 90:
		w.model.remove(id, incarnation)
		w.ix.RemoveNode(id, incarnation)
	case p < 96:
		var covered uint64
		if n := w.model.nodes[id]; n != nil {
			covered = n.position + uint64(w.rng.IntN(5))
			covered -= min(covered, uint64(w.rng.IntN(3)))
		}
		var entries []Entry
		for range w.rng.IntN(200) {
			entries = append(entries, Entry{Key: w.key(), Tiers: block.TierMask(1 + w.rng.IntN(7))})
		}
		w.model.load(id, incarnation, covered, entries)
		if err := w.ix.Load(id, incarnation, covered, entries); err != nil {
			w.t.Fatal(err)
		}
	default:
		for range w.rng.IntN(600) {
			w.ix.Sweep()
		}
	}
}

// check compares all that can be asked.
func (w *world) check() {
	w.t.Helper()
	for _, c := range w.chains {
		for _, k := range c {
			got := map[string]Holder{}
			for _, h := range w.ix.Holders(k, nil) {
				if _, twice := got[h.Node]; twice {
					w.t.Fatalf("%v: node %s is named twice", k, h.Node)
				}
				got[h.Node] = h
			}
			if diff := cmp.Diff(w.model.holders(k), got); diff != "" {
				w.t.Fatalf("%v: holders (-model +index):\n%s", k, diff)
			}
		}
		var m Match
		w.ix.Match(c, &m)
		blocks, tiers, nodes := w.model.match(c)
		if m.Blocks != blocks || m.Tiers != tiers {
			w.t.Fatalf("match: %d blocks %v, want %d %v", m.Blocks, m.Tiers, blocks, tiers)
		}
		if diff := cmp.Diff(nodes, overlapsOf(&m)); diff != "" {
			w.t.Fatalf("overlaps (-model +index):\n%s", diff)
		}
	}
	for _, n := range w.ix.Stats().Nodes {
		want := w.model.nodes[n.ID]
		var blocks TierBlocks
		for _, t := range want.blocks {
			for tier := range t.All() {
				blocks[tier]++
			}
		}
		if want.gone || n.Position != want.position || n.Incarnation != want.incarnation || n.Announced != want.announced || n.Blocks != blocks {
			w.t.Fatalf("stats of %s are %+v, model has %d/%d %v", n.ID, n, want.incarnation, want.position, blocks)
		}
		if inc, pos, ok := w.ix.Position(n.ID); !ok || inc != want.incarnation || pos != want.position {
			w.t.Fatalf("position of %s is %d/%d", n.ID, inc, pos)
		}
	}
}

// drain removes every node and sweeps: the table must be empty then.
func (w *world) drain() {
	for i := range w.nodes {
		w.ix.RemoveNode(nodeName(i), 1<<60)
	}
	for w.ix.Sweep() {
	}
	stats := w.ix.Stats()
	used := 0
	for i := range w.ix.shards {
		used += w.ix.shards[i].sets.used
	}
	if stats.Blocks != 0 || len(stats.Nodes) != 0 || used != 0 {
		w.t.Fatalf("after everyone left: %d blocks, %d nodes, %d words of sets", stats.Blocks, len(stats.Nodes), used)
	}
}

func TestIndexAgainstModel(t *testing.T) {
	// Few nodes keep to inline holders, many need sets.
	for _, nodes := range []int{2, 5, 40} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("nodes=%d/seed=%d", nodes, seed), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, seed, nodes)
				for i := range 800 {
					w.step()
					if i%100 == 99 {
						w.check()
					}
				}
				w.drain()
			})
		}
	}
}
