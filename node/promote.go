package node

import (
	"context"
	"errors"

	"cairn/block"
	"cairn/tier"
)

// considerPromotion asks for a copy in GPU memory of a block that has been read
// often enough. It never waits: when the promoter is busy the block's next read
// asks again.
func (n *Node) considerPromotion(key block.Key, e entry) {
	if n.stores[block.VRAM] == nil || n.cfg.PromoteAfter == 0 ||
		int(e.uses) < n.cfg.PromoteAfter || e.state.Valid().Has(block.VRAM) {
		return
	}
	select {
	case n.promotions <- key:
	default:
	}
}

// promotionSample: of reads of names that need not ask the directory, one in so many does
// all the same, where uses count: a copy in GPU memory that went may come back.
const promotionSample = 64

// wasConsidered tells whether a block has been read often enough for that.
func (n *Node) wasConsidered(key block.Key) bool {
	e, ok := n.dir.get(key)
	return ok && int(e.uses) >= n.cfg.PromoteAfter
}

func (n *Node) promoteLoop(ctx context.Context) {
	for {
		select {
		case key := <-n.promotions:
			e, ok := n.dir.get(key)
			if !ok || e.state.Valid().Has(block.VRAM) {
				continue
			}
			err := n.raise(ctx, e.descriptor(key))
			if err != nil && ctx.Err() == nil && !errors.Is(err, tier.ErrFull) && !errors.Is(err, tier.ErrNotFound) {
				n.counters.promoteErrors.Add(1)
				n.log.Warn("promotion to GPU memory", "key", key, "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// raise copies a block from the host tier to GPU memory.
func (n *Node) raise(ctx context.Context, d block.Descriptor) error {
	vram := n.stores[block.VRAM]
	if vram == nil || n.lost[block.VRAM].Load() {
		return nil
	}
	v, err := n.host.View(d.Key)
	if err != nil {
		return err
	}
	defer v.Release()
	evicted, err := vram.Put(ctx, v.Descriptor, v.Bytes)
	n.evicted(block.VRAM, evicted)
	if errors.Is(err, tier.ErrDeviceLost) {
		n.tierLost(block.VRAM)
		return nil
	}
	if err != nil && !errors.Is(err, tier.ErrExists) {
		return err
	}
	n.counters.promoted.Add(1)
	return n.adopt(v.Descriptor, block.VRAM)
}
