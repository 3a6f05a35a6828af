package sim

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// Result is what came of a run.
type Result struct {
	Plan       Plan
	Violation  *Violation // nil: everything held
	Operations int        // that clients began
	Messages   int        // of the log
	Losses     int        // that were declared
	Took       time.Duration
	Trace      []string
}

// Run lets one cluster live by a plan. The trace is kept if asked for.
func Run(plan Plan, trace bool) Result {
	w := newWorld(plan)
	w.tracing = trace
	func() {
		defer func() {
			if r := recover(); r != nil {
				w.fail("panic", "%v\n%s", r, debug.Stack())
			}
		}()
		w.live()
	}()
	r := Result{Plan: plan, Violation: w.violation, Operations: len(w.history), Messages: len(w.log.entries), Took: w.now, Trace: w.trace}
	for _, k := range w.keys {
		r.Losses += len(k.losses)
	}
	return r
}

// live is the whole run: operations under faults, then without, then quiet.
func (w *World) live() {
	for i, n := range w.nodes {
		if i == len(w.nodes)-1 && w.plan.Late1 {
			w.after(lease, n.start)
			continue
		}
		n.start()
	}
	for _, c := range w.clients {
		w.after(time.Duration(c.index+1)*time.Millisecond, c.next)
	}
	lastFault := time.Duration(0)
	for i, f := range w.plan.Faults {
		if w.plan.keep.fault(i) {
			w.after(f.at, func() { w.inject(f) })
			lastFault = max(lastFault, f.at+f.lasts)
		}
	}
	w.runUntil(min(lastFault+lease/4, 8*lease), func() bool { return false })
	w.heal()
	lastOp := w.now
	for _, o := range w.plan.Ops {
		lastOp = max(lastOp, o.at)
	}
	w.runUntil(lastOp+settleWithin, func() bool { return w.open == 0 && len(w.queue) > 0 })
	w.settle()
	if w.violation == nil {
		w.checkSettled()
		for _, k := range w.keys {
			w.checkLinear(k)
		}
	}
}

// settle lets every node read every block, and a barrier end: L1.
func (w *World) settle() {
	if w.violation == nil && w.open > 0 {
		w.fail("L1", "%d operations have not ended %v after the faults", w.open, settleWithin)
	}
	for _, n := range w.nodes {
		c := &client{w: w, index: len(w.clients), at: n.index, seen: make([]ledger.Version, len(w.keys)), present: make([]ledger.Value, len(w.keys))}
		w.clients = append(w.clients, c)
		if n.index == 0 {
			c.todo = append(c.todo, plannedOp{kind: opBarrier, move: -1})
		}
		for i := range w.keys {
			c.todo = append(c.todo, plannedOp{kind: opRead, name: i, move: -1})
		}
		c.next()
	}
	w.runUntil(w.now+settleWithin, func() bool { return w.open == 0 })
	if w.violation == nil && w.open > 0 {
		w.fail("L1", "%d last operations have not ended within %v", w.open, settleWithin)
	}
	w.runUntil(w.now+settleWithin, func() bool { return w.lacking() == nil })
	if k := w.lacking(); w.violation == nil && k != nil {
		w.fail("L1", "%s has the homes %v and never gets more", k.name, k.head.Value.Homes)
	}
	// Wait until all have applied the whole log at one moment.
	w.runUntil(w.now+settleWithin, w.quiet)
	if w.violation == nil && !w.quiet() {
		w.fail("L1", "the nodes do not catch up with the log, or stay dirty")
	}
}

// lacking is a block that has fewer homes than it should have, and could have.
func (w *World) lacking() *keyState {
	durable := 0
	for _, n := range w.nodes {
		if n.durable {
			durable++
		}
	}
	for _, k := range w.keys {
		v := k.head.Value
		lost := slices.ContainsFunc(v.Homes[:], func(h uint16) bool {
			return h != 0 && w.named(w.log.head.Member(h).ID).wiped[number(v.Object)]
		})
		if !v.Object.IsZero() && !lost && v.Homes.Count() < min(k.space.Homes, durable) {
			return k
		}
	}
	return nil
}

func (w *World) quiet() bool {
	for _, n := range w.nodes {
		if n.p == nil || n.p.cursor != w.log.sequence || !n.p.m.Serving(n.clock()) {
			return false
		}
		if _, dirty := n.p.m.Owned(); dirty > 0 {
			return false
		}
	}
	return true
}

// inject lets a fault happen.
func (w *World) inject(f fault) {
	if w.healed {
		return
	}
	n, other := w.nodes[f.node], w.nodes[f.other]
	w.tracef("!!! %s: %s, %s, for %v", faultNames[f.kind], n.id, other.id, f.lasts)
	lasts := f.lasts
	during := func(counter *int) {
		*counter++
		w.after(lasts, func() {
			if !w.healed { // which has ended it
				*counter--
				w.kick()
			}
		})
	}
	switch f.kind {
	case crash, wipe:
		w.crash(n, f)
	case crashMid:
		if n.p != nil {
			p := n.p
			p.midway, p.then = f.n, func() { w.crash(n, f) }
		}
	case pause:
		w.halt(n.p, f.lasts)
	case pauseMid:
		if p := n.p; p != nil && !p.paused {
			p.midway, p.then = f.n, func() { w.halt(p, f.lasts) }
		}
	case split:
		during(&w.cut[f.node][f.other])
		during(&w.cut[f.other][f.node])
	case oneWay:
		during(&w.cut[f.node][f.other])
	case cutLog:
		during(&n.unheard)
		lasts = lasts * time.Duration(f.n+1) / 4 // it reads again before it is heard again
		during(&n.deaf)
	case mute:
		during(&n.unheard)
	case logDown:
		during(&w.log.down)
	case slow:
		n.lag = lease / 16 << f.n
		during(&n.slow)
	case full:
		during(&n.full)
	case lossy:
		during(&w.lossy)
	default:
		w.injectMore(f, n)
	}
}

func (w *World) injectMore(f fault, n *node) {
	p := n.p
	switch f.kind {
	case leave:
		if p != nil {
			n.downFor++
			p.run(func() { p.step(protocol.Leave{}) })
			w.after(f.lasts, func() {
				n.downFor = max(n.downFor-1, 0)
				n.start()
			})
		}
	case evict:
		if p != nil {
			for _, o := range sortedKeys(p.hot) {
				if _, pinned := p.pins[o]; !pinned && !p.writing[o] {
					delete(p.hot, o)
				}
			}
		}
	case gone:
		if p != nil && p.usable() && len(p.pins) > 0 {
			o := sortedKeys(p.pins)[0]
			key := p.pins[o]
			delete(p.hot, o)
			if _, ok := n.disk[o]; !ok {
				p.step(protocol.Gone{Key: key, Object: objectKey(o)})
			}
		}
	case garbage:
		w.log.append(nil, mix(w.plan.Seed))
	case trim:
		w.trim(f)
	case drain:
		n.drains++
		w.tellDraining()
		w.after(f.lasts, func() {
			if !w.healed { // which has ended it
				n.drains--
				w.tellDraining()
			}
		})
	case distrust:
		if p != nil {
			p.run(func() {
				p.distrusts = true
				p.step(protocol.Stop{Err: errDistrust})
			})
			w.after(f.lasts, func() {
				if n.p == p {
					n.stop()
					n.start()
				}
			})
		}
	}
}

var errDistrust = errors.New("the simulation says so")

// trim takes a snapshot of the log, and forgets a part of what it holds.
func (w *World) trim(f fault) {
	var b bytes.Buffer
	if err := w.log.head.Snapshot(&b); err != nil {
		w.fail("I8", "no snapshot: %v", err)
	}
	w.log.snapshot = b.Bytes()
	if f.n > 0 && len(w.log.entries) > 0 {
		w.log.trimmed = w.log.entries[(len(w.log.entries)-1)/f.n].sequence
	}
}

// crash ends a process, and with it what was not synced.
func (w *World) crash(n *node, f fault) {
	n.downFor++
	n.stop()
	if f.kind == wipe {
		n.wipe()
	}
	w.after(f.lasts, func() {
		n.downFor = max(n.downFor-1, 0)
		n.start()
	})
}

func (w *World) halt(p *proc, d time.Duration) {
	if p == nil || p.paused {
		return
	}
	w.tracef("%s is paused for %v", p.n.id, d)
	p.paused = true
	w.after(d, p.resume)
}

// kick lets the log flow again.
func (w *World) kick() {
	for _, n := range w.nodes {
		if n.p != nil {
			n.p.pump()
		}
	}
}

// heal ends all faults.
func (w *World) heal() {
	w.tracef("=== faults are over")
	w.healed = true
	w.log.down, w.lossy = 0, 0
	for i, n := range w.nodes {
		clear(w.cut[i])
		n.unheard, n.deaf, n.slow, n.full, n.downFor, n.drains = 0, 0, 0, 0, 0, 0
		if n.p != nil {
			n.p.midway = -1
			n.p.resume()
			if n.p != nil && n.p.distrusts {
				n.stop()
			}
		}
		n.start()
	}
	w.tellDraining()
	w.kick()
}

// tellDraining lets every node know, sooner or later, which members are about to leave.
func (w *World) tellDraining() {
	for _, n := range w.nodes {
		if p := n.p; p != nil {
			p.later(time.Duration(w.net.Int64N(int64(lease/2))), func() {
				p.draining = w.draining()
				p.step(protocol.Draining{Members: p.draining})
			})
		}
	}
}

// draining are the nodes that are about to leave.
func (w *World) draining() (ids []string) {
	for _, n := range w.nodes {
		if n.drains > 0 {
			ids = append(ids, n.id)
		}
	}
	return ids
}

func newWorld(plan Plan) *World {
	w := &World{
		plan: plan, net: newRand(plan.Seed, 4), byKey: map[block.Key]*keyState{}, lost: map[valueID]uint64{},
		made: map[valueID]ledger.Version{}, asked: map[inquiry]map[int]bool{},
	}
	w.log = simLog{w: w, seen: map[messageID]time.Duration{}, left: map[messageID]bool{}, head: ledger.New(ledger.NewMapTable(), plan.Config.History)}
	for i := range plan.Nodes {
		w.nodes = append(w.nodes, &node{w: w, index: i, id: fmt.Sprintf("n%d", i+1), rate: int64(plan.Rates[i]),
			disk: map[uint64]diskObject{}, wiped: map[uint64]bool{}, durable: i != plan.Diskless})
		w.cut = append(w.cut, make([]int, plan.Nodes))
	}
	for i := range plan.Names {
		ns := []string{"a", "b"}[i%2]
		name := []byte{'x' + byte(i)}
		k := &keyState{index: i, key: block.NamedKey(ns, name, 0), namespace: ns, name: name, space: plan.Spaces[i%2]}
		k.head = ledger.Pointer{Key: k.key, Namespace: ns, Name: name}
		w.keys = append(w.keys, k)
		w.byKey[k.key] = k
	}
	for i := range plan.Users {
		w.clients = append(w.clients, &client{w: w, index: i, at: i % plan.Nodes, seen: make([]ledger.Version, plan.Names),
			present: make([]ledger.Value, plan.Names)})
	}
	for i, o := range plan.Ops {
		if plan.keep.op(i) {
			w.clients[o.user].todo = append(w.clients[o.user].todo, o)
		}
	}
	return w
}
