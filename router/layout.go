package router

import (
	"errors"
	"fmt"
	"strconv"
)

// Layout is what must be the same for the keys of one to mean blocks of the other. An
// empty field says nothing, and agrees with anything.
type Layout struct {
	// BlockTokens is the size of a block in tokens.
	BlockTokens int `json:"block_tokens,omitempty"`
	// Hash names the function that makes keys of tokens, and its version.
	Hash string `json:"hash_version,omitempty"`
	// Salt is that of the hash, as text.
	Salt string `json:"salt,omitempty"`
}

// ErrMismatch: somebody's blocks are cut or named otherwise than here; errors.As finds a
// [*MismatchError].
var ErrMismatch = errors.New("router: layouts differ")

// MismatchError says who differs from what is expected, and in what. errors.Is finds
// [ErrMismatch], and [ErrRequest] or [ErrNode].
type MismatchError struct {
	Who   string // "the request", or "node n1"
	Field string // of [Layout], as in JSON
	// Want is what is expected, Got what Who has.
	Want, Got string
	kind      error
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: %s has %s %s, expected is %s: its keys would mean other blocks", e.kind, e.Who, e.Field, e.Got, e.Want)
}

// Unwrap is what errors.Is finds.
func (e *MismatchError) Unwrap() []error { return []error{ErrMismatch, e.kind} }

// differs is a [*MismatchError] for the first field in which got differs from want, or
// nil.
func differs(kind error, who string, want, got Layout) error {
	if want == got || want == (Layout{}) || got == (Layout{}) {
		return nil // as in most cases
	}
	for _, f := range []struct{ name, want, got string }{
		{"block_tokens", number(want.BlockTokens), number(got.BlockTokens)},
		{"hash_version", want.Hash, got.Hash},
		{"salt", want.Salt, got.Salt},
	} {
		if f.want != "" && f.got != "" && f.want != f.got {
			return &MismatchError{Who: who, Field: f.name, Want: f.want, Got: f.got, kind: kind}
		}
	}
	return nil
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
