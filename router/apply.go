package router

import (
	"fmt"
	"sync/atomic"

	"cairn/block"
)

// Change says that a node has gained or lost the copy of a block in a tier.
type Change struct {
	Key    block.Key  `json:"key"`
	Tier   block.Tier `json:"tier"`
	Stored bool       `json:"stored"` // false: the copy is gone
}

// Event is a batch of consecutive changes of one node.
type Event struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	// First is the number of the first change; a node's changes are numbered
	// from 1. An event without changes says that First is the number of the
	// next one, so that a lost batch shows.
	First   uint64   `json:"first"`
	Changes []Change `json:"changes"`
}

// Last is the number of the last change, First−1 when there is none.
func (e Event) Last() uint64 { return e.First + uint64(len(e.Changes)) - 1 }

func (e Event) validate() error {
	if e.Node == "" {
		return fmt.Errorf("%w: the node is empty", ErrEvent)
	}
	if e.First == 0 {
		return fmt.Errorf("%w: node %s: changes are numbered from 1", ErrEvent, e.Node)
	}
	for i := range e.Changes {
		if !e.Changes[i].Tier.Valid() {
			return fmt.Errorf("%w: node %s: change %d is of unknown %v", ErrEvent, e.Node, e.First+uint64(i), e.Changes[i].Tier)
		}
	}
	return nil
}

// Entry is one block of a snapshot.
type Entry struct {
	Key   block.Key      `json:"key"`
	Tiers block.TierMask `json:"tiers"`
}

// touchAhead is how many look-ups are started together: each misses the
// processor's cache, and they wait for memory in parallel.
const touchAhead = 32

// Apply takes over the changes of an event. Changes that were applied before are
// skipped, so events may come more than once and in overlapping batches. A
// [*GapError] says that changes are missing before the event, an error that
// matches [ErrEvent] that it is malformed; both leave the index as it was but for
// what a newer incarnation discards. The event is only read, during the call.
func (ix *Index) Apply(e Event) error {
	if err := e.validate(); err != nil {
		return err
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	defer ix.sweepOne()
	n, err := ix.enter(e.Node, e.Incarnation)
	if err != nil {
		return err
	}
	if n == nil {
		ix.stats.ignored++
		return nil
	}
	if err := ix.hear(n); err != nil {
		return err
	}
	if e.First > n.position+1 {
		ix.stats.gaps++
		return &GapError{Node: e.Node, Incarnation: e.Incarnation, Expected: n.position + 1, Got: e.First}
	}
	if e.Last() <= n.position {
		ix.stats.ignored++
		return nil
	}
	changes := e.Changes[n.position+1-e.First:]
	ix.change(n, changes)
	ix.relieve()
	n.position = e.Last()
	ix.stats.events++
	ix.stats.changes += uint64(len(changes))
	n.wake()
	return nil
}

// change applies changes to the table, a batch of them at a time: where they are, then
// all loads from memory at once, then what is to be done. Index.mu is held.
func (ix *Index) change(n *node, changes []Change) {
	var (
		fps   [touchAhead]uint64
		homes [touchAhead]*bucket
	)
	for len(changes) > 0 {
		some := changes[:min(touchAhead, len(changes))]
		for i := range some {
			fp := fingerprint(&some[i].Key)
			t := ix.shardOf(fp).table.Load()
			fps[i], homes[i] = fp, &t.buckets[t.home(fp)]
		}
		for _, home := range homes[:len(some)] {
			atomic.LoadUint64(&home[0])
		}
		for i := range some {
			c := &some[i]
			if !ix.shardOf(fps[i]).set(fps[i], n.slot, c.Tier, c.Stored, ix.buf) {
				continue
			}
			if c.Stored {
				n.blocks[c.Tier]++
			} else {
				n.blocks[c.Tier]--
			}
		}
		changes = changes[len(some):]
	}
}

// loadChunk is how many entries of a snapshot are loaded before others get a
// turn.
const loadChunk = 1024

// Load replaces all that is known of a node by a snapshot, which covers its
// changes up to number covered. Readers see the old state until the new one is
// complete. A snapshot of an older incarnation, or of an earlier point than the
// changes applied already, is ignored. entries is only read, during the call.
func (ix *Index) Load(id string, incarnation, covered uint64, entries []Entry) error {
	if id == "" {
		return fmt.Errorf("%w: the snapshot's node is empty", ErrEvent)
	}
	for _, e := range entries {
		if e.Tiers&^tierMask != 0 || e.Tiers == 0 {
			return fmt.Errorf("%w: snapshot of node %s: block %v has tiers %#x", ErrEvent, id, e.Key, uint8(e.Tiers))
		}
	}
	n, slot, err := ix.beginLoad(id, incarnation, covered)
	if n == nil || err != nil {
		return err
	}
	// Until finishLoad nobody but this call knows the slot.
	loading := node{id: id, slot: slot}
	ix.own(&loading)
	for len(entries) > 0 {
		m := min(loadChunk, len(entries))
		ix.loadSome(&loading, entries[:m])
		entries = entries[m:]
	}
	ix.finishLoad(n, &loading, incarnation, covered)
	return nil
}

// beginLoad is the node and a new slot, or nil when the snapshot comes too late.
func (ix *Index) beginLoad(id string, incarnation, covered uint64) (*node, int, error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	n, err := ix.enter(id, incarnation)
	if err != nil {
		return nil, 0, err
	}
	if n == nil || n.position > covered {
		ix.stats.staleLoads++
		return nil, 0, nil
	}
	if err := ix.hear(n); err != nil {
		return nil, 0, err
	}
	slot, err := ix.takeSlot()
	if err != nil {
		return nil, 0, err
	}
	return n, slot, nil
}

func (ix *Index) loadSome(loading *node, entries []Entry) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	var changes [touchAhead]Change
	for len(entries) > 0 {
		some := changes[:0]
		for len(entries) > 0 && len(some)+block.Tiers <= touchAhead {
			for t := range entries[0].Tiers.All() {
				some = append(some, Change{Key: entries[0].Key, Tier: t, Stored: true})
			}
			entries = entries[1:]
		}
		ix.change(loading, some)
	}
	ix.relieve()
}

// finishLoad puts the new slot in the place of the old one, unless events have
// overtaken the snapshot or the node is gone.
func (ix *Index) finishLoad(n, loading *node, incarnation, covered uint64) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if n.gone || n.incarnation != incarnation || n.position > covered || ix.nodes[n.id] != n {
		ix.retire(loading.slot)
		ix.stats.staleLoads++
		return
	}
	ix.retire(n.slot)
	n.slot, n.blocks, n.position = loading.slot, loading.blocks, covered
	ix.memory.owners[n.slot] = n
	ix.stats.loads++
	ix.publish(n)
	n.wake()
}
