package engram

import (
	"math"
	"slices"
)

// Bundle is the superposition of vectors: in each dimension the sign of the sum,
// and zero where it is even. The result is similar to every one of them, the less so
// the more there are.
//
// Bundle(a, b, c) is in general not Bundle(Bundle(a, b), c), since a sign does not
// say how large the sum was: where all of them are at hand, bundle them at once, or with
// an Accumulator. The order of the arguments does not matter.
func Bundle(vectors ...SparseVec) SparseVec {
	var a Accumulator
	for _, v := range vectors {
		a.Add(v, 1)
	}
	return a.Vector()
}

// Accumulator is the weighted sum of vectors, for bundling many. The zero value is
// the empty sum. It is not for parallel use, and must not be copied: two copies would write
// to the same memory.
type Accumulator struct {
	dims, spare []uint32 // ascending; spare is used again by the next Add
	sums, later []int64  // of dims, never 0
}

// Add adds weight times v; a negative weight takes away. A sum that leaves the range
// of 64 bits stays at its end.
func (a *Accumulator) Add(v SparseVec, weight int32) {
	if weight == 0 || v.Len() == 0 {
		return
	}
	dims := slices.Grow(a.spare[:0], len(a.dims)+v.Len())
	sums := slices.Grow(a.later[:0], len(a.dims)+v.Len())
	i, w := 0, int64(weight)
	v.each(func(d uint32, sign int64) {
		for ; i < len(a.dims) && a.dims[i] < d; i++ {
			dims, sums = append(dims, a.dims[i]), append(sums, a.sums[i])
		}
		sum := sign * w
		if i < len(a.dims) && a.dims[i] == d {
			sum = add(a.sums[i], sum)
			i++
		}
		if sum != 0 {
			dims, sums = append(dims, d), append(sums, sum)
		}
	})
	dims, sums = append(dims, a.dims[i:]...), append(sums, a.sums[i:]...)
	a.dims, a.spare = dims, a.dims
	a.sums, a.later = sums, a.sums
}

// add does not wrap around.
func add(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}

// each calls f with the dimensions of v in ascending order, and their signs.
func (v SparseVec) each(f func(d uint32, sign int64)) {
	pos, neg := v.Pos, v.Neg
	for len(pos) > 0 || len(neg) > 0 {
		if len(neg) == 0 || len(pos) > 0 && pos[0] < neg[0] {
			f(pos[0], 1)
			pos = pos[1:]
		} else {
			f(neg[0], -1)
			neg = neg[1:]
		}
	}
}

// Len is how many dimensions of the sum are not zero.
func (a *Accumulator) Len() int { return len(a.dims) }

// Vector is the sign of the sum, in new memory.
func (a *Accumulator) Vector() (v SparseVec) {
	pos := 0
	for _, s := range a.sums {
		if s > 0 {
			pos++
		}
	}
	v.Pos, v.Neg = room(pos), room(len(a.sums)-pos)
	for i, d := range a.dims {
		v.add(d, a.sums[i])
	}
	return v
}

// room is nil where there is nothing to come.
func room(n int) []uint32 {
	if n == 0 {
		return nil
	}
	return make([]uint32, 0, n)
}

// Thin is Vector with at most n dimensions that are not zero: those of the largest
// sums, and of equal ones the first. It keeps a memory sparse that is bundled into for
// ever.
func (a *Accumulator) Thin(n int) SparseVec {
	if n >= len(a.dims) {
		return a.Vector()
	}
	if n <= 0 {
		return SparseVec{}
	}
	sizes := make([]uint64, len(a.sums))
	for i, s := range a.sums {
		sizes[i] = magnitude(s)
	}
	slices.Sort(sizes)
	least := sizes[len(sizes)-n] // of those that stay
	larger := n
	for i := len(sizes) - n; i < len(sizes) && sizes[i] == least; i++ {
		larger--
	}
	equal := n - larger // that many of size least stay
	var v SparseVec
	for i, d := range a.dims {
		size := magnitude(a.sums[i])
		if size < least || size == least && equal == 0 {
			continue
		}
		if size == least {
			equal--
		}
		v.add(d, a.sums[i])
	}
	return v
}

// magnitude is also right for the smallest number.
func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// add appends a dimension behind all others.
func (v *SparseVec) add(d uint32, sign int64) {
	if sign > 0 {
		v.Pos = append(v.Pos, d)
	} else {
		v.Neg = append(v.Neg, d)
	}
}

// Dot is the sum of the products of the dimensions of a and b: in how many they
// agree, less in how many they differ, not counting zeros.
func Dot(a, b SparseVec) int {
	return common(a.Pos, b.Pos) + common(a.Neg, b.Neg) - common(a.Pos, b.Neg) - common(a.Neg, b.Pos)
}

// common is how many dimensions are in both lists.
func common(a, b []uint32) (n int) {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			a = a[1:]
		case a[0] > b[0]:
			b = b[1:]
		default:
			n++
			a, b = a[1:], b[1:]
		}
	}
	return n
}

// Similarity is the cosine of the angle between a and b, from -1 to 1: near 0 for
// vectors that have nothing to do with each other, and 0 where one is the zero vector.
func Similarity(a, b SparseVec) float64 {
	if a.Len() == 0 || b.Len() == 0 {
		return 0
	}
	return float64(Dot(a, b)) / math.Sqrt(float64(a.Len())*float64(b.Len()))
}
