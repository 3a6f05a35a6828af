package cluster_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"cairn/cluster"
	"cairn/internal/natstest"

	"github.com/google/go-cmp/cmp"
)

const patience = time.Minute

// short is a lease for tests: NATS counts message lives in whole seconds.
var short = cluster.LeaseConfig{TTL: time.Second, Renew: 100 * time.Millisecond, Drift: 0.001}

// steady is one that does not lapse on a busy machine, and shows changes as soon.
var steady = cluster.LeaseConfig{TTL: time.Minute, Renew: 100 * time.Millisecond, Drift: 0.001}

// events of a watch that runs until the test ends.
type events struct {
	t  *testing.T
	ch chan cluster.MemberEvent
}

// watch begins a watch; seen are called with each event at the moment at which it is told.
func watch(t *testing.T, conn *cluster.Conn, seen ...func(cluster.MemberEvent)) *events {
	t.Helper()
	e := &events{t, make(chan cluster.MemberEvent, 1024)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- cluster.WatchMembers(ctx, conn, func(ev cluster.MemberEvent) {
			for _, f := range seen {
				f(ev)
			}
			e.ch <- ev
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	})
	return e
}

// until skips Updated events until the wanted change of id arrives.
func (e *events) until(change cluster.MemberChange, id string) cluster.MemberEvent {
	e.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case ev := <-e.ch:
			if ev.Change == change && ev.Member.ID == id {
				return ev
			}
			if ev.Change != cluster.MemberUpdated {
				e.t.Fatalf("event %v of %q (%s), want %v of %q", ev.Change, ev.Member.ID, ev.Reason, change, id)
			}
		case <-timeout:
			e.t.Fatalf("no %v of %q within %v", change, id, patience)
		}
	}
}

func mustJoin(t *testing.T, conn *cluster.Conn, m cluster.Member, cfg cluster.LeaseConfig) *cluster.Lease {
	t.Helper()
	l, err := cluster.Join(ctxFor(t, patience), conn, m, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := l.Leave(ctx); err != nil && !conn.NC.IsClosed() {
			t.Error(err)
		}
	})
	return l
}

func waitLost(t *testing.T, l *cluster.Lease, want error) {
	t.Helper()
	select {
	case <-l.Lost():
	case <-time.After(patience):
		t.Fatalf("the lease was not lost within %v", patience)
	}
	if !errors.Is(l.Err(), want) || l.Held() {
		t.Fatalf("lost with %v (held %v), want %v", l.Err(), l.Held(), want)
	}
}

func TestJoinUpdateLeave(t *testing.T) {
	t.Parallel()
	conn := natstest.Run(t)
	early := watch(t, conn)
	early.until(cluster.MembersSynced, "")
	m := cluster.Member{ID: "n1", Addr: "10.0.0.1:7070", StoreID: "s1", Labels: map[string]string{"rack": "a"},
		Tiers: []cluster.TierInfo{{Tier: 1, Capacity: 10}}, Started: time.Now().UTC().Truncate(time.Second)}
	lease := cluster.LeaseConfig{TTL: 5 * time.Second, Renew: 100 * time.Millisecond, Drift: 0.001}
	l := mustJoin(t, conn, m, lease)
	m.Incarnation = l.Member().Incarnation
	if m.Incarnation == 0 || m.Incarnation >= 1<<53 {
		t.Errorf("incarnation %d does not fit a JSON number", m.Incarnation)
	}
	if diff := cmp.Diff(m, early.until(cluster.MemberJoined, "n1").Member); diff != "" {
		t.Error(diff)
	}
	late := watch(t, conn)
	late.until(cluster.MemberJoined, "n1")
	late.until(cluster.MembersSynced, "")

	// Renewals carry the lease well past its TTL, and what changes is seen.
	begin := time.Now()
	for n := int64(1); time.Since(begin) < 3*lease.TTL/2; n++ {
		l.Update(func(m *cluster.Member) { m.ID, m.Tiers[0].Used = "other", n })
		if got := late.until(cluster.MemberUpdated, "n1").Member.Tiers[0].Used; got != n {
			t.Fatalf("update %d shows %d", n, got)
		}
	}
	if !l.Held() || l.Err() != nil {
		t.Fatalf("held %v, error %v", l.Held(), l.Err())
	}
	if _, err := l.Rejoin(t.Context()); err == nil {
		t.Error("a lease that is held was joined again")
	}
	if err := l.Leave(ctxFor(t, patience)); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*events{early, late} {
		if ev := e.until(cluster.MemberLeft, "n1"); ev.Reason != "left" || ev.Member.Incarnation != m.Incarnation {
			t.Errorf("left for %q as %d", ev.Reason, ev.Member.Incarnation)
		}
	}
	again := mustJoin(t, conn, m, lease) // over the trace that leaving has left
	early.until(cluster.MemberJoined, "n1")
	if !again.Held() {
		t.Error("the second lease is not held")
	}
}

func TestLeaseExpires(t *testing.T) {
	t.Parallel()
	srv := natstest.Server(t, cluster.ServerConfig{DontListen: true})
	here := natstest.Connect(t, cluster.ConnConfig{InProcess: srv})
	there := natstest.Connect(t, cluster.ConnConfig{InProcess: srv})
	natstest.Ensure(t, here)
	var lease atomic.Pointer[cluster.Lease]
	e := watch(t, here, func(ev cluster.MemberEvent) {
		if l := lease.Load(); l != nil && ev.Change == cluster.MemberLeft && l.Held() {
			t.Errorf("%v before the holder itself gave up", ev.Change)
		}
	})
	e.until(cluster.MembersSynced, "")
	l := mustJoin(t, there, cluster.Member{ID: "n1"}, short)
	lease.Store(l)
	e.until(cluster.MemberJoined, "n1")
	there.NC.Close()
	waitLost(t, l, cluster.ErrLeaseExpired)
	if ev := e.until(cluster.MemberLeft, "n1"); ev.Reason != "lease expired" {
		t.Errorf("reason %q", ev.Reason)
	}
}

// TestLeaseLapses: with another member to compare with, a lease ends on time, below the
// resolution of NATS, and although the server still has its record.
func TestLeaseLapses(t *testing.T) {
	t.Parallel()
	conn := natstest.Run(t)
	ctx := ctxFor(t, patience)
	e := watch(t, conn)
	e.until(cluster.MembersSynced, "")
	mustJoin(t, conn, cluster.Member{ID: "steady"}, cluster.LeaseConfig{TTL: time.Minute, Renew: 50 * time.Millisecond})
	e.until(cluster.MemberJoined, "steady")
	members, err := conn.JS.KeyValue(ctx, cluster.BucketMembers)
	if err != nil {
		t.Fatal(err)
	}
	// Without a time to live: whatever is slow, it is the watch that finds it late.
	if _, err := members.PutString(ctx, "brief", `{"id":"brief","incarnation":1,"renewal":1,"grace_ms":500}`); err != nil {
		t.Fatal(err)
	}
	e.until(cluster.MemberJoined, "brief")
	if ev := e.until(cluster.MemberLeft, "brief"); ev.Reason != "lease lapsed" {
		t.Errorf("reason %q", ev.Reason)
	}
}

func TestSameIDTwice(t *testing.T) {
	t.Parallel()
	conn := natstest.Run(t)
	ctx := ctxFor(t, patience)
	e := watch(t, conn)
	e.until(cluster.MembersSynced, "")
	slow := cluster.LeaseConfig{TTL: 20 * time.Second, Renew: 100 * time.Millisecond}
	first := mustJoin(t, conn, cluster.Member{ID: "n1", Addr: "10.0.0.1:7070", StoreID: "s1"}, slow)
	e.until(cluster.MemberJoined, "n1")

	for _, store := range []string{"s2", ""} {
		_, err := cluster.Join(ctx, conn, cluster.Member{ID: "n1", StoreID: store}, slow)
		wantError(t, err, cluster.ErrMemberExists, "10.0.0.1:7070", "another id")
	}
	if !first.Held() {
		t.Fatal("the refused ones have ended the first lease")
	}

	second := mustJoin(t, conn, cluster.Member{ID: "n1", Addr: "10.0.0.2:7070", StoreID: "s1"}, slow)
	if ev := e.until(cluster.MemberLeft, "n1"); ev.Member.Incarnation != first.Member().Incarnation {
		t.Error("the wrong incarnation left")
	}
	if ev := e.until(cluster.MemberJoined, "n1"); ev.Member.Addr != "10.0.0.2:7070" {
		t.Errorf("joined at %s", ev.Member.Addr)
	}
	waitLost(t, first, cluster.ErrSuperseded)
	if _, err := first.Rejoin(ctx); !errors.Is(err, cluster.ErrSuperseded) {
		t.Errorf("rejoin after being superseded: %v", err)
	}
	if !second.Held() {
		t.Error("the second lease is not held")
	}
	_, err := cluster.Join(ctx, conn, cluster.Member{ID: "a b"}, cluster.LeaseConfig{TTL: -1, Drift: 2})
	wantError(t, err, nil, `"a b"`, "TTL", "Drift")
}

// TestServerOutage: NATS is away for longer than a lease and comes back.
func TestServerOutage(t *testing.T) {
	t.Parallel()
	cfg := cluster.ServerConfig{StoreDir: t.TempDir(), Port: natstest.Port(t)}
	srv := natstest.Server(t, cfg)
	conn := natstest.Connect(t, cluster.ConnConfig{URLs: []string{srv.ClientURL()}, ReconnectWait: 50 * time.Millisecond})
	natstest.Ensure(t, conn)
	e := watch(t, conn)
	e.until(cluster.MembersSynced, "")
	// Long enough not to end before the server does, which may take a while to stop.
	l := mustJoin(t, conn, cluster.Member{ID: "n1"}, cluster.LeaseConfig{TTL: 5 * time.Second, Renew: 100 * time.Millisecond, Drift: 0.001})
	first := e.until(cluster.MemberJoined, "n1").Member.Incarnation
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	waitLost(t, l, cluster.ErrLeaseExpired)
	for len(e.ch) > 0 {
		if ev := <-e.ch; ev.Change != cluster.MemberUpdated {
			t.Fatalf("%v of %q while NATS was away", ev.Change, ev.Member.ID)
		}
	}
	natstest.Server(t, cfg)
	again, err := l.Rejoin(ctxFor(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := again.Leave(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if ev := e.until(cluster.MemberLeft, "n1"); ev.Member.Incarnation != first {
		t.Errorf("incarnation %d left, want %d", ev.Member.Incarnation, first)
	}
	if ev := e.until(cluster.MemberJoined, "n1"); ev.Member.Incarnation <= first || ev.Member.Incarnation != again.Member().Incarnation {
		t.Errorf("incarnation %d joined after %d", ev.Member.Incarnation, first)
	}
}
