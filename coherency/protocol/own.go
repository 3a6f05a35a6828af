package protocol

import (
	"slices"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/internal/mutant"
)

// acquire asks the log for the ownership of a block.
func (m *Machine) acquire(b *local, s Space) {
	if b.asking {
		return
	}
	if s.Copies > 0 {
		// As many as there can be: whoever takes the block from a dead owner counts on
		// every write being on that many. They are its homes when it is flushed.
		homes, _ := m.homes(b.key, max(s.Copies, s.Homes))
		s.Copies = max(homes.Count(), 1)
	}
	b.asking, b.space = true, s
	rec := ledger.Record{Kind: ledger.Own, Key: b.key, Namespace: b.namespace, Name: b.name, Lease: s.Lease, Copies: uint8(s.Copies)}
	if s.Lease {
		rec.Flags = ledger.Settle
	}
	m.enqueue(rec, 0)
}

// ownDecided: the place of the record is the fencing token.
func (m *Machine) ownDecided(b *local, incarnation uint64, out *ledger.Outcome) {
	b.asking = false
	if out.Verdict != ledger.Effective {
		return // whoever waits finds the owner
	}
	p := out.After
	*b = local{key: b.key, namespace: b.namespace, name: b.name, space: b.space, waiting: b.waiting,
		contended: b.contended, token: p.Token, owner: incarnation, since: out.Place.Sequence(), from: p.Token,
		version: p.Version, base: p.Version, value: p.Value, lastWrite: m.now}
	m.idle = append(m.idle, due{b.key, b.token, m.now + m.cfg.IdleAfter})
	if m.away {
		b.recalled = true
		m.flush(b)
	}
}

// tryOwn goes on with a write to a block that this node owns.
func (m *Machine) tryOwn(o *op, b *local) {
	switch {
	case !m.acting(b), b.recalled && b.first != o.id, b.staging != 0, b.undecided && !mutant.Is(mutant.WriteWhileFlush):
		m.park(o, b)
	case b.space.Lease && b.since > m.allApplied():
		// Someone may not know yet that there is an owner, and serve the base.
		if b.first == 0 {
			b.first = o.id
		}
		m.awaitSettled(o, b.since)
	case b.first == o.id:
		m.writeOwn(o, b)
		m.firstEnded(b)
	default:
		m.writeOwn(o, b)
	}
}

// firstEnded lets go of a block that was recalled before its owner could write.
func (m *Machine) firstEnded(b *local) {
	b.first = 0
	if b.recalled {
		m.flush(b)
	}
}

func (m *Machine) writeOwn(o *op, b *local) {
	w := o.write
	if o.staged {
		// What was staged for a Commit is protected by this incarnation only, and a
		// Flush may be the next one's, when the homes collect it: another object.
		m.abandon(w.Key, w.Value)
		m.reply(o, Reply{Err: ErrContended})
		return
	}
	if !w.If.Holds(b.version, b.value, w.Expect, w.Now) {
		p := m.pointer(b)
		m.reply(o, Reply{Err: ErrCondition, Before: p, After: p})
		return
	}
	v := max(b.version, b.last, b.from) + 1
	if v-b.from > ledger.MostRecords/2 { // the numbers of this ownership are used up
		b.recalled = true
		m.park(o, b)
		m.flush(b)
		return
	}
	if b.space.Copies == 0 || w.Value.Object.IsZero() || w.Value.Object == b.value.Object {
		m.wrote(o, b, v)
		return
	}
	homes, names := m.homes(b.key, max(w.Space.Copies, w.Space.Homes))
	switch {
	case len(names) == 0:
		m.reply(o, Reply{Err: ErrNoHome})
		return
	case len(names) != b.space.Copies: // a home has come or gone: own it again
		b.recalled = true
		m.park(o, b)
		m.flush(b)
		return
	}
	b.staging, o.version, o.homes, o.staging = o.id, v, homes, true
	value := w.Value
	value.Homes = homes
	m.do(Stage{Op: o.id, Key: b.key, Incarnation: m.incarnation, Token: b.token, Version: v, Value: value, Homes: names})
	if mutant.Is(mutant.AckBeforeStaged) {
		b.staging = 0
		m.wrote(o, b, v)
	}
}

// ownStaged: a replicated write is on all its homes, or not.
func (m *Machine) ownStaged(o *op, b *local, failed bool) {
	b.staging = 0
	switch {
	case b.token == 0 || !m.acting(b):
		// Whoever takes the block may find this write, or not.
		m.reply(o, Reply{Err: ErrUnknown})
	case failed:
		// Some home may have it, so that number is used.
		b.last = max(b.last, o.version)
		m.reply(o, Reply{Err: ErrUnknown})
	case o.version <= b.version:
		// The namespace was cleared meanwhile, which is newer than this write.
		m.reply(o, Reply{Err: ErrContended})
	default:
		m.wrote(o, b, o.version)
	}
	if o.dead {
		delete(m.ops, o.id)
	}
	if b.recalled || b.must > b.base {
		m.flush(b)
	}
	m.advance(b)
}

// wrote makes the write the newest version here, and acknowledges it by its policy.
func (m *Machine) wrote(o *op, b *local, v ledger.Version) {
	w := o.write
	before := m.pointer(b)
	drop := block.Key{}
	if b.value.Object != w.Value.Object {
		drop = m.unflushed(b)
	}
	if b.version <= b.base {
		b.dirtySince = m.now
		m.dirty = append(m.dirty, due{b.key, b.token, m.now + m.cfg.FlushAfter})
	}
	value := w.Value
	value.Homes = o.homes
	if value.Object == b.value.Object {
		value.Homes = b.value.Homes
	}
	b.version, b.value, b.lastWrite = v, value, m.now
	m.do(Local{Key: b.key, Version: v, Value: value, Drop: drop})
	// A deletion, or another end of the same object, is staged nowhere: in a
	// replicated block it is flushed.
	flushed := w.Policy != coherency.WriteBack || b.space.Copies > 0 && o.version != v
	if !flushed {
		m.reply(o, Reply{Before: before, After: m.pointer(b)})
		return
	}
	o.version, o.result = v, &Reply{Before: before, After: m.pointer(b)}
	b.flushWaiters = append(b.flushWaiters, o.id)
	m.flush(b)
}

// unflushed is the object of the newest version here if nothing but this node's
// memory needs it.
func (m *Machine) unflushed(b *local) block.Key {
	switch {
	case b.version <= b.base:
		return block.Key{}
	case (b.flushing != 0 || b.undecided) && b.flushValue.Object == b.value.Object:
		return block.Key{}
	}
	if p, _ := m.led.Lookup(b.key); p.Value.Object == b.value.Object {
		return block.Key{}
	}
	return b.value.Object
}

// flush brings the newest version home, and then into the log; of a block that is
// recalled it ends the ownership by that.
func (m *Machine) flush(b *local) {
	if b.token == 0 || b.flushing != 0 || b.undecided || b.staging != 0 || m.phase != serving {
		return
	}
	b.flushed, b.flushValue = b.version, b.value
	switch {
	case b.version <= b.base && !b.recalled:
		return
	case b.version <= b.base && b.first != 0 && m.acting(b):
		return // else two could take the block from each other for ever
	case b.version <= b.base, b.value.Object.IsZero(), b.value.Homes.Count() > 0:
		m.flushes++
		m.proposeFlush(b)
		return
	}
	homes, names := m.homes(b.key, max(b.space.Homes, 1))
	if len(names) == 0 {
		m.dirty = append(m.dirty, due{b.key, b.token, m.now + m.cfg.Renew})
		return
	}
	m.flushes++
	m.inner++
	b.flushing = internalOp | m.inner
	b.flushValue.Homes = homes
	m.flushOps[b.flushing] = b.key
	m.do(Stage{Op: b.flushing, Key: b.key, Incarnation: m.incarnation, Token: b.token, Version: b.flushed, Value: b.flushValue, Homes: names})
}

func (m *Machine) flushStaged(e Staged) {
	key, ok := m.flushOps[e.Op]
	delete(m.flushOps, e.Op)
	b := m.blocks[key]
	if !ok || b == nil || b.flushing != e.Op {
		return
	}
	b.flushing = 0
	if b.undecided { // its bytes are gone
		return
	}
	if e.Failed || b.token == 0 {
		m.flushEnded(b)
		m.dirty = append(m.dirty, due{key, b.token, m.now + m.cfg.Renew})
		return
	}
	if b.owner != m.incarnation && b.version > b.flushed {
		// The first flush of the next incarnation ends the ownership, so it has to be
		// that of the newest version.
		m.flushEnded(b)
		m.flush(b)
		return
	}
	m.proposeFlush(b)
}

// proposeFlush: until the record is decided the owner neither writes nor serves.
func (m *Machine) proposeFlush(b *local) {
	b.undecided = true
	rec := ledger.Record{Kind: ledger.Flush, Key: b.key, Token: b.token, Version: b.flushed, Value: b.flushValue, Lease: b.space.Lease}
	if b.flushed <= b.base {
		rec.Flags |= ledger.Unchanged
	}
	if !b.recalled || b.version > b.flushed {
		rec.Flags |= ledger.Keep
	}
	if b.space.Lease || slices.ContainsFunc(b.flushWaiters, func(id Op) bool { return m.ops[id] != nil && m.ops[id].write.settles() }) {
		rec.Flags |= ledger.Settle
	}
	m.enqueue(rec, 0)
}

// flushEnded frees the way for the next flush.
func (m *Machine) flushEnded(b *local) {
	b.undecided, b.flushing = false, 0
	m.flushes--
}

func (m *Machine) flushDecided(b *local, r *ledger.Record, out *ledger.Outcome) {
	m.flushEnded(b)
	if out.Verdict != ledger.Effective {
		m.dispossess(b)
		return
	}
	b.base = max(b.base, r.Version)
	if b.value.Object == r.Value.Object {
		b.value.Homes = r.Value.Homes
	}
	if !r.Value.Object.IsZero() {
		m.do(Flushed{Key: b.key, Object: r.Value.Object})
	}
	m.met(b)
	waiting := b.flushWaiters
	b.flushWaiters = nil
	for _, id := range waiting {
		o := m.ops[id]
		switch {
		case o == nil:
		case o.version > b.base:
			b.flushWaiters = append(b.flushWaiters, id)
		case o.write.settles():
			m.settleThen(o, *o.result)
		default:
			m.reply(o, *o.result)
		}
	}
	if out.After.Token != b.token {
		wanted := b.wanted
		m.freed(b)
		if wanted {
			b.yield = m.now + m.cfg.Yield
			m.contend(b)
		}
		m.do(LocalGone{Key: b.key})
		return
	}
	if b.version > b.base {
		b.dirtySince = m.now
		m.dirty = append(m.dirty, due{b.key, b.token, m.now + m.cfg.FlushAfter})
	}
	if b.recalled || len(b.flushWaiters) > 0 || b.must > b.base {
		m.flush(b)
	}
}

// freed forgets an ownership.
func (m *Machine) freed(b *local) {
	b.token = 0
	m.met(b)
	*b = local{key: b.key, namespace: b.namespace, name: b.name, space: b.space, waiting: b.waiting, asking: b.asking, contended: b.contended}
}

// dispossess ends an ownership that was taken away: what was not flushed is lost, or
// was found at its homes by whoever took it.
func (m *Machine) dispossess(b *local) {
	if b.flushing != 0 || b.undecided {
		m.flushEnded(b)
	}
	drop := m.unflushed(b)
	waiting := b.flushWaiters
	m.freed(b)
	m.do(LocalGone{Key: b.key, Drop: drop})
	for _, id := range waiting {
		if o := m.ops[id]; o != nil {
			m.reply(o, Reply{Err: ErrUnknown}) // lost, or found at the homes
		}
	}
}

// gone gives up a block whose unflushed bytes are lost.
func (m *Machine) gone(e Gone) {
	b := m.blocks[e.Key]
	if b == nil || b.token == 0 || b.version <= b.base || b.value.Object != e.Object || b.value.Homes.Count() > 0 {
		return
	}
	switch {
	case b.undecided && b.flushValue.Object == e.Object:
		// A flush of them is on its way, so they are at its homes, which keep them as
		// long as the token counts: if it must be offered again, from there.
		b.value.Homes = b.flushValue.Homes
		return
	case b.undecided && b.flushValue.Object.IsZero():
		return // given up already
	}
	b.recalled, b.flushValue = true, ledger.Value{}
	if b.flushing == 0 && !b.undecided {
		m.flushes++
	}
	b.undecided = true
	m.enqueue(revoke(m.pointer(b), ledger.Unchanged|ledger.Lost), 0)
}
