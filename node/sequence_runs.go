package node

import (
	"slices"

	"cairn/block"
	"cairn/sequence"
)

// run is blocks of a sequence, without gaps, that lie in one tier. Its slots have no
// meaning outside of the sequence: a tier finds blocks by key.
type run = sequence.Assignments[hold]

// runs are what a sequence has in one tier: disjoint runs at their own offsets, by
// ascending offset.
type runs []*run

// runAt is the run of tier t whose next block is the one at position, with at least n
// pending slots. The position must not be assigned in the tier, and nothing staged.
func (s *Sequence) runAt(t block.Tier, position, n int) *run {
	list := &s.tiers[t]
	*list = slices.DeleteFunc(*list, func(r *run) bool { return r.NextPosition() == r.Offset() && r.Offset() != position })
	i := slices.IndexFunc(*list, func(r *run) bool { return r.NextPosition() == position })
	if i < 0 {
		r, err := sequence.NewAssignments[hold](position)
		if err != nil {
			panic(err) // the position is of a key
		}
		i = slices.IndexFunc(*list, func(r *run) bool { return r.Offset() > position })
		if i < 0 {
			i = len(*list)
		}
		*list = slices.Insert(*list, i, r)
	}
	r := (*list)[i]
	s.addSlots(r, n-r.PendingCount())
	return r
}

// addSlots adds pending slots to a run.
func (s *Sequence) addSlots(r *run, n int) {
	if n <= 0 {
		return
	}
	ids := make([]sequence.BlockID, n)
	for i := range ids {
		s.lastSlot++
		ids[i] = s.lastSlot
	}
	if err := r.ExtendBlockIDs(ids); err != nil {
		panic(err) // the ids are new
	}
}

// gaps are the ranges within r that no run has assigned.
func (l runs) gaps(r sequence.Range) []sequence.Range {
	var gaps []sequence.Range
	at := r.Start
	for _, have := range l.held() {
		if have.Start >= r.End {
			break
		}
		if have.Start > at {
			gaps = append(gaps, sequence.Range{Start: at, End: have.Start})
		}
		at = max(at, have.End)
	}
	if at < r.End {
		gaps = append(gaps, sequence.Range{Start: at, End: r.End})
	}
	return gaps
}

// reach is the end of the blocks that are assigned without a gap from start on.
func (l runs) reach(start int) int {
	for _, have := range l.held() {
		if have.Start <= start && start < have.End {
			start = have.End
		}
	}
	return start
}

// held is the positions that are assigned, with neighbours joined.
func (l runs) held() []sequence.Range {
	var held []sequence.Range
	for _, r := range l {
		p := r.AssignedPositions()
		switch last := len(held) - 1; {
		case p.Empty():
		case last >= 0 && held[last].End == p.Start:
			held[last].End = p.End
		default:
			held = append(held, p)
		}
	}
	return held
}

// clear releases every pin and forgets every run.
func (l *runs) clear() {
	for _, r := range *l {
		r.Clear()
	}
	*l = nil
}

// truncate releases what lies at position end or beyond, and its slots.
func (l *runs) truncate(end int) {
	*l = slices.DeleteFunc(*l, func(r *run) bool {
		r.Truncate(end)
		return r.Offset() >= end
	})
}
