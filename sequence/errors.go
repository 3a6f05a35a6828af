package sequence

import (
	"errors"
	"fmt"

	"cairn/block"
)

// Errors that callers test for with errors.Is.
var (
	// ErrNamespace reports a [Namespace] that cannot be used.
	ErrNamespace = errors.New("sequence: invalid namespace")
	// ErrBlockSize reports a block size outside 1…[MaxBlockSize].
	ErrBlockSize = errors.New("sequence: block size out of range")
	// ErrLength reports a number of tokens that the sequence does not have;
	// errors.As finds a [*LengthError].
	ErrLength = errors.New("sequence: length out of range")
	// ErrExtension reports tokens that a sequence did not take; errors.As finds a
	// [*ExtensionError].
	ErrExtension = errors.New("sequence: tokens not added")
)

// PositionError reports a sequence that would need more blocks than a key can
// count. errors.Is finds [block.ErrPosition].
type PositionError struct {
	// Position is the first block position that does not fit.
	Position int
}

func (e *PositionError) Error() string {
	return fmt.Sprintf("sequence: block position %d exceeds %d: use larger blocks or a shorter sequence", e.Position, block.MaxPosition)
}

// Unwrap is [block.ErrPosition].
func (e *PositionError) Unwrap() error { return block.ErrPosition }

// LengthError reports an Unwind or Truncate by a number of tokens that the
// sequence does not have. errors.Is finds [ErrLength].
type LengthError struct {
	// Tokens is the number asked for, Length what the sequence has.
	Tokens, Length int
}

func (e *LengthError) Error() string {
	return fmt.Sprintf("%v: asked for %d of %d", ErrLength, e.Tokens, e.Length)
}

// Unwrap is [ErrLength].
func (e *LengthError) Unwrap() error { return ErrLength }

// ExtensionError reports tokens that a [TokenSequence] did not take. errors.Is
// finds [ErrExtension] and what Cause wraps.
type ExtensionError struct {
	// Cause is a [*PositionError], or the error of a [Hasher].
	Cause error
}

func (e *ExtensionError) Error() string { return fmt.Sprintf("%v: %v", ErrExtension, e.Cause) }

// Unwrap is [ErrExtension] and the cause.
func (e *ExtensionError) Unwrap() []error { return []error{ErrExtension, e.Cause} }

// checkPosition accepts the positions that a key can carry.
func checkPosition(position int) error {
	if position < 0 || position > block.MaxPosition {
		return &PositionError{Position: position}
	}
	return nil
}

// checkBlockSize accepts 1…MaxBlockSize.
func checkBlockSize(blockSize int) error {
	if blockSize < 1 || blockSize > MaxBlockSize {
		return fmt.Errorf("%w: %d tokens, want 1 to %d", ErrBlockSize, blockSize, MaxBlockSize)
	}
	return nil
}
