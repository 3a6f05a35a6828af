package cluster_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/internal/natstest"
	"cairn/node"
	"cairn/router"
	"cairn/wire"

	"github.com/google/go-cmp/cmp"
)

// What a node announces while its snapshot is written and loaded is more than the snapshot
// covers, each time. The view must come to an end nevertheless.
func TestViewCatchesUpWhileChangesGoOn(t *testing.T) {
	const busy = 2000 // changes during each snapshot, each an event of its own
	conn := natstest.Run(t)
	lease := mustJoin(t, conn, cluster.Member{ID: "a", Addr: "a:1"}, cluster.LeaseConfig{TTL: time.Minute})
	pub, err := cluster.NewPublisher(conn, cluster.PublisherConfig{Node: "a", Incarnation: lease.Member().Incarnation,
		BatchChanges: 1, SnapshotChanges: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // orders changes with their announcements
	var held []block.Key
	var at uint64
	announce := func(n int) (sent uint64) {
		mu.Lock()
		defer mu.Unlock()
		for range n {
			k := key(1, len(held))
			held = append(held, k)
			at = pub.Announce([]node.Change{{Key: k, Tier: block.Host, Stored: true}})
		}
		return at
	}
	announce(10)
	runPublisher(t, conn, pub, "a", func(yield func(block.Key, block.TierMask) bool) uint64 {
		covered := pub.Announce(nil)
		sent := announce(busy)
		until(t, "the changes are in the stream", func() bool { return pub.Stats().Changes >= sent })
		mu.Lock()
		defer mu.Unlock()
		for _, k := range held {
			if !yield(k, block.MaskOf(block.Host)) {
				break
			}
		}
		return covered
	})
	incarnation := lease.Member().Incarnation
	v := openView(t, conn, cluster.ViewConfig{GapPatience: time.Millisecond})
	await(t, v, wire.Token{Node: "a", Incarnation: incarnation, Position: announce(1)})
	v.Index().Doubt("a", incarnation)
	await(t, v, wire.Token{Node: "a", Incarnation: incarnation, Position: announce(1)})
	until(t, "nothing is missing", func() bool { return v.Stats().Behind == 0 })
	mu.Lock()
	defer mu.Unlock()
	for i, holders := range v.Locate(held) {
		if len(holders) != 1 {
			t.Fatalf("block %d of %d is held by %v", i, len(held), holders)
		}
	}
}

// What waits for missing changes is bounded: beyond, it is given up, and a snapshot covers it.
func TestViewGivesUpAFullStash(t *testing.T) {
	conn := natstest.Run(t)
	a := steadyHolder(t, conn, "a", cluster.PublisherConfig{SnapshotChanges: 1 << 30}, keys(1, 10)...)
	v := openView(t, conn, cluster.ViewConfig{GapPatience: time.Millisecond, StashChanges: 8})
	await(t, v, a.token())
	v.Index().Doubt("a", a.token().Incarnation)
	a.change(true, block.Host, keys(2, 20)...)
	await(t, v, a.token())
	until(t, "nothing is missing", func() bool { s := v.Stats(); return s.Behind == 0 && s.Stashed == 0 })
	if got := where(v, keys(2, 20)); got[19] != "19 a@a:1:host" {
		t.Errorf("located: %v", got)
	}
	if s := v.Stats(); s.Repairs < 2 {
		t.Errorf("no snapshot was loaded: %+v", s)
	}
}

// A view that opens when the stream no longer goes on from a node's snapshot has a fresh one
// written at once, rather than finding a gap first.
func TestViewStartsFromAFreshSnapshot(t *testing.T) {
	conn := natstest.Run(t)
	cfg := cluster.PublisherConfig{SnapshotChanges: 1 << 30}
	a := steadyHolder(t, conn, "a", cfg)
	b := steadyHolder(t, conn, "b", cfg, keys(2, 10)...)
	early := openView(t, conn, cluster.ViewConfig{})
	until(t, "both have written a snapshot", func() bool { return a.pub.Stats().Snapshots > 0 && b.pub.Stats().Snapshots > 0 })
	a.change(true, block.Host, keys(1, 100)...)
	await(t, early, a.token(), b.token())
	place, err := conn.JS.Stream(t.Context(), cluster.StreamPlace)
	if err != nil {
		t.Fatal(err)
	}
	if err := place.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	late := openView(t, conn, cluster.ViewConfig{GapPatience: time.Hour})
	await(t, late, a.token(), b.token())
	all := append(keys(1, 100), keys(2, 10)...)
	if diff := cmp.Diff(where(early, all), where(late, all)); diff != "" {
		t.Errorf("late view (-early +late):\n%s", diff)
	}
	if s := late.Stats(); s.Index.Gaps != 0 || s.Repairs != 2 {
		t.Errorf("%d gaps, %d snapshots loaded: want 0 and 2", s.Index.Gaps, s.Repairs)
	}
	if s := b.pub.Stats(); s.Snapshots != 1 {
		t.Errorf("a node without changes wrote %d snapshots", s.Snapshots)
	}
}

// A node breaks the rule of prefix-closed sets while all nodes announce: the router finds
// out at its next audit, takes back what is behind the hole, and asks that node alone for a
// snapshot. In the end it knows exactly what the nodes hold.
func TestViolationOnLiveTraffic(t *testing.T) {
	const chains, length = 8, 32
	conn := natstest.Run(t)
	v := openView(t, conn, cluster.ViewConfig{GapPatience: time.Millisecond, Index: router.IndexConfig{Mode: router.Bisect, AuditEvery: 1}})
	cfg := cluster.PublisherConfig{SnapshotChanges: 1 << 30, BatchChanges: 16}
	a, b := steadyHolder(t, conn, "a", cfg, keys(1, length)...), steadyHolder(t, conn, "b", cfg, keys(1, length)...)
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	for n, h := range []*holder{a, b} {
		traffic.Go(func() {
			for i := 0; ; i++ {
				chain := keys(byte(10+10*n+i%chains), length)
				h.change(true, block.Host, chain...)
				slices.Reverse(chain)
				h.change(false, block.Host, chain[:length/2]...)
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	await(t, v, a.token(), b.token())
	// Announced, and not so.
	a.announce(node.Change{Key: key(1, 10), Tier: block.Disk})
	await(t, v, a.token())
	var m router.Match
	until(t, "the violation is found", func() bool {
		v.Index().Match(keys(1, length), &m)
		return v.Stats().Index.Violations == 1
	})
	until(t, "the node's blocks are back", func() bool {
		v.Index().Match(keys(1, length), &m)
		return m.Of("a").Prefix == length
	})
	close(stop)
	traffic.Wait()
	await(t, v, a.token(), b.token())
	for _, space := range []byte{1, 10, 10 + chains - 1, 20} {
		if diff := cmp.Diff(held(keys(space, length), a, b), where(v, keys(space, length))); diff != "" {
			t.Errorf("sequence %d (-want +got):\n%s", space, diff)
		}
	}
	if s := v.Stats(); s.Index.Violations != 1 || s.Index.Doubts != 1 || s.Index.Retracted == 0 || s.Behind != 0 {
		t.Errorf("%d violations, %d doubts, %d blocks retracted, %d members behind", s.Index.Violations, s.Index.Doubts, s.Index.Retracted, s.Behind)
	}
	if s := b.pub.Stats(); s.Snapshots > 1 {
		t.Errorf("the other node was asked too: %d snapshots", s.Snapshots)
	}
}

// A node starts with blocks that an earlier run left on its disk, and announces none of them.
// Views that were there before it learn of them nevertheless.
func TestViewLearnsWhatANodeStartsWith(t *testing.T) {
	conn := natstest.Run(t)
	early := openView(t, conn, cluster.ViewConfig{GapPatience: time.Millisecond})
	lease := mustJoin(t, conn, cluster.Member{ID: "a", Addr: "a:1"}, cluster.LeaseConfig{TTL: time.Minute})
	pub, err := cluster.NewPublisher(conn, cluster.PublisherConfig{Node: "a", Incarnation: lease.Member().Incarnation})
	if err != nil {
		t.Fatal(err)
	}
	var announced atomic.Uint64
	runPublisher(t, conn, pub, "a", func(yield func(block.Key, block.TierMask) bool) uint64 {
		covered := announced.Load() // as a node does, which counts its own announcements only
		held := keys(1, 20)
		if covered > 0 {
			held = append(held, key(2, 0))
		}
		for _, k := range held {
			if !yield(k, block.MaskOf(block.Disk)) {
				break
			}
		}
		return covered
	})
	until(t, "the view knows", func() bool { return where(early, keys(1, 20))[19] == "19 a@a:1:disk" })
	announced.Store(pub.Announce([]node.Change{{Key: key(2, 0), Tier: block.Disk, Stored: true}}))
	await(t, early, wire.Token{Node: "a", Incarnation: lease.Member().Incarnation, Position: announced.Load()})
	if got := where(early, append(keys(1, 1), key(2, 0))); got[0] != "0 a@a:1:disk" || got[1] != "1 a@a:1:disk" {
		t.Errorf("located: %v", got)
	}
}
