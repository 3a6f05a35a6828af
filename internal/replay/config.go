package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"cairn/block"
)

// Defaults of [Config].
const (
	DefaultWorkers     = 8
	DefaultBlockBytes  = 64 << 10
	DefaultReroutes    = 3
	DefaultGiveUp      = 30 * time.Second
	DefaultRetryWait   = 200 * time.Millisecond
	DefaultOpTimeout   = 10 * time.Second
	DefaultSampleEvery = time.Second
	DefaultProgress    = 200 * time.Millisecond

	// A batch is at most this many blocks, and this many bytes unless a single
	// block is larger.
	maxReadBatch      = 64
	maxReadBatchBytes = 16 << 20
)

// Config says how to replay. The zero value stands for the defaults.
type Config struct {
	// Name is what the summary calls the trace.
	Name string
	// Total is the number of requests, for Progress only; 0 when it is not known.
	Total int
	// Workers is how many requests are in progress at a time; 0 is DefaultWorkers.
	Workers int
	// BlockBytes is the length of every block, 1 to block.MaxLength; 0 is 64 KiB.
	BlockBytes int
	// ReadBatch is the largest number of blocks of one read; 0 is 64, or fewer if
	// they would exceed 16 MiB. Each worker holds memory for one batch.
	ReadBatch int
	// Speed plays the requests at their times of arrival, this many times as
	// fast; 0 is as fast as possible.
	Speed float64
	// Salt goes into every key, with BlockBytes: another salt is another set of
	// blocks, so that a cluster that still holds an earlier run's blocks starts cold.
	Salt string
	// Reroutes is how often a request is routed again after an error; 0 is
	// DefaultReroutes, below 0 is never.
	Reroutes int
	// GiveUp ends the run when no request succeeds for so long; 0 is DefaultGiveUp.
	GiveUp time.Duration
	// RetryWait is the pause before a request asks again when there is no other
	// node to try; 0 is DefaultRetryWait.
	RetryWait time.Duration
	// OpTimeout bounds one operation on the cluster; 0 is DefaultOpTimeout.
	OpTimeout time.Duration
	// Status is asked every SampleEvery (0 is DefaultSampleEvery) for the
	// occupancy of the tiers; nil leaves it out of the summary.
	Status      StatusSource
	SampleEvery time.Duration
	// Progress is called every ProgressEvery (0 is DefaultProgress) and at the end,
	// from one goroutine.
	Progress      func(Progress)
	ProgressEvery time.Duration
	// ErrorKind names the kind of an error of the cluster in a word or two, for
	// the summary; nil knows time limits and broken connections. An empty answer
	// falls back to those.
	ErrorKind func(error) string
	// Logger gets wrong bytes as errors and failed operations as debug messages;
	// nil discards.
	Logger *slog.Logger
}

// Validate reports every problem of c.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("replay: "+format, args...)) }
	if c.Workers < 0 {
		bad("%d workers: want 1 or more", c.Workers)
	}
	if c.BlockBytes < 0 || c.BlockBytes > block.MaxLength {
		bad("blocks of %d bytes: want 1 to %d", c.BlockBytes, block.MaxLength)
	}
	if c.ReadBatch < 0 {
		bad("batches of %d blocks: want 1 or more", c.ReadBatch)
	}
	if !(c.Speed >= 0) { // also NaN
		bad("speed %g: want 0 for as fast as possible, 1 for the trace's own time, or more", c.Speed)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"GiveUp", c.GiveUp}, {"RetryWait", c.RetryWait}, {"OpTimeout", c.OpTimeout},
		{"SampleEvery", c.SampleEvery}, {"ProgressEvery", c.ProgressEvery},
	} {
		if d.value < 0 {
			bad("%s is %v: want more than 0", d.name, d.value)
		}
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Workers = or(c.Workers, DefaultWorkers)
	c.BlockBytes = or(c.BlockBytes, DefaultBlockBytes)
	c.ReadBatch = or(c.ReadBatch, max(1, min(maxReadBatch, maxReadBatchBytes/c.BlockBytes)))
	c.Reroutes = max(0, or(c.Reroutes, DefaultReroutes))
	c.GiveUp = or(c.GiveUp, DefaultGiveUp)
	c.RetryWait = or(c.RetryWait, DefaultRetryWait)
	c.OpTimeout = or(c.OpTimeout, DefaultOpTimeout)
	c.SampleEvery = or(c.SampleEvery, DefaultSampleEvery)
	c.ProgressEvery = or(c.ProgressEvery, DefaultProgress)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// kind is the word that the summary counts err under.
func (c Config) kind(err error) string {
	if c.ErrorKind != nil {
		if k := c.ErrorKind(err); k != "" {
			return k
		}
	}
	var network net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "connection closed"
	case network != nil:
		return "network"
	}
	return "other"
}
