package sequence

import (
	"fmt"
	"slices"

	"cairn/block"
)

// Range is the half-open range Start…End−1 of blocks or of tokens.
type Range struct {
	Start int `json:"start"`
	End   int `json:"end"`
}

// Len is the number of members.
func (r Range) Len() int { return r.End - r.Start }

// Empty tells whether the range has no member.
func (r Range) Empty() bool { return r.Start >= r.End }

// intersect is what both ranges have; it may be empty with an End before Start.
func (r Range) intersect(o Range) Range {
	return Range{max(r.Start, o.Start), min(r.End, o.End)}
}

// String is "[start,end)".
func (r Range) String() string { return fmt.Sprintf("[%d,%d)", r.Start, r.End) }

// TokenSequence is a run of tokens cut into blocks of one size. A block closes,
// and gets its key, as soon as it is full; the tokens after the last whole block
// are the partial block. One goroutine at a time uses a TokenSequence.
type TokenSequence struct {
	hasher    Hasher
	salt      Salt
	blockSize int

	tokens []uint32
	keys   []block.Key
}

// New is an empty sequence of blocks of blockSize tokens, 1 to [MaxBlockSize];
// anything else gives [ErrBlockSize]. A nil hasher means [SHA256].
func New(blockSize int, salt Salt, hasher Hasher) (*TokenSequence, error) {
	if err := checkBlockSize(blockSize); err != nil {
		return nil, err
	}
	return &TokenSequence{hasher: orDefault(hasher), salt: salt, blockSize: blockSize}, nil
}

// Extend appends tokens, which it copies, and returns the range of blocks that
// became whole by it. What goes wrong is the cause of an [*ExtensionError]; a
// sequence with more blocks than a key can count has a [*PositionError]. On
// error the sequence is as before.
func (s *TokenSequence) Extend(tokens []uint32) (Range, error) {
	before := len(s.keys)
	length := len(s.tokens)
	if err := checkPosition(max((length+len(tokens))/s.blockSize-1, 0)); err != nil {
		return Range{before, before}, &ExtensionError{Cause: err}
	}
	s.tokens = append(s.tokens, tokens...)
	keys, err := s.hasher.AppendKeys(s.keys, s.salt, s.blockSize, s.tokens[before*s.blockSize:])
	if err != nil {
		s.tokens = s.tokens[:length]
		return Range{before, before}, &ExtensionError{Cause: err}
	}
	s.keys = keys
	return Range{before, len(keys)}, nil
}

// Append is Extend by one token; the range has one block when the token
// completed it, else none.
func (s *TokenSequence) Append(token uint32) (Range, error) {
	one := [1]uint32{token}
	return s.Extend(one[:])
}

// Truncate keeps the first n tokens. With n at or beyond the length it does
// nothing; cutting inside a whole block makes its remaining tokens the partial
// block. A negative n gives a [*LengthError].
func (s *TokenSequence) Truncate(n int) error {
	if n < 0 {
		return &LengthError{Tokens: n, Length: len(s.tokens)}
	}
	if n < len(s.tokens) {
		s.tokens = s.tokens[:n]
		s.keys = s.keys[:n/s.blockSize]
	}
	return nil
}

// Unwind removes the last n tokens. With n negative or beyond the length it
// gives a [*LengthError] and changes nothing.
func (s *TokenSequence) Unwind(n int) error {
	if n < 0 || n > len(s.tokens) {
		return &LengthError{Tokens: n, Length: len(s.tokens)}
	}
	return s.Truncate(len(s.tokens) - n)
}

// Reset removes every token; block size, salt and hasher stay.
func (s *TokenSequence) Reset() {
	s.tokens = s.tokens[:0]
	s.keys = s.keys[:0]
}

// Len is the number of tokens.
func (s *TokenSequence) Len() int { return len(s.tokens) }

// BlockSize is the number of tokens of a block.
func (s *TokenSequence) BlockSize() int { return s.blockSize }

// Salt is what the keys are salted with.
func (s *TokenSequence) Salt() Salt { return s.salt }

// Blocks is the number of whole blocks.
func (s *TokenSequence) Blocks() int { return len(s.keys) }

// Keys is the keys of the whole blocks, in order. The slice belongs to the
// sequence: read it only, and not after the next call that changes the sequence.
func (s *TokenSequence) Keys() []block.Key { return slices.Clip(s.keys) }

// Tokens is every token, on the same terms as [TokenSequence.Keys].
func (s *TokenSequence) Tokens() []uint32 { return slices.Clip(s.tokens) }

// Partial is the tokens after the last whole block, on the same terms as
// [TokenSequence.Keys].
func (s *TokenSequence) Partial() []uint32 {
	return slices.Clip(s.tokens[len(s.keys)*s.blockSize:])
}

// TokensAt is the tokens r.Start…r.End−1, on the same terms as
// [TokenSequence.Keys]; nil when r is empty or reaches outside the sequence.
func (s *TokenSequence) TokensAt(r Range) []uint32 {
	if r.Start < 0 || r.Empty() || r.End > len(s.tokens) {
		return nil
	}
	return slices.Clip(s.tokens[r.Start:r.End])
}

// BlockTokens is the range of tokens of the blocks in r, for
// [TokenSequence.TokensAt].
func (s *TokenSequence) BlockTokens(r Range) Range {
	return Range{r.Start * s.blockSize, r.End * s.blockSize}
}
