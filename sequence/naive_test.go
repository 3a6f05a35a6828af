package sequence

import (
	"slices"

	"cairn/block"
)

// naive is Assignments without regard to speed: three lists, searched from end
// to end, and every check before any change.
type naive struct {
	offset           int
	assigned, staged []Block[lease]
	pending          []BlockID
	released         []string
}

// ids is every id with its phase's order: assigned, staged, pending.
func (n *naive) ids() []BlockID {
	var out []BlockID
	for _, b := range n.assigned {
		out = append(out, b.ID)
	}
	for _, b := range n.staged {
		out = append(out, b.ID)
	}
	return append(out, n.pending...)
}

func (n *naive) next() int { return n.offset + len(n.assigned) + len(n.staged) }

func (n *naive) extendBlockIDs(list []BlockID) error {
	known := n.ids()
	var added []BlockID
	first := 0
	for i, id := range list {
		switch {
		case slices.Contains(known, id) && len(added) > 0:
			return &OrderingError{KnownID: id, NewID: added[0], KnownIndex: i, FirstNewIndex: first}
		case slices.Contains(known, id):
		case slices.Contains(added, id):
			return &DuplicateError{ID: id}
		default:
			if len(added) == 0 {
				first = i
			}
			added = append(added, id)
		}
	}
	n.pending = append(n.pending, added...)
	return nil
}

func (n *naive) extendAssigned(blocks []Block[lease]) (Range, error) {
	at := len(n.assigned)
	if len(n.staged) > 0 {
		return Range{at, at}, &StagedError{Staged: len(n.staged)}
	}
	known := n.ids()
	for i, b := range blocks {
		if b.Key.Position() != n.next()+i {
			return Range{at, at}, &PositionMismatchError{Expected: n.next() + i, Actual: b.Key.Position(), ID: b.ID}
		}
		if slices.Contains(known, b.ID) {
			return Range{at, at}, &DuplicateError{ID: b.ID}
		}
		known = append(known, b.ID)
	}
	n.assigned = append(n.assigned, blocks...)
	return Range{at, len(n.assigned)}, nil
}

func (n *naive) stagePending(keys []block.Key) (Range, error) {
	at, next := len(n.staged), n.next()
	var fresh []Block[lease]
	for i := 0; i < len(n.pending) && next+i < len(keys); i++ {
		b := Block[lease]{ID: n.pending[i], Key: keys[next+i]}
		if b.Key.Position() != next+i {
			return Range{at, at}, &PositionMismatchError{Expected: next + i, Actual: b.Key.Position(), ID: b.ID}
		}
		fresh = append(fresh, b)
	}
	n.staged = append(n.staged, fresh...)
	n.pending = slices.Clone(n.pending[len(fresh):])
	return Range{at, len(n.staged)}, nil
}

func (n *naive) commitStaged() Range {
	r, _ := n.commitPinned(make([]lease, len(n.staged)))
	return r
}

func (n *naive) commitPinned(pins []lease) (Range, error) {
	at := len(n.assigned)
	if len(pins) > len(n.staged) {
		return Range{at, at}, &PinsError{Pins: len(pins), Staged: len(n.staged)}
	}
	for _, p := range pins {
		b := n.staged[0]
		b.Pin = p
		n.assigned = append(n.assigned, b)
		n.staged = slices.Clone(n.staged[1:])
	}
	return Range{at, len(n.assigned)}, nil
}

func (n *naive) assignPending(keys []block.Key) (Range, error) {
	if _, err := n.stagePending(keys); err != nil {
		return Range{len(n.assigned), len(n.assigned)}, err
	}
	return n.commitStaged(), nil
}

func (n *naive) takeStaged() []Block[lease] {
	out := n.staged
	n.staged = nil
	return out
}

func (n *naive) truncate(end int) {
	var assigned, staged []Block[lease]
	var pending []BlockID
	position := n.offset
	for _, b := range n.assigned {
		if position < end {
			assigned = append(assigned, b)
		} else if b.Pin.name != "" {
			n.released = append(n.released, b.Pin.name)
		}
		position++
	}
	for _, b := range n.staged {
		if position < end {
			staged = append(staged, b)
		}
		position++
	}
	for _, id := range n.pending {
		if position < end {
			pending = append(pending, id)
		}
		position++
	}
	n.assigned, n.staged, n.pending = assigned, staged, pending
}

// zip pairs source's assigned slots with target's slots at the same positions,
// the first of which is at start.
func (n *naive) zip(target []BlockID, start int) []Pair {
	var out []Pair
	for i, b := range n.assigned {
		for j, id := range target {
			if n.offset+i == start+j {
				out = append(out, Pair{n.offset + i, b.ID, id})
			}
		}
	}
	return out
}
