package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/tier"
	"cairn/wire"
)

// Incoming is a block that is being received: a slot of the host tier, invisible
// until Commit. It is used by one goroutine and ends with Commit or Abort.
type Incoming struct {
	n   *Node
	r   tier.Reservation
	buf []byte // in place of r for an object that goes straight to the disk
}

// Bytes is where the block's bytes go.
func (in *Incoming) Bytes() []byte {
	if in.r == nil {
		return in.buf
	}
	return in.r.Bytes()
}

// ErrKey: not a key that a sealed block can have.
var ErrKey = errors.New("not the key of a block in a sequence")

// Abort gives the slot back.
func (in *Incoming) Abort() {
	if in.r != nil {
		in.r.Abort()
		in.n.room.notify()
	}
}

// Reserve takes a slot for length bytes. When every slot is taken by blocks that
// are not durable yet it waits for the offload, at most Config.PutWait; then it
// fails with tier.ErrFull. A length over the limit is tier.ErrTooLarge at once.
func (n *Node) Reserve(ctx context.Context, length int) (*Incoming, error) {
	if length > n.cfg.MaxBlock {
		return nil, fmt.Errorf("%w: %d bytes, max-block-bytes is %d", tier.ErrTooLarge, length, n.cfg.MaxBlock)
	}
	var timeout <-chan time.Time
	for {
		in, err := n.tryReserve(ctx, length)
		if !errors.Is(err, tier.ErrFull) {
			return in, err
		}
		room := n.room.wait()
		// Once more: what makes room may have happened before the wait began.
		if in, err = n.tryReserve(ctx, length); !errors.Is(err, tier.ErrFull) {
			return in, err
		}
		if timeout == nil {
			timer := time.NewTimer(n.cfg.PutWait)
			defer timer.Stop()
			timeout = timer.C
			n.counters.putWaits.Add(1)
		}
		select {
		case <-room:
		case <-timeout:
			return nil, fmt.Errorf("%w: waited %v for blocks to become durable or unused", tier.ErrFull, n.cfg.PutWait)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (n *Node) tryReserve(ctx context.Context, length int) (*Incoming, error) {
	r, evicted, err := n.host.Reserve(ctx, length)
	n.evicted(block.Host, evicted)
	if errors.Is(err, tier.ErrFull) && n.prefetches.yield(block.Host) {
		r, evicted, err = n.host.Reserve(ctx, length)
		n.evicted(block.Host, evicted)
	}
	if err != nil {
		return nil, err
	}
	return &Incoming{n: n, r: r}, nil
}

// Placed says what became of a Put.
type Placed struct {
	// Existed: this node held the block already; nothing was stored.
	Existed bool
	// Token is the place of the block's appearance in this node's stream of
	// changes.
	Token wire.Token
}

// Commit makes the received bytes the block key, by the write policy p: with
// WriteBack it returns as soon as the block can be read here, with WriteThrough
// when it is durable at the home tier, with WriteAll when every tier of the
// node holds it as well. A block that is there already is left as it is;
// tier.ErrConflict says that it has other bytes.
func (in *Incoming) Commit(ctx context.Context, key, parent block.Key, p coherency.WritePolicy) (Placed, error) {
	n := in.n
	if key.IsZero() || key.Named() {
		in.r.Abort()
		return Placed{}, fmt.Errorf("%w: %s", ErrKey, key)
	}
	d := block.Describe(key, parent, in.r.Bytes())
	if e, ok := n.dir.get(key); ok {
		if e.sum != d.Sum || e.length != d.Length {
			in.r.Abort()
			return Placed{}, fmt.Errorf("%w: %s", tier.ErrConflict, key)
		}
		return n.existed(ctx, in.r, d, p)
	}
	pins := 0
	if n.home != block.Host {
		pins = 1 // until the block is durable at home
	}
	object := in.r.Object()
	switch err := in.r.Commit(d, pins); {
	case errors.Is(err, tier.ErrExists):
		return n.existed(ctx, nil, d, p) // a concurrent Put was faster
	case err != nil:
		return Placed{}, err
	}
	position, err := n.placeCopy(d, block.Host)
	if errors.Is(err, tier.ErrConflict) { // with what came in another way meanwhile
		n.host.UnpinExact(key, object)
		n.host.Delete(key)
		n.room.notify()
		return Placed{}, err
	}
	if position == 0 { // it was evicted at once, or is known already
		position = n.announced.Load()
	}
	n.counters.puts.Add(1)
	n.counters.putBytes.Add(int64(d.Length))
	if err := n.settle(ctx, d, object, p); err != nil {
		return Placed{}, err
	}
	return Placed{Token: n.token(position)}, nil
}

// existed answers a Put of a block that is here already: what the write policy promises
// holds of that as well. r, if it is not nil, holds the same bytes, and is used up.
func (n *Node) existed(ctx context.Context, r tier.Reservation, d block.Descriptor, p coherency.WritePolicy) (Placed, error) {
	n.counters.putExisting.Add(1)
	placed := Placed{Existed: true, Token: n.token(n.announced.Load())}
	e, known := n.dir.get(d.Key)
	if known && e.state.Durable() && p != coherency.WriteAll {
		if r != nil {
			r.Abort()
		}
		return placed, nil
	}
	// What goes home is the host's copy, pinned meanwhile.
	err, object := tier.ErrExists, uint64(0)
	if r != nil {
		object = r.Object()
		err = r.Commit(d, 1)
	}
	if errors.Is(err, tier.ErrExists) {
		object, err = n.host.PinExact(d.Key)
	}
	if errors.Is(err, tier.ErrNotFound) {
		if err := n.existsElsewhere(ctx, d, p); err != nil {
			return Placed{}, err
		}
		return placed, nil
	}
	if err != nil {
		return Placed{}, err
	}
	if err = n.enterCopy(d, block.Host); err != nil {
		n.host.UnpinExact(d.Key, object)
		return Placed{}, err
	}
	if p == coherency.WriteBack && n.home != block.Host {
		n.enqueueOffload(d.Key, object)
		return placed, nil
	}
	if p == coherency.WriteAll {
		err = n.raise(ctx, d)
	}
	var flushErr error
	if n.home != block.Host {
		flushErr = n.flushNow(ctx, d, object)
	}
	if n.home == block.Host || flushErr != nil {
		n.host.UnpinExact(d.Key, object)
		n.room.notify()
	}
	if err = errors.Join(err, flushErr); err != nil && (!errors.Is(err, tier.ErrNotFound) || n.Holds(d.Key)) {
		return Placed{}, err
	}
	return placed, nil
}

// existsElsewhere does what the write policy asks for of a block that has left host
// memory since it was found there. One that has left the node needs nothing more.
func (n *Node) existsElsewhere(ctx context.Context, d block.Descriptor, p coherency.WritePolicy) error {
	loan, err := n.readLocal(ctx, d.Key)
	if err == nil {
		defer loan.Release()
		if p == coherency.WriteAll {
			err = n.raise(ctx, d)
		}
		err = errors.Join(err, n.secure(ctx, d.Key))
	}
	if errors.Is(err, tier.ErrNotFound) && !n.Holds(d.Key) {
		return nil
	}
	return err
}

// settle does what the write policy still asks for after the host's copy, object, which
// is pinned exactly. A block that a user removes meanwhile needs nothing more.
func (n *Node) settle(ctx context.Context, d block.Descriptor, object uint64, p coherency.WritePolicy) error {
	var err error
	if p == coherency.WriteAll {
		err = n.raise(ctx, d)
	}
	switch {
	case n.home == block.Host:
	case p == coherency.WriteBack:
		n.enqueueOffload(d.Key, object)
	default:
		flushErr := n.flushNow(ctx, d, object)
		if flushErr != nil {
			n.enqueueOffload(d.Key, object)
		}
		err = errors.Join(err, flushErr)
	}
	if errors.Is(err, tier.ErrNotFound) && !n.Holds(d.Key) {
		return nil
	}
	return err
}

// Put stores a copy of src; see Incoming.Commit.
func (n *Node) Put(ctx context.Context, key, parent block.Key, src []byte, p coherency.WritePolicy) (Placed, error) {
	in, err := n.Reserve(ctx, len(src))
	if err != nil {
		return Placed{}, err
	}
	copy(in.Bytes(), src)
	return in.Commit(ctx, key, parent, p)
}

// keep makes the received bytes the object d of a named block, pinned once. One that is
// there already gets the pin.
func (in *Incoming) keep(d block.Descriptor) error {
	n := in.n
	err := in.r.Commit(d, 1)
	if errors.Is(err, tier.ErrExists) {
		return n.host.Pin(d.Key)
	}
	if err != nil {
		return err
	}
	n.enter(d)
	n.counters.puts.Add(1)
	n.counters.putBytes.Add(int64(d.Length))
	return nil
}

// enter tells the directory of an object of a named block that the host tier holds.
// Of such objects host memory counts as the home, because the coherence protocol
// keeps account of what is not durable; until the node becomes a home of one.
func (n *Node) enter(d block.Descriptor) {
	state, err := coherency.New(block.Host, block.Host)
	if err != nil {
		panic(err) // both are constants
	}
	n.dir.change(d.Key, func(e *entry, known bool) {
		if !known {
			*e = newEntry(d, state)
			return
		}
		if c, err := e.state.Begin(block.Host); err == nil {
			_ = e.state.Commit(c) // a copy that went away meanwhile is found missing by who reads it
		}
	})
}

// cacheNamed makes received bytes of a named object a copy in the host tier that may be
// evicted, and lends it.
func (n *Node) cacheNamed(d block.Descriptor, r tier.Reservation) (*Loan, error) {
	return n.cacheCopy(d, r, func() error { n.enter(d); return nil })
}

// cacheCopy makes a slot a copy that may be evicted, tells the directory by enter, and
// lends it.
func (n *Node) cacheCopy(d block.Descriptor, r tier.Reservation, enter func() error) (*Loan, error) {
	err := r.Commit(d, 1)
	switch {
	case err == nil:
		if err := enter(); err != nil {
			n.host.Delete(d.Key)
			return nil, err
		}
	case errors.Is(err, tier.ErrExists):
		if err := n.host.Pin(d.Key); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	v, err := n.host.View(d.Key)
	n.host.Unpin(d.Key)
	if err != nil {
		return nil, err
	}
	return &Loan{Descriptor: d, Bytes: v.Bytes, Origin: FromPeer, view: v, room: &n.room}, nil
}
