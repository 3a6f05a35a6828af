package router

import "math/bits"

// How a shard gets another table. All of it is for the writer, who holds Index.mu.

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
