package node

import (
	"sync"
	"sync/atomic"

	"cairn/block"
	"cairn/coherency"
)

// shardBits sets the number of directory shards. It is also the grain of SCAN:
// one step of a scan visits whole shards.
const (
	shardBits = 12
	shards    = 1 << shardBits
)

// entry is what a node knows of one block. It holds no pointers, so that a
// million of them cost the collector nothing.
type entry struct {
	state  coherency.State
	parent block.Key
	sum    uint64
	length uint32
	uses   uint8 // reads since the block was last considered for promotion
}

func (e entry) descriptor(key block.Key) block.Descriptor {
	return block.Descriptor{Key: key, Parent: e.parent, Length: e.length, Sum: e.sum}
}

func newEntry(d block.Descriptor, s coherency.State) entry {
	return entry{state: s, parent: d.Parent, sum: d.Sum, length: d.Length}
}

// directory maps every block that this node holds to its state.
type directory struct {
	announce func([]Change) uint64
	blocks   atomic.Int64              // all blocks
	sealed   atomic.Int64              // of these, sealed ones
	held     [block.Tiers]atomic.Int64 // sealed blocks in each tier
	families families

	shards [shards]struct {
		// mu guards blocks, and orders the announcements of their changes.
		mu     sync.Mutex
		blocks map[block.Key]entry
	}
}

func shardOf(key block.Key) int { return int(key.Hash64() >> (64 - shardBits)) }

// get returns the block's entry.
func (d *directory) get(key block.Key) (entry, bool) {
	s := &d.shards[shardOf(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.blocks[key]
	return e, ok
}

// use is get, and counts a use.
func (d *directory) use(key block.Key) (entry, bool) {
	s := &d.shards[shardOf(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.blocks[key]
	if ok && e.uses < 255 {
		e.uses++
		s.blocks[key] = e
	}
	return e, ok
}

// change applies f to the block's entry under the shard's lock. known tells
// whether there was one; a new entry is the zero entry. The block is kept as f
// leaves it if some tier holds a valid copy, and forgotten otherwise. What that
// changes about the valid copies is announced; position is the place of the last
// such change in the node's stream of changes, or 0 when there was none. Objects of
// named blocks are not announced.
func (d *directory) change(key block.Key, f func(e *entry, known bool)) (position uint64) {
	position, _ = d.apply(key, f, true)
	return position
}

// shed is change, except that a block which others follow is not forgotten: then it is
// left as it was, and refused is true.
func (d *directory) shed(key block.Key, f func(e *entry, known bool)) (refused bool) {
	_, refused = d.apply(key, f, false)
	return refused
}

func (d *directory) apply(key block.Key, f func(e *entry, known bool), force bool) (position uint64, refused bool) {
	s := &d.shards[shardOf(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.blocks[key]
	var before, after block.TierMask
	parent := e.parent
	if known {
		before = e.state.Valid()
	}
	f(&e, known)
	if known {
		e.parent = parent
	}
	after = e.state.Valid()
	if known && !after.Any() && !force {
		if _, followed := d.families.child(key); followed {
			return 0, true
		}
	}
	switch {
	case after.Any():
		if s.blocks == nil {
			s.blocks = make(map[block.Key]entry)
		}
		s.blocks[key] = e
		if !known {
			d.count(key, 1)
			if follows(key, e.parent) {
				d.families.link(key, e.parent)
			}
		}
	case known:
		delete(s.blocks, key)
		d.count(key, -1)
		if follows(key, e.parent) {
			d.families.unlink(key, e.parent)
		}
	}
	if before == after || key.Named() {
		return 0, false // where named objects are, their pointers say
	}
	var changes [block.Tiers]Change
	n := 0
	for t := range block.Tier(block.Tiers) {
		if before.Has(t) != after.Has(t) {
			if after.Has(t) {
				d.held[t].Add(1)
			} else {
				d.held[t].Add(-1)
			}
			changes[n] = Change{Key: key, Tier: t, Stored: after.Has(t)}
			n++
		}
	}
	return d.announce(changes[:n]), false
}

func (d *directory) count(key block.Key, n int64) {
	d.blocks.Add(n)
	if !key.Named() {
		d.sealed.Add(n)
	}
}

// hint says what eviction should know about a copy in tier t: whether another tier holds
// one, and if not, whether other blocks follow it. It is called with the lock of a store
// held, so it does not wait: a block that may be changing counts as followed, because what
// follows it would go with it.
func (d *directory) hint(t block.Tier, key block.Key) (copied, followed bool) {
	s := &d.shards[shardOf(key)]
	if !s.mu.TryLock() {
		return false, true
	}
	e, known := s.blocks[key]
	s.mu.Unlock()
	if copied = known && e.state.Valid().Without(t).Any(); !copied && known {
		_, followed = d.families.child(key)
	}
	return copied, followed
}

// scan calls yield for each block of one shard. yield must not use the directory.
func (d *directory) scan(shard int, yield func(block.Key, entry) bool) bool {
	s := &d.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, e := range s.blocks {
		if !yield(k, e) {
			return false
		}
	}
	return true
}
