package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"cairn/block"

	"github.com/nats-io/nats.go/jetstream"
)

// Walk yields every block that a node holds with the tiers that hold it, and
// returns a position that it certainly covers: one that Announce returned before
// the walk began. Every change up to there must be visible to the walk; it may
// see later ones.
type Walk func(yield func(block.Key, block.TierMask) bool) (covered uint64)

// snapshotter writes the snapshots of one node.
type snapshotter struct {
	p       *Publisher
	wanted  chan struct{} // capacity 1: write one soon
	ready   chan struct{} // closed once walk is set
	turn    chan struct{} // capacity 1: held by whoever writes
	walk    Walk          // set before ready is closed
	newest  atomic.Pointer[SnapshotInfo]
	waiting atomic.Int32 // callers of ensure
	slot    int          // guarded by turn: where the next one goes
	written atomic.Uint64
	failed  atomic.Uint64
}

func newSnapshotter(p *Publisher) *snapshotter {
	return &snapshotter{p: p, wanted: make(chan struct{}, 1), ready: make(chan struct{}), turn: make(chan struct{}, 1)}
}

// ask has a snapshot written soon.
func (s *snapshotter) ask() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// checksPerInterval is how often within SnapshotInterval the number of changes is
// looked at, at least once a second.
const checksPerInterval = 64

// run writes a snapshot now, and then whenever one is due, until ctx ends. It is
// called once.
func (s *snapshotter) run(ctx context.Context, walk Walk) {
	s.walk = walk
	close(s.ready)
	cfg := &s.p.cfg
	check := time.NewTicker(min(time.Second, max(cfg.SnapshotInterval/checksPerInterval, time.Millisecond)))
	defer check.Stop()
	retire := time.NewTicker(cfg.SnapshotRetire / 4)
	defer retire.Stop()
	s.ask()
	pause := retryPause
	for {
		unless, ok := s.next(ctx, check.C, retire.C)
		if !ok {
			return
		}
		if _, err := s.writeUnless(ctx, unless); err == nil {
			pause = retryPause
		} else if ctx.Err() == nil {
			cfg.Logger.Warn("placement snapshot was not written", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
				pause = min(2*pause, maxRetryPause)
				s.ask()
			}
		}
	}
}

// unless finds a snapshot that makes another one superfluous.
type unless func() (SnapshotInfo, bool)

// next waits until a snapshot is to be written; it is not ok when ctx ends. Whoever asks
// the node for one may be faster, so that the reason is gone when it is this one's turn.
func (s *snapshotter) next(ctx context.Context, check, retire <-chan time.Time) (_ unless, ok bool) {
	for {
		select {
		case <-ctx.Done():
			return nil, false
		case <-s.wanted:
			return s.covering(s.p.at()), true
		case <-check:
			if s.due() {
				return s.enough, true
			}
		case <-retire:
			s.retire(ctx)
			// In any case, so that nobody takes this node for gone.
			return func() (SnapshotInfo, bool) { return SnapshotInfo{}, false }, true
		}
	}
}

// covering finds a snapshot of the incarnation that covers atLeast.
func (s *snapshotter) covering(incarnation, atLeast uint64) unless {
	return func() (SnapshotInfo, bool) {
		n := s.newest.Load()
		if n == nil || n.Incarnation != incarnation || n.Covered < atLeast {
			return SnapshotInfo{}, false
		}
		return *n, true
	}
}

// enough finds the newest snapshot while no other is due.
func (s *snapshotter) enough() (SnapshotInfo, bool) {
	if s.due() {
		return SnapshotInfo{}, false
	}
	return *s.newest.Load(), true
}

// snapshotShare: so many blocks of a snapshot are worth one change. A block takes half as many
// bytes as a change in an event does, so snapshots never cost more than events.
const snapshotShare = 2

// due tells whether enough has changed since the newest snapshot.
func (s *snapshotter) due() bool {
	n := s.newest.Load()
	incarnation, position := s.p.at()
	if n == nil || n.Incarnation != incarnation {
		return true
	}
	changes := position - n.Covered
	return changes >= uint64(max(s.p.cfg.SnapshotChanges, n.Blocks/snapshotShare)) ||
		changes > 0 && time.Since(n.Written) >= s.p.cfg.SnapshotInterval
}

// ensure returns a snapshot of the present incarnation that covers atLeast.
func (s *snapshotter) ensure(ctx context.Context, atLeast uint64) (SnapshotInfo, error) {
	incarnation, position := s.p.at()
	if atLeast > position {
		return SnapshotInfo{}, fmt.Errorf("cluster: snapshot: position %d was asked for, the newest change is %d", atLeast, position)
	}
	fresh := s.covering(incarnation, atLeast)
	if n, ok := fresh(); ok {
		return n, nil
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	return s.writeUnless(ctx, fresh)
}

// snapshotPause is what passes after each piece of a snapshot that nobody waits for: one that
// is written and read back at full speed delays events by tens of milliseconds. All pauses
// together take at most one in pauseShare of SnapshotTimeout, for each way.
const (
	snapshotPause = 8 * time.Millisecond
	pauseShare    = 8
)

// pace makes room for events while a snapshot of so many bytes is written and read back,
// unless somebody waits for it.
func (s *snapshotter) pace(ctx context.Context, bytes int) unhurried {
	pieces := bytes/objectChunk + 1
	pause := min(snapshotPause, s.p.cfg.SnapshotTimeout/pauseShare/time.Duration(pieces))
	return func() {
		if s.waiting.Load() == 0 {
			wait(ctx, pause)
		}
	}
}

// writeUnless waits for its turn and writes a snapshot, unless fresh finds that
// whoever had the turn before has written one that will do.
func (s *snapshotter) writeUnless(ctx context.Context, fresh unless) (SnapshotInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, s.p.cfg.SnapshotTimeout)
	defer cancel()
	select {
	case <-ctx.Done():
		return SnapshotInfo{}, ctx.Err()
	case <-s.ready:
	}
	select {
	case <-ctx.Done():
		return SnapshotInfo{}, ctx.Err()
	case s.turn <- struct{}{}:
	}
	defer func() { <-s.turn }()
	if n, ok := fresh(); ok {
		return n, nil
	}
	n, err := s.store(ctx)
	if err != nil {
		s.failed.Add(1)
		return SnapshotInfo{}, err
	}
	s.written.Add(1)
	s.newest.Store(&n)
	return n, nil
}

// store takes and stores one snapshot, and deletes what an earlier incarnation
// left in the other slot.
func (s *snapshotter) store(ctx context.Context) (SnapshotInfo, error) {
	store, err := s.p.conn.JS.ObjectStore(ctx, BucketSnapshots)
	if err != nil {
		if errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
			err = errors.Join(err, makeLost(ctx, s.p.conn, s.p.cfg.Layout, objStreamPrefix+BucketSnapshots))
		}
		return SnapshotInfo{}, fmt.Errorf("cluster: snapshot: %w", err)
	}
	incarnation, position := s.p.at()
	h := SnapshotHeader{Node: s.p.cfg.Node, Incarnation: incarnation}
	// What is announced from here on is published after what the stream has now. It is
	// asked each time: a stream that was lost and made again counts from 1.
	if stream, err := s.p.conn.JS.Stream(ctx, StreamPlace); err == nil {
		h.After = stream.CachedInfo().State.LastSeq
	}
	prev := s.newest.Load()
	blocks := 0
	if prev != nil {
		blocks = prev.Blocks + prev.Blocks/16
	}
	b := NewSnapshotBuilder(blocks)
	full := false
	h.Covered = s.walk(func(key block.Key, tiers block.TierMask) bool {
		if full = b.Len() == MaxSnapshotEntries; full {
			return false
		}
		if tiers.Any() {
			b.Add(key, tiers)
		}
		return true
	})
	if full {
		return SnapshotInfo{}, fmt.Errorf("cluster: snapshot: more than %d blocks", MaxSnapshotEntries)
	}
	// A walk may not know of changes that were announced without it, or of the number that
	// stands for what was there before the first.
	h.Covered = max(min(h.Covered, position), s.p.began)
	n := SnapshotInfo{Node: h.Node, Incarnation: h.Incarnation, Covered: h.Covered, Blocks: b.Len(), Object: placeSnapshotName(h.Node, s.slot)}
	data, err := b.Encode(h)
	if err == nil {
		err = storeSnapshot(ctx, s.p.conn, store, h, data, s.slot, s.pace(ctx, len(data)))
	}
	if err != nil {
		return SnapshotInfo{}, err
	}
	n.Bytes, n.Written = len(data), time.Now().UTC()
	s.slot = (s.slot + 1) % snapshotSlots
	if prev == nil || prev.Incarnation != incarnation {
		s.deleteOld(ctx, store)
	}
	return n, nil
}

// deleteOld deletes what an earlier incarnation left in the slot that is next. If ctx ends
// first, the next incarnation does it.
func (s *snapshotter) deleteOld(ctx context.Context, store jetstream.ObjectStore) {
	err := store.Delete(ctx, placeSnapshotName(s.p.cfg.Node, s.slot))
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) && !errors.Is(ctx.Err(), context.Canceled) {
		s.p.cfg.Logger.Warn("old placement snapshot was not deleted", "error", err)
	}
}

// retire deletes what nodes that have gone for good left behind.
func (s *snapshotter) retire(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.p.cfg.SnapshotTimeout)
	defer cancel()
	store, err := s.p.conn.JS.ObjectStore(ctx, BucketSnapshots)
	n := 0
	if err == nil {
		n, err = retireSnapshots(ctx, s.p.conn.JS, store, s.p.cfg.SnapshotRetire)
	}
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		s.p.cfg.Logger.Warn("old placement snapshots were not deleted", "error", err)
	} else if n > 0 {
		s.p.cfg.Logger.Info("old placement snapshots deleted", "count", n)
	}
}
