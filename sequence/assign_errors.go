package sequence

import (
	"errors"
	"fmt"
)

// Errors of [Assignments] that callers test for with errors.Is; errors.As finds
// the type that is named with each.
var (
	// ErrOrdering: a known slot came after a new one; [*OrderingError].
	ErrOrdering = errors.New("sequence: slots out of order")
	// ErrDuplicate: a slot came twice; [*DuplicateError].
	ErrDuplicate = errors.New("sequence: duplicate slot")
	// ErrPositionMismatch: a block came at another position than its key says;
	// [*PositionMismatchError].
	ErrPositionMismatch = errors.New("sequence: block at a wrong position")
	// ErrStaged: blocks are staged that would have to be committed or taken
	// first; [*StagedError].
	ErrStaged = errors.New("sequence: blocks are staged")
	// ErrPins: there were more pins than staged blocks; [*PinsError].
	ErrPins = errors.New("sequence: more pins than staged blocks")
)

// OrderingError reports a list of slots in which a known one follows a new one.
// errors.Is finds [ErrOrdering].
type OrderingError struct {
	// KnownID is the known slot, NewID the first new one.
	KnownID, NewID BlockID
	// KnownIndex and FirstNewIndex are their places in the list.
	KnownIndex, FirstNewIndex int
}

func (e *OrderingError) Error() string {
	return fmt.Sprintf("%v: slot %d at index %d is known, and follows the new slot %d at index %d",
		ErrOrdering, e.KnownID, e.KnownIndex, e.NewID, e.FirstNewIndex)
}

// Unwrap is [ErrOrdering].
func (e *OrderingError) Unwrap() error { return ErrOrdering }

// DuplicateError reports a slot that is known already, or that occurs twice in
// one call. errors.Is finds [ErrDuplicate].
type DuplicateError struct {
	ID BlockID
}

func (e *DuplicateError) Error() string { return fmt.Sprintf("%v: %d", ErrDuplicate, e.ID) }

// Unwrap is [ErrDuplicate].
func (e *DuplicateError) Unwrap() error { return ErrDuplicate }

// PositionMismatchError reports a block whose key is of another position than
// the one that its slot has. errors.Is finds [ErrPositionMismatch].
type PositionMismatchError struct {
	// Expected is the slot's position; Actual the key's, which is
	// block.NamedPosition for the key of a name.
	Expected, Actual int
	ID               BlockID
}

func (e *PositionMismatchError) Error() string {
	return fmt.Sprintf("%v: slot %d is at position %d, the key of position %d", ErrPositionMismatch, e.ID, e.Expected, e.Actual)
}

// Unwrap is [ErrPositionMismatch].
func (e *PositionMismatchError) Unwrap() error { return ErrPositionMismatch }

// StagedError reports blocks that are staged when none may be. errors.Is finds
// [ErrStaged].
type StagedError struct {
	Staged int // number of staged blocks
}

func (e *StagedError) Error() string {
	return fmt.Sprintf("%v: %d: commit or take them first", ErrStaged, e.Staged)
}

// Unwrap is [ErrStaged].
func (e *StagedError) Unwrap() error { return ErrStaged }

// PinsError reports more pins than there are blocks for them. errors.Is finds
// [ErrPins].
type PinsError struct {
	Pins, Staged int
}

func (e *PinsError) Error() string {
	return fmt.Sprintf("%v: %d for %d", ErrPins, e.Pins, e.Staged)
}

// Unwrap is [ErrPins].
func (e *PinsError) Unwrap() error { return ErrPins }
