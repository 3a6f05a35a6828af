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
	// kept free. 0 is DefaultCapacity.
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

// maxSegments is the number of segments that a store may have at once.
func (c Config) maxSegments() int { return int(2*c.Capacity/c.SegmentSize) + 2 }

// maxObject is the largest payload that fits a segment alone.
func (c Config) maxObject() int64 {
	align := int64(c.PayloadAlign)
	room := c.SegmentSize - segmentHeaderSize - footerSize(1) - align
	return min(room/align*align, block.MaxLength)
}
