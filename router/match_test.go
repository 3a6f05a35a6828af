package router

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

func TestPrefixClosedBisectionIsExact(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 0))
		nodes := 1 + rng.IntN(20)
		exact, bisect := newIndex(t, Exact, nodes), newIndex(t, Bisect, nodes)
		keys := chain(rng, 1+rng.IntN(300))
		for n := range nodes {
			// One tier for a node's prefix, so that tiers are closed too.
			e := stored(nodeName(n), 1, block.Tier(rng.IntN(block.Tiers)), keys[:rng.IntN(len(keys)+1)])
			mustApply(t, exact, e)
			mustApply(t, bisect, e)
		}
		if rng.IntN(2) == 0 {
			exact.RemoveNode("node-0", 1)
			bisect.RemoveNode("node-0", 1)
		}
		var a, b Match
		exact.Match(keys, &a)
		bisect.Match(keys, &b)
		if a.Blocks != b.Blocks || a.Tiers != b.Tiers {
			t.Fatalf("seed %d: bisection finds %d blocks %v, want %d %v", seed, b.Blocks, b.Tiers, a.Blocks, a.Tiers)
		}
		if diff := cmp.Diff(overlapsOf(&a), overlapsOf(&b)); diff != "" {
			t.Fatalf("seed %d (-exact +bisect):\n%s", seed, diff)
		}
	}
}

func TestTierBlocksJSON(t *testing.T) {
	b := TierBlocks{1, 2, 3}
	p, err := json.Marshal(b)
	if err != nil || string(p) != `{"vram":1,"host":2,"disk":3}` {
		t.Fatalf("%s, %v", p, err)
	}
	var back TierBlocks
	if err := json.Unmarshal(p, &back); err != nil || back != b {
		t.Errorf("%v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`[1]`), &back); err == nil {
		t.Error("a list is no TierBlocks")
	}
}
