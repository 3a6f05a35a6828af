package node

import (
	"context"
	"errors"
	"slices"

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
			n.promote(ctx, n.queuedPromotions(key))
		case <-ctx.Done():
			return
		}
	}
}

// queuedPromotions is what is asked for at this moment, at most Config.VRAMBatch blocks,
// first being one of them.
func (n *Node) queuedPromotions(first block.Key) []block.Key {
	keys := []block.Key{first}
	for len(keys) < n.cfg.VRAMBatch {
		select {
		case key := <-n.promotions:
			if !slices.Contains(keys, key) { // it is asked for until it is there
				keys = append(keys, key)
			}
		default:
			return keys
		}
	}
	return keys
}

// promote copies blocks to GPU memory that were read often.
func (n *Node) promote(ctx context.Context, keys []block.Key) {
	keys = slices.DeleteFunc(keys, func(key block.Key) bool {
		e, ok := n.dir.get(key)
		return !ok || e.state.Valid().Has(block.VRAM)
	})
	for i, err := range n.raiseMany(ctx, keys) {
		if errors.Is(err, tier.ErrFull) || errors.Is(err, tier.ErrNotFound) || errors.Is(err, tier.ErrTooLarge) {
			continue // it stays where it is, or has left
		}
		if err != nil && ctx.Err() == nil {
			n.counters.promoteErrors.Add(1)
			n.log.Warn("promotion to GPU memory", "key", keys[i], "err", err)
		}
	}
}

// raise copies a block from the host tier to GPU memory, if there is any.
func (n *Node) raise(ctx context.Context, d block.Descriptor) error {
	return n.raiseMany(ctx, []block.Key{d.Key})[0]
}

// raiseMany copies blocks from the host tier to GPU memory, if there is any, in batches of
// n.batchBytes: so much of the host tier is kept in place by one.
func (n *Node) raiseMany(ctx context.Context, keys []block.Key) []error {
	errs := make([]error, len(keys))
	for from := 0; from < len(keys) && n.has(block.VRAM); {
		var items []tier.Item
		var views []tier.View
		var at []int // of the items among keys
		to, bytes := from, 0
		for ; to < len(keys) && bytes < n.batchBytes; to++ {
			v, err := n.host.View(keys[to])
			if errs[to] = err; err != nil {
				continue
			}
			items, views, at = append(items, tier.Item{Descriptor: v.Descriptor, Bytes: v.Bytes}), append(views, v), append(at, to)
			bytes += len(v.Bytes)
		}
		for i, err := range n.raiseBatch(ctx, items) {
			errs[at[i]] = err
		}
		for _, v := range views {
			v.Release()
		}
		n.room.notify()
		from = to
	}
	return errs
}

// mostBatchBytes and batchShare bound about how many bytes of the host tier one batch of
// copies from or to GPU memory keeps in place: so many, and one part in so many of it.
const (
	mostBatchBytes = 64 << 20
	batchShare     = 8
)

// raiseBatch puts blocks of the host tier into GPU memory and tells the directory. The loss
// of the device is no error.
func (n *Node) raiseBatch(ctx context.Context, items []tier.Item) []error {
	if len(items) == 0 {
		return nil
	}
	evicted, errs := tier.PutMany(ctx, n.stores[block.VRAM], items)
	n.evicted(block.VRAM, evicted)
	for i, err := range errs {
		switch {
		case n.noteLoss(block.VRAM, err):
			errs[i] = nil
		case err == nil || errors.Is(err, tier.ErrExists):
			if errs[i] = n.adopt(items[i].Descriptor, block.VRAM); errs[i] == nil {
				n.counters.promoted.Add(1) // now who asks where the block is finds it there
			}
		}
	}
	return errs
}

// has tells whether this node has the tier, and has not lost it.
func (n *Node) has(t block.Tier) bool { return n.stores[t] != nil && !n.lost[t].Load() }

// noteLoss tells whether err says that the tier's device is gone, and sees to it that the
// node knows.
func (n *Node) noteLoss(t block.Tier, err error) bool {
	if !errors.Is(err, tier.ErrDeviceLost) {
		return false
	}
	n.tierLost(t)
	return true
}
