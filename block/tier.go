package block

import (
	"fmt"
	"iter"
	"math/bits"
	"strings"
)

// Tier is a kind of memory that holds blocks, fastest first.
type Tier uint8

// The tiers, in order of priority.
const (
	VRAM Tier = iota // GPU memory
	Host             // host memory
	Disk             // local disk

	// Tiers is the number of tiers.
	Tiers = 3
)

var tierNames = [Tiers]string{"vram", "host", "disk"}

// Priority is 0 for the fastest tier and grows as tiers get slower.
func (t Tier) Priority() int { return int(t) }

// Valid tells whether t is one of the tiers.
func (t Tier) Valid() bool { return t < Tiers }

// String is "vram", "host" or "disk".
func (t Tier) String() string {
	if !t.Valid() {
		return fmt.Sprintf("tier(%d)", uint8(t))
	}
	return tierNames[t]
}

// ParseTier reads what [Tier.String] writes, in any case.
func ParseTier(s string) (Tier, error) {
	for t, name := range tierNames {
		if strings.EqualFold(s, name) {
			return Tier(t), nil
		}
	}
	return 0, fmt.Errorf("block: unknown tier %q: want vram, host or disk", clip(s))
}

// MarshalText implements encoding.TextMarshaler.
func (t Tier) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Tier) UnmarshalText(text []byte) error {
	p, err := ParseTier(string(text))
	if err == nil {
		*t = p
	}
	return err
}

// TierMask is a set of tiers. The zero value is the empty set.
type TierMask uint8

// MaskOf is the set of the given tiers.
func MaskOf(tiers ...Tier) TierMask {
	var m TierMask
	for _, t := range tiers {
		m = m.With(t)
	}
	return m
}

// Has tells whether t is in the set.
func (m TierMask) Has(t Tier) bool { return m&(1<<t) != 0 }

// With is the set and t.
func (m TierMask) With(t Tier) TierMask { return m | 1<<t }

// Without is the set less t.
func (m TierMask) Without(t Tier) TierMask { return m &^ (1 << t) }

// Union is the set of tiers that are in either.
func (m TierMask) Union(o TierMask) TierMask { return m | o }

// Count is the number of tiers in the set.
func (m TierMask) Count() int { return bits.OnesCount8(uint8(m)) }

// Any tells whether the set has a member.
func (m TierMask) Any() bool { return m != 0 }

// Fastest is the member with the lowest priority number; ok is false for the
// empty set.
func (m TierMask) Fastest() (t Tier, ok bool) {
	if m == 0 {
		return 0, false
	}
	return Tier(bits.TrailingZeros8(uint8(m))), true
}

// All yields the members, fastest first.
func (m TierMask) All() iter.Seq[Tier] {
	return func(yield func(Tier) bool) {
		for t := range Tier(Tiers) {
			if m.Has(t) && !yield(t) {
				return
			}
		}
	}
}

// String lists the members, fastest first: "vram+disk", or "none".
func (m TierMask) String() string {
	if m == 0 {
		return "none"
	}
	var names []string
	for t := range m.All() {
		names = append(names, t.String())
	}
	return strings.Join(names, "+")
}
