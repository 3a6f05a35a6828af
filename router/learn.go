package router

import "cairn/block"

// Where engines announce nothing, the index can learn from decisions: a node that was
// sent a prompt will hold its blocks, until it needs the room. Nobody says when that is,
// so what was learned is forgotten after a time. There are two generations, each a slot of
// the node's own in the table: blocks are learned into the younger, and [Index.Age] drops
// the older whole, which costs no time stamp for a block. A node that announces
// anything is believed, and nothing is learned of it.

// learnedTier is where blocks are that nobody announces: in the cache of an engine.
const learnedTier = block.VRAM

// Learn takes for granted that the node holds the blocks from now on, and tells
// whether it did: not for a node that is unknown, gone, or has announced anything.
func (ix *Index) Learn(id string, keys []block.Key) bool {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	defer ix.sweepOne()
	n := ix.nodes[id]
	if n == nil || n.gone || !n.announced || n.heard {
		return false
	}
	n.learned = true
	var changes [touchAhead]Change
	for len(keys) > 0 {
		some := changes[:min(touchAhead, len(keys))]
		if n.past != nil {
			for i := range some {
				some[i] = Change{Key: keys[i], Tier: learnedTier}
			}
			ix.change(n.past, some)
		}
		for i := range some {
			some[i] = Change{Key: keys[i], Tier: learnedTier, Stored: true}
		}
		ix.stats.learned += uint64(ix.change(n, some))
		keys = keys[len(some):]
	}
	ix.relieve()
	return true
}

// Age forgets what was learned before the last call. Called every T, it keeps a block
// for at least T and at most 2T after it was last learned. It fails with
// [ErrTooManyNodes] when there is no slot for a node; that one keeps what it has.
func (ix *Index) Age() error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	var failed error
	for _, n := range ix.nodes {
		if n.gone || !n.learned || n.past == nil && n.blocks == (TierBlocks{}) {
			continue
		}
		slot, err := ix.takeSlot()
		if err != nil {
			failed = err
			continue
		}
		ix.retirePast(n)
		n.past = &node{id: n.id, slot: n.slot, blocks: n.blocks}
		n.slot, n.blocks = slot, TierBlocks{}
		ix.memory.owners[n.past.slot], ix.memory.owners[slot] = n.past, n
		ix.publish(n)
	}
	return failed
}

// hear takes note of the first announcement of a node: what was learned of it goes.
// Index.mu is held.
func (ix *Index) hear(n *node) error {
	if n.heard {
		return nil
	}
	if n.learned {
		slot, err := ix.takeSlot()
		if err != nil {
			return err
		}
		ix.retirePast(n)
		ix.retire(n.slot)
		n.slot, n.blocks, n.learned = slot, TierBlocks{}, false
		ix.memory.owners[slot] = n
		ix.publish(n)
	}
	n.heard = true
	return nil
}

// retirePast ends the older generation. Index.mu is held.
func (ix *Index) retirePast(n *node) {
	if n.past != nil {
		ix.retire(n.past.slot)
		n.past = nil
	}
}

// known is how many blocks the node is taken to hold. Index.mu is held.
func (n *node) known() TierBlocks {
	b := n.blocks
	if n.past != nil {
		for t := range b {
			b[t] += n.past.blocks[t]
		}
	}
	return b
}
