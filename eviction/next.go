package eviction

import (
	"slices"
	"time"
)

// Foreseer is a Policy that tells ahead who may leave. Both policies are.
type Foreseer interface {
	Policy
	// Next is blocks of the group that may be the next victims, at most so many, about in
	// the order in which they would go. It asks for no hints and changes nothing.
	Next(group, most int, now time.Duration) []uint32
}

var (
	_ Foreseer = (*LRU)(nil)
	_ Foreseer = (*Hazard)(nil)
)

// lookAhead is how many blocks Next looks at for each that it names.
const lookAhead = 8

// Next implements [Foreseer]: the leaves used longest ago, each followed by the block before
// it when it is the last child of that.
func (l *LRU) Next(group, most int, _ time.Duration) (next []uint32) {
	if group >= len(l.groups) {
		return nil
	}
	gone := map[uint32]uint32{} // children that are named, of parents
	looked := 0
	for at := l.groups[group][useList].oldest; at != 0 && looked < most*lookAhead; looked++ {
		id := at - 1
		n := l.links.at(id)
		at = n.newer
		if n.children > 0 {
			continue // with its last child, if that comes
		}
		for len(next) < most {
			next = append(next, id)
			parent, ok := l.family.ids[n.parent]
			if !ok || n.parent == 0 {
				break
			}
			p := l.links.at(parent)
			if gone[parent]++; gone[parent] < p.children || p.in == parkedList || int(p.group) != group {
				break
			}
			id, n = parent, p
		}
		if len(next) == most {
			break
		}
	}
	return next
}

// Next implements [Foreseer]: of leaves from all over the group those that are worth least.
func (h *Hazard) Next(group, most int, now time.Duration) (next []uint32) {
	if group >= len(h.groups) || most < 1 {
		return nil
	}
	leaves := h.groups[group].leaves
	step := max(len(leaves)/(most*lookAhead), 1)
	var list []candidate
	for i := 0; i < len(leaves); i += step {
		list = append(list, h.candidate(leaves[i], now))
	}
	slices.SortFunc(list, func(a, b candidate) int {
		switch {
		case a.before(&b):
			return -1
		case b.before(&a):
			return 1
		}
		return 0
	})
	for _, c := range list[:min(most, len(list))] {
		next = append(next, c.id)
	}
	return next
}
