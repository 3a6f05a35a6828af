package sequence

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"cairn/block"
)

// Hasher names blocks. Implementations are values without state and may be
// used in parallel.
type Hasher interface {
	// Key is the key of the block with the given tokens at position, whose
	// predecessor has the key parent; parent is the zero key, and is not looked
	// at by XXH3, when position is 0. tokens is only read. A position outside
	// 0…block.MaxPosition gives a [*PositionError].
	Key(parent block.Key, salt Salt, position int, tokens []uint32) (block.Key, error)
}

const (
	prefixSize = block.KeySize + SaltSize
	// Blocks of up to smallBlock tokens are encoded in a small buffer, because
	// clearing a large one would take as long as hashing; longer ones use
	// chunks of largeChunk tokens.
	smallBlock = 32
	largeChunk = 256
)

// SHA256 is the default hasher. A key is
//
//	position, 24 bits, big-endian | first 104 bits of
//	SHA-256(parent key, 16 bytes | salt, 32 bytes | tokens as little-endian uint32)
//
// The position needs no place in the hashed bytes: the parent key carries the
// position before it.
type SHA256 struct{}

// Key implements [Hasher]. It does not allocate for blocks of up to 256 tokens.
func (SHA256) Key(parent block.Key, salt Salt, position int, tokens []uint32) (block.Key, error) {
	if err := checkPosition(position); err != nil {
		return block.Key{}, err
	}
	var sum [sha256.Size]byte
	switch {
	case len(tokens) <= smallBlock:
		sum = sumSmall(&parent, &salt, tokens)
	case len(tokens) <= largeChunk:
		sum = sumLarge(&parent, &salt, tokens)
	default:
		sum = sumStream(&parent, &salt, tokens)
	}
	return block.NewKey(position, [block.HashSize]byte(sum[:block.HashSize]))
}

func sumSmall(parent *block.Key, salt *Salt, tokens []uint32) [sha256.Size]byte {
	var buf [prefixSize + 4*smallBlock]byte
	copy(buf[:], parent[:])
	copy(buf[block.KeySize:], salt[:])
	return sha256.Sum256(buf[:prefixSize+putTokens(buf[prefixSize:], tokens)])
}

// sumLarge stays a function of its own, so that its buffer is cleared only when
// it is used; so does blockHashLarge.
//
//go:noinline
func sumLarge(parent *block.Key, salt *Salt, tokens []uint32) [sha256.Size]byte {
	var buf [prefixSize + 4*largeChunk]byte
	copy(buf[:], parent[:])
	copy(buf[block.KeySize:], salt[:])
	return sha256.Sum256(buf[:prefixSize+putTokens(buf[prefixSize:], tokens)])
}

func sumStream(parent *block.Key, salt *Salt, tokens []uint32) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(parent[:])
	h.Write(salt[:])
	var buf [4 * largeChunk]byte
	for len(tokens) > 0 {
		n := min(len(tokens), largeChunk)
		h.Write(buf[:putTokens(buf[:], tokens[:n])])
		tokens = tokens[n:]
	}
	h.Sum(sum[:0])
	return sum
}

// putTokens encodes tokens into dst, which has room, and returns the length.
func putTokens(dst []byte, tokens []uint32) int {
	n := 4 * len(tokens)
	dst = dst[:n]
	for _, t := range tokens {
		binary.LittleEndian.PutUint32(dst, t)
		dst = dst[4:]
	}
	return n
}

// XXH3 is the hasher that matches keys made by a Dynamo deployment
// (ai-dynamo/dynamo, lib/tokens). With seed the little-endian uint64 at the start
// of the salt (see [SeedSalt]):
//
//	block hash      = xxh3-64(tokens as little-endian uint32, seed)
//	sequence hash 0 = block hash 0
//	sequence hash i = xxh3-64(sequence hash i−1 | block hash i, little-endian uint64s, seed)
//
// and a key is
//
//	position, 24 bits | sequence hash, 64 bits | zeros, 40 bits     (all big-endian)
//
// XXH3 is not collision resistant: whoever chooses tokens can make two
// sequences meet. Use it only where all users trust each other.
type XXH3 struct{}

// Key implements [Hasher]. It does not allocate for blocks of up to 256 tokens.
func (XXH3) Key(parent block.Key, salt Salt, position int, tokens []uint32) (block.Key, error) {
	if err := checkPosition(position); err != nil {
		return block.Key{}, err
	}
	seed := binary.LittleEndian.Uint64(salt[:])
	h := BlockHash(seed, tokens)
	if position > 0 {
		var pair [16]byte
		binary.LittleEndian.PutUint64(pair[:8], SequenceHash(parent))
		binary.LittleEndian.PutUint64(pair[8:], h)
		h = xxh3.HashSeed(pair[:], seed)
	}
	var hash [block.HashSize]byte
	binary.BigEndian.PutUint64(hash[:], h)
	return block.NewKey(position, hash)
}

// BlockHash is the XXH3-64 of the tokens of one block, without what comes
// before it: the "block hash" of a Dynamo deployment with this seed.
func BlockHash(seed uint64, tokens []uint32) uint64 {
	switch {
	case len(tokens) <= smallBlock:
		var buf [4 * smallBlock]byte
		return xxh3.HashSeed(buf[:putTokens(buf[:], tokens)], seed)
	case len(tokens) <= largeChunk:
		return blockHashLarge(seed, tokens)
	default:
		buf := make([]byte, 4*len(tokens))
		return xxh3.HashSeed(buf[:putTokens(buf, tokens)], seed)
	}
}

//go:noinline
func blockHashLarge(seed uint64, tokens []uint32) uint64 {
	var buf [4 * largeChunk]byte
	return xxh3.HashSeed(buf[:putTokens(buf[:], tokens)], seed)
}

// SequenceHash is the 64-bit sequence hash in a key that [XXH3] made.
func SequenceHash(key block.Key) uint64 { return key.Hash64() }

// KeysOf is the keys of the whole blocks of tokens, in order; tokens after the
// last whole block are ignored. A nil hasher means [SHA256]. The caller owns the
// result.
func KeysOf(hasher Hasher, salt Salt, blockSize int, tokens []uint32) ([]block.Key, error) {
	if err := checkBlockSize(blockSize); err != nil {
		return nil, err
	}
	blocks := len(tokens) / blockSize
	if blocks == 0 {
		return nil, nil
	}
	if err := checkPosition(blocks - 1); err != nil {
		return nil, err
	}
	return appendKeys(make([]block.Key, 0, blocks), orDefault(hasher), salt, blockSize, tokens)
}

// appendKeys appends the keys of the whole blocks of tokens, which follow the
// blocks of keys. On error it returns keys as it was.
func appendKeys(keys []block.Key, hasher Hasher, salt Salt, blockSize int, tokens []uint32) ([]block.Key, error) {
	before := len(keys)
	var parent block.Key
	if before > 0 {
		parent = keys[before-1]
	}
	for ; len(tokens) >= blockSize; tokens = tokens[blockSize:] {
		key, err := hasher.Key(parent, salt, len(keys), tokens[:blockSize])
		if err != nil {
			return keys[:before], err
		}
		keys = append(keys, key)
		parent = key
	}
	return keys, nil
}

func orDefault(h Hasher) Hasher {
	if h == nil {
		return SHA256{}
	}
	return h
}
