package node

import (
	"slices"
	"sync"
	"time"

	"cairn/block"
	"cairn/tier"
)

// A block that a peer holds costs a transfer, and a copy of it costs the room of another
// block. The copy pays where the block is asked for again and again: prompts share it,
// and the queue of its holder has grown so long that the router prefers a node without it.
// Such blocks are fetched twice within a short time, others hardly ever. So the second
// fetch leaves a copy, and the first does not: that is how hot prefixes are replicated. A
// block is kept only behind the one before it, so that what a node announces is
// prefix-closed.

// mostRecent is how many blocks each half of recent remembers, 16 bytes each and the
// room of a map.
const mostRecent = 1 << 16

// recent remembers which blocks were fetched from peers within a time, or within half of it:
// there are two halves, of which the older is forgotten whole.
type recent struct {
	within time.Duration // 0: nothing is remembered

	// mu guards what follows.
	mu         sync.Mutex
	young, old map[block.Key]struct{}
	turned     time.Time
}

// note takes note of a fetch, and tells whether it is not the first.
func (r *recent) note(key block.Key, now time.Time) (again bool) {
	if r.within <= 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	age := now.Sub(r.turned)
	if r.young == nil || age > r.within/2 || len(r.young) >= mostRecent {
		if r.old = r.young; age > r.within {
			r.old = nil
		}
		r.young, r.turned = map[block.Key]struct{}{}, now
	}
	_, young := r.young[key]
	_, old := r.old[key]
	r.young[key] = struct{}{}
	return young || old
}

// keepAgain makes a sealed block that was fetched a cached copy when it was fetched before
// and this node holds the one before it.
func (n *Node) keepAgain(f *fetched) error {
	if !n.lately.note(f.Key, time.Now()) || !f.Parent.IsZero() && !n.Holds(f.Parent) {
		return nil
	}
	loan, err := n.cacheCopy(f.Descriptor, f.slot, func() error { return n.enterCopy(f.Descriptor, block.Host) })
	f.slot, f.kept = nil, loan
	if err == nil {
		n.counters.copiesKept.Add(1)
	}
	return err
}

// pass evicts the copies of blocks that were fetched ahead for the first time, unless
// they are in use, nobody else has them, or this node has blocks that follow them by now.
// positions ascend; the last goes first.
func (n *Node) pass(t block.Tier, keys []block.Key, positions []int) {
	store, ok := n.stores[t].(tier.Evictor)
	if !ok {
		return
	}
	for _, at := range slices.Backward(positions) {
		copied, followed := n.dir.hint(t, keys[at])
		if !copied && (followed || len(n.peers.Locate(keys[at : at+1])[0]) == 0) || !store.Evict(keys[at]) {
			return
		}
		n.dropped(t, keys[at])
	}
	n.room.notify()
}
