package node

import (
	"cmp"
	"slices"

	"cairn/block"
)

// soleBlock is a block that would be lost with this node.
type soleBlock struct {
	block.Descriptor
	worth uint32 // what it is worth to keep, compared with others
}

// chain is sole blocks that follow each other in a sequence, parents first. It hangs on
// what comes before its first block.
type chain struct {
	blocks   []soleBlock
	worth    uint32   // of the best of them
	branches []*chain // that hang on one of its blocks
}

// chains cuts sole blocks into chains: each block but the last is continued by the one
// of its successors that is worth most, with what hangs on that; the others begin chains
// of their own, as branches of that one. It returns the chains that hang on no sole
// block, the worthiest first, and takes over blocks. A parent that does not stand before
// the block, which no sequence has, does not count as one.
func chains(blocks []soleBlock) []*chain {
	slices.SortFunc(blocks, func(a, b soleBlock) int {
		return cmp.Or(cmp.Compare(a.Key.Position(), b.Key.Position()), a.Key.Compare(b.Key))
	})
	at := make(map[block.Key]int, len(blocks))
	for i, b := range blocks {
		at[b.Key] = i
	}
	parent := make([]int, len(blocks))
	next := make([]int, len(blocks)) // the successor that continues the chain; 0: none, as the first block follows nobody
	for i := len(blocks) - 1; i >= 0; i-- {
		b := &blocks[i]
		p, ok := at[b.Parent]
		if parent[i] = -1; !ok || blocks[p].Key.Position() >= b.Key.Position() {
			continue
		}
		parent[i] = p
		if blocks[p].worth = max(blocks[p].worth, b.worth); next[p] == 0 || blocks[next[p]].worth <= b.worth {
			next[p] = i
		}
	}
	of := make([]*chain, len(blocks)) // the chain of each block
	var heads []*chain
	for i := range blocks {
		if of[i] != nil {
			continue // continues one that has begun
		}
		c := &chain{worth: blocks[i].worth}
		for j := i; ; j = next[j] {
			of[j] = c
			c.blocks = append(c.blocks, blocks[j])
			if next[j] == 0 {
				break
			}
		}
		if p := parent[i]; p >= 0 {
			of[p].branches = append(of[p].branches, c)
		} else {
			heads = append(heads, c)
		}
	}
	slices.SortStableFunc(heads, worthier)
	return heads
}

// worthier orders chains: those first whose loss would cost most.
func worthier(a, b *chain) int { return cmp.Compare(b.worth, a.worth) }

// receiver is a member that may take over blocks. The goroutines of a handover share it
// under the handover's lock.
type receiver struct {
	Neighbour
	free    int64       // bytes for which it had room at the last look
	grant   int64       // bytes that it may be given in all
	given   int64       // bytes that it has been given, or is being given
	refused TakeRefusal // why it takes no more for now; empty while it does
}

// bid is what it would take for a receiver to take over a chain.
type bid struct {
	r      *receiver
	before []block.Descriptor // what it lacks of the blocks before the chain, the nearest first
	bytes  int64              // of these
}

// best is the bid of whom the chain would fill least, of those with room for its first
// block: who has the beginning of the sequence need not be given it, and those with more
// room and less given are preferred. ok is false if nobody has room.
func best(bids []bid, first, all int64) (b bid, ok bool) {
	fill := func(b bid) float64 { return float64(b.r.given+b.bytes+all) / float64(b.r.grant) }
	for _, c := range bids {
		switch {
		case c.r.refused != "" || c.r.given+c.bytes+first > c.r.grant:
		case !ok || fill(c) < fill(b):
			b, ok = c, true
		}
	}
	return b, ok
}
