package coherency

import (
	"fmt"
	"strings"
)

// WritePolicy says which copies of a block must be current before a write is
// acknowledged. The zero value is [WriteBack].
type WritePolicy uint8

// The write policies. What survives which failure under each of them is in the
// package comment.
const (
	// WriteBack acknowledges once the written tier has the bytes; home follows
	// in the background.
	WriteBack WritePolicy = iota
	// WriteThrough acknowledges once home has the bytes durably as well.
	WriteThrough
	// WriteAll acknowledges once home has the bytes durably and every other
	// tier that held the block holds the new version or is out of the set.
	WriteAll

	policies = 3
)

var policyNames = [policies]string{"write-back", "write-through", "write-all"}

// Valid tells whether p is one of the policies.
func (p WritePolicy) Valid() bool { return p < policies }

// String is "write-back", "write-through" or "write-all".
func (p WritePolicy) String() string {
	if !p.Valid() {
		return fmt.Sprintf("policy(%d)", uint8(p))
	}
	return policyNames[p]
}

// ParseWritePolicy reads what [WritePolicy.String] writes, in any case, with or
// without the hyphen.
func ParseWritePolicy(s string) (WritePolicy, error) {
	for p, name := range policyNames {
		if strings.EqualFold(s, name) || strings.EqualFold(s, strings.ReplaceAll(name, "-", "")) {
			return WritePolicy(p), nil
		}
	}
	return 0, fmt.Errorf("coherency: %w %.64q: want write-back, write-through or write-all", ErrPolicy, s)
}

// MarshalText implements encoding.TextMarshaler; an unknown policy is an error.
func (p WritePolicy) MarshalText() ([]byte, error) {
	if !p.Valid() {
		return nil, fmt.Errorf("coherency: %w %d", ErrPolicy, uint8(p))
	}
	return []byte(p.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler with [ParseWritePolicy].
func (p *WritePolicy) UnmarshalText(text []byte) error {
	q, err := ParseWritePolicy(string(text))
	if err == nil {
		*p = q
	}
	return err
}
