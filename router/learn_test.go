package router

import (
	"math/rand/v2"
	"testing"

	"cairn/block"
)

func TestLearnedBlocksAreForgottenInTime(t *testing.T) {
	ix := newIndex(t, Exact, 3)
	c := round
	c.LearnTTL, c.NoPeers = 100, true
	r := newRouter(t, ix, c)
	rng := rand.New(rand.NewPCG(1, 1))
	first, second := chain(rng, 20), chain(rng, 30)
	prefix := func(now float64, keys []block.Key) (string, int) {
		d := route(t, r, Request{Keys: keys, DryRun: true}, at(now))
		return d.Node, d.Candidates[0].Prefix
	}
	d := route(t, r, Request{Keys: first}, at(0))
	home := d.Node
	if !d.Learned {
		t.Fatalf("%+v", d)
	}
	route(t, r, Request{Keys: second}, at(1))
	if n, p := prefix(20, first); n != home || p != 20 {
		t.Errorf("%s holds %d blocks, want %s to hold 20", n, p, home)
	}
	// Half of the chain is asked for again, at 60: it stays, and the rest goes at 100.
	route(t, r, Request{Keys: first[:10], Only: []string{home}}, at(60))
	if n, p := prefix(99, first); n != home || p != 20 {
		t.Errorf("at 99 %s holds %d blocks", n, p)
	}
	route(t, r, Request{Keys: chain(rng, 1)}, at(111))
	if n, p := prefix(111, first); n != home || p != 10 {
		t.Errorf("at 111 %s holds %d blocks", n, p)
	}
	if _, p := prefix(111, second); p != 0 {
		t.Errorf("at 111 %d blocks of the other chain are left", p)
	}
	route(t, r, Request{Keys: chain(rng, 1)}, at(165))
	if _, p := prefix(165, first); p != 0 {
		t.Errorf("at 165 %d blocks are left", p)
	}
	for ix.Sweep() {
	}
	if s := ix.Stats(); s.Blocks != 2 || s.Learned == 0 {
		t.Errorf("%d blocks are in the table, want the last two", s.Blocks)
	}
}

func TestAnnouncementsReplaceWhatWasLearned(t *testing.T) {
	ix := newIndex(t, Exact, 2)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 40)
	if !ix.Learn("node-0", keys) || ix.Learn("nobody", keys) {
		t.Fatal("node-0 can be learned, and nobody else")
	}
	if err := ix.Age(); err != nil {
		t.Fatal(err)
	}
	ix.Learn("node-0", keys[:10])
	var m Match
	ix.Match(keys, &m)
	if o := m.Of("node-0"); o.Prefix != 40 || len(m.Nodes) != 1 {
		t.Errorf("learned: %+v", m.Nodes)
	}
	if n := ix.Stats().Nodes[0]; n.Blocks[block.VRAM] != 40 || !n.Learned {
		t.Errorf("%+v", n)
	}
	// A heartbeat is an announcement: the node holds nothing yet.
	mustApply(t, ix, Event{Node: "node-0", Incarnation: 1, First: 1})
	mustApply(t, ix, stored("node-1", 1, block.Host, keys[:5]))
	if ix.Learn("node-0", keys) || ix.Learn("node-1", keys) {
		t.Error("nodes that announce are learned of")
	}
	ix.Match(keys, &m)
	if m.Of("node-0").Prefix != 0 || m.Of("node-1").Prefix != 5 {
		t.Errorf("announced: %+v", m.Nodes)
	}
	for ix.Sweep() {
	}
	if s := ix.Stats(); s.Blocks != 5 || s.Nodes[0].Blocks != (TierBlocks{}) || s.Nodes[0].Learned {
		t.Errorf("%d blocks; %+v", s.Blocks, s.Nodes)
	}
}

// Slots of both generations come back, however a node ends.
func TestLearnedSlotsComeBack(t *testing.T) {
	ix := newIndex(t, Exact, 0)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 3)
	for i := range MaxNodes {
		incarnation := uint64(i + 1)
		if err := ix.SetNode(NodeInfo{ID: "a", Incarnation: incarnation}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			ix.Learn("a", keys)
			if err := ix.Age(); err != nil {
				t.Fatal(err)
			}
		}
		switch i % 3 {
		case 0:
			ix.RemoveNode("a", incarnation)
		case 1:
			if err := ix.Load("a", incarnation, 5, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	ix.RemoveNode("a", 1<<40)
	for ix.Sweep() {
	}
	if s := ix.Stats(); s.Blocks != 0 || len(ix.slots.free) != ix.slots.made {
		t.Errorf("%d blocks, %d of %d slots are free", s.Blocks, len(ix.slots.free), ix.slots.made)
	}
}

// One router learns what another has decided.
func TestObservedBlocksAreLearned(t *testing.T) {
	c := round
	c.LearnTTL = 100
	a, b := newRouter(t, newIndex(t, Exact, 3), c), newRouter(t, newIndex(t, Exact, 3), c)
	q := Request{Keys: chain(rand.New(rand.NewPCG(1, 1)), 10)}
	route(t, a, Request{Tokens: 10}, at(0)) // so that its second choice is not the first by name
	d := route(t, a, q, at(100))
	if err := b.Observe(d.Assignment(&q), at(100)); err != nil {
		t.Fatal(err)
	}
	if got := route(t, b, q, at(110)); got.Node != d.Node || got.Candidates[0].Prefix != 10 {
		t.Errorf("%+v, want it on %s", got.Candidates[0], d.Node)
	}
}
