package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/tier"
)

// enqueueOffload asks the background to bring a dirty block home. Its copy in host memory,
// an object of that number, is pinned exactly; the background gives the pin back.
func (n *Node) enqueueOffload(key block.Key, object uint64) {
	e, ok := n.dir.get(key)
	if !ok {
		n.host.UnpinExact(key, object)
		return
	}
	n.offloadMu.Lock()
	n.offloads.Add(key, e.state.Version(), block.Host, n.home)
	spare, waits := n.offloadPins[key]
	n.offloadPins[key] = object
	n.offloadMu.Unlock()
	if waits {
		// One pin is enough. If it was on another object, a user has removed that one.
		n.host.UnpinExact(key, spare)
	}
	select {
	case n.offloadWake <- struct{}{}:
	default:
	}
}

// offloadLoop brings dirty blocks home in batches, one flush a batch, until ctx
// ends; then it empties the queue.
func (n *Node) offloadLoop(ctx context.Context) {
	for {
		batch := n.nextOffloads()
		if len(batch) > 0 {
			n.offload(context.WithoutCancel(ctx), batch)
			continue
		}
		select {
		case <-n.offloadWake:
		case <-ctx.Done():
			return
		}
	}
}

// owed is a block that is to be brought home, and the object of host memory that is pinned
// until then.
type owed struct {
	coherency.Intent
	object uint64
}

// nextOffloads are the next blocks to bring home.
func (n *Node) nextOffloads() []owed {
	n.offloadMu.Lock()
	defer n.offloadMu.Unlock()
	var batch []owed
	for _, in := range n.offloads.Next(n.cfg.OffloadBatch) {
		batch = append(batch, owed{in, n.offloadPins[in.Key]})
	}
	return batch
}

// offload copies a batch home, flushes once, and commits what arrived. A block
// whose copy failed stays in the host tier as an ordinary, evictable block: a
// sealed block may be missed, and a node with a full disk must go on serving.
func (n *Node) offload(ctx context.Context, batch []owed) {
	arrived := make([]arrival, 0, len(batch))
	done := make([]owed, 0, len(batch))
	refused := map[block.Key]error{}
	var busy []owed
	ended := n.room.wait()
	for _, in := range batch {
		a, err := n.copyHome(ctx, in.Key)
		if err == nil && !a.copied && n.owes(in.Key) {
			busy = append(busy, in) // by another flush, whose end nobody knows
			continue
		}
		done = append(done, in)
		if errors.Is(err, tier.ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			refused[in.Key] = err
			continue
		}
		if a.copied {
			arrived = append(arrived, a)
		}
	}
	if err := n.syncHome(ctx); err != nil {
		for _, a := range arrived {
			n.abort(a)
			refused[a.key] = err
		}
		arrived = nil
	}
	for _, a := range arrived {
		n.commitHome(a)
	}
	for _, in := range done {
		n.host.UnpinExact(in.Key, in.object) // before who waits for the offload goes on, and perhaps replaces the block
	}
	if len(done) == 0 {
		<-ended // then each of them is durable, or free to be copied
	}
	for key, err := range refused {
		n.offloadFailed(key, err)
	}
	n.endOffloads(done, busy, refused)
	n.room.notify()
}

// endOffloads takes what is done from the queue, and puts what is busy back into it.
func (n *Node) endOffloads(done, busy []owed, refused map[block.Key]error) {
	n.offloadMu.Lock()
	defer n.offloadMu.Unlock()
	for _, in := range done {
		if n.offloadPins[in.Key] != in.object {
			busy = append(busy, in) // removed and put again meanwhile
			continue
		}
		delete(n.offloadPins, in.Key)
		n.offloads.Done(in.Intent)
		if err := refused[in.Key]; err != nil {
			n.refused.add(n, in.Key, err)
		}
	}
	for _, in := range busy {
		n.offloads.Fail(in.Intent)
	}
}

// arrival is a copy that lies at home but is not yet known to be durable.
type arrival struct {
	key    block.Key
	plan   coherency.Copy
	copied bool
}

// copyHome writes the block to its home tier. copied is false when there is
// nothing to do: the block is durable already, or gone.
func (n *Node) copyHome(ctx context.Context, key block.Key) (arrival, error) {
	a := arrival{key: key}
	var err error
	n.dir.change(key, func(e *entry, known bool) {
		if known && !e.state.Durable() {
			a.plan, err = e.state.Begin(n.home)
			a.copied = err == nil
		}
	})
	if !a.copied {
		if errors.Is(err, coherency.ErrInFlight) {
			err = nil // another flush of this block is under way
		}
		return a, err
	}
	v, err := n.host.View(key)
	if err == nil {
		var evicted []block.Key
		evicted, err = n.stores[n.home].Put(ctx, v.Descriptor, v.Bytes)
		v.Release()
		n.evicted(n.home, evicted)
	}
	if err != nil && !errors.Is(err, tier.ErrExists) {
		n.abort(a)
		return arrival{}, err
	}
	return a, nil
}

// copyNamedHome is copyHome for the object of a named block, of which this node
// becomes a home by it.
func (n *Node) copyNamedHome(ctx context.Context, key block.Key) (arrival, error) {
	e, ok := n.dir.get(key)
	if ok && !e.state.Has(block.Host) && !e.state.Durable() { // only in GPU memory
		loan, err := n.readLocal(ctx, key)
		if err != nil {
			return arrival{}, err
		}
		defer loan.Release()
	}
	n.dir.change(key, func(e *entry, known bool) {
		if ok = known; known && e.state.Home() != n.home {
			e.state = homeTo(e.state, n.home)
		}
	})
	if !ok {
		return arrival{}, fmt.Errorf("node: bring home %s: %w", key, tier.ErrNotFound)
	}
	a, err := n.copyHome(ctx, key)
	if err == nil && !a.copied {
		if e, ok := n.dir.get(key); !ok || !e.state.Durable() {
			err = errBusy
		}
	}
	return a, err
}

// putAside writes a staged object, for which the host tier has no room, to the disk.
func (n *Node) putAside(ctx context.Context, v ledger.Value, p []byte) error {
	evicted, err := n.stores[n.home].Put(ctx, block.Descriptor{Key: v.Object, Length: v.Length, Sum: v.Sum}, p)
	n.evicted(n.home, evicted)
	if errors.Is(err, tier.ErrExists) {
		return nil
	}
	return err
}

// takeAside takes back what putAside has written, unless it was there before.
func (n *Node) takeAside(key block.Key) {
	n.dir.change(key, func(e *entry, known bool) {
		if !known || !e.state.Has(n.home) {
			n.stores[n.home].Delete(key)
		}
	})
}

// enterHome tells the directory of an object that putAside has written and a flush has
// made durable.
func (n *Node) enterHome(v ledger.Value) error {
	d := block.Descriptor{Key: v.Object, Length: v.Length, Sum: v.Sum}
	fresh, err := coherency.New(n.home, n.home)
	if err != nil {
		return err
	}
	n.dir.change(d.Key, func(e *entry, known bool) {
		if _, held := n.stores[n.home].Stat(d.Key); !held {
			err = errGone
			return
		}
		if !known {
			*e = newEntry(d, fresh)
			return
		}
		if e.state.Home() != n.home {
			e.state = homeTo(e.state, n.home)
		}
		if e.state.Durable() {
			return
		}
		c, beginErr := e.state.Begin(n.home)
		if err = beginErr; err == nil {
			err = e.state.Commit(c)
		}
	})
	return err
}

// errBusy: another flush of the block is under way; its end is not known yet.
var errBusy = errors.New("block is on its way home already")

// homeTo is the state of the same copies with another home, which has none.
func homeTo(s coherency.State, home block.Tier) coherency.State {
	next, err := coherency.New(block.Host, home)
	if err != nil {
		return s
	}
	if s.Has(block.VRAM) {
		if c, err := next.Begin(block.VRAM); err == nil {
			_ = next.Commit(c) // nothing has changed since Begin
		}
	}
	return next
}

func (n *Node) syncHome(ctx context.Context) error {
	if s, ok := n.stores[n.home].(tier.Syncer); ok {
		return s.Sync(ctx)
	}
	return nil
}

func (n *Node) abort(a arrival) {
	n.dir.change(a.key, func(e *entry, known bool) {
		if known {
			e.state.Abort(a.plan)
		}
	})
}

func (n *Node) commitHome(a arrival) {
	var err error
	n.dir.change(a.key, func(e *entry, known bool) {
		d, held := n.stores[n.home].Stat(a.key)
		if !known || !held || d.Sum != e.sum || d.Length != e.length {
			err = errGone
			if known {
				e.state.Abort(a.plan)
			}
			if known && held { // what a user has removed during the copy, and put again as something else
				n.stores[n.home].Delete(a.key)
			}
			return
		}
		if err = e.state.Commit(a.plan); errors.Is(err, coherency.ErrStale) {
			// The tier that the plan had named as the source has dropped its copy since. What
			// lies at home is the block all the same, and durable.
			var again coherency.Copy
			if again, err = e.state.Begin(n.home); err == nil {
				err = e.state.Commit(again)
			}
		}
	})
	if err == nil {
		n.counters.offloaded.Add(1)
		return
	}
	if _, ok := n.dir.get(a.key); !ok {
		n.stores[n.home].Delete(a.key) // removed by a user during the copy
	}
}

var errGone = errors.New("block left the home tier before the flush")

func (n *Node) offloadFailed(key block.Key, err error) {
	n.counters.offloadErrors.Add(1)
	now := time.Now()
	n.troubleMu.Lock()
	loud := now.Sub(n.troubleAt) > troubleQuiet
	if loud {
		n.troubleAt = now
	}
	n.trouble = err
	n.troubleMu.Unlock()
	if loud {
		n.log.Warn("block not durable: its home tier refused it; the node goes on with its other tiers",
			"key", key, "tier", n.home, "err", err)
	}
}

// troubleQuiet is how long repeated failures of the home tier stay out of the log.
const troubleQuiet = 10 * time.Second

// flushNow brings one block home and waits until it is durable, by whoever has begun
// that. It gives back an exact pin of the host's copy, object, unless it fails.
func (n *Node) flushNow(ctx context.Context, d block.Descriptor, object uint64) error {
	for {
		room := n.room.wait()
		a, err := n.copyHome(ctx, d.Key)
		if err == nil && a.copied {
			if err = n.syncHome(ctx); err != nil {
				n.abort(a)
			}
		}
		if err != nil {
			n.counters.offloadErrors.Add(1)
			n.room.notify()
			return fmt.Errorf("block is in host memory only, not durable in %s: %w", n.home, err)
		}
		if a.copied {
			n.commitHome(a)
		} else if e, ok := n.dir.get(d.Key); ok && !e.state.Durable() {
			select {
			case <-room:
				continue
			case <-ctx.Done():
				return fmt.Errorf("block is not yet durable in %s: %w", n.home, ctx.Err())
			}
		}
		n.host.UnpinExact(d.Key, object)
		n.room.notify()
		return nil
	}
}
