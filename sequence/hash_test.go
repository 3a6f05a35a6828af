package sequence

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/xxh3"

	"cairn/block"
)

// The values are those of ai-dynamo/dynamo for tokens 1…12, blocks of four,
// salt 1337.
func TestXXH3Golden(t *testing.T) {
	tokens := count(1, 12)
	for i, want := range []uint64{14643705804678351452, 16777012769546811212, 483935686894639516} {
		if got := BlockHash(1337, tokens[4*i:4*i+4]); got != want {
			t.Errorf("block hash %d is %d, want %d", i, got, want)
		}
	}
	keys, err := KeysOf(XXH3{}, SeedSalt(1337), 4, tokens)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint64{14643705804678351452, 4945711292740353085, 12583592247330656132} {
		if got := SequenceHash(keys[i]); got != want {
			t.Errorf("sequence hash %d is %d, want %d", i, got, want)
		}
		if keys[i].Position() != i || [5]byte(keys[i][11:]) != [5]byte{} {
			t.Errorf("key %d is %s: want position %d and zero padding", i, keys[i], i)
		}
	}
}

func TestXXH3IsItsDefinition(t *testing.T) {
	const seed = 99
	for _, size := range []int{1, 4, 15, 16, 255, 256, 257, 1000} {
		tokens := count(7, uint32(3*size+6))
		keys, err := KeysOf(XXH3{}, SeedSalt(seed), size, tokens)
		if err != nil || len(keys) != 3 {
			t.Fatal(keys, err)
		}
		var chained uint64
		for i, key := range keys {
			var p []byte
			for _, token := range tokens[i*size : (i+1)*size] {
				p = binary.LittleEndian.AppendUint32(p, token)
			}
			h := xxh3.HashSeed(p, seed)
			if got := BlockHash(seed, tokens[i*size:(i+1)*size]); got != h {
				t.Errorf("blocks of %d tokens: block hash %d is %d, want %d", size, i, got, h)
			}
			if i > 0 {
				h = xxh3.HashSeed(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, chained), h), seed)
			}
			chained = h
			if SequenceHash(key) != h {
				t.Errorf("blocks of %d tokens: sequence hash %d is %d, want %d", size, i, SequenceHash(key), h)
			}
		}
	}
}

// reference is the definition of a SHA-256 key, written without regard to speed.
func reference(parent block.Key, salt Salt, position int, tokens []uint32) block.Key {
	p := append(slices.Clone(parent[:]), salt[:]...)
	for _, t := range tokens {
		p = binary.LittleEndian.AppendUint32(p, t)
	}
	sum := sha256.Sum256(p)
	k, _ := block.NewKey(position, [block.HashSize]byte(sum[:]))
	return k
}

func TestSHA256IsItsDefinition(t *testing.T) {
	salt := Salt{1, 2, 3}
	for _, size := range []int{1, 4, 15, 16, 31, 32, 33, 64, 255, 256, 257, 512, 1000} {
		parent := block.Key{7, 8, 9}
		tokens := make([]uint32, size)
		for i := range tokens {
			tokens[i] = uint32(i) * 2654435761
		}
		before := []block.Key{{}, {}, parent}
		want := append(before, reference(parent, salt, 3, tokens))
		for name, appendKeys := range map[string]func() ([]block.Key, error){
			"AppendKeys": func() ([]block.Key, error) { return SHA256{}.AppendKeys(before, salt, size, tokens) },
			"streamed":   func() ([]block.Key, error) { return appendStreamed(before, &salt, size, tokens) },
		} {
			got, err := appendKeys()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d tokens, %s: %s, want %s", size, name, got, want)
			}
		}
	}
}

// The fast path depends on an encoding of crypto/sha256; a release of Go that
// changes it must be noticed.
func TestSHA256StateIsReadable(t *testing.T) {
	if _, ok := appendPadded(nil, &Salt{}, 4, count(1, 4)); !ok {
		t.Error("crypto/sha256 has another encoding of its state: hashing is correct, but slow")
	}
}

// Keys are stored on disks and exchanged between versions: they must not change.
func TestSHA256Golden(t *testing.T) {
	salt, err := Namespace{Tenant: "t", Model: "m", BlockSize: 4}.Salt()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := salt.String(), goldenSalt; got != want {
		t.Errorf("salt is %s, want %s", got, want)
	}
	keys, err := KeysOf(nil, salt, 4, count(1, 8))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range keys {
		got = append(got, k.String())
	}
	if diff := cmp.Diff(goldenKeys, got); diff != "" {
		t.Error(diff)
	}
}

func TestPositionOverflow(t *testing.T) {
	if err := checkPosition(block.MaxPosition); err != nil {
		t.Errorf("the last position: %v", err)
	}
	// Reserved and never touched, so the pages of this slice cost nothing.
	tooMany := make([]uint32, block.MaxPosition+2)
	for _, h := range []Hasher{SHA256{}, XXH3{}} {
		for have, tokens := range [][]uint32{tooMany, tooMany[1:]} {
			keys, err := h.AppendKeys(make([]block.Key, have), Salt{}, 1, tokens)
			var pe *PositionError
			if !errors.Is(err, block.ErrPosition) || !errors.As(err, &pe) || pe.Position != block.MaxPosition+1 || len(keys) != have {
				t.Errorf("%T: %d keys and %d more: %d, %v", h, have, len(tokens), len(keys), err)
			}
		}
	}
}

func TestHashersCheckTheBlockSize(t *testing.T) {
	for _, h := range []Hasher{SHA256{}, XXH3{}} {
		for _, size := range []int{-1, 0, MaxBlockSize + 1} {
			keys, err := h.AppendKeys(make([]block.Key, 1), Salt{}, size, count(1, 4))
			if !errors.Is(err, ErrBlockSize) || len(keys) != 1 {
				t.Errorf("%T: size %d: %d keys, %v", h, size, len(keys), err)
			}
		}
	}
}
