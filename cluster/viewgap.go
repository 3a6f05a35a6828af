package cluster

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"cairn/router"
)

// source is one incarnation of one node as the view follows it. View.mu guards
// it but for what never changes.
type source struct {
	id     string
	number uint64 // its incarnation
	// generation stands for the incarnation in the index, which takes back no
	// incarnation that it was told is gone.
	generation uint64
	since      time.Time // of a stranger
	// spawn runs work on a goroutine that Close waits for; ctx ends when the member
	// leaves. Nil for a stranger.
	spawn  func(work func(ctx context.Context))
	cancel context.CancelFunc

	gap     bool           // changes are missing before stash
	loading bool           // a goroutine loads snapshots until the gap is closed
	stash   []router.Event // by First
	floor   uint64         // position that a snapshot must cover, whatever is stashed
}

// needed is the position that a snapshot must cover to be of use: what is stashed goes on
// from there. View.mu is held.
func (s *source) needed() uint64 {
	if len(s.stash) > 0 {
		return max(s.floor, s.stash[0].First-1)
	}
	return s.floor
}

// weight is what an event takes of the bound of all stashes: its changes, or one.
func weight(e router.Event) int { return max(1, len(e.Changes)) }

// keep stashes an event in order. When there is no room the stash is given up: a snapshot
// has to cover it. View.mu is held.
func (v *View) keep(s *source, e router.Event) {
	if v.stashed+weight(e) > v.cfg.StashChanges {
		s.floor = max(s.floor, e.Last())
		v.giveUp(s)
		return
	}
	i, _ := slices.BinarySearchFunc(s.stash, e.First, func(have router.Event, first uint64) int {
		return cmp.Compare(have.First, first)
	})
	s.stash = slices.Insert(s.stash, i, e)
	v.stashed += weight(e)
}

// giveUp empties the stash. View.mu is held.
func (v *View) giveUp(s *source) {
	for _, e := range s.stash {
		v.stashed -= weight(e)
	}
	s.stash = nil
}

// drain applies what of the stash has nothing missing before it. View.mu is held.
func (v *View) drain(s *source) {
	n := 0
	for _, e := range s.stash {
		if err := v.index.Apply(e); errors.Is(err, router.ErrGap) {
			break
		}
		v.stashed -= weight(e)
		n++
	}
	if s.stash = slices.Delete(s.stash, 0, n); len(s.stash) == 0 {
		s.stash = nil // which may have been large
	}
	_, position, ok := v.index.Position(s.id)
	switch {
	case ok && len(s.stash) == 0 && position >= s.floor:
		s.gap = false
		if v.caught {
			v.settle(s)
		}
	default:
		v.mind(s)
	}
}

// mind has the gap of s repaired, unless it closes by itself within GapPatience:
// an event that had to be sent again comes late. View.mu is held.
func (v *View) mind(s *source) {
	if s.gap {
		return
	}
	s.gap = true
	time.AfterFunc(v.cfg.GapPatience, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if s.gap && !s.loading && v.sources[s.id] == s && !v.closed {
			s.loading = true
			s.spawn(func(ctx context.Context) { v.repair(ctx, s) })
		}
	})
}

// repair loads snapshots until nothing is missing any more or the member leaves.
func (v *View) repair(ctx context.Context, s *source) {
	pause := retryPause
	for {
		v.mu.Lock()
		needed := s.needed()
		if !s.gap || ctx.Err() != nil {
			s.loading = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		try, cancel := context.WithTimeout(ctx, v.cfg.LoadTimeout)
		_, err := v.load(try, s, needed, 0)
		cancel()
		if err == nil {
			pause = retryPause
			continue
		}
		if ctx.Err() != nil {
			continue
		}
		v.failures.Add(1)
		v.cfg.Logger.Warn("snapshot was not loaded; trying again", "member", s.id, "needed", needed, "error", err)
		wait(ctx, pause)
		pause = min(2*pause, maxRetryPause)
	}
}

// wait tells whether d passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
