package sequence

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// SaltSize is the length of a [Salt] in bytes.
const SaltSize = 32

// MaxBlockSize is the largest block, in tokens, that a namespace may have.
const MaxBlockSize = 1 << 16

// MaxFieldLength is the longest text, in bytes, of each field of a [Namespace].
const MaxFieldLength = 1024

// saltDomain separates salts from every other use of SHA-256 and names the
// encoding; change it when the encoding changes.
const saltDomain = "cairn/namespace/1"

// Salt separates the keys of namespaces. It goes into the hash of every block.
type Salt [SaltSize]byte

// String is the salt as 64 hexadecimal digits.
func (s Salt) String() string { return hex.EncodeToString(s[:]) }

// SeedSalt is the salt whose XXH3 seed is seed (see [XXH3]): what a Dynamo
// deployment calls its salt hash. Use it only to match keys of such a deployment.
func SeedSalt(seed uint64) Salt {
	var s Salt
	binary.LittleEndian.PutUint64(s[:], seed)
	return s
}

// Namespace is everything that must agree before two requests may share blocks.
type Namespace struct {
	// Tenant separates users who must not see each other's cache, not even by
	// timing. It may be empty.
	Tenant string `json:"tenant,omitempty"`
	// Model names the weights, with revision and adapter where there are any.
	Model string `json:"model"`
	// Tokenizer names the vocabulary that the token numbers belong to; empty
	// when the model implies it.
	Tokenizer string `json:"tokenizer,omitempty"`
	// BlockSize is the number of tokens of a block, 1 to [MaxBlockSize].
	BlockSize int `json:"block_size"`
	// DType is the element type of the cached state, such as "bf16" or "fp8".
	DType string `json:"dtype,omitempty"`
	// Layout names the order of bytes inside a block: layers, heads,
	// parallel rank, page format.
	Layout string `json:"layout,omitempty"`
	// Generation is raised to abandon everything cached so far.
	Generation uint64 `json:"generation,omitempty"`
}

// Validate reports every problem at once; each matches [ErrNamespace], and a
// bad block size also [ErrBlockSize].
func (n Namespace) Validate() error {
	var problems []error
	if n.Model == "" {
		problems = append(problems, fmt.Errorf("%w: model is empty: name the weights that made the blocks", ErrNamespace))
	}
	if err := checkBlockSize(n.BlockSize); err != nil {
		problems = append(problems, fmt.Errorf("%w: %w", ErrNamespace, err))
	}
	for _, f := range n.texts() {
		if len(f.value) > MaxFieldLength {
			problems = append(problems, fmt.Errorf("%w: %s has %d bytes, at most %d", ErrNamespace, f.name, len(f.value), MaxFieldLength))
		}
	}
	return errors.Join(problems...)
}

type textField struct{ name, value string }

// texts lists the text fields in the order in which they are encoded.
func (n Namespace) texts() [5]textField {
	return [5]textField{
		{"tenant", n.Tenant}, {"model", n.Model}, {"tokenizer", n.Tokenizer}, {"dtype", n.DType}, {"layout", n.Layout},
	}
}

// Salt is SHA-256 over an encoding in which no two namespaces are alike: the
// text "cairn/namespace/1", then tenant, model, tokenizer, dtype and layout, all
// of these preceded by their length, then block size and generation. Every
// number is a little-endian uint64. It fails as [Namespace.Validate] does.
func (n Namespace) Salt() (Salt, error) {
	if err := n.Validate(); err != nil {
		return Salt{}, err
	}
	p := appendText(nil, saltDomain)
	for _, f := range n.texts() {
		p = appendText(p, f.value)
	}
	p = binary.LittleEndian.AppendUint64(p, uint64(n.BlockSize))
	p = binary.LittleEndian.AppendUint64(p, n.Generation)
	return sha256.Sum256(p), nil
}

func appendText(p []byte, s string) []byte {
	p = binary.LittleEndian.AppendUint64(p, uint64(len(s)))
	return append(p, s...)
}
