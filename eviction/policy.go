package eviction

import (
	"fmt"
	"time"

	"cairn/block"
)

// Policy chooses victims among the blocks of a store. now is the time since any
// fixed moment, and does not go back. The id of a block is the caller's, and in
// use from Insert to Remove or Evict; with an id that is not, or an Insert of one that
// is, a policy may do anything.
type Policy interface {
	// Insert adds a block, as its first use or the first since it left.
	Insert(id uint32, b Block, now time.Duration)
	// Touch is another use of a block. Of the blocks of one request, touch the deepest
	// first. It also ends Park.
	Touch(id uint32, now time.Duration)
	// Victim is the block of the group that should leave next; ok is false when there
	// is none that may. It changes nothing that the caller sees: to evict the
	// block, call Evict.
	Victim(group int, now time.Duration) (id uint32, ok bool)
	// Evict takes out a block that leaves to make room, named by Victim or not.
	Evict(id uint32, now time.Duration)
	// Remove takes out a block that was deleted: nothing is to be learned from it.
	Remove(id uint32)
	// Park keeps a block from being a victim until Unpark or Touch. Unpark is no
	// use of the block.
	Park(id uint32)
	Unpark(id uint32)
	// Len is the number of blocks.
	Len() int
}

// Block is what a policy is told about a block.
type Block struct {
	Key block.Key
	// Parent is the key of the block before it in its sequence; zero for none, or
	// none known.
	Parent block.Key
	// Group tells apart blocks that cannot take each other's room, such as slots
	// of different sizes. Groups are small numbers from 0 on.
	Group int
	// Kind tells apart requests of which the caller knows that they behave
	// differently; what is learned of a kind is kept apart. 0 to [Kinds]−1.
	Kind uint8
}

// New is an empty policy of the kind named, [KindLRU] or [KindHazard], or tells what is
// wrong.
func New(kind string, cfg Config) (Policy, error) {
	switch kind {
	case KindLRU:
		return NewLRU(cfg)
	case KindHazard:
		return NewHazard(cfg)
	}
	return nil, fmt.Errorf("eviction: no policy %q: want %s or %s", kind, KindLRU, KindHazard)
}

// The policies that [New] makes.
const (
	KindLRU    = "lru"
	KindHazard = "hazard"
)

// Kinds is the number of values of Block.Kind.
const Kinds = 4

// fingerprint is 64 bits that stand for a key, and never 0.
func fingerprint(k *block.Key) uint64 {
	return max(k.Hash64()^uint64(k.Position()+1)*0x9e3779b97f4a7c15, 1)
}

// fingerprints are those of a block and its parent, 0 for none. A parent that does not
// come before the block is none: no chain of parents ends where it began.
func (b *Block) fingerprints() (key, parent uint64) {
	key = fingerprint(&b.Key)
	if !b.Parent.IsZero() && b.Parent.Position() < b.Key.Position() {
		parent = fingerprint(&b.Parent)
	}
	return key, parent
}
