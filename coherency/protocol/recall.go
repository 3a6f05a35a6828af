package protocol

import (
	"slices"

	"cairn/coherency"
	"cairn/coherency/ledger"
)

// dislodge asks the owner to give a block back, or takes it from one that is dead.
func (m *Machine) dislodge(b *local, p ledger.Pointer) {
	m.contend(b)
	if m.now < b.nextAsk {
		return // tend comes back to it
	}
	b.nextAsk = m.now + m.cfg.RecallEvery
	owner := m.led.Member(p.Owner)
	m.grow()
	offers := owner.Live && p.Owner != m.number && m.now-m.members[p.Owner-1].died < m.cfg.RevokeAfter
	switch {
	case m.led.Acting(p) || offers:
		rec := ledger.Record{Kind: ledger.Recall, Key: b.key, Token: p.Token}
		if !slices.ContainsFunc(b.waiting, m.commits) {
			rec.Flags = ledger.Unchanged
		}
		m.enqueue(rec, 0)
	case p.Copies > 0:
		m.do(Inquire{Key: b.key, Token: p.Token})
	default:
		m.enqueue(revoke(p, ledger.Unchanged|ledger.Lost), 0)
	}
}

// commits tells whether an operation waits to commit a write: its object has to be staged
// first, so it is slower than who only wants to own the block.
func (m *Machine) commits(id Op) bool {
	o := m.ops[id]
	return o != nil && o.kind == writing && o.write.Policy != coherency.WriteBack
}

// contend lets tend come back to a block.
func (m *Machine) contend(b *local) {
	if !b.contended {
		b.contended = true
		m.contended = append(m.contended, b.key)
	}
}

// revoke is the record that ends the present ownership of a block.
func revoke(p ledger.Pointer, f ledger.Flags) ledger.Record {
	if p.Lease {
		f |= ledger.Settle
	}
	return ledger.Record{Kind: ledger.Revoke, Flags: f, Key: p.Key, Token: p.Token, Lease: p.Lease}
}

// found takes a block from a dead owner, with the newest write that its homes have.
func (m *Machine) found(e Found) {
	p, _ := m.led.Lookup(e.Key)
	if p.Token != e.Token || p.Token == 0 || m.led.Acting(p) {
		return
	}
	rec := revoke(p, 0)
	rec.Version, rec.Value = e.Version, e.Value
	if !e.Any || e.Version <= p.Version {
		rec.Flags |= ledger.Unchanged
	}
	if !e.Complete {
		rec.Flags |= ledger.Lost
	}
	m.enqueue(rec, 0)
}

// tend flushes what has been dirty for long enough, gives back what is not used, and
// asks again for what others own.
func (m *Machine) tend() {
	for len(m.dirty) > 0 && m.dirty[0].at <= m.now && m.flushes < m.cfg.Flushes {
		b := m.blocks[m.dirty[0].key]
		m.dirty = m.dirty[1:]
		if b != nil && b.token != 0 && (b.version > b.base || b.recalled) {
			m.flush(b)
		}
	}
	for n := len(m.idle); n > 0 && m.idle[0].at <= m.now; n-- {
		b, token := m.blocks[m.idle[0].key], m.idle[0].token
		m.idle = m.idle[1:]
		if b == nil || b.token != token {
			continue
		}
		if m.now-b.lastWrite >= m.cfg.IdleAfter && b.version <= b.base && !b.recalled {
			b.recalled = true
			m.flush(b)
		}
		m.idle = append(m.idle, due{b.key, token, max(b.lastWrite+m.cfg.IdleAfter, m.now+m.cfg.Renew)})
	}
	asked := m.contended
	m.contended = nil
	for _, key := range asked {
		b := m.blocks[key]
		if b == nil {
			continue
		}
		b.contended = false
		p, _ := m.led.Lookup(key)
		switch {
		case m.now < b.yield:
			m.contend(b)
		case len(b.waiting) == 0, !p.Owned(), p.Owner == m.number && b.token == p.Token:
			m.advance(b)
		case m.now < b.nextAsk:
			m.contend(b)
		default:
			m.dislodge(b, p)
		}
	}
}
