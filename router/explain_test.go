package router

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

func TestExplain(t *testing.T) {
	ix := newIndex(t, Exact, 3)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 10)
	mustApply(t, ix, stored("node-1", 1, block.Host, keys[:6]), stored("node-2", 1, block.Disk, keys[:8]))
	r := newRouter(t, ix, round)
	if err := r.SetLoad("node-2", 400, at(0)); err != nil {
		t.Fatal(err)
	}
	d := route(t, r, Request{Keys: keys, Tokens: 1050, DryRun: true}, at(0))
	const want = `1050 tokens, 10 whole blocks; the cluster holds the first 8
  node    total   = queue  + compute  + own tiers  + peers  blocks: vram  host  disk  peers  to compute
> node-1  277 ms  0        250 ms     6 ms         21 ms    0             6     0     2      250 tokens
  node-0  301 ms  0        250 ms     0            51 ms    0             0     0     8      250 tokens
  node-2  730 ms  400 ms   250 ms     80 ms        0        0             0     8     0      250 tokens

node-1 should give the first token in 277 ms: of blocks 0-7 it holds 6 itself and fetches 2 from peers. node-0 is next, 24 ms slower, mostly for more to fetch from peers (30 ms).
fetch blocks 6-7 from node-2 (node-2:7000, disk)
`
	if diff := cmp.Diff(want, d.Explain()); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		d    Decision
		want string
	}{
		{Decision{}, "no decision"},
		{Decision{Considered: 1, Candidates: []Candidate{{Node: "a"}}}, "nothing of the prompt is cached anywhere. No other node could be chosen."},
		{Decision{ClusterBlocks: 3, Considered: 2, Candidates: []Candidate{{Node: "a", QueueTokens: 1}}}, "computing everything is faster than fetching what is cached, and 1 token waits ahead"},
		{Decision{Considered: 2, Candidates: []Candidate{{Node: "a"}, {Node: "b", Assigned: 2}}}, "b would cost the same; it was given more requests so far (2 against 0)"},
		{Decision{Considered: 2, Candidates: []Candidate{{Node: "a"}, {Node: "b"}}}, "the first by name"},
		{Decision{Considered: 5, Candidates: []Candidate{{Node: "a"}}}, "and 4 nodes more"},
		{Decision{Sampled: true, Considered: 2, Candidates: []Candidate{{Node: "a", Cost: 2}, {Node: "b", Cost: 1.5}}}, "b is cheapest, at 1.50 s"},
		{Decision{Considered: 2, Candidates: []Candidate{{Node: "a", Cached: 1, Peers: 1}, {Node: "b", Cost: 1, Terms: Terms{Queue: 1}}}}, "it fetches block 0 from peers. b is next, 1.00 s slower, mostly for a longer queue"},
		{Decision{Scorer: "mine", Considered: 2, Candidates: []Candidate{{Node: "a", Cost: 3, Terms: Terms{Prefill: 0.5, Scorer: 2.5}}, {Node: "b", Cost: 40}}},
			"By mine, where the least score is first, a has 3; it should give the first token in 500 ms: nothing of the prompt is cached anywhere. b is next, with a score of 40."},
		{Decision{Considered: 1, Candidates: []Candidate{{Node: "a", Cached: 3, Overlap: TierBlocks{3}}}}, "it holds blocks 0-2 itself"},
	} {
		if got := c.d.Explain(); !strings.Contains(got, c.want) {
			t.Errorf("%q lacks %q", got, c.want)
		}
	}
}
