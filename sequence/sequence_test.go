package sequence

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"cairn/block"
)

func count(from, to uint32) []uint32 {
	var out []uint32
	for t := from; t <= to; t++ {
		out = append(out, t)
	}
	return out
}

// flaky fails at one position: an error in the middle of a call.
type flaky struct{ failAt int }

var errFlaky = errors.New("flaky")

func (f flaky) AppendKeys(keys []block.Key, _ Salt, blockSize int, tokens []uint32) ([]block.Key, error) {
	before := len(keys)
	for range len(tokens) / blockSize {
		if len(keys) == f.failAt {
			return keys[:before], errFlaky
		}
		keys = append(keys, block.Key{2: byte(len(keys))})
	}
	return keys, nil
}

func TestExtendErrorsLeaveTheSequenceAsItWas(t *testing.T) {
	s, err := New(2, Salt{}, flaky{failAt: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Extend(count(1, 3)); err != nil {
		t.Fatal(err)
	}
	var ee *ExtensionError
	if r, err := s.Extend(count(4, 20)); !errors.Is(err, errFlaky) || !errors.Is(err, ErrExtension) || r != (Range{1, 1}) {
		t.Errorf("got %v, %v", r, err)
	} else if !errors.As(err, &ee) || ee.Cause != errFlaky {
		t.Errorf("the error is %#v", err)
	}
	if s.Len() != 3 || s.Blocks() != 1 || !slices.Equal(s.Partial(), []uint32{3}) {
		t.Errorf("after the error: %d tokens, %d blocks, partial %v", s.Len(), s.Blocks(), s.Partial())
	}

	// Reserved and never touched, so the pages of this slice cost nothing.
	tooMany := make([]uint32, block.MaxPosition+2)
	one, _ := New(1, Salt{}, nil)
	if _, err := one.Append(1); err != nil {
		t.Fatal(err)
	}
	for _, tokens := range [][]uint32{tooMany, tooMany[1:]} {
		r, err := one.Extend(tokens)
		var pe *PositionError
		if !errors.As(err, &pe) || !errors.Is(err, block.ErrPosition) || r != (Range{1, 1}) || one.Len() != 1 {
			t.Errorf("%d blocks too many: %v, %v, %d tokens", len(tokens)-block.MaxPosition, r, err, one.Len())
		}
	}
	if _, err := KeysOf(nil, Salt{}, 1, tooMany); !errors.Is(err, block.ErrPosition) {
		t.Errorf("KeysOf: %v", err)
	}
}

func TestBlockSizeIsValidated(t *testing.T) {
	for _, size := range []int{-1, 0, MaxBlockSize + 1} {
		if _, err := New(size, Salt{}, nil); !errors.Is(err, ErrBlockSize) {
			t.Errorf("New(%d) = %v", size, err)
		}
		if _, err := KeysOf(nil, Salt{}, size, nil); !errors.Is(err, ErrBlockSize) {
			t.Errorf("KeysOf(%d) = %v", size, err)
		}
	}
}

func TestExtendRanges(t *testing.T) {
	s, _ := New(4, Salt{}, nil)
	for _, step := range []struct {
		add     int
		want    Range
		partial int
	}{
		{0, Range{0, 0}, 0}, {3, Range{0, 0}, 3}, {1, Range{0, 1}, 0}, {4, Range{1, 2}, 0},
		{13, Range{2, 5}, 1}, {2, Range{5, 5}, 3}, {1, Range{5, 6}, 0},
	} {
		r, err := s.Extend(make([]uint32, step.add))
		if err != nil || r != step.want || len(s.Partial()) != step.partial {
			t.Errorf("extend by %d: %v, partial %d, %v; want %v, %d", step.add, r, len(s.Partial()), err, step.want, step.partial)
		}
	}
}

func TestTruncateUnwindReset(t *testing.T) {
	fresh := func() *TokenSequence {
		s, _ := New(4, Salt{}, nil)
		if _, err := s.Extend(count(1, 10)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name           string
		do             func(*TokenSequence) error
		err            bool
		length, blocks int
		partial        []uint32
	}{
		{"truncate beyond", func(s *TokenSequence) error { return s.Truncate(11) }, false, 10, 2, []uint32{9, 10}},
		{"truncate to length", func(s *TokenSequence) error { return s.Truncate(10) }, false, 10, 2, []uint32{9, 10}},
		{"truncate the partial block", func(s *TokenSequence) error { return s.Truncate(8) }, false, 8, 2, nil},
		{"truncate inside a block", func(s *TokenSequence) error { return s.Truncate(6) }, false, 6, 1, []uint32{5, 6}},
		{"truncate to nothing", func(s *TokenSequence) error { return s.Truncate(0) }, false, 0, 0, nil},
		{"truncate negative", func(s *TokenSequence) error { return s.Truncate(-1) }, true, 10, 2, []uint32{9, 10}},
		{"unwind none", func(s *TokenSequence) error { return s.Unwind(0) }, false, 10, 2, []uint32{9, 10}},
		{"unwind into a block", func(s *TokenSequence) error { return s.Unwind(3) }, false, 7, 1, []uint32{5, 6, 7}},
		{"unwind all", func(s *TokenSequence) error { return s.Unwind(10) }, false, 0, 0, nil},
		{"unwind too many", func(s *TokenSequence) error { return s.Unwind(11) }, true, 10, 2, []uint32{9, 10}},
		{"unwind negative", func(s *TokenSequence) error { return s.Unwind(-1) }, true, 10, 2, []uint32{9, 10}},
		{"reset", func(s *TokenSequence) error { s.Reset(); return nil }, false, 0, 0, nil},
	} {
		s := fresh()
		err := c.do(s)
		var le *LengthError
		if (err != nil) != c.err || c.err && (!errors.Is(err, ErrLength) || !errors.As(err, &le) || le.Length != 10) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if s.Len() != c.length || s.Blocks() != c.blocks || !slices.Equal(s.Partial(), c.partial) {
			t.Errorf("%s: %d tokens, %d blocks, partial %v", c.name, s.Len(), s.Blocks(), s.Partial())
		}
	}
}

func TestTokensAt(t *testing.T) {
	s, _ := New(4, Salt{}, nil)
	if _, err := s.Extend(count(1, 10)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    Range
		want []uint32
	}{
		{Range{0, 10}, count(1, 10)}, {Range{2, 5}, count(3, 5)}, {Range{9, 10}, []uint32{10}},
		{Range{3, 3}, nil}, {Range{5, 4}, nil}, {Range{-1, 4}, nil}, {Range{8, 11}, nil},
		{s.BlockTokens(Range{1, 2}), count(5, 8)},
	} {
		if got := s.TokensAt(c.r); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.r, got, c.want)
		}
	}
	// What a caller appends to a view must not reach the sequence.
	_ = append(s.TokensAt(Range{0, 2}), 99)
	if s.Tokens()[2] != 3 {
		t.Error("an append to a view wrote into the sequence")
	}
}

func TestSaltsDiffer(t *testing.T) {
	base := Namespace{Tenant: "ab", Model: "m", Tokenizer: "t", BlockSize: 16, DType: "bf16", Layout: "l", Generation: 1}
	variants := []Namespace{base}
	for _, change := range []func(*Namespace){
		func(n *Namespace) { n.Tenant = "a"; n.Model = "bm" },
		func(n *Namespace) { n.Tenant = "" },
		func(n *Namespace) { n.Model = "m2" },
		func(n *Namespace) { n.Tokenizer = ""; n.DType = "tbf16" },
		func(n *Namespace) { n.BlockSize = 32 },
		func(n *Namespace) { n.Layout = "" },
		func(n *Namespace) { n.Generation = 2 },
		func(n *Namespace) { n.BlockSize = 1; n.Generation = 16 },
	} {
		v := base
		change(&v)
		variants = append(variants, v)
	}
	seen := map[Salt]Namespace{}
	for _, n := range variants {
		s, err := n.Salt()
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := seen[s]; ok {
			t.Errorf("%+v and %+v share a salt", n, o)
		}
		seen[s] = n
	}
}

func TestNamespaceReportsEveryProblem(t *testing.T) {
	_, err := Namespace{Tenant: strings.Repeat("x", MaxFieldLength+1)}.Salt()
	if !errors.Is(err, ErrNamespace) || !errors.Is(err, ErrBlockSize) {
		t.Fatalf("got %v", err)
	}
	for _, word := range []string{"model", "block size", "tenant"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not mention %s", err, word)
		}
	}
}

// FuzzSequence drives a sequence by a program of operations and compares it with
// a recomputation from the tokens that it should hold.
func FuzzSequence(f *testing.F) {
	f.Add(byte(4), []byte{0, 9, 1, 7, 2, 5, 3, 2, 0, 30, 1, 1, 4, 0, 0, 6})
	f.Add(byte(1), []byte{0, 3, 2, 0, 0, 1})
	f.Add(byte(16), []byte{0, 255, 2, 100, 3, 50, 1, 8, 0, 200})
	f.Fuzz(func(t *testing.T, size byte, program []byte) {
		blockSize := int(size%32) + 1
		salt := Salt{size}
		s, err := New(blockSize, salt, nil)
		if err != nil {
			t.Fatal(err)
		}
		var want []uint32
		next := uint32(0)
		fresh := func(n int) []uint32 {
			out := make([]uint32, n)
			for i := range out {
				next++
				out[i] = next
			}
			return out
		}
		for ; len(program) >= 2; program = program[2:] {
			arg := int(program[1])
			before := len(want) / blockSize
			switch program[0] % 5 {
			case 0:
				tokens := fresh(arg)
				want = append(want, tokens...)
				r, err := s.Extend(tokens)
				if err != nil || r != (Range{before, len(want) / blockSize}) {
					t.Fatalf("extend: %v, %v", r, err)
				}
			case 1:
				token := fresh(1)[0]
				want = append(want, token)
				r, err := s.Append(token)
				if err != nil || r != (Range{before, len(want) / blockSize}) {
					t.Fatalf("append: %v, %v", r, err)
				}
			case 2:
				if err := s.Truncate(arg); err != nil {
					t.Fatal(err)
				}
				want = want[:min(arg, len(want))]
			case 3:
				if err := s.Unwind(arg); (err != nil) != (arg > len(want)) {
					t.Fatalf("unwind %d of %d: %v", arg, len(want), err)
				} else if err == nil {
					want = want[:len(want)-arg]
				}
			case 4:
				s.Reset()
				want = want[:0]
			}
			keys, err := KeysOf(nil, salt, blockSize, want)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.Tokens(), want) || !slices.Equal(s.Keys(), keys) {
				t.Fatalf("%d tokens, %d keys; recomputed %d, %d", s.Len(), s.Blocks(), len(want), len(keys))
			}
			if !slices.Equal(s.Partial(), want[len(keys)*blockSize:]) {
				t.Fatalf("partial %v", s.Partial())
			}
		}
	})
}
