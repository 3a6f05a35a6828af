package tier

import "cairn/block"

// Hint is what the owner of a store knows about an object that the store thinks of
// evicting. It is advice: it may be out of date the moment it is given, and a store
// that cannot follow it does not.
type Hint uint8

const (
	// Copied: another copy is near, in another tier of the node or at a peer, so that
	// losing this one costs a transfer rather than a computation.
	Copied Hint = 1 << iota
	// Needed: this is the node's last copy, and the node has blocks that follow it in a
	// sequence and are of no use without it.
	Needed
)

// Advised is a Store that asks its owner before it chooses what to evict.
type Advised interface {
	// Advise gives the store a function to ask. The store calls it under its own lock,
	// for the few objects between which it chooses: so it must be fast, and must neither
	// wait for a lock under which a store is called, nor call a store.
	Advise(ask func(block.Key) Hint)
}
