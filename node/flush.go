package node

import (
	"context"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/tier"
)

// errOwed: the home tier has refused a block that this node still has.
var errOwed = errors.New("in memory only, their home tier refused them")

// Flush makes all blocks durable that were acknowledged before it began, as far as they are
// still here. Blocks that their home tier had refused, such as a disk that was full, are tried
// again. Flushes may run in parallel, with puts going on: what comes later is not waited for.
//
// The error of the home tier, of the kinds of [tier], says that blocks are in memory only and
// may be evicted there; the next Flush tries again.
func (n *Node) Flush(ctx context.Context) error {
	if err := n.settleRefused(ctx); err != nil {
		return err
	}
	if err := n.awaitOffload(ctx); err != nil {
		return err
	}
	if left, why := n.stillRefused(); left > 0 {
		return fmt.Errorf("%d blocks are %w: %w", left, errOwed, why)
	}
	return nil
}

// awaitOffload returns when what waits for its offload now has had it.
func (n *Node) awaitOffload(ctx context.Context) error {
	n.offloadMu.Lock()
	cut := n.offloads.Cut()
	n.offloadMu.Unlock()
	for {
		room := n.room.wait()
		n.offloadMu.Lock()
		epoch, err := n.offloads.Epoch(), error(nil)
		for epoch <= cut && err == nil {
			epoch, err = n.offloads.Advance()
		}
		left := n.offloads.Pending() + n.offloads.InFlight()
		n.offloadMu.Unlock()
		if epoch > cut {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("%d blocks not yet durable: %w", left, ctx.Err())
		}
	}
}

// settleRefused has what was refused brought home again. One call does so at a time, so that
// none finds nothing to do while another has taken it.
func (n *Node) settleRefused(ctx context.Context) error {
	select {
	case n.settling <- struct{}{}:
		defer func() { <-n.settling }()
	case <-ctx.Done():
		return ctx.Err()
	}
	n.offloadMu.Lock()
	again := n.refused.why
	n.refused = newRefused()
	n.offloadMu.Unlock()
	for key := range again {
		if !n.owes(key) {
			continue
		}
		object, err := n.host.PinExact(key)
		if err == nil {
			n.enqueueOffload(key, object)
			continue
		}
		if errors.Is(err, tier.ErrNotFound) { // in GPU memory only
			err = n.secure(ctx, key)
		}
		if err != nil {
			n.offloadMu.Lock()
			n.refused.add(n, key, err)
			n.offloadMu.Unlock()
		}
	}
	return nil
}

// owes tells whether the node has the block, and not at home.
func (n *Node) owes(key block.Key) bool {
	e, known := n.dir.get(key)
	return known && !e.state.Durable()
}

// refusedLook is how many blocks a node notes as refused before it looks which of them have
// left it since.
const refusedLook = 1024

// refused are the blocks that were acknowledged and that their home tier would not take.
// They are ordinary blocks, which may be evicted. Node.offloadMu guards them: a block is
// there from the moment when it waits for its offload no longer.
type refused struct {
	why  map[block.Key]error
	look int // at so many blocks those that are owed no longer are forgotten
}

func newRefused() refused { return refused{why: map[block.Key]error{}, look: refusedLook} }

func (r *refused) add(n *Node, key block.Key, why error) {
	if r.why[key] = why; len(r.why) >= r.look {
		r.prune(n)
	}
}

// prune forgets what the node has no longer, or has at home.
func (r *refused) prune(n *Node) {
	for key := range r.why {
		if !n.owes(key) {
			delete(r.why, key)
		}
	}
	r.look = max(refusedLook, 2*len(r.why))
}

// stillRefused is how many of them are here and not durable, and why one of them is not.
func (n *Node) stillRefused() (count int, why error) {
	n.offloadMu.Lock()
	defer n.offloadMu.Unlock()
	n.refused.prune(n)
	for _, why = range n.refused.why {
		break
	}
	return len(n.refused.why), why
}
