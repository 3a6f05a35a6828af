package hostcache

const (
	// spanWaste bounds the tail of a span that no slot covers to one part in
	// spanWaste, where a span of at most spanGrowth times the shortest allows it.
	spanWaste  = 16
	spanGrowth = 4

	// freeSlot marks an element of span.ids as free; the rest of it is the next
	// free slot, or noSlot.
	freeSlot = 1 << 31
	noSlot   = freeSlot - 1
	// noSpan ends a list of spans.
	noSpan = 1<<32 - 1
)

// class is a slot size and what the cache holds of it.
type class struct {
	size  int
	order order
	// present is the number of entries present, tickSum the sum of their ticks.
	present int
	tickSum uint64
	// spanLen is the length, in slabs, of a span; shortest is the least that
	// holds one slot, taken when nothing longer can be had.
	spanLen, shortest int
	// partial is the list of spans that have a free slot.
	partial uint32
	// credit is the number of evictions until the windows are looked at again.
	credit int
	// failedAt is slabs.frees when no run of spanLen free slabs was found.
	failedAt uint64
}

// span is a run of slabs cut into slots of one class. It is known by the number of
// its first slab.
type span struct {
	class    *class
	slabs    int
	used     int    // slots in use
	held     int    // slots in use that cannot be evicted now
	tickSum  uint64 // sum of the ticks of the entries present
	free     uint32 // head of the list of free slots, or noSlot
	listed   bool   // in the list of its class
	from, to uint32 // neighbours in that list
	// ids has for each slot the number of its entry, or freeSlot and the next
	// free slot. Its memory is kept for the next span that starts here.
	ids []uint32
}

// slabs is the arena's division into spans.
type slabs struct {
	size  int      // bytes of a slab
	spans []span   // by first slab
	owner []uint32 // by slab: 1 + its span, 0 when it is free
	free  int      // free slabs
	frees uint64   // times that a span was given back
}

func newSlabs(n, size int) *slabs {
	return &slabs{size: size, spans: make([]span, n), owner: make([]uint32, n), free: n}
}

// newClass chooses the span length for slots of size bytes.
func (s *slabs) newClass(size int, order order) *class {
	shortest := (size + s.size - 1) / s.size
	best, bestWaste := shortest, 1.0
	for n := shortest; n <= min(shortest*spanGrowth, len(s.owner)); n++ {
		total := n * s.size
		waste := float64(total%size) / float64(total)
		if waste < bestWaste {
			best, bestWaste = n, waste
		}
		if bestWaste*spanWaste <= 1 {
			break
		}
	}
	return &class{size: size, order: order, spanLen: best, shortest: shortest, partial: noSpan}
}

// findFree is the first of n free slabs in a row.
func (s *slabs) findFree(n int) (first int, ok bool) {
	if s.free < n {
		return 0, false
	}
	length := 0
	for i, o := range s.owner {
		if o != 0 {
			length = 0
		} else if length++; length == n {
			return i - n + 1, true
		}
	}
	return 0, false
}

// carve makes n free slabs a span of class c.
func (s *slabs) carve(c *class, first, n int) {
	sp := &s.spans[first]
	count := n * s.size / c.size
	ids := sp.ids
	if cap(ids) < count {
		ids = make([]uint32, count)
	}
	ids = ids[:count]
	for i := range ids {
		ids[i] = freeSlot | uint32(i+1)
	}
	ids[count-1] = freeSlot | noSlot
	*sp = span{class: c, slabs: n, ids: ids}
	for i := range n {
		s.owner[first+i] = uint32(first) + 1
	}
	s.free -= n
	s.list(uint32(first))
}

// list puts a span at the head of its class's list.
func (s *slabs) list(id uint32) {
	sp := &s.spans[id]
	sp.listed, sp.from, sp.to = true, noSpan, sp.class.partial
	if sp.to != noSpan {
		s.spans[sp.to].from = id
	}
	sp.class.partial = id
}

func (s *slabs) unlist(id uint32) {
	sp := &s.spans[id]
	sp.listed = false
	if sp.from != noSpan {
		s.spans[sp.from].to = sp.to
	} else {
		sp.class.partial = sp.to
	}
	if sp.to != noSpan {
		s.spans[sp.to].from = sp.from
	}
}

// takeSlot gives a free slot of c to the entry id.
func (s *slabs) takeSlot(c *class, id uint32) (at, slot uint32, ok bool) {
	if c.partial == noSpan {
		return 0, 0, false
	}
	at = c.partial
	sp := &s.spans[at]
	slot = sp.free
	sp.free = sp.ids[slot] &^ freeSlot
	sp.ids[slot] = id
	sp.used++
	if sp.free == noSlot {
		s.unlist(at)
	}
	return at, slot, true
}

// giveSlot frees a slot, and its span with the last one.
func (s *slabs) giveSlot(at, slot uint32) {
	sp := &s.spans[at]
	sp.ids[slot] = freeSlot | sp.free
	sp.free = slot
	sp.used--
	if !sp.listed {
		s.list(at)
	}
	if sp.used > 0 {
		return
	}
	s.unlist(at)
	clear(s.owner[at : int(at)+sp.slabs])
	s.free += sp.slabs
	s.frees++
	sp.class = nil
}

// offset is where a slot begins in the arena.
func (s *slabs) offset(at, slot uint32) int {
	return int(at)*s.size + int(slot)*s.spans[at].class.size
}

// window is a run of slabs that could be taken, with the weighed age of the
// blocks that would go.
type window struct {
	first int
	age   float64
}

// oldestWindow finds the n slabs in a row whose blocks were used longest ago at
// time now. Spans of class not, and spans with a block that cannot be evicted, are
// left alone.
//
// The age of a window is the mean age of its blocks, weighed by their bytes, times
// the bytes of the window over theirs. A span that only overlaps the window
// goes as a whole and counts as a whole.
func (s *slabs) oldestWindow(n int, not *class, now uint64) (window, bool) {
	best, found := window{}, false
	var starting tally // of the spans that start inside the window
	for end := range s.owner {
		if int(s.owner[end]) == end+1 {
			starting.add(&s.spans[end], not, now, +1)
		}
		first := end - n + 1
		if first < 0 {
			continue
		}
		total := starting
		if o := int(s.owner[first]); o != 0 && o != first+1 {
			total.add(&s.spans[o-1], not, now, +1)
		}
		if total.blocked == 0 {
			if age := total.age(n * s.size); !found || age > best.age {
				best, found = window{first, age}, true
			}
		}
		if int(s.owner[first]) == first+1 {
			starting.add(&s.spans[first], not, now, -1)
		}
	}
	return best, found
}

// tally adds up spans.
type tally struct {
	blocked int
	bytes   int64
	aged    float64 // sum of age times bytes
}

func (t *tally) add(sp *span, not *class, now uint64, sign int) {
	if sp.held > 0 || sp.class == not {
		t.blocked += sign
		return
	}
	size := int64(sp.class.size)
	t.bytes += int64(sign) * int64(sp.used) * size
	t.aged += float64(sign) * float64(uint64(sp.used)*now-sp.tickSum) * float64(size)
}

func (t *tally) age(windowBytes int) float64 {
	if t.bytes == 0 {
		return float64(1 << 62)
	}
	used := float64(t.bytes)
	return t.aged / used * (float64(windowBytes) / used)
}
