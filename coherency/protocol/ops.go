package protocol

import (
	"slices"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/internal/mutant"
)

// op is something that a client of this node waits for.
type op struct {
	id    Op
	write *Write // of a write; never changed
	read  Read   // of a read
	kind  opKind

	fenced  bool           // a fence has been delivered since the read began
	staged  bool           // the homes have the write's object
	homes   ledger.Homes   // where it was staged
	version ledger.Version // of a write under ownership that waits for its flush
	born    uint64         // the incarnation that had the object staged
	staging bool           // the homes are being given the object
	dead    bool           // cancelled, but still being staged
	settle  uint64         // the sequence that all live members must have applied; 0: none
	done    bool           // result is replied then; else the operation goes on
	result  *Reply
	asked   bool         // a Barrier record for it is on its way
	barrier ledger.Place // the barrier that it waits for; 0: it has none yet
}

type opKind uint8

const (
	writing opKind = iota
	reading
	barring
	clearing
)

func (m *Machine) start(o *op) *op {
	m.ops[o.id] = o
	return o
}

// reply ends an operation.
func (m *Machine) reply(o *op, r Reply) {
	if _, open := m.ops[o.id]; !open {
		return
	}
	delete(m.ops, o.id)
	if o.dead {
		return
	}
	r.Op = o.id
	r.Sequence = m.led.Sequence()
	m.do(r)
}

// cancel forgets an operation.
func (m *Machine) cancel(id Op) {
	o, ok := m.ops[id]
	if !ok {
		return
	}
	delete(m.ops, id)
	if o.staging {
		o.dead = true
		m.ops[id] = o // until the homes have answered
	}
	if o.kind != writing {
		return
	}
	if b := m.blocks[o.write.Key]; b != nil && b.first == id {
		m.firstEnded(b)
	}
}

// settleThen replies once every live member has applied the log up to here, as far
// as the log tells.
func (m *Machine) settleThen(o *op, r Reply) {
	o.settle, o.result, o.done = m.led.Sequence(), &r, true
	m.unsealed = append(m.unsealed, o.id)
	m.owes = true
	m.checkSettled()
}

// awaitSettled looks at a read or a write again once everyone has applied the
// log up to sequence.
func (m *Machine) awaitSettled(o *op, sequence uint64) {
	o.settle = sequence
	m.unsealed = append(m.unsealed, o.id)
}

// checkSettled goes on with what has waited for all live members.
func (m *Machine) checkSettled() {
	if len(m.unsealed) == 0 {
		return
	}
	settled := m.allApplied()
	waiting := m.unsealed
	m.unsealed = nil
	for _, id := range waiting {
		o := m.ops[id]
		switch {
		case o == nil:
		case o.settle > settled:
			m.unsealed = append(m.unsealed, id)
		case o.done:
			m.reply(o, *o.result)
		default:
			o.settle = 0
			m.try(o)
		}
	}
}

// try goes on with an operation that has waited.
func (m *Machine) try(o *op) {
	if o.kind == reading {
		m.tryRead(o)
		return
	}
	m.tryWrite(o)
}

// allApplied is the sequence up to which every live member has applied the log.
func (m *Machine) allApplied() uint64 {
	if mutant.Is(mutant.SettleEarly) {
		return m.led.Sequence()
	}
	return m.led.Settled()
}

// local is what this node knows of a block beyond the log: that it owns it, what
// it has written since the last flush, and who waits for it.
type local struct {
	key       block.Key
	namespace string
	name      []byte
	space     Space
	waiting   []Op          // operations that wait for a change of this block
	nextAsk   time.Duration // when its owner is asked again to give it back
	contended bool          // in Machine.contended
	yield     time.Duration // until when it is left to who has asked for it

	asking  bool           // an Own is on its way
	token   ledger.Version // of the ownership; 0: not the owner
	owner   uint64         // the incarnation that became owner
	since   uint64         // the sequence of the Own, which lease mode lets settle
	from    ledger.Version // where the numbers of its writes begin
	last    ledger.Version // newest number used, if higher than version
	version ledger.Version // newest version here
	value   ledger.Value
	base    ledger.Version // newest version in the log

	recalled   bool          // it is to be given back
	wanted     bool          // another node wants to commit a write
	first      Op            // a write that waits until all know the owner, and is done before that; 0: none
	lastWrite  time.Duration // or since when it is owned
	dirtySince time.Duration
	staging    Op // a replicated write is being staged

	flushing     Op             // a flush is being staged
	undecided    bool           // a flush, or the end of the ownership, is on its way
	flushed      ledger.Version // what is being flushed
	flushValue   ledger.Value
	flushWaiters []Op           // writes that wait for a flush
	must         ledger.Version // a barrier waits for base to get here
}

// block is the local state of a block, made if there is none.
func (m *Machine) block(key block.Key, namespace string, name []byte) *local {
	b := m.blocks[key]
	if b == nil {
		b = &local{key: key, namespace: namespace, name: slices.Clone(name)}
		m.blocks[key] = b
	}
	return b
}

// park lets an operation wait for a change of its block.
func (m *Machine) park(o *op, b *local) { b.waiting = append(b.waiting, o.id) }

// advance goes on with what has waited for a change of this block, and forgets the
// block when nothing is left to know of it.
func (m *Machine) advance(b *local) {
	waiting := b.waiting
	b.waiting = nil
	for _, id := range waiting {
		if o := m.ops[id]; o != nil && !o.dead {
			m.try(o)
		}
	}
	if len(b.waiting) == 0 && b.token == 0 && !b.asking && m.now >= b.yield && m.blocks[b.key] == b {
		delete(m.blocks, b.key)
	}
}

// acting tells whether this node may write and serve the block as its owner (I1).
func (m *Machine) acting(b *local) bool {
	return b != nil && b.token != 0 && b.owner == m.incarnation && m.phase == serving &&
		(m.now < m.leased || mutant.Is(mutant.WriteAfterLapse))
}

// pointer is the block as its owner sees it.
func (m *Machine) pointer(b *local) ledger.Pointer {
	p, ok := m.led.Lookup(b.key)
	if !ok {
		p.Key, p.Namespace, p.Name = b.key, b.namespace, b.name
	}
	p.Version, p.Value = b.version, b.value
	return p
}

// record is a record about a block that a write names.
func (w *Write) record(kind ledger.Kind) ledger.Record {
	return ledger.Record{Kind: kind, Key: w.Key, Namespace: w.Namespace, Name: w.Name, Lease: w.Space.Lease}
}

// settles tells whether a write is acknowledged only when all live members have
// applied it.
func (w *Write) settles() bool { return w.Space.Lease || w.Policy == coherency.WriteAll }
