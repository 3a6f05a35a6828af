package diskstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
// too small, by a new one. A Put then makes room for the next, and reports
// what that evicts; everybody else takes the room that is kept, and evicts only
// when there is none.
func (s *Store) roll(ctx context.Context, was *segment, forPut bool) (evicted []block.Key, err error) {
	if err := acquire(ctx, s.rolling); err != nil {
		return nil, err
	}
	defer func() { <-s.rolling }()
	s.mu.Lock()
	done := s.active != was
	s.mu.Unlock()
	if done {
		return nil, nil
	}
	evicted, err = s.makeRoom(ctx)
	if err != nil {
		return evicted, err
	}
	g, err := s.createSegment()
	if errors.Is(err, tier.ErrNoSpace) {
		if keys, ok := s.relieve(ctx); ok {
			evicted = append(evicted, keys...)
			g, err = s.createSegment()
		}
	}
	if err != nil {
		return evicted, err
	}
	s.mu.Lock()
	if s.active != nil {
		s.retireLocked(s.active)
	}
	s.active = g
	s.segments = append(s.segments, g)
	s.byID[g.id] = g
	s.mu.Unlock()
	if forPut {
		evicted = append(evicted, s.keepRoom(ctx)...)
	}
	return evicted, nil
}

// keepRoom reclaims segments until there is room for one more: for what cannot
// report what it evicts.
func (s *Store) keepRoom(ctx context.Context) (evicted []block.Key) {
	for s.crowded() {
		keys, ok, err := s.reclaim(ctx, s.cfg.rescueBudget())
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
// does.
func (s *Store) rollQuietly(ctx context.Context, was *segment) error {
	keys, err := s.roll(ctx, was, false)
	s.roomTaken.Store(true)
	s.addOrphans(keys)
	return err
}

// addOrphans keeps keys that were evicted where no Put can report them.
func (s *Store) addOrphans(keys []block.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orphans = append(s.orphans, keys...)
}

// crowded tells whether one more segment would exceed Capacity.
func (s *Store) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := s.cfg.SegmentSize
	for _, g := range s.segments {
		total += g.charge(s.cfg.SegmentSize)
	}
	return total > s.cfg.Capacity || len(s.segments) >= s.cfg.maxSegments()
}

// makeRoom reclaims segments until one more fits into Capacity. As a rule there
// is room already.
func (s *Store) makeRoom(ctx context.Context) (evicted []block.Key, err error) {
	for s.crowded() {
		keys, ok, err := s.reclaim(ctx, 0)
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

// relieve removes a segment because the file system is full, unless there is
// only the active one.
func (s *Store) relieve(ctx context.Context) (evicted []block.Key, ok bool) {
	evicted, ok, err := s.reclaim(ctx, 0)
	return evicted, ok && err == nil
}

// reclaim removes one segment and the objects in it, after copying up to budget
// bytes of those that were read to the active segment. ok is false when there
// is none to remove. It never waits for a writer, since writers call it.
func (s *Store) reclaim(ctx context.Context, budget int64) (evicted []block.Key, ok bool, err error) {
	if err := acquire(ctx, s.reclaiming); err != nil {
		return nil, false, err
	}
	defer func() { <-s.reclaiming }()
	// Removals must become durable in order, or a tombstone might go before the
	// record that it hides.
	if err := s.syncDir(); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	g := s.victimLocked()
	if g != nil {
		g.users++
	}
	s.mu.Unlock()
	if g == nil {
		return nil, false, nil
	}
	defer s.release(g)
	if budget > 0 {
		s.rescue(ctx, g, budget)
	}
	s.mu.Lock()
	moved := g.moved
	s.mu.Unlock()
	if moved {
		if err := s.syncDirty(); err != nil {
			// The copies may not be durable but the originals were: give them up.
			evicted = s.evictCopies(g)
		}
	}
	// First the file, so that nothing is evicted that stays on the disk.
	if err := s.unlink(g); err != nil {
		return evicted, false, err
	}
	evicted = append(evicted, s.evictAll(g)...)
	s.detach(g)
	return evicted, true, nil
}

// victimLocked chooses the segment to remove: one without objects and
// tombstones, or else the oldest; nil if that is still being written to.
func (s *Store) victimLocked() *segment {
	idle := func(g *segment) bool { return g.retired && g.writers == 0 }
	for _, g := range s.segments {
		if idle(g) && g.live == 0 && len(g.tombs) == 0 {
			return g
		}
	}
	if len(s.segments) > 0 && idle(s.segments[0]) {
		return s.segments[0]
	}
	return nil
}

// rescue gives objects of g that were read a second chance, within budget
// bytes. What fails is not rescued.
func (s *Store) rescue(ctx context.Context, g *segment, budget int64) {
	s.mu.Lock()
	candidates := g.placed
	s.mu.Unlock()
	var buf []byte
	for _, p := range candidates {
		s.mu.Lock()
		e, ok := s.index[p.key]
		ok = ok && e.at(g, p) && e.read
		s.mu.Unlock()
		size := recordSize(int64(e.length), int64(s.cfg.PayloadAlign))
		if !ok || size > budget {
			continue
		}
		if err := s.relocate(g, p, &buf); errors.Is(err, tier.ErrCorrupt) {
			continue
		} else if err != nil || ctx.Err() != nil {
			return
		}
		budget -= size
	}
}

// relocate copies an object of from to the active segment, if it still lives,
// or gives errNoRoom. from must be held by a use; scratch is room for the bytes,
// grown as needed.
func (s *Store) relocate(from *segment, p placed, scratch *[]byte) error {
	s.mu.Lock()
	e, ok := s.index[p.key]
	s.mu.Unlock()
	if !ok || !e.at(from, p) {
		return nil
	}
	*scratch = slices.Grow((*scratch)[:0], int(e.length))
	buf := (*scratch)[:e.length]
	if err := s.read(from, p.key, e, buf); err != nil {
		return err
	}
	s.mu.Lock()
	e, ok = s.index[p.key]
	if !ok || !e.at(from, p) {
		s.mu.Unlock()
		return nil
	}
	// Reserved while it lives: a Delete from here on has a higher order.
	at, err := s.reserveLocked(int64(len(buf)))
	s.mu.Unlock()
	if err != nil {
		return err
	}
	d := e.descriptor(p.key)
	err = s.write(at, d, buf)
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, ok := s.index[p.key]; err != nil || !ok || !now.at(from, p) {
		s.abandonLocked(at, p.key)
		return err
	}
	from.live--
	from.moved = true
	s.commitLocked(at, d)
	return nil
}

// evictAll removes what lives in g from the index and returns the keys.
func (s *Store) evictAll(g *segment) []block.Key {
	return s.evict(g, func(e entry, p placed) bool { return e.at(g, p) })
}

// evictCopies removes from the index what may have been copied from g to a
// segment that is not durable.
func (s *Store) evictCopies(g *segment) []block.Key {
	return s.evict(g, func(e entry, p placed) bool { return !e.at(g, p) && s.byID[e.segment].dirty() })
}

func (s *Store) evict(g *segment, goes func(entry, placed) bool) (evicted []block.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range g.placed {
		if i%chunk == chunk-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
		e, ok := s.index[p.key]
		if !ok || !goes(e, p) {
			continue
		}
		s.forgetLocked(p.key, e)
		if e.segment != g.id {
			s.tombs = append(s.tombs, tombstone{key: p.key, order: e.order})
		}
		s.stats.Evictions++
		evicted = append(evicted, p.key)
	}
	return evicted
}

// unlink removes the name of g; its file lives on for those who read it.
func (s *Store) unlink(g *segment) error {
	if err := s.fs.Remove(segmentName(g.id)); err != nil {
		return s.ioError(fmt.Errorf("remove %s: %w", segmentName(g.id), err))
	}
	s.mu.Lock()
	s.dirDirty = true
	s.mu.Unlock()
	return nil
}

// detach forgets g, in which nothing lives, and makes its removal durable.
func (s *Store) detach(g *segment) {
	s.mu.Lock()
	s.segments = slices.DeleteFunc(slices.Clone(s.segments), func(o *segment) bool { return o == g })
	delete(s.byID, g.id)
	g.gone = true
	s.mu.Unlock()
	// An error is counted, and everything that relies on it tries again.
	_ = s.syncDir()
}

// removeOne removes g, which was emptied; a reclaim may have done it already.
func (s *Store) removeOne(ctx context.Context, g *segment) error {
	if err := acquire(ctx, s.reclaiming); err != nil {
		return err
	}
	defer func() { <-s.reclaiming }()
	s.mu.Lock()
	gone := g.gone
	if !gone {
		g.users++
	}
	s.mu.Unlock()
	if gone {
		return nil
	}
	defer s.release(g)
	if err := s.unlink(g); err != nil {
		return err
	}
	s.detach(g)
	return nil
}
