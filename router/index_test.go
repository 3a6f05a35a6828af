package router

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"cairn/block"
)

// stored is an event that stores keys, from change number first on.
func stored(node string, first uint64, tier block.Tier, keys []block.Key) Event {
	e := Event{Node: node, Incarnation: 1, First: first}
	for _, k := range keys {
		e.Changes = append(e.Changes, Change{Key: k, Tier: tier, Stored: true})
	}
	return e
}

func mustApply(t *testing.T, ix *Index, events ...Event) {
	t.Helper()
	for _, e := range events {
		if err := ix.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMalformedInputIsRefused(t *testing.T) {
	ix := newIndex(t, Exact, 1)
	key := chain(rand.New(rand.NewPCG(1, 1)), 1)[0]
	for name, err := range map[string]error{
		"no node":       ix.Apply(Event{First: 1}),
		"no number":     ix.Apply(Event{Node: "a"}),
		"unknown tier":  ix.Apply(Event{Node: "node-0", Incarnation: 1, First: 1, Changes: []Change{{Key: key, Tier: 3, Stored: true}}}),
		"load, no node": ix.Load("", 1, 1, nil),
		"load, no tier": ix.Load("a", 1, 1, []Entry{{Key: key}}),
		"load, tiers":   ix.Load("a", 1, 1, []Entry{{Key: key, Tiers: 8}}),
	} {
		if !errors.Is(err, ErrEvent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, info := range []NodeInfo{{}, {ID: "a", PrefillTokensPerSecond: -1}} {
		if err := ix.SetNode(info); !errors.Is(err, ErrNode) {
			t.Errorf("SetNode(%+v) = %v", info, err)
		}
	}
	if s := ix.Stats(); s.Blocks != 0 || len(s.Nodes) != 1 {
		t.Errorf("malformed input left %+v", s)
	}
	if _, err := NewIndex(IndexConfig{Mode: 7}); !errors.Is(err, ErrConfig) {
		t.Errorf("mode 7: %v", err)
	}
}

// Keys that differ in any byte are different blocks.
func TestEveryByteOfTheKeyCounts(t *testing.T) {
	ix := newIndex(t, Exact, 1)
	mustApply(t, ix, stored("node-0", 1, block.Host, []block.Key{{}}))
	for i := range block.KeySize {
		for bit := range 8 {
			var k block.Key
			k[i] = 1 << bit
			if h := ix.Holders(k, nil); len(h) != 0 {
				t.Errorf("%v is taken for the zero key", k)
			}
		}
	}
}

func ExampleIndex_Apply_gap() {
	ix, err := NewIndex(IndexConfig{})
	if err != nil {
		panic(err)
	}
	err = ix.Apply(Event{Node: "node-a", Incarnation: 3, First: 17})
	var gap *GapError
	if errors.As(err, &gap) {
		fmt.Printf("ask %s for a snapshot: have %d changes, the event starts at %d\n", gap.Node, gap.Expected-1, gap.Got)
	}
	// Output: ask node-a for a snapshot: have 0 changes, the event starts at 17
}
