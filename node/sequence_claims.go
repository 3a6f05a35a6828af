package node

import (
	"context"
	"sync"

	"cairn/block"
	"cairn/sequence"
)

// claims are the blocks that onboards are fetching from peers at present, so that sequences
// with the same beginning fetch it once.
type claims struct {
	// mu guards taken.
	mu    sync.Mutex
	taken map[claim]chan struct{} // closed when the claim ends
}

type claim struct {
	tier block.Tier
	key  block.Key
}

// take claims a block, or returns what is closed when the claim of another ends.
func (c *claims) take(t block.Tier, key block.Key) (others <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := claim{t, key}
	if ch, ok := c.taken[k]; ok {
		return ch
	}
	if c.taken == nil {
		c.taken = map[claim]chan struct{}{}
	}
	c.taken[k] = make(chan struct{})
	return nil
}

func (c *claims) release(t block.Tier, keys []block.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		k := claim{t, key}
		close(c.taken[k])
		delete(c.taken, k)
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
		if end := c.take(o.to, key); end != nil {
			theirs, ends = append(theirs, pair), append(ends, end)
			continue
		}
		claimed = append(claimed, key)
		if o.lift(ctx, p, pair.Position, o.to) != nil { // somebody else may have brought it meanwhile
			mine = append(mine, pair)
		}
	}
	if len(mine) > 0 {
		err = o.fetch(ctx, p, peer, mine)
	}
	c.release(o.to, claimed) // before it waits: others may wait for these
	for i, pair := range theirs {
		select {
		case <-ends[i]:
		case <-ctx.Done():
			return true, ctx.Err()
		}
		if pinErr := o.lift(ctx, p, pair.Position, o.to); pinsProblem(pinErr) != nil {
			return true, pinErr
		}
	}
	return len(theirs) > 0, err
}
