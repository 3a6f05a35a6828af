package diskstore

import (
	"context"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/tier"
)

// acquire takes a semaphore of one.
func acquire(ctx context.Context, sem chan struct{}) error {
	select {
	case sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// roll replaces the active segment, which the caller saw to be was and found
// too small, by a new one. A Put, which gives the size of its record, gets its
// place there, and then makes room for the next segment and reports what that evicts;
// everybody else gives 0, takes the room that is kept, and evicts only when
// there is none. at is empty when somebody else has replaced the segment.
func (s *Store) roll(ctx context.Context, was *segment, size int64) (at place, evicted []block.Key, err error) {
	if err := acquire(ctx, s.rolling); err != nil {
		return place{}, nil, err
	}
	defer func() { <-s.rolling }()
	s.mu.Lock()
	done := s.active != was
	s.mu.Unlock()
	if done {
		return place{}, nil, nil
	}
	evicted, err = s.makeRoom(ctx)
	if err != nil {
		return place{}, evicted, err
	}
	at, err = s.install(ctx, was, size, 1, 0)
	if errors.Is(err, tier.ErrNoSpace) {
		keys, ok := s.relieve(ctx)
		evicted = append(evicted, keys...)
		if ok {
			at, err = s.install(ctx, was, size, 1, 0)
		}
	}
	if err != nil {
		return place{}, evicted, err
	}
	if size > 0 {
		// The place is taken by now, so what is moved cannot fill it up again.
		evicted = append(evicted, s.keepRoom(ctx)...)
	}
	return at, evicted, nil
}

// errOverdrawn: the limit of install does not allow another segment.
var errOverdrawn = errors.New("no room for another segment")

// install makes a new segment the active one, unless that is not was any more, and
// takes the first size bytes of it, if not 0. No segment is made that would make
// the files exceed limit, if not 0.
func (s *Store) install(ctx context.Context, was *segment, size int64, records int, limit int64) (at place, err error) {
	if err := acquire(ctx, s.creating); err != nil {
		return place{}, err
	}
	defer func() { <-s.creating }()
	s.mu.Lock()
	done, total := s.active != was, s.chargedLocked()+s.cfg.SegmentSize
	s.mu.Unlock()
	if done {
		return place{}, nil
	}
	if limit > 0 && total > limit {
		return place{}, fmt.Errorf("%w: %w: the segments would take %d bytes of %d",
			tier.ErrNoSpace, errOverdrawn, total, s.cfg.Capacity)
	}
	g, err := s.createSegment()
	if err != nil {
		return place{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active != nil {
		s.retireLocked(s.active)
	}
	g.floor = s.nextOrder
	s.active = g
	s.segments = append(s.segments, g)
	s.byID[g.id] = g
	if size > 0 {
		// The first record fits, even when objects were larger in an earlier life.
		full := max(s.cfg.SegmentSize, g.tail+size+footerSize(records))
		at = s.takeLocked(g, size, records, full)
	}
	return at, nil
}

// maxCramped is how many segments are removed each time one is begun, because the file
// system has hardly any room left.
const maxCramped = 2

// keepRoom reclaims segments until there is room for one more: for what cannot
// report what it evicts.
func (s *Store) keepRoom(ctx context.Context) (evicted []block.Key) {
	for tries := 0; (s.crowded() || tries < maxCramped && s.cramped()) && s.hopeless(tries) == nil; tries++ {
		keys, ok, err := s.reclaim(ctx, s.cfg.rescueBudget(), s.victimLocked)
		evicted = append(evicted, keys...)
		if err != nil {
			s.roomTaken.Store(true) // the next Put tries again
		}
		if err != nil || !ok {
			break // there is room for now; who needs the next segment tries again
		}
	}
	return evicted
}

// rollQuietly is roll where no Put can report what is evicted; the next Put
// does. It takes more than Capacity, up to limit, rather than fail, since it is
// needed to delete objects and to save them from a segment that cannot be flushed.
func (s *Store) rollQuietly(ctx context.Context, was *segment, limit int64) error {
	_, keys, err := s.roll(ctx, was, 0)
	s.roomTaken.Store(true)
	s.addOrphans(keys)
	if err != nil && ctx.Err() == nil {
		if _, e := s.install(ctx, was, 0, 0, limit); e == nil {
			return nil
		}
	}
	return err
}

// quietLimit is what the segments may occupy while something is done that frees at
// least as much as it takes.
func (s *Store) quietLimit() int64 { return 2*s.cfg.Capacity + 2*s.cfg.SegmentSize }

// addOrphans keeps keys that were evicted where no Put can report them.
func (s *Store) addOrphans(keys []block.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orphans = append(s.orphans, keys...)
}

// chargedLocked is what the segments may occupy in the end.
func (s *Store) chargedLocked() (total int64) {
	for _, g := range s.segments {
		total += g.charge(s.cfg.SegmentSize)
	}
	return total
}

// crowded tells whether one more segment would exceed Capacity; where objects are
// kept, one more and the one that reclaim moves objects to.
func (s *Store) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	more := 1
	if s.kept.Used+s.kept.coming > 0 {
		more = 2
	}
	return s.chargedLocked()+int64(more)*s.cfg.SegmentSize > s.cfg.Capacity || len(s.segments)+more > s.cfg.maxSegments()
}

// cramped tells whether the file system, not Capacity, lacks the room that crowded
// wants, where objects are kept: when it is full they cannot be moved any more.
func (s *Store) cramped() bool {
	s.mu.Lock()
	kept, due := s.kept.Used+s.kept.coming > 0, s.chargedLocked()+2*s.cfg.SegmentSize
	for _, g := range s.segments {
		due -= g.used()
	}
	s.mu.Unlock()
	if !kept {
		return false
	}
	free, err := s.fs.Free()
	return err == nil && free < due
}

// makeRoom reclaims segments until one more fits into Capacity. As a rule there
// is room already.
func (s *Store) makeRoom(ctx context.Context) (evicted []block.Key, err error) {
	for tries := 0; s.crowded(); tries++ {
		if err := s.hopeless(tries); err != nil {
			return evicted, err
		}
		keys, ok, err := s.reclaim(ctx, 0, s.victimLocked)
		evicted = append(evicted, keys...)
		if err != nil {
			return evicted, err
		}
		if ok {
			continue
		}
		// The oldest segment is still being written to.
		s.mu.Lock()
		oldest := s.segments[0]
		if !oldest.retired {
			s.retireLocked(oldest)
		}
		s.mu.Unlock()
		select {
		case <-oldest.quiet:
		case <-ctx.Done():
			return evicted, ctx.Err()
		}
	}
	return evicted, nil
}

// relieve removes a segment because the file system is full, if possible one from
// which nothing must be moved, unless there is only the active one.
func (s *Store) relieve(ctx context.Context) (evicted []block.Key, ok bool) {
	evicted, ok, err := s.reclaim(ctx, 0, s.lightVictimLocked)
	return evicted, ok && err == nil
}
