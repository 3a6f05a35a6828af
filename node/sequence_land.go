package node

import (
	"context"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/coherency"
	"cairn/tier"
)

// buffer is a slot of the host tier that a block passes through, or memory of its own
// where the tier has no room. It is used by one goroutine. The zero value is none.
type buffer struct {
	slot tier.Reservation
	heap []byte
}

func (b *buffer) bytes() []byte {
	if b.slot != nil {
		return b.slot.Bytes()
	}
	return b.heap
}

// release gives the slot back, if there is one.
func (b *buffer) release(n *Node) {
	if b.slot != nil {
		b.slot.Abort()
		n.room.notify()
	}
	*b = buffer{}
}

// buffer takes room for a block of that length. Where blocks go to the host tier itself
// there is no way around its being full.
func (o *onboarding) buffer(ctx context.Context, length uint32) (buffer, error) {
	r, evicted, err := o.n.host.Reserve(ctx, int(length))
	o.n.evicted(block.Host, evicted)
	if o.to == block.Host && errors.Is(err, tier.ErrFull) && o.makeRoom() {
		r, evicted, err = o.n.host.Reserve(ctx, int(length))
		o.n.evicted(block.Host, evicted)
	}
	switch {
	case err == nil:
		return buffer{slot: r}, nil
	case o.to != block.Host && (errors.Is(err, tier.ErrFull) || errors.Is(err, tier.ErrTooLarge)):
		return buffer{heap: make([]byte, length)}, nil
	}
	return buffer{}, err
}

// makeRoom takes the room in the destination that prefetches keep, unless this is one.
func (o *onboarding) makeRoom() bool { return !o.s.ahead && o.n.prefetches.yield(o.to) }

// land makes verified bytes a block of the destination, pinned and known to the
// directory; it is visible to others from then on. b is where the bytes lie if it is a
// buffer, which may become the block itself. object is the one that is pinned.
func (o *onboarding) land(ctx context.Context, d block.Descriptor, p []byte, b *buffer) (object uint64, err error) {
	if object, err = o.deposit(ctx, d, p, b); err != nil {
		return 0, err
	}
	return object, o.enter(d, object)
}

// enter tells the directory of a block that lies in the destination, pinned. On error it is
// not pinned any more.
func (o *onboarding) enter(d block.Descriptor, object uint64) error {
	err := o.n.enterCopy(d, o.to)
	if err != nil {
		o.store.UnpinExact(d.Key, object)
		if errors.Is(err, tier.ErrConflict) {
			o.store.Delete(d.Key)
		}
	}
	return err
}

// landTries is how often a block is put again that was evicted before it could be pinned.
const landTries = 3

// deposit puts the bytes into the destination's store, with one pin.
func (o *onboarding) deposit(ctx context.Context, d block.Descriptor, p []byte, b *buffer) (object uint64, err error) {
	if o.to == block.Host {
		object = b.slot.Object()
		err := b.slot.Commit(d, 1)
		b.slot = nil
		if errors.Is(err, tier.ErrExists) {
			object, err = o.store.PinExact(d.Key)
		}
		o.n.room.notify()
		return object, err
	}
	for try := 1; ; try++ {
		evicted, err := o.store.Put(ctx, d, p)
		o.n.evicted(o.to, evicted)
		o.n.noteLoss(o.to, err)
		if errors.Is(err, tier.ErrFull) && try < landTries && o.makeRoom() {
			continue
		}
		if err != nil && !errors.Is(err, tier.ErrExists) {
			return 0, err
		}
		if object, err = o.store.PinExact(d.Key); !errors.Is(err, tier.ErrNotFound) || try == landTries {
			return object, err
		}
	}
}

// enterCopy tells the directory of a copy that a tier has got, pinned, of a block that
// another node or another tier has.
func (n *Node) enterCopy(d block.Descriptor, t block.Tier) error {
	_, err := n.placeCopy(d, t)
	return err
}

// placeCopy is enterCopy of a copy that need not be pinned; position is as directory.change
// returns it.
func (n *Node) placeCopy(d block.Descriptor, t block.Tier) (position uint64, err error) {
	fresh, err := coherency.New(t, n.home)
	if err != nil {
		return 0, err
	}
	position = n.dir.change(d.Key, func(e *entry, known bool) {
		if _, held := n.stores[t].Stat(d.Key); !held {
			err = fmt.Errorf("%w: %s was removed", tier.ErrNotFound, d.Key)
			return
		}
		switch {
		case !known:
			*e = newEntry(d, fresh)
		case e.sum != d.Sum || e.length != d.Length:
			err = fmt.Errorf("%w: %s", tier.ErrConflict, d.Key)
		case !e.state.Valid().Has(t):
			c, beginErr := e.state.Begin(t)
			if err = beginErr; err == nil {
				err = e.state.Commit(c)
			}
		}
	})
	return position, err
}

// pinsProblem is err if it says that sequences have pinned too much, else nil.
func pinsProblem(err error) error {
	var pins *PinsError
	if errors.As(err, &pins) {
		return err
	}
	return nil
}
