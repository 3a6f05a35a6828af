package protocol

import (
	"errors"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
)

// Errors of a Reply; test for them with errors.Is.
var (
	// ErrCondition: the condition of the write does not hold; nothing was changed.
	ErrCondition = errors.New("condition does not hold")
	// ErrContended: the write has certainly not happened, and never will; try again
	// with another object key.
	ErrContended = errors.New("overtaken: try again")
	// ErrUnavailable: strict service has ended here.
	ErrUnavailable = errors.New("coherence log unavailable")
	// ErrNotOwner: this node does not own the block by that token.
	ErrNotOwner = errors.New("not the owner")
	// ErrUnknown: the write may have happened, or may happen yet.
	ErrUnknown = errors.New("outcome unknown")
	// ErrStage: a home could not store the bytes durably. Nothing was changed.
	ErrStage = errors.New("home refused the bytes")
	// ErrNoHome: no live member can keep the block durably.
	ErrNoHome = errors.New("no node can be home")
)

// Effect is what the node has to do; one of the types below. Effects of one Step
// are to be done in order, or at least begun.
type Effect interface{ effect() }

// Publish sends a message to the log, again and again until it, or a later one
// of the same author, is delivered. The message belongs to the receiver.
type Publish struct{ Message *ledger.Message }

// Reply ends an operation.
type Reply struct {
	Op  Op
	Err error
	// Before and After are the block before and after a write; with ErrCondition both
	// are what it is. Version and Value of an owned block are the owner's.
	Before, After ledger.Pointer
	// Sequence is what a session has seen by this.
	Sequence uint64
}

// Serve answers a read: the block is what Pointer says. The bytes may be fetched
// afterwards; when they are gone by then, read again.
type Serve struct {
	Op       Op
	Pointer  ledger.Pointer
	Sequence uint64
	// Age is how old the answer may be at most.
	Age time.Duration
}

// Forward answers a read: ask the owner, as a Read with AsOwner and the token; if it
// does not answer, read again with Refused.
type Forward struct {
	Op    Op
	Key   block.Key
	Node  string
	Token ledger.Version
}

// Stage brings the object to every one of the homes, durably, and each of them
// gives its machine an Arrived before it answers. It ends with Staged with the
// same Op.
type Stage struct {
	Op          Op
	Key         block.Key
	Incarnation uint64
	Token       ledger.Version
	Version     ledger.Version
	Value       ledger.Value // Homes: where to
	Homes       []string     // their names
}

// Moved says that the log has given a block another version, or another owner.
// The object of Before is not needed any more if After has another one. It comes as a
// pointer, and is the machine's until the next Step, as there are so many of them.
type Moved struct {
	Before, After ledger.Pointer
	// Flush: the value was this node's own newest before.
	Kind ledger.Kind
}

// Local says that this node's newest version of a block that it owns is this one,
// before the log knows it: keep its object, whatever the tiers would evict. Drop
// is the object of the version before, if nothing needs it any more.
type Local struct {
	Key     block.Key
	Version ledger.Version
	Value   ledger.Value
	Drop    block.Key
}

// Flushed says that an object which Local named is durable at its homes: an ordinary
// copy from now on.
type Flushed struct{ Key, Object block.Key }

// LocalGone says that this node has no version of its own of the block any more. Drop
// is the object of a version that is lost or superseded.
type LocalGone struct{ Key, Drop block.Key }

// Collect says that this home may delete a staged object: no record that names it
// can become effective any more.
type Collect struct{ Object block.Key }

// Inquire asks every node that ever was a member, live or not, for the newest version
// staged under the token, and ends with Found.
type Inquire struct {
	Key   block.Key
	Token ledger.Version
}

// Scan asks for a Check of each block that a dead incarnation owns (Orphans), or that
// this node is a home of and that has fewer live homes than it should (Homes): than it
// names, or than the Homes or the Copies of its Space.
type Scan struct{ Orphans, Homes bool }

// Replicate copies an object of which this node is a home to further homes, and ends with
// Replicated.
type Replicate struct {
	Key     block.Key
	Version ledger.Version
	Value   ledger.Value
	To      []string
	Homes   ledger.Homes // when all have it
}

// Declared says that unflushed writes of a dead or failed owner are lost. Every node
// says so at the same place of the log.
type Declared struct{ Pointer ledger.Pointer }

// Cleared says that every name of a namespace is absent, if its version is older than
// Place.
type Cleared struct {
	Namespace string
	Place     ledger.Place
}

// Passed says that a barrier was passed; Epoch is the new epoch.
type Passed struct{ Epoch uint64 }

// Alarm says what an operator must know: another member has read another log.
type Alarm struct{ Reason string }

// Left says that this node is no member any more and owns nothing.
type Left struct{}

func (Publish) effect()   {}
func (Reply) effect()     {}
func (Serve) effect()     {}
func (Forward) effect()   {}
func (Stage) effect()     {}
func (*Moved) effect()    {}
func (Local) effect()     {}
func (Flushed) effect()   {}
func (LocalGone) effect() {}
func (Collect) effect()   {}
func (Inquire) effect()   {}
func (Scan) effect()      {}
func (Replicate) effect() {}
func (Declared) effect()  {}
func (Cleared) effect()   {}
func (Passed) effect()    {}
func (Alarm) effect()     {}
func (Left) effect()      {}
