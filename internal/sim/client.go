package sim

import (
	"errors"
	"time"

	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// client is a user of the cluster: one operation at a time, at one node until it moves.
type client struct {
	w       *World
	index   int
	at      int // index of the node
	todo    []plannedOp
	session uint64
	seen    []ledger.Version // newest version read or written, by key
	present []ledger.Value   // its value, for a touch
	current *call
}

// outcome is what became of an operation.
type outcome uint8

const (
	pending outcome = iota
	done
	refused // by its condition
	nothing // it has certainly not happened
	unknown
)

// operation is one operation of the history; the checks keep it.
type operation struct {
	client  int
	node    *node
	key     *keyState
	kind    opKind
	plan    plannedOp
	outcome outcome
	// call and ret are moments in the order of the world; callAt and servedAt times.
	call, ret int64
	callAt    time.Duration

	// Of a write.
	cond   ledger.Condition
	expect ledger.Version
	now    int64
	wrote  valueID
	before ledger.Pointer
	// What it made, or read.
	version ledger.Version
	value   valueID
}

// call is an operation that is being done, or tried again.
type call struct {
	c       *client
	o       *operation
	p       *proc
	op      protocol.Op
	refused ledger.Version
	tries   int
	ended   bool
}

// next begins what the client does next.
func (c *client) next() {
	if len(c.todo) == 0 {
		return
	}
	plan := c.todo[0]
	c.todo = c.todo[1:]
	c.w.open++
	c.w.after(max(plan.at-c.w.now, time.Millisecond), func() { c.begin(plan, 0) })
}

// begin does an operation at the client's node, or at another that is up.
func (c *client) begin(plan plannedOp, tries int) {
	w := c.w
	if plan.move >= 0 {
		c.at = plan.move
		plan.move = -1
	}
	for range w.nodes {
		if w.nodes[c.at].p != nil {
			break
		}
		c.at = (c.at + 1) % len(w.nodes)
	}
	n := w.nodes[c.at]
	if n.p == nil {
		w.after(50*time.Millisecond, func() { c.begin(plan, tries) })
		return
	}
	o := &operation{client: c.index, node: n, key: w.keys[plan.name], kind: plan.kind, plan: plan, call: w.tick(), callAt: w.now}
	w.history = append(w.history, o)
	a := &call{c: c, o: o, p: n.p, tries: tries}
	c.current = a
	if w.tracing {
		w.tracef("c%d at %s: %s", c.index, n.id, o.text())
	}
	a.p.run(a.start)
	limit := w.plan.Patience
	if plan.impatient {
		limit /= 20
	}
	w.after(limit, a.timeout)
}

func (a *call) start() {
	switch a.o.kind {
	case opRead:
		a.read()
	case opWrite:
		a.write()
	case opBarrier:
		a.p.step(protocol.Barrier{Op: a.await(a.ended0)})
	case opClear:
		a.p.step(protocol.Clear{Op: a.await(a.ended0), Namespace: a.o.key.namespace})
	}
}

// await is a new operation of the machine, whose answer goes to f.
func (a *call) await(f func(protocol.Effect)) protocol.Op {
	p := a.p
	p.nextOp++
	a.op = p.nextOp
	p.ops[a.op] = f
	p.calls[a.op] = a.o
	return a.op
}

// ended0 is the answer to a Barrier or a Clear.
func (a *call) ended0(e protocol.Effect) {
	if a.ended {
		return
	}
	r := e.(protocol.Reply)
	if r.Err == nil {
		a.c.session = max(a.c.session, r.Sequence)
	}
	a.end(outcomeOf(r.Err))
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return done
	case errors.Is(err, protocol.ErrCondition):
		return refused
	case errors.Is(err, protocol.ErrContended), errors.Is(err, protocol.ErrStage), errors.Is(err, protocol.ErrNoHome):
		return nothing
	default:
		return unknown
	}
}

func (a *call) write() {
	p, o, c := a.p, a.o, a.c
	plan := o.plan
	o.cond, o.now = plan.cond, p.n.wall()
	value := ledger.Value{}
	switch k := o.key.index; {
	case plan.touch && !c.present[k].Object.IsZero():
		value = c.present[k]
		value.Homes = ledger.Homes{}
		p.n.w.objects++ // every end is another one
		value.Expires = 1<<40 + int64(p.n.w.objects)
	case !plan.remove:
		value = ledger.Value{Object: p.n.w.object(), Length: 8}
		value.Sum = mix(number(value.Object))
		if plan.expires > 0 {
			value.Expires = o.now + plan.expires.Milliseconds() + 1
		}
		p.hot[number(value.Object)] = value.Sum
		p.writing[number(value.Object)] = true
	}
	if o.cond == ledger.Exactly {
		o.expect = c.seen[o.key.index]
	}
	o.wrote = idOf(value)
	p.step(protocol.Write{Op: a.await(a.written), Key: o.key.key, Namespace: o.key.namespace, Name: o.key.name,
		Space: o.key.space, Policy: plan.policy, If: o.cond, Expect: o.expect, Now: o.now, Value: value})
}

// written is the answer to a Write.
func (a *call) written(e protocol.Effect) {
	r, ok := e.(protocol.Reply)
	if !ok {
		a.p.n.w.fail("answers", "a write was answered with %T", e)
		return
	}
	out := outcomeOf(r.Err)
	object := a.o.wrote.object
	delete(a.p.writing, object)
	if out == refused || out == nothing {
		if !a.o.plan.touch {
			delete(a.p.hot, object)
		}
	}
	if a.ended {
		return
	}
	a.o.before = r.Before
	if out == done || out == refused {
		a.o.version, a.o.value = r.After.Version, idOf(r.After.Value)
		a.c.session = max(a.c.session, r.Sequence)
		if out == done {
			a.c.see(a.o.key, r.After)
		}
	}
	if errors.Is(r.Err, protocol.ErrContended) && a.tries < 6 {
		a.again(out)
		return
	}
	a.end(out)
}

// again tries an operation that has certainly not happened once more, as another one.
func (a *call) again(out outcome) {
	a.ended = true
	a.o.outcome, a.o.ret = out, a.c.w.tick()
	a.c.current = nil
	plan, tries := a.o.plan, a.tries+1
	a.c.w.after(a.c.w.span(time.Millisecond, 40*time.Millisecond), func() { a.c.begin(plan, tries) })
}

func (c *client) see(k *keyState, p ledger.Pointer) {
	if p.Version >= c.seen[k.index] {
		c.seen[k.index], c.present[k.index] = p.Version, p.Value
	}
}

func (a *call) read() {
	o := a.o
	r := protocol.Read{Op: a.await(a.answered), Key: o.key.key, Namespace: o.key.namespace, Level: o.plan.level, Space: o.key.space, Refused: a.refused}
	switch {
	case o.plan.level == protocol.Session && o.plan.session:
		r.Session = a.c.session
	case o.plan.level == protocol.Bounded:
		r.Bound = o.plan.bound
	}
	a.p.step(r)
}

// answered is the answer to a Read.
func (a *call) answered(e protocol.Effect) {
	if a.ended {
		return
	}
	switch e := e.(type) {
	case protocol.Serve:
		a.serve(e.Pointer, e.Sequence)
	case protocol.Forward:
		a.forward(e)
	case protocol.Reply:
		a.end(unknown)
	}
}

// serve fetches the bytes, and reads again if they are gone by now.
func (a *call) serve(ptr ledger.Pointer, sequence uint64) {
	if ptr.Value.Object.IsZero() {
		a.got(ptr, sequence)
		return
	}
	a.p.fetch(ptr, func(content uint64, ok bool) {
		switch {
		case a.ended:
		case ok && content != ptr.Value.Sum:
			a.c.w.fail("bytes", "%s reads the bytes of another object for %v", a.p.n.id, idOf(ptr.Value))
		case ok, a.p.hopeless(ptr):
			a.got(ptr, sequence)
		default:
			a.p.later(a.c.w.span(5*time.Millisecond, 40*time.Millisecond), func() {
				if !a.ended {
					a.read()
				}
			})
		}
	})
}

// hopeless tells whether the bytes are lost with the disks of all their homes.
func (p *proc) hopeless(ptr ledger.Pointer) bool {
	for _, h := range ptr.Value.Homes {
		if h != 0 && !p.home(h).wiped[number(ptr.Value.Object)] {
			return false
		}
	}
	return true
}

// forward asks the owner, which sends the bytes along.
func (a *call) forward(e protocol.Forward) {
	w := a.c.w
	again := func() {
		if !a.ended {
			a.refused = e.Token
			a.read()
		}
	}
	type answer struct {
		ptr      ledger.Pointer
		sequence uint64
		content  uint64
	}
	a.p.ask(w.named(e.Node), func(q *proc, reply func(func())) {
		q.nextOp++
		op := q.nextOp
		q.owner[op] = e.Token
		q.ops[op] = func(x protocol.Effect) {
			s, ok := x.(protocol.Serve)
			if !ok {
				reply(again)
				return
			}
			content, ok := q.bytes(number(s.Pointer.Value.Object))
			got := answer{s.Pointer, s.Sequence, content}
			reply(func() {
				switch {
				case a.ended:
				case ok && content != s.Pointer.Value.Sum:
					w.fail("bytes", "%s gives the bytes of another object for %v", q.n.id, idOf(s.Pointer.Value))
				case ok || s.Pointer.Value.Object.IsZero():
					a.got(got.ptr, got.sequence)
				default:
					a.serve(got.ptr, got.sequence)
				}
			})
		}
		q.step(protocol.Read{Op: op, Key: e.Key, Namespace: a.o.key.namespace, Level: protocol.AsOwner, Space: a.o.key.space, Token: e.Token})
	}, again)
}

// got ends a read.
func (a *call) got(ptr ledger.Pointer, sequence uint64) {
	o, c := a.o, a.c
	o.version, o.value = ptr.Version, idOf(ptr.Value)
	c.w.checkRead(c, o)
	c.session = max(c.session, sequence)
	c.see(o.key, ptr)
	a.end(done)
}

// end ends an operation; the client goes on.
func (a *call) end(out outcome) {
	if a.ended {
		return
	}
	a.ended = true
	w := a.c.w
	a.o.outcome, a.o.ret = out, w.tick()
	if w.tracing {
		w.tracef("c%d at %s: %s", a.c.index, a.p.n.id, a.o.text())
	}
	w.checkEnd(a.o)
	w.open--
	w.ended++
	a.c.current = nil
	a.c.next()
}

// timeout gives up an operation, whose outcome stays open.
func (a *call) timeout() {
	if a.ended || a.c.w.healed {
		return
	}
	p, op := a.p, a.op
	p.run(func() {
		if f := p.ops[op]; f != nil {
			delete(p.ops, op)
			p.step(protocol.Cancel{Op: op})
		}
	})
	a.end(unknown)
}

// interrupted ends an operation whose process has died.
func (c *client) interrupted(p *proc) {
	if c.current != nil && c.current.p == p {
		c.current.end(unknown)
	}
}
