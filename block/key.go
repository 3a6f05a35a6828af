package block

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// KeySize is the length of a [Key] in bytes.
const KeySize = 16

// HashSize is the length of the hash part of a [Key] in bytes.
const HashSize = 13

const (
	// NamedPosition is the position of a block that is named by a string.
	NamedPosition = 1<<24 - 1
	// MaxPosition is the largest position a block of a sequence may have.
	MaxPosition = NamedPosition - 1
)

// ErrPosition reports a position outside 0…[MaxPosition].
var ErrPosition = errors.New("block: position out of range")

// ErrSyntax reports text that is not a key in hexadecimal.
var ErrSyntax = errors.New("block: not a key: want 32 hexadecimal digits")

// Key names one immutable object. The zero Key names nothing; it stands for
// "no parent" in a [Descriptor].
type Key [KeySize]byte

// NewKey packs the position of a block in its sequence and the first 13 bytes
// of its hash. It fails with [ErrPosition] when position exceeds [MaxPosition].
func NewKey(position int, hash [HashSize]byte) (Key, error) {
	if position < 0 || position > MaxPosition {
		return Key{}, fmt.Errorf("%w: %d, at most %d", ErrPosition, position, MaxPosition)
	}
	return pack(uint32(position), hash), nil
}

// NamedKey is the key of version number version of the block called name in
// namespace. Versions start at 1; version 0 stands for the name itself, whatever
// its version. Two different names, or two versions of one, never share a key,
// up to collisions of SHA-256 cut to 104 bits.
func NamedKey(namespace string, name []byte, version uint64) Key {
	h := sha256.New()
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(namespace)))
	h.Write(n[:])
	h.Write([]byte(namespace))
	binary.LittleEndian.PutUint64(n[:], version)
	h.Write(n[:])
	h.Write(name)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return pack(NamedPosition, [HashSize]byte(sum[:HashSize]))
}

func pack(position uint32, hash [HashSize]byte) Key {
	var k Key
	k[0], k[1], k[2] = byte(position>>16), byte(position>>8), byte(position)
	copy(k[3:], hash[:])
	return k
}

// ParseKey reads the 32 hexadecimal digits that [Key.String] writes.
func ParseKey(s string) (Key, error) {
	var k Key
	if len(s) != 2*KeySize {
		return Key{}, fmt.Errorf("%w: got %q", ErrSyntax, clip(s))
	}
	if _, err := hex.Decode(k[:], []byte(s)); err != nil {
		return Key{}, fmt.Errorf("%w: got %q", ErrSyntax, s)
	}
	return k, nil
}

func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// Position is the index of the block in its sequence, or [NamedPosition].
func (k Key) Position() int { return int(k[0])<<16 | int(k[1])<<8 | int(k[2]) }

// Named tells whether the block is named by a string rather than by a sequence.
func (k Key) Named() bool { return k.Position() == NamedPosition }

// Hash64 is the first eight bytes of the hash part: a uniform number for
// sharding and for tables that check the whole key elsewhere.
func (k Key) Hash64() uint64 { return binary.BigEndian.Uint64(k[3:11]) }

// IsZero tells whether the key names nothing.
func (k Key) IsZero() bool { return k == Key{} }

// Compare orders keys by position, then by hash.
func (k Key) Compare(o Key) int { return bytes.Compare(k[:], o[:]) }

// String is the key as 32 hexadecimal digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// MarshalText implements encoding.TextMarshaler with [Key.String].
func (k Key) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, k[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler with [ParseKey].
func (k *Key) UnmarshalText(text []byte) error {
	p, err := ParseKey(string(text))
	if err == nil {
		*k = p
	}
	return err
}
