package protocol

import (
	"fmt"
	"slices"

	"cairn/block"
	"cairn/coherency/ledger"
)

// moveKind is what may happen next.
type moveKind uint8

const (
	invoke     moveKind = iota // a client begins its next operation
	enterLog                   // a message enters the log; which: its place in the outbox
	receive                    // a node gets the next message of the log
	handle                     // a node handles an event of its own
	arrive                     // a home gets what is staged
	finish                     // the author learns that it is staged
	ask                        // an owner is asked
	inquire                    // nodes are asked what is staged
	tick                       // a node looks at the clock
	restart                    // a node that is down starts again
	firstFault                 // what follows need not happen
	pass                       // the clock advances
	crash
	enterTwice // a message enters the log, and may once more
	ghost      // a message of which that is true enters the log
	refuse     // a staging fails
	timeout    // the owner does not answer
	goAway     // a node is told to leave
)

var moveNames = [...]string{"invoke", "enter", "receive", "handle", "arrive", "staged", "ask", "inquire", "tick", "restart", "",
	"pass", "crash", "enter twice", "ghost", "refuse", "timeout", "leave"}

// move names one: of is a node, a client, or the place in a list.
type move struct {
	kind      moveKind
	of, which uint8
}

func (m move) String() string { return fmt.Sprintf("%s %d.%d", moveNames[m.kind], m.of, m.which) }

func (u *universe) up(i int) bool { return u.sites[i].m != nil }

// moves are all that may happen.
func (u *universe) moves(dst []move) []move {
	add := func(k moveKind, of, which int) { dst = append(dst, move{k, uint8(of), uint8(which)}) }
	for k, program := range u.in.clients {
		c := &u.clients[k]
		if !c.busy && c.at < len(program) && u.up(program[c.at].node) {
			add(invoke, k, 0)
		}
	}
	for i := range u.in.nodes {
		s := u.sites[i]
		if len(s.outbox) > 0 {
			add(enterLog, i, 0)
			if u.budget[duplicates] > 0 {
				add(enterTwice, i, 0)
			}
		}
		if len(s.outbox) > 1 && u.budget[reorders] > 0 {
			add(enterLog, i, 1)
		}
		if s.m == nil {
			add(restart, i, 0)
			continue
		}
		if s.m.led.Sequence() < uint64(len(u.log)) {
			add(receive, i, 0)
		}
		if len(s.events) > 0 {
			add(handle, i, 0)
		}
		if u.ticks>>i&1 == 1 {
			add(tick, i, 0)
		}
		if u.budget[crashes] > 0 && (u.in.crash == nil || slices.Contains(u.in.crash, i)) {
			add(crash, i, 0)
		}
		if u.budget[leaves] > 0 && !s.m.away {
			add(goAway, i, 0)
		}
	}
	u.workMoves(add)
	if u.budget[advances] > 0 {
		add(pass, 0, 0)
	}
	for g := range u.ghosts {
		add(ghost, g, 0)
	}
	return dst
}

// workMoves are those of what goes on between nodes.
func (u *universe) workMoves(add func(k moveKind, of, which int)) {
	for k := range u.stages {
		s := &u.stages[k]
		down := s.generation != u.sites[s.author].generation
		for i := range u.in.nodes {
			if s.todo>>i&1 == 0 {
				continue
			}
			if u.up(i) && u.in.fine {
				add(arrive, k, i)
			}
			down = down || !u.up(i)
		}
		if s.todo == 0 || !u.in.fine && !down {
			add(finish, k, 0)
		}
		if down {
			add(refuse, k, 1) // must end
		} else if u.budget[refusals] > 0 {
			add(refuse, k, 0)
		}
	}
	for k, c := range u.calls {
		there := u.up(c.to) && u.sites[c.to].generation == c.generation
		if there && !c.asked {
			add(ask, k, 0)
		}
		if !there {
			add(timeout, k, 1) // must end
		} else if u.budget[timeouts] > 0 {
			add(timeout, k, 0)
		}
	}
	for k, q := range u.inquiries {
		if u.up(q.node) && u.sites[q.node].generation == q.generation {
			add(inquire, k, 0)
		}
	}
}

// must tells whether a move is one that happens sooner or later.
func (m move) must() bool {
	return m.kind < restart || (m.kind == refuse || m.kind == timeout) && m.which == 1
}

// make carries out a move on a copy of the state.
func (u *universe) make(m move) *universe {
	c := u.copy()
	c.do(m)
	for i := range c.in.nodes {
		if c.own[i] {
			c.encode(i)
		}
	}
	if c.err == nil {
		c.check()
	}
	return c
}

func (u *universe) do(m move) {
	of, which := int(m.of), int(m.which)
	switch m.kind {
	case invoke:
		u.invoke(of)
	case enterLog:
		if which > 0 {
			u.budget[reorders]--
		}
		u.append(of, which)
	case enterTwice:
		u.budget[duplicates]--
		p := u.sites[of].outbox[which]
		u.append(of, which)
		u.ghosts = append(u.ghosts, p)
	case ghost:
		p := u.ghosts[of]
		u.ghosts = slices.Delete(slices.Clone(u.ghosts), of, of+1)
		u.enter(p)
	case receive:
		u.deliver(of)
	case handle:
		s := u.site(of)
		e := s.events[0]
		s.events = s.events[1:]
		u.step(of, e)
	case arrive:
		u.arrive(of, which)
	case finish:
		u.finish(of)
	case refuse:
		u.refuse(of, which == 1)
	case ask:
		c := &u.calls[of]
		c.asked = true
		u.step(c.to, Read{Op: c.op | asOwner, Key: u.in.keyOf(int(c.op) - 1), Level: AsOwner, Token: c.token, Space: u.in.space})
	case timeout:
		u.timeout(of, which == 1)
	case inquire:
		u.inquire(of)
	case tick:
		u.ticks &^= 1 << of
		u.step(of, Tick{})
	case pass:
		u.budget[advances]--
		u.pass()
	case crash:
		u.budget[crashes]--
		u.crash(of)
	case restart:
		u.boot(of)
	case goAway:
		u.budget[leaves]--
		u.step(of, Leave{})
	}
}

func (u *universe) pass() {
	u.now += advanceBy
	for i := range u.in.nodes {
		if u.up(i) {
			u.ticks |= 1 << i
		}
	}
}

// invoke begins a client's next operation.
func (u *universe) invoke(k int) {
	c := &u.clients[k]
	c.busy = true
	number := k*4 + c.at
	a := u.in.action(number)
	id := Op(number + 1)
	if u.say != nil {
		u.say("  client %d: %s %s at %s", k, verbs[a.do], u.in.names[a.block], u.in.nodes[a.node])
	}
	switch a.do {
	case get, getSession:
		u.begin(a.block, number, false)
		r := Read{Op: id, Key: u.in.keys[a.block], Space: u.in.space}
		if a.do == getSession {
			r.Level, r.Session = Session, c.session
		}
		u.step(a.node, r)
	case barrier:
		u.step(a.node, Barrier{Op: id})
	case wipe:
		for b := range u.in.keys {
			u.begin(b, number, true)
		}
		u.step(a.node, Clear{Op: id, Namespace: space})
	default:
		u.expect[number] = c.saw
		u.begin(a.block, number, true)
		w := Write{Op: id, Key: u.in.keys[a.block], Namespace: space, Name: []byte(u.in.names[a.block]), Space: u.in.space, Policy: a.policy}
		switch a.do {
		case cas:
			w.If, w.Expect = ledger.Exactly, c.version
		case create:
			w.If = ledger.Absent
		case replace:
			w.If = ledger.Present
		}
		if a.do != remove {
			w.Value = ledger.Value{Object: u.in.object(a.block, id), Length: 1, Sum: uint64(id)}
		}
		u.step(a.node, w)
	}
}

// keyOf is the block that a read is about.
func (in *instance) keyOf(number int) block.Key {
	if number < finalRead {
		return in.keys[in.action(number).block]
	}
	return in.keys[(number-finalRead)&1]
}

// arrive: a home has made an object durable, and says so to its machine.
func (u *universe) arrive(k, i int) {
	s := &u.stages[k]
	s.todo &^= 1 << i
	st := u.site(i)
	st.disk |= 1 << u.in.objectOf(s.e.Value.Object)
	a := Arrived{Key: s.e.Key, Author: u.in.nodes[s.author], Incarnation: s.e.Incarnation, Token: s.e.Token, Version: s.e.Version, Value: s.e.Value}
	st.homed = append(slices.DeleteFunc(st.homed, func(old Arrived) bool { return old.Value.Object == a.Value.Object }), a)
	u.step(i, a)
}

// finish ends a staging. Unless the instance is fine, the homes get the object just
// before: what they do with it is their own, but for the order of log and arrival.
func (u *universe) finish(k int) {
	for i := range u.in.nodes {
		if u.stages[k].todo>>i&1 == 1 {
			u.arrive(k, i)
		}
	}
	s := u.stages[k]
	u.stages = slices.Delete(u.stages, k, k+1)
	switch {
	case s.generation != u.sites[s.author].generation:
	case s.replicate:
		u.step(s.author, s.replicated)
	default:
		u.step(s.author, Staged{Op: s.e.Op})
	}
}

func (u *universe) refuse(k int, forced bool) {
	if !forced {
		u.budget[refusals]--
	}
	s := u.stages[k]
	u.stages = slices.Delete(u.stages, k, k+1)
	switch {
	case s.generation != u.sites[s.author].generation:
	case s.replicate:
		s.replicated.Failed = true
		u.step(s.author, s.replicated)
	default:
		u.step(s.author, Staged{Op: s.e.Op, Failed: true})
	}
}

// refusedCall: the node that was asked is not the owner.
func (u *universe) refusedCall(i int, id Op) {
	for k, c := range u.calls {
		if c.op|asOwner == id && c.to == i && c.generation == u.sites[i].generation {
			u.timeout(k, true)
			return
		}
	}
}

// timeout ends a question to an owner without an answer: the read begins again.
func (u *universe) timeout(k int, forced bool) {
	if !forced {
		u.budget[timeouts]--
	}
	c := u.calls[k]
	u.calls = slices.Delete(u.calls, k, k+1)
	if !forced && c.asked {
		u.step(c.to, Cancel{c.op | asOwner})
	}
	number := int(c.op) - 1
	r := Read{Op: c.op, Key: u.in.keyOf(number), Space: u.in.space, Refused: c.token}
	if number < finalRead && u.in.action(number).do == getSession {
		r.Level, r.Session = Session, u.clients[number/4].session
	}
	u.step(c.from, r)
}

// inquire asks all at once; the homes of what is found are those that say so.
func (u *universe) inquire(k int) {
	q := u.inquiries[k]
	u.inquiries = slices.Delete(slices.Clone(u.inquiries), k, k+1)
	l := u.sites[q.node].m.led
	p, _ := l.Lookup(q.e.Key)
	f := Found{Key: q.e.Key, Token: q.e.Token}
	silent := 0
	for i, mem := range l.Members() {
		if i != q.node && (!mem.Live || !u.up(i)) {
			silent++
			continue
		}
		for _, w := range u.sites[i].homed {
			if w.Key != q.e.Key || w.Token != q.e.Token || f.Any && w.Version < f.Version {
				continue
			}
			if !f.Any || w.Version > f.Version {
				f.Any, f.Version, f.Value = true, w.Version, w.Value
				f.Value.Homes = ledger.Homes{}
			}
			f.Value.Homes[f.Value.Homes.Count()] = mem.Number
		}
	}
	f.Complete = silent < int(p.Copies)
	u.step(q.node, f)
}
