package node

import (
	"context"
	"io"

	"cairn/block"
	"cairn/coherency/ledger"
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

// Neighbour is a live member, as it describes itself.
type Neighbour struct {
	Node     string // node id
	Addr     string // host:port of its data plane
	Draining bool   // it is about to leave
	Disk     bool   // it has a disk, where its blocks become durable
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
	// Others are the live members but this node.
	Others() []Neighbour
	// Await returns when the local index has seen everything up to the token,
	// or when the token's node or incarnation is gone; otherwise with ctx's error.
	Await(ctx context.Context, t wire.Token) error
}

// CoherenceLog is the log that orders the changes of named blocks for the whole
// cluster. What any node publishes comes back to every node, this one included,
// through its LogHandler, in the same order.
type CoherenceLog interface {
	// Publish sends a message to the log, again and again until it or a later one
	// of this node has been delivered. It does not block on the network. The
	// message belongs to the log.
	Publish(m *ledger.Message)
	// SaveSnapshot keeps data as the state of the log at sequence, so that nodes
	// may start from it and the log may forget what came before. It may take as
	// long as it needs; data is the caller's again afterwards.
	SaveSnapshot(ctx context.Context, sequence uint64, data []byte) error
}

// LogHandler takes in the log. One goroutine calls it.
type LogHandler interface {
	// Restore takes a state of the log that SaveSnapshot has kept. It comes, if at
	// all, before the first message.
	Restore(sequence uint64, r io.Reader) error
	// Message is the next message of the log, sum the checksum of its encoded form.
	// The message belongs to the handler.
	Message(sequence uint64, m *ledger.Message, sum uint64)
	// Bad is the next message, which could not be read.
	Bad(sequence, sum uint64)
	// CaughtUp says that all has been given that was in the log when reading began.
	CaughtUp()
	// Regressed says that the log has lost its end, or is another one.
	Regressed(err error)
}

// Router ranks the nodes of the cluster for a request. CAIRN.ROUTE and CAIRN.DONE
// pass on what it says.
type Router interface {
	// RouteJSON takes a request and gives an answer as docs/protocol.md describes
	// them.
	RouteJSON(ctx context.Context, request []byte) ([]byte, error)
	// Prefilled says that the prefill of the request with this id is over: it is being
	// decoded until Done.
	Prefilled(id string)
	// Done says that the request with this id no longer weighs on its node.
	Done(id string)
}
