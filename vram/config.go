package vram

import (
	"errors"
	"fmt"
	"slices"

	"cairn/block"
	"cairn/eviction"
)

// Defaults of [Config].
const (
	// DefaultFraction leaves room for what drivers and engines allocate late.
	DefaultFraction = 0.9
	// DefaultRunSize is a multiple of every default class.
	DefaultRunSize = 80 << 20
	// DefaultStreams lets the device start on a copy while it ends another; more
	// do not help, as it has one copy engine a direction or two.
	DefaultStreams = 2
	// DefaultBatches keeps both directions busy while the next batches are prepared.
	DefaultBatches = 8
	// DefaultBatchBytes is about a millisecond of a fast link for each of them.
	DefaultBatchBytes = 256 << 20

	// SlotAlignment is what every class is a multiple of, in bytes: a page, which
	// transfers between devices and to storage are aligned to.
	SlotAlignment = 4 << 10
	// MaxStreams is the largest number of streams a direction.
	MaxStreams = 64

	// leastRuns is how many runs a small arena is divided into, where its
	// largest class allows.
	leastRuns = 16
)

// DefaultClasses are the default slot sizes in bytes. Copies below 64 KiB cannot
// use the link well, so there are no smaller ones. 5 MiB is 16 tokens of a model
// with 80 layers and 8 KV heads of 128 values of 2 bytes.
func DefaultClasses() []int {
	const k, m = 1 << 10, 1 << 20
	return []int{64 * k, 128 * k, 256 * k, 512 * k, 1 * m, 2 * m, 4 * m, 5 * m, 8 * m, 16 * m}
}

// Config says how a [Pool] uses its device. The zero value is usable.
type Config struct {
	// Capacity is the size of the arena in bytes, rounded down to whole runs; 0
	// takes Fraction of the memory that is free on the device.
	Capacity int64
	// Fraction of the free memory to use when Capacity is 0, above 0 up to 1; 0
	// is DefaultFraction.
	Fraction float64
	// Classes are the slot sizes in bytes, each a multiple of SlotAlignment; nil
	// stands for DefaultClasses. An object takes the smallest slot that it fits
	// into, and an object larger than the largest class is ErrTooLarge, so
	// give the sizes of the blocks of the models that are served.
	Classes []int
	// RunSize is the size in bytes of the pieces of the arena that change between
	// classes, a multiple of SlotAlignment, at least the largest class; 0 is
	// DefaultRunSize, or less for a small arena. A run that a class does not
	// divide wastes the remainder.
	RunSize int64
	// Streams is the number of streams a direction; 0 is DefaultStreams, at most
	// MaxStreams.
	Streams int
	// Batches is the most batches of copies under way, in both directions together; 0 is
	// DefaultBatches. More wait for their turn.
	Batches int
	// BatchBytes is the most bytes of the batches under way, and of one batch unless that
	// is a single object; 0 is DefaultBatchBytes.
	BatchBytes int64
	// Eviction says which object goes when room is needed, as a policy of package
	// eviction; empty is eviction.KindLRU.
	Eviction string
	// Seed makes what is random in that repeatable.
	Seed uint64
}

// withDefaults fills in everything but Capacity and RunSize, which depend on
// the device.
func (c Config) withDefaults() Config {
	if c.Fraction == 0 {
		c.Fraction = DefaultFraction
	}
	if c.Classes == nil {
		c.Classes = DefaultClasses()
	}
	if c.Streams == 0 {
		c.Streams = DefaultStreams
	}
	if c.Batches == 0 {
		c.Batches = DefaultBatches
	}
	if c.BatchBytes == 0 {
		c.BatchBytes = DefaultBatchBytes
	}
	if c.Eviction == "" {
		c.Eviction = eviction.KindLRU
	}
	return c
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("vram: "+format, args...)) }
	if len(c.Classes) == 0 {
		bad("no slot class: give Classes at least one size, or leave it nil")
		return errors.Join(errs...)
	}
	for i, size := range c.Classes {
		switch {
		case size <= 0 || size%SlotAlignment != 0:
			bad("slot class of %d bytes: want a positive multiple of %d", size, SlotAlignment)
		case size > block.MaxLength:
			bad("slot class of %d bytes: at most %d", size, block.MaxLength)
		case slices.Contains(c.Classes[:i], size):
			bad("slot class of %d bytes is there twice", size)
		}
	}
	largest := int64(slices.Max(c.Classes))
	if c.Capacity < 0 {
		bad("capacity of %d bytes: want a positive number, or 0 for a fraction of the device", c.Capacity)
	}
	if c.Capacity > 0 && c.Capacity < max(largest, c.RunSize) {
		bad("capacity of %d bytes: want at least one run, which holds the largest class, %d bytes", c.Capacity, max(largest, c.RunSize))
	}
	if !(c.Fraction > 0 && c.Fraction <= 1) { // also refuses NaN
		bad("fraction %v: want above 0, up to 1", c.Fraction)
	}
	if c.RunSize != 0 && (c.RunSize < largest || c.RunSize%SlotAlignment != 0) {
		bad("run size of %d bytes: want a multiple of %d, at least the largest class, %d bytes", c.RunSize, SlotAlignment, largest)
	}
	if c.Eviction != eviction.KindLRU && c.Eviction != eviction.KindHazard {
		bad("eviction %q: want %s or %s", c.Eviction, eviction.KindLRU, eviction.KindHazard)
	}
	if c.Streams < 1 || c.Streams > MaxStreams {
		bad("%d streams: want 1 to %d", c.Streams, MaxStreams)
	}
	if c.Batches < 1 {
		bad("%d batches under way: want at least 1, or 0 for %d", c.Batches, DefaultBatches)
	}
	if c.BatchBytes < 1 {
		bad("%d bytes of batches under way: want at least 1, or 0 for %d", c.BatchBytes, DefaultBatchBytes)
	}
	return errors.Join(errs...)
}

// resolve settles Capacity and RunSize for a device with free bytes.
func (c Config) resolve(free int64) (Config, error) {
	c = c.withDefaults()
	largest := int64(slices.Max(c.Classes))
	if c.Capacity == 0 {
		c.Capacity = int64(float64(free) * c.Fraction)
	}
	if c.RunSize == 0 {
		c.RunSize = DefaultRunSize
		if part := c.Capacity / leastRuns; c.RunSize > part {
			c.RunSize = part
		}
		c.RunSize = max(c.RunSize-c.RunSize%largest, largest)
	}
	c.Capacity -= c.Capacity % c.RunSize
	if c.Capacity == 0 {
		return c, fmt.Errorf("vram: %d bytes are free on the device, less than one run of %d bytes: "+
			"free device memory, raise Fraction, or leave out the largest classes", free, c.RunSize)
	}
	return c, nil
}
