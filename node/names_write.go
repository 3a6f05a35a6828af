package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
	"cairn/tier"
)

// ErrCondition: the condition of a change does not hold; nothing was changed.
var ErrCondition = protocol.ErrCondition

// NameOptions are the choices of a change.
type NameOptions struct {
	// If restricts it; Expect is the version that ledger.Exactly expects, 0 being a
	// name that is absent.
	If     ledger.Condition
	Expect ledger.Version

	Expires int64 // milliseconds since 1970; 0: never
	KeepTTL bool  // keep the end that the name had
	Old     bool  // lend the bytes that the name had, in one step with the change
	Policy  coherency.WritePolicy
}

// NameChange is what became of a change.
type NameChange struct {
	// Before and After are the name before and after it; with ErrCondition both are
	// what it is.
	Before, After ledger.Pointer
	// Sequence is what the client has seen of the log by this.
	Sequence uint64
	// Old is what the name had, nil for nothing, if NameOptions.Old asked for it,
	// also with ErrCondition; the caller releases it.
	Old *Loan
}

// SetName makes the received bytes the newest version of a name, and returns when the
// write policy is fulfilled. With ErrCondition, protocol.ErrStage and
// protocol.ErrNoHome nothing was changed; after another error the change may still
// happen. In every case in is used up.
func (n *Node) SetName(ctx context.Context, namespace string, name []byte, in *Incoming, o NameOptions) (NameChange, error) {
	if len(name) > n.cfg.MaxName {
		in.Abort()
		return NameChange{}, fmt.Errorf("%w: name of %d bytes, max-name-bytes is %d", tier.ErrTooLarge, len(name), n.cfg.MaxName)
	}
	c := n.coherence
	d := block.Describe(c.newObject(namespace, name), block.Key{}, in.Bytes())
	if err := in.keep(d); err != nil {
		return NameChange{}, err
	}
	w := &nameWrite{n: n, namespace: namespace, name: name, o: o, held: d.Key,
		value: ledger.Value{Object: d.Key, Length: d.Length, Sum: d.Sum, Expires: o.Expires}}
	if err := w.look(); err != nil {
		w.letGo(true)
		return NameChange{}, err
	}
	if o.Policy == coherency.WriteAll {
		if err := n.raise(ctx, d); err != nil {
			w.letGo(true)
			return NameChange{}, err
		}
	}
	return w.run(ctx)
}

// DeleteName removes a name; ErrCondition says that it was absent, or not what
// NameOptions.If asked for.
func (n *Node) DeleteName(ctx context.Context, namespace string, name []byte, o NameOptions) (NameChange, error) {
	if o.If == ledger.Always {
		o.If = ledger.Present
	}
	w := &nameWrite{n: n, namespace: namespace, name: name, o: o}
	return w.run(ctx)
}

// nameWrite is a change of a name that is under way.
type nameWrite struct {
	n         *Node
	namespace string
	name      []byte
	key       block.Key
	o         NameOptions
	value     ledger.Value
	held      block.Key // the object that this write keeps pinned; zero: none
	bytes     tier.View // of held: its home may collect it before it is copied
	old       *Loan
	strict    bool // what is known here was not enough
}

// run tries until the change has happened, or cannot.
func (w *nameWrite) run(ctx context.Context) (NameChange, error) {
	w.key = w.n.coherence.keyOf(w.namespace, w.name)
	if !w.onRead() { // one try has await's limit, and needs no timer of its own
		if c, done, err := w.try(ctx); done {
			return c, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, w.n.cfg.NameWait)
	defer cancel()
	for {
		if c, done, err := w.try(ctx); done {
			return c, err
		}
	}
}

// onRead tells whether the change depends on what the name is.
func (w *nameWrite) onRead() bool { return w.o.Old || w.o.KeepTTL }

// try proposes the change once. If that is not done, it is to be tried again.
func (w *nameWrite) try(ctx context.Context) (_ NameChange, done bool, _ error) {
	c := w.n.coherence
	ev := protocol.Write{
		Key: w.key, Namespace: w.namespace, Name: w.name, Space: c.spaces[w.namespace], Policy: w.o.Policy,
		If: w.o.If, Expect: w.o.Expect, Now: time.Now().UnixMilli(), Value: w.value,
	}
	if ev.If == ledger.Exactly && ev.Expect == 0 {
		ev.If = ledger.Absent
	}
	if w.onRead() {
		s, err := w.read(ctx)
		if err == nil && !ev.If.Holds(s.Version, s.Value, ev.Expect, ev.Now) {
			err = ErrCondition
		}
		switch {
		case errors.Is(err, ErrCondition) && !w.strict:
			w.again() // it may be so no longer
			return NameChange{}, false, nil
		case err != nil:
			w.letGo(true)
			return w.change(protocol.Reply{Before: s.Pointer, After: s.Pointer, Sequence: s.Sequence}), true, err
		}
		ev.If, ev.Expect = ledger.Exactly, s.Version
		if w.o.KeepTTL {
			ev.Value.Expires = 0
			if alive(s.Value) {
				ev.Value.Expires = s.Value.Expires
			}
		}
	}
	reply, err := c.write(ctx, &ev)
	switch {
	case err == nil:
		w.letGo(false)
		return w.change(reply), true, nil
	case errors.Is(err, protocol.ErrContended), w.onRead() && errors.Is(err, ErrCondition):
		c.counters.conflicts.Add(1)
		w.again()
		err := w.rekey(ctx)
		return NameChange{}, err != nil, err
	case errors.Is(err, ErrCondition), errors.Is(err, protocol.ErrStage), errors.Is(err, protocol.ErrNoHome):
		c.counters.conflicts.Add(1)
		w.again()
		w.letGo(true)
		return w.change(reply), true, err
	}
	w.again()
	w.letGo(false) // it may happen yet
	return w.change(reply), true, err
}

// write gives the machine a write and waits for its end. ev is the machine's from then on.
func (c *coherence) write(ctx context.Context, ev *protocol.Write) (protocol.Reply, error) {
	w, err := c.begin(func(op protocol.Op) protocol.Event { ev.Op = op; return ev })
	if err != nil {
		return protocol.Reply{}, err
	}
	answer, err := c.await(ctx, w)
	if err != nil {
		return protocol.Reply{}, fmt.Errorf("%w: %w", protocol.ErrUnknown, err)
	}
	reply, _ := answer.(protocol.Reply)
	if errors.Is(reply.Err, protocol.ErrStage) {
		if cause := c.stager.causeOf(ev.Op); cause != nil {
			return reply, fmt.Errorf("%w: %w", reply.Err, cause)
		}
	}
	return reply, reply.Err
}

// read lends what the name has before the change, if that is wanted.
func (w *nameWrite) read(ctx context.Context) (NameState, error) {
	o := ReadOptions{Level: ReadSession}
	if w.strict {
		o.Level = ReadStrict
	}
	space := w.n.coherence.spaces[w.namespace]
	if !w.o.Old {
		s, _, err := w.n.resolve(ctx, w.key, space, o, false)
		return s, err
	}
	loan, s, err := w.n.readKey(ctx, w.key, space, o)
	w.old = loan
	if errors.Is(err, tier.ErrNotFound) {
		err = nil
	}
	return s, err
}

// again forgets what was read.
func (w *nameWrite) again() {
	if w.old != nil {
		w.old.Release()
		w.old = nil
	}
	w.strict = true
}

func (w *nameWrite) change(r protocol.Reply) NameChange {
	return NameChange{Before: r.Before, After: r.After, Sequence: r.Sequence, Old: w.old}
}

// letGo ends the write's hold on its object. drop: the object will never be named.
func (w *nameWrite) letGo(drop bool) {
	if w.held.IsZero() {
		return
	}
	w.bytes.Release()
	w.bytes = tier.View{}
	if drop {
		w.n.Remove(w.held)
	} else {
		w.n.host.Unpin(w.held)
	}
	w.n.room.notify()
	w.held = block.Key{}
}

// look keeps the bytes of the object that the write holds. A write that has lost is decided
// for the home of its object, which may be this node and collect it at once.
func (w *nameWrite) look() (err error) {
	w.bytes, err = w.n.host.View(w.held)
	return err
}

// rekey gives the bytes to a new object: the key of the old one is used up.
func (w *nameWrite) rekey(ctx context.Context) error {
	if w.held.IsZero() {
		return ctxError(ctx)
	}
	err := ctxError(ctx)
	var next block.Descriptor
	if err == nil {
		next, err = w.n.copyObject(ctx, w.bytes, w.n.coherence.newObject(w.namespace, w.name))
	}
	w.letGo(true)
	if err == nil {
		w.held, w.value.Object = next.Key, next.Key
		err = w.look()
	}
	if err != nil {
		w.letGo(true)
	}
	return err
}

func ctxError(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: other writers came first: %w", ErrUnavailable, ctx.Err())
	}
	return nil
}

// copyObject makes a copy of an object in the host tier under another key, pinned
// once.
func (n *Node) copyObject(ctx context.Context, from tier.View, to block.Key) (block.Descriptor, error) {
	in, err := n.Reserve(ctx, len(from.Bytes))
	if err != nil {
		return block.Descriptor{}, err
	}
	copy(in.Bytes(), from.Bytes)
	d := block.Descriptor{Key: to, Length: from.Length, Sum: from.Sum}
	return d, in.keep(d)
}

// newUnique is a number that this node gives once, in any of its lives.
func (c *coherence) newUnique() uint64 { return max(c.base+c.unique.Add(1), 1) }

// newObject is a key that no object has had.
func (c *coherence) newObject(namespace string, name []byte) block.Key {
	return block.NamedKey(namespace+"\x00"+c.cfg.Node, name, c.newUnique())
}

// Barrier returns when all that was acknowledged before, by any node, is durable at
// its homes, or declared lost, and the number of the epoch that has begun.
func (n *Node) Barrier(ctx context.Context) (epoch uint64, err error) {
	_, err = n.simple(ctx, func(op protocol.Op) protocol.Event { return protocol.Barrier{Op: op} })
	return n.coherence.epoch.Load(), err
}

// Clear makes every name of a namespace absent. sequence is what the client has seen of
// the log by this.
func (n *Node) Clear(ctx context.Context, namespace string) (sequence uint64, err error) {
	return n.simple(ctx, func(op protocol.Op) protocol.Event { return protocol.Clear{Op: op, Namespace: namespace} })
}

func (n *Node) simple(ctx context.Context, ev func(protocol.Op) protocol.Event) (sequence uint64, err error) {
	answer, err := n.coherence.ask(ctx, ev)
	if err != nil {
		return 0, err
	}
	if r, ok := answer.(protocol.Reply); ok {
		return r.Sequence, r.Err
	}
	return 0, ErrClosed
}
