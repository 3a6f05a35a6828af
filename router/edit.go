package router

import (
	"math/bits"
	"sync/atomic"

	"cairn/block"
)

// This file is how the table changes. All of it is for the writer, who holds
// Index.mu.

// begin and end enclose changes that take more than one store.
func (s *shard) begin() { s.version.Add(1) }
func (s *shard) end()   { s.version.Add(1) }

// set gives or takes one tier of one node, and tells whether that changed
// anything.
func (s *shard) set(fp uint64, slot int, tier block.Tier, stored bool, buf []lane) bool {
	t := s.table.Load()
	word, at := t.find(fp)
	if word == 0 {
		return stored && s.insert(fp, uint64(makeLane(slot, block.MaskOf(tier))), at, buf)
	}
	lanes, changed := withTier(s.lanes(t, word, buf), slot, tier, stored)
	if changed {
		s.store(t, at, word, lanes)
	}
	return changed
}

// lanes is the holders of word, in buf.
func (s *shard) lanes(t *table, word uint64, buf []lane) []lane {
	if isSet(word) {
		lanes, _ := arenaLanes(buf[:0], t.arena, word)
		return lanes
	}
	return inlineLanes(buf[:0], word)
}

// insert adds a block that the shard lacks; at is where find ended. It reports false
// when memory has no room for a block of this depth.
func (s *shard) insert(fp, word uint64, at int, buf []lane) bool {
	if s.live >= s.full {
		s.makeRoom(buf)
		_, at = s.table.Load().find(fp)
	}
	if fp&depthMask >= s.memory.limit.Load() {
		s.memory.refused++
		return false
	}
	// The value comes first: see table.go.
	k := &s.table.Load().buckets[at>>bucketShift]
	atomic.StoreUint64(&k[bucketValues+at&bucketMask], word)
	atomic.StoreUint64(&k[at&bucketMask], fp)
	s.live++
	return true
}

// rebuild moves the shard into a table of n buckets.
func (s *shard) rebuild(n int) {
	old := s.table.Load()
	t := newTable(n)
	if len(s.memory.used) < n {
		s.memory.used = make([]uint8, n+n/2)
	}
	t.copyFrom(old, s.memory.used)
	switch {
	case s.sets.used == 0:
		s.sets = allocator{}
	case s.sets.used < len(old.arena)/2:
		s.compact(t, old.arena)
	default:
		t.arena = old.arena
	}
	s.publish(t)
}

// compact gives a table that nobody else sees yet an arena without free sets.
func (s *shard) compact(t *table, arena []uint64) {
	t.arena = make([]uint64, s.sets.used*growNum/growDen)
	s.sets = allocator{}
	for at := range t.slots() {
		if word := *t.value(at); isSet(word) {
			moved := s.allocSet(t, setClass(word))
			copy(t.arena[setOffset(moved):], arena[setOffset(word):][:setWords(setClass(word))])
			*t.value(at) = moved
		}
	}
}

// publish makes t the table of the shard, and accounts for its memory.
func (s *shard) publish(t *table) {
	s.memory.bytes += t.bytes()
	if old := s.table.Load(); old != nil {
		s.memory.bytes -= old.bytes()
	}
	s.table.Store(t)
	s.full, s.size = t.slots()*loadNum/loadDen, float64(len(t.buckets))
}

// bytes is the memory of the table.
func (t *table) bytes() int64 { return bucketBytes*int64(len(t.buckets)) + 8*int64(len(t.arena)) }

// copyFrom puts the slots of one table into another that nobody else sees yet.
// Homes keep their order from table to table, so both are walked from end to end.
// used is memory to count the slots that are in use in.
func (t *table) copyFrom(old *table, used []uint8) {
	n := uint64(len(t.buckets))
	used = used[:n]
	clear(used)
	for b := range old.buckets {
		from := &old.buckets[b]
		for i := range bucketSlots {
			fp := from[i]
			if fp == 0 {
				break
			}
			at, _ := bits.Mul64(fp<<shardBits, n)
			for used[at] == bucketSlots {
				if at++; at == n {
					at = 0
				}
			}
			to, j := &t.buckets[at], used[at]&bucketMask
			to[j], to[bucketValues+j] = fp, from[bucketValues+i]
			used[at]++
		}
	}
}

// store replaces the holders of the block in slot at, whose value was word.
func (s *shard) store(t *table, at int, word uint64, lanes []lane) {
	switch {
	case len(lanes) == 0:
		s.begin()
		if isSet(word) {
			s.freeSet(t, word)
		}
		s.remove(t, at)
		s.end()
	case len(lanes) <= inlineMost && !isSet(word):
		atomic.StoreUint64(t.value(at), packInline(lanes))
	case len(lanes) <= inlineMost:
		s.begin()
		s.freeSet(t, word)
		atomic.StoreUint64(t.value(at), packInline(lanes))
		s.end()
	case isSet(word) && len(lanes) <= setLanes(setClass(word)):
		s.begin()
		storeSet(t.arena, setOffset(word), lanes)
		s.end()
	default:
		class := classFor(len(lanes))
		t = s.reserve(t, class)
		s.begin()
		if isSet(word) {
			s.freeSet(t, word)
		}
		word = s.allocSet(t, class)
		storeSet(t.arena, setOffset(word), lanes)
		atomic.StoreUint64(t.value(at), word)
		s.end()
	}
}

// remove frees slot at. A bucket that was full may have sent blocks on to the
// buckets after it: one of them takes the free place, its own is taken in the same
// way, and so on, so that no search ends before its goal.
func (s *shard) remove(t *table, at int) {
	s.live--
	for hole := at; ; {
		b := hole >> bucketShift
		last := b<<bucketShift + bucketSlots - 1
		for atomic.LoadUint64(t.fp(last)) == 0 {
			last--
		}
		t.copySlot(hole, last)
		atomic.StoreUint64(t.fp(last), 0)
		atomic.StoreUint64(t.value(last), 0)
		if last&bucketMask < bucketSlots-1 {
			return
		}
		next, ok := t.strayed(b)
		if !ok {
			return
		}
		t.copySlot(last, next)
		hole = next
	}
}

func (t *table) copySlot(to, from int) {
	atomic.StoreUint64(t.value(to), atomic.LoadUint64(t.value(from)))
	atomic.StoreUint64(t.fp(to), atomic.LoadUint64(t.fp(from)))
}

// strayed is a slot after bucket b whose block has passed b on its way from home.
func (t *table) strayed(b int) (at int, ok bool) {
	n := len(t.buckets)
	for d := 1; d < n; d++ {
		c := (b + d) % n
		for i := range bucketSlots {
			fp := atomic.LoadUint64(&t.buckets[c][i])
			if fp == 0 {
				return 0, false
			}
			if (c-t.home(fp)+n)%n >= d {
				return c<<bucketShift + i, true
			}
		}
	}
	return 0, false
}

// reserve makes sure that the arena has room for a set of the class. When it has
// to grow, the table returned is another, with the same slots; readers may
// go on in the old arena until the next change, which is theirs to notice.
func (s *shard) reserve(t *table, class int) *table {
	need := s.sets.next + setWords(class)
	if s.sets.free[class] != 0 || need <= len(t.arena) {
		return t
	}
	arena := make([]uint64, max(firstArena, len(t.arena)*growNum/growDen, need))
	copy(arena, t.arena)
	t = &table{buckets: t.buckets, arena: arena}
	s.publish(t)
	return t
}

// allocSet takes a set of the class, for which there is room. The version is odd.
func (s *shard) allocSet(t *table, class int) uint64 {
	s.sets.used += setWords(class)
	if head := s.sets.free[class]; head != 0 {
		s.sets.free[class] = int(atomic.LoadUint64(&t.arena[head-1]))
		return setWord(class, head-1)
	}
	at := s.sets.next
	s.sets.next += setWords(class)
	return setWord(class, at)
}

// freeSet gives a set back. The version is odd.
func (s *shard) freeSet(t *table, word uint64) {
	class := setClass(word)
	atomic.StoreUint64(&t.arena[setOffset(word)], uint64(s.sets.free[class]))
	s.sets.free[class] = setOffset(word) + 1
	s.sets.used -= setWords(class)
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

// shrink makes a table smaller of which little is in use, or when memory is short.
func (s *shard) shrink() {
	t := s.table.Load()
	n := max(firstBuckets, fit(s.live*loadDen/loadNum/bucketSlots+1))
	switch wasted := len(t.buckets) - n; {
	case s.live < t.slots()/4 && len(t.buckets) > firstBuckets:
		s.rebuild(max(firstBuckets, fit(s.live*2/bucketSlots+1)))
	case s.memory.over() && (wasted > len(t.buckets)/evictShare || s.sets.used < len(t.arena)/2):
		s.rebuild(min(n+n/evictShare/2, len(t.buckets)))
	}
}
