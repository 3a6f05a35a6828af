package engram

import (
	"fmt"
	"slices"
)

// Bind associates a and b: the result is similar to neither, and Unbind with one
// gives the other back. In each block it is the circular convolution, of which the signs
// are kept: dimension k is the sign of the sum of a[i]·b[j] over all i + j = k modulo
// Length. ErrDimension: a or b does not fit the space.
//
// It is commutative. With a code it only moves dimensions about in their blocks, so it
// keeps similarities exactly and distributes over Bundle. Between two vectors of many
// dimensions a block it does both approximately. It takes time for each pair of dimensions
// in the same block, and up to 8 bytes of memory for each dimension of one block, so keep
// blocks short.
func (s Space) Bind(a, b SparseVec) (SparseVec, error) {
	if err := s.fits(a, b); err != nil {
		return SparseVec{}, fmt.Errorf("engram: bind: %w", err)
	}
	return s.bind(a, b), nil
}

// Unbind takes b out of bound: if bound is Bind(x, b) and b is a code, the result is
// x; if bound is a bundle with Bind(x, b) in it, or b is no code, it is similar to x.
// ErrDimension: a vector does not fit the space.
func (s Space) Unbind(bound, b SparseVec) (SparseVec, error) {
	if err := s.fits(bound, b); err != nil {
		return SparseVec{}, fmt.Errorf("engram: unbind: %w", err)
	}
	return s.bind(bound, s.inverse(b)), nil
}

func (s Space) fits(vectors ...SparseVec) error {
	if err := s.Validate(); err != nil {
		return err
	}
	for _, v := range vectors {
		if err := v.inside(s.Dims()); err != nil {
			return err
		}
	}
	return nil
}

// inverse moves each dimension i of a block to -i, which makes of a circular
// convolution the circular correlation.
func (s Space) inverse(v SparseVec) SparseVec {
	turn := func(dims []uint32) []uint32 {
		out := make([]uint32, len(dims))
		for i, d := range dims {
			in := d % s.Length
			out[i] = d - in + (s.Length-in)%s.Length
		}
		slices.Sort(out)
		return out
	}
	return SparseVec{Pos: turn(v.Pos), Neg: turn(v.Neg)}
}

// term is one dimension inside a block, with its sign.
type term struct {
	at   uint32
	sign int64
}

// blocks calls f for each block in which v is not zero, in order. terms is f's until
// it returns.
func (s Space) blocks(v SparseVec, f func(block uint32, terms []term)) {
	var terms []term
	var now uint32
	v.each(func(d uint32, sign int64) {
		if b := d / s.Length; b != now {
			if len(terms) > 0 {
				f(now, terms)
			}
			now, terms = b, terms[:0]
		}
		terms = append(terms, term{d % s.Length, sign})
	})
	if len(terms) > 0 {
		f(now, terms)
	}
}

// bind convolves block by block.
func (s Space) bind(a, b SparseVec) SparseVec {
	type factor struct {
		block    uint32
		from, to int // in terms
	}
	var factors []factor
	terms := make([]term, 0, b.Len())
	s.blocks(b, func(block uint32, right []term) {
		factors = append(factors, factor{block, len(terms), len(terms) + len(right)})
		terms = append(terms, right...)
	})
	var out SparseVec
	var conv convolution
	s.blocks(a, func(block uint32, left []term) {
		for len(factors) > 0 && factors[0].block < block {
			factors = factors[1:]
		}
		if len(factors) == 0 || factors[0].block != block {
			return
		}
		right := terms[factors[0].from:factors[0].to]
		for _, t := range conv.of(left, right, s.Length) {
			out.add(block*s.Length+t.at, t.sign)
		}
	})
	return out
}

// convolution has memory that is used again for each block.
type convolution struct {
	sums []int64
	out  []term
}

// of gives the terms of the convolution in order. They are good until the next call.
func (c *convolution) of(left, right []term, length uint32) []term {
	c.out = c.out[:0]
	// The pairs of a large space with few dimensions a block are sorted; else there is
	// a sum for each place, which is zero between calls.
	if uint64(len(left))*uint64(len(right)) < uint64(length)/8 {
		return c.sorted(left, right, length)
	}
	if len(c.sums) < int(length) {
		c.sums = make([]int64, length)
	}
	for _, l := range left {
		for _, r := range right {
			at := turned(l.at, r.at, length)
			c.sums[at] += l.sign * r.sign
		}
	}
	for at, sum := range c.sums[:length] {
		if sum != 0 {
			c.out = append(c.out, term{uint32(at), sum})
			c.sums[at] = 0
		}
	}
	return c.out
}

func (c *convolution) sorted(left, right []term, length uint32) []term {
	pairs := make([]term, 0, len(left)*len(right))
	for _, l := range left {
		for _, r := range right {
			pairs = append(pairs, term{turned(l.at, r.at, length), l.sign * r.sign})
		}
	}
	slices.SortFunc(pairs, func(a, b term) int { return int(int64(a.at) - int64(b.at)) })
	for i := 0; i < len(pairs); {
		t := pairs[i]
		for i++; i < len(pairs) && pairs[i].at == t.at; i++ {
			t.sign += pairs[i].sign
		}
		if t.sign != 0 {
			c.out = append(c.out, t)
		}
	}
	return c.out
}

// turned is (a + b) modulo length.
func turned(a, b, length uint32) uint32 {
	sum := uint64(a) + uint64(b)
	if sum >= uint64(length) {
		sum -= uint64(length)
	}
	return uint32(sum)
}
