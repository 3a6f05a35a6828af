package replay

import (
	"context"

	"cairn/block"
)

// Cluster is what a replay runs against. Its methods are called from many
// goroutines at a time.
type Cluster interface {
	// Route ranks the nodes for a request with the given blocks and number of
	// prompt tokens, and returns the name of the best that is not in avoid. It fails
	// when there is none. done is called when the request no longer weighs on the
	// node, so that routes reckon with what is really going on.
	Route(ctx context.Context, keys []block.Key, tokens int, avoid []string) (node string, done func(), err error)
	// Node is the node with a name that Route has returned.
	Node(name string) (Node, error)
}

// Node is one node of the cluster. Slices belong to the caller and are not kept.
type Node interface {
	// Match returns how many leading blocks the cluster has as far as this node
	// knows, and how many of them the node has itself. It sees every block that was
	// put before, through any node of the same Cluster.
	Match(ctx context.Context, keys []block.Key) (prefix, local int, err error)
	// Read reads blocks, from the node or its peers. For each that is about to
	// arrive it calls place, from its own goroutine, for memory of d.Length bytes; nil
	// means that the block is not wanted. found tells which blocks lie in their
	// memory, with the right checksum.
	Read(ctx context.Context, keys []block.Key, place func(i int, d block.Descriptor) []byte) (found []bool, err error)
	// Put stores a block whose predecessor is parent (zero for the first).
	// stored is false when the cluster had it already.
	Put(ctx context.Context, key, parent block.Key, data []byte) (stored bool, err error)
}

// TierStatus is one tier of a node: what it holds now, and the block reads it has
// served since the node started.
type TierStatus struct {
	Tier     block.Tier `json:"tier"`
	Objects  int64      `json:"objects"`
	Bytes    int64      `json:"bytes"`
	Capacity int64      `json:"capacity"`
	Hits     int64      `json:"hits"`
}

// NodeStatus is one node's tiers, and the block reads it has passed on to peers
// since it started.
type NodeStatus struct {
	Node     string       `json:"node"`
	Tiers    []TierStatus `json:"tiers"`
	PeerHits int64        `json:"peer_hits"`
}

// StatusSource asks the nodes that can be reached for their status. An error
// loses one sample, which is counted.
type StatusSource func(ctx context.Context) ([]NodeStatus, error)
