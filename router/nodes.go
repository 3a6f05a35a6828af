package router

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// node is what the index knows of one node. Index.mu guards all but id.
type node struct {
	id          string
	incarnation uint64
	position    uint64 // number of the last change applied
	slot        int
	announced   bool      // SetNode named this incarnation
	gone        bool      // removed; kept to know late events by their incarnation
	info        *NodeInfo // of SetNode; never changed, but replaced
	blocks      TierBlocks
	heard       bool          // it has announced something
	learned     bool          // something was learned of it instead
	past        *node         // the older part of that; in nobody's list, only its slot and blocks count
	changed     chan struct{} // closed at the next change, when somebody waits
}

// slotPool gives out the numbers that stand for nodes in the table.
type slotPool struct {
	made int    // slots 0…made-1 exist
	free []int  // of these, those without an entry in the table
	dead []bool // by slot: may have entries, to be swept
	// deadCount is the number of true values in dead.
	deadCount int
}

// removedMost is how many nodes that are gone the index remembers, to refuse
// their late events. A late event of a node that it has forgotten costs memory
// until the id returns or the index ends, and is invisible.
const removedMost = 4096

// at is where in the list the node of a slot is, or -1.
func (v *view) at(slot int) int32 {
	if slot >= len(v.bySlot) {
		return -1
	}
	return v.bySlot[slot]
}

// SetNode makes a node visible, or changes what is known of it. A newer
// incarnation discards the blocks of the older one; an older one is ignored.
// It fails with [ErrNode] and [ErrTooManyNodes], and with [ErrMismatch] for a node whose
// layout is another than [IndexConfig].Layout: such a node is not visible.
func (ix *Index) SetNode(info NodeInfo) error {
	if info.ID == "" {
		return fmt.Errorf("%w: the id is empty", ErrNode)
	}
	if rate := info.PrefillTokensPerSecond; !(rate >= 0) || math.IsInf(rate, 1) {
		return fmt.Errorf("%w %s: prefill rate is %v tokens/s: want a number of at least 0", ErrNode, info.ID, rate)
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	n, err := ix.enter(info.ID, info.Incarnation)
	if err != nil || n == nil {
		return err
	}
	if err := differs(ErrNode, "node "+info.ID, ix.config.Layout, info.Layout); err != nil {
		if n.announced {
			n.announced = false
			ix.publish(n)
		}
		return err
	}
	if n.announced && n.info.same(&info) {
		return nil
	}
	n.announced, n.info = true, &info
	ix.publish(n)
	return nil
}

// RemoveNode takes a node out of all answers at once, if its incarnation is the
// given one or older. What it held is swept out of the table later. Events of
// that incarnation are ignored from now on.
func (ix *Index) RemoveNode(id string, incarnation uint64) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	n := ix.nodes[id]
	if n == nil {
		n = &node{id: id, gone: true}
		ix.nodes[id] = n
		ix.remember(id)
	}
	if incarnation < n.incarnation {
		return
	}
	if !n.gone {
		ix.retirePast(n)
		ix.retire(n.slot)
		n.gone, n.announced = true, false
		ix.remember(id)
		ix.publish(n)
	}
	n.incarnation, n.position, n.blocks = incarnation, 0, TierBlocks{}
	n.wake()
}

// remember bounds the number of nodes that are gone and still known.
func (ix *Index) remember(id string) {
	ix.removed = append(ix.removed, id)
	if len(ix.removed) <= removedMost {
		return
	}
	oldest := ix.removed[0]
	ix.removed = slices.Delete(ix.removed, 0, 1)
	if n := ix.nodes[oldest]; n != nil && n.gone && !slices.Contains(ix.removed, oldest) {
		delete(ix.nodes, oldest)
	}
}

// enter is the node in the given incarnation, with a slot. A node that is known
// in a newer one, or was removed in this one, gives nil. Index.mu is held.
func (ix *Index) enter(id string, incarnation uint64) (*node, error) {
	n := ix.nodes[id]
	switch {
	case n != nil && incarnation < n.incarnation:
		return nil, nil
	case n != nil && incarnation == n.incarnation:
		if n.gone {
			return nil, nil
		}
		return n, nil
	}
	slot, err := ix.takeSlot()
	if err != nil {
		return nil, err
	}
	if n == nil {
		n = &node{id: id}
		ix.nodes[id] = n
	} else if !n.gone {
		ix.retirePast(n)
		ix.retire(n.slot)
	}
	visible := n.announced
	n.incarnation, n.position, n.slot = incarnation, 0, slot
	n.announced, n.gone, n.blocks = false, false, TierBlocks{}
	n.heard, n.learned = false, false
	ix.memory.owners[slot] = n
	if visible {
		ix.publish(n)
	}
	n.wake()
	return n, nil
}

// takeSlot is a slot without entries. Index.mu is held.
func (ix *Index) takeSlot() (int, error) {
	p := &ix.slots
	if len(p.free) == 0 && p.made == MaxNodes {
		// A round under way sweeps those that were dead when it began, so it
		// takes two to be sure of all.
		for range 2 * shards {
			ix.sweepOne()
		}
	}
	if n := len(p.free); n > 0 {
		slot := p.free[n-1]
		p.free = p.free[:n-1]
		// Who still reads with a view in which this slot was another node's
		// must notice.
		ix.publish(nil)
		return slot, nil
	}
	if p.made == MaxNodes {
		return 0, fmt.Errorf("%w: %d", ErrTooManyNodes, MaxNodes)
	}
	p.made++
	p.dead = append(p.dead, false)
	ix.memory.owners = append(ix.memory.owners, nil)
	return p.made - 1, nil
}

// retire marks a slot for sweeping. Index.mu is held.
func (ix *Index) retire(slot int) {
	ix.memory.owners[slot] = nil
	ix.slots.dead[slot] = true
	ix.slots.deadCount++
}

// publish shows readers the node as it is; with nil it makes a new view of the
// same nodes, for readers to notice. Index.mu is held.
func (ix *Index) publish(n *node) {
	list := slices.Clone(ix.view.Load().list)
	if n != nil {
		at, found := slices.BinarySearchFunc(list, n.id, func(v visible, id string) int { return strings.Compare(v.ID, id) })
		if found {
			list = slices.Delete(list, at, at+1)
		}
		if n.announced && !n.gone {
			v := visible{ID: n.info.ID, Addr: n.info.Addr, info: n.info, slot: int32(n.slot), past: -1}
			if n.past != nil {
				v.past = int32(n.past.slot)
			}
			list = slices.Insert(list, at, v)
		}
	}
	v := &view{list: list, bySlot: make([]int32, ix.slots.made)}
	for slot := range v.bySlot {
		v.bySlot[slot] = -1
	}
	for at := range list {
		v.bySlot[list[at].slot] = int32(at)
		if past := list[at].past; past >= 0 {
			v.bySlot[past] = int32(at)
		}
	}
	ix.view.Store(v)
}

// same tells whether two descriptions of a node are alike.
func (n *NodeInfo) same(o *NodeInfo) bool {
	return n.ID == o.ID && n.Incarnation == o.Incarnation && n.Addr == o.Addr && n.Draining == o.Draining &&
		n.PrefillTokensPerSecond == o.PrefillTokensPerSecond && n.Layout == o.Layout && maps.Equal(n.Labels, o.Labels)
}
