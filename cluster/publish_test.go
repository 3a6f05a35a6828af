package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/internal/natstest"
	"cairn/node"

	"github.com/google/go-cmp/cmp"
)

// restartable is a server that comes back on its port, with its files.
type restartable struct {
	t   *testing.T
	cfg cluster.ServerConfig
	now *cluster.Server
}

func newRestartable(t *testing.T) *restartable {
	t.Helper()
	r := &restartable{t: t, cfg: cluster.ServerConfig{StoreDir: t.TempDir(), Port: natstest.Port(t)}}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *restartable) start() {
	r.t.Helper()
	var err error
	if r.now, err = cluster.StartServer(r.cfg); err != nil {
		r.t.Fatal(err)
	}
}

func (r *restartable) stop() {
	r.t.Helper()
	if err := r.now.Close(); err != nil {
		r.t.Error(err)
	}
}

// The stream of placement events is in memory, so the restart of a single
// server loses it; the publisher makes it again and nothing is missing.
func TestPublisherSurvivesServerRestart(t *testing.T) {
	srv := newRestartable(t)
	conn := natstest.Connect(t, cluster.ConnConfig{URLs: []string{srv.now.ClientURL()}, ReconnectWait: 10 * time.Millisecond})
	natstest.Ensure(t, conn)
	lease := mustJoin(t, conn, cluster.Member{ID: "a", Addr: "a:1"}, cluster.LeaseConfig{TTL: time.Minute})
	h := runHolder(t, conn, lease, cluster.PublisherConfig{BatchChanges: 8, AckTimeout: 200 * time.Millisecond})
	early := openView(t, conn, cluster.ViewConfig{})
	h.change(true, block.Host, keys(1, 50)...)
	await(t, early, h.token())
	srv.stop()
	for _, k := range keys(2, 100) {
		h.change(true, block.Disk, k)
	}
	h.change(false, block.Host, keys(1, 10)...)
	srv.start()
	await(t, early, h.token())
	late := openView(t, conn, cluster.ViewConfig{})
	await(t, late, h.token())
	all := append(keys(1, 50), keys(2, 100)...)
	var want []string
	for i := range all {
		switch {
		case i < 10:
			want = append(want, fmt.Sprintf("%d ", i))
		case i < 50:
			want = append(want, fmt.Sprintf("%d a@a:1:host", i))
		default:
			want = append(want, fmt.Sprintf("%d a@a:1:disk", i))
		}
	}
	if diff := cmp.Diff(want, where(early, all)); diff != "" {
		t.Errorf("early view (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, where(late, all)); diff != "" {
		t.Errorf("late view (-want +got):\n%s", diff)
	}
}

func TestQueueGivesWayToSnapshot(t *testing.T) {
	conn := natstest.Run(t)
	v := openView(t, conn, cluster.ViewConfig{GapPatience: time.Millisecond})
	// All of this is announced before the publisher runs: ten times too much.
	h := steadyHolder(t, conn, "a", cluster.PublisherConfig{QueueChanges: 100}, keys(1, 1000)...)
	await(t, v, h.token())
	if s := h.pub.Stats(); s.Collapses != 1 || s.Changes != 0 || s.Position != 1000 {
		t.Errorf("stats %+v", s)
	}
	h.change(true, block.Host, key(1, 0))
	await(t, v, h.token())
	got := where(v, keys(1, 1000))
	if got[0] != "0 a@a:1:host+disk" || got[999] != "999 a@a:1:disk" {
		t.Errorf("located: %s … %s", got[0], got[999])
	}
}

func TestReincarnate(t *testing.T) {
	conn := natstest.Run(t)
	v := openView(t, conn, cluster.ViewConfig{GapPatience: time.Millisecond})
	h := steadyHolder(t, conn, "a", cluster.PublisherConfig{}, keys(1, 10)...)
	await(t, v, h.token())
	if err := h.lease.Leave(ctxFor(t, patience)); err != nil {
		t.Fatal(err)
	}
	h.lease = mustJoin(t, conn, cluster.Member{ID: "a", Addr: "a:2"}, steady)
	h.pub.Reincarnate(h.lease.Member().Incarnation)
	h.change(true, block.Host, key(1, 0))
	await(t, v, h.token())
	if got := where(v, keys(1, 2)); got[0] != "0 a@a:2:host+disk" || got[1] != "1 a@a:2:disk" {
		t.Errorf("located: %v", got)
	}
}

func TestNodeService(t *testing.T) {
	conn := natstest.Run(t)
	sub, err := conn.NC.SubscribeSync(cluster.SummarySubject("*"))
	if err != nil {
		t.Fatal(err)
	}
	h := steadyHolder(t, conn, "a", cluster.PublisherConfig{}, keys(1, 5)...)
	inc := h.lease.Member().Incarnation
	info, err := cluster.Call[cluster.SnapshotRequest, cluster.SnapshotInfo](ctxFor(t, patience), conn,
		cluster.RPCSubject("a", "snapshot"), cluster.SnapshotRequest{Incarnation: inc, AtLeast: 5})
	if err != nil || info.Blocks != 5 || info.Covered != 5 || info.Incarnation != inc {
		t.Errorf("snapshot: %+v, %v", info, err)
	}
	for want, r := range map[string]cluster.SnapshotRequest{
		cluster.CodeBadRequest: {AtLeast: 6}, cluster.CodeNotFound: {Incarnation: inc + 1},
	} {
		_, err := cluster.Call[cluster.SnapshotRequest, cluster.SnapshotInfo](ctxFor(t, patience), conn, cluster.RPCSubject("a", "snapshot"), r)
		if !errors.Is(err, &cluster.RPCError{Code: want}) {
			t.Errorf("%+v: %v, want code %s", r, err, want)
		}
	}
	status, err := cluster.Call[struct{}, cluster.PublisherStats](ctxFor(t, patience), conn, cluster.RPCSubject("a", "status"), struct{}{})
	if err != nil || status.Position != 5 {
		t.Errorf("status: %+v, %v", status, err)
	}
	msg, err := sub.NextMsgWithContext(ctxFor(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(msg.Data) || msg.Subject != "cairn.v1.summary.a" {
		t.Errorf("summary on %s: %s", msg.Subject, msg.Data)
	}
}

func TestPublisherConfigValidate(t *testing.T) {
	err := cluster.PublisherConfig{Node: "n 1", BatchChanges: 1 << 20, Heartbeat: -1, QueueChanges: -1}.Validate()
	wantError(t, err, nil, "node id", "Incarnation", "BatchChanges", "Heartbeat", "QueueChanges")
}

// BenchmarkAnnounce is what a Put pays for being announced.
func BenchmarkAnnounce(b *testing.B) {
	conn := natstest.Run(b)
	p, err := cluster.NewPublisher(conn, cluster.PublisherConfig{Node: "a", Incarnation: 1})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() {
		done <- p.Run(ctx, func(func(block.Key, block.TierMask) bool) uint64 { return p.Announce(nil) })
	}()
	changes := []node.Change{{Key: key(1, 1), Tier: block.Host, Stored: true}}
	b.ReportAllocs()
	for b.Loop() {
		p.Announce(changes)
	}
	b.StopTimer()
	s := p.Stats()
	b.ReportMetric(float64(s.Changes)/b.Elapsed().Seconds(), "acked/s")
	b.ReportMetric(float64(s.Collapses), "collapses")
	cancel()
	<-done
}
