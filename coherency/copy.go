package coherency

import (
	"fmt"

	"cairn/block"
)

// Copy is a planned move of the bytes of one version. It is in flight from the
// transition that returned it until Commit or Abort, exactly one of which must
// follow.
type Copy struct {
	From, To block.Tier
	// Version is what From holds and To will hold.
	Version Version

	flight flight
}

// Flush tells that the bytes are at home already and only have to be made
// durable there: From and To are the same.
func (c Copy) Flush() bool { return c.From == c.To }

// flight is the state of the copies into one tier: the lowest two bits are 0
// when none is in flight, else 1 + the tier it comes from; the rest counts the
// copies begun. A late Copy is therefore never taken for a newer one, unless
// 2^30 copies of the block to this tier began in between.
type flight uint32

const flightSource flight = 3

func (f flight) aloft() bool { return f&flightSource != 0 }

func (f flight) from(t block.Tier) bool { return f&flightSource == flight(t)+1 }

func (f flight) ended() flight { return f &^ flightSource }

func (f flight) begun(from block.Tier) flight { return (f | flightSource) + 1 + flight(from) + 1 }

// Begin plans a copy of the newest version from the fastest other tier that holds
// it to the tier to. For a home that holds the bytes but not durably it plans a
// flush. It gives [ErrNoCopy] when the block is gone, [ErrCurrent] when there is
// nothing to do, and [ErrInFlight] when a copy to that tier is under way.
func (s *State) Begin(to block.Tier) (Copy, error) {
	switch {
	case !to.Valid():
		return Copy{}, fmt.Errorf("coherency: copy: %w: %s", ErrTier, to)
	case s.Gone():
		return Copy{}, fmt.Errorf("coherency: copy to %s: %w", to, ErrNoCopy)
	case s.Has(to) && (to != s.home || s.durable):
		return Copy{}, fmt.Errorf("coherency: copy to %s: %w", to, ErrCurrent)
	case s.flights[to].aloft():
		return Copy{}, fmt.Errorf("coherency: copy to %s: %w", to, ErrInFlight)
	case s.Has(to):
		return s.begin(to, to), nil
	}
	from, _ := s.Fastest() // one exists: not gone, and it is not to
	return s.begin(from, to), nil
}

func (s *State) begin(from, to block.Tier) Copy {
	s.flights[to] = s.flights[to].begun(from)
	return Copy{From: from, To: to, Version: s.cur, flight: s.flights[to]}
}

// current tells whether c is the copy in flight to its tier, of the newest
// version. Write and drop end flights, so the version is implied; it is compared
// all the same, because a wrong answer here would serve wrong bytes.
func (s *State) current(c Copy) bool {
	return c.To.Valid() && c.flight.aloft() && s.flights[c.To] == c.flight && c.Version == s.cur
}

// Commit records that the copy has arrived in full, verified, and, for home,
// durably; from here on c.To holds the newest version. [ErrStale] means that it
// does not count, because the version moved on or the source or the target was
// dropped meanwhile; nothing has changed then, and what was copied is to be freed.
func (s *State) Commit(c Copy) error {
	if !s.current(c) {
		return fmt.Errorf("coherency: commit to %s: %w: version %d, the newest is %d", c.To, ErrStale, c.Version, s.cur)
	}
	s.flights[c.To] = s.flights[c.To].ended()
	s.have[c.To] = s.cur
	s.wanted = s.wanted.Without(c.To)
	if c.To == s.home {
		s.durable = true
	}
	return nil
}

// Abort records that the copy has failed. A tier that a WriteAll asked for
// leaves the set by this, home excepted: the block stays dirty until home has it.
// A copy that is stale changes nothing.
func (s *State) Abort(c Copy) {
	if !s.current(c) {
		return
	}
	s.flights[c.To] = s.flights[c.To].ended()
	s.wanted = s.wanted.Without(c.To)
}
