package engram

import (
	"errors"
	"fmt"
	"slices"

	"cairn/block"
)

// Errors of vectors and of their encoding; test for them with errors.Is.
var (
	// ErrTruncated: the bytes end before the vector does.
	ErrTruncated = errors.New("encoding is truncated")
	// ErrTrailing: there are bytes behind the vector.
	ErrTrailing = errors.New("bytes behind the encoding")
	// ErrOverflow: the vector has more than MaxNonZero dimensions that are not zero.
	ErrOverflow = errors.New("too many dimensions")
	// ErrUnsorted: a dimension is smaller than the one before it in its list.
	ErrUnsorted = errors.New("dimensions are not in ascending order")
	// ErrDuplicate: a dimension is in its list twice.
	ErrDuplicate = errors.New("dimension is there twice")
	// ErrBothSigns: a dimension is among the positive and among the negative ones.
	ErrBothSigns = errors.New("dimension is positive and negative")
	// ErrDimension: a dimension lies outside the space of the operation.
	ErrDimension = errors.New("dimension outside the space")
)

// MaxNonZero is how many dimensions of a vector may be other than zero: as many as
// fit into the largest block.
const MaxNonZero = (block.MaxLength - headerSize) / dimSize

// SparseVec is a ternary vector of which most dimensions are zero: those in Pos are
// +1, those in Neg are -1. Both lists ascend, and no dimension is in both; Validate
// tells. The functions of this package keep to that and expect it, and never change
// a vector that they are given. The zero SparseVec is the zero vector.
type SparseVec struct {
	Pos, Neg []uint32
}

// Len is how many dimensions are not zero.
func (v SparseVec) Len() int { return len(v.Pos) + len(v.Neg) }

// Equal tells whether v and o are the same vector.
func (v SparseVec) Equal(o SparseVec) bool {
	return slices.Equal(v.Pos, o.Pos) && slices.Equal(v.Neg, o.Neg)
}

// Clone is a copy that shares no memory with v.
func (v SparseVec) Clone() SparseVec {
	return SparseVec{Pos: slices.Clone(v.Pos), Neg: slices.Clone(v.Neg)}
}

// Negate is -v.
func (v SparseVec) Negate() SparseVec {
	return SparseVec{Pos: slices.Clone(v.Neg), Neg: slices.Clone(v.Pos)}
}

// Validate is nil for a vector that can be encoded; else it is ErrOverflow,
// ErrUnsorted, ErrDuplicate or ErrBothSigns, and says where.
func (v SparseVec) Validate() error {
	if err := v.check(); err != nil {
		return fmt.Errorf("engram: vector: %w", err)
	}
	return nil
}

func (v SparseVec) check() error {
	if n := uint64(len(v.Pos)) + uint64(len(v.Neg)); n > MaxNonZero {
		return fmt.Errorf("%w: %d, at most %d", ErrOverflow, n, MaxNonZero)
	}
	if err := ascends("positive", v.Pos); err != nil {
		return err
	}
	if err := ascends("negative", v.Neg); err != nil {
		return err
	}
	for p, n := 0, 0; p < len(v.Pos) && n < len(v.Neg); {
		switch a, b := v.Pos[p], v.Neg[n]; {
		case a < b:
			p++
		case a > b:
			n++
		default:
			return fmt.Errorf("%w: %d", ErrBothSigns, a)
		}
	}
	return nil
}

func ascends(list string, dims []uint32) error {
	for i := 1; i < len(dims); i++ {
		switch {
		case dims[i] < dims[i-1]:
			return fmt.Errorf("%w: %d after %d, %s dimension %d", ErrUnsorted, dims[i], dims[i-1], list, i)
		case dims[i] == dims[i-1]:
			return fmt.Errorf("%w: %d, %s dimension %d", ErrDuplicate, dims[i], list, i)
		}
	}
	return nil
}

// inside tells whether all dimensions of v are below dims. v is valid.
func (v SparseVec) inside(dims uint64) error {
	for _, list := range [][]uint32{v.Pos, v.Neg} {
		if n := len(list); n > 0 && uint64(list[n-1]) >= dims {
			return fmt.Errorf("%w: %d, the space has %d", ErrDimension, list[n-1], dims)
		}
	}
	return nil
}
