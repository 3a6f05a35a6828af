package diskstore

import "slices"

const (
	// maxPassed is how many times in succession the oldest segment is passed over,
	// and passWindow how many of the oldest segments are looked at for a better one.
	maxPassed  = 8
	passWindow = 8
	// maxTombPart of Capacity is what tombstones may take before the oldest
	// segment is not passed over any more.
	maxTombPart = 32
	// minGain is the part of a segment that removing one gains at least, if there are
	// others that might gain more.
	minGain = 64
)

// victimLocked chooses the segment to remove; nil when the oldest is still being
// written to. In this order:
//
//   - one without objects and tombstones;
//   - one from which objects were copied: it is nearly removed already, and its
//     records must not outlive the copies;
//   - the oldest, as long as at most half of it is kept: so always in a store that
//     keeps nothing;
//   - of the eight oldest the one that gains most, if that is an eighth of a segment,
//     or else of all.
//
// Passing the oldest over has a price: a tombstone can go only when all the segments
// are gone that were there before it. So the oldest is taken after it was passed
// over eight times, which costs at most an eighth in copying, and always while
// tombstones take much room.
func (s *Store) victimLocked() *segment {
	if len(s.segments) == 0 {
		return nil
	}
	for _, g := range s.segments {
		if g.idle() && g.live == 0 && len(g.tombs) == 0 {
			return g
		}
	}
	for _, g := range s.segments {
		if g.idle() && g.moved && !g.suspect && !g.blocked() {
			return g
		}
	}
	oldest := s.segments[0]
	if !oldest.idle() {
		return nil
	}
	best := oldest
	if s.passed < maxPassed && (oldest.blocked() || 2*oldest.kept > oldest.charge(s.cfg.SegmentSize)) && !s.entombedLocked() {
		best = s.bestLocked()
	}
	if best == oldest {
		s.passed = 0
	} else {
		s.passed++
	}
	return best
}

// lightVictimLocked is the oldest segment that can be removed without writing anything;
// if there is none, it is victimLocked.
func (s *Store) lightVictimLocked() *segment {
	for _, g := range s.segments {
		if g.idle() && g.kept == 0 && len(s.tombsNeededLocked(g)) == 0 {
			return g
		}
	}
	return s.victimLocked()
}

// entombedLocked tells whether tombstones take too much room.
func (s *Store) entombedLocked() bool {
	var total int64
	for _, g := range s.segments {
		total += int64(len(g.tombs)) * g.unit()
	}
	return total > s.cfg.Capacity/maxTombPart
}

// bestLocked is the segment that gains most. Those of which an object could not be read
// come last, the one of which that was longest ago first; but before one that
// gains next to nothing, or moving would go round in circles.
func (s *Store) bestLocked() *segment {
	var best, blocked *segment
	most := int64(0)
	for i, g := range s.segments {
		if i >= passWindow && best != nil && most >= s.cfg.SegmentSize/8 {
			break
		}
		switch gain := s.gainLocked(g); {
		case !g.idle():
		case g.blocked():
			if blocked == nil || g.stuck < blocked.stuck {
				blocked = g
			}
		case best == nil || gain > most:
			best, most = g, gain
		}
	}
	if best == nil || blocked != nil && most < s.cfg.SegmentSize/minGain {
		return blocked
	}
	return best
}

// gainLocked is what removing g makes free, after what must be copied from it, and but for
// its header, since the copies need one too.
func (s *Store) gainLocked(g *segment) int64 {
	gain := g.charge(s.cfg.SegmentSize) - segmentHeaderSize - g.kept
	if g != s.segments[0] {
		gain -= int64(len(g.tombs)) * int64(s.cfg.PayloadAlign)
	}
	return gain
}

// tombsNeededLocked returns the tombstones of g that hide something elsewhere: all but
// those that are older than every record of the other segments.
func (s *Store) tombsNeededLocked(g *segment) []tombstone {
	for _, o := range s.segments {
		if o != g {
			// The first other one has the lowest orders.
			return slices.DeleteFunc(slices.Clone(g.tombs), func(t tombstone) bool { return t.order < o.floor })
		}
	}
	return nil
}
