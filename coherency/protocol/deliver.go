package protocol

import (
	"fmt"
	"slices"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/internal/mutant"
)

// deliver applies the next message of the log.
func (m *Machine) deliver(e Delivered) {
	own, isOwn, overtaken := m.mine(e.Message)
	var touched []block.Key
	joined := false
	i := 0
	a := m.led.Apply(e.Sequence, e.Message, e.Sum, func(r *ledger.Record, out *ledger.Outcome) {
		m.decided(e.Message, r, out)
		if b, ok := m.blocks[r.Key]; ok && !r.Key.IsZero() {
			touched = append(touched, r.Key)
			if r.Kind == ledger.Commit || r.Kind == ledger.Own {
				b.yield = 0 // whoever it was left to has it, or has tried
			}
		}
		if isOwn {
			m.ownRecord(own, own.entries[i], r, out)
			joined = joined || r.Kind == ledger.Join && out.Verdict == ledger.Effective
		}
		i++
	})
	if a.Diverged {
		if m.phase == serving {
			m.send(nil) // by this digest the other one sees it as well, and stops
		}
		m.stop(fmt.Errorf("%s has read another log than this node up to sequence %d", e.Message.Node, e.Message.Applied))
		return
	}
	if !a.Stale {
		m.heard(e.Message.Node)
	}
	m.goOn()
	m.overtake(overtaken)
	if isOwn {
		m.confirm(own, joined)
	}
	for _, key := range touched {
		if b := m.blocks[key]; b != nil {
			m.advance(b)
		}
	}
	m.checkSessions()
	m.checkSettled()
	m.tryAck()
	m.tryAdvance()
	m.tryLeave()
}

// goOn goes on with the blocks that records of the message have woken, now that all of them
// are applied: a write that an owner made between two of them could get as its version the
// place of a later one.
func (m *Machine) goOn() {
	for _, key := range m.woken {
		if b := m.blocks[key]; b != nil {
			m.advance(b)
		}
	}
	m.woken = m.woken[:0]
}

// confirm makes use of an own message that came back: the lease runs from when it
// was sent, because from then on the others may have counted.
func (m *Machine) confirm(own flight, joined bool) {
	m.confirmed = max(m.confirmed, own.sent)
	mem, _ := m.led.Find(m.cfg.Node)
	live := mem.Live && mem.Incarnation == own.incarnation && own.incarnation == m.incarnation
	switch {
	case joined && live && m.phase == joining:
		m.joined(own)
	case live && mutant.Is(mutant.LeaseFromReceipt):
		m.leased = m.now + m.cfg.Lease
	case live:
		m.leased = max(m.leased, own.sent+m.cfg.Lease)
	case own.incarnation == m.incarnation && m.phase == serving:
		m.leased = m.now // expired, though the clocks say otherwise: do not argue
		m.lapse()
	}
	m.fenced(own.readers)
}

// decided takes note of a record of any node.
func (m *Machine) decided(msg *ledger.Message, r *ledger.Record, out *ledger.Outcome) {
	if out.Verdict != ledger.Effective {
		if out.Verdict == ledger.Conflict || mutant.Is(mutant.CollectEarly) {
			m.refused(msg.Node, r)
		}
		return
	}
	if r.Flags.Has(ledger.Settle) {
		m.owes = true // everyone tells that he has applied it
	}
	switch r.Kind {
	case ledger.Commit, ledger.Own, ledger.Flush, ledger.Revoke, ledger.Rehome:
		m.moved(r, out)
	case ledger.Recall:
		if b := m.blocks[r.Key]; b != nil && b.token == r.Token {
			b.recalled, b.wanted = true, b.wanted || !r.Flags.Has(ledger.Unchanged) && msg.Node != m.cfg.Node
			m.flush(b)
		}
	case ledger.Join:
		m.grow()
		if mem, ok := m.led.Find(msg.Node); ok {
			m.members[mem.Number-1] = watched{heard: m.now, died: m.now}
		}
		m.bereaved()
	case ledger.Expire:
		m.ended(r.Member)
		m.bereaved()
	case ledger.Leave:
		m.ended(msg.Node)
		m.bereaved()
		if msg.Node == m.cfg.Node && msg.Incarnation == m.incarnation {
			m.phase = left
			m.fail()
			m.do(Left{})
		}
	case ledger.Barrier:
		m.barrierOpened()
	case ledger.Advance:
		m.passed()
	case ledger.Clear:
		m.cleared(r.Namespace, out.Place)
	}
}

// moved takes note of a new version, owner or home of a block.
func (m *Machine) moved(r *ledger.Record, out *ledger.Outcome) {
	m.moves = append(m.moves, Moved{Before: out.Before, After: out.After, Kind: r.Kind})
	m.do(&m.moves[len(m.moves)-1])
	m.settleStaged(r, out)
	if m.lacksHome(r, &out.After) {
		m.seekHomes()
	}
	b := m.blocks[r.Key]
	if r.Kind == ledger.Rehome && b != nil && b.token != 0 && b.value.Object == out.After.Value.Object {
		b.value.Homes = out.After.Value.Homes
	}
	if r.Kind != ledger.Revoke {
		return
	}
	if r.Flags.Has(ledger.Lost) {
		m.do(Declared{Pointer: out.After})
	}
	if b != nil && b.token == r.Token {
		m.dispossess(b)
	}
}

// ownRecord ends what this node has asked of the log.
func (m *Machine) ownRecord(own flight, e entry, r *ledger.Record, out *ledger.Outcome) {
	if out.Verdict == ledger.Void && r.Kind != ledger.Join {
		mem, _ := m.led.Find(m.cfg.Node)
		m.void(e, own.incarnation != m.incarnation || !mem.Live || mem.Incarnation != own.incarnation)
		return
	}
	o := m.ops[e.op]
	b := m.blocks[r.Key]
	switch r.Kind {
	case ledger.Commit:
		if o != nil {
			m.commitDecided(o, out)
		}
	case ledger.Own:
		if b != nil && b.asking {
			m.ownDecided(b, own.incarnation, out)
		}
	case ledger.Flush:
		if b != nil && b.token == r.Token && b.undecided {
			m.flushDecided(b, r, out)
		}
	case ledger.Rehome:
		if out.Verdict != ledger.Effective {
			m.seekHomes() // a newer version may have the same object, or too few homes as well
		}
	case ledger.Clear:
		if o != nil {
			m.settleThen(o, Reply{})
		}
	case ledger.Barrier:
		m.barrierDecided(out)
	}
}

// startBarrier: everything acknowledged before is home, or declared lost, when it ends.
func (m *Machine) startBarrier(id Op) {
	o := m.start(&op{id: id, kind: barring})
	if m.phase == stopped || m.phase == left {
		m.reply(o, Reply{Err: ErrUnavailable})
		return
	}
	m.barriers = append(m.barriers, id)
	m.tryBarrier()
}

// tryBarrier opens a barrier for the operations that wait for one. One that is open
// already may have begun before them.
func (m *Machine) tryBarrier() {
	if m.led.Barrier() != 0 || m.phase != serving {
		return
	}
	waiting := false
	for _, id := range m.barriers {
		o := m.ops[id]
		if o != nil && o.asked {
			return
		}
		waiting = waiting || o != nil && o.barrier == 0
	}
	if !waiting {
		return
	}
	for _, id := range m.barriers {
		if o := m.ops[id]; o != nil && o.barrier == 0 {
			o.asked = true
		}
	}
	m.enqueue(ledger.Record{Kind: ledger.Barrier}, 0)
}

func (m *Machine) barrierDecided(out *ledger.Outcome) {
	if out.Verdict != ledger.Effective {
		m.barrierRefused()
		return
	}
	for _, id := range m.barriers {
		if o := m.ops[id]; o != nil && o.asked {
			o.asked, o.barrier = false, out.Place
		}
	}
}

func (m *Machine) barrierRefused() {
	for _, id := range m.barriers {
		if o := m.ops[id]; o != nil {
			o.asked = false
		}
	}
	m.tryBarrier()
}

// barrierOpened begins this node's part: all that it has acknowledged goes home.
func (m *Machine) barrierOpened() {
	m.acking = true
	for _, b := range m.sorted(func(b *local) bool { return b.token != 0 && b.version > b.base }) {
		if b.must == 0 {
			m.musts++
		}
		b.must = b.version
		m.flush(b)
	}
	m.tryAck()
	m.tryBarrier()
}

// met counts a block that has got as far as the barrier asks, or has nothing left
// to flush.
func (m *Machine) met(b *local) {
	if b.must != 0 && (b.must <= b.base || b.token == 0) {
		b.must = 0
		m.musts--
	}
}

func (m *Machine) tryAck() {
	if !m.acking || m.phase != serving || m.led.Barrier() == 0 {
		return
	}
	if m.musts > 0 && !mutant.Is(mutant.AckBarrierEarly) {
		return
	}
	m.acking = false
	m.enqueue(ledger.Record{Kind: ledger.Ack, Epoch: m.led.Epoch()}, 0)
}

func (m *Machine) tryAdvance() {
	if m.phase != serving || !m.led.Complete() || !m.first() && !m.wantsBarrier() {
		return
	}
	if m.due("advance", m.cfg.Renew) {
		m.enqueue(ledger.Record{Kind: ledger.Advance, Epoch: m.led.Epoch()}, 0)
	}
}

func (m *Machine) wantsBarrier() bool {
	return slices.ContainsFunc(m.barriers, func(id Op) bool { return m.ops[id] != nil })
}

func (m *Machine) passed() {
	m.acking = false
	m.asked = slices.DeleteFunc(m.asked, func(t attempt) bool { return t.what == "advance" })
	for _, b := range m.sorted(func(b *local) bool { return b.must != 0 }) {
		b.must = 0
	}
	m.musts = 0
	m.do(Passed{Epoch: m.led.Epoch()})
	waiting := m.barriers
	m.barriers = nil
	for _, id := range waiting {
		o := m.ops[id]
		switch {
		case o == nil:
		case o.barrier != 0:
			m.reply(o, Reply{})
		default:
			m.barriers = append(m.barriers, id)
		}
	}
	m.tryBarrier()
}
