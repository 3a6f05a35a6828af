package protocol

import (
	"fmt"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

// world is a cluster of machines with a perfect log and homes that never fail: what
// is published is in the log, and what is in the log is delivered when run is called.
type world struct {
	t       *testing.T
	now     time.Duration
	log     []*ledger.Message
	nodes   []*machineNode
	objects uint64
	ops     Op
}

type machineNode struct {
	m       *Machine
	name    string
	applied int
	events  []Event
	replies map[Op]Effect
	effects []Effect // all that are not messages, oldest first
	down    bool
}

func newWorld(t *testing.T, n int, change ...func(*Config)) *world {
	w := &world{t: t}
	for i := range n {
		w.join(fmt.Sprintf("n%d", i+1), 1, change...)
	}
	w.run()
	return w
}

func (w *world) join(name string, incarnation uint64, change ...func(*Config)) *machineNode {
	cfg := Config{Node: name, Incarnation: incarnation, Durable: true, Lease: time.Second, FlushAfter: 50 * time.Millisecond, RehomeAfter: 100 * time.Millisecond}
	for _, f := range change {
		f(&cfg)
	}
	m, err := New(cfg, ledger.New(ledger.NewMapTable(), 64), w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	n := &machineNode{m: m, name: name, replies: map[Op]Effect{}}
	for i, old := range w.nodes {
		if old.name == name {
			w.nodes[i] = n
			w.catchUp(n)
			return n
		}
	}
	w.nodes = append(w.nodes, n)
	w.catchUp(n)
	return n
}

func (w *world) catchUp(n *machineNode) {
	for n.applied < len(w.log) {
		w.deliver(n)
	}
	w.step(n, CaughtUp{})
}

func (w *world) deliver(n *machineNode) {
	n.applied++
	msg := *w.log[n.applied-1]
	w.step(n, Delivered{Sequence: uint64(n.applied), Message: &msg, Sum: uint64(n.applied)})
}

func (w *world) step(n *machineNode, e Event) {
	for _, eff := range n.m.Step(w.now, e) {
		switch eff := eff.(type) {
		case Publish:
			w.log = append(w.log, eff.Message)
		case Stage:
			for _, home := range eff.Homes {
				if h := w.node(home); !h.down {
					h.events = append(h.events, Arrived{Key: eff.Key, Author: n.name, Incarnation: eff.Incarnation, Token: eff.Token, Version: eff.Version, Value: eff.Value})
				}
			}
			n.events = append(n.events, Staged{Op: eff.Op})
		case Reply:
			n.replies[eff.Op] = eff
		case Serve:
			n.replies[eff.Op] = eff
		case Forward:
			n.replies[eff.Op] = eff
		default:
			n.effects = append(n.effects, eff)
		}
	}
}

func (w *world) node(name string) *machineNode {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	w.t.Fatalf("no node %s", name)
	return nil
}

// run goes on until nothing moves any more.
func (w *world) run() {
	for moved := true; moved; {
		moved = false
		for _, n := range w.nodes {
			if n.down {
				continue
			}
			for len(n.events) > 0 {
				e := n.events[0]
				n.events = n.events[1:]
				w.step(n, e)
				moved = true
			}
			if n.applied < len(w.log) {
				w.deliver(n)
				moved = true
			}
		}
	}
}

// pass lets time go by in steps of a tick.
func (w *world) pass(d time.Duration) {
	for end := w.now + d; w.now < end; {
		w.now += 25 * time.Millisecond
		for _, n := range w.nodes {
			if !n.down {
				w.step(n, Tick{})
			}
		}
		w.run()
	}
}

func (w *world) put(n *machineNode, name string, p coherency.WritePolicy, change ...func(*Write)) Op {
	w.ops++
	w.objects++
	wr := Write{Op: w.ops, Key: block.NamedKey("t", []byte(name), 0), Namespace: "t", Name: []byte(name), Space: Space{Homes: 1}, Policy: p,
		Value: ledger.Value{Object: block.NamedKey("t", []byte(name), w.objects), Length: 1, Sum: w.objects}}
	for _, f := range change {
		f(&wr)
	}
	w.step(n, wr)
	return wr.Op
}

func (w *world) read(n *machineNode, name string, change ...func(*Read)) Op {
	w.ops++
	r := Read{Op: w.ops, Key: block.NamedKey("t", []byte(name), 0)}
	for _, f := range change {
		f(&r)
	}
	w.step(n, r)
	return r.Op
}

func (w *world) replied(n *machineNode, op Op) Reply {
	w.t.Helper()
	r, ok := n.replies[op].(Reply)
	if !ok {
		w.t.Fatalf("operation %d at %s: %#v, want a reply", op, n.name, n.replies[op])
	}
	return r
}

func (w *world) served(n *machineNode, op Op) ledger.Pointer {
	w.t.Helper()
	s, ok := n.replies[op].(Serve)
	if !ok {
		w.t.Fatalf("operation %d at %s: %#v, want it served", op, n.name, n.replies[op])
	}
	return s.Pointer
}

func TestWriteThroughIsReadEverywhere(t *testing.T) {
	w := newWorld(t, 3)
	op := w.put(w.nodes[0], "a", coherency.WriteThrough)
	if w.nodes[0].replies[op] != nil {
		t.Fatal("acknowledged before it was staged and applied")
	}
	w.run()
	r := w.replied(w.nodes[0], op)
	if r.Err != nil || r.After.Version == 0 || r.After.Value.Homes.Count() != 1 {
		t.Fatalf("reply %+v", r)
	}
	for _, n := range w.nodes {
		get := w.read(n, "a")
		if n.replies[get] != nil {
			t.Fatal("a strict read was served without a fence")
		}
		w.run()
		if p := w.served(n, get); p.Value.Sum != 1 || p.Version != r.After.Version {
			t.Errorf("%s serves %+v", n.name, p)
		}
	}
}

func TestOwnerWritesWithoutTheLog(t *testing.T) {
	w := newWorld(t, 3)
	a, b := w.nodes[0], w.nodes[1]
	first := w.put(a, "a", coherency.WriteBack)
	w.run()
	w.replied(a, first)
	before := len(w.log)
	second := w.put(a, "a", coherency.WriteBack)
	if r := w.replied(a, second); r.Err != nil || len(w.log) != before {
		t.Fatalf("reply %+v, %d messages more", r, len(w.log)-before)
	}
	get := w.read(b, "a")
	f, ok := b.replies[get].(Forward)
	if !ok || f.Node != "n1" {
		t.Fatalf("%#v, want it forwarded to the owner", b.replies[get])
	}
	asked := w.read(a, "a", func(r *Read) { r.Level, r.Token = AsOwner, f.Token })
	if p := w.served(a, asked); p.Value.Sum != 2 {
		t.Fatalf("the owner serves %+v", p)
	}
	third := w.put(b, "a", coherency.WriteBack)
	w.run()
	w.pass(100 * time.Millisecond)
	if r := w.replied(b, third); r.Err != nil || r.Before.Value.Sum != 2 {
		t.Fatalf("after the recall: %+v", r)
	}
	if owned, _ := a.m.Owned(); owned != 0 {
		t.Errorf("the first owner still owns %d blocks", owned)
	}
}

func TestDeadOwnerIsRevokedAndTheLossDeclared(t *testing.T) {
	w := newWorld(t, 3)
	a, b := w.nodes[0], w.nodes[1]
	w.put(b, "a", coherency.WriteThrough)
	w.run()
	w.put(a, "a", coherency.WriteBack)
	w.run()
	a.down = true
	w.pass(3 * time.Second)
	get := w.read(b, "a")
	w.run()
	w.pass(200 * time.Millisecond)
	if p := w.served(b, get); p.Value.Sum != 1 || p.Owned() {
		t.Fatalf("served %+v, want the base", p)
	}
	if n := b.m.Ledger().Losses(); n != 1 {
		t.Errorf("%d losses declared, want 1", n)
	}
	again := w.join("n1", 2)
	w.run()
	get = w.read(again, "a")
	w.run()
	if p := w.served(again, get); p.Value.Sum != 1 {
		t.Errorf("the old owner serves %+v", p)
	}
}

func TestBarrierFlushesEverything(t *testing.T) {
	w := newWorld(t, 3, func(c *Config) { c.FlushAfter = time.Hour })
	for i, n := range w.nodes {
		w.put(n, fmt.Sprint("k", i), coherency.WriteBack)
	}
	w.run()
	w.ops++
	w.step(w.nodes[2], Barrier{Op: w.ops})
	op := w.ops
	w.run()
	if r := w.replied(w.nodes[2], op); r.Err != nil {
		t.Fatal(r.Err)
	}
	for _, n := range w.nodes {
		if _, dirty := n.m.Owned(); dirty != 0 || n.m.Ledger().Epoch() != 1 {
			t.Errorf("%s: %d dirty, epoch %d", n.name, dirty, n.m.Ledger().Epoch())
		}
	}
}

func TestLapsedOwnerOffersItsWrites(t *testing.T) {
	w := newWorld(t, 3)
	a, b := w.nodes[0], w.nodes[1]
	w.put(a, "a", coherency.WriteBack)
	w.run()
	a.down = true // frozen, not dead
	w.pass(3 * time.Second)
	a.down = false
	w.run()
	w.pass(time.Second)
	if w.nodes[0].m.Incarnation() < 2 {
		t.Fatal("no new incarnation after the lapse")
	}
	get := w.read(b, "a")
	w.run()
	if p := w.served(b, get); p.Value.Sum != 1 || b.m.Ledger().Losses() != 0 {
		t.Errorf("served %+v, %d losses", p, b.m.Ledger().Losses())
	}
}

func TestConditions(t *testing.T) {
	w := newWorld(t, 2)
	a, b := w.nodes[0], w.nodes[1]
	for _, p := range []coherency.WritePolicy{coherency.WriteThrough, coherency.WriteBack, coherency.WriteAll} {
		name := p.String()
		nx := func(wr *Write) { wr.If = ledger.Absent }
		one, two := w.put(a, name, p, nx), w.put(b, name, p, nx)
		w.run()
		w.pass(200 * time.Millisecond)
		if e1, e2 := w.replied(a, one).Err, w.replied(b, two).Err; (e1 == nil) == (e2 == nil) {
			t.Errorf("%v: %v and %v, want one to win", p, e1, e2)
		}
	}
}
