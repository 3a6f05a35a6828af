package vram

import (
	"context"
	"errors"

	"cairn/block"
	"cairn/tier"
)

var (
	_ tier.Batcher   = (*Pool)(nil)
	_ tier.Flyer     = (*Pool)(nil)
	_ tier.Describer = (*Pool)(nil)
)

// Describe implements [tier.Describer]: the name of the device.
func (p *Pool) Describe() string { return p.dev.Name() }

// Flights implements [tier.Flyer].
func (p *Pool) Flights() tier.Flights { return p.flow.flights() }

// PutMany implements [tier.Batcher]. The copies of Config.BatchBytes at a time are one
// operation of the device with one event behind it: the objects become visible together,
// and when one of these copies fails, none of them does.
func (p *Pool) PutMany(ctx context.Context, items []tier.Item) (evicted []block.Key, errs []error) {
	errs = make([]error, len(items))
	p.inTurn(ctx, items, errs, func(items []tier.Item, errs []error) {
		evicted = append(evicted, p.putBatch(ctx, items, errs)...)
	})
	for i, err := range errs {
		if err != nil {
			errs[i] = wrap("put", items[i].Key, err)
		}
	}
	return evicted, errs
}

// GetMany implements [tier.Batcher], in the same way.
func (p *Pool) GetMany(ctx context.Context, items []tier.Item) (errs []error) {
	errs = make([]error, len(items))
	p.inTurn(ctx, items, errs, func(items []tier.Item, errs []error) { p.getBatch(ctx, items, errs) })
	for i, err := range errs {
		if err != nil {
			errs[i] = wrap("get", items[i].Key, err)
		}
	}
	return errs
}

// inTurn cuts items into batches and calls move for each when it may go. Where ctx ends
// before that, the errors of what is left are its own.
func (p *Pool) inTurn(ctx context.Context, items []tier.Item, errs []error, move func([]tier.Item, []error)) {
	for from := 0; from < len(items); {
		to, bytes := from, int64(0)
		for to < len(items) && (to == from || bytes+int64(len(items[to].Bytes)) <= p.flow.bytes) {
			bytes += int64(len(items[to].Bytes))
			to++
		}
		if err := p.flow.enter(ctx, bytes); err != nil {
			for i := from; i < len(items); i++ {
				errs[i] = err
			}
			return
		}
		move(items[from:to], errs[from:to])
		p.flow.leave(bytes)
		from = to
	}
}

// putBatch puts the items with one operation of the device. Each either gets an error, or
// is there when it returns.
func (p *Pool) putBatch(ctx context.Context, items []tier.Item, errs []error) (evicted []block.Key) {
	refs, dst, src, evicted := p.beginBatch(ctx, items, errs)
	var failed error
	if len(dst) > 0 {
		failed = p.in.copyInMany(dst, src)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	failed = p.copiedLocked(failed)
	for i := range items {
		if refs[i] != noRef {
			errs[i] = p.endPutLocked(refs[i], &items[i], failed)
		}
	}
	return evicted
}

// beginBatch takes a slot for each item that needs one, and says what is to be copied where.
func (p *Pool) beginBatch(ctx context.Context, items []tier.Item, errs []error) (refs []ref, dst []Addr, src [][]byte, evicted []block.Key) {
	refs = make([]ref, len(items))
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range items {
		it := &items[i]
		refs[i], it.Object = noRef, 0
		if errs[i] = ctx.Err(); errs[i] != nil {
			continue
		}
		var at Addr
		var gone []block.Key
		refs[i], at, gone, errs[i] = p.beginPutLocked(it.Descriptor, it.Bytes)
		evicted = append(evicted, gone...)
		switch {
		case errs[i] == nil && len(it.Bytes) > 0:
			dst, src = append(dst, at), append(src, it.Bytes)
		case errors.Is(errs[i], tier.ErrExists):
			p.pinExistingLocked(it)
		}
	}
	return refs, dst, src, evicted
}

// endPutLocked makes the slot the item's object, or gives it back.
func (p *Pool) endPutLocked(r ref, it *tier.Item, failed error) error {
	defer p.doneLocked()
	if failed == nil {
		failed = p.slab.exists(it.Descriptor) // another Put may have been faster
	}
	if failed != nil {
		p.slab.discard(r)
		if errors.Is(failed, tier.ErrExists) {
			p.pinExistingLocked(it)
		}
		return failed
	}
	p.slab.publish(r, it.Descriptor)
	p.pinExistingLocked(it)
	return nil
}

// pinExistingLocked pins the item's object, which is there, if that is asked for.
func (p *Pool) pinExistingLocked(it *tier.Item) {
	if !it.Pin {
		return
	}
	r, sl := p.slab.find(it.Key)
	p.slab.pin(r)
	it.Object = sl.birth
}

// getBatch gets the items with one operation of the device.
func (p *Pool) getBatch(ctx context.Context, items []tier.Item, errs []error) {
	views := make([]DeviceView, len(items))
	dst, src := make([][]byte, 0, len(items)), make([]Addr, 0, len(items))
	for i := range items {
		it := &items[i]
		if errs[i] = ctx.Err(); errs[i] != nil {
			continue
		}
		if views[i], errs[i] = p.hold(it.Key, len(it.Bytes), it.Quiet); errs[i] != nil {
			continue
		}
		if n := views[i].Length; n > 0 {
			dst, src = append(dst, it.Bytes[:n]), append(src, views[i].Addr)
		}
	}
	var failed error
	if len(dst) > 0 {
		failed = p.out.copyOutMany(dst, src)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	failed = p.copiedLocked(failed)
	for i := range items {
		if views[i].pool != nil {
			p.releaseLocked(views[i].slot)
			errs[i] = failed
		}
		if errs[i] == nil || errors.Is(errs[i], tier.ErrShortBuffer) {
			items[i].Descriptor = views[i].Descriptor
		}
	}
}

// copyInMany copies each src to its dst with one operation, if the stream has one, and
// returns when the device is done with all of them.
func (l *lanes) copyInMany(dst []Addr, src [][]byte) error {
	return l.next().run(func(s Stream) error {
		if b, ok := s.(BatchStream); ok {
			return b.CopyInBatch(dst, src)
		}
		return oneByOne(s, len(dst), func(i int) error { return s.CopyIn(dst[i], src[i]) })
	})
}

// copyOutMany is copyInMany in the other direction.
func (l *lanes) copyOutMany(dst [][]byte, src []Addr) error {
	return l.next().run(func(s Stream) error {
		if b, ok := s.(BatchStream); ok {
			return b.CopyOutBatch(dst, src)
		}
		return oneByOne(s, len(dst), func(i int) error { return s.CopyOut(dst[i], src[i]) })
	})
}

// oneByOne queues n copies, all or none: where one is refused it waits for those before it,
// so that nothing is still being copied when it returns an error.
func oneByOne(s Stream, n int, queue func(i int) error) error {
	for i := range n {
		if err := queue(i); err != nil {
			if i > 0 {
				err = errors.Join(err, s.Synchronize())
			}
			return err
		}
	}
	return nil
}
