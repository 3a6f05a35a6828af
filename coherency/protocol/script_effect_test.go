package protocol

import (
	"fmt"
	"slices"
	"strings"

	"cairn/block"
	"cairn/coherency/ledger"
)

// effect does what a machine asks its caller for, and prints it.
func (s *script) effect(n *scriptNode, eff Effect) {
	switch e := eff.(type) {
	case Publish:
		s.publish(n, e.Message)
	case Stage:
		s.printf("%s: stage %s=%s%s at %s", n.name, s.keys[e.Key], s.value(e.Value), s.under(e.Key, e.Token, e.Version), strings.Join(e.Homes, " "))
		n.stages = append(n.stages, e)
	case Reply:
		s.replied(n, e)
	case Serve:
		s.served(n, e)
	case Forward:
		s.printf("%s: %s: ask the owner %s, token %s", n.name, s.labels[e.Op], e.Node, s.at(e.Key, e.Token))
		n.todo = append(n.todo, func() { s.forward(n, e) })
	case Inquire:
		s.printf("%s: inquire for %s under %s", n.name, s.keys[e.Key], s.at(e.Key, e.Token))
		n.todo = append(n.todo, func() { s.inquire(n, e) })
	case Scan:
		n.todo = append(n.todo, func() { s.scan(n, e) })
	case Replicate:
		s.printf("%s: copy %s of %s to %s", n.name, s.value(e.Value), s.keys[e.Key], strings.Join(e.To, " "))
		n.todo = append(n.todo, func() {
			failed := slices.ContainsFunc(e.To, func(name string) bool { return s.node(name).full || !s.node(name).runs() })
			if failed {
				s.printf("%s: the copy fails", n.name)
			}
			s.step(n, Replicated{Key: e.Key, Version: e.Version, Homes: e.Homes, Failed: failed})
		})
	case Collect:
		n.store = slices.DeleteFunc(n.store, func(a Arrived) bool { return a.Value.Object == e.Object })
		s.printf("%s: collect %s", n.name, s.objects[e.Object])
	default:
		s.news(n, eff)
	}
}

// news are the effects that only tell something.
func (s *script) news(n *scriptNode, eff Effect) {
	switch e := eff.(type) {
	case *Moved: // the log says so
	case Local:
		if !e.Drop.IsZero() {
			s.printf("%s: drop %s", n.name, s.objects[e.Drop])
		}
	case Flushed:
		s.printf("%s: %s is home", n.name, s.objects[e.Object])
	case LocalGone:
		drop := ""
		if !e.Drop.IsZero() {
			drop = ", drop " + s.objects[e.Drop]
		}
		s.printf("%s: owns %s no more%s", n.name, s.keys[e.Key], drop)
	case Declared:
		s.printf("%s: declared lost: unflushed writes of %s, which is %s", n.name, s.keys[e.Pointer.Key], s.short(e.Pointer))
	case Cleared:
		s.printf("%s: cleared %s", n.name, e.Namespace)
	case Passed:
		s.printf("%s: barrier passed, epoch %d", n.name, e.Epoch)
	case Alarm:
		s.printf("%s: ALARM: %s", n.name, e.Reason)
	case Left:
		s.printf("%s: left", n.name)
	default:
		s.fatalf("unknown effect %#v", eff)
	}
}

// begin notes what an operation must see at least: whatever has ended before.
func (s *script) begin(op Op, ev Event) {
	switch e := ev.(type) {
	case Read:
		s.floors[op] = s.floor[e.Key]
	case Write:
		s.floors[op] = s.floor[e.Key]
	}
}

// ended notes what everyone who begins later must see.
func (s *script) ended(op Op, p ledger.Pointer, sequence uint64) {
	s.results[strings.Fields(s.labels[op])[0]] = scriptResult{p.Version, sequence}
	s.floor[p.Key] = max(s.floor[p.Key], p.Version)
}

func (s *script) replied(n *scriptNode, e Reply) {
	if op, ok := s.aliases[e.Op]; ok { // the owner was asked, and does not answer
		s.refused(op, e.Err.Error())
		return
	}
	label := s.labels[e.Op]
	delete(s.asks, e.Op)
	block := ""
	if !e.After.Key.IsZero() {
		block = ", " + s.keys[e.After.Key] + " is " + s.short(e.After)
	}
	switch {
	case e.Err != nil:
		s.printf("%s: %s: ERROR %v%s", n.name, label, e.Err, block)
	default:
		s.printf("%s: %s: ok%s", n.name, label, block)
		s.ended(e.Op, e.After, e.Sequence)
	}
}

func (s *script) served(n *scriptNode, e Serve) {
	op := e.Op
	if o, ok := s.aliases[op]; ok {
		op = o
	}
	label := s.labels[op]
	r, open := s.asks[op]
	if !open {
		s.printf("%s: %s: too late", n.name, label)
		return
	}
	extra := ""
	if reader := s.whose[op]; reader != n {
		extra = ", says " + n.name
		n = reader
	}
	switch r.Level {
	case Session:
		extra += fmt.Sprintf(", log at %d", e.Sequence)
	case Bounded:
		extra += fmt.Sprintf(", at most %v old", e.Age)
	default:
		if e.Pointer.Version < s.floors[op] {
			s.fatalf("I4: %s serves %s for %q, which began after %s was known", n.name, s.short(e.Pointer), label, s.at(r.Key, s.floors[op]))
		}
	}
	s.printf("%s: %s: %s%s", n.name, label, s.short(e.Pointer), extra)
	delete(s.asks, op)
	if r.Level == Strict || r.Level == AsOwner {
		s.ended(op, e.Pointer, e.Sequence)
	} else {
		s.results[strings.Fields(label)[0]] = scriptResult{e.Pointer.Version, e.Sequence}
	}
}

// forward asks the owner for a read of n.
func (s *script) forward(n *scriptNode, e Forward) {
	r, ok := s.asks[e.Op]
	if !ok {
		return
	}
	r.Refused = e.Token
	s.asks[e.Op] = r
	owner := s.node(e.Node)
	s.hidden++
	s.aliases[internalOp>>1+s.hidden] = e.Op
	if !owner.runs() {
		s.refused(e.Op, "no answer")
		return
	}
	s.step(owner, Read{Op: internalOp>>1 + s.hidden, Key: e.Key, Namespace: scriptNamespace, Level: AsOwner, Space: r.Space, Token: e.Token})
}

// refused tries a read again whose owner did not answer.
func (s *script) refused(op Op, why string) {
	n, r := s.whose[op], s.asks[op]
	s.printf("%s: %s: the owner does not answer: %s", n.name, s.labels[op], why)
	n.todo = append(n.todo, func() { s.step(n, r) })
}

// inquire asks every home that runs what it has staged under a token. All who may have
// something were asked if fewer are missing than every write has copies.
func (s *script) inquire(n *scriptNode, e Inquire) {
	f := Found{Key: e.Key, Token: e.Token}
	missing, homes := 0, 0
	for _, h := range s.nodes {
		if !h.runs() && h.cfg.Durable {
			missing++
			continue
		}
		for _, a := range h.store {
			if a.Key != e.Key || a.Token != e.Token || a.Version < f.Version {
				continue
			}
			if a.Version > f.Version {
				f.Any, f.Version, f.Value = true, a.Version, a.Value
				f.Value.Homes, homes = ledger.Homes{}, 0
			}
			mem, _ := n.m.led.Find(h.name)
			f.Value.Homes[homes] = mem.Number
			homes++
		}
	}
	p, _ := n.m.led.Lookup(e.Key)
	f.Complete = missing < int(p.Copies)
	if f.Any {
		s.printf("%s: found %s%s, complete=%v", n.name, s.value(f.Value), s.under(e.Key, e.Token, f.Version), f.Complete)
	} else {
		s.printf("%s: found nothing, complete=%v", n.name, f.Complete)
	}
	s.step(n, f)
}

// scan gives the node a Check of every block that it asks for.
func (s *script) scan(n *scriptNode, e Scan) {
	led := n.m.Ledger()
	var keys []block.Key
	led.Table().Range(func(p ledger.Pointer) bool {
		if e.Orphans && p.Owned() && !led.Acting(p) || e.Homes && p.Value.Homes.Has(n.m.number) {
			keys = append(keys, p.Key)
		}
		return true
	})
	slices.SortFunc(keys, block.Key.Compare)
	for _, key := range keys {
		s.step(n, Check{Key: key, Space: s.space})
	}
}

// check tells whether the invariants that can be seen at once hold.
func (s *script) check() {
	digests := map[uint64]uint64{}
	owners := map[block.Key]string{}
	for _, n := range s.nodes {
		if n.down {
			continue
		}
		led := n.m.Ledger()
		if d, ok := digests[led.Sequence()]; ok && d != led.Digest() && !s.diverged {
			s.diverged = true
			s.printf("I8: %s has another digest at %d", n.name, led.Sequence())
		}
		digests[led.Sequence()] = led.Digest()
		for _, b := range n.m.sorted(func(b *local) bool { return n.m.acting(b) && !b.undecided && n.m.Serving(s.now) }) {
			if other, ok := owners[b.key]; ok {
				s.fatalf("I1: %s and %s own %s", other, n.name, s.keys[b.key])
			}
			owners[b.key] = n.name
		}
	}
}
