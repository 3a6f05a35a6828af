package protocol

import (
	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

func (m *Machine) write(w *Write) {
	o := m.start(&op{id: w.Op, kind: writing, write: w})
	switch m.phase {
	case stopped, left:
		m.reply(o, Reply{Err: ErrUnavailable})
	case starting:
		m.early = append(m.early, o.id)
	default:
		m.tryWrite(o)
	}
}

// tryWrite goes on with a write as far as it gets without waiting.
func (m *Machine) tryWrite(o *op) {
	w := o.write
	if b := m.blocks[w.Key]; b != nil && b.token != 0 {
		m.tryOwn(o, b)
		return
	}
	p, _ := m.led.Lookup(w.Key)
	switch {
	case p.Owned():
		b := m.block(w.Key, w.Namespace, w.Name)
		m.park(o, b)
		m.dislodge(b, p)
	case w.Policy == coherency.WriteBack && !m.away:
		b := m.block(w.Key, w.Namespace, w.Name)
		m.park(o, b)
		if m.now < b.yield {
			m.contend(b)
			return
		}
		m.acquire(b, w.Space)
	default:
		m.commit(o, p)
	}
}

// commit stages the object at its homes, then proposes the new version.
func (m *Machine) commit(o *op, p ledger.Pointer) {
	w := o.write
	rec := w.record(ledger.Commit)
	rec.If, rec.Expect, rec.Now, rec.Value = w.If, w.Expect, w.Now, w.Value
	if w.settles() {
		rec.Flags |= ledger.Settle
	}
	switch {
	case o.staged && o.born != m.incarnation: // its protection has ended
		m.abandon(w.Key, w.Value)
		m.reply(o, Reply{Err: ErrContended})
		return
	case o.staged:
		rec.Value.Homes = o.homes
	case w.If == ledger.Exactly && w.Expect < p.Version: // versions only grow
		m.refuse(o, p)
		return
	case w.Value.Object.IsZero():
		rec.Value.Homes = ledger.Homes{}
	case w.Value.Object == p.Value.Object:
		rec.Value.Homes = p.Value.Homes
	default:
		homes, names := m.homes(w.Key, max(w.Space.Homes, 1))
		if len(names) == 0 {
			m.reply(o, Reply{Err: ErrNoHome})
			return
		}
		o.homes, o.born, o.staging = homes, m.incarnation, true
		value := w.Value
		value.Homes = homes
		m.do(Stage{Op: o.id, Key: w.Key, Incarnation: m.incarnation, Value: value, Homes: names})
		return
	}
	m.enqueue(rec, o.id)
}

// stagingEnded goes on with what has waited for homes.
func (m *Machine) stagingEnded(e Staged) {
	if e.Op&internalOp != 0 {
		m.flushStaged(e)
		return
	}
	o := m.ops[e.Op]
	if o == nil {
		return
	}
	o.staging = false
	b := m.blocks[o.write.Key]
	switch {
	case b != nil && b.staging == o.id:
		m.ownStaged(o, b, e.Failed)
	case o.version != 0: // the ownership under which it was staged has ended
		m.reply(o, Reply{Err: ErrUnknown})
	case o.dead, e.Failed:
		m.abandon(o.write.Key, o.write.Value)
		if o.dead {
			delete(m.ops, o.id)
			return
		}
		m.reply(o, Reply{Err: ErrStage})
	default:
		o.staged = true
		m.tryWrite(o)
	}
}

// abandon lets the homes know that no record will name a staged object: by
// a record that names it and cannot become effective.
func (m *Machine) abandon(key block.Key, v ledger.Value) {
	if v.Object.IsZero() {
		return
	}
	m.enqueue(ledger.Record{Kind: ledger.Commit, Key: key, If: ledger.Exactly, Expect: ^ledger.Version(0), Value: v}, 0)
}

// commitDecided ends a write by the verdict about its record.
func (m *Machine) commitDecided(o *op, out *ledger.Outcome) {
	r := Reply{Before: out.Before, After: out.After}
	switch {
	case out.Verdict == ledger.Effective && o.write.settles():
		m.settleThen(o, r)
	case out.Verdict == ledger.Effective:
		m.reply(o, r)
	case out.Before.Owned():
		m.reply(o, Reply{Err: ErrContended})
	default:
		m.refuse(o, out.Before)
	}
}

// refuse replies that the condition does not hold. That tells what the block is, so
// in lease mode it has to be settled, as what a read tells.
func (m *Machine) refuse(o *op, p ledger.Pointer) {
	r := Reply{Err: ErrCondition, Before: p, After: p}
	if at := p.Changed.Sequence(); o.write.Space.Lease && at > m.allApplied() {
		o.settle, o.result, o.done = at, &r, true
		m.unsealed = append(m.unsealed, o.id)
		return
	}
	m.reply(o, r)
}

// clear makes every name of a namespace absent.
func (m *Machine) clear(c Clear) {
	o := m.start(&op{id: c.Op, kind: clearing})
	if m.phase == stopped || m.phase == left {
		m.reply(o, Reply{Err: ErrUnavailable})
		return
	}
	m.enqueue(ledger.Record{Kind: ledger.Clear, Flags: ledger.Settle, Namespace: c.Namespace}, o.id)
}

// cleared drops what this node has written to a namespace before it was cleared; it
// stays the owner.
func (m *Machine) cleared(namespace string, at ledger.Place) {
	m.do(Cleared{Namespace: namespace, Place: at})
	old := func(b *local) bool {
		return b.namespace == namespace && b.token != 0 && b.version < ledger.Version(at)
	}
	for _, b := range m.sorted(old) {
		drop := m.unflushed(b)
		b.version, b.base, b.from, b.value = ledger.Version(at), ledger.Version(at), ledger.Version(at), ledger.Value{}
		m.met(b)
		m.do(Local{Key: b.key, Version: b.version, Drop: drop})
		m.woken = append(m.woken, b.key)
	}
}
