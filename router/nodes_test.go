package router

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

func TestSlotsRunOutAndComeBack(t *testing.T) {
	ix := newIndex(t, Exact, MaxNodes)
	if err := ix.SetNode(NodeInfo{ID: "one more", Incarnation: 1}); !errors.Is(err, ErrTooManyNodes) {
		t.Fatalf("node %d: %v", MaxNodes+1, err)
	}
	key := chain(rand.New(rand.NewPCG(1, 1)), 1)
	mustApply(t, ix, stored("node-7", 1, block.Host, key))
	ix.RemoveNode("node-7", 1)
	// The slot is reused at once, and must not bring the old blocks with it.
	if err := ix.SetNode(NodeInfo{ID: "one more", Incarnation: 1}); err != nil {
		t.Fatal(err)
	}
	if h := ix.Holders(key[0], nil); len(h) != 0 {
		t.Errorf("holders %v", h)
	}
	if n := len(ix.Nodes()); n != MaxNodes {
		t.Errorf("%d nodes", n)
	}
}

func TestForgottenNodesAreBounded(t *testing.T) {
	ix := newIndex(t, Exact, 0)
	for i := range 2 * removedMost {
		ix.RemoveNode(nodeName(i), 1)
	}
	if n := len(ix.nodes); n > removedMost {
		t.Errorf("%d nodes remembered", n)
	}
}

func TestLateEventsOfTheRemovedAreIgnored(t *testing.T) {
	ix := newIndex(t, Exact, 1)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 2)
	ix.RemoveNode("node-0", 1)
	mustApply(t, ix, stored("node-0", 1, block.Host, keys))
	if s := ix.Stats(); s.Blocks != 0 || s.Ignored != 1 {
		t.Errorf("%d blocks, %d ignored", s.Blocks, s.Ignored)
	}
	// Before SetNode, the next incarnation is recorded and not shown.
	e := stored("node-0", 1, block.Host, keys)
	e.Incarnation = 2
	mustApply(t, ix, e)
	if h := ix.Holders(keys[0], nil); len(h) != 0 {
		t.Errorf("a node that was not announced is shown: %v", h)
	}
	if err := ix.SetNode(NodeInfo{ID: "node-0", Incarnation: 2, Addr: "x:1"}); err != nil {
		t.Fatal(err)
	}
	want := []Holder{{Node: "node-0", Addr: "x:1", Tiers: block.MaskOf(block.Host)}}
	if diff := cmp.Diff(want, ix.Holders(keys[0], nil)); diff != "" {
		t.Error(diff)
	}
}
