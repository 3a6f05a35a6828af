package node

import (
	"context"
	"errors"

	"cairn/block"
	"cairn/sequence"
	"cairn/tier"
)

// lifting is blocks of the host tier that go up to GPU memory together: what is read in
// place is kept there until all have been copied.
type lifting struct {
	o     *onboarding
	part  *part
	items []tier.Item
	pairs []sequence.Pair
	views []tier.View
	// first is why the first block did not land that did not, at its position.
	first error
	at    int
}

// liftMany is lift of many blocks of the host tier to GPU memory, in batches of n.batchBytes. It
// returns why the first that did not land did not.
func (o *onboarding) liftMany(ctx context.Context, p *part, pairs []sequence.Pair) error {
	for len(pairs) > 0 {
		l := lifting{o: o, part: p}
		next, more := l.take(ctx, pairs)
		l.carry(ctx)
		pairs = next
		if l.first != nil || !more {
			return l.first
		}
	}
	return nil
}

func (l *lifting) failed(position int, err error) {
	if l.first == nil || position < l.at {
		l.first, l.at = err, position
	}
}

// take accounts for the blocks of one batch. more is false when those behind are not to be
// had.
func (l *lifting) take(ctx context.Context, pairs []sequence.Pair) (next []sequence.Pair, more bool) {
	o, bytes := l.o, 0
	for i, pair := range pairs {
		if bytes >= o.n.batchBytes {
			return pairs[i:], true
		}
		if ctx.Err() != nil || !o.wanted(pair.Position) {
			return nil, false
		}
		key := o.keys[pair.Position]
		e, ok := o.n.dir.get(key)
		if !ok || !e.state.Valid().Has(block.Host) {
			l.failed(pair.Position, tier.ErrNotFound)
			continue
		}
		d := e.descriptor(key)
		if err := o.take(pair.Position, d); err != nil {
			l.failed(pair.Position, err)
			if pinsProblem(err) != nil {
				return nil, false
			}
			continue
		}
		l.items, l.pairs = append(l.items, tier.Item{Descriptor: d, Pin: true}), append(l.pairs, pair)
		bytes += int(d.Length)
	}
	return nil, true
}

// carry copies what was taken. A block that does not go up with the others is tried alone.
func (l *lifting) carry(ctx context.Context) {
	o := l.o
	l.view()
	if len(l.items) == 0 {
		return
	}
	evicted, errs := tier.PutMany(ctx, o.store, l.items)
	o.n.evicted(o.to, evicted)
	for i, err := range errs {
		it, position := &l.items[i], l.pairs[i].Position
		switch {
		case err == nil || errors.Is(err, tier.ErrExists) && it.Object != 0:
			err = o.enter(it.Descriptor, it.Object)
		case o.n.noteLoss(o.to, err) || ctx.Err() != nil:
		default:
			it.Object, err = o.land(ctx, it.Descriptor, it.Bytes, nil)
		}
		if err != nil {
			o.drop(position, it.Descriptor)
			l.failed(position, err)
			continue
		}
		o.landed(l.part, position, it.Descriptor, it.Object, FromHost)
	}
	for _, v := range l.views {
		v.Release()
	}
	o.n.room.notify()
}

// view keeps the blocks in place that the host tier still has, and lets go of the others.
func (l *lifting) view() {
	o, kept := l.o, 0
	for i, it := range l.items {
		v, err := o.n.host.View(it.Key)
		if err != nil {
			o.n.dropped(block.Host, it.Key)
			o.drop(l.pairs[i].Position, it.Descriptor)
			l.failed(l.pairs[i].Position, err)
			continue
		}
		// The object may be another one with the same bytes than the directory has told of.
		l.items[kept], l.pairs[kept] = tier.Item{Descriptor: v.Descriptor, Bytes: v.Bytes, Pin: true}, l.pairs[i]
		l.views = append(l.views, v)
		kept++
	}
	l.items, l.pairs = l.items[:kept], l.pairs[:kept]
}
