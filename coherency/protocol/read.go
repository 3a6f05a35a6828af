package protocol

import (
	"slices"

	"cairn/coherency/ledger"
	"cairn/internal/mutant"
)

func (m *Machine) read(r Read) {
	o := m.start(&op{id: r.Op, kind: reading, read: r})
	switch {
	case m.phase == stopped || m.phase == left:
		m.reply(o, Reply{Err: ErrUnavailable})
	case r.Level == AsOwner: // who asks does not want to wait for a Join
		m.tryRead(o)
	case m.phase == starting:
		m.early = append(m.early, o.id)
	default:
		m.tryRead(o)
	}
}

// tryRead goes on with a read as far as it gets without waiting.
func (m *Machine) tryRead(o *op) {
	r := &o.read
	if r.Level == AsOwner && r.Token.Place().Sequence() > r.Session {
		r.Session = r.Token.Place().Sequence() // who asks may have read further in the log
	}
	if (r.Level == Session || r.Level == AsOwner) && m.led.Sequence() < r.Session {
		m.sessions = append(m.sessions, o.id)
		return
	}
	if r.Level == Bounded && m.Age(m.now) > r.Bound {
		r.Level = Strict
	}
	b := m.blocks[r.Key]
	if b != nil && b.token != 0 {
		m.readOwn(o, b)
		return
	}
	if r.Level == AsOwner {
		m.reply(o, Reply{Err: ErrNotOwner})
		return
	}
	p := m.led.Pointer(&ledger.Record{Key: r.Key, Namespace: r.Namespace})
	switch {
	case p.Owned() && m.led.Acting(p) && p.Owner != m.number && p.Token != r.Refused:
		// The owner answers only while it is the owner, so this needs no fence.
		delete(m.ops, o.id)
		m.do(Forward{Op: o.id, Key: r.Key, Node: m.led.Member(p.Owner).ID, Token: p.Token})
	case p.Owned():
		b := m.block(r.Key, p.Namespace, p.Name)
		m.park(o, b)
		m.dislodge(b, p)
	case r.Level != Strict:
		m.serve(o, p)
	case r.Space.Lease && (o.fenced || m.Serving(m.now) && !m.away):
		// What some member has not applied, it may be serving the version before of.
		// For who leaves nobody waits once his Leave is in the log.
		if at := p.Changed.Sequence(); at > m.allApplied() && !mutant.Is(mutant.ServeUnsettled) {
			m.awaitSettled(o, at)
			return
		}
		m.serve(o, p)
	case o.fenced || mutant.Is(mutant.SkipFence):
		m.serve(o, p)
	case !slices.Contains(m.readers, o.id):
		m.readers = append(m.readers, o.id)
	}
}

// readOwn reads a block that this node owns.
func (m *Machine) readOwn(o *op, b *local) {
	switch {
	case o.read.Level == AsOwner && (b.token != o.read.Token || !m.acting(b)):
		m.reply(o, Reply{Err: ErrNotOwner})
	case !m.acting(b), b.undecided && !mutant.Is(mutant.WriteWhileFlush):
		m.park(o, b)
	case b.space.Lease && b.since > m.allApplied():
		m.awaitSettled(o, b.since)
	default:
		m.serve(o, m.pointer(b))
	}
}

func (m *Machine) serve(o *op, p ledger.Pointer) {
	delete(m.ops, o.id)
	m.do(Serve{Op: o.id, Pointer: p, Sequence: m.led.Sequence(), Age: m.Age(m.now)})
}

// fenced goes on with the reads that a message of this node has carried: the log
// is applied up to a place that is later than their beginnings.
func (m *Machine) fenced(readers []Op) {
	for _, id := range readers {
		if o := m.ops[id]; o != nil {
			o.fenced = true
			m.tryRead(o)
		}
	}
}

// checkSessions goes on with reads that have waited for a sequence.
func (m *Machine) checkSessions() {
	waiting := m.sessions
	m.sessions = nil
	for _, id := range waiting {
		if o := m.ops[id]; o != nil {
			m.tryRead(o)
		}
	}
}
