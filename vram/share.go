package vram

import (
	"errors"
	"fmt"

	"cairn/block"
	"cairn/tier"
)

// Identified is a Device that programs can tell from others: engines, which must open the
// same device as the node. Kind is a word such as "cuda"; the id of one device is the same
// in all processes, and empty where every device of the kind will do.
type Identified interface {
	Identity() (kind, id string)
}

var _ tier.Device = (*Pool)(nil)

// Arena implements [tier.Device]. The handle is made anew each time; it stays good until
// Close.
func (p *Pool) Arena() (tier.Arena, error) {
	p.mu.Lock()
	err := p.readyLocked()
	a := tier.Arena{Name: p.dev.Name(), Kind: p.dev.Name(), Bytes: p.slab.stats.Capacity, Alignment: SlotAlignment}
	for _, c := range p.slab.classes {
		a.Classes = append(a.Classes, int(c.size))
	}
	p.mu.Unlock()
	if i, ok := p.dev.(Identified); ok {
		a.Kind, a.ID = i.Identity()
	}
	sharer, ok := p.dev.(Sharer)
	if err == nil && !ok {
		err = fmt.Errorf("%s: %w", a.Name, tier.ErrNotShared)
	}
	if err == nil {
		a.Handle, err = sharer.Export(p.arena)
	}
	if err != nil {
		return tier.Arena{}, fmt.Errorf("vram: export the arena: %w", err)
	}
	return a, nil
}

// Place implements [tier.Device]: it is [Pool.Map] for who has mapped the arena elsewhere.
func (p *Pool) Place(key block.Key) (tier.Placed, error) {
	v, err := p.Map(key)
	if err != nil {
		return tier.Placed{}, err
	}
	return p.placed(v), nil
}

func (p *Pool) placed(v DeviceView) tier.Placed {
	return tier.NewPlaced(v.Descriptor, int64(v.Addr-p.arena), v.Release)
}

// region is memory of another process that this process has mapped on the device.
type region struct {
	p      *Pool
	at     Addr // 0: closed
	size   int64
	sharer Sharer
}

// Import implements [tier.Device]. Close does not wait for regions: their owner closes them
// first.
func (p *Pool) Import(handle []byte) (tier.Region, error) {
	sharer, ok := p.dev.(Sharer)
	if !ok {
		return nil, fmt.Errorf("vram: import: %s: %w", p.dev.Name(), tier.ErrNotShared)
	}
	at, size, err := sharer.Import(handle)
	switch {
	case errors.Is(err, ErrInvalidHandle):
		return nil, fmt.Errorf("vram: import: %w: %w", tier.ErrHandle, err)
	case err != nil:
		return nil, p.settled("import", err)
	}
	return &region{p: p, at: at, size: size, sharer: sharer}, nil
}

func (r *region) Size() int64 { return r.size }

// check refuses what is not inside the region.
func (r *region) check(offset, n int64) error {
	if r.at == 0 {
		return fmt.Errorf("vram: the region is closed: %w", ErrInvalidAddress)
	}
	if offset < 0 || offset > r.size || n > r.size-offset {
		return fmt.Errorf("vram: %d bytes at %d of a region of %d bytes: %w", n, offset, r.size, ErrInvalidAddress)
	}
	return nil
}

// Store implements [tier.Region].
func (r *region) Store(s tier.DeviceSlot, from int64) error {
	slot, ok := s.(*Reservation)
	if !ok || slot.pool != r.p {
		return fmt.Errorf("vram: store into a slot of another pool: %w", ErrInvalidAddress)
	}
	n := int64(slot.n)
	if err := r.check(from, n); err != nil {
		return err
	}
	dst, src := slot.Addr(), r.at+Addr(from)
	return r.p.settled("store", r.p.in.next().run(func(s Stream) error { return s.CopyDevice(dst, src, n) }))
}

// Load implements [tier.Region].
func (r *region) Load(o tier.Placed, to int64) error {
	n := int64(o.Length)
	if err := r.check(to, n); err != nil || n == 0 {
		return err
	}
	dst, src := r.at+Addr(to), r.p.arena+Addr(o.Offset)
	return r.p.settled("load", r.p.out.next().run(func(s Stream) error { return s.CopyDevice(dst, src, n) }))
}

// Close implements [tier.Region].
func (r *region) Close() error {
	if r.at == 0 {
		return nil
	}
	at := r.at
	r.at = 0
	err := r.sharer.Unimport(at)
	if err == nil || errors.Is(err, tier.ErrDeviceLost) || errors.Is(err, tier.ErrClosed) {
		return nil // the device has taken it back already
	}
	return fmt.Errorf("vram: unmap a region: %w", err)
}
