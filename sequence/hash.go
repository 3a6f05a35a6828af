package sequence

import (
	"encoding/binary"
	"slices"

	"cairn/block"
)

// Hasher names blocks. Implementations are values without state and may be
// used in parallel.
type Hasher interface {
	// AppendKeys appends to keys the key of each whole block of tokens, and
	// ignores the tokens after the last. keys names every block before these: its
	// last member is the parent of the next block, its length the position.
	// tokens is only read. A call allocates where keys lacks room, and XXH3 once
	// for blocks of more than 256 tokens.
	//
	// A block size outside 1…[MaxBlockSize] gives [ErrBlockSize], more blocks than
	// a key can count a [*PositionError]; both return keys as it was.
	AppendKeys(keys []block.Key, salt Salt, blockSize int, tokens []uint32) ([]block.Key, error)
}

// bufferedBlock is the largest block, in tokens, that a hasher encodes in a
// buffer on its stack.
const bufferedBlock = 256

// KeysOf is the keys of the whole blocks of tokens, in order; tokens after the
// last whole block are ignored. A nil hasher means [SHA256]. It fails as
// [Hasher] does. The caller owns the result.
func KeysOf(hasher Hasher, salt Salt, blockSize int, tokens []uint32) ([]block.Key, error) {
	return orDefault(hasher).AppendKeys(nil, salt, blockSize, tokens)
}

func orDefault(h Hasher) Hasher {
	if h == nil {
		return SHA256{}
	}
	return h
}

// grow gives keys room for the whole blocks among tokens new tokens, and says how
// many these are; see [Hasher] for its errors.
func grow(keys []block.Key, blockSize, tokens int) ([]block.Key, int, error) {
	if err := checkBlockSize(blockSize); err != nil {
		return keys, 0, err
	}
	blocks := tokens / blockSize
	if blocks == 0 {
		return keys, 0, nil
	}
	if err := checkPosition(len(keys) + blocks - 1); err != nil {
		return keys, 0, err
	}
	return slices.Grow(keys, blocks), blocks, nil
}

// putTokens encodes tokens as little-endian uint32 into dst, which has room:
// four at a time, which takes half as long as one by one.
func putTokens(dst []byte, tokens []uint32) {
	for len(tokens) >= 4 && len(dst) >= 16 {
		binary.LittleEndian.PutUint64(dst, uint64(tokens[0])|uint64(tokens[1])<<32)
		binary.LittleEndian.PutUint64(dst[8:], uint64(tokens[2])|uint64(tokens[3])<<32)
		tokens, dst = tokens[4:], dst[16:]
	}
	for i, t := range tokens {
		binary.LittleEndian.PutUint32(dst[4*i:], t)
	}
}
