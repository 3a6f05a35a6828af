package sim

import (
	"slices"

	"cairn/coherency/ledger"
)

// applyHead applies a message to the ledger that is always at the end of the log, and
// checks what the log may say.
func (w *World) applyHead(e *entry) {
	head := w.log.head
	if e.message == nil {
		head.Skip(e.sequence, e.sum)
		e.digest = head.Digest()
		w.tracef("log %d: garbage", e.sequence)
		return
	}
	revokes := make([]*ledger.Record, len(w.keys))
	author := e.message.Node
	head.Apply(e.sequence, e.message, e.sum, func(r *ledger.Record, o *ledger.Outcome) {
		if w.tracing {
			w.tracef("log %d.%d: %s: %s %s", e.sequence, o.Place.Index(), author, describeRecord(r), o.Verdict)
		}
		if o.Verdict != ledger.Effective {
			return
		}
		if id := idOf(o.After.Value); id.object != 0 && w.made[id] == 0 { // a loss gives an old value a new version
			w.made[id] = o.After.Version
		}
		switch r.Kind {
		case ledger.Revoke:
			revokes[w.byKey[r.Key].index] = r
			if r.Flags.Has(ledger.Lost) {
				e.losses++
			}
		case ledger.Expire:
			w.checkExpired(r)
		case ledger.Leave:
			w.log.left[messageID{node: author, incarnation: e.message.Incarnation}] = true
		case ledger.Barrier:
			w.log.barrier = w.order
		case ledger.Advance:
			e.passed++
			w.checkPassed()
		}
	})
	e.digest = head.Digest()
	w.settleLosses()
	for i, k := range w.keys {
		before := k.head
		after, ok := head.Lookup(k.key)
		if !ok { // nobody has written it yet
			after = head.Pointer(&ledger.Record{Key: k.key, Namespace: k.namespace, Name: k.name})
		}
		if samePointer(before, after) {
			continue
		}
		k.head = after
		e.after = append(e.after, after)
		w.checkChange(k, before, after, revokes[i], author)
	}
}

func samePointer(a, b ledger.Pointer) bool {
	return a.Version == b.Version && a.Value == b.Value && a.Token == b.Token && a.Owner == b.Owner &&
		a.OwnerIncarnation == b.OwnerIncarnation && a.Changed == b.Changed && a.Copies == b.Copies && a.Lease == b.Lease
}

// checkExpired: I2, a lease that is held is never expired.
func (w *World) checkExpired(r *ledger.Record) {
	n := w.named(r.Member)
	if n.p != nil && n.p.m.Incarnation() == r.Incarnation && n.p.m.Serving(n.clock()) {
		w.fail("I2", "%s is expired while it holds its lease", n.id)
	}
}

// checkPassed: I6, what was acknowledged before the barrier is home, or was declared
// lost, which makes a later version.
func (w *World) checkPassed() {
	for _, k := range w.keys {
		if p, _ := w.log.head.Lookup(k.key); k.acked(w.log.barrier, nil) > p.Version {
			w.fail("I6", "a barrier is passed, but %s is at version %x, and %x was acknowledged before", k.name, p.Version,
				k.acked(w.log.barrier, nil))
		}
	}
}

// checkChange checks a change of a pointer: I3, I5, I7, I9.
func (w *World) checkChange(k *keyState, before, after ledger.Pointer, revoke *ledger.Record, author string) {
	id := idOf(after.Value)
	if w.tracing {
		w.tracef("    %s: version %x %v, token %x", k.name, after.Version, id, after.Token)
	}
	if after.Version < before.Version {
		w.fail("I4", "the version of %s goes back from %x to %x", k.name, before.Version, after.Version)
	}
	if l := k.local(after.Version); l != nil && l.value != id {
		w.fail("I5", "version %x of %s was %v at its owner, and is %v in the log", after.Version, k.name, l.value, id)
	}
	w.checkHomes(k, after)
	if at, ok := w.lost[id]; ok && id.object != 0 && after.Version != before.Version {
		w.fail("I7", "%v of %s was declared lost at %d, and is back", id, k.name, at)
	}
	if before.Token == 0 || after.Token == before.Token {
		return
	}
	acked := k.acked(ever, func(a *ack) bool { return a.token == before.Token })
	if revoke == nil || !revoke.Flags.Has(ledger.Lost) {
		if acked > after.Version {
			w.fail("I5", "an ownership of %s ends silently with version %x, and %x was acknowledged", k.name, after.Version, acked)
		}
		return
	}
	w.checkLoss(k, before, after, revoke, acked, author)
}

// checkLoss notes what is declared lost: an operation that puts the block back.
func (w *World) checkLoss(k *keyState, before, after ledger.Pointer, revoke *ledger.Record, acked ledger.Version, author string) {
	base := before.Version
	if !revoke.Flags.Has(ledger.Unchanged) {
		base = max(base, revoke.Version)
	}
	for _, l := range k.locals {
		if l.token == before.Token && l.version > base && l.value != idOf(after.Value) {
			w.lost[l.value] = w.log.sequence
		}
	}
	loss := &operation{key: k, kind: opLoss, outcome: done, call: w.tick(), ret: w.tick(), version: after.Version, value: idOf(after.Value)}
	k.losses = append(k.losses, loss)
	if after.Lease {
		// In lease mode a member that has not applied it may serve the version before,
		// until all have.
		loss.ret = ever
		w.unsettled = append(w.unsettled, unsettledLoss{loss, w.log.sequence})
	}
	if l := k.local(acked); before.Copies > 0 && acked > base && l != nil {
		asked := w.asked[inquiry{author, k.key, before.Token}]
		holders := 0
		for _, h := range l.homes {
			if h == 0 {
				continue
			}
			n := w.named(w.log.head.Member(h).ID)
			if _, has := n.disk[l.value.object]; has && asked[n.index] {
				holders++
			}
		}
		if holders > 0 || l.homes.Count() == 0 && l.value.object != 0 {
			w.fail("I9", "version %x of %s is declared lost, and %d homes have it", acked, k.name, holders)
		}
	}
}

// unsettledLoss is a declared loss that some live member has not applied.
type unsettledLoss struct {
	o        *operation
	sequence uint64
}

// settleLosses ends the losses that all live members have applied by now.
func (w *World) settleLosses() {
	if len(w.unsettled) == 0 {
		return
	}
	settled := w.log.head.Settled()
	w.unsettled = slices.DeleteFunc(w.unsettled, func(u unsettledLoss) bool {
		if u.sequence <= settled {
			u.o.ret = w.tick()
		}
		return u.sequence <= settled
	})
}

// checkHomes: I3, the pointer's bytes are durable at its homes.
func (w *World) checkHomes(k *keyState, p ledger.Pointer) {
	if p.Value.Object.IsZero() {
		return
	}
	if p.Value.Homes.Count() == 0 {
		w.fail("I3", "%s has %v, and no home", k.name, idOf(p.Value))
	}
	for _, h := range p.Value.Homes {
		if h == 0 {
			continue
		}
		n, o := w.named(w.log.head.Member(h).ID), number(p.Value.Object)
		if _, ok := n.disk[o]; !ok && !n.wiped[o] {
			w.fail("I3", "%s has %v, and its home %s has not", k.name, idOf(p.Value), n.id)
		}
	}
}

// checkErased: I3, a home keeps what the log says that it has.
func (w *World) checkErased(n *node, o uint64, why string) {
	for _, k := range w.keys {
		if number(k.head.Value.Object) != o {
			continue
		}
		for _, h := range k.head.Value.Homes {
			if h != 0 && w.log.head.Member(h).ID == n.id {
				w.fail("I3", "%s drops #%d (%s), which %s has", n.id, o, why, k.name)
			}
		}
	}
}
