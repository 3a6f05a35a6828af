package router

import "slices"

// sweeper takes the entries of dead slots out of the table, one shard at a time.
type sweeper struct {
	gone  []bool // slots of this round; nil between rounds
	limit uint64 // of depth, when the round began
	shard int    // the next one
}

// Sweep takes the entries of departed nodes out of one part in 256 of the table,
// and tells whether there is more to do. Apply does as much on each call, so
// only the owner of an index without events needs to call it.
func (ix *Index) Sweep() (more bool) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.sweepOne()
	return ix.slots.deadCount > 0 || ix.memory.swept != ix.memory.limit.Load()
}

// sweepOne sweeps one shard if there is something to sweep. Index.mu is held.
func (ix *Index) sweepOne() {
	p, s := &ix.slots, &ix.sweeping
	if s.gone == nil {
		limit := ix.memory.limit.Load()
		if p.deadCount == 0 && ix.memory.swept == limit {
			return
		}
		s.gone, s.limit, s.shard = slices.Clone(p.dead), limit, 0
	}
	// Slots made since the round began are not in it.
	for len(s.gone) < p.made {
		s.gone = append(s.gone, false)
	}
	ix.shards[s.shard].sweep(s.gone, ix.buf)
	if s.shard++; s.shard < shards {
		return
	}
	for slot, gone := range s.gone {
		if gone {
			p.dead[slot] = false
			p.deadCount--
			p.free = append(p.free, slot)
		}
	}
	s.gone = nil
	ix.memory.swept = s.limit
}

// sweep removes every holder whose slot is marked in gone and every block that is
// deeper than the limit, and makes the table smaller when little is left.
func (s *shard) sweep(gone []bool, buf []lane) {
	t := s.table.Load()
	limit := s.memory.limit.Load()
	for at := 0; at < t.slots(); {
		fp, word := *t.fp(at), *t.value(at)
		if fp == 0 {
			at++
			continue
		}
		if fp&depthMask < limit && !isSet(word) && !names(word, gone) {
			at++ // nothing to do, as in most cases
			continue
		}
		lanes := s.lanes(t, word, buf)
		kept := lanes[:0]
		if fp&depthMask >= limit {
			s.memory.evict(lanes)
		} else {
			for _, l := range lanes {
				if slot := laneSlot(l); slot >= len(gone) || !gone[slot] {
					kept = append(kept, l)
				}
			}
			if len(kept) == len(lanes) {
				at++
				continue
			}
		}
		// A slot that is removed is filled by another, so look again.
		s.store(t, at, word, kept)
		t = s.table.Load()
		if len(kept) > 0 {
			at++
		}
	}
	s.shrink()
}

// names tells whether an inline word has a holder whose slot is marked.
func names(word uint64, marked []bool) bool {
	for ; word != 0; word >>= laneBits {
		if slot := laneSlot(lane(word & laneMask)); slot < len(marked) && marked[slot] {
			return true
		}
	}
	return false
}
