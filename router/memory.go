package router

import (
	"math/bits"
	"sync/atomic"

	"cairn/block"
)

// The depth of a block is its position in its sequence as 6 bits, which are part
// of its fingerprint: exact up to 3, then four steps for each doubling, and one
// value for all from 114,688 on. A greater position never has a smaller depth. So what
// is left when everything from some depth on goes is prefix-closed again, for
// every node at once.
const (
	depthBits = 6
	depthMask = 1<<depthBits - 1
	// anyDepth is a limit that no block reaches.
	anyDepth = depthMask + 1
)

func depthOf(position int) uint64 {
	p := uint64(position)
	if p < 4 {
		return p
	}
	e := bits.Len64(p) - 1
	return min(uint64(4*(e-1))+p>>(e-2)&3, depthMask)
}

// memory is what the shards share: how much they take, and what they may. Index.mu
// guards it but for limit.
type memory struct {
	// limit is the depth from which on blocks are not kept; readers do not see
	// them from when it is set.
	limit atomic.Uint64

	most  int64 // bytes; 0: no bound
	bytes int64 // of all tables and arenas
	// swept is the limit that holds in all shards.
	swept  uint64
	owners []*node // by slot, who has it; nil when nobody has
	used   []uint8 // see table.copyFrom

	evicted uint64 // blocks taken out because of their depth
	refused uint64 // and not let in
}

const (
	// evictShare is the part of a shard, one in so many, that has to go at least
	// when memory is at its bound.
	evictShare = 8
	// arenaShare is the part of the bound that tables leave to arenas, which cannot
	// be refused to grow.
	arenaShare = 16
)

// allows tells whether a table may grow by so many bytes.
func (m *memory) allows(more int64) bool {
	return m.most == 0 || m.bytes+more <= m.most-m.most/arenaShare
}

func (m *memory) over() bool { return m.most > 0 && m.bytes > m.most }

// evict takes note of the end of a block with these holders.
func (m *memory) evict(lanes []lane) {
	m.evicted++
	for _, l := range lanes {
		if n := m.owners[laneSlot(l)]; n != nil {
			n.discount(laneTiers(l))
		}
	}
}

// discount takes one block in these tiers off what the node is known to hold.
func (n *node) discount(tiers block.TierMask) {
	for t := range tiers.All() {
		n.blocks[t]--
	}
}

// leastGrowth is by how much a table grows where memory does not allow growth.
const leastGrowth = 1.15

// makeRoom makes room for a block in a shard that is full: in a larger table, or,
// when memory is at its bound, by evicting the deepest blocks.
func (s *shard) makeRoom(buf []lane) {
	n := len(s.table.Load().buckets)
	for _, by := range []float64{growth, leastGrowth} {
		larger := max(fit(int(s.size*by)), n+1)
		if s.memory.allows(bucketBytes * int64(larger-n)) {
			size := s.size * by
			s.rebuild(larger)
			s.size = size
			return
		}
	}
	s.lowerLimit()
	s.sweep(nil, buf)
}

// lowerLimit lowers the limit of depth so far that a part of this shard is beyond
// it. It has the depths of all shards: the fingerprints are even. The others are
// swept one by one.
func (s *shard) lowerLimit() {
	var depths [anyDepth]int
	t := s.table.Load()
	for at := range t.slots() {
		if fp := *t.fp(at); fp != 0 {
			depths[fp&depthMask]++
		}
	}
	want := s.live/evictShare + 1
	limit := s.memory.limit.Load()
	for d := uint64(anyDepth); d > 0 && want > 0; {
		d--
		want -= depths[d]
		limit = min(limit, d)
	}
	s.memory.limit.Store(limit)
}

// relieve evicts until memory is within its bound, which arenas may have
// overstepped. Index.mu is held.
func (ix *Index) relieve() {
	for at := 0; ix.memory.over() && ix.memory.limit.Load() > 0; at++ {
		s := &ix.shards[at%shards]
		if at%shards == 0 && ix.memory.swept == ix.memory.limit.Load() {
			s.lowerLimit()
		}
		s.sweep(nil, ix.buf)
		if at%shards == shards-1 {
			ix.memory.swept = ix.memory.limit.Load()
		}
	}
}

// depthFloor is the least position of a depth; 0 for a depth that no block has.
func depthFloor(depth uint64) int {
	switch {
	case depth >= anyDepth:
		return 0
	case depth < 4:
		return int(depth)
	}
	e := depth/4 + 1
	return int((4 + depth%4) << (e - 2))
}

// Relax lifts the limit of depth when less than half of the bound is in use, and tells
// whether it did. It doubts all nodes then ([Index.Doubt]), so that their snapshots bring
// back what was forgotten.
func (ix *Index) Relax() bool {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	m := &ix.memory
	if limit := m.limit.Load(); limit == anyDepth || m.swept != limit || ix.inUse() > m.most/2 {
		return false
	}
	m.limit.Store(anyDepth)
	m.swept = anyDepth
	for _, n := range ix.nodes {
		if !n.gone && n.position > 0 {
			n.position = 0
			ix.stats.doubts++
		}
	}
	return true
}

// inUse is how many bytes tables need that are no larger than they must. Index.mu is held.
func (ix *Index) inUse() (n int64) {
	for i := range ix.shards {
		s := &ix.shards[i]
		n += int64(s.live*loadDen/loadNum)*(bucketBytes/bucketSlots) + 8*int64(s.sets.used)
	}
	return n
}
