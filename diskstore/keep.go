package diskstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cairn/block"
	"cairn/tier"
)

// Kept counts the objects that are never evicted; see Config.Keep.
type Kept struct {
	Objects    int64 // kept objects held
	Bytes      int64 // bytes of these objects
	Used       int64 // bytes that they count, with headers and padding
	Limit      int64 // what Used may become
	Moved      int64 // times that one was moved because its segment was reclaimed
	MovedBytes int64 // bytes of these

	coming int64 // what the objects count that are being put
}

// Kept is a snapshot of the counters of what is kept.
func (s *Store) Kept() Kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept
	k.coming = 0
	return k
}

// admit counts d against the limit of what is kept, until admitted is called.
func (s *Store) admit(d block.Descriptor) error {
	if !s.cfg.Keep(d.Key) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size, k := s.cfg.keptSize(d.Length), &s.kept
	if k.Used+k.coming+size > k.Limit {
		return fmt.Errorf("%w: %d objects that must be kept count %d bytes of at most %d (Capacity %d, SegmentSize %d, MaxKept %v), and this one %d: delete some or raise Capacity",
			tier.ErrNoSpace, k.Objects, k.Used+k.coming, k.Limit, s.cfg.Capacity, s.cfg.SegmentSize, s.cfg.MaxKept, size)
	}
	k.coming += size
	return nil
}

// admitted ends what admit began; by now the object is in the index or is not
// going to be.
func (s *Store) admitted(d block.Descriptor) {
	if s.cfg.Keep(d.Key) {
		s.mu.Lock()
		s.kept.coming -= s.cfg.keptSize(d.Length)
		s.mu.Unlock()
	}
}

// hopeless tells whether reclaim cannot make room, after so many tries. It can as long
// as what is kept is within its limit, which may be broken by opening a store with
// less Capacity than it had.
func (s *Store) hopeless(tries int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept.Used == 0 {
		return nil
	}
	if room := int64(MaxMaxKept * float64(s.cfg.keptRoom())); s.kept.Used > room {
		return fmt.Errorf("%w: %d objects that must be kept count %d bytes, and there is room for %d in a Capacity of %d and segments of %d",
			tier.ErrNoSpace, s.kept.Objects, s.kept.Used, room, s.cfg.Capacity, s.cfg.SegmentSize)
	}
	if tries > 4*len(s.segments)+64 {
		return fmt.Errorf("%w: reclaiming %d segments has not made room for one, with %d bytes kept in a Capacity of %d",
			tier.ErrNoSpace, tries, s.kept.Used, s.cfg.Capacity)
	}
	return nil
}

// overdraft is what the segments may occupy while kept objects are moved to the active
// one, when writers took the room meanwhile that is kept for that. Beyond it they are moved
// to the spare segment.
func (s *Store) overdraft() int64 { return s.cfg.Capacity + 2*s.cfg.SegmentSize }

// roomToMove returns a function that gives a place in the active segment, or in a new
// one that takes the room that is kept for that, up to limit.
func (s *Store) roomToMove(ctx context.Context, limit int64) func(int64, int) (place, error) {
	return func(size int64, records int) (place, error) {
		for {
			s.mu.Lock()
			active := s.active
			at, err := s.reserveLocked(size, records)
			s.mu.Unlock()
			if err == nil {
				return at, nil
			}
			if at, err = s.install(ctx, active, size, records, limit); err != nil || at.segment != nil {
				return at, err
			}
		}
	}
}

// move is where an object was in the segment that is reclaimed, and where its copy
// is.
type move struct {
	key     block.Key
	order   uint64
	unit    uint32
	to      uint32
	newUnit uint32
}

// empty copies from g what must not go with it: the objects that are kept, and the
// tombstones that are needed. Of the objects, gone were found to be damaged. When
// there is an error, what was copied so far is in moves, and the rest still in g.
func (s *Store) empty(ctx context.Context, g *segment) (gone []block.Key, moves []move, err error) {
	s.mu.Lock()
	var candidates []placed
	if g.kept > 0 {
		candidates = g.placed
	}
	needed := g.kept > 0 || len(s.tombsNeededLocked(g)) > 0
	suspect := slices.ContainsFunc(s.segments, func(o *segment) bool { return o.suspect && !o.emptied })
	s.mu.Unlock()
	if needed && suspect {
		// No copy can be made durable before the next Sync, so none is made.
		return nil, nil, errSuspect
	}
	if needed {
		// A table that is written from now on would not list the originals.
		if err := s.seal(g); err != nil {
			return nil, nil, err
		}
	}
	room := s.roomToEmpty(ctx)
	var buf []byte
	for _, p := range candidates {
		if !s.cfg.Keep(p.key) {
			continue
		}
		err := ctx.Err()
		if err == nil {
			err = s.relocate(g, p, &buf, room, func(was entry, at place) {
				s.kept.Moved++
				s.kept.MovedBytes += int64(was.length)
				moves = append(moves, move{p.key, was.order, p.unit, at.segment.id, uint32(at.off / minAlign)})
			})
		}
		switch {
		case errors.Is(err, tier.ErrCorrupt):
			s.cfg.Logger.Warn("an object that must be kept is damaged and was dropped", "block", p.key, "error", err)
			gone = append(gone, p.key)
		case errors.Is(err, errUnreadable):
			s.mu.Lock()
			s.unread++
			g.stuck = s.unread
			s.mu.Unlock()
			return gone, moves, err
		case err != nil:
			return gone, moves, err
		}
	}
	return gone, moves, s.carryTombs(g, room)
}

// carryTombs copies the tombstones of g that are needed.
func (s *Store) carryTombs(g *segment, room func(int64, int) (place, error)) error {
	s.mu.Lock()
	tombs := s.tombsNeededLocked(g)
	s.mu.Unlock()
	// As many as surely fit into a segment together.
	most := min(tombBatch, MinSegmentSize/2/(s.cfg.PayloadAlign+cellSize))
	for len(tombs) > 0 {
		batch := tombs[:min(len(tombs), most)]
		tombs = tombs[len(batch):]
		at, err := room(int64(len(batch))*int64(s.cfg.PayloadAlign), len(batch))
		if err != nil {
			return err
		}
		to := at.segment
		err = s.ioError(writeFull(to.file, [][]byte{encodeTombs(to, batch, at.off)}, at.off))
		s.mu.Lock()
		if err != nil {
			if !to.retired {
				to.giveBack(at.off, at.size, len(batch))
			}
		} else {
			to.tombs = append(to.tombs, batch...)
			to.writes++
			g.moved, g.needed = true, true
		}
		s.finishLocked(to)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// moveBack makes the index point to the originals in g again, because the copies may
// not be durable. These stay without tombstones, which would hide the originals too:
// both are the same object, whichever a restart finds.
func (s *Store) moveBack(g *segment, moves []move) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range moves {
		if i%chunk == chunk-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
		e, ok := s.index[m.key]
		if !ok || e.segment != m.to || e.unit != m.newUnit {
			continue
		}
		s.forgetLocked(m.key, e)
		e.segment, e.unit, e.order = g.id, m.unit, m.order
		s.enterLocked(g, m.key, e)
	}
}
