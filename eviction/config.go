package eviction

import (
	"errors"
	"fmt"
	"time"

	"cairn/tier"
)

// Defaults of [Config].
const (
	DefaultLook       = 2
	DefaultSamples    = 16
	DefaultGhosts     = 8
	DefaultGhostsMost = 1 << 20
	DefaultHalfLife   = 256
	DefaultCopyWeight = 0.1
	DefaultGuard      = time.Second
)

// BytesPerBlock bounds the memory of [Hazard] for each block in the store, when there
// are thousands, with the default Config: 48 bytes of state, an index by fingerprint,
// the list of leaves, and 8 ghosts of 16 bytes, in tables that double.
const BytesPerBlock = 400

// Config of a policy. The zero value is usable.
type Config struct {
	// Hint tells what the store's owner knows about a block between which and others
	// Victim chooses; nil knows nothing. It is called a few times for each victim.
	Hint func(id uint32) tier.Hint
	// Look is how many of the oldest leaves LRU asks Hint about; 0 is DefaultLook. With
	// more, blocks that have a copy leave sooner, and the order is less one of use.
	Look int

	// What follows is for Hazard.

	// Samples is how many leaves are drawn for each victim; 0 is DefaultSamples.
	Samples int
	// Ghosts is how many evicted blocks are remembered for each block in the store,
	// rounded up to a power of two in all, and GhostsMost how many at most; each is
	// 16 bytes. 0 is the default, negative none.
	Ghosts, GhostsMost int
	// HalfLife is the number of uses, for each block in the store and ghost, after
	// which evidence counts half; 0 is DefaultHalfLife, negative never.
	HalfLife int
	// CopyWeight is what keeping a block that has another copy near is worth, as a
	// share of what it would be worth without: what a transfer costs, compared
	// with a computation. 0 is DefaultCopyWeight; at most 1.
	CopyWeight float64
	// Guard is how long after its last use a block is a victim only if all leaves
	// drawn are as fresh: a leaf that was just stored may be the parent of the
	// next block to come. 0 is DefaultGuard, negative guards only what is used
	// in the same moment.
	Guard time.Duration
	// Seed makes the draws repeatable.
	Seed uint64
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	if c.Look < 0 || c.Look > 1<<16 {
		errs = append(errs, fmt.Errorf("eviction: a look at %d leaves: want 1 to %d, or 0 for %d", c.Look, 1<<16, DefaultLook))
	}
	if c.Samples < 0 || c.Samples > 1<<16 {
		errs = append(errs, fmt.Errorf("eviction: %d samples: want 1 to %d, or 0 for %d", c.Samples, 1<<16, DefaultSamples))
	}
	if !(c.CopyWeight >= 0 && c.CopyWeight <= 1) {
		errs = append(errs, fmt.Errorf("eviction: copy weight %g: want more than 0 to 1, or 0 for %g", c.CopyWeight, DefaultCopyWeight))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Look = orDefault(c.Look, DefaultLook)
	if c.Hint == nil {
		c.Hint, c.Look = func(uint32) tier.Hint { return 0 }, 1
	}
	c.Samples = orDefault(c.Samples, DefaultSamples)
	c.Ghosts = orDefault(c.Ghosts, DefaultGhosts)
	c.GhostsMost = orDefault(c.GhostsMost, DefaultGhostsMost)
	c.HalfLife = orDefault(c.HalfLife, DefaultHalfLife)
	if c.CopyWeight == 0 {
		c.CopyWeight = DefaultCopyWeight
	}
	switch {
	case c.Guard == 0:
		c.Guard = DefaultGuard
	case c.Guard < 0:
		c.Guard = 1
	}
	return c
}

// orDefault is def for 0, and 0 for what is negative.
func orDefault(v, def int) int {
	if v == 0 {
		return def
	}
	return max(v, 0)
}
