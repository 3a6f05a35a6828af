package protocol

import (
	"slices"

	"cairn/coherency/ledger"
)

// step gives an event to a machine and does what it asks for.
func (u *universe) step(i int, e Event) {
	s := u.site(i)
	if u.say != nil {
		u.tell(i, e)
	}
	effects := s.m.Step(u.now, e)
	for _, eff := range effects {
		if u.say != nil {
			u.tellEffect(i, eff)
		}
		u.perform(i, s, eff)
	}
	// A message need not be published any more once a later one was delivered.
	s.outbox = slices.DeleteFunc(s.outbox, func(p *packet) bool {
		return !slices.ContainsFunc(s.m.flights, func(f flight) bool {
			return f.incarnation == p.msg.Incarnation && f.number == p.msg.Number
		})
	})
}

func (u *universe) perform(i int, s *site, eff Effect) {
	in := u.in
	switch e := eff.(type) {
	case Publish:
		sum := e.Message.Incarnation<<32 | e.Message.Number<<4 | uint64(i)
		s.outbox = append(s.outbox, &packet{e.Message, sum, in.message(e.Message)})
	case Reply:
		u.replied(i, e)
	case Serve:
		u.served(i, e)
	case Forward:
		to := nodeOf(e.Node)
		u.calls = append(u.calls, question{op: e.Op, from: i, to: to, generation: u.sites[to].generation, token: e.Token})
	case Stage:
		u.stages = append(u.stages, staging{author: i, generation: s.generation, todo: nodeSet(e.Homes), e: e})
	case Replicate:
		st := Stage{Key: e.Key, Incarnation: s.m.incarnation, Value: e.Value, Homes: e.To}
		st.Value.Homes = e.Homes
		u.stages = append(u.stages, staging{author: i, generation: s.generation, todo: nodeSet(e.To), e: st, replicate: true,
			replicated: Replicated{Key: e.Key, Version: e.Version, Homes: e.Homes}})
	case *Moved:
		before, after := in.objectOf(e.Before.Value.Object), in.objectOf(e.After.Value.Object)
		s.homed = slices.DeleteFunc(s.homed, func(a Arrived) bool {
			return a.Key == e.After.Key && (a.Value.Object == e.After.Value.Object ||
				a.Token != 0 && (a.Token < e.After.Token || a.Version <= e.After.Version))
		})
		if before != after {
			s.disk &^= 1 << before
		}
	case Local:
		s.disk &^= 1 << in.objectOf(e.Drop) &^ 1
	case LocalGone:
		s.disk &^= 1 << in.objectOf(e.Drop) &^ 1
	case Collect:
		s.disk &^= 1 << in.objectOf(e.Object)
		s.homed = slices.DeleteFunc(s.homed, func(a Arrived) bool { return a.Value.Object == e.Object })
	case Inquire:
		u.inquiries = append(u.inquiries, inquiry{i, s.generation, e})
	case Scan:
		u.scan(s, e)
	case Cleared:
		for _, p := range s.m.led.Table().(*smallTable).list {
			if p.Version < ledger.Version(e.Place) {
				s.disk &^= 1 << in.objectOf(p.Value.Object) &^ 1
			}
		}
	case Alarm:
		u.fail("I8: %s: %s", in.nodes[i], e.Reason)
	}
}

func nodeSet(names []string) (set uint8) {
	for _, n := range names {
		set |= 1 << nodeOf(n)
	}
	return set
}

// scan finds at once what a Scan asks for; that it is handled takes a move each.
func (u *universe) scan(s *site, e Scan) {
	l := s.m.led
	for _, key := range u.in.keys {
		p, ok := l.Lookup(key)
		if !ok {
			continue
		}
		found := e.Orphans && p.Owned() && !l.Acting(p) || e.Homes && p.Value.Homes.Has(s.m.number)
		if c := (Check{key, u.in.space}); found && !slices.Contains(s.events, Event(c)) {
			s.events = append(s.events, c)
		}
	}
}

// append puts a message of a node's outbox into the log.
func (u *universe) append(i, which int) {
	s := u.shell(i)
	p := s.outbox[which]
	s.outbox = slices.Delete(s.outbox, which, which+1)
	u.enter(p)
}

// enter appends a message to the log, and applies it to what everyone will see.
func (u *universe) enter(p *packet) {
	u.log = append(u.log, p)
	u.oracle = cloneLedger(u.oracle)
	u.oracle.Apply(uint64(len(u.log)), p.msg, p.sum, func(r *ledger.Record, out *ledger.Outcome) {
		if u.say != nil {
			u.say("    log %d: %v %s: %v", len(u.log), p.msg.Node, describe(&ledger.Message{Records: []ledger.Record{*r}}), out.Verdict)
		}
		if len(u.in.keys) > 0 && out.Verdict == ledger.Effective {
			u.recorded(r, out)
		}
	})
	u.prefix = append(u.prefix, u.in.ledger(u.oracle))
	u.checkTruth()
}

// deliver gives a node the next message of the log.
func (u *universe) deliver(i int) {
	s := u.site(i)
	at := s.m.led.Sequence()
	p := u.log[at]
	msg := *p.msg
	u.step(i, Delivered{Sequence: at + 1, Message: &msg, Sum: p.sum})
	if want := u.prefix[at+1]; want != nil && !slices.Equal(want, u.in.ledger(s.m.led)) {
		u.fail("I8: %s has applied %d messages and has another state than follows from them", u.in.nodes[i], at+1)
	}
}

// crash ends a process. What it has published may still enter the log, or never.
func (u *universe) crash(i int) {
	s := u.site(i)
	for _, p := range s.outbox {
		if len(p.msg.Records) > 0 { // without records one more changes little
			u.ghosts = append(u.ghosts, p)
		}
	}
	*s = site{generation: s.generation + 1, disk: s.disk, homed: s.homed}
	u.ticks &^= 1 << i
	u.calls = slices.DeleteFunc(u.calls, func(c question) bool { return c.from == i })
	u.inquiries = slices.DeleteFunc(slices.Clone(u.inquiries), func(q inquiry) bool { return q.node == i })
	for k, program := range u.in.clients {
		c := &u.clients[k]
		if !c.busy || program[c.at].node != i {
			continue
		}
		number := k*4 + c.at
		open := func(*config) bool { return true }
		switch a := program[c.at]; a.do {
		case get, getSession:
			u.end(a.block, number, false, false, open)
		case barrier:
		case wipe:
			for b := range u.in.keys {
				u.end(b, number, false, true, open)
			}
		default:
			u.end(a.block, number, false, true, open)
		}
		c.busy = false
		c.at++
	}
}
