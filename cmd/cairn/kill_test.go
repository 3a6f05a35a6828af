package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"cairn/cluster"
	"cairn/internal/testseed"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// testLease is the lease of the nodes of these tests.
	testLease = 2 * time.Second
	// forgetBound is when a router must have stopped naming a dead node: the lease
	// from its last renewal, and much more for a busy machine. How long it took is logged.
	forgetBound = 5 * testLease
	// failBound is how long operations at nodes that are up may fail, on a busy machine.
	failBound = 5 * time.Second
)

// long tells whether the long form of the tests was asked for.
func long() bool { return os.Getenv("CAIRN_LONG") == "1" }

// roomy has room for all that a load puts, so that nothing is evicted from disk.
func roomy() []string { return smallNode("--disk", "2GiB", "--segment", "16MiB") }

// TestKillNode kills nodes under load. The others must go on; what was flushed
// must be there again when the node returns; no byte may ever be wrong.
func TestKillNode(t *testing.T) {
	t.Parallel()
	rounds := 3
	if long() {
		rounds = 50
	}
	s := startSystem(t, systemConfig{nodes: 3, flags: roomy()})
	r := s.router()
	r.ready(patience)
	r.awaitMembers(3)
	l := startLoad(s, 4)
	forget, back := newHistogram(), newHistogram()
	rng := rand.New(rand.NewPCG(testseed.Of(t), 0))
	for round := range rounds {
		k := killRound{s: s, r: r, l: l, victim: rng.IntN(3), atOnce: round%2 == 1}
		k.run()
		if t.Failed() {
			break
		}
		if !k.atOnce {
			_ = forget.RecordValue(k.forgot.Microseconds())
		}
		_ = back.RecordValue(k.returned.Microseconds())
	}
	l.finish()
	s.stop()
	failed, longest := l.failuresWhileUp(failBound)
	t.Logf("%d kills: %d operations (%d puts, %d gets, %d misses, %d in order), wrong bytes %d, failed at live nodes %d (longest %v); "+
		"latency at live nodes p50 %v p99 %v max %v; forgotten after %s; returned after %s",
		rounds, l.ops.Load(), l.puts.Load(), l.gets.Load(), l.misses.Load(), l.ordered.Load(), l.wrong.Load(), failed, longest,
		l.quantile(50), l.quantile(99), l.quantile(100), spread(forget), spread(back))
}

func spread(h *hdr.Histogram) string {
	d := func(v int64) time.Duration { return (time.Duration(v) * time.Microsecond).Round(time.Millisecond) }
	return fmt.Sprintf("%v to %v (median %v)", d(h.Min()), d(h.Max()), d(h.ValueAtQuantile(50)))
}

// killRound is one kill and return.
type killRound struct {
	s      *system
	r      *server
	l      *load
	victim int
	atOnce bool // start it again while its old lease holds

	forgot, returned time.Duration
}

func (k *killRound) run() {
	t, n, ln := k.s.t, k.s.nodes[k.victim], k.l.nodes[k.victim]
	t.Helper()
	before := k.r.present(k.s)
	kept := k.flushed()
	ln.down()
	n.kill()
	killed := time.Now()
	if !k.atOnce {
		await(t, forgetBound, "the router forgets "+n.id, func() error {
			m, err := k.r.members()
			if _, named := m[n.id]; named {
				err = fmt.Errorf("still a member")
			}
			return err
		})
		k.forgot = time.Since(killed)
	}
	started := time.Now()
	n.start()
	await(t, patience, n.id+" is a member again", func() error {
		m, err := k.r.members()
		if err != nil {
			return err
		}
		return returned(before[n.id], m[n.id])
	})
	k.returned = time.Since(started)
	ln.up()
	k.verify(kept)
}

// present is what the router says of all nodes. One whose lease has lapsed on a busy
// machine joins again.
func (r *server) present(s *system) (members map[string]cluster.Member) {
	r.t.Helper()
	await(r.t, patience, "all nodes are members", func() (err error) {
		members, err = r.members()
		if err == nil && len(members) != len(s.nodes) {
			err = fmt.Errorf("%d of %d", len(members), len(s.nodes))
		}
		return err
	})
	return members
}

// returned tells whether a member is back: the same store, a later incarnation.
func returned(before, now cluster.Member) error {
	switch {
	case now.ID == "", now.Incarnation == before.Incarnation:
		return fmt.Errorf("not back: %+v", now)
	case now.Incarnation < before.Incarnation:
		return fmt.Errorf("incarnation went back from %d to %d", before.Incarnation, now.Incarnation)
	case now.StoreID != before.StoreID:
		return fmt.Errorf("store %s, was %s", now.StoreID, before.StoreID)
	}
	return nil
}

// flushed is what must survive: put through the victim before its flush.
func (k *killRound) flushed() []int {
	k.s.t.Helper()
	await(k.s.t, patience, "blocks to lose", func() error {
		if n := len(k.l.owed(k.victim)); n < 20 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	kept := k.l.owed(k.victim)
	ctx, cancel := context.WithTimeout(k.s.t.Context(), patience)
	defer cancel()
	if err := k.l.nodes[k.victim].client.Flush(ctx); err != nil {
		k.s.t.Fatal(err)
	}
	k.l.flushed(k.victim, kept)
	return kept
}

// verify finds everything again, at the node itself and through a peer.
func (k *killRound) verify(kept []int) {
	t := k.s.t
	t.Helper()
	for _, at := range []int{k.victim, (k.victim + 1) % len(k.s.nodes)} {
		await(t, patience, fmt.Sprintf("%d blocks of %s at %s", len(kept), k.s.nodes[k.victim].id, k.s.nodes[at].id), func() error {
			lost, err := k.l.missing(t.Context(), at, kept)
			if err == nil && len(lost) > 0 {
				err = fmt.Errorf("%d of %d flushed blocks are gone, the first is %d", len(lost), len(kept), lost[0])
			}
			return err
		})
	}
	if st := k.s.status(k.s.nodes[k.victim]); st.Recovered < int64(len(kept)) {
		t.Errorf("%s recovered %d blocks, want at least the %d that it had flushed", k.s.nodes[k.victim].id, st.Recovered, len(kept))
	}
}

// TestFreezeNode stops a node for longer than its lease: the others must not hang
// on it, and it must come back as a new incarnation with all that it has.
func TestFreezeNode(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 3, flags: append(roomy(), "--fetch-timeout", "500ms")})
	r := s.router()
	r.ready(patience)
	r.awaitMembers(3)
	l := startLoad(s, 4)
	k := killRound{s: s, r: r, l: l, victim: 1}
	before := r.present(s)
	kept := k.flushed()
	n := s.nodes[k.victim]
	l.nodes[k.victim].down()
	n.signal(syscall.SIGSTOP)
	forgot := await(t, forgetBound, "the router forgets the frozen node", func() error {
		m, err := r.members()
		if _, named := m[n.id]; named {
			err = fmt.Errorf("still a member")
		}
		return err
	})
	n.signal(syscall.SIGCONT)
	back := await(t, patience, "the node is back", func() error {
		m, err := r.members()
		if err != nil {
			return err
		}
		return returned(before[n.id], m[n.id])
	})
	l.nodes[k.victim].up()
	for at := range s.nodes {
		await(t, patience, "its blocks at "+s.nodes[at].id, func() error {
			lost, err := l.missing(t.Context(), at, kept)
			if err == nil && len(lost) > 0 {
				err = fmt.Errorf("%d of %d blocks are gone", len(lost), len(kept))
			}
			return err
		})
	}
	l.finish()
	s.stop()
	failed, longest := l.failuresWhileUp(failBound)
	t.Logf("frozen node: forgotten after %v, back after %v; %d operations, wrong bytes %d, failed at live nodes %d (longest %v), p99 %v max %v",
		forgot.Round(time.Millisecond), back.Round(time.Millisecond), l.ops.Load(), l.wrong.Load(), failed, longest, l.quantile(99), l.quantile(100))
	if limit := 3 * failBound; l.quantile(100) > limit {
		t.Errorf("an operation at a live node took %v, want at most %v", l.quantile(100), limit)
	}
}
