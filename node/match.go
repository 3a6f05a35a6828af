package node

import "cairn/block"

// Matched is the answer of Match.
type Matched struct {
	// Prefix is how many leading blocks this node and its peers hold together.
	Prefix int
	// Local is how many leading blocks this node holds alone.
	Local int
}

// Match returns the longest prefix of keys that the cluster holds, as far as
// this node knows.
func (n *Node) Match(keys []block.Key) Matched {
	var m Matched
	for m.Local < len(keys) && n.Holds(keys[m.Local]) {
		m.Local++
	}
	m.Prefix = m.Local
	rest := keys[m.Local:]
	for i, holders := range n.peers.Locate(rest) {
		if len(holders) == 0 && !n.Holds(rest[i]) {
			break
		}
		m.Prefix++
	}
	return m
}

// Holds tells whether a tier of this node has the block.
func (n *Node) Holds(key block.Key) bool {
	_, ok := n.dir.get(key)
	return ok
}

// Known tells whether this node or, as far as it knows, a peer has the block.
func (n *Node) Known(key block.Key) bool {
	return n.Holds(key) || len(n.peers.Locate([]block.Key{key})[0]) > 0
}
