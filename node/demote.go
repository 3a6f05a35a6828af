package node

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"cairn/block"
	"cairn/coherency"
	"cairn/tier"
)

// GPU memory makes room for a block by evicting others, at once: there is no time to copy
// them away then. So when it is nearly full the demoter looks at those that would have to go
// next, and moves to host memory what this node has nowhere else. A block that is in host memory
// or on disk as well stays until its room is needed, and goes without any of that.
//
// A block that has gone down leaves GPU memory at once. In both tiers it would be the first to
// leave either, and small tiers would move the same blocks back and forth.
//
// What is owed to the home tier is never at stake in this: such a block lies in host memory,
// pinned, from the moment it was written until it is durable.

// demoter moves blocks down from GPU memory.
type demoter struct {
	n     *Node
	store tier.Foreseer // nil: it cannot be told what would go
	wake  chan struct{}

	blocks atomic.Int64
	bytes  atomic.Int64
	errors atomic.Int64
	letGo  atomic.Int64 // evicted from GPU memory as the node's last copy
}

// demoteLook is the most blocks that are looked at at once: what goes next before the
// demoter looks again. More are looked at only if some of these were copied.
const demoteLook = 256

// rest is how many puts into a pool with so many objects go by after a look that found
// nothing: few beside what the next look covers. Without it each put would pay for one.
func rest(objects int64) int64 { return min(demoteLook/8, objects/16) }

func newDemoter(n *Node) *demoter {
	m := &demoter{n: n, wake: make(chan struct{}, 1)}
	m.store, _ = n.stores[block.VRAM].(tier.Foreseer)
	return m
}

// poke has the demoter look, because something was put into GPU memory.
func (m *demoter) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run demotes until ctx ends.
func (m *demoter) run(ctx context.Context) {
	if m.store == nil {
		return
	}
	next := int64(0) // look when so many objects were put
	for {
		select {
		case <-m.wake:
		case <-ctx.Done():
			return
		}
		st := m.n.stores[block.VRAM].Stats()
		if st.Puts < next {
			continue // nothing goes without a put, and that wakes again
		}
		if next = 0; !m.look(ctx, m.n.cfg.VRAMHigh, m.n.cfg.VRAMLow) {
			next = st.Puts + rest(st.Objects)
		}
	}
}

// look does what there is to do: if more than the share high of GPU memory is in use, blocks
// go down until that is no more than low, or none is left that should. It reports whether one
// did.
func (m *demoter) look(ctx context.Context, high, low float64) (moved bool) {
	if m.above(high) <= 0 {
		return false
	}
	for ctx.Err() == nil && m.batch(ctx, m.above(low)) {
		moved = true
	}
	return moved
}

// above is how many bytes of GPU memory are in use beyond a share of it.
func (m *demoter) above(share float64) int64 {
	if !m.n.has(block.VRAM) {
		return 0
	}
	st := m.n.stores[block.VRAM].Stats()
	return st.Used - int64(share*float64(st.Capacity))
}

// batch moves some of the blocks that would go if so many bytes were needed. It reports
// whether any was moved.
func (m *demoter) batch(ctx context.Context, bytes int64) bool {
	n := m.n
	b := demotion{n: n, spare: tier.Room(n.host)}
	defer b.end()
	for _, d := range m.store.Candidates(demoteLook) {
		if bytes -= int64(d.Length); bytes < 0 || len(b.blocks) == n.cfg.VRAMBatch || b.bytes >= int64(n.batchBytes) {
			break
		}
		b.consider(d)
	}
	return b.carry(ctx)
}

// demotion is one batch of blocks on their way from GPU memory to host memory.
type demotion struct {
	n      *Node
	blocks []demoted
	bytes  int64
	spare  int64 // room of the host tier that nobody has to leave for
}

type demoted struct {
	d     block.Descriptor
	plan  coherency.Copy
	slot  tier.Reservation // nil: none was to be had
	owned bool             // nobody else has it: the disk is to have it as well
}

// consider makes a block part of the batch if it is worth it. The last copy in the cluster,
// and one that others here follow, take the room of what host memory thinks least of; a copy of
// what a peer has, only room that is free.
func (b *demotion) consider(d block.Descriptor) {
	n := b.n
	e, ok := n.dir.get(d.Key)
	if !ok || d.Key.Named() || e.state.Valid() != block.MaskOf(block.VRAM) || e.length != d.Length || e.sum != d.Sum {
		return // of a name it is a copy: its homes, or its owner, have the newest version
	}
	elsewhere := n.heldByPeer(d.Key)
	_, followed := n.dir.families.child(d.Key)
	if elsewhere && !followed && int64(d.Length) > b.spare {
		return
	}
	b.spare -= int64(d.Length)
	b.bytes += int64(d.Length)
	b.blocks = append(b.blocks, demoted{d: d, owned: !elsewhere})
}

// carry copies the batch. It reports whether a block has arrived.
func (b *demotion) carry(ctx context.Context) (any bool) {
	n := b.n
	// Parents first: no room is made for a block by evicting the one before it.
	slices.SortFunc(b.blocks, func(x, y demoted) int { return x.d.Key.Compare(y.d.Key) })
	b.begin(ctx)
	if len(b.blocks) == 0 {
		return false
	}
	items := make([]tier.Item, len(b.blocks))
	for i, m := range b.blocks {
		items[i] = tier.Item{Descriptor: block.Descriptor{Key: m.d.Key}, Bytes: m.slot.Bytes(), Quiet: true}
	}
	for i, err := range tier.GetMany(ctx, n.stores[block.VRAM], items) {
		m := &b.blocks[i]
		if err = n.verified(block.VRAM, m.d, items[i].Descriptor, items[i].Bytes, err); err == nil {
			err = b.commit(m)
		}
		switch {
		case err == nil:
			any = true
			if n.demoter.store.Yield(m.d.Key) { // else somebody uses it there
				n.dropped(block.VRAM, m.d.Key)
			}
			n.demoter.blocks.Add(1)
			n.demoter.bytes.Add(int64(m.d.Length))
		case ctx.Err() == nil && !errors.Is(err, tier.ErrNotFound) && !errors.Is(err, tier.ErrDeviceLost):
			n.demoter.errors.Add(1)
			n.log.Warn("demotion from GPU memory", "key", m.d.Key, "err", err)
		}
	}
	return any
}

// begin plans the copies and takes room for them; what cannot be copied leaves the batch.
func (b *demotion) begin(ctx context.Context) {
	n := b.n
	full := false
	for i := range b.blocks {
		m := &b.blocks[i]
		if full {
			continue
		}
		r, evicted, err := n.host.Reserve(ctx, int(m.d.Length))
		n.evicted(block.Host, evicted)
		if err != nil {
			full = true // what is in use, or not durable yet, goes before
			continue
		}
		begun := false
		n.dir.change(m.d.Key, func(e *entry, known bool) {
			if known && e.state.Valid() == block.MaskOf(block.VRAM) && e.sum == m.d.Sum {
				m.plan, err = e.state.Begin(block.Host)
				begun = err == nil
			}
		})
		if !begun {
			r.Abort()
			continue
		}
		m.slot = r
	}
	b.blocks = slices.DeleteFunc(b.blocks, func(m demoted) bool { return m.slot == nil })
}

// commit makes a copy that has arrived, verified, a block of host memory. If nobody else has
// the block it is owed to the disk, and pinned until it is there.
func (b *demotion) commit(m *demoted) error {
	n := b.n
	pins := 0
	if m.owned && n.home != block.Host {
		pins = 1
	}
	r := m.slot
	m.slot = nil
	object := r.Object()
	err := r.Commit(m.d, pins)
	if err != nil {
		n.abort(arrival{key: m.d.Key, plan: m.plan})
		if errors.Is(err, tier.ErrExists) {
			return tier.ErrNotFound // somebody has read it meanwhile, and brought it here
		}
		return err
	}
	owed, kept := false, false
	n.dir.change(m.d.Key, func(e *entry, known bool) {
		owed, kept = false, false
		if !known || e.sum != m.d.Sum || e.length != m.d.Length {
			return // it was removed during the copy
		}
		if _, held := n.host.Stat(m.d.Key); !held {
			e.state.Abort(m.plan)
			return
		}
		if e.state.Commit(m.plan) != nil {
			return // it has left GPU memory, and is known for another copy
		}
		kept, owed = true, pins > 0 && !e.state.Durable()
	})
	switch {
	case !kept:
		n.host.Delete(m.d.Key)
		n.dropped(block.Host, m.d.Key) // a Put may have found it
		return tier.ErrNotFound
	case owed:
		n.enqueueOffload(m.d.Key, object)
	case pins > 0:
		n.host.UnpinExact(m.d.Key, object)
	}
	n.room.notify()
	return nil
}

// end gives back what was not used.
func (b *demotion) end() {
	for i := range b.blocks {
		m := &b.blocks[i]
		if m.slot != nil {
			m.slot.Abort()
			b.n.abort(arrival{key: m.d.Key, plan: m.plan})
		}
	}
	b.n.room.notify()
}

// DemotionStatus says what has left GPU memory, and how. Counters count since the node
// started.
type DemotionStatus struct {
	// Blocks, of so many Bytes, were moved to host memory before they would have gone.
	Blocks int64 `json:"blocks"`
	Bytes  int64 `json:"bytes"`
	Errors int64 `json:"errors"`
	// LetGo are blocks that went from GPU memory as this node's last copy.
	LetGo int64 `json:"let_go"`
}

func (m *demoter) status() DemotionStatus {
	return DemotionStatus{Blocks: m.blocks.Load(), Bytes: m.bytes.Load(), Errors: m.errors.Load(), LetGo: m.letGo.Load()}
}
