package sim

import (
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// send brings a message to another node, if the network lets it: with any delay, out
// of order, twice, or not at all. f runs in the process that is there then.
func (w *World) send(from, to *node, f func(q *proc)) {
	copies := 1
	if from != to && !w.healed {
		loss := w.plan.RPCLoss
		if w.lossy > 0 {
			loss = max(loss, 0.4)
		}
		if w.chance(loss) {
			copies = 0
		}
		if w.chance(w.plan.RPCDup) {
			copies++
		}
	}
	for range copies {
		d := w.span(300*time.Microsecond, 3*time.Millisecond)
		if !w.healed && w.chance(0.02) {
			d = w.span(3*time.Millisecond, lease)
		}
		if w.cut[from.index][to.index] > 0 {
			continue
		}
		w.after(d, func() {
			if q := to.p; q != nil && w.cut[from.index][to.index] == 0 {
				q.run(func() { f(q) })
			}
		})
	}
}

// ask sends a request and waits for the answer: serve runs at the other node and
// answers with what is to run here. Nothing, after the timeout, is run instead; one of
// the two runs once, unless this process ends.
func (p *proc) ask(to *node, serve func(q *proc, answer func(func())), nothing func()) {
	w, done := p.n.w, false
	w.send(p.n, to, func(q *proc) {
		serve(q, func(result func()) {
			w.send(q.n, p.n, func(now *proc) {
				if now == p && !done {
					done = true
					result()
				}
			})
		})
	})
	p.later(rpcTimeout, func() {
		if !done {
			done = true
			nothing()
		}
	})
}

// attempts is how often a request is sent before it counts as failed.
func (w *World) attempts() int {
	if w.healed {
		return 1000
	}
	return 3
}

// staging is one Stage that is being carried out.
type staging struct {
	e     protocol.Stage
	left  int
	ended bool
	end   func(failed bool)
}

// stage brings an object to all its homes.
func (p *proc) stage(e protocol.Stage) {
	p.bring(e, func(failed bool) { p.step(protocol.Staged{Op: e.Op, Failed: failed}) })
}

// replicate copies an object to further homes.
func (p *proc) replicate(e protocol.Replicate) {
	s := protocol.Stage{Key: e.Key, Incarnation: p.m.Incarnation(), Value: e.Value, Homes: e.To}
	s.Value.Homes = e.Homes
	p.bring(s, func(failed bool) {
		p.step(protocol.Replicated{Key: e.Key, Version: e.Version, Homes: e.Homes, Failed: failed})
	})
}

// bring makes an object durable at other nodes.
func (p *proc) bring(e protocol.Stage, ended func(failed bool)) {
	s := &staging{e: e, left: len(e.Homes), end: ended}
	content, ok := p.bytes(number(e.Value.Object))
	if !ok {
		p.n.w.tracef("%s has no bytes of #%d to stage", p.n.id, number(e.Value.Object))
		p.later(time.Millisecond, func() { ended(true) })
		return
	}
	for _, id := range e.Homes {
		p.stageAt(s, p.n.w.named(id), content, p.n.w.attempts())
	}
}

func (p *proc) stageAt(s *staging, home *node, content uint64, attempts int) {
	end := func(ok bool) {
		s.left--
		if !s.ended && (!ok || s.left == 0) {
			s.ended = true
			s.end(!ok)
		}
	}
	arrived := protocol.Arrived{Key: s.e.Key, Author: p.n.id, Incarnation: s.e.Incarnation, Token: s.e.Token,
		Version: s.e.Version, Value: s.e.Value}
	p.ask(home, func(q *proc, answer func(func())) {
		q.receive(arrived, content, func(ok bool) { answer(func() { end(ok) }) })
	}, func() {
		if attempts > 1 && !s.ended {
			p.stageAt(s, home, content, attempts-1)
			return
		}
		end(false)
	})
}

// receive makes an object durable, and tells the machine before it says so. What is
// not synced when the process dies is gone, or torn, which its checksum would tell.
func (p *proc) receive(a protocol.Arrived, content uint64, done func(ok bool)) {
	w := p.n.w
	if p.n.full > 0 {
		done(false)
		return
	}
	p.later(w.span(time.Millisecond, 5*time.Millisecond), func() {
		if !p.caught { // the machine cannot judge it yet: refuse
			done(false)
			return
		}
		o := number(a.Value.Object)
		p.n.disk[o] = diskObject{content, a}
		p.step(a)
		done(true)
	})
}

// bytes is what this node has of an object.
func (p *proc) bytes(o uint64) (content uint64, ok bool) {
	if content, ok = p.hot[o]; ok {
		return content, true
	}
	d, ok := p.n.disk[o]
	return d.content, ok
}

// fetch gets the bytes of an object from here, its homes, or its owner.
func (p *proc) fetch(ptr ledger.Pointer, done func(content uint64, ok bool)) {
	if content, ok := p.bytes(number(ptr.Value.Object)); ok {
		done(content, true)
		return
	}
	var from []*node
	for _, h := range ptr.Value.Homes {
		if h != 0 {
			from = append(from, p.home(h))
		}
	}
	p.fetchFrom(from, number(ptr.Value.Object), done)
}

func (p *proc) fetchFrom(from []*node, o uint64, done func(content uint64, ok bool)) {
	if len(from) == 0 {
		done(0, false)
		return
	}
	next := func() { p.fetchFrom(from[1:], o, done) }
	p.ask(from[0], func(q *proc, answer func(func())) {
		content, ok := q.bytes(o)
		answer(func() {
			if ok {
				done(content, true)
			} else {
				next()
			}
		})
	}, next)
}

// inquiry names an Inquire of a node; see World.asked.
type inquiry struct {
	node  string
	key   block.Key
	token ledger.Version
}

// asking is one Inquire that is being carried out.
type asking struct {
	found   protocol.Found
	left    int
	missing int // who has not answered, or does not know what it had
	heard   map[int]bool
}

// inquire asks every node that ever was a member for what it has staged under a token:
// one without a disk can be a home as well, when no other is there.
func (p *proc) inquire(e protocol.Inquire) {
	a := &asking{found: protocol.Found{Key: e.Key, Token: e.Token}, heard: map[int]bool{}}
	var to []*node
	for _, m := range p.m.Ledger().Members() {
		to = append(to, p.n.w.named(m.ID))
	}
	if a.left = len(to); a.left == 0 {
		p.later(time.Millisecond, func() { p.found(a) })
	}
	for _, n := range to {
		p.inquireAt(a, n, p.n.w.attempts()+2)
	}
}

func (p *proc) inquireAt(a *asking, n *node, attempts int) {
	p.ask(n, func(q *proc, answer func(func())) {
		newest, any := q.newest(a.found.Key, a.found.Token)
		whole := q.caught && (!q.n.lostDisk || q.n.lostAt < a.found.Token.Place().Sequence())
		answer(func() {
			if !whole {
				a.missing++
			}
			a.hears(p, n, newest, any)
			a.heard[n.index] = true
			if a.left--; a.left == 0 {
				p.found(a)
			}
		})
	}, func() {
		if attempts > 1 {
			p.inquireAt(a, n, attempts-1)
			return
		}
		a.missing++
		if a.left--; a.left == 0 {
			p.found(a)
		}
	})
}

// hears takes what one home has: the newest counts, and who has it.
func (a *asking) hears(p *proc, n *node, newest protocol.Arrived, any bool) {
	f := &a.found
	if !any || newest.Version < f.Version {
		return
	}
	if newest.Version > f.Version {
		f.Any, f.Version, f.Value = true, newest.Version, newest.Value
		f.Value.Homes = ledger.Homes{}
	}
	mem, _ := p.m.Ledger().Find(n.id)
	for i, h := range f.Value.Homes {
		if h == 0 {
			f.Value.Homes[i] = mem.Number
			break
		}
	}
}

func (p *proc) found(a *asking) {
	ptr, _ := p.m.Ledger().Lookup(a.found.Key)
	a.found.Complete = a.missing < int(ptr.Copies)
	w, id := p.n.w, inquiry{p.n.id, a.found.Key, a.found.Token}
	// Which Found a Revoke comes from cannot be seen, so only who answered all counts.
	if before, ok := w.asked[id]; ok {
		for n := range before {
			if !a.heard[n] {
				delete(before, n)
			}
		}
	} else {
		w.asked[id] = a.heard
	}
	p.step(a.found)
}

// newest is the newest write that this home has staged under a token.
func (p *proc) newest(key block.Key, token ledger.Version) (newest protocol.Arrived, any bool) {
	for _, o := range sortedKeys(p.n.disk) {
		a := p.n.disk[o].arrived
		if a.Author != "" && a.Key == key && a.Token == token && (!any || a.Version > newest.Version) {
			newest, any = a, true
		}
	}
	return newest, any
}
