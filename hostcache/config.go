package hostcache

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"

	"cairn/block"
)

// Defaults and bounds of [Config].
const (
	// DefaultCapacity is used when Config.Capacity is zero: 1 GiB.
	DefaultCapacity = 1 << 30
	// DefaultSlabSize is used when Config.SlabSize is zero and the capacity is
	// at least 256 MiB. Smaller caches use smaller slabs, so that there are at
	// least 32 of them.
	DefaultSlabSize = 8 << 20
	// DefaultMaxPins is used when Config.MaxPins is zero.
	DefaultMaxPins = 1 << 20
	// MaxCapacity is the largest Config.Capacity: 4 TiB.
	MaxCapacity = 4 << 40
	// PageSize is what slots and slabs are multiples of, in bytes.
	PageSize = 4096

	// EvictLRU evicts in exact order of last use, EvictHazard what is worth least by what
	// package eviction has learned, leaves of sequences before their parents.
	EvictLRU    = "lru"
	EvictHazard = "hazard"

	// fewestSlabs is how many slabs the default slab size leaves at least.
	fewestSlabs = 32
)

// Config of a [Cache]. The zero value is usable.
type Config struct {
	// Capacity is the size of the arena in bytes, rounded down to whole slabs.
	// It is address space until it is used. Zero means DefaultCapacity.
	Capacity int64
	// Classes are the slot sizes in bytes, ascending multiples of PageSize, at
	// most block.MaxLength and Capacity. A block takes a slot of the smallest
	// class that holds it, so name the exact block sizes of the models served.
	// Empty means [DefaultClasses], as far as they fit the capacity.
	Classes []int
	// SlabSize is the unit, in bytes, in which memory moves between classes: a
	// multiple of PageSize, at most Capacity. Each class in use holds at least one
	// slab, so let there be several times as many slabs as sizes in use. Zero means
	// DefaultSlabSize, or less in a small cache.
	SlabSize int
	// MaxPins is how many pins and views one block may have at a time; more
	// give ErrPins, because they are leaked. Zero means DefaultMaxPins.
	MaxPins int
	// Prefault takes all memory at Open, which is slow, but turns too little
	// memory into an error of Open instead of a killed process later.
	Prefault bool
	// Lock, when it is not nil, is called once with all of the arena's memory, after it
	// is mapped and before it is used, for whoever has to know where it lies: a device
	// that page-locks it, so that copies need no staging. The unlock that it returns,
	// which may be nil, is called once, when nobody uses the memory any more and just
	// before it is unmapped: by Close, or by the last release after it, which has nobody
	// to tell of an error. An error of Lock is one of Open. Neither may call the cache,
	// and the memory must not be kept beyond unlock.
	Lock func(mem []byte) (unlock func() error, err error)
	// Eviction says which block goes when room is needed: EvictLRU, the default when
	// it is empty, or EvictHazard.
	Eviction string
	// Seed makes the draws of EvictHazard repeatable.
	Seed uint64
	// Logger gets what Open finds out about the machine. Nil means silence.
	Logger *slog.Logger
}

// DefaultClasses are the slot sizes of a cache whose Config names none: 4 KiB to
// 128 MiB, four to each doubling from 16 KiB on, so that a block of any size
// wastes less than a fifth of its slot. 64 KiB, 512 KiB, 2 MiB and 5 MiB are
// among them. The caller owns the slice.
func DefaultClasses() []int {
	var classes []int
	for size := PageSize; size <= block.MaxLength; {
		classes = append(classes, size)
		size += max(PageSize, 1<<(bits.Len(uint(size))-3))
	}
	return classes
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	if c.Capacity == 0 {
		c.Capacity = DefaultCapacity
	}
	if c.SlabSize == 0 && c.Capacity >= PageSize {
		c.SlabSize = DefaultSlabSize
		for c.SlabSize > PageSize && int64(c.SlabSize)*fewestSlabs > c.Capacity {
			c.SlabSize /= 2
		}
	}
	if c.MaxPins == 0 {
		c.MaxPins = DefaultMaxPins
	}
	if c.Eviction == "" {
		c.Eviction = EvictLRU
	}
	if len(c.Classes) == 0 && c.SlabSize > 0 {
		whole := c.Capacity - c.Capacity%int64(c.SlabSize)
		for _, size := range DefaultClasses() {
			if int64(size) <= whole {
				c.Classes = append(c.Classes, size)
			}
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports everything that is wrong with c, in one error.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("hostcache: "+format, args...))
	}
	capacityOK := c.Capacity >= PageSize && c.Capacity <= MaxCapacity
	if !capacityOK {
		bad("capacity %d: want %d to %d bytes", c.Capacity, PageSize, int64(MaxCapacity))
	}
	if c.SlabSize != 0 || capacityOK {
		switch {
		case c.SlabSize < PageSize || c.SlabSize%PageSize != 0:
			bad("slab size %d: want a positive multiple of %d bytes", c.SlabSize, PageSize)
		case capacityOK && int64(c.SlabSize) > c.Capacity:
			bad("slab size %d exceeds capacity %d: lower it, or leave it zero", c.SlabSize, c.Capacity)
		}
	}
	whole := c.Capacity
	if c.SlabSize > 0 && whole > int64(c.SlabSize) {
		whole -= whole % int64(c.SlabSize)
	}
	for i, size := range c.Classes {
		switch {
		case size < PageSize || size%PageSize != 0:
			bad("class %d: want a positive multiple of %d bytes", size, PageSize)
		case size > block.MaxLength:
			bad("class %d: want at most %d bytes", size, block.MaxLength)
		case capacityOK && int64(size) > whole:
			bad("class %d exceeds the %d bytes of whole slabs: drop it or raise the capacity", size, whole)
		}
		if i > 0 && size <= c.Classes[i-1] {
			bad("class %d follows %d: want ascending classes", size, c.Classes[i-1])
		}
	}
	if c.Eviction != EvictLRU && c.Eviction != EvictHazard {
		bad("eviction %q: want %s or %s", c.Eviction, EvictLRU, EvictHazard)
	}
	if c.MaxPins < 0 || c.MaxPins > 1<<30 {
		bad("max pins %d: want 1 to %d, or 0 for the default", c.MaxPins, 1<<30)
	}
	return errors.Join(errs...)
}
