package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// round is a configuration whose costs can be computed in the head: 1000 tokens/s,
// blocks of 100 tokens (0.1 s each) and 1e6 bytes; host 1 ms, disk 10 ms, peers
// 5 ms a block and 1 ms once.
var round = Config{
	PrefillTokensPerSecond: 1000, BlockTokens: 100, BlockBytes: 1e6,
	Bandwidth:   Bandwidth{VRAM: 1e12, Host: 1e9, Disk: 1e8, Peer: 2e8},
	PeerLatency: 0.001,
}

func newRouter(t *testing.T, ix *Index, c Config) *Router {
	t.Helper()
	r, err := New(ix, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func route(t *testing.T, r *Router, q Request, now time.Time) Decision {
	t.Helper()
	d, err := r.Route(q, now)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestRouteGoesWhereTheBlocksAre(t *testing.T) {
	ix := newIndex(t, Exact, 3)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 10)
	mustApply(t, ix, stored("node-1", 1, block.Host, keys[:6]), stored("node-2", 1, block.Host, keys[:3]))
	r := newRouter(t, ix, round)
	d := route(t, r, Request{Keys: keys, Tokens: 1050}, at(0))
	if d.Node != "node-1" || d.Addr != "node-1:7000" || d.Tokens != 1050 || d.Blocks != 10 || d.ClusterBlocks != 6 || d.Considered != 3 {
		t.Fatalf("%+v", d)
	}
	var order []string
	for _, c := range d.Candidates {
		order = append(order, c.Node)
		if !near(c.Cost, c.Terms.Total()) {
			t.Errorf("%s: cost %v is not the sum of %+v", c.Node, c.Cost, c.Terms)
		}
	}
	if diff := cmp.Diff([]string{"node-1", "node-2", "node-0"}, order); diff != "" {
		t.Error(diff)
	}
	if len(d.Plan) != 0 {
		t.Errorf("plan %v", d.Plan)
	}

	// With node-1 excluded, it still serves as a peer.
	d = route(t, r, Request{Keys: keys, Exclude: []string{"node-1"}}, at(0))
	want := []Transfer{{From: "node-1", FromAddr: "node-1:7000", To: "node-2", First: 3, Count: 3, Tier: block.Host}}
	if diff := cmp.Diff(want, d.Plan); diff != "" {
		t.Error(diff)
	}
	if d = route(t, r, Request{Keys: keys, Only: []string{"node-0"}, Limit: 1}, at(0)); d.Node != "node-0" || len(d.Candidates) != 1 {
		t.Errorf("only node-0: %+v", d)
	}
}

func TestRouteErrors(t *testing.T) {
	r := newRouter(t, newIndex(t, Exact, 1), round)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 3)
	for _, c := range []struct {
		q    Request
		want error
	}{
		{Request{Keys: keys, Exclude: []string{"node-0"}}, ErrNoNodes},
		{Request{Keys: keys, Only: []string{"other"}}, ErrNoNodes},
		{Request{Keys: keys, Tokens: 299}, ErrRequest},
		{Request{Tokens: -1}, ErrRequest},
		{Request{Limit: -1}, ErrRequest},
	} {
		if _, err := r.Route(c.q, at(0)); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c.q, err)
		}
	}
	empty := newRouter(t, newIndex(t, Exact, 0), Config{})
	if _, err := empty.Route(Request{Tokens: 10}, at(0)); !errors.Is(err, ErrNoNodes) {
		t.Errorf("no nodes: %v", err)
	}
}

func TestDryRunLeavesNoTrace(t *testing.T) {
	r := newRouter(t, newIndex(t, Exact, 2), round)
	a := route(t, r, Request{Tokens: 1000, DryRun: true}, at(0))
	b := route(t, r, Request{Tokens: 1000, DryRun: true}, at(0))
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
}

func TestTiesGoToTheLeastAssigned(t *testing.T) {
	r := newRouter(t, newIndex(t, Exact, 3), round)
	var got []string
	for i := range 6 {
		// Long enough apart that the queues are empty again.
		got = append(got, route(t, r, Request{Tokens: 100}, at(float64(10*i))).Node)
	}
	want := []string{"node-0", "node-1", "node-2", "node-0", "node-1", "node-2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadOutweighsOverlap(t *testing.T) {
	ix := newIndex(t, Exact, 2)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 4)
	mustApply(t, ix, stored("node-0", 1, block.Host, keys))
	r := newRouter(t, ix, round)
	if err := r.SetLoad("node-0", 350, at(0)); err != nil {
		t.Fatal(err)
	}
	// Fetching four blocks takes 21 ms, the queue 350 ms.
	if d := route(t, r, Request{Keys: keys}, at(0)); d.Node != "node-1" || d.Candidates[0].Peers != 4 {
		t.Errorf("%+v", d.Candidates)
	}
	alone := round
	alone.NoPeers = true
	r = newRouter(t, ix, alone)
	if err := r.SetLoad("node-0", 350, at(0)); err != nil {
		t.Fatal(err)
	}
	// Computing four blocks takes 400 ms, more than the queue.
	if d := route(t, r, Request{Keys: keys}, at(0)); d.Node != "node-0" {
		t.Errorf("%+v", d.Candidates)
	}
}

func TestFasterNodesAreWorthTheirSpeed(t *testing.T) {
	ix := newIndex(t, Exact, 1)
	if err := ix.SetNode(NodeInfo{ID: "z-fast", Incarnation: 1, PrefillTokensPerSecond: 2000}); err != nil {
		t.Fatal(err)
	}
	d := route(t, newRouter(t, ix, round), Request{Tokens: 1000}, at(0))
	if d.Node != "z-fast" || !near(d.Candidates[0].Cost, 0.5) {
		t.Errorf("%+v", d.Candidates)
	}
}

func TestTemperature(t *testing.T) {
	ix := newIndex(t, Exact, 2)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 5)
	mustApply(t, ix, stored("node-1", 1, block.Host, keys))
	c := round
	c.NoPeers = true
	c.Temperature = 0.5
	c.Seed = 7
	run := func() (chosen []string, sampled int) {
		r := newRouter(t, ix, c)
		for range 2000 {
			d := route(t, r, Request{Keys: keys, DryRun: true}, at(0))
			chosen = append(chosen, d.Node)
			if d.Sampled != (d.Node == "node-0") || d.Candidates[0].Node != d.Node {
				t.Fatalf("%+v", d)
			}
			if d.Sampled {
				sampled++
			}
		}
		return chosen, sampled
	}
	first, n := run()
	second, _ := run()
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error("the same seed chose otherwise")
	}
	// The costs are 0.5 s and 0.006 s: p = e^-0.988 / (1 + e^-0.988) = 0.271.
	if p := float64(n) / 2000; p < 0.23 || p > 0.31 {
		t.Errorf("the dearer node was taken in %v of all cases", p)
	}
}

func TestDecisionJSON(t *testing.T) {
	ix := newIndex(t, Exact, 2)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 2)
	mustApply(t, ix, stored("node-1", 1, block.Disk, keys))
	d := route(t, newRouter(t, ix, round), Request{Keys: keys, Only: []string{"node-0"}}, at(0))
	p, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back Decision
	if err := json.Unmarshal(p, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, back); diff != "" {
		t.Error(diff)
	}
	for _, key := range []string{`"cost_seconds":`, `"overlap_blocks":{"vram":0,`, `"plan":[{"from":"node-1"`, `"tier":"disk"`} {
		if !strings.Contains(string(p), key) {
			t.Errorf("%s lacks %s", p, key)
		}
	}
}

// BenchmarkRoute routes prompts of 512 blocks, each held by one node, and asks for four
// candidates.
func BenchmarkRoute(b *testing.B) {
	for _, nodes := range []int{64, 1000} {
		b.Run(fmt.Sprintf("%d-nodes", nodes), func(b *testing.B) {
			ix := newIndex(b, Bisect, nodes)
			rng := rand.New(rand.NewPCG(1, 1))
			chains := make([][]block.Key, 256)
			for i := range chains {
				chains[i] = chain(rng, 512)
			}
			feed(b, ix, nodes, chains, func(i int) []int { return []int{i % nodes} })
			r, err := New(ix, Config{})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := r.Route(Request{Keys: chains[i%len(chains)], Limit: 4}, at(float64(i))); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
