package cluster_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cairn/cluster"
	"cairn/coherency/ledger"
	"cairn/internal/natstest"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// save saves the present state of the reader, and returns its sequence.
func (r *reader) save() uint64 {
	r.t.Helper()
	sequence, _, data := r.state()
	if err := r.log.SaveSnapshot(r.t.Context(), sequence, data); err != nil {
		r.t.Fatal(err)
	}
	return sequence
}

func snapshotNames(t *testing.T, conn *cluster.Conn) []string {
	t.Helper()
	objects, err := snapshotStore(t, conn).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range objects {
		names = append(names, o.Name)
	}
	slices.Sort(names)
	return names
}

func snapshotStore(t *testing.T, conn *cluster.Conn) jetstream.ObjectStore {
	t.Helper()
	store, err := conn.JS.ObjectStore(t.Context(), cluster.BucketSnapshots)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// TestCoherenceSnapshots: a late reader starts from the newest snapshot and ends like who has
// read everything; two snapshots, and the log since the older one, remain.
func TestCoherenceSnapshots(t *testing.T) {
	conn := natstest.Run(t)
	a := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	for range 3 {
		a.sayAll("a", 10)
		a.save()
	}
	a.sayAll("a", 10)
	if diff := cmp.Diff([]string{"coh/0/20", "coh/0/30"}, snapshotNames(t, conn)); diff != "" {
		t.Error(diff)
	}
	if first := coherenceStream(t, conn).CachedInfo().State.FirstSeq; first != 20 {
		t.Errorf("the log begins at %d, want 20", first)
	}
	late := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	late.same(a)
	if diff := cmp.Diff([]uint64{30}, late.restored); diff != "" || len(late.fresh) != 10 {
		t.Errorf("restored: %s; then %d messages", diff, len(late.fresh))
	}

	if err := a.log.SaveSnapshot(t.Context(), 41, nil); !errors.Is(err, cluster.ErrSnapshot) {
		t.Errorf("a snapshot of the future: %v", err)
	}
	// One that another node has saved meanwhile stays, whatever its age.
	_, _, data := a.state()
	if err := a.log.SaveSnapshot(t.Context(), 25, data); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"coh/0/20", "coh/0/25", "coh/0/30"}, snapshotNames(t, conn)); diff != "" {
		t.Error(diff)
	}
}

// TestCoherenceSnapshotDamaged: the newest cannot be read, so the one before is used; when
// neither can, what is gone from the log is a gap.
func TestCoherenceSnapshotDamaged(t *testing.T) {
	conn := natstest.Run(t)
	a := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	for range 3 {
		a.sayAll("a", 10)
		a.save()
	}
	damage := func(name string) {
		store := snapshotStore(t, conn)
		info, err := store.GetInfo(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := store.GetBytes(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if _, err := store.Put(t.Context(), info.ObjectMeta, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	damage("coh/0/30")
	late := newReader(t, conn, cluster.CoherenceConfig{})
	var offered []uint64 // what is damaged is not even handed out
	late.onRestore = func(sequence uint64) error { offered = append(offered, sequence); return nil }
	late.run().ready().same(a)
	if diff := cmp.Diff([]uint64{20}, offered); diff != "" {
		t.Errorf("restored: %s", diff)
	}
	picky := newReader(t, conn, cluster.CoherenceConfig{})
	picky.onRestore = func(uint64) error { return errors.New("no") }
	if err := picky.run().wait(); !errors.Is(err, cluster.ErrLogGap) || !errors.Is(picky.regressed, cluster.ErrLogGap) {
		t.Errorf("without a snapshot that can be used: %v", err)
	}
	damage("coh/0/20")
	if err := newReader(t, conn, cluster.CoherenceConfig{}).run().wait(); !errors.Is(err, cluster.ErrLogGap) {
		t.Errorf("without a snapshot that can be read: %v", err)
	}
}

// TestCoherenceGapWhileReading: who is so slow that the log is purged ahead of him stops.
func TestCoherenceGapWhileReading(t *testing.T) {
	conn := natstest.Run(t)
	r := newReader(t, conn, cluster.CoherenceConfig{})
	release := make(chan struct{})
	r.hook = func(sequence uint64, _ *ledger.Message) {
		if sequence == 1 {
			<-release
		}
	}
	r.run().ready()
	const messages = 6000 // more than a reader asks for at once, and than wait for him while they are repeated
	for i := range messages {
		m := ledger.Message{Node: "a", Incarnation: 7, Number: uint64(i + 1)}
		if _, err := conn.JS.PublishMsgAsync(&nats.Msg{Subject: cluster.CoherenceSubject(0, "a"), Data: m.Append(nil)}); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 {
			<-conn.JS.PublishAsyncComplete()
		}
	}
	<-conn.JS.PublishAsyncComplete()
	if err := coherenceStream(t, conn).Purge(t.Context(), jetstream.WithPurgeKeep(1)); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := r.wait(); !errors.Is(err, cluster.ErrLogGap) || !errors.Is(r.regressed, cluster.ErrLogGap) {
		t.Errorf("Run: %v", err)
	}
	if last := r.led.Sequence(); last >= messages {
		t.Errorf("a message beyond the gap was handed out: %d", last)
	}
}

// TestCoherenceMadeAnew: a stream that was deleted and made again is another log, for
// who has read the old one and for who has a snapshot of it.
func TestCoherenceMadeAnew(t *testing.T) {
	conn := natstest.Run(t)
	r := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	r.sayAll("a", 3)
	r.save()
	if err := conn.JS.DeleteStream(t.Context(), cluster.CoherenceStream(0)); err != nil {
		t.Fatal(err)
	}
	natstest.Ensure(t, conn)
	if err := r.log.SaveSnapshot(t.Context(), 0, nil); !errors.Is(err, cluster.ErrLogRegressed) {
		t.Errorf("SaveSnapshot: %v", err)
	}
	if err := r.wait(); !errors.Is(err, cluster.ErrLogRegressed) || !errors.Is(r.regressed, cluster.ErrLogRegressed) {
		t.Errorf("Run: %v", err)
	}
	if err := newReader(t, conn, cluster.CoherenceConfig{}).run().wait(); !errors.Is(err, cluster.ErrLogRegressed) {
		t.Errorf("Run with a snapshot of the old log: %v", err)
	}
}

// restarted is a standalone server that is stopped and started on its port.
type restarted struct {
	t   *testing.T
	cfg cluster.ServerConfig
	srv *cluster.Server
}

func newRestarted(t *testing.T) *restarted {
	s := &restarted{t: t, cfg: cluster.ServerConfig{StoreDir: filepath.Join(t.TempDir(), "store"), Port: natstest.Port(t)}}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *restarted) start() {
	s.t.Helper()
	var err error
	if s.srv, err = cluster.StartServer(s.cfg); err != nil {
		s.t.Fatal(err)
	}
}

func (s *restarted) stop() {
	if s.srv == nil {
		return
	}
	if err := s.srv.Close(); err != nil {
		s.t.Error(err)
	}
	s.srv = nil
}

func (s *restarted) copyStore(to string, from string) {
	s.t.Helper()
	if err := os.RemoveAll(to); err != nil {
		s.t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		s.t.Fatal(err)
	}
}

// TestCoherenceServerRestart: what is published while the server is away is in the log once it is back;
// and when it comes back with an old state of its disk, which is the same stream without
// its end, that is noticed.
func TestCoherenceServerRestart(t *testing.T) {
	s := newRestarted(t)
	conn := natstest.Connect(t, cluster.ConnConfig{URLs: []string{s.srv.ClientURL()}, ReconnectWait: 10 * time.Millisecond})
	natstest.Ensure(t, conn)
	cfg := cluster.CoherenceConfig{RegressionGrace: 200 * time.Millisecond, AckTimeout: 100 * time.Millisecond}
	r := newReader(t, conn, cfg).run().ready()
	r.sayAll("a", 3)
	s.stop()
	old := filepath.Join(t.TempDir(), "old")
	s.copyStore(old, s.cfg.StoreDir)
	for n := range uint64(3) {
		r.say("a", 4+n)
	}
	s.start()
	r.until("what was published meanwhile", func() bool { m, _ := r.led.Find("a"); return m.Last == 6 })
	r.sayAll("a", 3)
	if r.stale != 0 || r.log.Stats().Pending != 0 {
		t.Errorf("%d stale, %+v", r.stale, r.log.Stats())
	}
	s.stop()
	s.copyStore(s.cfg.StoreDir, old)
	s.start()
	if err := r.wait(); !errors.Is(err, cluster.ErrLogRegressed) || !errors.Is(r.regressed, cluster.ErrLogRegressed) {
		t.Errorf("Run: %v", err)
	}
}
