package router

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"cairn/block"
)

// withAffinity is the configuration round with that scorer; tolerance 0 is the default.
func withAffinity(t *testing.T, tolerance float64) Config {
	t.Helper()
	c := round
	var err error
	if c.Scorer, err = NamedScorer(ScoreAffinity, ScorerConfig{AffinityTolerance: tolerance}); err != nil {
		t.Fatal(err)
	}
	return c
}

// prompts are so many of ten blocks, one second of computing, that have nothing in common.
func prompts(count int) [][]block.Key {
	rng := rand.New(rand.NewPCG(7, 7))
	list := make([][]block.Key, count)
	for i := range list {
		list[i] = chain(rng, 10)
	}
	return list
}

// Nodes that cost nearly the same share the prompts evenly, each prompt on a node of its
// own; beyond the tolerance the cheapest node takes them all.
func TestAffinityWithinItsTolerance(t *testing.T) {
	for _, c := range []struct {
		tolerance float64
		queue     int // tokens, milliseconds, before node-0
		shared    bool
	}{
		{0, 0, true}, {0, 290, true}, {0, 310, false}, {0.1, 90, true}, {0.1, 110, false}, {1, 990, true}, {1, 1010, false},
	} {
		r := newRouter(t, newIndex(t, Exact, 3), withAffinity(t, c.tolerance))
		// node-2 is out of reach; what would prefer it is shared by the others too.
		for node, queue := range map[string]int{"node-0": c.queue, "node-2": 1500} {
			if err := r.SetLoad(node, queue, at(0)); err != nil {
				t.Fatal(err)
			}
		}
		slower := 0
		for _, keys := range prompts(400) {
			q := Request{Keys: keys, DryRun: true}
			d := route(t, r, q, at(0))
			if again := route(t, r, q, at(0)); again.Node != d.Node {
				t.Fatalf("the same prompt goes to %s, then to %s", d.Node, again.Node)
			}
			for _, n := range d.Candidates {
				if !near(n.Cost, n.Terms.Total()) {
					t.Fatalf("a cost of %g s is not the sum of %+v", n.Cost, n.Terms)
				}
			}
			if d.Node == "node-0" {
				slower++
			}
		}
		if c.shared && (slower < 160 || slower > 240) || !c.shared && slower > 0 {
			t.Errorf("tolerance %g: %d of 400 prompts wait for %d ms", c.tolerance, slower, c.queue)
		}
	}
}

// A conversation that was evicted from some block on comes back to the node that computed
// that block, however long it has become.
func TestAffinityBringsConversationsBack(t *testing.T) {
	const nodes = 8
	ix := newIndex(t, Exact, nodes)
	r := newRouter(t, ix, withAffinity(t, 0))
	rng := rand.New(rand.NewPCG(2, 2))
	system := chain(rng, 4)
	mustApply(t, ix, stored("node-0", 1, block.Host, system))
	seen := map[string]int{}
	for range 200 {
		talk := append(system[:4:4], chain(rng, 30)[4:]...)
		first := route(t, r, Request{Keys: talk[:20], DryRun: true}, at(0))
		later := route(t, r, Request{Keys: talk, DryRun: true}, at(0))
		if first.Node != later.Node {
			t.Fatalf("it was computed on %s and comes back to %s", first.Node, later.Node)
		}
		seen[first.Node]++
	}
	// Fetching the four blocks costs 21 ms of a tolerance of 480: node-0 is one of eight.
	for node, n := range seen {
		if n > 60 {
			t.Errorf("%s computes %d of 200 conversations", node, n)
		}
	}
	if len(seen) != nodes {
		t.Errorf("conversations only on %v", seen)
	}
}

// When a node leaves, only its own prompts move; routers that learned of the nodes in
// another order agree.
func TestAffinityIsRendezvousHashing(t *testing.T) {
	ix, other := newIndex(t, Exact, 5), newIndex(t, Exact, 0)
	for i := range 5 {
		setNode(t, other, NodeInfo{ID: nodeName(4 - i)})
	}
	r, s := newRouter(t, ix, withAffinity(t, 0)), newRouter(t, other, withAffinity(t, 0))
	list := prompts(100)
	before := make([]string, len(list))
	for i, keys := range list {
		q := Request{Keys: keys, DryRun: true}
		before[i] = route(t, r, q, at(0)).Node
		if node := route(t, s, q, at(0)).Node; node != before[i] {
			t.Fatalf("one router takes %s, another %s", before[i], node)
		}
	}
	moved := 0
	for i, keys := range list {
		node := route(t, r, Request{Keys: keys, Exclude: []string{"node-2"}, DryRun: true}, at(0)).Node
		if before[i] == "node-2" {
			moved++
		} else if node != before[i] {
			t.Errorf("a prompt leaves %s for %s", before[i], node)
		}
	}
	if moved == 0 {
		t.Error("no prompt preferred node-2")
	}
}

// What is cached almost wholly goes where it is; what has no block goes round.
func TestAffinityHasNoSayWithoutBlocksToCompute(t *testing.T) {
	ix := newIndex(t, Exact, 4)
	r := newRouter(t, ix, withAffinity(t, 1))
	for i, keys := range prompts(40) {
		holder := nodeName(i % 4)
		mustApply(t, ix, stored(holder, uint64(i/4*10+1), block.Host, keys))
		if d := route(t, r, Request{Keys: keys, DryRun: true}, at(0)); d.Node != holder {
			t.Errorf("%s holds it all, %s is chosen:\n%s", holder, d.Node, d.Explain())
		}
	}
	taken := map[string]int{}
	for range 8 {
		taken[route(t, r, Request{Tokens: 50}, at(0)).Node]++
	}
	if len(taken) != 4 {
		t.Errorf("prompts without whole blocks go to %v", taken)
	}
}

// The tolerance is a share of what has to be computed on any node, not of what one of them
// would compute or of the wait.
func TestAffinityTolerancesAreOfTheLeastToCompute(t *testing.T) {
	// node-0 would compute 1 s; node-1 holds eight blocks, and computes 0.2 s after its
	// queue. Reading the blocks takes 8 ms; 0.3 of 0.2 s is 60 ms.
	for queue, shared := range map[int]bool{700: false, 740: true, 790: true} {
		c := withAffinity(t, 0)
		c.NoPeers = true
		slower := 0
		for _, keys := range prompts(100) {
			ix := newIndex(t, Exact, 2)
			mustApply(t, ix, stored("node-1", 1, block.Host, keys[:8]))
			r := newRouter(t, ix, c)
			if err := r.SetLoad("node-1", queue, at(0)); err != nil {
				t.Fatal(err)
			}
			if route(t, r, Request{Keys: keys, DryRun: true}, at(0)).Node == "node-0" {
				slower++
			}
		}
		if shared && (slower < 30 || slower > 70) || !shared && slower > 0 {
			t.Errorf("with %d tokens before the holder, %d of 100 prompts go to the other", queue, slower)
		}
	}
}

func TestAffinityExplains(t *testing.T) {
	ix := newIndex(t, Exact, 2)
	r := newRouter(t, ix, withAffinity(t, 0.25))
	if err := r.SetLoad("node-0", 200, at(0)); err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, keys := range prompts(20) {
		d := route(t, r, Request{Keys: keys, DryRun: true}, at(0))
		want, scored, limit := "Of the nodes within 250 ms of the fastest, the prompt prefers it.", "node-1 has 0.75;", 1
		if d.Node == "node-0" {
			scored = "node-0 has 0.95;"
			want, limit = "Of the nodes within 250 ms of the fastest, node-1 at 1.00 s, the prompt prefers it.", 2
		}
		said[want] = true
		short := route(t, r, Request{Keys: keys, DryRun: true, Limit: limit}, at(0))
		for _, d := range []Decision{d, short} {
			if text := d.Explain(); !strings.Contains(text, want) || !strings.Contains(text, "score: affinity") || !strings.Contains(text, scored) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	if len(said) != 2 {
		t.Errorf("only %v", said)
	}
}

func TestAffinityTolerancesThatAreRefused(t *testing.T) {
	for _, bad := range []float64{-0.1, 1.1, math.NaN(), math.Inf(1)} {
		for _, name := range []string{ScoreTTFT, ScoreAffinity} {
			if _, err := NamedScorer(name, ScorerConfig{AffinityTolerance: bad}); !errors.Is(err, ErrConfig) || !strings.Contains(fmt.Sprint(err), "affinity_tolerance") {
				t.Errorf("%s with %g: %v", name, bad, err)
			}
		}
	}
}
