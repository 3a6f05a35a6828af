package protocol

import (
	"maps"
	"slices"
	"strings"
	"time"

	"cairn/coherency/ledger"
	"cairn/internal/mutant"
)

// join publishes a Join, by which the present incarnation becomes a member. It does
// not wait for other messages of this node: those of an older incarnation
// are void after it.
func (m *Machine) join() {
	if m.phase != starting && m.phase != joining {
		return
	}
	m.phase = joining
	rec := ledger.Record{Kind: ledger.Join}
	if m.cfg.Durable {
		rec.Flags = ledger.Durable
	}
	if mem, ok := m.led.Find(m.cfg.Node); ok {
		m.incarnation = max(m.incarnation, mem.Incarnation+1)
	}
	m.sent = 0
	readers := m.readers
	m.readers = nil
	m.send([]entry{{rec: rec}})
	m.readers = readers
}

// lapse ends the incarnation when its lease has run out. What it owns and has not
// flushed is kept: the next incarnation offers it.
func (m *Machine) lapse() {
	if m.phase != serving || m.now < m.leased || mutant.Is(mutant.WriteAfterLapse) {
		return
	}
	m.phase = joining
	m.incarnation++
	m.join()
}

// joined is called when the node's own Join is in the log.
func (m *Machine) joined(own flight) {
	mem, _ := m.led.Find(m.cfg.Node)
	m.number = mem.Number
	m.phase = serving
	m.leased = own.sent + m.cfg.Lease
	// When the log was away nobody could be heard, so that says nothing about the others:
	// each gets the time of a lease to come back with what it owns.
	m.grow()
	for i := range m.members {
		m.members[i].heard = m.now
	}
	// All messages of older incarnations are decided now.
	var old []flight
	m.flights = slices.DeleteFunc(m.flights, func(f flight) bool {
		if f.incarnation != m.incarnation {
			old = append(old, f)
			return true
		}
		return false
	})
	m.overtake(old)
	waiting := m.out
	m.out = nil
	for _, e := range waiting {
		m.void(e, true)
	}
	for _, b := range m.sorted(func(*local) bool { return true }) {
		m.regain(b)
	}
	if m.led.Barrier() != 0 {
		m.barrierOpened()
	}
	if m.led.Orphaned() > 0 {
		m.do(Scan{Orphans: true}) // some may be of this node's last life
	}
	early := m.early
	m.early = nil
	for _, id := range early {
		if o := m.ops[id]; o != nil && !o.dead {
			m.try(o)
		}
	}
	m.tryBarrier()
}

// regain offers what an older incarnation of this node owns and has not flushed.
func (m *Machine) regain(b *local) {
	if b.token == 0 {
		m.advance(b)
		return
	}
	p, _ := m.led.Lookup(b.key)
	if p.Token != b.token {
		m.dispossess(b)
		return
	}
	b.recalled = true
	m.flush(b)
}

// sorted are the blocks with local state that match, in a fixed order.
func (m *Machine) sorted(match func(*local) bool) []*local {
	var list []*local
	for _, b := range m.blocks {
		if match(b) {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b *local) int { return a.key.Compare(b.key) })
	return list
}

// grow makes room for what is watched of the members.
func (m *Machine) grow() {
	for len(m.members) < len(m.led.Members()) {
		m.members = append(m.members, watched{heard: m.now, died: m.now})
	}
}

// heard notes that a message of a member was delivered.
func (m *Machine) heard(id string) {
	m.grow()
	if mem, ok := m.led.Find(id); ok {
		m.members[mem.Number-1].heard = m.now
	}
}

// ended notes that a member's incarnation has ended.
func (m *Machine) ended(id string) {
	m.grow()
	if mem, ok := m.led.Find(id); ok {
		w := &m.members[mem.Number-1]
		w.died, w.rehomed = m.now, false
	}
}

// tick does what time alone asks for.
func (m *Machine) tick() {
	if m.phase == joining && m.now-m.lastSent >= m.cfg.Lease {
		m.incarnation++ // the Join has found no way
		m.join()
	}
	if m.phase != serving {
		return
	}
	if m.now-m.lastSent >= m.cfg.Renew {
		m.owes = true
	}
	m.expire()
	m.lookAfter()
	m.tend()
	m.tryLeave()
	m.tryAck()
	m.tryAdvance()
	m.asked.forget(m.now - 2*m.cfg.Lease)
}

// expire ends the incarnations of members that were not heard of for a lease, and
// what their clock may be slower than this one.
func (m *Machine) expire() {
	m.grow()
	patience := m.cfg.Lease + m.cfg.Lease*time.Duration(m.cfg.Drift)/1000
	for i, mem := range m.led.Members() {
		if !mem.Live || mem.Number == m.number || m.now-m.members[i].heard <= patience {
			continue
		}
		if m.due("expire "+mem.ID, m.cfg.Renew) {
			m.enqueue(ledger.Record{Kind: ledger.Expire, Member: mem.ID, Incarnation: mem.Incarnation, Sequence: mem.Sequence}, 0)
		}
	}
}

// lookAfter sees to what dead members leave behind: blocks that they own, and
// objects that they were a home of; and to what new ones can be a home of. Now
// and then it sees to all: who chose homes may have known less of who leaves than this node.
func (m *Machine) lookAfter() {
	scan := Scan{}
	switch {
	case m.led.Orphaned() == 0:
		m.orphans = m.now
	case m.first() && (m.led.Barrier() != 0 || m.now-m.orphans >= m.cfg.RevokeAfter):
		scan.Orphans = m.due("orphans", m.cfg.Renew)
	}
	for i := range m.led.Members() {
		w, after := &m.members[i], m.cfg.RehomeAfter
		if m.led.Members()[i].Live {
			after += 2 * m.cfg.Lease
		}
		if !w.rehomed && m.now-w.died >= after {
			w.rehomed, scan.Homes = true, true
		}
	}
	if m.homeless != 0 && m.now >= m.homeless {
		m.homeless, scan.Homes = 0, true
	}
	if m.cfg.RehomeEvery != 0 && m.now-m.swept >= m.cfg.RehomeEvery {
		m.swept, scan.Homes = m.now, true
	}
	if scan.Orphans || scan.Homes {
		m.do(scan)
	}
}

// first tells whether this is the live member with the lowest number, who does what one
// has to do.
func (m *Machine) first() bool {
	for _, mem := range m.led.Members() {
		if mem.Live {
			return mem.Number == m.number
		}
	}
	return false
}

// leave gives back all that this node owns.
func (m *Machine) leave() {
	m.away = true
	if m.phase == starting {
		m.phase = left
		m.fail()
		m.do(Left{})
		return
	}
	for _, b := range m.sorted(func(b *local) bool { return b.token != 0 }) {
		b.recalled = true
		m.flush(b)
	}
	m.tryLeave()
}

// tryLeave ends the membership once there is nothing left to give back.
func (m *Machine) tryLeave() {
	if !m.away || m.phase != serving {
		return
	}
	for _, b := range m.blocks {
		if b.token != 0 || b.asking {
			return
		}
	}
	if m.due("leave", m.cfg.Lease) {
		m.enqueue(ledger.Record{Kind: ledger.Leave}, 0)
	}
}

// stop ends strict service for good.
func (m *Machine) stop(err error) {
	if m.phase == stopped {
		return
	}
	m.phase = stopped
	reason := "the log cannot be trusted"
	if err != nil {
		reason = err.Error()
	}
	m.do(Alarm{Reason: reason})
	m.fail()
}

// fail ends every operation: this node does not serve any more. What a record of may be in
// the log, or is there and not acknowledged yet, may have happened.
func (m *Machine) fail() {
	sent := map[Op]bool{}
	for _, f := range m.flights {
		for _, e := range f.entries {
			sent[e.op] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.ops)) {
		o := m.ops[id]
		err := ErrUnavailable
		if o.kind != reading && (o.done || o.version != 0 || sent[id]) {
			err = ErrUnknown
		}
		m.reply(o, Reply{Err: err})
	}
}

// attempts remembers when something was last asked of the log, so that it is not
// asked at every occasion.
type attempts []attempt

type attempt struct {
	what string
	at   time.Duration
}

func (a *attempts) forget(before time.Duration) {
	*a = slices.DeleteFunc(*a, func(t attempt) bool { return t.at < before })
}

// due tells whether it is time to ask again, and notes that it was asked.
func (m *Machine) due(what string, every time.Duration) bool {
	i, ok := slices.BinarySearchFunc(m.asked, what, func(t attempt, s string) int { return strings.Compare(t.what, s) })
	if ok {
		if m.now-m.asked[i].at < every {
			return false
		}
		m.asked[i].at = m.now
		return true
	}
	m.asked = slices.Insert(m.asked, i, attempt{what, m.now})
	return true
}
