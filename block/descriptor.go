package block

import "github.com/zeebo/xxh3"

// MaxLength is the largest object, in bytes, that any part of Cairn accepts;
// configuration may only lower it.
const MaxLength = 128 << 20

// Descriptor says what an object is, without its bytes. It is a small value
// without pointers; copy it freely.
type Descriptor struct {
	// Key names the object.
	Key Key
	// Parent is the key of the block before it in its sequence; zero for the
	// first block and for named blocks. Eviction removes leaves before parents.
	Parent Key
	// Length is the number of bytes, at most [MaxLength].
	Length uint32
	// Sum is the [Checksum] of the bytes.
	Sum uint64
}

// Describe is the descriptor of the bytes p under key; it reads p only.
func Describe(key, parent Key, p []byte) Descriptor {
	return Descriptor{Key: key, Parent: parent, Length: uint32(len(p)), Sum: Checksum(p)}
}

// Matches tells whether p has the length and the checksum of d.
func (d Descriptor) Matches(p []byte) bool {
	return len(p) == int(d.Length) && Checksum(p) == d.Sum
}

// Checksum is the xxh3-64 of p. It detects corruption; it does not protect
// against an adversary inside the trust domain.
func Checksum(p []byte) uint64 { return xxh3.Hash(p) }
