package router

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

// violated is a bisecting index, audited every second time, in which node a holds all of
// keys but number 10, which a prefix-closed node would not, and node b holds 50.
func violated(t *testing.T) (*Index, []block.Key) {
	t.Helper()
	ix, err := NewIndex(IndexConfig{Mode: Bisect, AuditEvery: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		if err := ix.SetNode(NodeInfo{ID: id, Incarnation: 1}); err != nil {
			t.Fatal(err)
		}
	}
	keys := chain(rand.New(rand.NewPCG(1, 1)), 100)
	mustApply(t, ix, stored("a", 1, block.Host, keys), stored("a", 101, block.Disk, keys[20:30]), stored("b", 1, block.Host, keys[:50]))
	mustApply(t, ix, Event{Node: "a", Incarnation: 1, First: 111, Changes: []Change{{Key: keys[10], Tier: block.Host}}})
	return ix, keys
}

func TestAuditFindsAndRepairsAViolation(t *testing.T) {
	ix, keys := violated(t)
	var m Match
	ix.Match(keys, &m)
	if m.Of("a").Prefix == 10 {
		t.Fatal("bisection finds the hole: this test needs it to miss it")
	}
	// The audit answers rightly, and takes out what is behind the hole.
	ix.Match(keys, &m)
	if m.Of("a").Prefix != 10 || m.Of("b").Prefix != 50 || m.Blocks != 100 {
		t.Errorf("audited: a has %d, b %d of %d blocks", m.Of("a").Prefix, m.Of("b").Prefix, m.Blocks)
	}
	s := ix.Stats()
	if s.Audits != 1 || s.Violations != 1 || s.Retracted != 89 {
		t.Errorf("%d audits, %d violations, %d retracted", s.Audits, s.Violations, s.Retracted)
	}
	if want := (TierBlocks{block.Host: 10}); s.Nodes[0].Blocks != want {
		t.Errorf("a is said to hold %v, want %v", s.Nodes[0].Blocks, want)
	}
	for range 2 { // bisecting, and audited again
		ix.Match(keys, &m)
		if m.Of("a").Prefix != 10 || m.Of("b").Prefix != 50 || m.Blocks != 50 {
			t.Errorf("after the repair: a has %d, b %d of %d blocks", m.Of("a").Prefix, m.Of("b").Prefix, m.Blocks)
		}
	}
	if s := ix.Stats(); s.Audits != 2 || s.Violations != 1 {
		t.Errorf("after the repair: %d audits, %d violations", s.Audits, s.Violations)
	}
	if diff := cmp.Diff([]Hole{{Node: "a", Incarnation: 1, Key: keys[10], Behind: 89}}, ix.Holes()); diff != "" {
		t.Error(diff)
	}
	if h := ix.Holes(); len(h) != 0 {
		t.Errorf("told twice: %v", h)
	}
}

// The owner of the index doubts the node; its next event asks for a snapshot, which
// brings back what the node does hold.
func TestDoubtAsksForASnapshot(t *testing.T) {
	ix, keys := violated(t)
	var m Match
	for range 2 {
		ix.Match(keys, &m)
	}
	ix.Doubt("a", 2) // of another incarnation
	if _, position, _ := ix.Position("a"); position != 111 {
		t.Errorf("position %d", position)
	}
	ix.Doubt("a", 1)
	var gap *GapError
	if err := ix.Apply(Event{Node: "a", Incarnation: 1, First: 112}); !errors.As(err, &gap) || gap.Expected != 1 {
		t.Fatalf("a heartbeat after the doubt: %v", err)
	}
	if ix.Match(keys, &m); m.Of("a").Prefix != 10 {
		t.Errorf("in doubt, a holds %d blocks", m.Of("a").Prefix)
	}
	var entries []Entry
	for _, k := range keys {
		entries = append(entries, Entry{Key: k, Tiers: block.MaskOf(block.Host)})
	}
	if err := ix.Load("a", 1, 111, entries); err != nil {
		t.Fatal(err)
	}
	mustApply(t, ix, Event{Node: "a", Incarnation: 1, First: 112})
	if ix.Match(keys, &m); m.Of("a").Prefix != 100 {
		t.Errorf("after the snapshot a holds %d blocks", m.Of("a").Prefix)
	}
	if s := ix.Stats(); s.Doubts != 1 || s.Loads != 1 {
		t.Errorf("%d doubts, %d loads", s.Doubts, s.Loads)
	}
}

// A change half done looks like a hole to a reader: retract looks again.
func TestWhatIsNoHoleStays(t *testing.T) {
	ix, keys := violated(t)
	mustApply(t, ix, stored("a", 112, block.Host, keys[10:11]))
	ix.retract("a", keys)
	ix.retract("b", keys)
	ix.retract("nobody", keys)
	if s := ix.Stats(); s.Violations != 0 || s.Retracted != 0 || len(ix.Holes()) != 0 {
		t.Errorf("%d violations, %d retracted", s.Violations, s.Retracted)
	}
}

// Readers that audit every look-up beside a writer that keeps to the rule, storing from
// the first block on and removing from the last, find no hole.
func TestAuditsBesideAWriter(t *testing.T) {
	ix, err := NewIndex(IndexConfig{Mode: Bisect, AuditEvery: 1})
	if err != nil {
		t.Fatal(err)
	}
	const nodes = 6
	for n := range nodes {
		if err := ix.SetNode(NodeInfo{ID: nodeName(n), Incarnation: 1}); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(3, 3))
	keys := chain(rng, 300)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			var m Match
			for {
				select {
				case <-stop:
					return
				default:
					ix.Match(keys, &m)
				}
			}
		})
	}
	held, position := [nodes]int{}, [nodes]uint64{}
	for range 3000 {
		n := rng.IntN(nodes)
		e := Event{Node: nodeName(n), Incarnation: 1, First: position[n] + 1}
		for to := rng.IntN(len(keys) + 1); held[n] != to; {
			if held[n] < to {
				e.Changes = append(e.Changes, Change{Key: keys[held[n]], Tier: block.Host, Stored: true})
				held[n]++
			} else {
				held[n]--
				e.Changes = append(e.Changes, Change{Key: keys[held[n]], Tier: block.Host})
			}
		}
		mustApply(t, ix, e)
		position[n] = e.Last()
	}
	close(stop)
	readers.Wait()
	var m Match
	ix.Match(keys, &m)
	for n := range nodes {
		if got := m.Of(nodeName(n)).Prefix; got != held[n] {
			t.Errorf("%s is known to hold %d blocks, and holds %d", nodeName(n), got, held[n])
		}
	}
	if s := ix.Stats(); s.Violations != 0 || s.Audits == 0 {
		t.Errorf("%d violations in %d audits", s.Violations, s.Audits)
	}
}
