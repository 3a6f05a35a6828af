package vram

import (
	"context"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/tier"
)

// Reservation is a slot that somebody else than the pool fills: an engine on the same
// device, in place. Its slot is filling, in the words of the package comment, so nobody
// finds it. It is used by one goroutine, and ends with Commit or Abort.
type Reservation struct {
	pool  *Pool
	slot  ref
	n     int
	ended bool
}

var _ tier.DeviceSlot = (*Reservation)(nil)

// Reserve implements [tier.Device]. Close waits for the end of the reservation.
func (p *Pool) Reserve(ctx context.Context, n int) (tier.DeviceSlot, []block.Key, error) {
	r, evicted, err := p.reserve(ctx, n)
	if err != nil {
		return nil, evicted, fmt.Errorf("vram: reserve %d bytes: %w", n, err)
	}
	return r, evicted, nil
}

func (p *Pool) reserve(ctx context.Context, n int) (*Reservation, []block.Key, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if n <= 0 {
		return nil, nil, errors.New("want a positive number")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.readyLocked(); err != nil {
		return nil, nil, err
	}
	c, ok := p.slab.classFor(n)
	if !ok {
		return nil, nil, fmt.Errorf("the largest slot is %d: %w", p.largest, tier.ErrTooLarge)
	}
	slot, evicted, err := p.slab.take(c)
	if err != nil {
		return nil, evicted, err
	}
	p.active++
	return &Reservation{pool: p, slot: slot, n: n}, evicted, nil
}

// Addr is where the slot begins in device memory, to this process.
func (r *Reservation) Addr() Addr { return r.pool.arena + Addr(r.Offset()) }

// Offset implements [tier.DeviceSlot].
func (r *Reservation) Offset() int64 {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	return r.pool.slab.offset(r.slot)
}

// Len implements [tier.DeviceSlot].
func (r *Reservation) Len() int { return r.n }

// CopyOut implements [tier.DeviceSlot].
func (r *Reservation) CopyOut(dst []byte) error {
	if len(dst) != r.n {
		return fmt.Errorf("vram: copy a slot of %d bytes out to %d: %w", r.n, len(dst), tier.ErrShortBuffer)
	}
	return r.pool.settled("copy a slot out", r.pool.out.copyOut(dst, r.Addr()))
}

// settled is what became of a copy that belongs to no key.
func (p *Pool) settled(what string, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err = p.copiedLocked(err); err != nil {
		return fmt.Errorf("vram: %s: %w", what, err)
	}
	return nil
}

// Commit implements [tier.DeviceSlot].
func (r *Reservation) Commit(d block.Descriptor) (tier.Placed, error) {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.readyLocked()
	switch {
	case r.ended:
		return tier.Placed{}, wrap("commit", d.Key, errors.New("the reservation has ended"))
	case err != nil:
	case int(d.Length) != r.n:
		err = fmt.Errorf("the descriptor says %d bytes, reserved are %d", d.Length, r.n)
	default:
		err = p.slab.exists(d)
	}
	r.ended = true
	if err != nil {
		p.slab.discard(r.slot)
		p.doneLocked()
		return tier.Placed{}, wrap("commit", d.Key, err)
	}
	p.slab.publish(r.slot, d)
	p.slab.hold(r.slot) // the reservation's place among what is active is the view's now
	return p.placed(DeviceView{Descriptor: d, Addr: p.addr(r.slot), pool: p, slot: r.slot}), nil
}

// Abort implements [tier.DeviceSlot].
func (r *Reservation) Abort() {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	p.slab.discard(r.slot)
	p.doneLocked()
}
