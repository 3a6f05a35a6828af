package node

import "sync/atomic"

// nameIndex finds the numbers of entries by a hash: a shard, and a tag of 32 bits in it. It
// answers with candidates, which the reader compares with what it is looking for. One
// goroutine writes; any read, without a lock: a slot that was filled is filled with the
// same for good or until its entry goes, and a shard grows into a new array.
type nameIndex struct {
	shards []atomic.Pointer[nameSlots]
}

func newNameIndex(shards int) nameIndex {
	return nameIndex{make([]atomic.Pointer[nameSlots], shards)}
}

// nameSlots is one shard: open addressing, at most 7/8 of it in use.
type nameSlots struct {
	slots []atomic.Uint64 // tag << 32 | number; a power of two
	live  int             // the writer's: slots with an entry
	used  int             // the writer's: slots that are not empty
}

const (
	emptySlot = 0         // nothing is behind it
	goneSlot  = 1<<32 - 1 // the number of an entry that has gone
	leastSlot = 8
)

// probe walks the candidates for a tag.
type probe struct {
	slots []atomic.Uint64
	at    uint32
	tag   uint32
}

func (x *nameIndex) probe(shard int, tag uint32) probe {
	s := x.shards[shard].Load()
	if s == nil {
		return probe{}
	}
	return probe{slots: s.slots, at: tag, tag: tag}
}

// next is 0 when there are no more.
func (p *probe) next() uint32 {
	for range p.slots {
		v := p.slots[int(p.at)&(len(p.slots)-1)].Load()
		p.at++
		switch {
		case v == emptySlot:
			return 0
		case uint32(v>>32) == p.tag && uint32(v) != goneSlot:
			return uint32(v)
		}
	}
	return 0
}

// insert adds an entry that is not there yet.
func (x *nameIndex) insert(shard int, tag, id uint32) {
	s := x.shards[shard].Load()
	if s == nil || s.used >= len(s.slots)/8*7 {
		s = s.grown()
		s.put(uint64(tag)<<32 | uint64(id))
		x.shards[shard].Store(s)
		return
	}
	s.put(uint64(tag)<<32 | uint64(id))
}

func (s *nameSlots) put(v uint64) {
	i := uint32(v >> 32)
	for s.slots[int(i)&(len(s.slots)-1)].Load() != emptySlot {
		i++
	}
	s.slots[int(i)&(len(s.slots)-1)].Store(v)
	s.live++
	s.used++
}

// grown is a copy without the slots of entries that have gone, with room for more.
func (s *nameSlots) grown() *nameSlots {
	if s == nil {
		return &nameSlots{slots: make([]atomic.Uint64, leastSlot)}
	}
	size := leastSlot
	for size/8*6 <= s.live {
		size *= 2
	}
	g := &nameSlots{slots: make([]atomic.Uint64, size)}
	for i := range s.slots {
		if v := s.slots[i].Load(); v != emptySlot && uint32(v) != goneSlot {
			g.put(v)
		}
	}
	return g
}

// remove takes an entry out.
func (x *nameIndex) remove(shard int, tag, id uint32) {
	s := x.shards[shard].Load()
	if s == nil {
		return
	}
	v := uint64(tag)<<32 | uint64(id)
	for i := tag; ; i++ {
		slot := &s.slots[int(i)&(len(s.slots)-1)]
		switch slot.Load() {
		case v:
			slot.Store(uint64(tag)<<32 | goneSlot)
			if s.live--; s.live == 0 {
				x.shards[shard].Store(nil)
			}
			return
		case emptySlot:
			return
		}
	}
}

// each yields the numbers in a shard until yield returns false.
func (x *nameIndex) each(shard int, yield func(id uint32) bool) {
	s := x.shards[shard].Load()
	if s == nil {
		return
	}
	for i := range s.slots {
		if v := s.slots[i].Load(); v != emptySlot && uint32(v) != goneSlot && !yield(uint32(v)) {
			return
		}
	}
}

func (x *nameIndex) reset() {
	for i := range x.shards {
		x.shards[i].Store(nil)
	}
}
