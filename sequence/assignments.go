package sequence

import (
	"iter"
	"slices"

	"cairn/block"
)

// BlockID names a slot in the pool of one tier: where the bytes of a block are
// to lie, or lie, and not what they are.
type BlockID uint64

// Pin holds the bytes of a registered block in place. An [Assignments] owns the
// pins that it was given without error, and releases each once, in Truncate or Clear. The
// pins in a [Block] that a query returns are lent: do not release them. Release
// of the zero value must do nothing.
type Pin interface {
	Release()
}

// Bare is the Pin of slots that somebody else keeps in place, such as the pool
// of an inference engine.
type Bare struct{}

// Release does nothing.
func (Bare) Release() {}

// Block is a slot and the key of the block in it.
type Block[P Pin] struct {
	ID BlockID
	// Pin is the zero value unless the block came with one.
	Pin P
	Key block.Key
}

// Assignments says which slots of one tier hold the blocks of one sequence, from
// the block at Offset on, without gaps. A slot is
//
//   - pending: it waits, in order of arrival, for a block of the sequence;
//   - staged: it has the key of the block that it is to hold;
//   - assigned: it holds that block.
//
// Assigned blocks come first, staged ones follow, and pending slots will follow
// these, so that every slot has one position. An id is in one phase at a time.
//
// Several Assignments, one a tier, may follow one sequence from different
// offsets. One goroutine at a time uses an Assignments, or several that only
// query it.
type Assignments[P Pin] struct {
	offset int
	// blocks[:committed] are assigned, blocks[committed:] staged; the block with
	// index i has position offset+i.
	blocks    []Block[P]
	committed int
	pending   fifo
	// known has every id of blocks and pending.
	known idSet
}

// NewAssignments follows a sequence from the block at position offset on. An
// offset that no block can have gives a [*PositionError].
func NewAssignments[P Pin](offset int) (*Assignments[P], error) {
	if err := checkPosition(offset); err != nil {
		return nil, err
	}
	return &Assignments[P]{offset: offset, known: idSet{}}, nil
}

// Offset is the position of the first block.
func (a *Assignments[P]) Offset() int { return a.offset }

// Contains tells whether the id is pending, staged or assigned.
func (a *Assignments[P]) Contains(id BlockID) bool { return a.known.has(id) }

// AssignedCount is the number of assigned blocks.
func (a *Assignments[P]) AssignedCount() int { return a.committed }

// StagedCount is the number of staged blocks.
func (a *Assignments[P]) StagedCount() int { return len(a.blocks) - a.committed }

// PendingCount is the number of slots that wait for a block.
func (a *Assignments[P]) PendingCount() int { return len(a.pending.waiting()) }

// NextPosition is the position of the next block to be staged.
func (a *Assignments[P]) NextPosition() int { return a.offset + len(a.blocks) }

// AssignedPositions is the range of positions that are assigned.
func (a *Assignments[P]) AssignedPositions() Range {
	return Range{a.offset, a.offset + a.committed}
}

// StagedPositions is the range of positions that are staged.
func (a *Assignments[P]) StagedPositions() Range {
	return Range{a.offset + a.committed, a.NextPosition()}
}

// PendingPositions is the range of positions that the pending slots will have.
func (a *Assignments[P]) PendingPositions() Range {
	return Range{a.NextPosition(), a.NextPosition() + a.PendingCount()}
}

// Assigned is the assigned block with index i, whose position is Offset()+i.
func (a *Assignments[P]) Assigned(i int) (Block[P], bool) { return at(a.assigned(), i) }

// Staged is the staged block with index i, counted from the first staged one.
func (a *Assignments[P]) Staged(i int) (Block[P], bool) { return at(a.staged(), i) }

// AtPosition is the assigned block at a position of the sequence.
func (a *Assignments[P]) AtPosition(position int) (Block[P], bool) {
	return at(a.assigned(), position-a.offset)
}

// PendingAtPosition is the slot that waits for the block at a position of the
// sequence.
func (a *Assignments[P]) PendingAtPosition(position int) (BlockID, bool) {
	return at(a.pending.waiting(), position-a.NextPosition())
}

// AssignedBlocks yields the assigned blocks by ascending position. Neither it
// nor the other iterators may be used further after a call that changes a.
func (a *Assignments[P]) AssignedBlocks() iter.Seq[Block[P]] { return slices.Values(a.assigned()) }

// StagedBlocks yields the staged blocks by ascending position.
func (a *Assignments[P]) StagedBlocks() iter.Seq[Block[P]] { return slices.Values(a.staged()) }

// PendingIDs yields the slots that wait, in order of arrival.
func (a *Assignments[P]) PendingIDs() iter.Seq[BlockID] { return slices.Values(a.pending.waiting()) }

func (a *Assignments[P]) assigned() []Block[P] { return a.blocks[:a.committed] }
func (a *Assignments[P]) staged() []Block[P]   { return a.blocks[a.committed:] }

// at is s[i], if there is one.
func at[T any](s []T, i int) (v T, ok bool) {
	if i < 0 || i >= len(s) {
		return v, false
	}
	return s[i], true
}
