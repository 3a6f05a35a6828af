package cluster

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"cairn/block"
	"cairn/node"

	"github.com/nats-io/nats.go/jetstream"
)

// busyStore deletes nothing.
type busyStore struct{ jetstream.ObjectStore }

func (busyStore) Delete(ctx context.Context, _ string) error {
	return errors.Join(errors.New("busy"), ctx.Err())
}

// A node that stops while it deletes an old snapshot leaves that to its next start; that is
// nothing to warn of.
func TestSnapshotterStopsQuietly(t *testing.T) {
	var log bytes.Buffer
	s := newSnapshotter(&Publisher{cfg: PublisherConfig{Node: "a", Logger: slog.New(slog.NewTextHandler(&log, nil))}})
	ctx, cancel := context.WithCancel(t.Context())
	s.deleteOld(ctx, busyStore{})
	if strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("a store that refuses to delete: it says %q, want one warning", log.String())
	}
	log.Reset()
	cancel()
	if s.deleteOld(ctx, busyStore{}); log.Len() > 0 {
		t.Errorf("when it stops it says %q", log.String())
	}
}

// Snapshots are written by the number of changes, which grows with what a node holds.
func TestSnapshotIsDue(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		newest   *SnapshotInfo
		position uint64
		due      bool
	}{
		"none yet":                           {nil, 0, true},
		"of an incarnation before":           {&SnapshotInfo{Incarnation: 1, Covered: 5, Written: now}, 5, true},
		"nothing has changed":                {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now.Add(-time.Hour)}, 5, false},
		"a change, and long ago":             {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now.Add(-time.Hour)}, 6, true},
		"a change":                           {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now}, 6, false},
		"less than enough":                   {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now}, 104, false},
		"enough changes":                     {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now}, 105, true},
		"enough, but not for so many blocks": {&SnapshotInfo{Incarnation: 2, Covered: 5, Blocks: 2000, Written: now}, 1004, false},
		"half as many as blocks":             {&SnapshotInfo{Incarnation: 2, Covered: 5, Blocks: 2000, Written: now}, 1005, true},
	} {
		p := &Publisher{cfg: PublisherConfig{SnapshotChanges: 100, SnapshotInterval: time.Minute}, incarnation: 2, position: c.position}
		s := newSnapshotter(p)
		s.newest.Store(c.newest)
		if due := s.due(); due != c.due {
			t.Errorf("%s: due is %v", name, due)
		}
	}
}

// What somebody else has had written meanwhile is not written again: at the start of a node
// whoever looks for its snapshot may be faster than the node itself.
func TestSnapshotIsWrittenOnce(t *testing.T) {
	ctx := t.Context()
	srv, err := StartServer(ServerConfig{StoreDir: t.TempDir(), DontListen: true})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	conn, err := Connect(ctx, ConnConfig{InProcess: srv})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := Ensure(ctx, conn, Layout{}); err != nil {
		t.Fatal(err)
	}
	p, err := NewPublisher(conn, PublisherConfig{Node: "a", Incarnation: 1})
	if err != nil {
		t.Fatal(err)
	}
	change := func() { p.Announce([]node.Change{{Key: block.Key{1}, Tier: block.Host, Stored: true}}) }
	change()
	s := p.snaps
	s.walk = func(func(block.Key, block.TierMask) bool) uint64 { return p.Announce(nil) }
	close(s.ready)
	if _, err := s.ensure(ctx, 1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		before  func()
		written uint64
	}{
		{"nothing is new", func() {}, 1},
		{"a change", change, 2},
		{"another incarnation", func() { p.Reincarnate(2) }, 3},
	} {
		c.before()
		s.ask()
		reason, ok := s.next(ctx, nil, nil)
		if _, err := s.writeUnless(ctx, reason); err != nil || !ok || s.written.Load() != c.written {
			t.Errorf("%s: %d snapshots are written, want %d; %v", c.name, s.written.Load(), c.written, err)
		}
	}
}
