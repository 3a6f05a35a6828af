package router

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

// A snapshot takes a while to load. What happens to the node meanwhile is newer.
func TestSnapshotOvertakenWhileLoading(t *testing.T) {
	keys := chain(rand.New(rand.NewPCG(1, 1)), 2)
	for name, meanwhile := range map[string]func(*Index) error{
		"a change": func(ix *Index) error { return ix.Apply(stored("node-0", 1, block.Host, keys[:1])) },
		"removal":  func(ix *Index) error { ix.RemoveNode("node-0", 1); return nil },
		"restart":  func(ix *Index) error { return ix.SetNode(NodeInfo{ID: "node-0", Incarnation: 2}) },
	} {
		ix := newIndex(t, Exact, 1)
		l, err := ix.BeginLoad("node-0", 1, 0)
		if err == nil {
			err = l.Add([]Entry{{Key: keys[1], Tiers: block.MaskOf(block.Host)}})
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := meanwhile(ix); err != nil {
			t.Fatal(err)
		}
		want := ix.Stats().Nodes
		l.Finish()
		if h := ix.Holders(keys[1], nil); len(h) != 0 {
			t.Errorf("%s: the snapshot is shown: %v", name, h)
		}
		if diff := cmp.Diff(want, ix.Stats().Nodes); diff != "" {
			t.Errorf("%s: the snapshot changed the node:\n%s", name, diff)
		}
		if s := ix.Stats(); s.StaleLoads != 1 {
			t.Errorf("%s: %d stale loads", name, s.StaleLoads)
		}
	}
}

// A snapshot that is abandoned, or of which something is not valid, changes nothing, and its
// slot can be used again.
func TestSnapshotAbandoned(t *testing.T) {
	keys := chain(rand.New(rand.NewPCG(1, 1)), 3)
	ix := newIndex(t, Exact, 1)
	mustApply(t, ix, stored("node-0", 1, block.Host, keys[:1]))
	for range MaxNodes + 1 {
		l, err := ix.BeginLoad("node-0", 1, 5)
		if err == nil {
			err = l.Add([]Entry{{Key: keys[1], Tiers: block.MaskOf(block.Host)}})
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Add([]Entry{{Key: keys[2], Tiers: 8}}); !errors.Is(err, ErrEvent) {
			t.Fatalf("a tier that there is not: %v", err)
		}
		l.Abandon()
		l.Finish()
	}
	for i, want := range []int{1, 0, 0} {
		if h := ix.Holders(keys[i], nil); len(h) != want {
			t.Errorf("block %d is held by %v", i, h)
		}
	}
	if _, position, _ := ix.Position("node-0"); position != 1 {
		t.Errorf("position %d", position)
	}
}
