package diskstore

import (
	"context"
	"errors"
	"slices"
)

// The spare segment is where reclaim moves objects to when the segments exceed the
// overdraft already: after input or output errors, or because the store was opened with
// less Capacity than it had. Only reclaim writes to it, so a move that fails is taken
// back to the byte: whatever fails, and however often, takes the room of one segment.
// A move that succeeds frees at least as much as it took, so there is no state of
// the segments from which reclaim does not get on once objects can be read, written and
// flushed again.
//
// It takes what must be moved from one segment whatever its size, and is retired after
// that if it has become as large as a segment.

// spareMark is how far the spare segment was filled at some time; the zero value is an
// empty one.
type spareMark struct {
	segment              *segment
	tail                 int64
	slots, placed, tombs int
}

// markSpare begins a move. s.reclaiming is held until resetSpare, or the next markSpare.
func (s *Store) markSpare() spareMark {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.spare
	if g != nil && !g.retired && g.tail+footerSize(g.slots) >= s.cfg.SegmentSize {
		s.retireLocked(g)
	}
	if g == nil || g.retired {
		s.spare = nil
		return spareMark{}
	}
	return spareMark{g, g.tail, g.slots, len(g.placed), len(g.tombs)}
}

// inSpare is what of moves went to the spare segment.
func (s *Store) inSpare(moves []move) []move {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(moves, func(m move) bool { return s.spare == nil || m.to != s.spare.id })
}

// resetSpare ends a move that failed and is taken back: the index has nothing any more
// in the spare segment that was not there at mark. Records that stay behind the
// tail are overwritten or cut off, or else found by a scan: copies of objects that are
// kept, which the tombstone of a deletion hides as well.
func (s *Store) resetSpare(mark spareMark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.spare
	if g == nil || g.retired {
		return
	}
	if mark.segment != g { // begun since
		mark = spareMark{tail: segmentHeaderSize}
	}
	g.tail, g.slots = mark.tail, mark.slots
	g.placed, g.tombs = slices.Clip(g.placed[:mark.placed]), slices.Clip(g.tombs[:mark.tombs])
}

// roomToEmpty returns a function that gives a place for what must be moved from one
// segment: in the spare segment if there is one, or where [Store.roomToMove] finds it, or
// in a new spare segment.
func (s *Store) roomToEmpty(ctx context.Context) func(int64, int) (place, error) {
	room := s.roomToMove(ctx, s.overdraft())
	return func(size int64, records int) (place, error) {
		at, err := s.roomInSpare(size, records)
		if err != nil || at.segment != nil {
			return at, err
		}
		at, err = room(size, records)
		if !errors.Is(err, errOverdrawn) {
			return at, err
		}
		if err := s.makeSpare(ctx); err != nil {
			return place{}, err
		}
		return s.roomInSpare(size, records)
	}
}

// roomInSpare is a place in the spare segment, empty if there is none.
func (s *Store) roomInSpare(size int64, records int) (place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.spare
	switch {
	case g == nil:
		return place{}, nil
	case g.retired: // since the move began
		return place{}, errSuspect
	}
	return s.takeLocked(g, size, records, g.tail+size+footerSize(g.slots+records)), nil
}

// makeSpare begins a spare segment.
func (s *Store) makeSpare(ctx context.Context) error {
	if err := acquire(ctx, s.creating); err != nil {
		return err
	}
	defer func() { <-s.creating }()
	g, err := s.createSegment()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.floor = s.nextOrder
	s.spare = g
	s.segments = append(s.segments, g)
	s.byID[g.id] = g
	return nil
}
