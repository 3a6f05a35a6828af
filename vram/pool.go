package vram

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"cairn/block"
	"cairn/tier"
)

// Pool is the store of one device: a [tier.Pinner], whose objects may also be
// read in place by what runs on the device ([Pool.Map]). All methods may be
// called in parallel.
type Pool struct {
	dev     Device
	arena   Addr
	largest int // class, in bytes
	in, out lanes
	flow    flow // of batches

	closing  sync.Once
	closeErr error

	// mu is never held while bytes move or a device is called.
	mu     sync.Mutex
	slab   *slab
	active int       // copies under way and views
	quiet  sync.Cond // active is 0; uses mu
	closed bool
	lost   error // the first ErrDeviceLost
	hits   int64
	misses int64
	errs   int64
}

var (
	_ tier.Pinner  = (*Pool)(nil)
	_ tier.Advised = (*Pool)(nil)
)

// Open takes the arena of a pool from dev, which stays the caller's and must be
// closed after the pool. ErrOutOfMemory says that Capacity is not to be had.
func Open(dev Device, cfg Config) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	free, total, err := dev.Memory()
	if err != nil {
		return nil, fmt.Errorf("vram: read the memory size of %s: %w", dev.Name(), err)
	}
	if cfg, err = cfg.resolve(free); err != nil {
		return nil, err
	}
	arena, err := dev.Alloc(cfg.Capacity)
	if err != nil {
		return nil, fmt.Errorf("vram: allocate %d bytes on %s, which has %d of %d free (lower Capacity or Fraction, or stop what else uses its memory): %w",
			cfg.Capacity, dev.Name(), free, total, err)
	}
	slab, err := newSlab(cfg.Capacity, cfg.RunSize, slices.Sorted(slices.Values(cfg.Classes)), cfg.Eviction, cfg.Seed)
	if err != nil {
		return nil, errors.Join(err, dev.Free(arena))
	}
	p := &Pool{dev: dev, arena: arena, largest: slices.Max(cfg.Classes), slab: slab, flow: flow{batches: cfg.Batches, bytes: cfg.BatchBytes}}
	p.quiet.L = &p.mu
	for _, l := range []*lanes{&p.in, &p.out} {
		if err := l.open(dev, cfg.Streams); err != nil {
			return nil, errors.Join(fmt.Errorf("vram: open a stream on %s: %w", dev.Name(), err), p.giveBack())
		}
	}
	return p, nil
}

// giveBack returns what the pool has of the device. A device that is lost has
// taken it back already.
func (p *Pool) giveBack() error {
	err := errors.Join(p.in.close(), p.out.close(), p.dev.Free(p.arena))
	if errors.Is(err, tier.ErrDeviceLost) {
		return nil
	}
	return err
}

// Close waits for copies under way and for views, because memory must not be
// freed under a reader, and gives the arena back. It does not close the device.
func (p *Pool) Close() error {
	p.closing.Do(func() {
		p.mu.Lock()
		p.closed = true
		for p.active > 0 {
			p.quiet.Wait()
		}
		p.mu.Unlock()
		if err := p.giveBack(); err != nil {
			p.closeErr = fmt.Errorf("vram: close: %w", err)
		}
	})
	return p.closeErr
}

// readyLocked says why no call may go on.
func (p *Pool) readyLocked() error {
	if p.closed {
		return tier.ErrClosed
	}
	return p.lost
}

// doneLocked ends one copy or view.
func (p *Pool) doneLocked() {
	if p.active--; p.active == 0 {
		p.quiet.Broadcast()
	}
}

// copiedLocked is what became of a copy of which the device said err: that, or that the
// device was lost meanwhile. It takes note of errors; a lost device leaves an empty pool.
func (p *Pool) copiedLocked(err error) error {
	if err == nil {
		return p.lost
	}
	p.errs++
	if p.lost == nil && errors.Is(err, tier.ErrDeviceLost) {
		p.lost = err
		for _, r := range p.slab.index {
			p.slab.drop(r)
		}
	}
	return err
}

func wrap(verb string, key block.Key, err error) error {
	return fmt.Errorf("vram: %s block %s: %w", verb, key, err)
}

func (p *Pool) addr(r ref) Addr { return p.arena + Addr(p.slab.offset(r)) }

// Put implements [tier.Store]. The object is visible when the copy to the device
// has completed. A ctx that ends while the copy is under way does not cut it
// short, for the device reads src until then.
func (p *Pool) Put(ctx context.Context, d block.Descriptor, src []byte) (evicted []block.Key, err error) {
	r, dst, evicted, err := p.beginPut(ctx, d, src)
	if err != nil {
		return evicted, wrap("put", d.Key, err)
	}
	if len(src) > 0 {
		err = p.in.copyIn(dst, src)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.doneLocked()
	if err = p.copiedLocked(err); err == nil {
		err = p.slab.exists(d) // another Put may have been faster
	}
	if err != nil {
		p.slab.discard(r)
		return evicted, wrap("put", d.Key, err)
	}
	p.slab.publish(r, d)
	return evicted, nil
}

func (p *Pool) beginPut(ctx context.Context, d block.Descriptor, src []byte) (ref, Addr, []block.Key, error) {
	if err := ctx.Err(); err != nil {
		return noRef, 0, nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beginPutLocked(d, src)
}

// beginPutLocked takes a slot for an object, whose address it gives.
func (p *Pool) beginPutLocked(d block.Descriptor, src []byte) (ref, Addr, []block.Key, error) {
	if len(src) != int(d.Length) {
		return noRef, 0, nil, fmt.Errorf("the descriptor says %d bytes, given are %d", d.Length, len(src))
	}
	if err := p.readyLocked(); err != nil {
		return noRef, 0, nil, err
	}
	if err := p.slab.exists(d); err != nil {
		return noRef, 0, nil, err
	}
	c, ok := p.slab.classFor(len(src))
	if !ok {
		return noRef, 0, nil, fmt.Errorf("%d bytes, the largest slot is %d: %w", len(src), p.largest, tier.ErrTooLarge)
	}
	r, evicted, err := p.slab.take(c)
	if err != nil {
		return noRef, 0, evicted, err
	}
	p.active++
	return r, p.addr(r), evicted, nil
}

// Get implements [tier.Store]. A ctx that ends while the copy is under way does
// not cut it short, for the device writes to dst until then.
func (p *Pool) Get(ctx context.Context, key block.Key, dst []byte) (block.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return block.Descriptor{}, wrap("get", key, err)
	}
	v, err := p.hold(key, len(dst), false)
	if err != nil {
		return v.Descriptor, wrap("get", key, err)
	}
	if v.Length > 0 {
		err = p.out.copyOut(dst[:v.Length], v.Addr)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err = p.copiedLocked(err)
	p.releaseLocked(v.slot)
	if err != nil {
		return block.Descriptor{}, wrap("get", key, err)
	}
	return v.Descriptor, nil
}

// hold finds the object and keeps it in place. room is what the caller has for
// its bytes; with too little nothing is held and only the descriptor is given. quiet says
// that this is no use of the object.
func (p *Pool) hold(key block.Key, room int, quiet bool) (DeviceView, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.readyLocked(); err != nil {
		return DeviceView{}, err
	}
	r, sl := p.slab.find(key)
	switch {
	case quiet && sl == nil:
		return DeviceView{}, tier.ErrNotFound
	case quiet:
	case sl == nil:
		p.misses++
		return DeviceView{}, tier.ErrNotFound
	default:
		p.hits++
	}
	if room < int(sl.d.Length) {
		return DeviceView{Descriptor: sl.d}, fmt.Errorf("%d of %d bytes: %w", room, sl.d.Length, tier.ErrShortBuffer)
	}
	if quiet {
		p.slab.hush(r)
	} else {
		p.slab.hold(r)
	}
	p.active++
	return DeviceView{Descriptor: sl.d, Addr: p.addr(r), pool: p, slot: r}, nil
}

func (p *Pool) releaseLocked(r ref) {
	p.slab.release(r)
	p.doneLocked()
}

// DeviceView is an object pinned in device memory. The zero DeviceView is empty
// and Release on it does nothing.
type DeviceView struct {
	block.Descriptor
	// Addr is where the Length bytes begin. They are read-only and stay until
	// Release.
	Addr Addr

	pool *Pool
	slot ref
}

// Release ends the view. It must be called exactly once for each DeviceView
// returned, when what reads it on the device has ended.
func (v DeviceView) Release() {
	if v.pool == nil {
		return
	}
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	v.pool.releaseLocked(v.slot)
}

// Map pins the object in place and says where it is, so that an engine on the
// same device reads it without a copy. It counts as a use of it. Close waits for
// the view's Release.
func (p *Pool) Map(key block.Key) (DeviceView, error) {
	v, err := p.hold(key, block.MaxLength, false)
	if err != nil {
		return DeviceView{}, wrap("map", key, err)
	}
	return v, nil
}
