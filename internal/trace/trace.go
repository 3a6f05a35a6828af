package trace

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"cairn/block"
)

// BlockTokens is the number of tokens in a block of a published Mooncake trace.
const BlockTokens = 512

// Request is one line of a trace.
type Request struct {
	// Arrival is the time since the start of the trace.
	Arrival time.Duration
	// Input and Output are the lengths of prompt and answer in tokens.
	Input, Output int
	// IDs are the blocks of the prompt, first to last; the last one may be partial.
	IDs []uint64
}

// Keys appends to dst the key of every block of the request, in order. It fails
// only for a request with more blocks than a key has positions for.
func (r Request) Keys(dst []block.Key, salt string) ([]block.Key, error) {
	for i, id := range r.IDs {
		k, err := Key(salt, id, i)
		if err != nil {
			return nil, fmt.Errorf("trace: request with %d blocks: %w", len(r.IDs), err)
		}
		dst = append(dst, k)
	}
	return dst, nil
}

// Key is the key of block id at the given position of its request: the position,
// and SHA-256 over the id and the salt, cut to the length of a key's hash. It is
// the same in every process; another salt gives other keys throughout.
func Key(salt string, id uint64, position int) (block.Key, error) {
	p := make([]byte, 8, 8+len(salt))
	binary.BigEndian.PutUint64(p, id)
	sum := sha256.Sum256(append(p, salt...))
	return block.NewKey(position, [block.HashSize]byte(sum[:block.HashSize]))
}

// Limits bound what a reader accepts. The zero value stands for the defaults.
type Limits struct {
	// LineBytes is the longest line, in bytes; 0 is 4 MiB.
	LineBytes int
	// IDs is the largest number of blocks of one request; 0 is 65,536 (32 M tokens).
	IDs int
	// BlockTokens is the number of tokens in a block; 0 is [BlockTokens].
	BlockTokens int
}

const (
	defaultLineBytes = 4 << 20
	defaultIDs       = 1 << 16
)

// Validate reports every problem of l.
func (l Limits) Validate() error {
	var errs []error
	if l.LineBytes < 0 {
		errs = append(errs, fmt.Errorf("trace: a line limit of %d bytes: want 1 or more, or 0 for %d", l.LineBytes, defaultLineBytes))
	}
	if l.IDs < 0 || l.IDs > block.MaxPosition+1 {
		errs = append(errs, fmt.Errorf("trace: a limit of %d blocks a request: want 1 to %d, or 0 for %d", l.IDs, block.MaxPosition+1, defaultIDs))
	}
	if l.BlockTokens < 0 {
		errs = append(errs, fmt.Errorf("trace: blocks of %d tokens: want 1 or more, or 0 for %d", l.BlockTokens, BlockTokens))
	}
	return errors.Join(errs...)
}

func (l Limits) withDefaults() Limits {
	if l.LineBytes == 0 {
		l.LineBytes = defaultLineBytes
	}
	if l.IDs == 0 {
		l.IDs = defaultIDs
	}
	if l.BlockTokens == 0 {
		l.BlockTokens = BlockTokens
	}
	return l
}
