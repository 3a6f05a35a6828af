package node

import (
	"context"
	"fmt"

	"cairn/block"
	"cairn/sequence"
	"cairn/tier"
)

// fetch brings blocks from a peer, in one batch. Each is verified and goes up to GPU
// memory as soon as it has arrived, while the next ones travel. It returns why the first
// that did not land did not.
func (o *onboarding) fetch(ctx context.Context, p *part, peer string, pairs []sequence.Pair) error {
	ctx, cancel := context.WithTimeout(ctx, o.n.cfg.FetchTimeout)
	defer cancel()
	keys := make([]block.Key, len(pairs))
	for i, pair := range pairs {
		keys[i] = o.keys[pair.Position]
	}
	b := batch{o: o, part: p, pairs: pairs, peer: peer, errs: make([]error, len(pairs))}
	for i := range b.errs {
		b.errs[i] = tier.ErrNotFound // until it arrives
	}
	err := o.n.dialer.fetch(ctx, peer, keys,
		func(i int, d block.Descriptor) ([]byte, error) { return b.place(ctx, i, d) },
		func(i int) { b.arrived(ctx, i) })
	b.giveUp()
	b.buf.release(o.n)
	if err != nil {
		o.n.counters.peerErrors.Add(1)
		o.n.log.Debug("onboard from peer", "peer", peer, "blocks", len(pairs), "err", err)
		err = fmt.Errorf("%w: %s: %w", ErrPeer, peer, err)
	}
	for _, failed := range b.errs {
		switch {
		case failed == nil:
		case err != nil && failed == tier.ErrNotFound:
			return err
		default:
			return failed
		}
	}
	return nil
}

// batch is blocks that come from a peer, one after another.
type batch struct {
	o     *onboarding
	part  *part
	pairs []sequence.Pair
	peer  string
	errs  []error // of each block; nil: it has landed

	// The block that is arriving, if there is one.
	arriving bool
	position int
	d        block.Descriptor
	// buf is where it lies: used again for the next one, unless it has become a block.
	buf buffer
}

// place gives memory for a block that is about to arrive.
func (b *batch) place(ctx context.Context, i int, d block.Descriptor) (p []byte, err error) {
	b.giveUp()
	defer func() {
		if err != nil {
			b.errs[i] = err
		}
	}()
	o, position := b.o, b.pairs[i].Position
	switch {
	case !o.wanted(position):
		return nil, errUnwanted
	case d.Length > uint32(o.n.cfg.MaxBlock):
		return nil, fmt.Errorf("%w: %d bytes, max-block-bytes is %d", tier.ErrTooLarge, d.Length, o.n.cfg.MaxBlock)
	}
	if err := o.take(position, d); err != nil {
		return nil, err
	}
	if p := b.buf.bytes(); p == nil || len(p) != int(d.Length) {
		b.buf.release(o.n)
		if b.buf, err = o.buffer(ctx, d.Length); err != nil {
			o.drop(position, d)
			return nil, err
		}
	}
	b.arriving, b.position, b.d = true, position, d
	return b.buf.bytes(), nil
}

// arrived takes in a block whose bytes are there.
func (b *batch) arrived(ctx context.Context, i int) {
	o := b.o
	defer b.giveUp()
	if !b.d.Matches(b.buf.bytes()) {
		b.errs[i] = fmt.Errorf("%w: from peer %s", tier.ErrCorrupt, b.peer)
		o.n.log.Warn("peer sent bytes that do not match their checksum", "key", b.d.Key, "peer", b.peer)
		return
	}
	object, err := o.land(ctx, b.d, b.buf.bytes(), &b.buf)
	if b.errs[i] = err; err == nil {
		b.arriving = false
		o.s.fromPeer(b.d.Key)
		o.landed(b.part, b.position, b.d, object, FromPeer)
	}
}

// giveUp gives back what is kept for a block that does not land.
func (b *batch) giveUp() {
	if b.arriving {
		b.arriving = false
		b.o.drop(b.position, b.d)
	}
}
