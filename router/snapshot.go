package router

import (
	"fmt"

	"cairn/block"
)

// Entry is one block of a snapshot.
type Entry struct {
	Key   block.Key      `json:"key"`
	Tiers block.TierMask `json:"tiers"`
}

// loadChunk is how many entries of a snapshot are loaded before others get a
// turn.
const loadChunk = 1024

// Loading is a snapshot of a node on its way into the index. Readers see the state before
// until [Loading.Finish]. Its methods are for one goroutine; they run beside everything else.
type Loading struct {
	ix          *Index
	n           *node // nil when the snapshot comes too late
	incarnation uint64
	covered     uint64
	// is holds the slot, which nobody else knows until Finish.
	is node
}

// Load replaces all that is known of a node by a snapshot, which covers its
// changes up to number covered. Readers see the old state until the new one is
// complete. A snapshot of an older incarnation, or of an earlier point than the
// changes applied already, is ignored. entries is only read, during the call.
func (ix *Index) Load(id string, incarnation, covered uint64, entries []Entry) error {
	if err := validEntries(id, entries); err != nil {
		return err
	}
	l, err := ix.BeginLoad(id, incarnation, covered)
	if err != nil {
		return err
	}
	l.add(entries)
	l.Finish()
	return nil
}

func validEntries(id string, entries []Entry) error {
	for i := range entries {
		if e := &entries[i]; e.Tiers&^tierMask != 0 || e.Tiers == 0 {
			return fmt.Errorf("%w: snapshot of node %s: block %v has tiers %#x", ErrEvent, id, e.Key, uint8(e.Tiers))
		}
	}
	return nil
}

// BeginLoad is Load for a snapshot that comes in pieces: [Loading.Add] takes them, and
// Finish or Abandon ends it.
func (ix *Index) BeginLoad(id string, incarnation, covered uint64) (*Loading, error) {
	if id == "" {
		return nil, fmt.Errorf("%w: the snapshot's node is empty", ErrEvent)
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	l := &Loading{ix: ix, incarnation: incarnation, covered: covered, is: node{id: id}}
	n, err := ix.enter(id, incarnation)
	if err != nil {
		return nil, err
	}
	if n == nil || n.position > covered {
		ix.stats.staleLoads++
		return l, nil
	}
	if err := ix.hear(n); err != nil {
		return nil, err
	}
	if l.is.slot, err = ix.takeSlot(); err != nil {
		return nil, err
	}
	ix.memory.owners[l.is.slot] = &l.is
	l.n = n
	return l, nil
}

// Add takes in more blocks; an error, which matches [ErrEvent], says that one of these is not
// valid, and none was taken in. entries is only read, during the call.
func (l *Loading) Add(entries []Entry) error {
	if err := validEntries(l.is.id, entries); err != nil {
		return err
	}
	l.add(entries)
	return nil
}

func (l *Loading) add(entries []Entry) {
	for l.n != nil && len(entries) > 0 {
		m := min(loadChunk, len(entries))
		l.addSome(entries[:m])
		entries = entries[m:]
	}
}

func (l *Loading) addSome(entries []Entry) {
	ix := l.ix
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
		ix.change(&l.is, some)
	}
	ix.relieve()
}

// Finish puts what was added in the place of what was known, unless events have overtaken the
// snapshot or the node is gone.
func (l *Loading) Finish() {
	if l.n == nil {
		return
	}
	ix, n := l.ix, l.n
	ix.mu.Lock()
	defer ix.mu.Unlock()
	l.n = nil
	if n.gone || n.incarnation != l.incarnation || n.position > l.covered || ix.nodes[n.id] != n {
		ix.retire(l.is.slot)
		ix.stats.staleLoads++
		return
	}
	ix.retire(n.slot)
	n.slot, n.blocks, n.position = l.is.slot, l.is.blocks, l.covered
	ix.memory.owners[n.slot] = n
	ix.stats.loads++
	ix.publish(n)
	n.wake()
}

// Abandon forgets what was added. It may be called after Finish, and has no effect then.
func (l *Loading) Abandon() {
	if l.n == nil {
		return
	}
	l.ix.mu.Lock()
	defer l.ix.mu.Unlock()
	l.n = nil
	l.ix.retire(l.is.slot)
}
