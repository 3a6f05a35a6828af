package sequence

// Pair is two slots for one block, in two tiers.
type Pair struct {
	// Position is the block's, in the sequence.
	Position int
	// Source is the slot in the first tier, Target the one in the second.
	Source, Target BlockID
}

// ZipAssigned pairs the slots at every position that is assigned in both, by
// ascending position. The caller owns the result.
func ZipAssigned[P, Q Pin](source *Assignments[P], target *Assignments[Q]) []Pair {
	common := source.AssignedPositions().intersect(target.AssignedPositions())
	if common.Empty() {
		return nil
	}
	pairs := make([]Pair, common.Len())
	from := source.blocks[common.Start-source.offset:]
	to := target.blocks[common.Start-target.offset:]
	for i := range pairs {
		pairs[i] = Pair{common.Start + i, from[i].ID, to[i].ID}
	}
	return pairs
}

// ZipAssignedPending pairs the slots at every position that is assigned in
// source and pending in target, by ascending position: the copies to make before
// target's slots can be assigned. The caller owns the result.
func ZipAssignedPending[P, Q Pin](source *Assignments[P], target *Assignments[Q]) []Pair {
	common := source.AssignedPositions().intersect(target.PendingPositions())
	if common.Empty() {
		return nil
	}
	pairs := make([]Pair, common.Len())
	from := source.blocks[common.Start-source.offset:]
	to := target.pending.waiting()[common.Start-target.NextPosition():]
	for i := range pairs {
		pairs[i] = Pair{common.Start + i, from[i].ID, to[i]}
	}
	return pairs
}
