package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
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

// holder is a node as far as placement goes: a directory, a publisher and its
// service, with a lease.
type holder struct {
	t     *testing.T
	id    string
	lease *cluster.Lease
	pub   *cluster.Publisher
	kill  func() // stops everything but the lease

	// mu orders changes of held with their announcements.
	mu   sync.Mutex
	held map[block.Key]block.TierMask
	at   uint64
}

// startHolder starts a node that holds what is in full already, and whose lease lapses
// soon when it dies, or when the machine is busy.
func startHolder(t *testing.T, conn *cluster.Conn, id string, cfg cluster.PublisherConfig, full ...block.Key) *holder {
	t.Helper()
	return runHolder(t, conn, mustJoin(t, conn, cluster.Member{ID: id, Addr: id + ":1", StoreID: id}, short), cfg, full...)
}

// steadyHolder is startHolder with a lease that does not lapse on a busy machine.
func steadyHolder(t *testing.T, conn *cluster.Conn, id string, cfg cluster.PublisherConfig, full ...block.Key) *holder {
	t.Helper()
	return runHolder(t, conn, mustJoin(t, conn, cluster.Member{ID: id, Addr: id + ":1", StoreID: id}, steady), cfg, full...)
}

// runHolder is startHolder for a member that has joined.
func runHolder(t *testing.T, conn *cluster.Conn, lease *cluster.Lease, cfg cluster.PublisherConfig, full ...block.Key) *holder {
	t.Helper()
	id := lease.Member().ID
	h := &holder{t: t, id: id, lease: lease, held: map[block.Key]block.TierMask{}}
	cfg.Node, cfg.Incarnation = id, h.lease.Member().Incarnation
	var err error
	if h.pub, err = cluster.NewPublisher(conn, cfg); err != nil {
		t.Fatal(err)
	}
	h.change(true, block.Disk, full...)
	h.kill = runPublisher(t, conn, h.pub, id, h.walk)
	return h
}

// runPublisher runs a node's publisher and service until the test ends or kill is called.
func runPublisher(t *testing.T, conn *cluster.Conn, p *cluster.Publisher, id string, walk cluster.Walk) (kill func()) {
	t.Helper()
	svc, err := cluster.StartNodeService(conn, p, cluster.NodeServiceConfig{Node: id,
		Status: func() any { return p.Stats() }, Summary: func() any { return p.Stats() }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx, walk); !errors.Is(err, context.Canceled) {
			t.Errorf("publisher of %s ended with %v", id, err)
		}
	}()
	kill = sync.OnceFunc(func() {
		cancel()
		<-done
		if err := svc.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(kill)
	return kill
}

func (h *holder) walk(yield func(block.Key, block.TierMask) bool) uint64 {
	covered := h.pub.Announce(nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, tiers := range h.held {
		if !yield(k, tiers) {
			break
		}
	}
	return covered
}

func (h *holder) change(stored bool, tier block.Tier, keys ...block.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var changes []node.Change
	for _, k := range keys {
		m := h.held[k].Without(tier)
		if stored {
			m = m.With(tier)
		}
		if h.held[k] = m; m == 0 {
			delete(h.held, k)
		}
		changes = append(changes, node.Change{Key: k, Tier: tier, Stored: stored})
	}
	h.at = h.pub.Announce(changes)
}

// announce announces what need not be so.
func (h *holder) announce(changes ...node.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = h.pub.Announce(changes)
}

// token is all that this holder has announced.
func (h *holder) token() wire.Token {
	h.mu.Lock()
	defer h.mu.Unlock()
	return wire.Token{Node: h.id, Incarnation: h.lease.Member().Incarnation, Position: h.at}
}

func openView(t *testing.T, conn *cluster.Conn, cfg cluster.ViewConfig) *cluster.View {
	t.Helper()
	v, err := cluster.OpenView(t.Context(), conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	if err := v.Ready(ctxFor(t, patience)); err != nil {
		t.Fatal(err)
	}
	return v
}

// await waits for what nodes have announced that are members, whether the view knows of that
// yet or not: Await alone gives up on a node that it does not get to know within a second.
func await(t *testing.T, v *cluster.View, tokens ...wire.Token) {
	t.Helper()
	for _, token := range tokens {
		awaitSeen(t, v, seen(v, token.Node, token.Incarnation), token)
	}
}

// seen is closed once the view knows the node, in that incarnation or a later one.
func seen(v *cluster.View, id string, incarnation uint64) <-chan struct{} {
	known := make(chan struct{})
	say := sync.OnceFunc(func() { close(known) })
	v.OnMember(func(e cluster.MemberEvent) {
		if e.Change != cluster.MemberLeft && e.Member.ID == id && e.Member.Incarnation >= incarnation {
			say()
		}
	})
	return known
}

// awaitSeen is await for a node that may be gone again by now.
func awaitSeen(t *testing.T, v *cluster.View, known <-chan struct{}, token wire.Token) {
	t.Helper()
	ctx := ctxFor(t, patience)
	select {
	case <-known:
	case <-ctx.Done():
		t.Fatalf("node %s is not known; the view: %+v", token.Node, v.Stats())
	}
	if err := v.Await(ctx, token); err != nil {
		t.Fatalf("%v; the view: %+v", err, v.Stats())
	}
}

// where says for each key who holds it in which tiers, in no order of preference.
func where(v *cluster.View, keys []block.Key) []string {
	var out []string
	for i, holders := range v.Locate(keys) {
		var s []string
		for _, h := range holders {
			s = append(s, fmt.Sprintf("%s@%s:%v", h.Node, h.Addr, h.Tiers))
		}
		slices.Sort(s)
		out = append(out, fmt.Sprintf("%d %s", i, strings.Join(s, " ")))
	}
	return out
}

// held is what where should say.
func held(keys []block.Key, holders ...*holder) (want []string) {
	for i, k := range keys {
		s := ""
		for _, h := range holders {
			if m := h.held[k]; m.Any() {
				s += fmt.Sprintf(" %s@%s:1:%v", h.id, h.id, m)
			}
		}
		want = append(want, fmt.Sprintf("%d %s", i, strings.TrimSpace(s)))
	}
	return want
}

func keys(space byte, n int) []block.Key {
	var out []block.Key
	for i := range n {
		out = append(out, key(space, i))
	}
	return out
}

func TestLateViewEqualsEarlyView(t *testing.T) {
	conn := natstest.Run(t)
	early := openView(t, conn, cluster.ViewConfig{})
	cfg := cluster.PublisherConfig{BatchChanges: 16, SnapshotChanges: 200}
	a := steadyHolder(t, conn, "a", cfg, keys(2, 50)...)
	b := steadyHolder(t, conn, "b", cfg)
	all := append(keys(1, 100), keys(2, 50)...)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1500 {
		h := []*holder{a, b}[rng.IntN(2)]
		h.change(rng.IntN(3) > 0, block.Tier(rng.IntN(block.Tiers)), all[rng.IntN(len(all))], all[rng.IntN(len(all))])
	}
	await(t, early, a.token(), b.token())
	late := openView(t, conn, cluster.ViewConfig{})
	await(t, late, a.token(), b.token())
	want := held(all, a, b)
	if diff := cmp.Diff(want, where(early, all)); diff != "" {
		t.Errorf("early view (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, where(late, all)); diff != "" {
		t.Errorf("late view (-want +got):\n%s", diff)
	}
	if s := late.Stats(); s.Repairs < 2 || s.Bad > 0 {
		t.Errorf("the late view did not begin with snapshots: %+v", s)
	}
}

// A view that opens after the tail has gone finds the gap, at the latest from a
// heartbeat, and has a snapshot written.
func TestGapIsRepaired(t *testing.T) {
	conn := natstest.Run(t)
	h := steadyHolder(t, conn, "a", cluster.PublisherConfig{SnapshotChanges: 1 << 30, Heartbeat: 20 * time.Millisecond})
	early := openView(t, conn, cluster.ViewConfig{})
	h.change(true, block.Host, keys(1, 100)...)
	await(t, early, h.token())
	place, err := conn.JS.Stream(t.Context(), cluster.StreamPlace)
	if err != nil {
		t.Fatal(err)
	}
	if err := place.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	late := openView(t, conn, cluster.ViewConfig{GapPatience: time.Millisecond})
	await(t, late, h.token())
	if diff := cmp.Diff(where(early, keys(1, 100)), where(late, keys(1, 100))); diff != "" {
		t.Errorf("late view (-early +late):\n%s", diff)
	}
	if s := h.pub.Stats(); s.Snapshots < 2 {
		t.Errorf("no snapshot was asked for: %+v", s)
	}
}

func TestEventsOutOfOrder(t *testing.T) {
	conn := natstest.Run(t)
	l := mustJoin(t, conn, cluster.Member{ID: "a", Addr: "a:1"}, steady)
	inc := l.Member().Incarnation
	send := func(e router.Event) {
		e.Node, e.Incarnation = "a", inc
		if _, err := conn.JS.Publish(t.Context(), cluster.PlaceSubject("a", "all"), cluster.AppendPlacement(nil, e)); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody answers for this node: its snapshot is given up after LoadTimeout.
	v, err := cluster.OpenView(t.Context(), conn, cluster.ViewConfig{GapPatience: time.Hour, LoadTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	stored := func(first uint64, ks ...block.Key) router.Event {
		e := router.Event{First: first}
		for _, k := range ks {
			e.Changes = append(e.Changes, router.Change{Key: k, Tier: block.Host, Stored: true})
		}
		return e
	}
	send(stored(5, key(1, 4)))
	send(stored(3, key(1, 2), key(1, 3)))
	send(stored(5, key(1, 4))) // sent twice
	if _, err := conn.JS.Publish(t.Context(), cluster.PlaceSubject("a", "all"), []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.JS.Publish(t.Context(), cluster.PlaceSubject("b", "all"),
		cluster.AppendPlacement(nil, router.Event{Node: "a", Incarnation: inc, First: 100})); err != nil {
		t.Fatal(err)
	}
	send(stored(1, key(1, 0), key(1, 1)))
	await(t, v, wire.Token{Node: "a", Incarnation: inc, Position: 5})
	for i, holders := range v.Locate(keys(1, 5)) {
		if len(holders) != 1 {
			t.Errorf("block %d is held by %v", i, holders)
		}
	}
	if s := v.Stats(); s.Bad != 2 || s.Repairs != 0 {
		t.Errorf("want two bad events and no repair: %+v", s)
	}
}

func TestDeadNodeIsNotLocated(t *testing.T) {
	conn := natstest.Run(t)
	v := openView(t, conn, cluster.ViewConfig{Self: "self"})
	steadyHolder(t, conn, "self", cluster.PublisherConfig{}, keys(1, 3)...)
	a := steadyHolder(t, conn, "a", cluster.PublisherConfig{}, keys(1, 3)...)
	await(t, v, a.token())
	if got := where(v, keys(1, 1)); got[0] != "0 a@a:1:disk" {
		t.Fatalf("located: %v", got)
	}
	if p, ok := v.Peer("a"); !ok || p.Addr != "a:1" {
		t.Errorf("Peer(a) = %v, %v", p, ok)
	}
	if _, ok := v.Peer("self"); ok {
		t.Error("a node must not be its own peer")
	}
	// A node that leaves is gone; whoever waits for it is told so.
	gone := a.token()
	gone.Position += 1000
	waited := make(chan error, 1)
	go func() { waited <- v.Await(ctxFor(t, patience), gone) }()
	a.kill()
	if err := a.lease.Leave(ctxFor(t, patience)); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if got := where(v, keys(1, 1)); got[0] != "0 " {
		t.Errorf("still located after it left: %v", got)
	}
	// It comes back with other blocks, as another incarnation.
	b := steadyHolder(t, conn, "a", cluster.PublisherConfig{}, key(1, 2))
	b.change(true, block.Host, key(1, 7))
	await(t, v, b.token())
	want := []string{"0 ", "1 ", "2 a@a:1:disk", "3 a@a:1:host"}
	if diff := cmp.Diff(want, where(v, append(keys(1, 3), key(1, 7)))); diff != "" {
		t.Errorf("after its return (-want +got):\n%s", diff)
	}
	await(t, v, gone) // of the incarnation before: gone, not waited for
}

func TestNodeThatDiesExpires(t *testing.T) {
	srv := natstest.Server(t, cluster.ServerConfig{DontListen: true})
	conn := natstest.Connect(t, cluster.ConnConfig{InProcess: srv})
	natstest.Ensure(t, conn)
	other := natstest.Connect(t, cluster.ConnConfig{InProcess: srv})
	v := openView(t, conn, cluster.ViewConfig{})
	steadyHolder(t, conn, "b", cluster.PublisherConfig{})
	known := seen(v, "a", 0)
	a := startHolder(t, other, "a", cluster.PublisherConfig{}, key(1, 1))
	awaitSeen(t, v, known, a.token())
	forever := a.token()
	forever.Position = 1 << 40
	other.NC.Close()
	start := time.Now()
	awaitSeen(t, v, known, forever)
	if got := where(v, keys(1, 2)); got[1] != "1 " {
		t.Errorf("still located: %v", got)
	}
	t.Logf("out of the answers %v after its connection was cut, lease %v", time.Since(start), short.TTL)
}
