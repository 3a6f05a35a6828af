package sim

import (
	"bytes"
	"time"

	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// simLog is the coherence log: a total order of messages, each stored once or, when
// it comes again after the window in which the log knows it, several times.
type simLog struct {
	w        *World
	entries  []entry
	sequence uint64
	seen     map[messageID]time.Duration
	down     int // faults that keep everyone from it
	head     *ledger.Ledger
	barrier  int64              // the order at which the open barrier began
	left     map[messageID]bool // incarnations that have left of themselves
	snapshot []byte
	trimmed  uint64 // the log holds nothing up to here
}

type messageID struct {
	node                string
	incarnation, number uint64
}

// entry is one message of the log, and what every node must make of it.
type entry struct {
	sequence uint64
	message  *ledger.Message // nil: it cannot be read
	sum      uint64
	digest   uint64
	losses   int // declared
	passed   int // barriers
	after    []ledger.Pointer
}

func idOfMessage(m *ledger.Message) messageID { return messageID{m.Node, m.Incarnation, m.Number} }

// receive takes one attempt to publish.
func (l *simLog) receive(m *ledger.Message, sum uint64) {
	id := idOfMessage(m)
	if at, ok := l.seen[id]; ok && l.w.now-at < l.w.plan.Dedup {
		return
	}
	l.seen[id] = l.w.now
	l.append(m, sum)
}

// append puts a message, or garbage, at the end of the log; the invariants of the log
// itself are checked here.
func (l *simLog) append(m *ledger.Message, sum uint64) {
	w := l.w
	l.sequence++
	if w.chance(w.plan.Gaps) {
		l.sequence += uint64(1 + w.net.IntN(3))
	}
	e := entry{sequence: l.sequence, message: m, sum: sum}
	w.applyHead(&e)
	l.entries = append(l.entries, e)
	for _, n := range w.nodes {
		if n.p != nil {
			n.p.pump()
		}
	}
}

// find is the index of the first entry after a sequence.
func (l *simLog) find(after uint64) int {
	lo, hi := 0, len(l.entries)
	for lo < hi {
		mid := (lo + hi) / 2
		if l.entries[mid].sequence <= after {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// publishing is a message that a node has not seen in the log.
type publishing struct {
	message *ledger.Message
	sum     uint64
	done    bool
}

// publish sends a message until it, or a later one, is delivered.
func (p *proc) publish(m *ledger.Message) {
	w := p.n.w
	pub := &publishing{}
	pub.message, pub.sum = w.encode(m)
	p.pubs = append(p.pubs, pub)
	if w.tracing {
		w.tracef("%s publishes %s", p.n.id, describe(m))
	}
	p.attempt(pub)
}

func mix(x uint64) uint64 {
	x ^= x >> 31
	x *= 0x9e3779b97f4a7c15
	return x ^ x>>29
}

func (p *proc) attempt(pub *publishing) {
	w, n := p.n.w, p.n
	if pub.done {
		return
	}
	d := w.span(time.Millisecond, 8*time.Millisecond)
	if !w.healed && w.chance(w.plan.Late) {
		d = w.span(50*time.Millisecond, 3*lease)
	}
	if w.log.down == 0 && n.unheard == 0 && (w.healed || !w.chance(w.plan.PublishLoss)) {
		w.after(d, func() {
			if w.log.down == 0 && n.unheard == 0 {
				w.log.receive(pub.message, pub.sum)
			}
		})
	}
	p.later(republish, func() { p.attempt(pub) })
}

// published stops the attempts that a delivered message makes needless.
func (p *proc) published(m *ledger.Message) {
	if m.Node != p.n.id {
		return
	}
	kept := p.pubs[:0]
	for _, pub := range p.pubs {
		o := pub.message
		if o.Incarnation < m.Incarnation || o.Incarnation == m.Incarnation && o.Number <= m.Number {
			pub.done = true
		} else {
			kept = append(kept, pub)
		}
	}
	p.pubs = kept
}

// pump lets the next messages of the log come to a process.
func (p *proc) pump() {
	w, n := p.n.w, p.n
	if p.pumping || n.deaf > 0 || w.log.down > 0 || p.cursor >= w.log.sequence && p.caught {
		return
	}
	p.pumping = true
	d := w.span(500*time.Microsecond, 4*time.Millisecond)
	if n.slow > 0 {
		d = w.span(10*time.Millisecond, n.lag)
	}
	w.after(d, func() { p.run(p.arrive) })
}

// arrive delivers what the log has, one message or all.
func (p *proc) arrive() {
	w, n := p.n.w, p.n
	p.pumping = false
	if n.deaf > 0 || w.log.down > 0 {
		return
	}
	most := 1 << 30
	if n.slow > 0 || w.chance(0.3) {
		most = 1
	}
	if !p.caught && n.slow == 0 {
		most = 1 << 30
	}
	if p.cursor < w.log.trimmed { // a gap: begin again from the snapshot
		w.tracef("%s finds a gap", n.id)
		n.stop()
		n.start()
		return
	}
	for i := w.log.find(p.cursor); i < len(w.log.entries) && most > 0 && p.usable(); i++ {
		e := &w.log.entries[i]
		most--
		p.cursor = e.sequence
		p.delivered(e)
	}
	if p.usable() && !p.caught && p.cursor >= p.boot {
		p.caughtUp()
	}
	p.pump()
}

// delivered gives the machine one message of the log.
func (p *proc) delivered(e *entry) {
	if e.message == nil {
		p.step(protocol.Skipped{Sequence: e.sequence, Sum: e.sum})
		return
	}
	p.published(e.message)
	p.step(protocol.Delivered{Sequence: e.sequence, Message: e.message, Sum: e.sum})
}

// encode makes of a message what readers of the log get to see of it.
func (w *World) encode(m *ledger.Message) (*ledger.Message, uint64) {
	w.buf = m.Append(w.buf[:0])
	// Names of a decoded message are parts of the data.
	data := bytes.Clone(w.buf)
	read := &ledger.Message{}
	if err := ledger.Decode(data, read); err != nil {
		w.fail("I8", "a published message cannot be read: %v", err)
	}
	return read, ledger.Sum(data)
}
