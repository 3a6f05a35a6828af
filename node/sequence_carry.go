package node

import (
	"context"
	"errors"
	"slices"

	"cairn/block"
	"cairn/sequence"
	"cairn/tier"
)

// carry brings the blocks of one transfer. What its source does not give is asked of
// others that have it, one after another; the first block that nobody gives ends the
// onboard there.
func (o *onboarding) carry(ctx context.Context, t transfer) {
	tried := map[source]bool{}
	left := t.pairs
	for from := t.from; ; {
		shared, why := o.move(ctx, t.part, from, left)
		tried[from] = !shared
		left = slices.DeleteFunc(left, func(p sequence.Pair) bool { return o.has(t.part, p.Position) })
		if len(left) == 0 || ctx.Err() != nil || !o.wanted(left[0].Position) {
			return
		}
		if pinsProblem(why) != nil {
			o.missed(left[0].Position, why)
			return
		}
		if shared {
			continue
		}
		var ok bool
		if from, ok = o.another(o.keys[left[0].Position], tried); !ok {
			o.missed(left[0].Position, why)
			return
		}
	}
}

// another is a source that has not been tried yet, the best first.
func (o *onboarding) another(key block.Key, tried map[source]bool) (source, bool) {
	if e, ok := o.n.dir.get(key); ok {
		for t := range e.state.Valid().All() { // the destination too: somebody else may have brought it
			if f := (source{tier: t}); !tried[f] {
				return f, true
			}
		}
	}
	for _, h := range o.n.peers.Locate([]block.Key{key})[0] {
		if f := (source{peer: h.Addr}); !tried[f] {
			return f, true
		}
	}
	return source{}, false
}

// move takes what one source has of the blocks. It returns why the first that did not
// land did not; shared, that some of them were not asked of the source.
func (o *onboarding) move(ctx context.Context, p *part, from source, pairs []sequence.Pair) (shared bool, first error) {
	if from.peer != "" {
		return o.fetchOnce(ctx, p, from.peer, pairs)
	}
	if from.tier == block.Host && o.to == block.VRAM {
		return false, o.liftMany(ctx, p, pairs)
	}
	for _, pair := range pairs {
		if ctx.Err() != nil || !o.wanted(pair.Position) {
			break
		}
		err := o.lift(ctx, p, pair.Position, from.tier)
		if first == nil {
			first = err
		}
		if pinsProblem(err) != nil {
			break
		}
	}
	return false, first
}

// lift brings one block from another tier of this node.
func (o *onboarding) lift(ctx context.Context, p *part, position int, from block.Tier) error {
	e, ok := o.n.dir.get(o.keys[position])
	if !ok || !e.state.Valid().Has(from) {
		return tier.ErrNotFound
	}
	d := e.descriptor(o.keys[position])
	if from == o.to {
		return o.pin(p, position, d)
	}
	err := o.take(position, d)
	if err != nil {
		return err
	}
	var object uint64
	if from == block.Host {
		object, err = o.upwards(ctx, d)
	} else {
		object, err = o.through(ctx, d, from)
	}
	if err != nil {
		o.drop(position, d)
		return err
	}
	o.landed(p, position, d, object, Origin(from))
	return nil
}

// upwards brings a block from the host tier, where it is read in place. See land.
func (o *onboarding) upwards(ctx context.Context, d block.Descriptor) (object uint64, err error) {
	v, err := o.n.host.View(d.Key)
	if err != nil {
		o.n.dropped(block.Host, d.Key)
		return 0, err
	}
	defer o.n.room.notify()
	defer v.Release()
	return o.land(ctx, v.Descriptor, v.Bytes, nil)
}

// through brings a block from a tier that has no memory to be read in place, by way of
// a slot of host memory. See land.
func (o *onboarding) through(ctx context.Context, d block.Descriptor, from block.Tier) (object uint64, err error) {
	b, err := o.buffer(ctx, d.Length)
	if err != nil {
		return 0, err
	}
	defer b.release(o.n)
	if err := o.n.copyOut(ctx, d, from, b.bytes()); err != nil {
		return 0, err
	}
	return o.land(ctx, d, b.bytes(), &b)
}

// errUnwanted: a block before this one could not be had.
var errUnwanted = errors.New("of no use any more")
