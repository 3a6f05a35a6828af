package router

import (
	"sync/atomic"

	"cairn/block"
)

// How the table changes, block by block: grow.go has what replaces it, sweep.go what goes
// through all of it. All of this is for the writer, who holds Index.mu.

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
