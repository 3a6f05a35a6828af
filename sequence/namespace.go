package sequence

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Keying is how the keys of a namespace's blocks are made.
type Keying struct {
	BlockSize int // tokens, 1 to [MaxBlockSize]
	Salt      Salt
	Hasher    Hasher // never nil
	Hash      string // the hasher's name: sha256 or xxh3
}

// ParseNamespace reads a [Namespace] as JSON, with two members more: "hash" is sha256,
// the default, or xxh3, and "seed", with xxh3 alone, is [SeedSalt]'s, in place of every
// other member but block_size. Each error matches [ErrNamespace].
func ParseNamespace(text []byte) (Keying, error) {
	var ns struct {
		Namespace
		Hash string  `json:"hash"`
		Seed *uint64 `json:"seed"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&ns)
	if err == nil && dec.Decode(&struct{}{}) != io.EOF {
		err = errors.New("something follows the object")
	}
	if err != nil {
		return Keying{}, fmt.Errorf("%w: %s: want JSON such as {\"model\":\"llama-3.1-8b\",\"block_size\":16}", ErrNamespace, jsonProblem(err))
	}
	k := Keying{BlockSize: ns.BlockSize, Hasher: SHA256{}, Hash: cmp.Or(ns.Hash, "sha256")}
	switch {
	case k.Hash != "sha256" && k.Hash != "xxh3":
		return Keying{}, fmt.Errorf("%w: unknown hash %q: want sha256 or xxh3", ErrNamespace, ns.Hash)
	case ns.Seed != nil && k.Hash != "xxh3":
		return Keying{}, fmt.Errorf("%w: seed goes with hash xxh3", ErrNamespace)
	case k.Hash == "xxh3":
		k.Hasher = XXH3{}
	}
	if ns.Seed == nil {
		k.Salt, err = ns.Salt()
		return k, err
	}
	k.Salt = SeedSalt(*ns.Seed)
	if err := checkBlockSize(ns.BlockSize); err != nil {
		return Keying{}, fmt.Errorf("%w: %w", ErrNamespace, err)
	}
	return k, nil
}

// jsonProblem is what is wrong with JSON, without the names of Go's types.
func jsonProblem(err error) string {
	var kind *json.UnmarshalTypeError
	if !errors.As(err, &kind) {
		return strings.TrimPrefix(err.Error(), "json: ")
	}
	field := kind.Field[strings.LastIndexByte(kind.Field, '.')+1:]
	if field == "" {
		return "a " + kind.Value + " is no object"
	}
	return field + " cannot be a " + kind.Value
}
