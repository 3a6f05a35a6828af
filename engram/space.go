package engram

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"

	"cairn/block"
)

// ErrSpace: a Space whose numbers make no space.
var ErrSpace = errors.New("no such space")

// Space is the shape of vectors that are bound to each other: Blocks blocks of Length
// dimensions each. Everybody who shares engrams must use the same one; 256 blocks of
// 64 hold some dozens of bound pairs in one vector.
//
// A *code* is a vector with exactly one dimension, +1 or -1, in each block: a sparse
// block code. What [Space.Bind] does to a vector with a code, [Space.Unbind] undoes
// without loss.
type Space struct {
	Blocks, Length uint32
}

// Dims is the number of dimensions.
func (s Space) Dims() uint64 { return uint64(s.Blocks) * uint64(s.Length) }

// Validate is nil for a space with at least one dimension that 32 bits can number.
func (s Space) Validate() error {
	if s.Blocks == 0 || s.Length == 0 || s.Dims() > 1<<32 {
		return fmt.Errorf("engram: %w: %d blocks of %d dimensions: want 1 to 2^32 dimensions in all", ErrSpace, s.Blocks, s.Length)
	}
	return nil
}

// Code is a random code, always the same for the same seed. Codes of different seeds
// are nearly orthogonal: their similarity is 0 on average, with a standard deviation
// of 1/sqrt(Dims). The space must be valid.
func (s Space) Code(seed uint64) SparseVec {
	next := numbers(seed)
	var v SparseVec
	for b := range uint64(s.Blocks) {
		r := next.Uint64()
		in, _ := bits.Mul64(r, uint64(s.Length)) // 0 to Length-1, from the high bits
		v.add(uint32(b*uint64(s.Length)+in), int64(r&1)*2-1)
	}
	return v
}

// Named is the code of a name, the same wherever it is asked for.
func (s Space) Named(name string) SparseVec { return s.Code(block.Checksum([]byte(name))) }

// numbers gives the same numbers for the same seed everywhere: what is stored depends
// on them.
func numbers(seed uint64) *rand.PCG { return rand.NewPCG(seed, 0x6d617265676e65) }

// Random is a vector of dims dimensions of which the share density, 0 to 1, is not
// zero, each with either sign. It is always the same for the same arguments. For what is
// to be bound, take a [Space.Code].
func Random(seed uint64, dims uint32, density float64) SparseVec {
	if !(density > 0) { // also what is no number
		return SparseVec{}
	}
	n := uint32(float64(dims) * min(density, 1))
	next := numbers(seed)
	// Robert Floyd's algorithm: n different numbers below dims, from n draws.
	signs := make(map[uint32]bool, n)
	for top := dims - n; top < dims; top++ {
		r := next.Uint64()
		at, _ := bits.Mul64(r, uint64(top)+1)
		d := uint32(at)
		if _, taken := signs[d]; taken {
			d = top
		}
		signs[d] = r&1 == 1
	}
	return ofSigns(signs)
}

// ofSigns is the vector of these dimensions: +1 where true, else -1.
func ofSigns(signs map[uint32]bool) SparseVec {
	var v SparseVec
	for _, d := range slices.Sorted(maps.Keys(signs)) {
		if signs[d] {
			v.Pos = append(v.Pos, d)
		} else {
			v.Neg = append(v.Neg, d)
		}
	}
	return v
}

// Permute turns v by whole blocks: what is in block b goes to block b + by, cyclically. It
// keeps codes codes, and stands for order: Permute(a, 1) is similar to no a, and Permute
// by -1 undoes it. ErrDimension: v does not fit the space.
func (s Space) Permute(v SparseVec, by int) (SparseVec, error) {
	if err := s.fits(v); err != nil {
		return SparseVec{}, fmt.Errorf("engram: permute: %w", err)
	}
	blocks := int64(s.Blocks)
	shift := uint64((int64(by)%blocks+blocks)%blocks) * uint64(s.Length)
	return SparseVec{Pos: shifted(v.Pos, shift, s.Dims()), Neg: shifted(v.Neg, shift, s.Dims())}, nil
}

// Permute shifts all dimensions of v cyclically by by places in a space of dims
// dimensions. ErrDimension: v has a dimension that is none of them.
func Permute(v SparseVec, dims uint32, by int64) (SparseVec, error) {
	if err := v.inside(uint64(dims)); err != nil {
		return SparseVec{}, fmt.Errorf("engram: permute: %w", err)
	}
	if dims == 0 {
		return SparseVec{}, nil
	}
	n := int64(dims)
	shift := uint64((by%n + n) % n)
	return SparseVec{Pos: shifted(v.Pos, shift, uint64(dims)), Neg: shifted(v.Neg, shift, uint64(dims))}, nil
}

// shifted keeps the order: what wraps around comes first.
func shifted(list []uint32, shift, dims uint64) []uint32 {
	wraps, _ := slices.BinarySearchFunc(list, dims-shift, func(d uint32, from uint64) int {
		if uint64(d) < from {
			return -1
		}
		return 1
	})
	out := make([]uint32, 0, len(list))
	for _, d := range list[wraps:] {
		out = append(out, uint32(uint64(d)+shift-dims))
	}
	for _, d := range list[:wraps] {
		out = append(out, uint32(uint64(d)+shift))
	}
	return out
}
