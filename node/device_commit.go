package node

import (
	"context"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/tier"
)

// A slot that an engine has filled becomes a block by way of host memory: the node copies
// it out into a slot of the host tier and takes the checksum there. So the block enters
// the node as any other that was received, valid in host memory, and on its way home by
// the write policy, and the copy in GPU memory is adopted beside it.
//
// It could have been left in GPU memory alone, dirty and pinned until the offload takes it
// down. But it needs a checksum before anybody may see it, nothing but host memory can be
// read by the processor, and the bytes would have to be held still until the offload
// comes; the copy that gives the checksum is the one that the offload would make. What
// is saved is only the slot in host memory, which can be evicted as soon as the block
// is durable.

// copySlot is the slot's bytes in host memory. When there is no room it waits as a Put
// does.
func (d *devices) copySlot(ctx context.Context, s tier.DeviceSlot) (*Incoming, error) {
	in, err := d.n.Reserve(ctx, s.Len())
	if err != nil {
		return nil, err
	}
	if err := s.CopyOut(in.Bytes()); err != nil {
		in.Abort()
		return nil, d.noted(err)
	}
	return in, nil
}

// noted takes note of the loss of the device.
func (d *devices) noted(err error) error {
	if errors.Is(err, tier.ErrDeviceLost) {
		d.n.tierLost(block.VRAM)
		return fmt.Errorf("%w: %w", ErrNoDevice, err)
	}
	return err
}

// reserve takes a slot for an engine.
func (d *devices) reserve(ctx context.Context, length int) (tier.DeviceSlot, error) {
	if length > d.n.cfg.MaxBlock {
		return nil, fmt.Errorf("%w: %d bytes, max-block-bytes is %d", tier.ErrTooLarge, length, d.n.cfg.MaxBlock)
	}
	if largest := d.arena.Classes[len(d.arena.Classes)-1]; length > largest {
		return nil, fmt.Errorf("%w: %d bytes, the largest slot of GPU memory is %d", tier.ErrTooLarge, length, largest)
	}
	bytes := d.room(length)
	d.mu.Lock()
	err := d.takeLocked(bytes)
	if err == nil {
		d.slots++
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s, evicted, err := d.store.Reserve(ctx, length)
	d.n.evicted(block.VRAM, evicted)
	if errors.Is(err, tier.ErrFull) && d.n.prefetches.yield(block.VRAM) {
		s, evicted, err = d.store.Reserve(ctx, length)
		d.n.evicted(block.VRAM, evicted)
	}
	if err != nil {
		d.mu.Lock()
		d.held -= bytes
		d.slots--
		d.mu.Unlock()
		return nil, d.noted(err)
	}
	return s, nil
}

// commitBlock makes a slot the sealed block key; see Incoming.Commit for the policy and
// the errors. at is where the block lies in GPU memory, pinned; it is empty if the block
// has left the node meanwhile. On error the slot is as before, and may be committed again.
func (d *devices) commitBlock(ctx context.Context, s tier.DeviceSlot, key, parent block.Key, p coherency.WritePolicy) (placed Placed, at tier.Placed, err error) {
	in, err := d.copySlot(ctx, s)
	if err != nil {
		return Placed{}, at, err
	}
	if placed, err = in.Commit(ctx, key, parent, p); err != nil {
		return Placed{}, at, err
	}
	d.commits[0].Add(1)
	d.stored.Add(int64(s.Len()))
	e, ok := d.n.dir.get(key) // has the checksum of what was copied, or Commit had refused
	if !ok {
		d.abort(s)
		return placed, at, nil
	}
	return placed, d.adopt(s, e.descriptor(key)), nil
}

// commitName makes a slot the newest version of a name; see SetName. The rest is as of
// commitBlock. After an error that leaves open whether the name has changed the slot is
// as before, too: what became of the name is told by reading it.
func (d *devices) commitName(ctx context.Context, s tier.DeviceSlot, namespace string, name []byte, o NameOptions) (c NameChange, at tier.Placed, err error) {
	in, err := d.copySlot(ctx, s)
	if err != nil {
		return NameChange{}, at, err
	}
	sum := block.Checksum(in.Bytes())
	if c, err = d.n.SetName(ctx, namespace, name, in, o); err != nil {
		return c, at, err
	}
	d.commits[1].Add(1)
	d.stored.Add(int64(s.Len()))
	v := c.After.Value
	if v.Object.IsZero() || v.Sum != sum || int(v.Length) != s.Len() {
		d.abort(s) // somebody else's version: ours is history already
		return c, at, nil
	}
	return c, d.adopt(s, object(v)), nil
}

// object describes the object of a version.
func object(v ledger.Value) block.Descriptor {
	return block.Descriptor{Key: v.Object, Length: v.Length, Sum: v.Sum}
}

// adopt makes a slot the copy in GPU memory of a block that the node has, and returns where
// it lies, pinned. Where there is one already, that is it, and the slot is given back. What
// goes wrong leaves the block with its other copies.
func (d *devices) adopt(s tier.DeviceSlot, desc block.Descriptor) tier.Placed {
	at, err := s.Commit(desc)
	d.uncount(s)
	if errors.Is(err, tier.ErrExists) {
		at, err = d.store.Place(desc.Key)
	}
	if err == nil {
		err = d.n.adopt(desc, block.VRAM)
	}
	if err = d.noted(err); err != nil && !errors.Is(err, tier.ErrNotFound) {
		d.n.log.Warn("a block that an engine has written has no copy in GPU memory", "key", desc.Key, "err", err)
	}
	return at
}

// find pins a block where it lies in GPU memory. ErrNotFound: it is not there.
func (d *devices) find(key block.Key) (tier.Placed, error) {
	e, ok := d.n.dir.use(key)
	if !ok || !e.state.Valid().Has(block.VRAM) {
		return tier.Placed{}, tier.ErrNotFound
	}
	at, err := d.store.Place(key)
	switch {
	case errors.Is(err, tier.ErrNotFound):
		d.n.dropped(block.VRAM, key)
	case err == nil && (at.Sum != e.sum || at.Length != e.length): // it left and came back as another
		at.Release()
		return tier.Placed{}, tier.ErrNotFound
	}
	return at, d.noted(err)
}

// findName pins the newest version of a name in GPU memory, where it is brought to if it
// is not there.
func (d *devices) findName(ctx context.Context, namespace string, name []byte, o ReadOptions) (tier.Placed, NameState, error) {
	loan, state, err := d.n.ReadName(ctx, namespace, name, o)
	if err != nil {
		return tier.Placed{}, state, err
	}
	defer loan.Release()
	const tries = 3 // it may be evicted between the copy and the pin
	for range tries {
		at, err := d.find(loan.Key)
		if !errors.Is(err, tier.ErrNotFound) {
			return at, state, err
		}
		evicted, err := d.store.Put(ctx, loan.Descriptor, loan.Bytes)
		d.n.evicted(block.VRAM, evicted)
		if err != nil && !errors.Is(err, tier.ErrExists) {
			return tier.Placed{}, state, d.noted(err)
		}
		if err := d.enter(loan.Descriptor); err != nil {
			return tier.Placed{}, state, err
		}
	}
	return tier.Placed{}, state, fmt.Errorf("%w: GPU memory has no room that stays", tier.ErrFull)
}

// enter tells the directory of a copy in GPU memory of an object of a name, as Node.enter
// does of one in host memory.
func (d *devices) enter(desc block.Descriptor) error {
	state, err := coherency.New(block.VRAM, block.Host)
	if err != nil {
		return err
	}
	d.n.dir.change(desc.Key, func(e *entry, known bool) {
		switch _, held := d.store.Stat(desc.Key); {
		case !held || known && e.state.Valid().Has(block.VRAM):
		case !known:
			*e = newEntry(desc, state)
		default:
			c, beginErr := e.state.Begin(block.VRAM)
			if err = beginErr; err == nil {
				err = e.state.Commit(c)
			}
		}
	})
	return err
}
