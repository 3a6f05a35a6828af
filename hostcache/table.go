package hostcache

import "cairn/block"

// state of an entry.
type state uint8

const (
	vacant   state = iota // on the free list
	reserved              // being filled, not in the index
	present               // in the index
	deleted               // out of the index, kept for its views
)

// entry is what the cache knows about one slot in use. It has no pointers, so
// that the collector need not look at it.
type entry struct {
	block.Descriptor
	tick  uint64 // time of last use, on the clock of the cache
	gen   uint32 // grows each time the entry is vacated: tells stale views
	views uint32
	pins  uint32
	span  uint32 // first slab of its span; on the free list: the next entry
	slot  uint32 // index in the span
	run   uint32 // run that holds it, 0 when it is out of the order (order.go)
	pos   uint16 // index in that run
	state state
	aside bool // the run is one of those of parents that were set aside (leaves.go)
	// children is how many blocks here follow it, if the order counts them.
	children uint32
}

// token names the object in the entry with this id: no other one ever has it, as long as
// an entry is not vacated 2^32 times.
func (e *entry) token(id uint32) uint64 { return uint64(e.gen)<<32 | uint64(id) }

func (e *entry) held() bool { return e.views != 0 || e.pins != 0 }

const (
	chunkLen = 1024
	noEntry  = 1<<31 - 1 // also the bound on the number of entries
)

// table holds the entries by number. It grows by chunks, so that no call ever
// copies all of it.
type table struct {
	chunks []*[chunkLen]entry
	free   uint32 // head of the free list, or noEntry
	runs   uint32 // the last run's id
}

// nextRun is the id of a new run. After 2^32 runs, some 10^12 uses, ids come
// again; a run lives for a few times the number of entries.
func (t *table) nextRun() uint32 {
	if t.runs++; t.runs == 0 {
		t.runs = 1
	}
	return t.runs
}

func (t *table) at(id uint32) *entry { return &t.chunks[id/chunkLen][id%chunkLen] }

// take removes an entry from the free list.
func (t *table) take() uint32 {
	if t.free == noEntry {
		first := uint32(len(t.chunks)) * chunkLen
		t.chunks = append(t.chunks, new([chunkLen]entry))
		for id := first + chunkLen; id > first; id-- {
			t.at(id - 1).span = t.free
			t.free = id - 1
		}
	}
	id := t.free
	t.free = t.at(id).span
	return id
}

// give puts an entry back.
func (t *table) give(id uint32) {
	e := t.at(id)
	*e = entry{gen: e.gen + 1, span: t.free}
	t.free = id
}
