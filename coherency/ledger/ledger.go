package ledger

import (
	"fmt"
	"math/bits"
	"slices"

	"cairn/internal/mutant"
)

// Member is what the log says about one node, past or present.
type Member struct {
	// ID is the node's name; Number is its place among all nodes that ever
	// joined, from 1. Neither changes.
	ID     string
	Number uint16
	// Incarnation is the last that joined; Live tells whether it still is a member.
	Incarnation uint64
	Live        bool
	Durable     bool // can be a home
	// Last is the number of its last message, Sequence where that is in the log,
	// and Applied how far the member had applied the log then.
	Last     uint64
	Sequence uint64
	Applied  uint64
	// Acked is the last barrier that this incarnation has acknowledged.
	Acked uint64
	// Owned counts the blocks that this incarnation owns.
	Owned int
}

// MostMembers is how many different nodes may join in the life of a log.
const MostMembers = 1<<16 - 1

// Ledger is the state that follows from a prefix of the log. Apply the messages in
// order; one goroutine at a time uses it.
type Ledger struct {
	table    Table
	members  []Member // by Number-1
	cleared  []clearance
	epoch    uint64
	barrier  Place // where the open barrier stands; 0: none is open
	orphaned int   // blocks that dead incarnations own
	losses   uint64

	sequence uint64
	digest   uint64
	history  []mark // ring: digests of the last sequences
}

// clearance is the place of the newest Clear of a namespace.
type clearance struct {
	namespace string
	place     Place
	count     uint64 // how many there were: the generation
}

type mark struct{ sequence, digest uint64 }

// New is the state before the first message, over an empty table. history is of
// how many sequences the digest is kept, to compare with what others say.
func New(table Table, history int) *Ledger {
	return &Ledger{table: table, history: make([]mark, history)}
}

// Outcome is what a record did. Before and After are the block's pointer, cleared
// names shown as absent; of records that are not about one block they are zero.
type Outcome struct {
	Place         Place
	Verdict       Verdict
	Before, After Pointer
}

// Applied is what became of a whole message.
type Applied struct {
	// Stale: the message came twice, or after a later one of the same author, and
	// nothing of it counts.
	Stale bool
	// Diverged: the author had another digest at a sequence that this ledger has
	// applied as well. One of the two has not read the same log.
	Diverged bool
}

// Apply takes the next message of the log; sum is the checksum of its encoded form.
// Sequences grow, with gaps where the log has none. For each record, in order,
// each is called with what became of it; the pointers are only lent.
func (l *Ledger) Apply(sequence uint64, m *Message, sum uint64, each func(r *Record, o *Outcome)) Applied {
	if sequence <= l.sequence {
		panic(fmt.Sprintf("ledger: sequence %d applied after %d", sequence, l.sequence))
	}
	a := Applied{Diverged: l.diverged(m.Applied, m.Digest)}
	l.advance(sequence, sum)
	author := l.hear(sequence, m, &a)
	var o Outcome
	for i := range m.Records {
		r := &m.Records[i]
		o = Outcome{Place: At(sequence, i)}
		if r.Kind == Join && !a.Stale {
			author = l.join(r, m, &o)
		} else if author != 0 {
			l.apply(author, r, &o)
			if !l.Member(author).Live { // it has left: what follows is nobody's
				author = 0
			}
		} else if r.Kind.aboutBlock() {
			o.Before = l.Pointer(r)
			o.After = o.Before
		}
		each(r, &o)
	}
	return a
}

// Skip is Apply for a message that cannot be read. Every node finds it so.
func (l *Ledger) Skip(sequence, sum uint64) { l.advance(sequence, sum) }

func (l *Ledger) advance(sequence, sum uint64) {
	l.sequence = sequence
	h := (l.digest ^ sum) * 0x9e3779b97f4a7c15
	l.digest = (bits.RotateLeft64(h, 29) ^ sequence) * 0xbf58476d1ce4e5b9
	if len(l.history) > 0 {
		l.history[sequence%uint64(len(l.history))] = mark{sequence, l.digest}
	}
}

func (l *Ledger) diverged(sequence, digest uint64) bool {
	if len(l.history) == 0 || sequence == 0 {
		return false
	}
	at := l.history[sequence%uint64(len(l.history))]
	return at.sequence == sequence && at.digest != digest
}

// hear notes that a member has sent a message, and returns its number; 0 if the
// author is not a live member, or the message is stale.
func (l *Ledger) hear(sequence uint64, m *Message, a *Applied) uint16 {
	mem := l.find(m.Node)
	if mem == nil || m.Incarnation > mem.Incarnation {
		return 0
	}
	if m.Incarnation < mem.Incarnation || m.Number <= mem.Last && !mutant.Is(mutant.TakeStale) {
		a.Stale = true
		return 0
	}
	if !mem.Live {
		return 0
	}
	mem.Last, mem.Sequence = m.Number, sequence
	mem.Applied = max(mem.Applied, m.Applied)
	return mem.Number
}

func (l *Ledger) join(r *Record, m *Message, o *Outcome) uint16 {
	mem := l.find(m.Node)
	switch {
	case mem == nil && len(l.members) == MostMembers:
		o.Verdict = Conflict
		return 0
	case mem == nil:
		l.members = append(l.members, Member{ID: m.Node, Number: uint16(len(l.members) + 1)})
		mem = &l.members[len(l.members)-1]
	case m.Incarnation <= mem.Incarnation:
		o.Verdict = Conflict
		return 0
	}
	l.die(mem)
	mem.Incarnation, mem.Live, mem.Durable = m.Incarnation, true, r.Flags.Has(Durable)
	mem.Last, mem.Sequence, mem.Acked = m.Number, l.sequence, 0
	// It applies all before its Join before it serves anything.
	mem.Applied = l.sequence
	o.Verdict = Effective
	return mem.Number
}

// die ends the member's incarnation.
func (l *Ledger) die(mem *Member) {
	mem.Live = false
	l.orphaned += mem.Owned
	mem.Owned = 0
}

// apply decides about a record of a live member.
func (l *Ledger) apply(author uint16, r *Record, o *Outcome) {
	if r.Kind.aboutBlock() {
		l.applyBlock(author, r, o)
		return
	}
	mem := l.Member(author)
	effective := true
	switch r.Kind {
	case Leave:
		l.die(mem)
	case Expire:
		other := l.find(r.Member)
		effective = other != nil && other.Live && other.Incarnation == r.Incarnation &&
			(other.Sequence <= r.Sequence || mutant.Is(mutant.ExpireAnyway))
		if effective {
			l.die(other)
		}
	case Barrier:
		if effective = l.barrier == 0; effective {
			l.barrier = o.Place
		}
	case Ack:
		if effective = l.barrier != 0 && r.Epoch == l.epoch; effective {
			mem.Acked = l.epoch + 1
		}
	case Advance:
		if effective = r.Epoch == l.epoch && l.Complete(); effective {
			l.epoch++
			l.barrier = 0
		}
	case Clear:
		l.clear(r.Namespace, o.Place)
	case Forget:
		l.forget(r.Sequence)
	default: // a Join that is no author's first, or a kind from the future
		effective = false
	}
	o.Verdict = Conflict
	if effective {
		o.Verdict = Effective
	}
}

// Complete tells whether the open barrier can be passed.
func (l *Ledger) Complete() bool {
	return l.barrier != 0 && l.orphaned == 0 &&
		!slices.ContainsFunc(l.members, func(m Member) bool { return m.Live && m.Acked != l.epoch+1 })
}

func (l *Ledger) clear(namespace string, at Place) {
	i := slices.IndexFunc(l.cleared, func(c clearance) bool { return c.namespace == namespace })
	if i < 0 {
		l.cleared = append(l.cleared, clearance{namespace: namespace})
		i = len(l.cleared) - 1
	}
	l.cleared[i].place = at
	l.cleared[i].count++
}

// forget removes what is absent and free since before the sequence.
func (l *Ledger) forget(before uint64) {
	var gone []Pointer
	l.table.Range(func(p Pointer) bool {
		p = l.seen(p)
		if p.Value.Object.IsZero() && !p.Owned() && p.Version.Place().Sequence() < before && p.Changed.Sequence() < before {
			gone = append(gone, p)
		}
		return true
	})
	for _, p := range gone {
		l.table.Delete(p.Key)
	}
}

// Sequence is that of the last message applied.
func (l *Ledger) Sequence() uint64 { return l.sequence }

// Digest is the same at every node that has applied the same messages.
func (l *Ledger) Digest() uint64 { return l.digest }

// Epoch counts the barriers that were passed.
func (l *Ledger) Epoch() uint64 { return l.epoch }

// Barrier is the place of the open barrier; 0: none is open.
func (l *Ledger) Barrier() Place { return l.barrier }

// Orphaned is how many blocks dead incarnations own.
func (l *Ledger) Orphaned() int { return l.orphaned }

// Losses counts the losses that were declared.
func (l *Ledger) Losses() uint64 { return l.losses }

// Table is the one that New was given.
func (l *Ledger) Table() Table { return l.table }

// Members are all nodes that ever joined, by number. The slice is the ledger's.
func (l *Ledger) Members() []Member { return l.members }

// Member is the one with the given number, which must have joined.
func (l *Ledger) Member(number uint16) *Member { return &l.members[number-1] }

// Find is the member with the given name; ok is false if it never joined.
func (l *Ledger) Find(id string) (m Member, ok bool) {
	if p := l.find(id); p != nil {
		return *p, true
	}
	return Member{}, false
}

func (l *Ledger) find(id string) *Member {
	for i := range l.members {
		if l.members[i].ID == id {
			return &l.members[i]
		}
	}
	return nil
}

// Settled is the sequence up to which every live member has applied the log, as
// far as the log tells.
func (l *Ledger) Settled() uint64 {
	least := l.sequence
	for i := range l.members {
		if m := &l.members[i]; m.Live {
			least = min(least, m.Applied)
		}
	}
	return least
}

// Generation counts how often a namespace was cleared.
func (l *Ledger) Generation(namespace string) uint64 {
	for _, c := range l.cleared {
		if c.namespace == namespace {
			return c.count
		}
	}
	return 0
}

// Cleared is the place of the namespace's last Clear, 0 if there was none.
func (l *Ledger) Cleared(namespace string) Place {
	for _, c := range l.cleared {
		if c.namespace == namespace {
			return c.place
		}
	}
	return 0
}
