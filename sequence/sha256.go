package sequence

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"

	"cairn/block"
)

// SHA256 is the default hasher. A key is
//
//	position, 24 bits, big-endian | first 104 bits of
//	SHA-256(parent key, 16 bytes | salt, 32 bytes | tokens as little-endian uint32)
//
// where the parent of the first block is the zero key. The position needs no
// place in the hashed bytes: the parent key carries the position before it.
type SHA256 struct{}

const (
	prefixSize = block.KeySize + SaltSize
	// paddingSize is the most that SHA-256 appends to a message: one byte, the
	// length, and zeros up to the next multiple of its block.
	paddingSize = 8 + sha256.BlockSize
)

// AppendKeys implements [Hasher].
func (SHA256) AppendKeys(keys []block.Key, salt Salt, blockSize int, tokens []uint32) ([]block.Key, error) {
	keys, blocks, err := grow(keys, blockSize, len(tokens))
	if err != nil || blocks == 0 {
		return keys, err
	}
	if blockSize <= bufferedBlock {
		if longer, ok := appendPadded(keys, &salt, blockSize, tokens); ok {
			return longer, nil
		}
	}
	return appendStreamed(keys, &salt, blockSize, tokens)
}

// appendPadded hashes blocks of at most bufferedBlock tokens. Parent, salt,
// tokens and padding lie in one buffer, of which a block changes only parent and
// tokens; nothing is buffered a second time, and the hash is read off the
// digest's state instead of having Sum copy and pad it. That is worth a quarter
// of the time of a block of 16 tokens. The state comes in the encoding that
// crypto/sha256 writes for its own UnmarshalBinary; with any other that a release
// of Go may have, ok is false and the keys are to be made in another way.
//
// The parent leads the message, so there is no common beginning whose state could
// be kept between blocks.
func appendPadded(keys []block.Key, salt *Salt, blockSize int, tokens []uint32) (longer []block.Key, ok bool) {
	const magic = "sha\x03"
	digest := sha256.New()
	state, ok := digest.(encoding.BinaryAppender)
	if !ok {
		return keys, false
	}
	var buf [prefixSize + 4*bufferedBlock + paddingSize]byte
	length := prefixSize + 4*blockSize
	buf[length] = 0x80
	message := buf[:(length+paddingSize)/sha256.BlockSize*sha256.BlockSize]
	binary.BigEndian.PutUint64(message[len(message)-8:], uint64(8*length))
	copy(buf[block.KeySize:], salt[:])

	var encoded [128]byte
	parent := lastKey(keys)
	longer = keys
	for ; len(tokens) >= blockSize; tokens = tokens[blockSize:] {
		copy(message, parent[:])
		putTokens(message[prefixSize:length], tokens[:blockSize])
		digest.Reset()
		digest.Write(message)
		p, err := state.AppendBinary(encoded[:0])
		if err != nil || len(p) < len(magic)+block.HashSize || string(p[:len(magic)]) != magic {
			return keys, false
		}
		parent, err = block.NewKey(len(longer), [block.HashSize]byte(p[len(magic):]))
		if err != nil {
			return keys, false
		}
		longer = append(longer, parent)
	}
	return longer, true
}

// appendStreamed hashes blocks of any size as the definition says, token bytes by
// token bytes.
func appendStreamed(keys []block.Key, salt *Salt, blockSize int, tokens []uint32) ([]block.Key, error) {
	digest := sha256.New()
	var buf [4 * bufferedBlock]byte
	before := len(keys)
	parent := lastKey(keys)
	for ; len(tokens) >= blockSize; tokens = tokens[blockSize:] {
		digest.Reset()
		digest.Write(parent[:])
		digest.Write(salt[:])
		for rest := tokens[:blockSize]; len(rest) > 0; {
			n := min(len(rest), bufferedBlock)
			putTokens(buf[:4*n], rest[:n])
			digest.Write(buf[:4*n])
			rest = rest[n:]
		}
		key, err := block.NewKey(len(keys), [block.HashSize]byte(digest.Sum(buf[:0])))
		if err != nil {
			return keys[:before], err
		}
		keys = append(keys, key)
		parent = key
	}
	return keys, nil
}

// lastKey is the parent of the block that follows keys.
func lastKey(keys []block.Key) block.Key {
	if len(keys) == 0 {
		return block.Key{}
	}
	return keys[len(keys)-1]
}
