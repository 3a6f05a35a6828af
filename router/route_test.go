package router

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

func TestCostTable(t *testing.T) {
	vram, host, disk := TierBlocks{1, 0, 0}, TierBlocks{0, 1, 0}, TierBlocks{0, 0, 1}
	times := func(b TierBlocks, n int) TierBlocks { return TierBlocks{b[0] * n, b[1] * n, b[2] * n} }
	slow := round
	slow.Bandwidth.Disk, slow.Bandwidth.Peer = 1e6, 5e6 // a block takes 1 s from disk, 0.2 s from a peer
	alone := round
	alone.NoPeers = true
	heavy := round
	heavy.QueueWeight = 3
	for _, c := range []struct {
		name   string
		config Config
		match  Match
		own    Overlap
		queue  float64
		want   Candidate
	}{
		{name: "nothing cached", config: round,
			want: Candidate{Terms: Terms{Prefill: 1}, PrefillTokens: 1000}},
		{name: "queue ahead", config: round, queue: 500,
			want: Candidate{Terms: Terms{Queue: 0.5, Prefill: 1}, PrefillTokens: 1000, QueueTokens: 500}},
		{name: "queue weight", config: heavy, queue: 500,
			want: Candidate{Terms: Terms{Queue: 1.5, Prefill: 1}, PrefillTokens: 1000, QueueTokens: 500}},
		{name: "own host", config: round, match: Match{Blocks: 4, Tiers: times(host, 4)},
			own:  Overlap{Prefix: 4, PrefixTiers: times(host, 4), Held: times(host, 4), best: times(host, 4)},
			want: Candidate{Terms: Terms{Prefill: 0.6, Host: 0.004}, Prefix: 4, Cached: 4, Overlap: times(host, 4), PrefillTokens: 600}},
		{name: "own disk, though a peer has it in memory", config: round, match: Match{Blocks: 4, Tiers: times(vram, 4)},
			own:  Overlap{Prefix: 4, PrefixTiers: times(disk, 4), Held: times(disk, 4), best: times(vram, 4)},
			want: Candidate{Terms: Terms{Prefill: 0.6, Disk: 0.04}, Prefix: 4, Cached: 4, Overlap: times(disk, 4), PrefillTokens: 600}},
		{name: "peers hold all", config: round, match: Match{Blocks: 10, Tiers: times(host, 10)},
			want: Candidate{Terms: Terms{Prefill: 0.001, Peer: 0.051}, Cached: 10, Peers: 10, PrefillTokens: 1}},
		{name: "a peer's disk is slower than the network", config: round, match: Match{Blocks: 2, Tiers: times(disk, 2)},
			want: Candidate{Terms: Terms{Prefill: 0.8, Peer: 0.021}, Cached: 2, Peers: 2, PrefillTokens: 800}},
		{name: "own prefix, a hole that a peer fills, own again", config: round, match: Match{Blocks: 6, Tiers: times(host, 6)},
			own:  Overlap{Prefix: 2, PrefixTiers: times(host, 2), Held: times(host, 5), best: times(host, 5)},
			want: Candidate{Terms: Terms{Prefill: 0.4, Host: 0.005, Peer: 0.006}, Prefix: 2, Cached: 6, Overlap: times(host, 5), Peers: 1, PrefillTokens: 400}},
		{name: "own disk, then peers' memory, which also has the former", config: round, match: Match{Blocks: 6, Tiers: times(host, 6)},
			own:  Overlap{Prefix: 4, PrefixTiers: times(disk, 4), Held: times(disk, 4), best: times(host, 4)},
			want: Candidate{Terms: Terms{Prefill: 0.4, Disk: 0.04, Peer: 0.011}, Prefix: 4, Cached: 6, Overlap: times(disk, 4), Peers: 2, PrefillTokens: 400}},
		{name: "no peers", config: alone, match: Match{Blocks: 6, Tiers: times(host, 6)},
			own:  Overlap{Prefix: 2, PrefixTiers: times(host, 2), Held: times(host, 5), best: times(host, 5)},
			want: Candidate{Terms: Terms{Prefill: 0.8, Host: 0.002}, Prefix: 2, Cached: 2, Overlap: times(host, 2), PrefillTokens: 800}},
		{name: "fetching is slower than computing", config: slow, match: Match{Blocks: 6, Tiers: times(host, 6)},
			own:  Overlap{Prefix: 2, PrefixTiers: times(host, 2), Held: times(host, 2), best: times(host, 2)},
			want: Candidate{Terms: Terms{Prefill: 0.8, Host: 0.002}, Prefix: 2, Cached: 2, Overlap: times(host, 2), PrefillTokens: 800}},
		{name: "even the own disk is", config: slow, match: Match{Blocks: 2, Tiers: times(disk, 2)},
			own:  Overlap{Prefix: 2, PrefixTiers: times(disk, 2), Held: times(disk, 2), best: times(disk, 2)},
			want: Candidate{Terms: Terms{Prefill: 1}, Prefix: 2, PrefillTokens: 1000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.config.withDefaults()
			d := got.cost(shape{tokens: 1000, blockTokens: 100, blockBytes: 1e6}, &c.match, &c.own, c.queue, 1000, Active{})
			c.want.Cost = c.want.Terms.Total()
			d.Terms.VRAM = 0
			if diff := cmp.Diff(c.want, d, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	_, err := New(newIndex(t, Exact, 0), Config{PrefillTokensPerSecond: -1, BlockTokens: -1, Temperature: math.NaN()})
	if !errors.Is(err, ErrConfig) {
		t.Fatal(err)
	}
	for _, name := range []string{"prefill_tokens_per_second", "block_tokens", "temperature_seconds"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not mention %s", err, name)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}

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

func TestPlanPrefersFastTiersAndLongRuns(t *testing.T) {
	ix := newIndex(t, Exact, 4)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 12)
	mustApply(t, ix,
		stored("node-1", 1, block.Disk, keys),
		stored("node-2", 1, block.Host, keys[2:8]),
		stored("node-3", 1, block.Host, keys[4:12]),
		stored("node-0", 1, block.Host, keys[9:10]),
	)
	r := newRouter(t, ix, round)
	d := route(t, r, Request{Keys: keys, Only: []string{"node-0"}}, at(0))
	want := []Transfer{
		{From: "node-1", First: 0, Count: 2, Tier: block.Disk},
		{From: "node-2", First: 2, Count: 6, Tier: block.Host},
		{From: "node-3", First: 8, Count: 1, Tier: block.Host},
		{From: "node-3", First: 10, Count: 2, Tier: block.Host},
	}
	for i := range want {
		want[i].To, want[i].FromAddr = "node-0", want[i].From+":7000"
	}
	if diff := cmp.Diff(want, d.Plan); diff != "" {
		t.Error(diff)
	}
	fetched := 0
	for _, p := range d.Plan {
		fetched += p.Count
	}
	if c := d.Candidates[0]; fetched != c.Peers || c.Cached != 12 || c.Overlap.Total() != 1 {
		t.Errorf("%d planned for %+v", fetched, c)
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

// queueOf is what the router believes of a node.
func queueOf(t *testing.T, r *Router, node string, now time.Time) int {
	t.Helper()
	d := route(t, r, Request{Tokens: 1, Only: []string{node}, DryRun: true}, now)
	return d.Candidates[0].QueueTokens
}

func TestQueueEstimate(t *testing.T) {
	ix := newIndex(t, Exact, 1)
	r := newRouter(t, ix, round)
	send := func(id string, tokens int, now time.Time) { route(t, r, Request{ID: id, Tokens: tokens}, now) }
	check := func(what string, now time.Time, want int) {
		t.Helper()
		if got := queueOf(t, r, "node-0", now); got != want {
			t.Errorf("%s: %d tokens, want %d", what, got, want)
		}
	}
	check("at first", at(0), 0)
	send("", 3000, at(0))
	check("routed without an id", at(0), 3000)
	check("it drains at the prefill rate", at(1), 2000)
	check("to nothing", at(9), 0)
	send("a", 500, at(10))
	send("b", 700, at(11))
	check("requests with an id stay", at(12), 1200)
	r.Done("a")
	check("until they are done", at(12), 700)
	r.Done("a")
	r.Done("unknown")
	check("once", at(12), 700)
	send("b", 900, at(12))
	check("routing again replaces", at(12), 900)
	send("c", 100, at(14))
	if err := r.SetLoad("node-0", 5000, at(13)); err != nil {
		t.Fatal(err)
	}
	check("a report covers what was routed before it", at(13), 5100)
	check("and drains", at(15), 3100)
	r.Done("b")
	check("what it covers is not taken off again", at(15), 3100)
	if err := r.SetLoad("node-0", 9999, at(12)); err != nil {
		t.Fatal(err)
	}
	check("an older report is ignored", at(15), 3100)
	check("a request never reported done", at(14+DefaultRoutedTTL), 100)
	check("expires", at(14.1+DefaultRoutedTTL), 0)
	for _, err := range []error{r.SetLoad("", 1, at(0)), r.SetLoad("node-0", -1, at(0))} {
		if !errors.Is(err, ErrNode) {
			t.Error(err)
		}
	}
}

func TestLoadOfDepartedNodesIsForgotten(t *testing.T) {
	ix := newIndex(t, Exact, 1)
	r := newRouter(t, ix, round)
	for i := 1; i < 200; i++ {
		if err := ix.SetNode(NodeInfo{ID: nodeName(i), Incarnation: 1}); err != nil {
			t.Fatal(err)
		}
		route(t, r, Request{ID: nodeName(i), Tokens: 10, Only: []string{nodeName(i)}}, at(0))
		ix.RemoveNode(nodeName(i), 1)
	}
	route(t, r, Request{Tokens: 1}, at(0))
	if len(r.loads) > 20 || len(r.open) > 20 {
		t.Errorf("%d loads and %d requests of nodes that are gone", len(r.loads), len(r.open))
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
		{Decision{ClusterBlocks: 3, Considered: 2, Candidates: []Candidate{{Node: "a", QueueTokens: 1}}}, "computing everything is faster than fetching what is cached, and 1 token wait"},
		{Decision{Considered: 2, Candidates: []Candidate{{Node: "a"}, {Node: "b", Assigned: 2}}}, "b would cost the same; it was given more requests so far (2 against 0)"},
		{Decision{Considered: 2, Candidates: []Candidate{{Node: "a"}, {Node: "b"}}}, "the first by name"},
		{Decision{Considered: 5, Candidates: []Candidate{{Node: "a"}}}, "and 4 nodes more"},
		{Decision{Sampled: true, Considered: 2, Candidates: []Candidate{{Node: "a", Cost: 2}, {Node: "b", Cost: 1.5}}}, "b is cheapest, at 1.50 s"},
		{Decision{Considered: 2, Candidates: []Candidate{{Node: "a", Cached: 1, Peers: 1}, {Node: "b", Cost: 1, Terms: Terms{Queue: 1}}}}, "it fetches block 0 from peers. b is next, 1.00 s slower, mostly for a longer queue"},
		{Decision{Considered: 1, Candidates: []Candidate{{Node: "a", Cached: 3, Overlap: TierBlocks{3}}}}, "it holds blocks 0-2 itself"},
	} {
		if got := c.d.Explain(); !strings.Contains(got, c.want) {
			t.Errorf("%q lacks %q", got, c.want)
		}
	}
}

func BenchmarkRoute(b *testing.B) {
	ix := newIndex(b, Exact, 64)
	rng := rand.New(rand.NewPCG(1, 1))
	chains := make([][]block.Key, 256)
	for i := range chains {
		chains[i] = chain(rng, 512)
	}
	feed(b, ix, 64, chains, func(i int) []int { return []int{i % 64} })
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
}
