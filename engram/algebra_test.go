package engram

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// usual is the space of most tests.
var usual = Space{Blocks: 256, Length: 64}

// dense is v as an array, for comparison with what the definitions say.
func dense(v SparseVec, dims int) []int64 {
	a := make([]int64, dims)
	v.each(func(d uint32, sign int64) { a[d] = sign })
	return a
}

func sparse(a []int64) (v SparseVec) {
	for d, n := range a {
		if n != 0 {
			v.add(uint32(d), n)
		}
	}
	return v
}

// in draws vectors of a small space.
func in(s Space) *rapid.Generator[SparseVec] {
	return rapid.Map(rapid.SliceOfN(rapid.Int64Range(-1, 1), int(s.Dims()), int(s.Dims())), sparse)
}

func TestBundleIsTheSignOfTheSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vs := rapid.SliceOfN(vectors(), 0, 6).Draw(t, "vectors")
		sums := map[uint32]int64{}
		for _, v := range vs {
			v.each(func(d uint32, sign int64) { sums[d] += sign })
		}
		got := Bundle(vs...)
		if err := got.Validate(); err != nil {
			t.Fatal(err)
		}
		nonZero := 0
		for _, sum := range sums {
			if sum != 0 {
				nonZero++
			}
		}
		got.each(func(d uint32, sign int64) {
			if sums[d]*sign <= 0 {
				t.Fatalf("dimension %d is %d, the sum is %d", d, sign, sums[d])
			}
		})
		slices.Reverse(vs)
		if again := Bundle(vs...); got.Len() != nonZero || !again.Equal(got) {
			t.Fatalf("%v, and in reverse %v; %d sums are not zero", got, again, nonZero)
		}
	})
}

func TestAccumulator(t *testing.T) {
	a, b := SparseVec{Pos: []uint32{1, 4}, Neg: []uint32{2}}, SparseVec{Pos: []uint32{2, 3}, Neg: []uint32{4}}
	var sum Accumulator
	sum.Add(a, 2)
	sum.Add(b, -1) // 1: 2, 2: -3, 3: -1, 4: 3
	sum.Add(b, 0)
	if v := sum.Vector(); !v.Equal(SparseVec{Pos: []uint32{1, 4}, Neg: []uint32{2, 3}}) {
		t.Errorf("%v", v)
	}
	for n, want := range []SparseVec{
		{}, {Neg: []uint32{2}}, {Pos: []uint32{4}, Neg: []uint32{2}}, {Pos: []uint32{1, 4}, Neg: []uint32{2}}, sum.Vector(), sum.Vector(),
	} {
		if v := sum.Thin(n); !v.Equal(want) {
			t.Errorf("thinned to %d: %v, want %v", n, v, want)
		}
	}
	sum.Add(a, -2)
	sum.Add(b, 1)
	if v := sum.Vector(); sum.Len() != 0 || v.Len() != 0 {
		t.Errorf("taken away again: %v", v)
	}
	for _, c := range []struct{ a, b, want int64 }{
		{math.MaxInt64, 1, math.MaxInt64}, {math.MinInt64, -1, math.MinInt64}, {math.MaxInt64, -1, math.MaxInt64 - 1}, {-3, 3, 0},
	} {
		if got := add(c.a, c.b); got != c.want {
			t.Errorf("%d + %d = %d", c.a, c.b, got)
		}
	}
}

func TestDotAndSimilarity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := vectors().Draw(t, "a"), vectors().Draw(t, "b")
		signs := map[uint32]int64{}
		a.each(func(d uint32, sign int64) { signs[d] = sign })
		want := int64(0)
		b.each(func(d uint32, sign int64) { want += sign * signs[d] })
		if got := Dot(a, b); int64(got) != want || Dot(b, a) != got || Dot(a, b.Negate()) != -got {
			t.Fatalf("dot %d, want %d", got, want)
		}
		s := Similarity(a, b)
		if math.IsNaN(s) || s < -1.0000001 || s > 1.0000001 {
			t.Fatalf("similarity %v", s)
		}
		if own := Similarity(a, a); a.Len() > 0 && math.Abs(own-1) > 1e-9 || a.Len() == 0 && own != 0 {
			t.Fatalf("similarity with itself %v", own)
		}
	})
}

// TestBindIsBlockwiseConvolution compares with the definition.
func TestBindIsBlockwiseConvolution(t *testing.T) {
	for _, s := range []Space{{3, 5}, {1, 64}, {8, 1}, {2, 40}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				a, b := in(s).Draw(t, "a"), in(s).Draw(t, "b")
				x, y, sum := dense(a, int(s.Dims())), dense(b, int(s.Dims())), make([]int64, s.Dims())
				l := int(s.Length)
				for block := 0; block < int(s.Dims()); block += l {
					for i := range l {
						for j := range l {
							sum[block+(i+j)%l] += x[block+i] * y[block+j]
						}
					}
				}
				got, err := s.Bind(a, b)
				if err != nil || got.Validate() != nil || !got.Equal(sparse(sum)) {
					t.Fatalf("%v, %v, want %v", got, err, sparse(sum))
				}
				if turned, _ := s.Bind(b, a); !turned.Equal(got) {
					t.Fatalf("not commutative: %v and %v", got, turned)
				}
			})
		})
	}
}

// TestUnbindOfACodeIsExact: whatever the vector, and however many are bound in turn.
func TestUnbindOfACodeIsExact(t *testing.T) {
	s := Space{Blocks: 6, Length: 7}
	rapid.Check(t, func(t *rapid.T) {
		v := in(s).Draw(t, "v")
		a, b := s.Code(rapid.Uint64().Draw(t, "a")), s.Code(rapid.Uint64().Draw(t, "b"))
		bound, _ := s.Bind(v, a)
		if back, err := s.Unbind(bound, a); err != nil || !back.Equal(v) {
			t.Fatalf("%v, %v, want %v", back, err, v)
		}
		if bound.Len() != v.Len() {
			t.Fatalf("%d dimensions became %d", v.Len(), bound.Len())
		}
		both, _ := s.Bind(bound, b)
		pair, _ := s.Bind(a, b)
		if back, _ := s.Unbind(both, pair); !back.Equal(v) {
			t.Fatalf("bound twice: %v, want %v", back, v)
		}
		w := in(s).Draw(t, "w")
		other, _ := s.Bind(w, a)
		of, _ := s.Bind(Bundle(v, w), a)
		if sum := Bundle(bound, other); !sum.Equal(of) || Dot(bound, other) != Dot(v, w) {
			t.Fatalf("does not distribute, or changes similarities")
		}
	})
}

// TestStatisticsOfBinding is seeded; the bounds are five standard deviations and more.
func TestStatisticsOfBinding(t *testing.T) {
	sigma := 1 / math.Sqrt(float64(usual.Dims()))
	var sum, squares, worst float64
	const pairs = 2000
	for i := range uint64(pairs) {
		a, b := usual.Code(2*i), usual.Code(2*i+1)
		bound, err := usual.Bind(a, b)
		if err != nil {
			t.Fatal(err)
		}
		s := Similarity(a, b)
		sum, squares = sum+s, squares+s*s
		worst = max(worst, math.Abs(s), math.Abs(Similarity(bound, a)), math.Abs(Similarity(bound, b)))
	}
	mean, deviation := sum/pairs, math.Sqrt(squares/pairs)
	t.Logf("similarity of %d pairs of codes: mean %.5f, deviation %.5f, 1/sqrt(dims) is %.5f; the largest %.4f", pairs, mean, deviation, sigma, worst)
	if math.Abs(mean) > 5*sigma/math.Sqrt(pairs) || math.Abs(deviation-sigma) > sigma/5 || worst > 6*sigma {
		t.Errorf("codes are not as orthogonal as they should be")
	}

	for _, n := range []int{2, 8, 32, 64} {
		var memory Accumulator
		for i := range uint64(n) {
			bound, _ := usual.Bind(usual.Code(1000+i), usual.Code(2000+i))
			memory.Add(bound, 1)
		}
		stored := memory.Vector()
		least, noise := 1.0, 0.0
		for i := range uint64(n) {
			v, err := usual.Unbind(stored, usual.Code(1000+i))
			if err != nil {
				t.Fatal(err)
			}
			least = min(least, Similarity(v, usual.Code(2000+i)))
			noise = max(noise, math.Abs(Similarity(v, usual.Code(9000+i))))
		}
		want := 0.75 / math.Sqrt(float64(n)) // 1/sqrt(n), less what falls together
		t.Logf("%2d pairs in one vector of %d: recalled with similarity %.3f at least, others up to %.3f", n, stored.Len(), least, noise)
		if least < want || noise > 6*sigma || least < 2*noise {
			t.Errorf("%d pairs: recall %.3f, want %.3f; noise %.3f", n, least, want, noise)
		}
	}
}

// TestUnbindOfABundleIsApproximate: two records of many dimensions a block.
func TestUnbindOfABundleIsApproximate(t *testing.T) {
	record := func(seed uint64) SparseVec {
		var vs []SparseVec
		for role := range uint64(3) {
			v, _ := usual.Bind(usual.Code(role), usual.Code(seed+role))
			vs = append(vs, v)
		}
		return Bundle(vs...)
	}
	a, b := record(100), record(200)
	turn, err := usual.Unbind(b, a) // what turns the fillers of a into those of b
	if err != nil {
		t.Fatal(err)
	}
	for role := range uint64(3) {
		v, _ := usual.Bind(turn, usual.Code(100+role))
		right, wrong := Similarity(v, usual.Code(200+role)), math.Abs(Similarity(v, usual.Code(200+(role+1)%3)))
		t.Logf("role %d: %.3f, another filler %.3f", role, right, wrong)
		if right < 0.2 || wrong > 0.06 {
			t.Errorf("role %d: %.3f, another filler %.3f", role, right, wrong)
		}
	}
}

func TestPermute(t *testing.T) {
	s := Space{Blocks: 5, Length: 3}
	rapid.Check(t, func(t *rapid.T) {
		v, by := in(s).Draw(t, "v"), rapid.IntRange(-20, 20).Draw(t, "by")
		a, want := dense(v, 15), make([]int64, 15)
		for d, n := range a {
			want[((d+3*by)%15+15)%15] = n
		}
		got, err := s.Permute(v, by)
		if err != nil || got.Validate() != nil || !got.Equal(sparse(want)) {
			t.Fatalf("%v, %v, want %v", got, err, sparse(want))
		}
		if single, err := Permute(v, 15, int64(3*by)); err != nil || !single.Equal(got) {
			t.Fatalf("by dimensions: %v, %v", single, err)
		}
		if back, _ := s.Permute(got, -by); !back.Equal(v) {
			t.Fatalf("back: %v, want %v", back, v)
		}
	})
	c := usual.Code(7)
	if p, _ := usual.Permute(c, 1); math.Abs(Similarity(c, p)) > 0.05 {
		t.Errorf("a code and its permutation: %v", Similarity(c, p))
	}
	if v, err := Permute(SparseVec{Pos: []uint32{0, math.MaxUint32 - 1}}, math.MaxUint32, math.MinInt64); err != nil || v.Validate() != nil || v.Len() != 2 {
		t.Errorf("%v, %v", v, err)
	}
}

func TestRandomAndCode(t *testing.T) {
	for _, c := range []struct {
		dims    uint32
		density float64
		want    int
	}{{0, 1, 0}, {1, 1, 1}, {1000, 0, 0}, {1000, -3, 0}, {1000, math.NaN(), 0}, {1000, math.Inf(1), 1000}, {1000, 0.1, 100}, {1000, 7, 1000}, {math.MaxUint32, 1e-6, 4294}} {
		v := Random(5, c.dims, c.density)
		if v.Len() != c.want || v.Validate() != nil || v.inside(uint64(c.dims)) != nil {
			t.Errorf("%d dimensions, density %v: %d, %v", c.dims, c.density, v.Len(), v.Validate())
		}
		if again := Random(5, c.dims, c.density); !again.Equal(v) {
			t.Error("the same seed gave another vector")
		}
	}
	v := Random(5, 100_000, 0.5)
	if balance := math.Abs(float64(len(v.Pos)-len(v.Neg))) / math.Sqrt(50_000); balance > 5 {
		t.Errorf("%d positive and %d negative", len(v.Pos), len(v.Neg))
	}
	c := usual.Code(1)
	for b := range usual.Blocks {
		n := 0
		c.each(func(d uint32, _ int64) {
			if d/usual.Length == b {
				n++
			}
		})
		if n != 1 {
			t.Errorf("block %d of a code has %d dimensions", b, n)
		}
	}
	// What other processes have stored depends on these.
	small := Space{Blocks: 4, Length: 8}
	for name, got := range map[string]SparseVec{"code": small.Code(1), "named": small.Named("dollar"), "random": Random(1, 32, 0.2)} {
		if want := golden[name]; !got.Equal(want) {
			t.Errorf("%s is %v, was %v", name, got, want)
		}
	}
}

// golden is what was stored once.
var golden = map[string]SparseVec{
	"code":   {Pos: []uint32{26}, Neg: []uint32{4, 10, 21}},
	"named":  {Pos: []uint32{18, 28}, Neg: []uint32{1, 12}},
	"random": {Pos: []uint32{10, 22}, Neg: []uint32{7, 14, 17, 20}},
}

func TestSpaceRefuses(t *testing.T) {
	for _, s := range []Space{{}, {1, 0}, {0, 1}, {1 << 17, 1 << 16}} {
		_, bind := s.Bind(SparseVec{}, SparseVec{})
		_, unbind := s.Unbind(SparseVec{}, SparseVec{})
		_, permute := s.Permute(SparseVec{}, 1)
		for what, err := range map[string]error{"validate": s.Validate(), "bind": bind, "unbind": unbind, "permute": permute} {
			if !errors.Is(err, ErrSpace) {
				t.Errorf("%v: %s gave %v, want ErrSpace", s, what, err)
			}
		}
	}
	s, out := Space{Blocks: 2, Length: 4}, SparseVec{Neg: []uint32{8}}
	_, bind := s.Bind(SparseVec{}, out)
	_, unbind := s.Unbind(out, SparseVec{})
	_, permute := s.Permute(out, 1)
	_, single := Permute(out, 8, 1)
	for what, err := range map[string]error{"bind": bind, "unbind": unbind, "permute": permute, "permute by one": single} {
		if !errors.Is(err, ErrDimension) {
			t.Errorf("%s gave %v, want ErrDimension", what, err)
		}
	}
	if err := (Space{Blocks: 1 << 16, Length: 1 << 16}).Validate(); err != nil {
		t.Errorf("the largest space: %v", err)
	}
}

func TestItems(t *testing.T) {
	var items Items
	for i, name := range []string{"a", "b", "a again"} {
		items.Add(name, usual.Code(uint64(i%2)))
	}
	got := items.Nearest(Bundle(usual.Code(0), usual.Code(0).Negate(), usual.Code(0)), 2)
	if items.Len() != 3 || len(got) != 2 || got[0] != (Match{"a", 1}) || got[1] != (Match{"a again", 1}) {
		t.Errorf("%v", got)
	}
	if got := items.Nearest(SparseVec{}, 9); len(got) != 3 || got[0].Similarity != 0 {
		t.Errorf("%v", got)
	}
	if got := items.Nearest(SparseVec{}, -1); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
