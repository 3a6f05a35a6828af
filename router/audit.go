package router

import "cairn/block"

// Hole says that a node was known to hold a block and not one before it. Nodes hold
// prefix-closed sets, so either the index has missed something or the node has broken
// the rule. The blocks behind the hole were taken out of the index at once; ask the
// node for a snapshot ([Index.Doubt]) to get back those that it can use.
type Hole struct {
	Node        string    `json:"node"`
	Incarnation uint64    `json:"incarnation"`
	Key         block.Key `json:"key"` // the block that is missing
	Behind      int       `json:"behind"`
}

// holesMost bounds the holes that wait for [Index.Holes]; there is one for a node.
const holesMost = MaxNodes

// compare repeats a match exactly. Where bisection was wrong it keeps the exact answer,
// and looks for holes.
func (ix *Index) compare(keys []block.Key, m *Match) {
	if m.audit == nil {
		m.audit = new(Match)
	}
	ix.match(keys, m.audit, (*Match).exact)
	ix.audits.Add(1)
	if m.same(m.audit) {
		return
	}
	exact := m.audit
	exact.audit, m.audit = nil, nil
	*m, *exact = *exact, *m
	m.audit = exact
	// The bisection tells who was believed to hold more than a prefix.
	for i := range exact.Nodes {
		o := &exact.Nodes[i]
		if id := exact.Node(o); o.Prefix > m.Of(id).Prefix {
			ix.retract(id, keys)
		}
	}
}

// same tells whether two answers give every node the same prefix.
func (m *Match) same(o *Match) bool {
	if m.Blocks != o.Blocks || len(m.Nodes) != len(o.Nodes) {
		return false
	}
	for i := range m.Nodes {
		if m.Nodes[i].Prefix != o.Of(m.Node(&m.Nodes[i])).Prefix {
			return false
		}
	}
	return true
}

// retract takes the blocks behind the first hole in what the node holds of keys out of
// the index. It looks again, because a reader beside a writer may take a change half
// done for a hole.
func (ix *Index) retract(id string, keys []block.Key) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	n := ix.nodes[id]
	if n == nil || n.gone || n.learned {
		return
	}
	first := 0
	for first < len(keys) && ix.holds(n, &keys[first]) != 0 {
		first++
	}
	hole := Hole{Node: id, Incarnation: n.incarnation}
	for i := first + 1; i < len(keys); i++ {
		tiers := ix.holds(n, &keys[i])
		if tiers == 0 {
			continue
		}
		fp := fingerprint(&keys[i])
		for t := range tiers.All() {
			ix.shardOf(fp).set(fp, n.slot, t, false, ix.buf)
		}
		n.discount(tiers)
		hole.Behind++
	}
	if hole.Behind == 0 {
		return
	}
	hole.Key = keys[first]
	ix.violations.Add(1)
	ix.stats.retracted += uint64(hole.Behind)
	if len(ix.holes) < holesMost && !ix.reported(id) {
		ix.holes = append(ix.holes, hole)
	}
}

// holds is in which tiers the node holds the block. Index.mu is held.
func (ix *Index) holds(n *node, key *block.Key) block.TierMask {
	fp := fingerprint(key)
	s := ix.shardOf(fp)
	t := s.table.Load()
	word, _ := t.find(fp)
	for _, l := range s.lanes(t, word, ix.buf) {
		if laneSlot(l) == n.slot {
			return laneTiers(l)
		}
	}
	return 0
}

// reported tells whether a hole of the node waits to be told. Index.mu is held.
func (ix *Index) reported(id string) bool {
	for _, h := range ix.holes {
		if h.Node == id {
			return true
		}
	}
	return false
}

// Holes is what was found since the last call, at most one for each node.
func (ix *Index) Holes() []Hole {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	holes := ix.holes
	ix.holes = nil
	return holes
}

// Doubt makes the index ask for a snapshot of the node: what it knows stays in use,
// and the next event of this incarnation is refused with a [*GapError], as if all
// before it had been lost.
func (ix *Index) Doubt(id string, incarnation uint64) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if n := ix.nodes[id]; n != nil && !n.gone && n.incarnation == incarnation && n.position > 0 {
		n.position = 0
		ix.stats.doubts++
	}
}
