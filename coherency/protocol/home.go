package protocol

import (
	"maps"
	"slices"

	"cairn/block"
	"cairn/coherency/ledger"
)

// homes are the k live members that keep the block durably, by rendezvous hashing
// (Thaler and Ravishankar 1998): each member has a weight for the block, the
// heaviest are its homes, and when one goes only its own blocks move. Members
// without a disk are taken only when no other is there.
func (m *Machine) homes(key block.Key, k int) (homes ledger.Homes, names []string) {
	homes = m.rendezvous(key, min(k, ledger.MostHomes), nil)
	for _, n := range homes {
		if n != 0 {
			names = append(names, m.led.Member(n).ID)
		}
	}
	return homes, names
}

func (m *Machine) rendezvous(key block.Key, k int, without func(number uint16) bool) (homes ledger.Homes) {
	stays := m.stays()
	durable := slices.ContainsFunc(m.led.Members(), func(mem ledger.Member) bool { return stays(mem) && mem.Durable })
	var weights [ledger.MostHomes]uint64
	for _, mem := range m.led.Members() {
		if !stays(mem) || durable && !mem.Durable || without != nil && without(mem.Number) {
			continue
		}
		w := mix(key.Hash64() ^ mix(uint64(mem.Number)))
		for i := range k {
			if homes[i] != 0 && weights[i] >= w {
				continue
			}
			copy(homes[i+1:k], homes[i:])
			copy(weights[i+1:k], weights[i:])
			homes[i], weights[i] = mem.Number, w
			break
		}
	}
	return homes
}

// stays tells of members whether they are live and not about to leave; if all are about to,
// whether they are live.
func (m *Machine) stays() func(ledger.Member) bool {
	live := func(mem ledger.Member) bool { return mem.Live }
	if len(m.draining) == 0 {
		return live
	}
	stays := func(mem ledger.Member) bool { return mem.Live && !slices.Contains(m.draining, mem.ID) }
	if slices.ContainsFunc(m.led.Members(), stays) {
		return stays
	}
	return live
}

// drain takes in which members are about to leave, and has the homes of all blocks looked
// after.
func (m *Machine) drain(e Draining) {
	m.draining = e.Members
	if m.phase == serving { // also when they stay after all: what was written meanwhile has fewer
		m.do(Scan{Homes: true})
	}
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// stagedObject lies at this home, and no record that names it was decided yet.
type stagedObject struct {
	object      block.Key
	author      string
	incarnation uint64
	token       ledger.Version
	version     ledger.Version
}

// arrived keeps an object until no record that names it can become effective any
// more.
func (m *Machine) arrived(e Arrived) {
	if e.Value.Object.IsZero() {
		return
	}
	p, _ := m.led.Lookup(e.Key)
	if p.Value.Object == e.Value.Object {
		return
	}
	s := stagedObject{e.Value.Object, e.Author, e.Incarnation, e.Token, e.Version}
	if e.Token == 0 && slices.ContainsFunc(m.staged[e.Key], func(old stagedObject) bool { return old.object == s.object && old.token != 0 }) {
		return // staged for a Commit before it was staged for a Flush: a late copy
	}
	if m.hopeless(s, p) {
		m.do(Collect{Object: s.object})
		return
	}
	// An older write of the same ownership stays until a flush is decided: this one
	// may fail at another home, and then the older one is the newest acknowledged.
	m.keep(e.Key, func(old stagedObject) bool { return old.object != s.object || old.author != s.author }, s.object)
	m.staged[e.Key] = append(m.staged[e.Key], s)
}

// hopeless tells whether no record can name a staged object effectively: its author's
// incarnation has ended, and it is no write of the present ownership, which the
// next incarnation may offer, or a Revoke find.
func (m *Machine) hopeless(s stagedObject, p ledger.Pointer) bool {
	if s.token != 0 {
		return s.token < p.Token || p.Token == 0 && s.token < ledger.Version(p.Changed)
	}
	author, ok := m.led.Find(s.author)
	return ok && (author.Incarnation > s.incarnation || author.Incarnation == s.incarnation && !author.Live)
}

// keep collects the staged objects of a block that f does not keep, except the
// block's present one and the one named.
func (m *Machine) keep(key block.Key, f func(stagedObject) bool, except block.Key) {
	list, ok := m.staged[key]
	if !ok {
		return
	}
	p, _ := m.led.Lookup(key)
	kept := list[:0:0]
	for _, s := range list {
		if s.object != p.Value.Object && f(s) {
			kept = append(kept, s)
		}
	}
	for _, s := range list {
		// Another author may have staged the same object, when only its end changes.
		same := func(o stagedObject) bool { return o.object == s.object }
		if s.object != p.Value.Object && s.object != except && !slices.ContainsFunc(kept, same) {
			m.do(Collect{Object: s.object})
			except = s.object
		}
	}
	if len(kept) == 0 {
		delete(m.staged, key)
		return
	}
	m.staged[key] = kept
}

// settleStaged lets go of what an effective record has decided.
func (m *Machine) settleStaged(r *ledger.Record, out *ledger.Outcome) {
	m.keep(r.Key, func(s stagedObject) bool {
		switch {
		case s.object == r.Value.Object: // decided, but a Clear came before
			return false
		case s.token == 0:
			return true
		case s.token == out.After.Token:
			return r.Kind != ledger.Flush || s.version > r.Version
		}
		return s.token > ledger.Version(out.Place)
	}, block.Key{})
}

// refused lets go of an object whose record is decided, and not effective.
func (m *Machine) refused(author string, r *ledger.Record) {
	switch r.Kind {
	case ledger.Commit, ledger.Flush, ledger.Rehome:
		if !r.Value.Object.IsZero() {
			m.keep(r.Key, func(s stagedObject) bool { return s.object != r.Value.Object || s.author != author }, block.Key{})
		}
	}
}

// bereaved lets go of what ended incarnations had staged, and has what has waited for dead
// owners go on.
func (m *Machine) bereaved() {
	for _, key := range slices.SortedFunc(maps.Keys(m.staged), block.Key.Compare) {
		p, _ := m.led.Lookup(key)
		m.keep(key, func(s stagedObject) bool { return !m.hopeless(s, p) }, block.Key{})
	}
	asked := m.contended
	m.contended = nil
	for _, key := range asked {
		if b := m.blocks[key]; b != nil {
			b.contended, b.nextAsk, b.yield = false, 0, 0
			m.woken = append(m.woken, key)
		}
	}
}

// check looks after a block that a dead node has left behind, or that lacks a home.
func (m *Machine) check(e Check) {
	p, ok := m.led.Lookup(e.Key)
	switch {
	case !ok || m.phase != serving:
	case p.Owned() && !m.led.Acting(p):
		if b := m.blocks[e.Key]; b == nil || b.token != p.Token {
			m.dislodge(m.block(e.Key, p.Namespace, p.Name), p)
		}
	case !p.Value.Object.IsZero():
		m.rehome(p, e.Space)
	}
}

// rehome copies the object of a block to further homes if it has too few and this node
// is the first of them that is live. A home that has not been away for long counts, one that
// drains does not.
func (m *Machine) rehome(p ledger.Pointer, s Space) {
	m.grow()
	var homes ledger.Homes
	kept, first := 0, uint16(0)
	stays := m.stays()
	for _, n := range p.Value.Homes {
		if n == 0 {
			continue
		}
		mem := m.led.Member(n)
		live := mem.Live
		if stays(*mem) || !live && m.now-m.members[n-1].died < m.cfg.RehomeAfter {
			homes[kept] = n
			kept++
		}
		if live && first == 0 {
			first = n
		}
	}
	want := min(max(p.Value.Homes.Count(), s.Homes, s.Copies), ledger.MostHomes)
	if kept >= want || first != m.number {
		return
	}
	more := m.rendezvous(p.Key, want-kept, homes.Has)
	var to []string
	for _, n := range more {
		if n != 0 {
			to = append(to, m.led.Member(n).ID)
			homes[kept] = n
			kept++
		}
	}
	if len(to) > 0 {
		m.do(Replicate{Key: p.Key, Version: p.Version, Value: p.Value, To: to, Homes: homes})
	}
}

// seekHomes lets the homes of all blocks be looked after in a while.
func (m *Machine) seekHomes() {
	if m.homeless == 0 {
		m.homeless = m.now + m.cfg.RehomeAfter
	}
}

// lacksHome tells whether a new pointer names a home that is gone by now, or one that a
// Revoke has found, which may not be all there were.
func (m *Machine) lacksHome(r *ledger.Record, p *ledger.Pointer) bool {
	if !p.Value.Homes.Has(m.number) {
		return false
	}
	return r.Kind == ledger.Revoke || slices.ContainsFunc(p.Value.Homes[:], func(n uint16) bool { return n != 0 && !m.led.Member(n).Live })
}

func (m *Machine) replicated(e Replicated) {
	if e.Failed {
		m.seekHomes()
		return
	}
	p, _ := m.led.Lookup(e.Key)
	v := p.Value
	v.Homes = e.Homes
	m.enqueue(ledger.Record{Kind: ledger.Rehome, Key: e.Key, Version: e.Version, Value: v}, 0)
}
