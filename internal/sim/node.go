package sim

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// node is one machine of the cluster: its clock, its disk, its network. The process on
// it comes and goes.
type node struct {
	w       *World
	index   int
	id      string
	rate    int64 // of its clock, in parts per thousand more than true time
	boots   uint64
	disk    map[uint64]diskObject
	wiped   map[uint64]bool // objects that were durable here until the disk was lost
	p       *proc           // nil: no process
	durable bool
	// A new disk knows from the log that the node had another one before, and up to
	// where it cannot know what was on that.
	newDisk  bool
	lostDisk bool
	lostAt   uint64

	// How many faults of each kind it has at present.
	unheard int // its messages do not reach the log
	deaf    int // the log does not reach it
	slow    int
	lag     time.Duration // the most that a slow node takes for a message
	full    int
	drains  int
	downFor int // faults that keep it from starting
}

// diskObject is a durable object, with what the home has to know of it.
type diskObject struct {
	content uint64
	arrived protocol.Arrived // zero Author: it came in another way
}

// proc is one process: a Machine and the part of the node runtime that the simulation
// models. It loses everything but the node's disk when it dies.
type proc struct {
	n      *node
	m      *protocol.Machine
	dead   bool
	paused bool
	midway int               // effects that the next step carries out before something happens; -1: nothing will
	then   func()            // what happens then
	held   []protocol.Effect // effects that wait for the end of a pause
	inbox  []func()          // what came in a pause
	ops    map[protocol.Op]func(protocol.Effect)
	calls  map[protocol.Op]*operation     // what clients wait for, also when they do not any more
	owner  map[protocol.Op]ledger.Version // reads that were forwarded to this node: the token
	nextOp protocol.Op

	pubs    []*publishing
	cursor  uint64 // last sequence delivered
	boot    uint64 // where the log ended when the process began
	caught  bool
	pumping bool
	// distrusts: it was told to stop.
	distrusts bool
	draining  []string // members that it takes to be about to leave

	hot     map[uint64]uint64 // objects in memory
	writing map[uint64]bool   // of writes that have not ended
	pins    map[uint64]block.Key
	floors  map[floor]ledger.Version // what local reads have seen
}

type floor struct {
	incarnation uint64
	key         block.Key
}

// clock is the node's own, which never goes back.
func (n *node) clock() time.Duration {
	return n.w.now + n.w.now*time.Duration(n.rate)/1000 + time.Duration(n.index+1)*time.Hour
}

// wall is the node's wall clock, in milliseconds.
func (n *node) wall() int64 { return n.clock().Milliseconds() }

// boot starts a process on the node.
func (n *node) start() {
	w := n.w
	if n.p != nil || n.downFor > 0 {
		return
	}
	n.boots++
	cfg := w.plan.Config
	cfg.Node, cfg.Incarnation, cfg.Durable = n.id, n.boots<<20, n.durable
	p := &proc{
		n: n, midway: -1, boot: w.log.sequence,
		ops: map[protocol.Op]func(protocol.Effect){}, calls: map[protocol.Op]*operation{}, owner: map[protocol.Op]ledger.Version{}, hot: map[uint64]uint64{}, writing: map[uint64]bool{},
		pins: map[uint64]block.Key{}, floors: map[floor]ledger.Version{},
	}
	led := p.loadLedger(cfg.History)
	p.cursor = led.Sequence()
	m, err := protocol.New(cfg, led, n.clock())
	if err != nil {
		panic(err) // the plan is wrong
	}
	p.m, n.p = m, p
	if p.draining = w.draining(); len(p.draining) > 0 {
		p.step(protocol.Draining{Members: p.draining})
	}
	w.tracef("%s starts, incarnation %d, from %d, the log ends at %d", n.id, cfg.Incarnation, p.cursor, p.boot)
	p.later(time.Duration(n.index+1)*time.Millisecond, p.tick)
	p.pump()
	p.later(time.Millisecond, func() { // an empty log delivers nothing
		if !p.caught && p.boot <= p.cursor {
			p.caughtUp()
		}
	})
}

// loadLedger is a new ledger or, when the log is trimmed or by chance, one from a snapshot.
func (p *proc) loadLedger(history int) *ledger.Ledger {
	w := p.n.w
	if w.log.snapshot != nil && (w.log.trimmed > 0 || w.chance(0.5)) {
		led, err := ledger.LoadSnapshot(bytes.NewReader(w.log.snapshot), ledger.NewMapTable(), history)
		if err == nil {
			return led
		}
		w.fail("I8", "the snapshot cannot be loaded: %v", err)
	}
	return ledger.New(ledger.NewMapTable(), history)
}

func (p *proc) caughtUp() {
	p.caught = true
	if p.n.newDisk {
		p.n.newDisk, p.n.lostDisk, p.n.lostAt = false, true, p.cursor
	}
	p.step(protocol.CaughtUp{})
	// What lies on the disk and no record has named yet is told to the machine
	// again, as when it arrived.
	for _, object := range sortedKeys(p.n.disk) {
		if a := p.n.disk[object].arrived; a.Author != "" && p.usable() {
			p.step(a)
		}
	}
}

func sortedKeys[V any](m map[uint64]V) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// usable tells whether the process can do something now.
func (p *proc) usable() bool { return !p.dead && !p.paused }

// run does something in the process: now, after its pause, or never.
func (p *proc) run(f func()) {
	switch {
	case p.dead:
	case p.paused:
		p.inbox = append(p.inbox, f)
	default:
		f()
	}
}

// later runs f in the process after d, if it lives.
func (p *proc) later(d time.Duration, f func()) {
	p.n.w.after(d, func() { p.run(f) })
}

func (p *proc) tick() {
	p.step(protocol.Tick{})
	p.later(tickEvery, p.tick)
}

// step gives the machine an event, checks what it does, and carries it out.
func (p *proc) step(ev protocol.Event) {
	w := p.n.w
	if w.violation != nil || p.dead {
		return
	}
	effects := p.m.Step(p.n.clock(), ev)
	w.checkStep(p, ev, effects)
	if p.midway >= 0 {
		n := min(p.midway, len(effects))
		p.midway = -1
		for _, e := range effects[:n] {
			p.carry(e)
		}
		p.held = append(p.held, effects[n:]...)
		p.then()
		return
	}
	for _, e := range effects {
		p.carry(e)
	}
}

// carry does what an effect asks for.
func (p *proc) carry(e protocol.Effect) {
	w := p.n.w
	if w.tracing {
		p.traceEffect(e)
	}
	switch e := e.(type) {
	case protocol.Publish:
		p.publish(e.Message)
	case protocol.Reply:
		p.answered(e.Op, e)
	case protocol.Serve:
		p.answered(e.Op, e)
	case protocol.Forward:
		p.answered(e.Op, e)
	case protocol.Stage:
		p.stage(e)
	case *protocol.Moved:
		if o := number(e.Before.Value.Object); o != 0 && e.Before.Value.Object != e.After.Value.Object {
			p.drop(o, "moved")
		}
		if o := number(e.After.Value.Object); o != 0 {
			if d, ok := p.n.disk[o]; ok {
				d.arrived.Author = "" // decided
				p.n.disk[o] = d
			}
		}
	case protocol.Local:
		if o := number(e.Value.Object); o != 0 {
			p.pins[o] = e.Key
		}
		p.unpin(number(e.Drop))
	case protocol.Flushed:
		delete(p.pins, number(e.Object))
	case protocol.LocalGone:
		for _, o := range sortedKeys(p.pins) {
			if p.pins[o] == e.Key {
				delete(p.pins, o)
			}
		}
		p.unpin(number(e.Drop))
	case protocol.Collect:
		p.drop(number(e.Object), "collected")
	case protocol.Inquire:
		p.inquire(e)
	case protocol.Scan:
		p.scan(e)
	case protocol.Replicate:
		p.replicate(e)
	case protocol.Declared, protocol.Cleared, protocol.Passed:
	case protocol.Alarm:
		if !p.distrusts {
			w.fail("I8", "%s raises an alarm: %s", p.n.id, e.Reason)
		}
	case protocol.Left:
		p.n.stop()
		if w.healed {
			w.after(renew, p.n.start)
		}
	default:
		w.fail("effects", "%s has an unknown effect %T", p.n.id, e)
	}
}

func (p *proc) answered(op protocol.Op, e protocol.Effect) {
	f := p.ops[op]
	if f == nil {
		p.n.w.fail("answers", "%s answers operation %d, which has ended: %v", p.n.id, op, e)
		return
	}
	delete(p.ops, op)
	f(e)
}

// unpin drops an object of a version that is superseded; a copy that this node has as a
// home is not meant.
func (p *proc) unpin(o uint64) {
	if o != 0 {
		delete(p.pins, o)
		delete(p.hot, o)
	}
}

// drop deletes every copy of an object here.
func (p *proc) drop(o uint64, why string) {
	delete(p.pins, o)
	delete(p.hot, o)
	p.n.erase(o, why)
}

// erase deletes a durable object, which no home that the log names may do (I3).
func (n *node) erase(o uint64, why string) {
	if _, ok := n.disk[o]; !ok {
		return
	}
	delete(n.disk, o)
	n.w.checkErased(n, o, why)
}

// stop ends the process, whatever it is doing.
func (n *node) stop() {
	p := n.p
	if p == nil {
		return
	}
	n.w.tracef("%s ends", n.id)
	p.dead, p.inbox, p.held, n.p = true, nil, nil, nil
	if !n.durable { // it was a home in memory only
		n.wipe()
	}
	for _, c := range n.w.clients {
		c.interrupted(p)
	}
}

// wipe loses the disk; the node comes back with an empty one.
func (n *node) wipe() {
	for o := range n.disk {
		n.wiped[o] = true
	}
	clear(n.disk)
	n.newDisk = true
}

// resume ends a pause: what the process was about to do comes first.
func (p *proc) resume() {
	if p.dead || !p.paused {
		return
	}
	p.n.w.tracef("%s goes on", p.n.id)
	p.paused = false
	held, inbox := p.held, p.inbox
	p.held, p.inbox = nil, nil
	for _, e := range held {
		p.carry(e)
	}
	for _, f := range inbox {
		p.run(f)
	}
}

// scan checks the blocks that a Scan asks for.
func (p *proc) scan(e protocol.Scan) {
	led := p.m.Ledger()
	for _, k := range p.n.w.keys {
		ptr, ok := led.Lookup(k.key)
		if !ok {
			continue
		}
		if e.Orphans && ptr.Owned() && !led.Acting(ptr) || e.Homes && p.homeless(k, ptr) {
			p.later(time.Millisecond, func() { p.step(protocol.Check{Key: k.key, Space: k.space}) })
		}
	}
}

// homeless tells whether this node is home of a block that has fewer live ones than it
// should have; those that are about to leave do not count.
func (p *proc) homeless(k *keyState, ptr ledger.Pointer) bool {
	led := p.m.Ledger()
	self, ok := led.Find(p.n.id)
	if !ok || !ptr.Value.Homes.Has(self.Number) {
		return false
	}
	live := 0
	for _, h := range ptr.Value.Homes {
		if h != 0 && led.Member(h).Live && !slices.Contains(p.draining, led.Member(h).ID) {
			live++
		}
	}
	return live < max(ptr.Value.Homes.Count(), k.space.Homes, k.space.Copies)
}

// named is the node with a name.
func (w *World) named(id string) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	panic(fmt.Sprintf("sim: no node %q", id))
}

// home is the node of a member's number.
func (p *proc) home(number uint16) *node { return p.n.w.named(p.m.Ledger().Member(number).ID) }
