package simulate

import (
	"container/heap"
	"math"
	"time"

	"cairn/block"
	"cairn/eviction"
)

// belady is an eviction policy that knows the future: it evicts the leaf that is
// used again last.
type belady struct {
	uses   map[block.Key][]int32 // requests still to come that use the block
	ids    map[block.Key]uint32
	blocks []foreseen // by id
	leaves leafHeap
}

type foreseen struct {
	key, parent block.Key
	next        int32 // request that uses it
	children    int
	place       int // in the heap; −1 is not there
}

var _ eviction.Policy = (*belady)(nil)

func newBelady(w *Workload) *belady {
	b := &belady{uses: make(map[block.Key][]int32, w.Blocks), ids: map[block.Key]uint32{}}
	b.leaves.b = b
	for i := range w.Requests {
		for _, k := range w.Requests[i].Keys {
			b.uses[k] = append(b.uses[k], int32(i))
		}
	}
	return b
}

// use takes the present use off a block's future, and returns the next one.
func (b *belady) use(k block.Key) int32 {
	left := b.uses[k][1:]
	b.uses[k] = left
	if len(left) == 0 {
		return math.MaxInt32
	}
	return left[0]
}

func (b *belady) Insert(id uint32, d eviction.Block, _ time.Duration) {
	for int(id) >= len(b.blocks) {
		b.blocks = append(b.blocks, foreseen{})
	}
	b.blocks[id] = foreseen{key: d.Key, parent: d.Parent, next: b.use(d.Key), place: -1}
	b.ids[d.Key] = id
	heap.Push(&b.leaves, id)
	if p, ok := b.ids[d.Parent]; ok {
		b.blocks[p].children++
		if at := b.blocks[p].place; at >= 0 {
			heap.Remove(&b.leaves, at)
		}
	}
}

func (b *belady) Touch(id uint32, _ time.Duration) {
	f := &b.blocks[id]
	f.next = b.use(f.key)
	if f.place >= 0 {
		heap.Fix(&b.leaves, f.place)
	}
}

func (b *belady) Victim(int, time.Duration) (uint32, bool) {
	if len(b.leaves.ids) == 0 {
		return 0, false
	}
	return b.leaves.ids[0], true
}

func (b *belady) Evict(id uint32, _ time.Duration) { b.Remove(id) }

func (b *belady) Remove(id uint32) {
	f := &b.blocks[id]
	if f.place >= 0 {
		heap.Remove(&b.leaves, f.place)
	}
	delete(b.ids, f.key)
	if p, ok := b.ids[f.parent]; ok {
		if b.blocks[p].children--; b.blocks[p].children == 0 {
			heap.Push(&b.leaves, p)
		}
	}
}

func (b *belady) Park(uint32)   {}
func (b *belady) Unpark(uint32) {}
func (b *belady) Len() int      { return len(b.ids) }

// leafHeap has the leaf used again last on top.
type leafHeap struct {
	b   *belady
	ids []uint32
}

func (h *leafHeap) Len() int { return len(h.ids) }
func (h *leafHeap) Less(i, j int) bool {
	return h.b.blocks[h.ids[i]].next > h.b.blocks[h.ids[j]].next
}

func (h *leafHeap) Swap(i, j int) {
	h.ids[i], h.ids[j] = h.ids[j], h.ids[i]
	h.b.blocks[h.ids[i]].place, h.b.blocks[h.ids[j]].place = i, j
}

func (h *leafHeap) Push(x any) {
	id := x.(uint32)
	h.b.blocks[id].place = len(h.ids)
	h.ids = append(h.ids, id)
}

func (h *leafHeap) Pop() any {
	last := h.ids[len(h.ids)-1]
	h.ids = h.ids[:len(h.ids)-1]
	h.b.blocks[last].place = -1
	return last
}
