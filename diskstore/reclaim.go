package diskstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cairn/block"
	"cairn/tier"
)

// errUnreadable: an object that must be moved gives input or output errors.
var errUnreadable = errors.New("cannot be read to be moved")

// maxUnreadable is how many segments with unreadable objects one reclaim tries.
const maxUnreadable = 4

// reclaim removes one segment, which choose gives under s.mu, and the objects in it,
// after copying to others those that are kept and up to budget bytes of those that were
// read. ok is false when there is none to remove. It never waits for a writer, since
// writers call it.
func (s *Store) reclaim(ctx context.Context, budget int64, choose func() *segment) (evicted []block.Key, ok bool, err error) {
	if err := acquire(ctx, s.reclaiming); err != nil {
		return nil, false, err
	}
	defer func() { <-s.reclaiming }()
	for range maxUnreadable {
		var keys []block.Key
		keys, ok, err = s.reclaimOne(ctx, budget, choose)
		evicted = append(evicted, keys...)
		if !errors.Is(err, errUnreadable) {
			break
		}
	}
	return evicted, ok, err
}

func (s *Store) reclaimOne(ctx context.Context, budget int64, choose func() *segment) (evicted []block.Key, ok bool, err error) {
	// Removals must become durable in order, or a tombstone might go before the
	// record that it hides.
	if err := s.syncDir(); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	g := choose()
	if g != nil {
		g.users++
	}
	s.mu.Unlock()
	if g == nil {
		return nil, false, nil
	}
	defer s.release(g)
	spare := s.markSpare()
	evicted, moves, err := s.empty(ctx, g)
	if err == nil && budget > 0 {
		evicted = append(evicted, s.rescue(ctx, g, budget)...)
	}
	s.mu.Lock()
	moved, needed := g.moved, g.needed
	s.mu.Unlock()
	if moved {
		if serr := s.syncDirty(false); serr != nil && needed {
			// The originals are durable and the copies may not be.
			s.moveBack(g, moves)
			s.resetSpare(spare)
			return evicted, false, serr
		} else if serr != nil {
			// As much, but these may be missed.
			evicted = append(evicted, s.evictCopies(g)...)
		}
	}
	if err != nil {
		s.moveBack(g, s.inSpare(moves))
		s.resetSpare(spare)
		return evicted, false, err
	}
	// First the file, so that nothing is evicted that stays on the disk.
	if err := s.unlink(g); err != nil {
		return evicted, false, err
	}
	evicted = append(evicted, s.evictAll(g)...)
	s.detach(g)
	return evicted, true, nil
}

// roomInActive is a place in the active segment, or errNoRoom.
func (s *Store) roomInActive(size int64, records int) (place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserveLocked(size, records)
}

// relocate copies an object of from to the place that room gives, if it still
// lives, and then calls moved, if not nil, under s.mu. from must be held by a
// use; scratch is room for the bytes, grown as needed.
func (s *Store) relocate(from *segment, p placed, scratch *[]byte, room func(int64, int) (place, error), moved func(entry, place)) error {
	s.mu.Lock()
	e, ok := s.index[p.key]
	s.mu.Unlock()
	if !ok || !e.at(from, p) {
		return nil
	}
	*scratch = slices.Grow((*scratch)[:0], int(e.length))
	buf := (*scratch)[:e.length]
	if err := s.read(from, p.key, e, buf); errors.Is(err, tier.ErrCorrupt) {
		return err
	} else if err != nil {
		return fmt.Errorf("block %v %w: %w", p.key, errUnreadable, err)
	}
	at, err := room(s.cfg.recordSize(e.length), 1)
	if err != nil {
		return err
	}
	// A deletion before the reservation is seen here; a later one has an order that
	// hides the copy.
	s.mu.Lock()
	now, ok := s.index[p.key]
	if !ok || !now.at(from, p) {
		s.abandonLocked(at, p.key)
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	d := e.descriptor(p.key)
	err = s.write(at, d, buf)
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, ok := s.index[p.key]; err != nil || !ok || !now.at(from, p) {
		s.abandonLocked(at, p.key)
		return err
	}
	s.forgetLocked(p.key, e)
	from.moved = true
	from.needed = from.needed || s.cfg.Keep(p.key)
	s.commitLocked(at, d)
	if moved != nil {
		moved(e, at)
	}
	return nil
}

// evictAll removes what lives in g from the index and returns the keys.
func (s *Store) evictAll(g *segment) []block.Key {
	return s.evict(g, func(e entry, p placed) bool { return e.at(g, p) })
}

// evictCopies removes from the index what may have been copied from g to a
// segment that is not durable.
func (s *Store) evictCopies(g *segment) []block.Key {
	return s.evict(g, func(e entry, p placed) bool {
		// Of the kept ones none was copied; it was put again.
		return !e.at(g, p) && s.byID[e.segment].dirty() && !s.cfg.Keep(p.key)
	})
}

func (s *Store) evict(g *segment, goes func(entry, placed) bool) (evicted []block.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Where a segment could not be removed after objects were copied from it, it has
	// records that must stay hidden.
	doubles := slices.ContainsFunc(s.segments, func(o *segment) bool { return o != g && o.moved })
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
		if e.segment != g.id || doubles {
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
	s.tombs = append(s.tombs, g.copies...)
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
