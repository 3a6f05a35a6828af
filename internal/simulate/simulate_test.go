package simulate

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cairn/internal/trace"
)

func load(t *testing.T, requests []trace.Request) *Workload {
	t.Helper()
	w, err := Load("test", func(yield func(trace.Request, error) bool) {
		for _, r := range requests {
			if !yield(r, nil) {
				return
			}
		}
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func bundled(t *testing.T) *Workload {
	t.Helper()
	w, err := Load(trace.BundledName, trace.Bundled(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func run(t *testing.T, w *Workload, cfg Config) Result {
	t.Helper()
	r, err := Run(context.Background(), w, cfg)
	if err != nil {
		t.Fatalf("%s: %v", cfg.Policy, err)
	}
	return r
}

// all is every policy with every eviction that it may have.
func all() []string {
	list := []string{"belady"}
	for _, p := range Policies() {
		for _, e := range Evictions() {
			if p != "belady" {
				list = append(list, p+"/"+e)
			}
		}
	}
	return list
}

// With room for all blocks, who shares everything finds what an infinite cache does; with
// little room nobody finds more than the oracle.
func TestBounds(t *testing.T) {
	w := bundled(t)
	bound, err := trace.Measure(trace.Bundled())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"cairn", "cairn/lru", "cairn-copy", "cairn-affinity", "cairn-ahead", "pool", "pool/hazard", "belady"} {
		if r := run(t, w, Config{Capacity: w.Blocks, Policy: p}); r.Hits != bound.Hits {
			t.Errorf("%s finds %d blocks with room for all, want %d", p, r.Hits, bound.Hits)
		}
	}
	const little = 250
	best := run(t, w, Config{Capacity: little, Policy: "belady"}).Hits
	for _, p := range all() {
		r := run(t, w, Config{Capacity: little, Policy: p})
		if r.Hits == 0 || r.Hits > best || r.Hits > bound.Hits {
			t.Errorf("%s finds %d blocks; the oracle %d, an infinite cache %d", p, r.Hits, best, bound.Hits)
		}
		if r.Imbalance < 1 || r.Imbalance > float64(r.Nodes) || r.MeanTTFT <= 0 || r.P99TTFT < r.P50TTFT {
			t.Errorf("%s: %+v", p, r)
		}
		if fetches := strings.HasPrefix(p, "cairn"); fetches != (r.Fetched > 0) || r.MovedBytes != int64(r.Fetched)*DefaultBlockBytes {
			t.Errorf("%s fetches %d blocks, %d bytes", p, r.Fetched, r.MovedBytes)
		}
	}
}

func TestRepeatable(t *testing.T) {
	w := bundled(t)
	for _, p := range all() {
		cfg := Config{Capacity: 100, Policy: p, Seed: 3, Nodes: 5}
		if d := cmp.Diff(run(t, w, cfg), run(t, w, cfg)); d != "" {
			t.Errorf("%s: a second run differs:\n%s", p, d)
		}
	}
}

// The model by hand: one node that computes a block in 100 ms.
func TestModelByHand(t *testing.T) {
	w := load(t, []trace.Request{
		{IDs: []uint64{1, 2, 3}},                      // 300 ms
		{Arrival: 100e6, IDs: []uint64{1, 2, 4}},      // waits 200 ms, computes one
		{Arrival: 2000e6, IDs: []uint64{5}},           // 100 ms
		{Arrival: 3000e6, IDs: []uint64{1, 2, 3, 20}}, // one to compute
	})
	r := run(t, w, Config{Nodes: 1, Capacity: 100, Policy: "round-robin", PrefillRate: 5120})
	if r.Hits != 5 || r.Blocks != 11 {
		t.Errorf("%d of %d blocks found, want 5 of 11", r.Hits, r.Blocks)
	}
	if want := (0.3 + 0.3 + 0.1 + 0.1) / 4; math.Abs(r.MeanTTFT-want) > 1e-6 {
		t.Errorf("mean time to first token %g s, want %g", r.MeanTTFT, want)
	}
	if math.Abs(r.P99TTFT-0.3) > 1e-6 || math.Abs(r.P50TTFT-0.1) > 1e-6 {
		t.Errorf("p50 %g, p99 %g s, want 0.1 and 0.3", r.P50TTFT, r.P99TTFT)
	}
}

// A busy holder lends its blocks to an idle node, at a tenth of the time.
func TestFetchByHand(t *testing.T) {
	w := load(t, []trace.Request{
		{IDs: []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{Arrival: 1e6, IDs: []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
	})
	for policy, kept := range map[string]int{"cairn": 0, "cairn-copy": 10, "cairn-ahead": 0} {
		r := run(t, w, Config{Nodes: 2, Capacity: 100, Policy: policy, PrefillRate: 5120})
		if r.Hits != 10 || r.Fetched != 10 {
			t.Errorf("%s: %d found, %d fetched, want 10 of each", policy, r.Hits, r.Fetched)
		}
		if want := (1 + 0.1) / 2; math.Abs(r.MeanTTFT-want) > 1e-3 {
			t.Errorf("%s: mean time to first token %g s, want %g", policy, r.MeanTTFT, want)
		}
		c, err := newCluster(w, Config{Nodes: 2, Capacity: 100, Policy: policy, PrefillRate: 5120}.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.serve(&w.Requests[0], placement{node: c.nodes[0]}, policy); err != nil {
			t.Fatal(err)
		}
		p := placement{node: c.nodes[1], cached: 10, transfers: []transfer{{c.nodes[0], 0, 10}}}
		if _, err := c.serve(&w.Requests[1], p, policy); err != nil {
			t.Fatal(err)
		}
		if got := c.nodes[1].store.policy.Len(); got != kept {
			t.Errorf("%s: the second node keeps %d blocks, want %d", policy, got, kept)
		}
	}
}

// What is fetched ahead comes while the prompt waits; what comes again within two minutes
// stays.
func TestAheadByHand(t *testing.T) {
	w := load(t, []trace.Request{
		{IDs: []uint64{1, 2, 3, 4}},
		{Arrival: 1e6, IDs: []uint64{1, 2, 3, 4}},
		{Arrival: 2e6, IDs: []uint64{1, 2, 3, 4}},
		{Arrival: 180e9, IDs: []uint64{1, 2, 3, 4}},
	})
	c, err := newCluster(w, Config{Nodes: 2, Capacity: 100, Policy: "cairn-ahead", PrefillRate: 5120}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.serve(&w.Requests[0], placement{node: c.nodes[0]}, "cairn-ahead"); err != nil {
		t.Fatal(err)
	}
	p := placement{node: c.nodes[1], cached: 4, transfers: []transfer{{c.nodes[0], 0, 4}}}
	for i, kept := range []int{0, 4, 4} { // 100 ms a block, 10 ms a transfer
		if _, err := c.serve(&w.Requests[1+i], p, "cairn-ahead"); err != nil {
			t.Fatal(err)
		}
		if got := c.nodes[1].store.policy.Len(); got != kept {
			t.Errorf("after fetch %d the node keeps %d blocks, want %d", i+1, got, kept)
		}
	}
	n := c.nodes[1]
	n.busy = w.Requests[1].At + 30*time.Millisecond
	if got := c.enqueue(&w.Requests[1], p, 4, true); got != 40*time.Millisecond {
		t.Errorf("behind a wait of 30 ms, 4 transfers of 10 ms take %v", got)
	}
	n.busy = w.Requests[2].At + time.Second
	if got := c.enqueue(&w.Requests[2], p, 4, true); got != time.Second {
		t.Errorf("behind a wait of a second, 4 transfers take %v", got)
	}
}

// With half of the requests of a workload, the index and the stores say the same.
func TestIndexFollowsStores(t *testing.T) {
	w := bundled(t)
	c, err := newCluster(w, Config{Nodes: 3, Capacity: 300, Policy: "cairn-copy"}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	choose, err := c.chooser("cairn-copy")
	if err != nil {
		t.Fatal(err)
	}
	for i := range w.Requests[:500] {
		r := &w.Requests[i]
		p, err := choose(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.serve(r, p, "cairn-copy"); err != nil {
			t.Fatal(err)
		}
		c.enqueue(r, p, 0, false)
		for at, k := range r.Keys {
			held := 0
			for _, n := range c.nodes {
				if n.store.has(r.numbers[at]) {
					held++
				}
			}
			if got := len(c.index.Holders(k, nil)); got != held {
				t.Fatalf("request %d, block %d: the index names %d holders, %d hold it", i, at, got, held)
			}
		}
		for _, n := range c.nodes {
			if len(n.store.held) > 300 || n.store.policy.Len() != len(n.store.held) {
				t.Fatalf("%s holds %d blocks, its policy counts %d", n.name, len(n.store.held), n.store.policy.Len())
			}
		}
	}
}

func TestWrongConfigs(t *testing.T) {
	w := load(t, []trace.Request{{IDs: []uint64{1}}, {Arrival: time.Second, IDs: []uint64{1}}})
	for _, c := range []Config{
		{Capacity: 1, Policy: "cairn-affinity", AffinityTolerance: 1.5},
		{Policy: "cairn"}, {Capacity: 1, Policy: "best"}, {Capacity: 1, Policy: "belady/lru"}, {Capacity: 1, Policy: "cairn/best"},
		{Capacity: 1, Policy: "pool", Nodes: -1}, {Capacity: 1, Policy: "pool", Load: -1}, {Capacity: 1, Policy: "pool", FetchCost: math.NaN()},
		{Capacity: 1, Policy: "pool", BlockTokens: -1},
	} {
		if _, err := Run(context.Background(), w, c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, w, Config{Capacity: 1, Policy: "pool"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled run ends with %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, requests := range map[string][]trace.Request{
		"nothing": nil, "one time": {{IDs: []uint64{1}}, {IDs: []uint64{2}}},
		"out of order": {{Arrival: 2, IDs: []uint64{1}}, {Arrival: 1, IDs: []uint64{2}}},
	} {
		if _, err := Load(name, func(yield func(trace.Request, error) bool) {
			for _, r := range requests {
				if !yield(r, nil) {
					return
				}
			}
		}, 0); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// What generated requests promise: in order, repeatable, an id always after the same one.
func TestAgents(t *testing.T) {
	collect := func(a Agents) (all []trace.Request) {
		for r, err := range a.Trace() {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		return all
	}
	a := Agents{Requests: 3000, Seed: 5}
	got := collect(a)
	if len(got) != 3000 {
		t.Fatalf("%d requests, want 3000", len(got))
	}
	if d := cmp.Diff(got, collect(a)); d != "" {
		t.Error("the same seed made other requests")
	}
	if slices.EqualFunc(got, collect(Agents{Requests: 3000, Seed: 6}), func(x, y trace.Request) bool { return x.Arrival == y.Arrival }) {
		t.Error("another seed made the same times")
	}
	before := map[uint64]uint64{}
	for i, r := range got {
		if i > 0 && r.Arrival < got[i-1].Arrival {
			t.Fatalf("request %d comes before the one ahead of it", i)
		}
		if n := (r.Input + trace.BlockTokens - 1) / trace.BlockTokens; n != len(r.IDs) || n > agentContext+agentContext/4+1 {
			t.Fatalf("request %d has %d blocks for %d tokens", i, len(r.IDs), r.Input)
		}
		parent := uint64(math.MaxUint64)
		for _, id := range r.IDs {
			if p, ok := before[id]; ok && p != parent {
				t.Fatalf("request %d: block %d follows %d, and elsewhere %d", i, id, parent, p)
			}
			before[id] = parent
			parent = id
		}
	}
	var b trace.Bound
	for _, r := range got {
		b.Add(r)
	}
	if b.Ratio() < 0.5 || b.Ratio() > 0.97 {
		t.Errorf("an infinite cache finds %.2f", b.Ratio())
	}
	for _, bad := range []Agents{{Requests: -1}, {Types: -1}, {Rate: -1}, {Steps: 0.5}, {Rate: math.NaN()}} {
		if bad.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	if err := WriteTable(&b, []Result{{Policy: "cairn", Eviction: "hazard", Capacity: 5, HitRatio: .25}, {Policy: "pool", Eviction: "lru", Capacity: 7}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"5 blocks a node", "7 blocks a node", "25.00 %", "hazard"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
