package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

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

func TestLookUpsDoNotAllocate(t *testing.T) {
	ix := newIndex(t, Exact, 20)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 100)
	for n := range 20 {
		mustApply(t, ix, stored(nodeName(n), 1, block.Host, keys[:5*(n+1)]))
	}
	var m Match
	var holders []Holder
	look := func() {
		ix.Match(keys, &m)
		holders = ix.Holders(keys[0], holders[:0])
	}
	look()
	if n := testing.AllocsPerRun(100, look); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

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

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := chain(rand.New(rand.NewPCG(1, 1)), 10)
		ctx := t.Context()
		start := func(ix *Index, incarnation, position uint64) <-chan error {
			done := make(chan error, 1)
			go func() { done <- ix.Await(ctx, "node-0", incarnation, position) }()
			synctest.Wait()
			return done
		}
		over := func(c <-chan error) bool {
			synctest.Wait()
			select {
			case err := <-c:
				if err != nil {
					t.Error(err)
				}
				return true
			default:
				return false
			}
		}
		ix := newIndex(t, Exact, 1)
		if err := ix.Await(ctx, "stranger", 1, 5); err != nil {
			t.Error(err)
		}
		five, ten, next := start(ix, 1, 5), start(ix, 1, 10), start(ix, 2, 1)
		mustApply(t, ix, stored("node-0", 1, block.Host, keys[:4]))
		if over(five) {
			t.Error("5 was reached at 4")
		}
		mustApply(t, ix, stored("node-0", 5, block.Host, keys[4:6]))
		if !over(five) || over(ten) || over(next) {
			t.Error("at 6, only 5 is over")
		}
		if err := ix.Load("node-0", 1, 10, nil); err != nil {
			t.Fatal(err)
		}
		if !over(ten) || over(next) {
			t.Error("a snapshot up to 10 ends the wait for 10")
		}
		ix.RemoveNode("node-0", 1)
		if !over(next) {
			t.Error("removal ends every wait")
		}

		ix = newIndex(t, Exact, 1)
		old := start(ix, 1, 5)
		if err := ix.SetNode(NodeInfo{ID: "node-0", Incarnation: 2}); err != nil {
			t.Fatal(err)
		}
		if !over(old) {
			t.Error("a newer incarnation ends the wait for the older")
		}
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		if err := ix.Await(canceled, "node-0", 2, 5); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
}

// Readers beside a writer, on a chain that one node always holds: whatever the
// writer does with others, a reader sees all of it, and nothing that never was.
func TestReadersBesideAWriter(t *testing.T) {
	const nodes = 24
	ix := newIndex(t, Exact, nodes)
	rng := rand.New(rand.NewPCG(9, 9))
	keys := chain(rng, 200)
	never := chain(rng, 200)
	mustApply(t, ix, stored("node-0", 1, block.Disk, keys))

	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			var m Match
			var holders []Holder
			for {
				select {
				case <-stop:
					return
				default:
				}
				ix.Match(keys, &m)
				if o := m.Of("node-0"); m.Blocks != len(keys) || o.Prefix != len(keys) || o.Held.Total() != len(keys) {
					t.Errorf("node-0 holds %d of %d blocks", o.Prefix, m.Blocks)
					return
				}
				for i := 0; i < len(keys); i += 17 {
					seen := map[string]bool{}
					holders = ix.Holders(keys[i], holders[:0])
					for _, h := range holders {
						if seen[h.Node] || h.Tiers == 0 || h.Node == "node-0" && h.Tiers != block.MaskOf(block.Disk) {
							t.Errorf("holders of one block: %v", holders)
							return
						}
						seen[h.Node] = true
					}
					if h := ix.Holders(never[i], nil); len(h) != 0 {
						t.Errorf("a block nobody stored is held by %v", h)
						return
					}
				}
			}
		})
	}
	positions, incarnations := make([]uint64, nodes), make([]uint64, nodes)
	for range 1500 {
		n := 1 + rng.IntN(nodes-1)
		if rng.IntN(30) == 0 {
			ix.RemoveNode(nodeName(n), incarnations[n]+1)
			incarnations[n]++
			positions[n] = 0
			if err := ix.SetNode(NodeInfo{ID: nodeName(n), Incarnation: incarnations[n] + 1}); err != nil {
				t.Fatal(err)
			}
		}
		e := Event{Node: nodeName(n), Incarnation: incarnations[n] + 1, First: positions[n] + 1}
		add := rng.IntN(2) == 0
		for range 40 {
			k := keys[rng.IntN(len(keys))]
			if rng.IntN(4) == 0 {
				k = chain(rng, 1)[0] // others come and go around the chain
			}
			e.Changes = append(e.Changes, Change{Key: k, Tier: block.Tier(rng.IntN(block.Tiers)), Stored: add})
		}
		if rng.IntN(50) == 0 {
			var entries []Entry
			for _, k := range keys {
				entries = append(entries, Entry{Key: k, Tiers: block.MaskOf(block.VRAM)})
			}
			if err := ix.Load(e.Node, e.Incarnation, positions[n], entries); err != nil {
				t.Fatal(err)
			}
		}
		mustApply(t, ix, e)
		positions[n] = e.Last()
	}
	close(stop)
	readers.Wait()
}

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

// A reader that meets a change half done waits for the rest. The test holds the
// change open and gives the reader every chance to answer too early.
func TestReaderWaitsForAHalfDoneChange(t *testing.T) {
	ix := newIndex(t, Exact, 8)
	key := chain(rand.New(rand.NewPCG(1, 1)), 1)
	for n := range 8 {
		mustApply(t, ix, stored(nodeName(n), 1, block.Host, key))
	}
	fp := fingerprint(&key[0])
	s := ix.shardOf(fp)
	table := s.table.Load()
	word, _ := table.find(fp)
	if !isSet(word) {
		t.Fatal("eight holders must need a set")
	}
	size := &table.arena[setOffset(word)]

	ix.mu.Lock()
	s.begin()
	atomic.StoreUint64(size, 3)
	started, answer := make(chan struct{}), make(chan int, 1)
	go func() {
		close(started)
		answer <- len(ix.Holders(key[0], nil))
	}()
	<-started
	for range 2000 {
		runtime.Gosched()
	}
	atomic.StoreUint64(size, 8)
	s.end()
	ix.mu.Unlock()
	if n := <-answer; n != 8 {
		t.Errorf("the reader saw %d of 8 holders", n)
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
