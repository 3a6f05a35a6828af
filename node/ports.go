package node

import (
	"context"
	"errors"

	"cairn/block"
	"cairn/wire"
)

// This file declares what a node needs of the cluster around it. Package
// cluster implements it on NATS; tests implement it in memory.

// Change says that this node has gained or lost the copy of a block in a tier.
type Change struct {
	Key    block.Key
	Tier   block.Tier
	Stored bool // false: the copy is gone
}

// Announcer tells the cluster what this node holds.
type Announcer interface {
	// Announce queues changes, in order, and returns the position in this node's
	// stream of changes after the last of them. It does not block on the
	// network and does not keep the slice.
	Announce(changes []Change) (position uint64)
}

// Holder is a peer that holds a block.
type Holder struct {
	Node  string // node id
	Addr  string // host:port of its data plane
	Tiers block.TierMask
}

// Peers answers where blocks are in the rest of the cluster. It speaks from a
// local index that trails the truth by the delay of events, so a holder may
// turn out not to have the block.
type Peers interface {
	// Locate appends, for each key in turn, the peers that hold it, best
	// first, never this node.
	Locate(keys []block.Key) [][]Holder
	// Peer is the live member with the given id, never this node; Tiers is
	// empty in the answer.
	Peer(node string) (Holder, bool)
	// Await returns when the local index has seen everything up to the token,
	// or when the token's node or incarnation is gone; otherwise with ctx's error.
	Await(ctx context.Context, t wire.Token) error
}

// ErrNameConflict: a conditional change of a name found another state.
var ErrNameConflict = errors.New("name changed meanwhile")

// Name is the newest state of a named block: a pointer to the object with its
// bytes, as the cluster's log has it.
type Name struct {
	// Key is block.NamedKey(Namespace, Name, 0).
	Key block.Key
	// Namespace is the space that the name lives in.
	Namespace string
	// Name is what the user calls it; the slice belongs to the receiver of the
	// value.
	Name []byte
	// Object is the block that holds the bytes; zero when the name is deleted.
	Object block.Key
	Length uint32
	// Expires is when the name ends, in milliseconds since 1970; 0 is never. For
	// a deleted name it is when it was deleted.
	Expires int64
	// Writer is the id of the node that wrote it.
	Writer string
	// Sequence is the place of this state in the log.
	Sequence uint64
}

// Deleted tells whether the name has no bytes.
func (n Name) Deleted() bool { return n.Object.IsZero() }

// NameLog orders changes of names for the whole cluster. Every change that is
// appended, by any node, comes back to every node through Node.ApplyName, in
// the order of the log.
type NameLog interface {
	// Append publishes the state n and returns its sequence. With expect nil it
	// is unconditional; else the change happens only if the last sequence of this
	// name is *expect (0: the name was never written), and ErrNameConflict
	// says that it is not. An error of any other kind leaves the outcome unknown.
	Append(ctx context.Context, n Name, expect *uint64) (sequence uint64, err error)
}

// Router ranks the nodes of the cluster for a request. CAIRN.ROUTE and CAIRN.DONE
// pass on what it says.
type Router interface {
	// RouteJSON takes a request and gives an answer as docs/protocol.md describes
	// them.
	RouteJSON(ctx context.Context, request []byte) ([]byte, error)
	// Done says that the request with this id no longer weighs on its node.
	Done(id string)
}
