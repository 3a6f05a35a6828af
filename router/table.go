package router

import (
	"encoding/binary"
	"math/bits"
	"runtime"
	"sync/atomic"

	"cairn/block"
)

// The table is cut into shards by the top bits of the fingerprint, so that
// growing and sweeping stop the writer for a moment only. A shard is open
// addressing with linear probing, 16 bytes a slot: fingerprint, value word
// (holders.go). There is no pointer in it, so the collector does not look at it.
//
// How readers and the writer meet. There is one writer at a time (Index.mu), and
// every word that both touch is accessed atomically.
//
//   - A new slot gets its value before its fingerprint, and an inline value is
//     replaced by one store: a reader sees the block before or after.
//   - Whatever takes more than one store (a deletion, which shifts slots; a set
//     in the arena) happens while the shard's version is odd. A reader notes
//     the version, reads, and starts over if the version was odd or has changed:
//     a seqlock (Boehm, "Can seqlocks get along with programming language memory
//     models?", MSPC 2012).
//   - A table that has grown is a new one, published by one store; readers of
//     the old one finish on what it held.
const (
	shardBits = 8
	shards    = 1 << shardBits

	firstSlots = 16 // slots of a new shard
	firstArena = 64 // words of a new arena
	// A shard grows by a quarter when more than five sixths of its slots are
	// in use: 19 to 24 bytes a block.
	loadNum, loadDen = 5, 6
	growNum, growDen = 5, 4
)

type shard struct {
	version atomic.Uint64
	table   atomic.Pointer[table]
	_       [48]byte // what every insertion writes stays out of the readers' cache line

	// Guarded by Index.mu.
	live int // slots in use
	sets allocator
	_    [24]byte
}

// table is immutable but for the words that slots and arena point to.
type table struct {
	slots []uint64 // fingerprint, value, fingerprint, value …
	arena []uint64
}

func newTable(slots int) *table { return &table{slots: make([]uint64, 2*slots)} }

// fingerprint is 64 bits that stand for the key; never 0, which marks a free
// slot. It folds all of the key in, as wyhash does, because the keys of tests
// and of other hashers are not uniform.
func fingerprint(k *block.Key) uint64 {
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(k[:8])^0xa0761d6478bd642f, binary.LittleEndian.Uint64(k[8:])^0xe7037ed1a0b428db)
	return max(hi^lo, 1)
}

func (ix *Index) shardOf(fp uint64) *shard { return &ix.shards[fp>>(64-shardBits)] }

// home is the slot where the search for fp begins. The bits that chose the shard
// are shifted out.
func (t *table) home(fp uint64) int {
	at, _ := bits.Mul64(fp<<shardBits, uint64(len(t.slots)/2))
	return int(at)
}

// touch loads the first slot, so that a following find has it in the cache.
func (t *table) touch(fp uint64) uint64 {
	return atomic.LoadUint64(&t.slots[2*t.home(fp)])
}

// find is the value word of fp, and its slot; without one, 0 and the free slot
// where the search ended.
func (t *table) find(fp uint64) (word uint64, at int) {
	slots := t.slots
	i := 2 * t.home(fp)
	// The bound is for readers, who may see slots while they are shifted.
	for range len(slots) / 2 {
		switch atomic.LoadUint64(&slots[i]) {
		case fp:
			return atomic.LoadUint64(&slots[i+1]), i / 2
		case 0:
			return 0, i / 2
		}
		if i += 2; i == len(slots) {
			i = 0
		}
	}
	return 0, i / 2
}

// spins is how often a reader starts over before it waits for the writer.
const spins = 128

// read is the value word of fp and, when that is a set, its holders, in buf.
func (ix *Index) read(fp uint64, buf []lane) (uint64, []lane) {
	s := ix.shardOf(fp)
	for i := range spins {
		version := s.version.Load()
		if version&1 == 0 {
			if word, lanes, ok := s.readOnce(fp, buf); ok && s.version.Load() == version {
				return word, lanes
			}
		}
		if i%16 == 15 {
			runtime.Gosched()
		}
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	word, lanes, _ := s.readOnce(fp, buf)
	return word, lanes
}

func (s *shard) readOnce(fp uint64, buf []lane) (word uint64, lanes []lane, ok bool) {
	t := s.table.Load()
	word, _ = t.find(fp)
	if !isSet(word) {
		return word, buf[:0], true
	}
	lanes, ok = arenaLanes(buf[:0], t.arena, word)
	return word, lanes, ok
}

// The rest of this file is for the writer, who holds Index.mu.

// begin and end enclose changes that take more than one store.
func (s *shard) begin() { s.version.Add(1) }
func (s *shard) end()   { s.version.Add(1) }

// set gives or takes one tier of one node, and tells whether that changed
// anything.
func (s *shard) set(fp uint64, slot int, tier block.Tier, stored bool, buf []lane) bool {
	t := s.table.Load()
	word, at := t.find(fp)
	if word == 0 {
		if stored {
			s.insert(fp, uint64(makeLane(slot, block.MaskOf(tier))))
		}
		return stored
	}
	lanes := s.lanes(t, word, buf)
	lanes, changed := withTier(lanes, slot, tier, stored)
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

// insert adds a block that the shard lacks.
func (s *shard) insert(fp, word uint64) {
	t := s.table.Load()
	if n := len(t.slots) / 2; (s.live+1)*loadDen > n*loadNum {
		t = s.rebuild(max(n*growNum/growDen, n+1))
	}
	_, at := t.find(fp)
	atomic.StoreUint64(&t.slots[2*at+1], word)
	atomic.StoreUint64(&t.slots[2*at], fp)
	s.live++
}

// rebuild moves the shard into a table of n slots.
func (s *shard) rebuild(n int) *table {
	old := s.table.Load()
	t := newTable(n)
	if s.sets.used > 0 {
		t.arena = old.arena
	} else {
		s.sets = allocator{}
	}
	copySlots(t.slots, old.slots)
	s.table.Store(t)
	return t
}

// copySlots puts the slots of one table into another that nobody else sees yet.
// Homes keep their order from table to table, so both are walked from end to end.
func copySlots(to, from []uint64) {
	n := uint64(len(to) / 2)
	for len(from) >= 2 {
		fp, word := from[0], from[1]
		from = from[2:]
		if fp == 0 {
			continue
		}
		at, _ := bits.Mul64(fp<<shardBits, n)
		for at *= 2; to[at] != 0; {
			if at += 2; at == uint64(len(to)) {
				at = 0
			}
		}
		to[at], to[at+1] = fp, word
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
		atomic.StoreUint64(&t.slots[2*at+1], packInline(lanes))
	case len(lanes) <= inlineMost:
		s.begin()
		s.freeSet(t, word)
		atomic.StoreUint64(&t.slots[2*at+1], packInline(lanes))
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
		atomic.StoreUint64(&t.slots[2*at+1], word)
		s.end()
	}
}

// remove frees slot at and shifts back what follows, so that no search ends
// before its goal (Knuth, The Art of Computer Programming, vol. 3, 6.4, algorithm R).
func (s *shard) remove(t *table, at int) {
	n := len(t.slots) / 2
	hole := at
	for i := at; ; {
		if i++; i == n {
			i = 0
		}
		fp := atomic.LoadUint64(&t.slots[2*i])
		if fp == 0 {
			break
		}
		// The slot may move into the hole unless its home lies after the
		// hole, cyclically, up to where it is.
		home := t.home(fp)
		if hole <= i && hole < home && home <= i || hole > i && (hole < home || home <= i) {
			continue
		}
		atomic.StoreUint64(&t.slots[2*hole+1], atomic.LoadUint64(&t.slots[2*i+1]))
		atomic.StoreUint64(&t.slots[2*hole], fp)
		hole = i
	}
	atomic.StoreUint64(&t.slots[2*hole], 0)
	atomic.StoreUint64(&t.slots[2*hole+1], 0)
	s.live--
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
	t = &table{slots: t.slots, arena: arena}
	s.table.Store(t)
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

// sweep removes every holder whose slot is marked in gone, and makes the table
// smaller when little is left.
func (s *shard) sweep(gone []bool, buf []lane) {
	t := s.table.Load()
	for at := 0; at < len(t.slots)/2; {
		word := t.slots[2*at+1]
		if t.slots[2*at] == 0 {
			at++
			continue
		}
		lanes := s.lanes(t, word, buf)
		kept := lanes[:0]
		for _, l := range lanes {
			if !gone[laneSlot(l)] {
				kept = append(kept, l)
			}
		}
		if len(kept) == len(lanes) {
			at++
			continue
		}
		// A slot that is removed is filled by another, so look again.
		s.store(t, at, word, kept)
		t = s.table.Load()
		if len(kept) > 0 {
			at++
		}
	}
	if n := len(t.slots) / 2; n > firstSlots && s.live < n/4 {
		s.rebuild(max(firstSlots, s.live*2))
	}
}

// bytes is the memory of the shard's tables.
func (s *shard) bytes() int64 {
	t := s.table.Load()
	return 8 * int64(len(t.slots)+len(t.arena))
}
