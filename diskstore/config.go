package diskstore

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cairn/block"
)

// Limits and defaults of [Config].
const (
	// DefaultCapacity is used where Config.Capacity is 0.
	DefaultCapacity = 16 << 30
	// DefaultSegmentSize is used where Config.SegmentSize is 0 and Capacity is
	// between 8 and MaxSegments times as much.
	DefaultSegmentSize = 256 << 20
	// MinSegmentSize and MaxSegmentSize bound Config.SegmentSize.
	MinSegmentSize = 16 << 10
	MaxSegmentSize = 4 << 30
	// MaxSegments bounds Capacity / SegmentSize. A store keeps one file
	// descriptor open for each segment, and segments may be half empty when
	// objects are large, so it holds at most 2 × Capacity / SegmentSize + 6.
	MaxSegments = 2048
	// DefaultRescueFraction is used where Config.RescueFraction is 0.
	DefaultRescueFraction = 0.25
	// DefaultMaxKept is used where Config.MaxKept is 0, and MaxMaxKept is the
	// highest: reclaim moves kept objects, and up to 1 / (1 - MaxKept) bytes are
	// written for each byte that is put.
	DefaultMaxKept = 0.9
	MaxMaxKept     = 0.95
	// DefaultSyncEvery is used where Config.SyncEvery is 0.
	DefaultSyncEvery = time.Second
)

// SyncPolicy says when written data is flushed to the device.
type SyncPolicy uint8

const (
	// SyncManual flushes when Sync is called, and when the store is closed.
	SyncManual SyncPolicy = iota
	// SyncInterval flushes also every Config.SyncEvery.
	SyncInterval
	// SyncAlways flushes before every Put and Delete returns; calls that run in
	// parallel share flushes.
	SyncAlways
)

// String is "manual", "interval" or "always".
func (p SyncPolicy) String() string {
	switch p {
	case SyncManual:
		return "manual"
	case SyncInterval:
		return "interval"
	case SyncAlways:
		return "always"
	}
	return fmt.Sprintf("sync policy(%d)", uint8(p))
}

// Config are the settings of a store. The zero value is usable.
type Config struct {
	// Capacity is the number of bytes that the segment files may occupy,
	// overhead included; at least 2 × SegmentSize. About one SegmentSize of it is
	// kept free, and two while there are kept objects. While these are moved beside
	// many writers the files may exceed it for a moment, by two segments at most; after
	// input or output errors by more, until the device works again. 0 is
	// DefaultCapacity.
	Capacity int64
	// SegmentSize is the size in bytes at which a segment file is full. It bounds
	// the largest object ([Store.MaxObject]), and is the unit of eviction. 0 is
	// DefaultSegmentSize, or what is nearest to it between Capacity/MaxSegments
	// and Capacity/8.
	SegmentSize int64
	// PayloadAlign is the alignment of records and payloads in their file: 64,
	// or 4096 where direct I/O will read them. 0 is 64. A store may be reopened
	// with another value.
	PayloadAlign int
	// RescueFraction is how much of a segment, at most, is filled with objects
	// of the segment being evicted that were read since they were written; at
	// most 0.75. 0 is DefaultRescueFraction; a negative value rescues nothing.
	RescueFraction float64
	// Keep says which objects are never evicted: they leave the store by Delete
	// only, or when they turn out to be damaged. It must always say the same of a
	// key, be quick and not call the store; it is called in parallel. A store may be
	// reopened with another Keep. nil is [block.Key.Named], because a named block
	// cannot be computed again.
	Keep func(block.Key) bool
	// MaxKept is how much of Capacity, less the three segments that the store needs
	// to work, kept objects may occupy, with their headers and padding; a Put of
	// one more gives ErrNoSpace. What is left is what reclaim gains, so it always
	// gets on. At most MaxMaxKept; 0 is DefaultMaxKept. A store of fewer than four
	// segments takes no object that it must keep; see KeptLimit.
	MaxKept float64
	// Sync says when data is flushed.
	Sync SyncPolicy
	// SyncEvery is the period of SyncInterval. 0 is DefaultSyncEvery.
	SyncEvery time.Duration
	// Logger receives what recovery found and errors of background work. nil
	// discards them.
	Logger *slog.Logger
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	if c.Capacity == 0 {
		c.Capacity = DefaultCapacity
	}
	if c.SegmentSize == 0 {
		c.SegmentSize = max(min(DefaultSegmentSize, c.Capacity/8), c.Capacity/MaxSegments+1, MinSegmentSize)
	}
	if c.PayloadAlign == 0 {
		c.PayloadAlign = minAlign
	}
	if c.RescueFraction == 0 {
		c.RescueFraction = DefaultRescueFraction
	}
	if c.Keep == nil {
		c.Keep = block.Key.Named
	}
	if c.MaxKept == 0 {
		c.MaxKept = DefaultMaxKept
	}
	if c.SyncEvery == 0 {
		c.SyncEvery = DefaultSyncEvery
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports everything that is wrong with c, defaults filled in.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("diskstore: "+format, args...))
	}
	if c.SegmentSize < MinSegmentSize || c.SegmentSize > MaxSegmentSize {
		bad("SegmentSize %d: want %d to %d bytes", c.SegmentSize, MinSegmentSize, int64(MaxSegmentSize))
	} else if c.Capacity < 2*c.SegmentSize {
		bad("Capacity %d: want at least two segments of %d bytes", c.Capacity, c.SegmentSize)
	} else if c.Capacity/c.SegmentSize > MaxSegments {
		bad("Capacity %d is more than %d segments of %d bytes: raise SegmentSize to at least %d",
			c.Capacity, MaxSegments, c.SegmentSize, c.Capacity/MaxSegments+1)
	}
	if c.PayloadAlign != minAlign && c.PayloadAlign != maxAlign {
		bad("PayloadAlign %d: want %d or %d", c.PayloadAlign, minAlign, maxAlign)
	}
	if !(c.RescueFraction <= 0.75) {
		bad("RescueFraction %v: want at most 0.75", c.RescueFraction)
	}
	if !(c.MaxKept > 0 && c.MaxKept <= MaxMaxKept) {
		bad("MaxKept %v: want more than 0 and at most %v", c.MaxKept, MaxMaxKept)
	}
	if c.Sync > SyncAlways {
		bad("Sync %v: want SyncManual, SyncInterval or SyncAlways", c.Sync)
	}
	if c.SyncEvery < 0 {
		bad("SyncEvery %v: want a positive duration", c.SyncEvery)
	}
	return errors.Join(errs...)
}

// rescueBudget is RescueFraction in bytes.
func (c Config) rescueBudget() int64 {
	return int64(max(c.RescueFraction, 0) * float64(c.SegmentSize))
}

// keptRoom is what kept objects can occupy at all: one segment takes the records, one
// is room for the next, and one is room for what reclaim moves; and segments that
// are only half full, because objects are large, have headers too.
func (c Config) keptRoom() int64 {
	bytes := max(c.Capacity-3*c.SegmentSize, 0)
	return int64(float64(bytes) * float64(c.SegmentSize-segmentHeaderSize) / float64(c.SegmentSize+segmentHeaderSize))
}

// KeptLimit is MaxKept in bytes: what kept objects may occupy. It is 0 where there are
// fewer than four segments. c must be valid.
func (c Config) KeptLimit() int64 {
	c = c.withDefaults()
	return int64(c.MaxKept * float64(c.keptRoom()))
}

// recordSize is what the record of an object of the given length takes.
func (c Config) recordSize(length uint32) int64 {
	return recordSize(int64(length), int64(c.PayloadAlign))
}

// keptSize is what a kept object of the given length counts.
func (c Config) keptSize(length uint32) int64 {
	return c.recordSize(length) + cellSize
}

// maxSegments is the number of segments that a store may have at once.
func (c Config) maxSegments() int { return int(2*c.Capacity/c.SegmentSize) + 2 }

// maxObject is the largest payload that fits a segment alone.
func (c Config) maxObject() int64 {
	align := int64(c.PayloadAlign)
	room := c.SegmentSize - segmentHeaderSize - footerSize(1) - align
	return min(room/align*align, block.MaxLength)
}
