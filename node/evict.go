package node

import (
	"context"
	"fmt"
	"slices"

	"cairn/block"
)

// evicted tells the directory which blocks a tier has thrown out to make room. It sorts
// keys. Every put into a tier comes by here.
func (n *Node) evicted(t block.Tier, keys []block.Key) {
	if t == block.VRAM {
		n.demoter.poke()
	}
	deepestFirst(keys)
	for _, key := range keys {
		n.dropped(t, key)
	}
}

// deepestFirst puts every block before those that it follows.
func deepestFirst(keys []block.Key) {
	slices.SortFunc(keys, func(a, b block.Key) int { return b.Compare(a) })
}

// dropped tells the directory that a tier no longer holds a block. It asks the
// tier again under the shard's lock: the block may have been put back meanwhile.
func (n *Node) dropped(t block.Tier, key block.Key) {
	gone := false
	n.lose(key, func(e *entry, known bool) {
		gone = false
		if !known || !e.state.Has(t) {
			return
		}
		if _, held := n.stores[t].Stat(key); held {
			return
		}
		gone, _ = e.state.Evicted(t)
	})
	if gone {
		n.counters.forgotten.Add(1)
		if t == block.VRAM {
			n.demoter.letGo.Add(1)
		}
	}
}

// lose changes a block as directory.change does, by which it may leave the node. What
// follows it here leaves before it, because it is of no use any more; only blocks that
// sequences have pinned, and what is before them, stay. f may be called several times.
func (n *Node) lose(key block.Key, f func(e *entry, known bool)) {
	for n.dir.shed(key, f) {
		if !n.dropFollowers(key) {
			n.dir.change(key, f)
			return
		}
	}
}

// dropFollowers takes what follows key out of the node, the deepest first. It reports
// false when it met one that is pinned.
func (n *Node) dropFollowers(key block.Key) bool {
	path := []block.Key{key}
	for {
		last := path[len(path)-1]
		child, ok := n.dir.families.child(last)
		switch {
		case ok:
			path = append(path, child)
		case len(path) == 1:
			return true
		case n.sequences.has(last):
			return false
		default:
			path = path[:len(path)-1]
			if n.discard(last, n.dir.shed) {
				n.counters.followers.Add(1)
			}
		}
	}
}

// discard takes a block out of every tier, if change, which is one of the directory's ways
// to change it, does so. It reports whether it was there.
func (n *Node) discard(key block.Key, change func(block.Key, func(*entry, bool)) (refused bool)) bool {
	var held block.TierMask
	refused := change(key, func(e *entry, known bool) {
		held = 0
		if known {
			held = e.state.Valid()
		}
		for t := range held.All() {
			e.state.Discard(t)
		}
	})
	if refused || !held.Any() {
		return false
	}
	for t := range held.All() {
		n.stores[t].Delete(key)
	}
	return true
}

// tierLost tells the directory that a tier has lost everything: its device is
// gone. What nobody else is known to have is declared lost: counted and reported. Sequences
// have nothing in that tier any more.
func (n *Node) tierLost(t block.Tier) {
	if !n.lost[t].CompareAndSwap(false, true) {
		return
	}
	n.sequences.lose(t)
	n.prefetches.yield(t)
	var keys []block.Key
	for shard := range shards {
		n.dir.scan(shard, func(k block.Key, e entry) bool {
			if e.state.Has(t) {
				keys = append(keys, k)
			}
			return true
		})
	}
	deepestFirst(keys)
	var blocks, bytes int64
	for _, key := range keys {
		var dirty bool
		var length uint32
		n.lose(key, func(e *entry, known bool) {
			if dirty = false; known {
				_, dirty = e.state.Evicted(t)
				length = e.length
			}
		})
		// Of a name it was a copy: its homes, or its owner, have the newest version.
		if dirty && !key.Named() && !n.heldByPeer(key) {
			blocks++
			bytes += int64(length)
		}
	}
	n.counters.lost.Add(blocks)
	n.counters.lostBytes.Add(bytes)
	n.log.Error("tier lost; its blocks are forgotten and the node goes on without it", "tier", t, "forgotten", len(keys), "lost_blocks", blocks, "lost_bytes", bytes)
}

// adopt records a copy that a tier has just committed. When the block left the
// directory during the copy, the copy is thrown away.
func (n *Node) adopt(d block.Descriptor, t block.Tier) error {
	keep := false
	var err error
	n.dir.change(d.Key, func(e *entry, known bool) {
		if !known || e.sum != d.Sum || e.length != d.Length {
			return
		}
		if keep = e.state.Valid().Has(t); keep {
			return
		}
		if _, held := n.stores[t].Stat(d.Key); !held {
			return // evicted at once, or lost with its device
		}
		c, beginErr := e.state.Begin(t)
		if beginErr != nil {
			err = beginErr
			return
		}
		if err = e.state.Commit(c); err == nil {
			keep = true
		}
	})
	if !keep {
		n.stores[t].Delete(d.Key)
	}
	return err
}

// Remove takes blocks out of every tier of this node, and with them what follows them
// here. It returns how many of the keys were there.
func (n *Node) Remove(keys ...block.Key) int {
	keys = slices.Clone(keys)
	deepestFirst(keys)
	removed := 0
	for _, key := range keys {
		if n.discard(key, func(key block.Key, f func(*entry, bool)) bool { n.lose(key, f); return false }) {
			removed++
		}
	}
	return removed
}

// RemoveEverywhere takes a block out of this node and out of the peers that hold
// it, as far as this node knows. It reports whether anyone had it.
func (n *Node) RemoveEverywhere(ctx context.Context, key block.Key) (bool, error) {
	holders := n.peers.Locate([]block.Key{key})[0]
	removed := n.Remove(key) > 0
	for _, h := range holders {
		there, err := n.dialer.drop(ctx, h.Addr, key)
		if err != nil {
			return removed, fmt.Errorf("node: remove %s from %s: %w", key, h.Node, err)
		}
		removed = removed || there
	}
	return removed, nil
}
