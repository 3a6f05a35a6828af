package node

import (
	"context"
	"errors"
	"sync"

	"cairn/block"
	"cairn/sequence"
	"cairn/tier"
)

// claims are the blocks that onboards are fetching from peers at present, into whatever
// tier, so that sequences with the same beginning, and requests that were fetched ahead for,
// fetch it once.
type claims struct {
	// mu guards taken.
	mu    sync.Mutex
	taken map[block.Key]chan struct{} // closed when the claim ends
}

// take claims a block, or returns what is closed when the claim of another ends.
func (c *claims) take(key block.Key) (others <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.taken[key]; ok {
		return ch
	}
	if c.taken == nil {
		c.taken = map[block.Key]chan struct{}{}
	}
	c.taken[key] = make(chan struct{})
	return nil
}

func (c *claims) release(keys []block.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		close(c.taken[key])
		delete(c.taken, key)
	}
}

// fetchOnce is fetch, but of what others are fetching it waits for the end, and then pins it.
// shared tells that it has waited: what it did not get then may be asked of the same peer
// again.
func (o *onboarding) fetchOnce(ctx context.Context, p *part, peer string, pairs []sequence.Pair) (shared bool, err error) {
	c := &o.n.sequences.claims
	var mine, theirs []sequence.Pair
	var claimed []block.Key
	var ends []<-chan struct{}
	for _, pair := range pairs {
		key := o.keys[pair.Position]
		if end := c.take(key); end != nil {
			theirs, ends = append(theirs, pair), append(ends, end)
			continue
		}
		claimed = append(claimed, key)
		if o.liftNear(ctx, p, pair.Position) != nil { // somebody else may have brought it meanwhile
			mine = append(mine, pair)
		}
	}
	if len(mine) > 0 {
		err = o.fetch(ctx, p, peer, mine)
	}
	c.release(claimed) // before it waits: others may wait for these
	for i, pair := range theirs {
		select {
		case <-ends[i]:
		case <-ctx.Done():
			return true, ctx.Err()
		}
		if pinErr := o.liftNear(ctx, p, pair.Position); pinsProblem(pinErr) != nil {
			return true, pinErr
		}
	}
	return len(theirs) > 0, err
}

// liftNear takes a block that somebody else may have brought to this node.
func (o *onboarding) liftNear(ctx context.Context, p *part, position int) error {
	err := o.lift(ctx, p, position, o.to)
	if !errors.Is(err, tier.ErrNotFound) {
		return err
	}
	if t, ok := o.nearest(o.keys[position]); ok {
		return o.lift(ctx, p, position, t)
	}
	return err
}
