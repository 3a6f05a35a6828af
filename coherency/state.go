package coherency

import (
	"fmt"

	"cairn/block"
)

// Version counts the writes of one block: 1 is its first content, 0 means never
// written. Versions of different blocks have nothing to do with each other, nor
// with an [Epoch].
type Version uint64

// noOwner is the owner of a block whose newest version no tier holds.
const noOwner block.Tier = block.Tiers

// State says which tiers of this node hold which version of one block. It is a
// comparable value of 48 bytes without pointers. Its methods do no locking:
// whoever keeps States applies transitions under one lock per block and moves
// bytes outside of it, between Begin and Commit.
//
// The zero State is a block that was never written: it holds nothing, and every
// transition refuses it. Make States with [New].
type State struct {
	cur     Version              // newest version known here
	have    [block.Tiers]Version // version present in each tier, 0 for none
	flights [block.Tiers]flight  // the copy on its way into each tier
	home    block.Tier
	owner   block.Tier     // holds cur, or noOwner (B3)
	durable bool           // home holds have[home] durably
	wanted  block.TierMask // targets of the last WriteAll that lack cur still
}

// New is the state of a block whose first content, version 1, was just put into
// the tier at. When at is home the bytes must be durable there already; else
// the block starts dirty. Home is Host or Disk; anything else gives [ErrHome].
func New(at, home block.Tier) (State, error) {
	if !at.Valid() {
		return State{}, fmt.Errorf("coherency: new: %w: %s", ErrTier, at)
	}
	if !validHome(home) {
		return State{}, fmt.Errorf("coherency: new: %w, not %s", ErrHome, home)
	}
	s := State{cur: 1, home: home, owner: at, durable: at == home}
	s.have[at] = 1
	return s, nil
}

// validHome leaves GPU memory out: it outlives neither the process nor a reset.
func validHome(t block.Tier) bool { return t == block.Host || t == block.Disk }

// Write records that the bytes of a new version were put into t, in full, and
// returns that version. expect is the version that the writer built upon; when
// the block has another one the error is [ErrConflict].
//
// copies are those that the policy p wants before the write is acknowledged, home
// first; they have begun, and each must end with Commit or Abort. WriteBack asks
// for none. WriteThrough asks for home. WriteAll asks for home and every tier
// that held the block, or that an earlier WriteAll still wants; on a block that no
// tier holds it gives [ErrNoCopy]. When t is home, the copy for home is a flush:
// see [Copy.Flush].
//
// Every copy that was in flight before is stale afterwards.
func (s *State) Write(t block.Tier, p WritePolicy, expect Version) (v Version, copies []Copy, err error) {
	switch {
	case !t.Valid():
		return 0, nil, fmt.Errorf("coherency: write: %w: %s", ErrTier, t)
	case !p.Valid():
		return 0, nil, fmt.Errorf("coherency: write: %w %d", ErrPolicy, uint8(p))
	case s.cur == 0:
		return 0, nil, fmt.Errorf("coherency: write: %w: the state was not made by New", ErrHome)
	case expect != s.cur:
		return 0, nil, fmt.Errorf("coherency: write: %w: expected version %d, the newest is %d", ErrConflict, expect, s.cur)
	case p == WriteAll && s.Gone():
		return 0, nil, fmt.Errorf("coherency: write to all copies: %w", ErrNoCopy)
	}
	held := s.Valid().Union(s.wanted)
	for to := range block.Tier(block.Tiers) {
		s.flights[to] = s.flights[to].ended()
	}
	s.cur++
	s.have[t] = s.cur
	s.owner = t
	s.durable = false
	s.wanted = 0
	if p == WriteBack {
		return s.cur, nil, nil
	}
	copies = append(copies, s.begin(t, s.home))
	if p == WriteAll {
		s.wanted = held.Without(t).Without(s.home)
		for to := range s.wanted.All() {
			copies = append(copies, s.begin(t, to))
		}
	}
	return s.cur, copies, nil
}

// Invalidate drops the copy in t, whatever its version, and makes copies in
// flight to or from t stale. It refuses to drop the only copy of the newest
// version: [ErrLastDirtyCopy] when home does not hold it durably, [ErrLastCopy]
// when t is home and holds it so. A tier with nothing in it or on its way gives
// [ErrNoCopy].
func (s *State) Invalidate(t block.Tier) error {
	switch {
	case !t.Valid():
		return fmt.Errorf("coherency: invalidate: %w: %s", ErrTier, t)
	case s.have[t] == 0 && !s.flights[t].aloft():
		return fmt.Errorf("coherency: invalidate: %w in %s", ErrNoCopy, t)
	case s.Valid() == block.MaskOf(t) && s.durable:
		return fmt.Errorf("coherency: invalidate %s: %w", t, ErrLastCopy)
	case s.Valid() == block.MaskOf(t):
		return fmt.Errorf("coherency: invalidate %s: %w", t, ErrLastDirtyCopy)
	}
	s.drop(t)
	return nil
}

// Discard drops the copy in t even if it is the last one. lost tells that a
// write is lost by this: it was the last copy, and home did not hold that
// version durably. The caller counts and reports it. Discard is the only
// way to lose a write on purpose.
func (s *State) Discard(t block.Tier) (lost bool) {
	return t.Valid() && s.drop(t)
}

// Evicted records that t has dropped its copy by itself: by eviction, because the
// bytes were corrupt, or with the device. gone tells that no tier holds the newest
// version now, lost that home did not hold it durably before either. A tier
// that held nothing changes nothing.
func (s *State) Evicted(t block.Tier) (gone, lost bool) {
	if t.Valid() {
		lost = s.drop(t)
	}
	return s.Gone(), lost
}

// drop is the one place where a copy leaves (B6).
func (s *State) drop(t block.Tier) (lost bool) {
	held, dirty := s.Has(t), !s.Durable()
	s.have[t] = 0
	s.wanted = s.wanted.Without(t)
	for to := range block.Tier(block.Tiers) {
		if to == t || s.flights[to].from(t) {
			s.flights[to] = s.flights[to].ended()
		}
	}
	if t == s.home {
		s.durable = false
	}
	if !held {
		return false
	}
	if s.owner == t {
		s.owner = noOwner
		if f, ok := s.Fastest(); ok {
			s.owner = f
		}
	}
	return dirty && s.Gone()
}

// Version is the newest version known, also when it is gone.
func (s State) Version() Version { return s.cur }

// Home is the tier where the block must be durable.
func (s State) Home() block.Tier { return s.home }

// Has tells whether t holds the newest version.
func (s State) Has(t block.Tier) bool {
	return t.Valid() && s.cur != 0 && s.have[t] == s.cur
}

// Valid is the set of tiers that hold the newest version (B1).
func (s State) Valid() block.TierMask {
	var m block.TierMask
	for t := range block.Tier(block.Tiers) {
		if s.Has(t) {
			m = m.With(t)
		}
	}
	return m
}

// Stale is the set of tiers that hold an older version, whose room can be had
// back.
func (s State) Stale() block.TierMask {
	var m block.TierMask
	for t := range block.Tier(block.Tiers) {
		if s.have[t] != 0 && s.have[t] != s.cur {
			m = m.With(t)
		}
	}
	return m
}

// Durable tells whether home holds the newest version durably.
func (s State) Durable() bool { return s.durable && s.Has(s.home) }

// Dirty is the owner while home does not hold the newest version durably; else it
// is empty (B2). A block that is gone is not dirty: it is lost.
func (s State) Dirty() block.TierMask {
	if s.Durable() || s.Gone() {
		return 0
	}
	return block.MaskOf(s.owner)
}

// Owner is the tier written last if it still holds that version, else the one
// that took over when the owner was dropped. ok is false for a block that is gone.
func (s State) Owner() (t block.Tier, ok bool) {
	if s.Gone() {
		return 0, false
	}
	return s.owner, true
}

// Fastest is the fastest tier that holds the newest version.
func (s State) Fastest() (t block.Tier, ok bool) { return s.Valid().Fastest() }

// NeedsSync is the set of tiers that need a copy or a flush: home while the block
// is dirty, and what the last WriteAll asked for and did not get yet. Copies in
// flight count as needed until they are committed.
func (s State) NeedsSync() block.TierMask {
	if s.Gone() {
		return 0
	}
	m := s.wanted
	if !s.Durable() {
		m = m.With(s.home)
	}
	return m
}

// Gone tells whether no tier holds the newest version. Older copies, if any, are
// never served in its place (B7).
func (s State) Gone() bool { return !s.Valid().Any() }
