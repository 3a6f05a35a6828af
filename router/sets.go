package router

import (
	"math/bits"
	"slices"
	"sync/atomic"
)

// The sets of an arena: how readers and the writer find the holders of a block that has more
// than fit its value word.

// allocator hands out sets of an arena. The writer's lock guards it.
type allocator struct {
	next int          // words below are in use or on a free list
	free [classes]int // offset+1 of the first free set; its first word holds the next
	used int          // words in use by sets
}

// classFor is the smallest class with room for n lanes.
func classFor(n int) int {
	return bits.Len(uint((n - 1) / classLanes))
}

// storeSet writes lanes into the set at offset.
func storeSet(arena []uint64, offset int, lanes []lane) {
	atomic.StoreUint64(&arena[offset], uint64(len(lanes)))
	for i := 0; i < len(lanes); i += 4 {
		atomic.StoreUint64(&arena[offset+1+i/4], packWord(lanes[i:]))
	}
}

// packWord is the word of up to four lanes, of which more may follow.
func packWord(lanes []lane) (four uint64) {
	for j := min(4, len(lanes)) - 1; j >= 0; j-- {
		four = four<<16 | uint64(lanes[j])
	}
	return four
}

// arenaLanes appends the holders of a set. It reports false when the word and
// the arena do not fit together, which a reader sees when it races with a writer.
func arenaLanes(dst []lane, arena []uint64, word uint64) ([]lane, bool) {
	class, at := setClass(word), setOffset(word)
	if class >= classes || at+setWords(class) > len(arena) {
		return dst, false
	}
	n := int(atomic.LoadUint64(&arena[at]))
	if n > setLanes(class) {
		return dst, false
	}
	// Whole words are unpacked and what is too much is cut off.
	begin := len(dst)
	dst = slices.Grow(dst, n+3)[:begin+(n+3)/4*4]
	out := dst[begin:]
	for i := 0; i+3 < len(out); i += 4 {
		four := atomic.LoadUint64(&arena[at+1+i/4])
		out[i], out[i+1], out[i+2], out[i+3] = lane(four), lane(four>>16), lane(four>>32), lane(four>>48)
	}
	return dst[:begin+n], true
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
