package node

import (
	"context"
	"fmt"

	"cairn/block"
)

// evicted tells the directory which blocks a tier has thrown out to make room.
func (n *Node) evicted(t block.Tier, keys []block.Key) {
	for _, key := range keys {
		n.dropped(t, key)
	}
}

// dropped tells the directory that a tier no longer holds a block. It asks the
// tier again under the shard's lock: the block may have been put back meanwhile.
func (n *Node) dropped(t block.Tier, key block.Key) {
	n.dir.change(key, func(e *entry, known bool) {
		if !known || !e.state.Has(t) {
			return
		}
		if _, held := n.stores[t].Stat(key); held {
			return
		}
		if gone, _ := e.state.Evicted(t); gone {
			n.counters.forgotten.Add(1)
		}
	})
}

// tierLost tells the directory that a tier has lost everything: its device is
// gone.
func (n *Node) tierLost(t block.Tier) {
	if !n.lost[t].CompareAndSwap(false, true) {
		return
	}
	n.log.Error("tier lost; its blocks are forgotten and the node goes on without it", "tier", t)
	for shard := range shards {
		var keys []block.Key
		n.dir.scan(shard, func(k block.Key, e entry) bool {
			if e.state.Has(t) {
				keys = append(keys, k)
			}
			return true
		})
		for _, key := range keys {
			n.dir.change(key, func(e *entry, known bool) {
				if known {
					e.state.Evicted(t)
				}
			})
		}
	}
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

// Remove takes blocks out of every tier of this node. It returns how many were
// there.
func (n *Node) Remove(keys ...block.Key) int {
	removed := 0
	for _, key := range keys {
		var held block.TierMask
		n.dir.change(key, func(e *entry, known bool) {
			if !known {
				return
			}
			held = e.state.Valid()
			for t := range held.All() {
				e.state.Discard(t)
			}
		})
		if !held.Any() {
			continue
		}
		removed++
		for t := range held.All() {
			n.stores[t].Delete(key)
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
