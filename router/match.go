package router

import (
	"encoding/json"
	"math/bits"
	"slices"

	"cairn/block"
)

// TierBlocks is a number of blocks for each tier.
type TierBlocks [block.Tiers]int

// Total is the sum over the tiers.
func (b TierBlocks) Total() int {
	n := 0
	for _, v := range b {
		n += v
	}
	return n
}

type tierBlocksJSON struct {
	VRAM int `json:"vram"`
	Host int `json:"host"`
	Disk int `json:"disk"`
}

// MarshalJSON implements json.Marshaler: {"vram":1,"host":2,"disk":3}.
func (b TierBlocks) MarshalJSON() ([]byte, error) {
	return json.Marshal(tierBlocksJSON{b[block.VRAM], b[block.Host], b[block.Disk]})
}

// UnmarshalJSON implements json.Unmarshaler.
func (b *TierBlocks) UnmarshalJSON(p []byte) error {
	var v tierBlocksJSON
	if err := json.Unmarshal(p, &v); err != nil {
		return err
	}
	*b = TierBlocks{block.VRAM: v.VRAM, block.Host: v.Host, block.Disk: v.Disk}
	return nil
}

// Overlap is what one node holds of the blocks of a [Match], which knows the node's name
// ([Match.Node]). A block in several tiers counts in the fastest of them. There is no
// pointer in it, because a match may fill in hundreds.
type Overlap struct {
	// Prefix is how many blocks from the first on the node holds without a
	// hole, PrefixTiers where.
	Prefix      int
	PrefixTiers TierBlocks
	// Held is what it holds of the first Match.Blocks blocks, with holes.
	Held TierBlocks

	// best counts the same blocks as Held by the fastest tier in which any node
	// holds them.
	best TierBlocks
	node int32 // in the view's list
}

// Match is the answer of [Index.Match]. It is reused from call to call by one
// goroutine, and then costs no allocation.
type Match struct {
	// Blocks is the length of the longest prefix of which every block is held
	// by some node; Tiers counts its blocks by the fastest tier anywhere.
	Blocks int
	Tiers  TierBlocks
	// Nodes is the nodes that hold any of these blocks, in no particular order.
	// Read it only: the next call reuses it.
	Nodes []Overlap

	view *view
	at   []int32 // by place in the view's list: 1 + place in Nodes, or 0

	// The run of blocks start…next-1 all have the same holders: the inline value
	// word, or the set whose members are lanes. spare takes what is read.
	word         uint64
	sig          signature // of the run, where bisection found it
	start, next  int
	lanes, spare []lane
	audit        *Match
}

// Node is the id of the node that an element of Nodes is about.
func (m *Match) Node(o *Overlap) string { return m.view.list[o.node].ID }

// Of is what the named node holds; the zero Overlap when it holds nothing.
func (m *Match) Of(node string) Overlap {
	for i := range m.Nodes {
		if m.Node(&m.Nodes[i]) == node {
			return m.Nodes[i]
		}
	}
	return Overlap{}
}

// Match finds, for every node, how much it holds of the prefix that keys
// names, and how far the cluster as a whole goes. It stops at the first block that
// nobody holds. keys is only read, during the call.
func (ix *Index) Match(keys []block.Key, m *Match) {
	calls := ix.matches.Add(1)
	if ix.config.Mode == Exact {
		ix.match(keys, m, (*Match).exact)
		return
	}
	ix.match(keys, m, (*Match).bisect)
	if every := ix.config.AuditEvery; every > 0 && calls%uint64(every) == 0 {
		ix.compare(keys, m)
	}
}

// match runs one way of matching until it has seen one view from beginning to
// end: with another, a slot may have become another node's.
func (ix *Index) match(keys []block.Key, m *Match, how func(*Match, *Index, []block.Key)) {
	for {
		m.reset(ix.view.Load())
		how(m, ix, keys)
		m.flush()
		if ix.view.Load() == m.view {
			return
		}
	}
}

func (m *Match) reset(v *view) {
	for i := range m.Nodes {
		m.at[m.Nodes[i].node] = 0
	}
	if cap(m.at) < len(v.list) {
		m.at = make([]int32, len(v.list))
	}
	m.at = m.at[:len(v.list)]
	m.view = v
	m.Blocks, m.Tiers, m.Nodes = 0, TierBlocks{}, m.Nodes[:0]
	m.word, m.sig, m.start, m.next = 0, 0, 0, 0
}

// read is the value word of a block; m.spare has its holders when it is a set.
func (m *Match) read(ix *Index, fp uint64) (word uint64) {
	word, m.spare = ix.read(fp, m.spare)
	return word
}

// step takes the value of the next block, just read, and of count-1 more that
// have the same. It reports false when nobody holds it.
func (m *Match) step(word uint64, count int) bool {
	if word == 0 {
		m.flush()
		return false
	}
	if !m.continues(word) {
		if !m.flush() {
			return false
		}
		m.word = word
		if isSet(word) {
			m.lanes, m.spare = m.spare, m.lanes
		}
	}
	m.next += count
	return true
}

// continues tells whether a block has the holders of the run. Blocks that the
// same nodes took over in the same order have equal sets.
func (m *Match) continues(word uint64) bool {
	if !isSet(word) || !isSet(m.word) {
		return word == m.word
	}
	return m.next > m.start && slices.Equal(m.lanes, m.spare)
}

// flush accounts for the run, so a chain that the same nodes hold costs one
// comparison a block.
func (m *Match) flush() bool {
	count := m.next - m.start
	if count == 0 {
		return true
	}
	lanes := m.lanes
	var few [inlineMost]lane
	if !isSet(m.word) {
		lanes = inlineLanes(few[:0], m.word)
	}
	bySlot, tiers := m.view.bySlot, lane(0)
	for _, l := range lanes {
		if slot := laneSlot(l); slot < len(bySlot) && bySlot[slot] >= 0 {
			tiers |= l & tierMask
		}
	}
	if tiers == 0 {
		// Only nodes that are gone hold these blocks.
		m.next = m.start
		return false
	}
	best := bits.TrailingZeros16(tiers)
	for _, l := range lanes {
		if slot := laneSlot(l); slot < len(bySlot) && bySlot[slot] >= 0 {
			m.overlap(bySlot[slot]).add(m.start, count, bits.TrailingZeros16(l&tierMask), best)
		}
	}
	m.Tiers[best] += count
	m.Blocks += count
	m.start = m.next
	return true
}

// overlap is the entry of the node at this place in the view's list.
func (m *Match) overlap(at int32) *Overlap {
	if i := m.at[at]; i > 0 {
		return &m.Nodes[i-1]
	}
	if len(m.Nodes) == cap(m.Nodes) {
		m.Nodes = slices.Grow(m.Nodes, len(m.view.list)-len(m.Nodes))
	}
	m.Nodes = m.Nodes[:len(m.Nodes)+1]
	m.at[at] = int32(len(m.Nodes))
	o := &m.Nodes[len(m.Nodes)-1]
	*o = Overlap{node: at}
	return o
}

// add accounts for count blocks from start on that the node holds in tier, and
// some node in tier best.
func (o *Overlap) add(start, count, tier, best int) {
	o.Held[tier] += count
	o.best[best] += count
	if o.Prefix == start {
		o.Prefix += count
		o.PrefixTiers[tier] += count
	}
}
