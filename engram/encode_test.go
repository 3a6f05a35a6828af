package engram

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	_ encoding.BinaryMarshaler   = SparseVec{}
	_ encoding.BinaryUnmarshaler = (*SparseVec)(nil)
)

// words is the encoding of numbers.
func words(numbers ...uint32) []byte {
	var p []byte
	for _, n := range numbers {
		p = binary.LittleEndian.AppendUint32(p, n)
	}
	return p
}

func TestEncoding(t *testing.T) {
	for _, c := range []struct {
		v    SparseVec
		want []byte
	}{
		{SparseVec{}, []byte{0, 0, 0, 0, 0, 0, 0, 0}},
		{SparseVec{Pos: []uint32{1, 0x01020304}, Neg: []uint32{7}},
			[]byte{2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 3, 2, 1, 7, 0, 0, 0}},
		{SparseVec{Neg: []uint32{0, math.MaxUint32}}, words(0, 2, 0, math.MaxUint32)},
	} {
		p, err := c.v.Append([]byte("before"))
		if err != nil || string(p) != "before"+string(c.want) || c.v.EncodedSize() != len(c.want) {
			t.Errorf("%v: % x, %v; want % x", c.v, p, err, c.want)
		}
		var back SparseVec
		if err := back.UnmarshalBinary(c.want); err != nil || !back.Equal(c.v) {
			t.Errorf("% x: %v, %v; want %v", c.want, back, err, c.v)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		p    []byte
		want error
	}{
		{"nothing", nil, ErrTruncated},
		{"half the counts", make([]byte, 7), ErrTruncated},
		{"a dimension is missing", words(2, 0, 1), ErrTruncated},
		{"half a dimension is missing", words(1, 1, 1, 2)[:14], ErrTruncated},
		{"a byte behind", append(words(1, 0, 1), 0), ErrTrailing},
		{"a dimension behind", words(0, 1, 1, 2), ErrTrailing},
		{"more than there can be", words(MaxNonZero, 1), ErrOverflow},
		{"counts whose sum does not fit 32 bits", words(math.MaxUint32, 9, 1, 2, 3, 4, 5, 6, 7, 8), ErrOverflow},
		{"counts whose size does not fit 32 bits", words(1<<30, 0), ErrOverflow},
		{"descending positive", words(2, 0, 5, 4), ErrUnsorted},
		{"descending negative", words(1, 2, 9, 5, 4), ErrUnsorted},
		{"twice positive", words(2, 0, 5, 5), ErrDuplicate},
		{"twice negative", words(0, 3, 1, 5, 5), ErrDuplicate},
		{"both signs", words(2, 2, 1, 5, 3, 5), ErrBothSigns},
	} {
		v, err := Decode(c.p)
		if !errors.Is(err, c.want) || v.Len() != 0 {
			t.Errorf("%s: %v, %v; want %v", c.name, v, err, c.want)
		}
		for _, other := range []error{ErrTruncated, ErrTrailing, ErrOverflow, ErrUnsorted, ErrDuplicate, ErrBothSigns} {
			if other != c.want && errors.Is(err, other) {
				t.Errorf("%s: %v is %v too", c.name, err, other)
			}
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	for _, c := range []struct {
		v    SparseVec
		want error
	}{
		{SparseVec{Pos: []uint32{2, 1}}, ErrUnsorted},
		{SparseVec{Neg: []uint32{2, 2}}, ErrDuplicate},
		{SparseVec{Pos: []uint32{1, 2}, Neg: []uint32{2}}, ErrBothSigns},
		{SparseVec{Pos: make([]uint32, MaxNonZero), Neg: []uint32{1}}, ErrOverflow},
	} {
		p := []byte("before")
		got, err := c.v.Append(p)
		if !errors.Is(err, c.want) || string(got) != "before" {
			t.Errorf("append gave %d bytes, %v; want %v", len(got), err, c.want)
		}
		if got, err := c.v.Marshal(); !errors.Is(err, c.want) || got != nil {
			t.Errorf("marshal gave %v; want %v", err, c.want)
		}
		if err := c.v.Validate(); !errors.Is(err, c.want) {
			t.Errorf("validate gave %v; want %v", err, c.want)
		}
		if _, err := FromVector(c.v); !errors.Is(err, c.want) {
			t.Errorf("an engram of it gave %v; want %v", err, c.want)
		}
	}
}

// TestDecodeOwnsItsMemory: neither the bytes nor the other list can be reached.
func TestDecodeOwnsItsMemory(t *testing.T) {
	p := words(1, 1, 3, 4)
	v, err := Decode(p)
	if err != nil {
		t.Fatal(err)
	}
	clear(p)
	_ = append(v.Pos, 99)
	if !v.Equal(SparseVec{Pos: []uint32{3}, Neg: []uint32{4}}) {
		t.Errorf("the vector is %v", v)
	}
}

// vectors draws any valid vector, small dimensions and large ones.
func vectors() *rapid.Generator[SparseVec] {
	return rapid.Custom(func(t *rapid.T) SparseVec {
		dim := rapid.OneOf(rapid.Uint32Range(0, 40), rapid.Uint32())
		return ofSigns(rapid.MapOfN(dim, rapid.Bool(), 0, 60).Draw(t, "signs"))
	})
}

func TestEncodingRoundTripProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := vectors().Draw(t, "v")
		p, err := v.Marshal()
		if err != nil || len(p) != v.EncodedSize() {
			t.Fatalf("%d bytes, %v", len(p), err)
		}
		back, err := Decode(p)
		if err != nil || !back.Equal(v) {
			t.Fatalf("%v, %v", back, err)
		}
		if n := rapid.IntRange(0, len(p)-1).Draw(t, "cut"); n < len(p) {
			if _, err := Decode(p[:n]); !errors.Is(err, ErrTruncated) {
				t.Fatalf("the first %d of %d bytes: %v", n, len(p), err)
			}
		}
		if _, err := Decode(append(p, 0)); !errors.Is(err, ErrTrailing) {
			t.Fatalf("a byte behind: %v", err)
		}
	})
}

// TestRoundTripOfManyVectors is a hundredth of a million vectors, and all of them with
// CAIRN_LONG=1.
func TestRoundTripOfManyVectors(t *testing.T) {
	count := 10_000
	if os.Getenv("CAIRN_LONG") == "1" {
		count = 1_000_000
	}
	began, random := time.Now(), rand.New(rand.NewPCG(1, 2))
	var bytesIn, dims int
	var p, again []byte
	for i := range count {
		v := Random(random.Uint64(), 1+random.Uint32N(1<<random.UintN(13)), random.Float64()*random.Float64())
		var err error
		if p, err = v.Append(p[:0]); err != nil {
			t.Fatalf("vector %d: %v", i, err)
		}
		back, err := Decode(p)
		if err != nil || !back.Equal(v) {
			t.Fatalf("vector %d: %v", i, err)
		}
		if again, err = back.Append(again[:0]); err != nil || !bytes.Equal(again, p) {
			t.Fatalf("vector %d: encoded again: %v", i, err)
		}
		bytesIn, dims = bytesIn+len(p), dims+v.Len()
	}
	t.Logf("%d vectors of %d dimensions that are not zero, %d bytes, in %v", count, dims, bytesIn, time.Since(began).Round(time.Millisecond))
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(words(0, 0))
	f.Add(words(2, 1, 1, 9, 5))
	f.Add(words(math.MaxUint32, math.MaxUint32, 1))
	f.Add(words(2, 0, 9, 1))
	f.Add(words(1, 1, 5, 5))
	f.Fuzz(func(t *testing.T, p []byte) {
		v, err := Decode(p)
		// Counts that announce more than there is must not be believed; the fuzzer's own
		// goroutines allocate as well.
		if len(p) >= headerSize {
			if claim := uint64(binary.LittleEndian.Uint32(p)) + uint64(binary.LittleEndian.Uint32(p[4:])); claim > uint64(len(p))+4<<20 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, _ = Decode(p)
				runtime.ReadMemStats(&after)
				if grown := after.TotalAlloc - before.TotalAlloc; grown > uint64(4*len(p))+4<<20 {
					t.Errorf("%d bytes made it allocate %d", len(p), grown)
				}
			}
		}
		if err != nil {
			return
		}
		if err := v.Validate(); err != nil {
			t.Fatalf("% x gave a vector that is not valid: %v", p, err)
		}
		q, err := v.Marshal()
		if err != nil || !bytes.Equal(p, q) {
			t.Fatalf("% x is encoded again as % x, %v", p, q, err)
		}
	})
}
