package node

import (
	"cairn/block"
	"cairn/tier"
)

// heldElsewhere is what Peers may be able to tell besides.
type heldElsewhere interface {
	// Held tells whether a peer holds the block, as far as the index knows. It neither
	// waits nor allocates.
	Held(key block.Key) bool
}

// advise has the stores ask which of their blocks have other copies, and which the node
// cannot do without.
func (n *Node) advise() {
	peers, _ := n.peers.(heldElsewhere)
	for t, store := range n.stores {
		if s, ok := store.(tier.Advised); ok {
			s.Advise(func(key block.Key) tier.Hint { return n.hint(block.Tier(t), key, peers) })
		}
	}
}

// hint is what this node knows about a block that tier t thinks of evicting. The objects
// of names are hinted at by nobody: those that may be evicted are copies.
func (n *Node) hint(t block.Tier, key block.Key, peers heldElsewhere) tier.Hint {
	if key.Named() {
		return tier.Copied
	}
	copied, followed := n.dir.hint(t, key)
	switch {
	case copied:
		return tier.Copied
	case followed:
		return tier.Needed
	case peers != nil && peers.Held(key):
		return tier.Copied
	}
	return 0
}

// heldByPeer tells whether a peer holds the block, as far as this node knows.
func (n *Node) heldByPeer(key block.Key) bool {
	if peers, ok := n.peers.(heldElsewhere); ok {
		return peers.Held(key)
	}
	return len(n.peers.Locate([]block.Key{key})[0]) > 0
}
