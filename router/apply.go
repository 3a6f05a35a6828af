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

// touchAhead is how many changes are looked up together: each misses the
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
// all loads from memory at once, then what is to be done. A block that is new has to be
// looked for until a bucket has room, which is often the one after its home. The two lie
// side by side, so that both are loaded. It returns how many changes there were to make.
// Index.mu is held.
func (ix *Index) change(n *node, changes []Change) (made int) {
	var (
		fps   [touchAhead]uint64
		homes [touchAhead]*bucket
		nexts [touchAhead]*bucket
	)
	for len(changes) > 0 {
		some := changes[:min(touchAhead, len(changes))]
		for i := range some {
			fp := fingerprint(&some[i].Key)
			t := ix.shardOf(fp).table.Load()
			home := t.home(fp)
			fps[i], homes[i], nexts[i] = fp, &t.buckets[home], &t.buckets[min(home+1, len(t.buckets)-1)]
		}
		for i := range some {
			atomic.LoadUint64(&homes[i][0])
			atomic.LoadUint64(&nexts[i][0])
		}
		for i := range some {
			c := &some[i]
			if !ix.shardOf(fps[i]).set(fps[i], n.slot, c.Tier, c.Stored, ix.buf) {
				continue
			}
			made++
			if c.Stored {
				n.blocks[c.Tier]++
			} else {
				n.blocks[c.Tier]--
			}
		}
		changes = changes[len(some):]
	}
	return made
}
