package ledger

import (
	"cairn/block"
)

// Place is where a record stands in the log: the sequence of its message, and its
// index in that message. Places grow along the log.
type Place uint64

// placeBits is the part of a Place that numbers what happens at one sequence.
const placeBits = 20

// MostRecords is the most records a message may have, and the most writes that one
// ownership may number.
const MostRecords = 1<<placeBits - 1

// At is the place of record number index of the message at sequence.
func At(sequence uint64, index int) Place { return Place(sequence<<placeBits | uint64(index)) }

// Sequence is that of the message.
func (p Place) Sequence() uint64 { return uint64(p >> placeBits) }

// Index is that of the record in its message.
func (p Place) Index() int { return int(p & MostRecords) }

// Version names one state of a mutable block. The versions of a block grow: one is
// the Place of the record that made it, or, of a write under ownership, the place
// of the ownership plus the number of writes. Because places are never used again,
// neither are versions, even of a block that was deleted and forgotten. 0 is a
// block that was never written.
type Version uint64

// Place is where the version was made, or where the ownership began under which it was.
func (v Version) Place() Place { return Place(v) }

// Kind says what a record does; see the package comment.
type Kind uint8

// The kinds of records. The numbers are part of the format.
const (
	Join Kind = 1 + iota
	Leave
	Expire
	Commit
	Own
	Flush
	Recall
	Revoke
	Rehome
	Barrier
	Ack
	Advance
	Clear
	Forget
	kinds
)

var kindNames = [kinds]string{"", "join", "leave", "expire", "commit", "own", "flush", "recall", "revoke", "rehome",
	"barrier", "ack", "advance", "clear", "forget"}

// Valid tells whether k is one of the kinds.
func (k Kind) Valid() bool { return k > 0 && k < kinds }

// String is the kind's name in lower case.
func (k Kind) String() string {
	if !k.Valid() {
		return "unknown"
	}
	return kindNames[k]
}

// Flags modify a record.
type Flags uint8

const (
	// Keep: a Flush after which the owner stays owner.
	Keep Flags = 1 << iota
	// Unchanged: a Flush or Revoke without a value: the pointer's stays. A Recall by
	// one who has nothing to commit.
	Unchanged
	// Lost: a Revoke that declares unflushed writes lost.
	Lost
	// Settle: every live member is to acknowledge this record by a message.
	Settle
	// Durable: a Join of a node that can be a home.
	Durable
)

// Has tells whether all of f2 are set.
func (f Flags) Has(f2 Flags) bool { return f&f2 == f2 }

// Condition restricts a Commit or an Own, and a write of an owner.
type Condition uint8

// The conditions. The numbers are part of the format.
const (
	Always  Condition = iota
	Exactly           // the block's version is Expect
	Absent            // it has no object, or one that expired before Now
	Present           // it has one
	conditions
)

// Valid tells whether c is one of the conditions.
func (c Condition) Valid() bool { return c < conditions }

// MostHomes is the most nodes that keep the object of a mutable block durably.
const MostHomes = 3

// Homes are the numbers of the members that hold an object durably, in order of
// preference; 0 is none.
type Homes [MostHomes]uint16

// Has tells whether member is one of them.
func (h Homes) Has(member uint16) bool {
	return member != 0 && (h[0] == member || h[1] == member || h[2] == member)
}

// Count is how many there are.
func (h Homes) Count() int {
	n := 0
	for _, m := range h {
		if m != 0 {
			n++
		}
	}
	return n
}

// Value is what a version of a block holds.
type Value struct {
	// Object has the bytes; zero: the block is absent.
	Object block.Key
	Length uint32
	Sum    uint64 // block.Checksum of the bytes
	// Expires is when the value ends, in milliseconds since 1970; 0 is never.
	Expires int64
	// Homes hold Object durably.
	Homes Homes
}

// Alive tells whether there is an object that has not expired at now, in
// milliseconds since 1970.
func (v Value) Alive(now int64) bool {
	return !v.Object.IsZero() && (v.Expires == 0 || v.Expires > now)
}

// Record is one entry of the log. Which fields count depends on Kind.
type Record struct {
	Kind  Kind
	Flags Flags
	// Key is the block: block.NamedKey(Namespace, Name, 0).
	Key block.Key
	// Namespace and Name are what people call the block (Commit, Own); Namespace
	// alone what is cleared (Clear).
	Namespace string
	Name      []byte

	// If, Expect and Now are the condition of a Commit or an Own. Now is the
	// author's wall clock, in milliseconds since 1970, for what has expired.
	If     Condition
	Expect Version
	Now    int64

	// Token is the ownership that a Flush, Recall or Revoke is about.
	Token Version
	// Version is that of Value in a Flush or Revoke, and the expected one of a Rehome.
	Version Version
	// Value is the new state (Commit, Flush, Revoke); of a Rehome only its Homes count.
	Value Value
	// Copies is on how many homes each write of this ownership is staged before it
	// is acknowledged (Own); 0: on none.
	Copies uint8
	// Lease: strict reads of this block need no fence (Commit, Own, Flush, Revoke).
	Lease bool

	// Member, Incarnation and Sequence name the member of an Expire and its last
	// message. Of a Forget, Sequence is the bound: what is absent since before it.
	Member      string
	Incarnation uint64
	Sequence    uint64
	// Epoch is that of the barrier (Ack, Advance).
	Epoch uint64
}

// Message is what a node publishes: one message of the log.
type Message struct {
	// Node and Incarnation are the author's; Number counts the messages of this
	// incarnation from 1. The three together are never used twice.
	Node        string
	Incarnation uint64
	Number      uint64
	// Applied is the sequence up to which the author had applied the log, and
	// Digest is its digest there.
	Applied uint64
	Digest  uint64
	Records []Record
}

// Verdict is what became of a record.
type Verdict uint8

// The verdicts; see the package comment.
const (
	Void Verdict = iota
	Conflict
	Effective
)

// String is the verdict in lower case.
func (v Verdict) String() string {
	switch v {
	case Effective:
		return "effective"
	case Conflict:
		return "conflict"
	default:
		return "void"
	}
}

// Pointer is the state of one mutable block in the log.
type Pointer struct {
	Key       block.Key
	Namespace string
	Name      []byte // memory of the Table; not to be written to
	Version   Version
	Value     Value
	// Changed is the place of the record that last changed Version or the owner.
	Changed Place
	// Token is the place at which the present ownership began; 0: the block is free.
	Token Version
	// Owner is the number of the member that owns the block, OwnerIncarnation the
	// incarnation that it had when it became owner, and Copies that of the Own.
	Owner            uint16
	OwnerIncarnation uint64
	Copies           uint8
	// Lease is that of the last record.
	Lease bool
}

// Owned tells whether the block has an owner, alive or not.
func (p Pointer) Owned() bool { return p.Token != 0 }

// Table holds the pointers. A Ledger is its only writer; what else may run in
// parallel is for the implementation to say.
type Table interface {
	Load(key block.Key) (Pointer, bool)
	// Store adds or replaces the pointer of p.Key. It copies p.Name.
	Store(p Pointer)
	Delete(key block.Key)
	// Range calls yield for every pointer, in any order, until it returns false.
	// yield must not change the table.
	Range(yield func(Pointer) bool)
	Len() int
}
