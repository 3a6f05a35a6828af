package protocol

import (
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

// Op identifies something that a client of the node waits for. The node chooses
// it, and never uses one twice in the life of a Machine. The highest bit is the
// Machine's own: see [Stage].
type Op uint64

const internalOp Op = 1 << 63

// Space is how the blocks of a namespace behave.
type Space struct {
	// Homes is on how many nodes each version is durable before it is committed: 1
	// to ledger.MostHomes. Fewer are taken when fewer are there.
	Homes int
	// Copies is on how many homes a write-back write is staged before it is
	// acknowledged; 0: on none, and it survives only its owner.
	Copies int
	// Lease: strict reads need no round trip, and writes wait for every live member.
	Lease bool
}

// Event is something that happened at the node; one of the types below.
type Event interface{ event() }

// Tick says that time has passed. Give one every quarter of the renewal interval or
// more often.
type Tick struct{}

// Delivered is the next message of the log, Sum the checksum of its encoded form.
// The machine keeps nothing of it.
type Delivered struct {
	Sequence uint64
	Message  *ledger.Message
	Sum      uint64
}

// Skipped is a message of the log that cannot be read.
type Skipped struct{ Sequence, Sum uint64 }

// CaughtUp says that all that was in the log when the node began to read has been
// delivered: it is time to join.
type CaughtUp struct{}

// Write asks for a new version of a block. It ends with a Reply. It may be given as a
// pointer, to save the copy; then it is the machine's.
type Write struct {
	Op        Op
	Key       block.Key // block.NamedKey(Namespace, Name, 0)
	Namespace string
	Name      []byte // kept until the Reply
	Space     Space
	Policy    coherency.WritePolicy
	If        ledger.Condition
	Expect    ledger.Version
	Now       int64 // the node's wall clock, in milliseconds since 1970
	// Value is the new state. Its object lies in the node already, under a key that
	// was never used for a write before, or is the one that the block has, when
	// only the end changes; zero deletes. Homes is ignored.
	Value ledger.Value
}

// Level says how fresh a read must be.
type Level uint8

const (
	// Strict: nothing older than any write that was acknowledged before the read began.
	Strict Level = iota
	// Session: nothing older than what the same client has written or read.
	Session
	// Bounded: nothing older than a given time.
	Bounded
	// AsOwner: asked by another node; answered only while this one owns the block
	// by the given token.
	AsOwner
)

// Read asks what the newest version of a block is. It ends with a Serve, a Forward
// or a Reply with an error.
type Read struct {
	Op  Op
	Key block.Key
	// Namespace is the block's: a block that was never written has another version
	// once its namespace was cleared, and an Exactly must name that.
	Namespace string
	Level     Level
	Space     Space
	Session   uint64         // Session: the log must be applied up to here
	Bound     time.Duration  // Bounded
	Token     ledger.Version // AsOwner
	// Refused is the token of an owner that did not answer when this read was
	// forwarded to it.
	Refused ledger.Version
}

// Cancel says that nobody waits for an operation any more. Its outcome is open: a
// record of it may be on its way. There is no Reply after it.
type Cancel struct{ Op Op }

// Staged is the end of a Stage: every home has the object, durably, or some failed.
type Staged struct {
	Op     Op
	Failed bool
}

// Arrived says that this node, as a home, has got an object that another node, or
// itself, staged. Give it before the author learns that the object is staged.
type Arrived struct {
	Key         block.Key
	Author      string
	Incarnation uint64
	Token       ledger.Version // 0: of a commit
	Version     ledger.Version // of a staged write under ownership
	Value       ledger.Value
}

// Found is the answer to an Inquire: the newest version staged under the token, on
// any node. The Homes of Value are those that have said that they have it, which may be
// fewer than it was meant for. Complete: of all nodes that ever were members, fewer than
// the Copies of the pointer have not answered, or have lost what they had since the
// ownership began: every acknowledged write is on that many.
type Found struct {
	Key      block.Key
	Token    ledger.Version
	Any      bool
	Version  ledger.Version
	Value    ledger.Value
	Complete bool
}

// Check names a block that a Scan found.
type Check struct {
	Key   block.Key
	Space Space
}

// Replicated is the end of a Replicate: these homes hold the object now; or, if it
// Failed, some of them do not.
type Replicated struct {
	Key     block.Key
	Version ledger.Version
	Homes   ledger.Homes
	Failed  bool
}

// Barrier asks that all that is acknowledged now becomes durable at home. It ends
// with a Reply.
type Barrier struct{ Op Op }

// Clear asks that every name of a namespace becomes absent. It ends with a Reply.
type Clear struct {
	Op        Op
	Namespace string
}

// Gone says that the bytes of an object that this node owns unflushed are lost.
type Gone struct{ Key, Object block.Key }

// Leave asks the node to give back all that it owns and to end its membership. It
// ends with Left.
type Leave struct{}

// Draining says which members are about to leave, this node among them or not. As long as
// others stay, this node makes no draining one a home, and an object of which only draining
// nodes are homes gets others. It comes when the members change, and as often as homes should be
// looked after again. It only guides what nodes propose: they need not know the same.
type Draining struct{ Members []string }

// Stop says that the log cannot be trusted any more: it lost its end, or is
// another one. Strict service ends for the life of the Machine.
type Stop struct{ Err error }

func (Tick) event()       {}
func (Delivered) event()  {}
func (Skipped) event()    {}
func (CaughtUp) event()   {}
func (Write) event()      {}
func (Read) event()       {}
func (Cancel) event()     {}
func (Staged) event()     {}
func (Arrived) event()    {}
func (Found) event()      {}
func (Check) event()      {}
func (Replicated) event() {}
func (Barrier) event()    {}
func (Clear) event()      {}
func (Gone) event()       {}
func (Leave) event()      {}
func (Draining) event()   {}
func (Stop) event()       {}
