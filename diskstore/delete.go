package diskstore

import (
	"context"
	"errors"

	"cairn/block"
	"cairn/tier"
)

// tombBatch is how many deletions are gathered before a Delete writes them by
// itself, and how many go into one write.
const tombBatch = 1024

// Delete implements [tier.Store]. The deletion is written by the next Sync, or
// by the Delete that finds many of them waiting; see the package comment for
// what survives when. With [SyncAlways] it is durable when Delete returns; an
// error then is counted, and every Sync tries again.
func (s *Store) Delete(key block.Key) bool {
	if s.begin() != nil {
		return false
	}
	defer s.end()
	s.mu.Lock()
	found := s.dropLocked(key)
	if found {
		s.stats.Deletes++
	}
	waiting := len(s.tombs)
	s.mu.Unlock()
	// Errors are counted where they happen; what was not written stays waiting.
	switch {
	case found && s.cfg.Sync == SyncAlways:
		_ = s.sync(context.Background())
	case found && waiting >= tombBatch:
		_ = s.writeTombs(context.Background())
	}
	return found
}

// writeTombs writes the tombstones that wait. When it returns nil, all of those
// that were there before the call are in the page cache.
func (s *Store) writeTombs(ctx context.Context) error {
	if err := acquire(ctx, s.tombing); err != nil {
		return err
	}
	defer func() { <-s.tombing }()
	s.mu.Lock()
	waiting := s.tombs
	s.tombs = nil
	s.mu.Unlock()
	for len(waiting) > 0 {
		n, err := s.writeTombBatch(ctx, waiting[:min(len(waiting), tombBatch)])
		waiting = waiting[n:]
		if err != nil {
			s.mu.Lock()
			s.tombs = append(waiting, s.tombs...)
			s.mu.Unlock()
			return err
		}
	}
	return nil
}

// writeTombBatch writes as many as fit into the active segment, at least one
// unless there is an error.
func (s *Store) writeTombBatch(ctx context.Context, batch []tombstone) (n int, err error) {
	var g *segment
	var off int64
	for {
		s.mu.Lock()
		g = s.active
		ok := false
		if g != nil {
			for n = len(batch); n > 0 && !ok; n /= 2 {
				if off, ok = g.reserve(int64(n)*g.unit(), n, s.cfg.SegmentSize); ok {
					break
				}
			}
		}
		s.mu.Unlock()
		if ok {
			break
		}
		if err := s.rollQuietly(ctx, g, s.quietLimit()); err != nil {
			return 0, err
		}
	}
	batch = batch[:n]
	p := encodeTombs(g, batch, off)
	err = s.ioError(writeFull(g.file, [][]byte{p}, off))
	if errors.Is(err, tier.ErrNoSpace) {
		keys, ok := s.relieve(ctx)
		s.addOrphans(keys)
		if ok {
			err = s.ioError(writeFull(g.file, [][]byte{p}, off))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		n = 0
		if !g.retired {
			g.giveBack(off, int64(len(p)), len(batch))
		}
	} else {
		g.tombs = append(g.tombs, batch...)
		g.writes++
	}
	s.finishLocked(g)
	return n, err
}

// encodeTombs returns the records of tombstones, to be written to g at off.
func encodeTombs(g *segment, batch []tombstone, off int64) []byte {
	p := make([]byte, int64(len(batch))*g.unit())
	for i, t := range batch {
		at := int64(i) * g.unit()
		r := record{kind: kindTombstone, order: t.order, key: t.key, off: off + at}
		r.encodeHeader(p[at:], g.salt)
	}
	return p
}
