package sim

import (
	"slices"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// keyState is one mutable block, and what the checks know of it.
type keyState struct {
	index     int
	key       block.Key
	namespace string
	name      []byte
	space     protocol.Space
	head      ledger.Pointer // what the log says now
	acks      []ack
	locals    []local
	losses    []*operation
}

// ack is an acknowledged write.
type ack struct {
	order   int64
	at      time.Duration
	version ledger.Version
	token   ledger.Version // of the ownership under which it was written; 0: none
	all     bool           // WriteAll
}

// local is a version that an owner has made.
type local struct {
	version, token ledger.Version
	value          valueID
	homes          ledger.Homes
}

func (k *keyState) local(v ledger.Version) *local {
	for i := len(k.locals) - 1; i >= 0; i-- {
		if k.locals[i].version == v {
			return &k.locals[i]
		}
	}
	return nil
}

// acked is the newest version that was acknowledged before an order, of those that match.
func (k *keyState) acked(before int64, match func(*ack) bool) ledger.Version {
	var newest ledger.Version
	for i := range k.acks {
		if a := &k.acks[i]; a.order < before && a.version > newest && (match == nil || match(a)) {
			newest = a.version
		}
	}
	return newest
}

const ever = int64(1) << 62

// checkStep checks what a machine has just decided, at the time at which it did.
func (w *World) checkStep(p *proc, ev protocol.Event, effects []protocol.Effect) {
	n := p.n
	if p.m.Serving(n.clock()) {
		mem, _ := w.log.head.Find(n.id)
		inc := p.m.Incarnation()
		if (!mem.Live || mem.Incarnation != inc) && !w.log.left[messageID{node: n.id, incarnation: inc}] {
			w.fail("I2", "%s has a lease as incarnation %d, and is no member", n.id, inc)
		}
	}
	losses, passed := 0, 0
	for _, e := range effects {
		switch e := e.(type) {
		case protocol.Local:
			w.checkLocal(p, e)
		case protocol.Reply:
			w.checkReply(p, e)
		case protocol.Serve:
			w.checkServe(p, e)
		case protocol.Declared:
			losses++
		case protocol.Passed:
			passed++
		}
	}
	if d, ok := ev.(protocol.Delivered); ok {
		e := &w.log.entries[w.log.find(d.Sequence-1)]
		if losses != e.losses || passed != e.passed {
			w.fail("I5", "%s declares %d losses at %d, and %d were", n.id, losses, d.Sequence, e.losses)
		}
		w.checkSame(p, e)
	}
}

// checkSame: I8, the same log means the same at every node.
func (w *World) checkSame(p *proc, e *entry) {
	led := p.m.Ledger()
	if led.Sequence() != e.sequence || led.Digest() != e.digest {
		w.fail("I8", "%s has digest %x at %d, want %x at %d", p.n.id, led.Digest(), led.Sequence(), e.digest, e.sequence)
	}
	for _, want := range e.after {
		if got, ok := led.Lookup(want.Key); ok && !samePointer(got, want) {
			w.fail("I8", "%s has %+v at %d, want %+v", p.n.id, got, e.sequence, want)
		}
	}
}

// actsFor: I1, whoever acts as owner is it by the end of the log, as nobody else can be.
func (w *World) actsFor(p *proc, k *keyState, token ledger.Version, what string) {
	h := k.head
	head := w.log.head
	if h.Token == 0 || h.Token != token && token != 0 || head.Member(h.Owner).ID != p.n.id || !head.Acting(h) ||
		h.OwnerIncarnation != p.m.Incarnation() {
		w.fail("I1", "%s %s %s as owner by %x, and the log says token %x, owner %d, incarnation %d", p.n.id, what, k.name, token,
			h.Token, h.Owner, h.OwnerIncarnation)
	}
}

func (w *World) checkLocal(p *proc, e protocol.Local) {
	k := w.byKey[e.Key]
	if c := p.m.Ledger().Cleared(k.namespace); c != 0 && e.Version.Place().Sequence() == c.Sequence() && e.Value.Object.IsZero() {
		return // what a Clear leaves of an owned block
	}
	w.actsFor(p, k, 0, "writes")
	if id := idOf(e.Value); w.made[id] == 0 {
		w.made[id] = e.Version
	}
	k.locals = append(k.locals, local{e.Version, k.head.Token, idOf(e.Value), e.Value.Homes})
}

// checkReply notes what is acknowledged.
func (w *World) checkReply(p *proc, e protocol.Reply) {
	o := p.calls[e.Op]
	if o == nil || o.kind != opWrite || e.Err != nil || o.outcome != pending {
		return
	}
	k := o.key
	a := ack{order: w.tick(), at: w.now, version: e.After.Version, all: o.plan.policy == coherency.WriteAll}
	if l := k.local(a.version); l != nil {
		a.token = l.token
	}
	k.acks = append(k.acks, a)
}

// checkServe checks what a machine answers a read with.
func (w *World) checkServe(p *proc, e protocol.Serve) {
	k := w.byKey[e.Pointer.Key]
	id := idOf(e.Pointer.Value)
	if at, ok := w.lost[id]; ok && id.object != 0 && p.cursor >= at {
		w.fail("I7", "%s serves %v of %s, which was declared lost at %d", p.n.id, id, k.name, at)
	}
	if token, ok := p.owner[e.Op]; ok {
		w.actsFor(p, k, token, "answers for")
		return
	}
	led := p.m.Ledger()
	if ptr, _ := led.Lookup(k.key); ptr.Owned() && led.Member(ptr.Owner).ID == p.n.id {
		w.actsFor(p, k, ptr.Token, "reads")
	}
	o := p.calls[e.Op]
	if o == nil || o.plan.level == protocol.Strict {
		return
	}
	at := floor{p.m.Incarnation(), k.key}
	if v := e.Pointer.Version; v < p.floors[at] {
		w.fail("local", "%s serves version %x of %s after %x", p.n.id, v, k.name, p.floors[at])
	}
	p.floors[at] = e.Pointer.Version
	all := k.acked(o.call, func(a *ack) bool { return a.all })
	if mem, _ := w.log.head.Find(p.n.id); e.Pointer.Version < all && mem.Live && p.m.Serving(p.n.clock()) {
		w.fail("write-all", "%s, a live member, serves version %x of %s, and %x was acknowledged by all", p.n.id, e.Pointer.Version,
			k.name, all)
	}
}

// checkRead checks what the weaker levels promise.
func (w *World) checkRead(c *client, o *operation) {
	k := o.key
	switch {
	case o.plan.level == protocol.Session && o.plan.session:
		if seen := c.seen[k.index]; o.version < seen {
			w.fail("session", "c%d reads version %x of %s after %x", c.index, o.version, k.name, seen)
		}
	case o.plan.level == protocol.Bounded:
		// One that waits for a fence, or asks the owner, is as fresh as when it began.
		since := o.callAt - o.plan.bound - o.plan.bound*drift/1000
		if v := k.acked(ever, func(a *ack) bool { return a.at < since }); o.version < v {
			w.fail("bounded", "a read of %s within %v gives version %x, and %x was acknowledged before that", k.name, o.plan.bound,
				o.version, v)
		}
	}
}

// checkEnd checks a barrier at its answer: I6.
func (w *World) checkEnd(o *operation) {
	if o.kind != opBarrier || o.outcome != done {
		return
	}
	for _, k := range w.keys {
		if v := k.acked(o.call, nil); v > k.head.Version {
			w.fail("I6", "a barrier ends, and version %x of %s, which was acknowledged before, is not home", v, k.name)
		}
	}
}

// checkSettled compares every node with the log when all is quiet: I8.
func (w *World) checkSettled() {
	for _, n := range w.nodes {
		if n.p == nil {
			continue
		}
		led, head := n.p.m.Ledger(), w.log.head
		if led.Sequence() != head.Sequence() || !slices.Equal(led.Members(), head.Members()) || led.Epoch() != head.Epoch() ||
			led.Barrier() != head.Barrier() || led.Orphaned() != head.Orphaned() || led.Losses() != head.Losses() {
			w.fail("I8", "%s has another state at %d than the log: %+v, want %+v", n.id, led.Sequence(), led.Members(), head.Members())
		}
		for _, k := range w.keys {
			if got, _ := led.Lookup(k.key); got.Key == k.key && !samePointer(got, k.head) {
				w.fail("I8", "%s has %+v in the end, want %+v", n.id, got, k.head)
			}
		}
	}
}
