package sequence

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"cairn/block"
)

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

// AppendKeys implements [Hasher].
func (XXH3) AppendKeys(keys []block.Key, salt Salt, blockSize int, tokens []uint32) ([]block.Key, error) {
	keys, blocks, err := grow(keys, blockSize, len(tokens))
	if err != nil || blocks == 0 {
		return keys, err
	}
	var small [4 * bufferedBlock]byte
	buf := bufferFor(small[:], blockSize)
	var pair [16]byte
	var hash [block.HashSize]byte
	seed := binary.LittleEndian.Uint64(salt[:])
	before := len(keys)
	chained := SequenceHash(lastKey(keys))
	for ; len(tokens) >= blockSize; tokens = tokens[blockSize:] {
		putTokens(buf, tokens[:blockSize])
		h := xxh3.HashSeed(buf, seed)
		if len(keys) > 0 {
			binary.LittleEndian.PutUint64(pair[:], chained)
			binary.LittleEndian.PutUint64(pair[8:], h)
			h = xxh3.HashSeed(pair[:], seed)
		}
		binary.BigEndian.PutUint64(hash[:], h)
		key, err := block.NewKey(len(keys), hash)
		if err != nil {
			return keys[:before], err
		}
		keys = append(keys, key)
		chained = h
	}
	return keys, nil
}

// BlockHash is the XXH3-64 of the tokens of one block, without what comes
// before it: the "block hash" of a Dynamo deployment with this seed.
func BlockHash(seed uint64, tokens []uint32) uint64 {
	var small [4 * bufferedBlock]byte
	buf := bufferFor(small[:], len(tokens))
	putTokens(buf, tokens)
	return xxh3.HashSeed(buf, seed)
}

// bufferFor is a buffer for the bytes of so many tokens: small, where it suffices.
func bufferFor(small []byte, tokens int) []byte {
	if n := 4 * tokens; n <= len(small) {
		return small[:n]
	}
	return make([]byte, 4*tokens)
}

// SequenceHash is the 64-bit sequence hash in a key that [XXH3] made.
func SequenceHash(key block.Key) uint64 { return key.Hash64() }
