package diskstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/block"
	"cairn/tier"
)

// flush is one flush that several callers wait for.
type flush struct {
	done chan struct{}
	err  error // readable when done is closed
}

// Sync implements [tier.Syncer]: when it returns nil, every Put and every Delete
// that returned before it was called survives a power loss. Calls that arrive
// while a flush runs share the next one. When ctx ends first the flush goes on
// without the caller.
func (s *Store) Sync(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return fmt.Errorf("diskstore: sync: %w", err)
	}
	defer s.end()
	if err := s.sync(ctx); err != nil {
		return fmt.Errorf("diskstore: sync: %w", err)
	}
	return nil
}

func (s *Store) sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.flushMu.Lock()
	f := s.nextFlush
	if f == nil {
		f = &flush{done: make(chan struct{})}
		s.nextFlush = f
		s.background.Go(func() { s.runFlush(f) })
	}
	s.flushMu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// runFlush waits for the flush under way, closes f to newcomers and runs it.
func (s *Store) runFlush(f *flush) {
	s.flushing <- struct{}{}
	s.flushMu.Lock()
	s.nextFlush = nil
	s.flushMu.Unlock()
	f.err = s.flush(context.Background())
	<-s.flushing
	close(f.done)
}

// flush makes everything that is written durable. A segment may become suspect while it
// runs, because of a table that was being written: then it begins again, once.
func (s *Store) flush(ctx context.Context) error {
	again := false
	for {
		more, err := s.flushOnce(ctx)
		switch {
		case errors.Is(err, errSuspect) && !again:
			again = true
		case err != nil || !more:
			return err
		}
	}
}

// flushOnce tells whether there are more suspect segments, which another call is to empty.
func (s *Store) flushOnce(ctx context.Context) (more bool, err error) {
	emptied, more, err := s.evacuate(ctx)
	if err != nil {
		return false, err
	}
	if err := s.writeTombs(ctx); err != nil {
		return false, err
	}
	if err := s.syncDirty(more); err != nil {
		return false, err
	}
	return more, s.removeEmptied(ctx, emptied)
}

// errSuspect: a flush of the segment failed before.
var errSuspect = errors.New("an earlier flush of the segment failed")

// syncDirty flushes the segments that were written to, and the directory if a
// removal is not durable. A suspect segment that was not emptied is an error, unless more
// tells that its turn is to come.
func (s *Store) syncDirty(more bool) error {
	var errs []error
	var dirty []*segment
	s.mu.Lock()
	for _, g := range s.segments {
		switch {
		case g.suspect && !g.emptied && (!more || !g.flushed):
			errs = append(errs, fmt.Errorf("%s: %w", segmentName(g.id), errSuspect))
		case g.dirty() && !g.suspect:
			g.users++
			dirty = append(dirty, g)
		}
	}
	s.mu.Unlock()
	for _, g := range dirty {
		errs = append(errs, s.syncSegment(g))
		s.release(g)
	}
	errs = append(errs, s.syncDir())
	return errors.Join(errs...)
}

// syncSegment flushes one file. When that fails the segment becomes suspect.
func (s *Store) syncSegment(g *segment) error {
	s.mu.Lock()
	due := g.writes
	s.mu.Unlock()

	g.syncing.Lock()
	defer g.syncing.Unlock()
	s.mu.Lock()
	suspect, done := g.suspect, g.synced >= due
	due = g.writes
	s.mu.Unlock()
	if suspect {
		return fmt.Errorf("%s: %w", segmentName(g.id), errSuspect)
	}
	if done {
		return nil
	}
	err := s.ioError(g.file.Sync())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		g.suspect = true
		if !g.retired {
			s.retireLocked(g)
		}
		return err
	}
	g.synced, g.flushed = due, true
	return nil
}

// syncDir makes removals durable that are not.
func (s *Store) syncDir() error {
	s.mu.Lock()
	dirty := s.dirDirty
	s.dirDirty = false
	s.mu.Unlock()
	if !dirty {
		return nil
	}
	if err := s.fs.SyncDir(); err != nil {
		s.mu.Lock()
		s.dirDirty = true
		s.mu.Unlock()
		return s.ioError(err)
	}
	return nil
}

// evacuate copies what lives in suspect segments, tombstones included, to
// others. A segment of which no flush ever succeeded goes at once: nothing relies on
// it, and each flush that fails would leave one more behind. Another must stay until the
// copies are durable, so there is one such at a time: the rest, more, waits for the
// next call. evacuate returns those that were emptied and must stay, from earlier calls too.
func (s *Store) evacuate(ctx context.Context) (emptied []*segment, more bool, err error) {
	s.mu.Lock()
	var suspects, waiting []*segment
	for _, g := range s.segments {
		switch {
		case !g.suspect || g.gone:
			continue
		case !g.flushed:
			suspects = append(suspects, g)
		case g.emptied:
			emptied = append(emptied, g)
		default:
			waiting = append(waiting, g)
		}
	}
	if len(emptied) == 0 && len(waiting) > 0 {
		suspects, waiting = append(suspects, waiting[0]), waiting[1:]
	}
	for _, g := range suspects {
		g.users++
	}
	s.mu.Unlock()
	for _, g := range suspects {
		if err == nil {
			<-g.quiet
			err = s.evacuateOne(ctx, g)
		}
		switch {
		case err != nil:
		case g.flushed: // of a suspect segment that does not change any more
			emptied = append(emptied, g)
		default:
			if err = s.writeTombs(ctx); err == nil {
				err = s.removeOne(ctx, g)
			}
		}
		s.release(g)
	}
	return emptied, len(waiting) > 0, err
}

func (s *Store) evacuateOne(ctx context.Context, g *segment) error {
	s.mu.Lock()
	from, done := g.placed, g.emptied
	s.mu.Unlock()
	if done {
		return nil
	}
	limit := s.quietLimit()
	if g.flushed {
		limit = 2 * s.cfg.Capacity // it stays for now
	}
	var buf []byte
	room := func(size int64, records int) (place, error) {
		if segmentHeaderSize+size+footerSize(records) > s.cfg.SegmentSize {
			return s.roomToMove(ctx, limit)(size, records) // from a life with larger segments
		}
		return s.roomInActive(size, records)
	}
	for _, p := range from {
		for {
			s.mu.Lock()
			active := s.active
			s.mu.Unlock()
			err := s.relocate(g, p, &buf, room, nil)
			if errors.Is(err, tier.ErrCorrupt) {
				s.addOrphans([]block.Key{p.key})
				break
			}
			if err == nil {
				break
			}
			if !errors.Is(err, errNoRoom) {
				return err
			}
			if err := s.rollQuietly(ctx, active, limit); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	s.tombs = append(s.tombs, g.tombs...)
	g.emptied = true
	s.mu.Unlock()
	return nil
}

// removeEmptied removes segments whose content is durable elsewhere by now.
func (s *Store) removeEmptied(ctx context.Context, emptied []*segment) error {
	for _, g := range emptied {
		if err := s.removeOne(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// syncEvery flushes at the configured interval until Close.
func (s *Store) syncEvery() {
	tick := time.NewTicker(s.cfg.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			if err := s.sync(context.Background()); err != nil {
				s.cfg.Logger.Warn("flushing the disk store failed", "dir", s.dir, "error", err)
			}
		}
	}
}
