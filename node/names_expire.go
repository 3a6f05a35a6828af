package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

// ExpireName changes when a name ends: choose is given the present end and returns
// the new one, or false to leave it; 0 is never. It is called again when the name
// changes meanwhile. changed tells whether the name was changed.
func (n *Node) ExpireName(ctx context.Context, namespace string, name []byte, policy coherency.WritePolicy,
	choose func(old int64) (int64, bool)) (c NameChange, changed bool, err error) {
	o := ReadOptions{Level: ReadSession}
	for {
		s, err := n.StateOf(ctx, namespace, name, o)
		c.Sequence = s.Sequence
		if err != nil || !alive(s.Value) {
			return c, false, err
		}
		end, ok := choose(s.Value.Expires)
		if !ok {
			return c, false, nil
		}
		// A version with the same object: its bytes stay where they are.
		w := &nameWrite{n: n, namespace: namespace, name: name, value: s.Value,
			o: NameOptions{If: ledger.Exactly, Expect: s.Version, Policy: policy}}
		w.value.Expires, w.value.Homes = end, ledger.Homes{}
		c, err = w.run(ctx)
		if !errors.Is(err, ErrCondition) {
			return c, err == nil, err
		}
		if ctx.Err() != nil {
			return c, false, ctxError(ctx)
		}
		if o.Level == ReadSession { // the first try has limits of its own
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, n.cfg.NameWait)
			defer cancel()
		}
		o.Level = ReadStrict
	}
}

// sweepParallel is how many names a sweep ends at once.
const sweepParallel = 64

// sweepLoop ends names whose time is over, so that their bytes do not take room.
func (n *Node) sweepLoop(ctx context.Context) {
	tick := time.NewTicker(n.cfg.SweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.sweep(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// sweep goes through all names once, and ends those that have expired and that it
// falls to this node to end.
func (n *Node) sweep(ctx context.Context) {
	c := n.coherence
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var ending sync.WaitGroup
	defer ending.Wait()
	slots := make(chan struct{}, sweepParallel)
	now := time.Now().UnixMilli()
	var list []ledger.Pointer
	for shard := range shards {
		list = c.table.scan(shard, list[:0])
		for _, p := range list {
			c.table.mask(&p)
			if v, ok := c.overlay.get(p.Key); ok {
				p.Version, p.Value = v.version, v.value
			}
			if p.Value.Object.IsZero() || p.Value.Alive(now) || !c.mine(p) {
				continue
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			ending.Go(func() {
				defer func() { <-slots }()
				_, err := n.DeleteName(ctx, p.Namespace, p.Name, NameOptions{
					If: ledger.Exactly, Expect: p.Version, Policy: c.deletePolicy(p.Key, coherency.WriteBack)})
				if err == nil {
					c.counters.expired.Add(1)
				} else if errors.Is(err, ErrUnavailable) {
					stop()
				}
			})
		}
	}
}

// mine tells whether it falls to this node to end a name: to its owner, or to the
// first of its homes that is live, or to the first member.
func (c *coherence) mine(p ledger.Pointer) bool {
	self := uint16(c.number.Load())
	if p.Owned() {
		return p.Owner == self
	}
	for _, h := range p.Value.Homes {
		if m, ok := c.member(h); ok && m.Live {
			return h == self
		}
	}
	return c.first()
}

// deletePolicy is how a name is deleted: a deletion has no bytes that would have to
// be brought home, so it is not worth an ownership.
func (c *coherence) deletePolicy(key block.Key, policy coherency.WritePolicy) coherency.WritePolicy {
	if policy != coherency.WriteBack {
		return policy
	}
	if p, ok := c.table.Load(key); ok && p.Owned() && uint32(p.Owner) == c.number.Load() {
		return policy
	}
	return coherency.WriteThrough
}
