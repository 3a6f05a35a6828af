package diskstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"cairn/block"
	"cairn/tier"
)

// place is a reservation for one record.
type place struct {
	segment *segment
	off     int64
	size    int64
	order   uint64
}

// Put implements [tier.Store]. It copies src to the page cache; the package
// comment says when the object is durable. Objects larger than [Store.MaxObject]
// give ErrTooLarge. evicted also lists what background work evicted since the
// last Put.
func (s *Store) Put(ctx context.Context, d block.Descriptor, src []byte) (evicted []block.Key, err error) {
	if err := s.begin(); err != nil {
		return nil, fail("put", d.Key, err)
	}
	defer s.end()
	if len(src) != int(d.Length) {
		return nil, fail("put", d.Key, fmt.Errorf("%d bytes given, the descriptor says %d", len(src), d.Length))
	}
	if most := s.MaxObject(); int64(len(src)) > most {
		return nil, fail("put", d.Key, fmt.Errorf("%w: %d bytes, at most %d in a segment of %d",
			tier.ErrTooLarge, len(src), most, s.cfg.SegmentSize))
	}
	if err := s.claim(ctx, d); err != nil {
		return nil, fail("put", d.Key, err)
	}
	defer s.unclaim(d.Key)
	if err := s.admit(d); err != nil {
		return s.takeOrphans(), fail("put", d.Key, err)
	}
	defer s.admitted(d)
	evicted, err = s.store(ctx, d, src)
	if errors.Is(err, errSuspect) && s.sync(ctx) == nil {
		// What could not be moved for a flush that failed can be moved now.
		var more []block.Key
		more, err = s.store(ctx, d, src)
		evicted = append(evicted, more...)
	}
	if err == nil && s.cfg.Sync == SyncAlways {
		if err = s.sync(ctx); err != nil {
			s.mu.Lock()
			s.dropLocked(d.Key)
			s.mu.Unlock()
		}
	}
	return append(evicted, s.takeOrphans()...), fail("put", d.Key, err)
}

// claim makes this call the only one that puts d.Key, so that two different
// objects never race for one key.
func (s *Store) claim(ctx context.Context, d block.Descriptor) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		if e, ok := s.index[d.Key]; ok {
			s.mu.Unlock()
			if e.length != d.Length || e.sum != d.Sum {
				return tier.ErrConflict
			}
			return tier.ErrExists
		}
		other, busy := s.puts[d.Key]
		if !busy {
			s.puts[d.Key] = make(chan struct{})
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Store) unclaim(key block.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.puts[key])
	delete(s.puts, key)
}

// takeOrphans returns the keys that nobody has reported as evicted, without
// those that were put again meanwhile: for them nothing has changed.
func (s *Store) takeOrphans() []block.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.orphans
	s.orphans = nil
	return slices.DeleteFunc(keys, func(k block.Key) bool {
		_, there := s.index[k]
		return there
	})
}

// store writes the record and makes it visible.
func (s *Store) store(ctx context.Context, d block.Descriptor, src []byte) (evicted []block.Key, err error) {
	if s.roomTaken.Swap(false) {
		evicted = s.keepRoom(ctx)
	}
	var at place
	for {
		s.mu.Lock()
		active := s.active
		at, err = s.reserveLocked(s.cfg.recordSize(d.Length), 1)
		s.mu.Unlock()
		if err == nil {
			break
		}
		var keys []block.Key
		at, keys, err = s.roll(ctx, active, s.cfg.recordSize(d.Length))
		evicted = append(evicted, keys...)
		if err != nil {
			return evicted, err
		}
		if at.segment != nil {
			break
		}
	}
	err = s.write(at, d, src)
	if errors.Is(err, tier.ErrNoSpace) {
		keys, ok := s.relieve(ctx)
		evicted = append(evicted, keys...)
		if ok {
			err = s.write(at, d, src)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.abandonLocked(at, d.Key)
		return evicted, err
	}
	s.commitLocked(at, d)
	s.stats.Puts++
	return evicted, nil
}

// errNoRoom: the active segment, if there is one, is full.
var errNoRoom = errors.New("no room in the segment")

// reserveLocked takes size bytes for the given number of records in the active
// segment, or gives errNoRoom. The reservation must end with commitLocked or
// abandonLocked, or finishLocked. s.mu is held.
func (s *Store) reserveLocked(size int64, records int) (place, error) {
	if s.active == nil {
		return place{}, errNoRoom
	}
	at := s.takeLocked(s.active, size, records, s.cfg.SegmentSize)
	if at.segment == nil {
		return place{}, errNoRoom
	}
	return at, nil
}

// takeLocked is reserveLocked in g, which may become full bytes long; the place is
// empty when there is no room.
func (s *Store) takeLocked(g *segment, size int64, records int, full int64) place {
	off, ok := g.reserve(size, records, full)
	if !ok {
		return place{}
	}
	s.nextOrder++
	return place{segment: g, off: off, size: size, order: s.nextOrder - 1}
}

// commitLocked points the index to the record at, whose bytes are written.
func (s *Store) commitLocked(at place, d block.Descriptor) {
	g := at.segment
	p := placed{key: d.Key, unit: uint32(at.off / minAlign)}
	g.placed = append(g.placed, p)
	g.writes++
	s.enterLocked(g, d.Key, entry{
		parent: d.Parent, sum: d.Sum, order: at.order,
		segment: g.id, unit: p.unit, length: d.Length,
	})
	s.finishLocked(g)
}

// abandonLocked ends a reservation whose record must not be seen. It may be on
// the disk nevertheless, so a tombstone hides it.
func (s *Store) abandonLocked(at place, key block.Key) {
	g := at.segment
	if g.retired {
		g.slots--
	} else {
		g.giveBack(at.off, at.size, 1)
	}
	t := tombstone{key: key, order: at.order}
	if e, ok := s.index[key]; ok && e.order < t.order {
		// A copy, which the original is not to be hidden with.
		home := s.byID[e.segment]
		home.copies = append(home.copies, t)
	} else {
		s.tombs = append(s.tombs, t)
	}
	s.finishLocked(g)
}

// dropLocked removes key from the index, for good.
func (s *Store) dropLocked(key block.Key) bool {
	e, ok := s.index[key]
	if !ok {
		return false
	}
	s.forgetLocked(key, e)
	// The highest order so far, so that it hides a copy under way too.
	s.tombs = append(s.tombs, tombstone{key: key, order: s.nextOrder - 1})
	return true
}

// enterLocked enters key, whose record in g is e, into the index.
func (s *Store) enterLocked(g *segment, key block.Key, e entry) {
	s.index[key] = e
	if follows(key, e.parent) {
		s.followers[e.parent]++
	}
	g.live++
	s.stats.Objects++
	s.stats.Bytes += int64(e.length)
	if s.cfg.Keep(key) {
		n := s.cfg.keptSize(e.length)
		g.kept += n
		s.kept.Objects++
		s.kept.Bytes += int64(e.length)
		s.kept.Used += n
	}
}

// forgetLocked removes the entry e of key from the index.
func (s *Store) forgetLocked(key block.Key, e entry) {
	delete(s.index, key)
	if follows(key, e.parent) {
		if s.followers[e.parent]--; s.followers[e.parent] == 0 {
			delete(s.followers, e.parent)
		}
	}
	g := s.byID[e.segment]
	g.live--
	s.stats.Objects--
	s.stats.Bytes -= int64(e.length)
	if s.cfg.Keep(key) {
		n := s.cfg.keptSize(e.length)
		g.kept -= n
		s.kept.Objects--
		s.kept.Bytes -= int64(e.length)
		s.kept.Used -= n
	}
}

// scratch is what a read or a write needs besides the caller's bytes.
type scratch struct {
	head [maxAlign]byte
	bufs [3][]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// zeros pads payloads.
var zeros [maxAlign]byte

// write puts the record to its place with one system call, as a rule.
func (s *Store) write(at place, d block.Descriptor, src []byte) error {
	g := at.segment
	b := scratches.Get().(*scratch)
	defer scratches.Put(b)
	head := b.head[:g.align]
	clear(head)
	r := record{
		kind: kindObject, length: d.Length, order: at.order, sum: d.Sum,
		key: d.Key, parent: d.Parent, off: at.off,
	}
	r.encodeHeader(head, g.salt)
	padding := at.size - g.unit() - int64(len(src))
	b.bufs = [3][]byte{head, src, zeros[:padding]}
	err := s.ioError(writeFull(g.file, b.bufs[:], at.off))
	b.bufs = [3][]byte{}
	return err
}
