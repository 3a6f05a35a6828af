package protocol

import (
	"time"

	"cairn/coherency/ledger"
	"cairn/internal/mutant"
)

// entry is a record that waits for a message, or is in one, and who wants to know
// what becomes of it.
type entry struct {
	rec ledger.Record
	op  Op // 0: nobody
}

// flight is a message that was published and has not been seen in the log. Its
// position in the log is also a fence for the reads that it carries.
type flight struct {
	incarnation, number uint64
	sent                time.Duration
	entries             []entry
	readers             []Op
}

// enqueue gives a record its way into the next message.
func (m *Machine) enqueue(rec ledger.Record, op Op) {
	if m.out == nil {
		m.out = make([]entry, 0, max(m.usual, 1)) // the next message is like the last
	}
	m.out = append(m.out, entry{rec, op})
}

// publish sends what waits, as far as messages may be on their way. One message
// carries all that has come together meanwhile.
func (m *Machine) publish() {
	if m.phase != serving {
		return // what waits goes out after the Join
	}
	for len(m.flights) < m.cfg.Flights && m.worthwhile() {
		n := min(len(m.out), m.cfg.Records)
		if n > 0 {
			m.usual = n
		}
		m.send(m.out[:n:n])
		m.out = m.out[n:]
		if len(m.out) == 0 {
			m.out = nil
		}
	}
}

const (
	// gatherFrom is how much a message on its way must carry so that little waits for it.
	gatherFrom = 8
	// gatherFor is how long a message may be on its way for others to wait for it.
	gatherFor = 10 * time.Millisecond
)

// worthwhile tells whether what waits is worth a message now. While large ones are on
// their way it is not, unless it is twice as much: their return makes many clients go
// on, and what those bring can share its message. Otherwise the clients fall into
// groups, one waiting while the other is on its way, and two messages do the work
// of one. Each costs the log about as much as a hundred records.
func (m *Machine) worthwhile() bool {
	waiting := len(m.out) + len(m.readers)
	switch {
	case m.owes:
		return true
	case waiting == 0:
		return false
	case len(m.flights) == 0, waiting >= m.cfg.Records, m.now-m.flights[0].sent > gatherFor:
		return true
	}
	largest := 0
	for i := range m.flights {
		largest = max(largest, len(m.flights[i].entries)+len(m.flights[i].readers))
	}
	return largest < gatherFrom || waiting >= 2*largest
}

func (m *Machine) send(entries []entry) {
	m.sent++
	msg := &ledger.Message{
		Node: m.cfg.Node, Incarnation: m.incarnation, Number: m.sent,
		Applied: m.led.Sequence(), Digest: m.led.Digest(),
		Records: make([]ledger.Record, len(entries)),
	}
	for i, e := range entries {
		msg.Records[i] = e.rec
	}
	m.flights = append(m.flights, flight{m.incarnation, m.sent, m.now, entries, m.readers})
	m.readers = nil
	m.lastSent, m.owes = m.now, false
	m.do(Publish{msg})
	if mutant.Is(mutant.AckOnPublish) {
		for _, e := range entries {
			if o := m.ops[e.op]; o != nil && e.rec.Kind == ledger.Commit {
				m.reply(o, Reply{After: ledger.Pointer{Version: 1}})
			}
		}
	}
}

// mine finds the flight of a delivered message of this node, and removes it
// together with those before it, whose messages cannot count any more.
func (m *Machine) mine(msg *ledger.Message) (own flight, ok bool, overtaken []flight) {
	if msg.Node != m.cfg.Node {
		return flight{}, false, nil
	}
	kept := m.flights[:0:0]
	for _, f := range m.flights {
		switch {
		case f.incarnation == msg.Incarnation && f.number == msg.Number:
			own, ok = f, true
		case f.incarnation == msg.Incarnation && f.number < msg.Number:
			overtaken = append(overtaken, f)
		default:
			kept = append(kept, f)
		}
	}
	m.flights = kept
	return own, ok, overtaken
}

// overtaken gives what was in messages that cannot count any more another way.
func (m *Machine) overtake(flights []flight) {
	for _, f := range flights {
		m.readers = append(m.readers, f.readers...)
		for _, e := range f.entries {
			m.void(e, f.incarnation != m.incarnation)
		}
	}
}

// void handles a record that was not considered. reborn: the node's incarnation has
// ended since, and with it the protection of what it had staged.
func (m *Machine) void(e entry, reborn bool) {
	o := m.ops[e.op]
	switch e.rec.Kind {
	case ledger.Commit:
		if o == nil {
			return
		}
		if reborn {
			m.reply(o, Reply{Err: ErrContended})
			return
		}
		m.enqueue(e.rec, e.op)
	case ledger.Own:
		if b := m.blocks[e.rec.Key]; b != nil {
			b.asking = false
			m.advance(b)
		}
	case ledger.Flush:
		if b := m.blocks[e.rec.Key]; b != nil && b.token == e.rec.Token {
			if reborn {
				m.flushEnded(b) // the Join that follows offers it anew
				return
			}
			m.enqueue(e.rec, e.op)
		}
	case ledger.Revoke:
		if b := m.blocks[e.rec.Key]; b != nil && b.token == e.rec.Token && b.undecided {
			m.enqueue(e.rec, e.op) // also by the next incarnation: the bytes stay gone
		}
	case ledger.Clear, ledger.Ack, ledger.Leave, ledger.Rehome:
		m.enqueue(e.rec, e.op)
	case ledger.Barrier:
		m.barrierRefused()
	}
	// The others are repeated by who needs them.
}
