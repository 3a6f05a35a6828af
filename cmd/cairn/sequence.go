package main

import (
	"errors"
	"fmt"
	"time"

	"cairn/node"
)

// sequenceFlags are the limits of sequences, of what is fetched ahead of them, and of the
// copies that fetches leave; see node.Config.
type sequenceFlags struct {
	MaxSequences           int           `help:"Most sequences open at a time." default:"1024"`
	MaxConnectionSequences int           `help:"Most sequences that one connection may have open." default:"64"`
	MaxSequenceBlocks      int           `help:"Most whole blocks of a sequence." default:"65536"`
	SequenceTransfers      int           `help:"Transfers that an onboard has under way at once." default:"4"`
	SequenceBatch          int           `help:"Most blocks of one transfer." default:"16"`
	SequencePins           float64       `help:"Share of GPU memory, and of host memory, that sequences may pin, above 0 to 1." default:"0.5"`
	SequenceIdle           time.Duration `help:"After how long without use a sequence is closed." default:"10m"`
	MaxPrefetches          int           `help:"Prefetches that run at once." default:"2"`
	PrefetchQueue          int           `help:"Most prefetches that wait, and most that hold blocks; more are dropped, or let go of." default:"64"`
	PrefetchPins           float64       `help:"Share of GPU memory, and of host memory, that prefetches may pin, above 0 to 1, within that of sequences; they give it up to whoever needs it." default:"0.25"`
	PrefetchHold           time.Duration `help:"How long the blocks of a prefetch stay in place beyond the moment at which the request is expected." default:"5s"`
	KeepWithin             time.Duration `help:"A block that is fetched from a peer twice within this time is kept as a copy; 0 keeps none." default:"2m"`
}

func (f sequenceFlags) validate() error {
	var errs []error
	for _, limit := range []struct {
		flag  string
		value int64
	}{
		{"--max-sequences", int64(f.MaxSequences)}, {"--max-connection-sequences", int64(f.MaxConnectionSequences)},
		{"--max-sequence-blocks", int64(f.MaxSequenceBlocks)}, {"--sequence-transfers", int64(f.SequenceTransfers)},
		{"--sequence-batch", int64(f.SequenceBatch)}, {"--sequence-idle", int64(f.SequenceIdle)},
		{"--max-prefetches", int64(f.MaxPrefetches)}, {"--prefetch-queue", int64(f.PrefetchQueue)}, {"--prefetch-hold", int64(f.PrefetchHold)},
	} {
		if limit.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: want more than 0", limit.flag))
		}
	}
	for _, share := range []struct {
		flag  string
		value float64
	}{{"--sequence-pins", f.SequencePins}, {"--prefetch-pins", f.PrefetchPins}} {
		if !(share.value > 0 && share.value <= 1) { // also refuses NaN
			errs = append(errs, fmt.Errorf("%s %v: want above 0, to 1", share.flag, share.value))
		}
	}
	if f.KeepWithin < 0 {
		errs = append(errs, fmt.Errorf("--keep-within %v: want 0 for never, or more", f.KeepWithin))
	}
	return errors.Join(errs...)
}

func (f sequenceFlags) apply(c *node.Config) {
	c.Sequences, c.SequencesPerConnection, c.SequenceBlocks = f.MaxSequences, f.MaxConnectionSequences, f.MaxSequenceBlocks
	c.SequenceTransfers, c.SequenceBatch, c.SequencePins, c.SequenceIdle = f.SequenceTransfers, f.SequenceBatch, f.SequencePins, f.SequenceIdle
	c.Prefetches, c.PrefetchQueue, c.PrefetchPins, c.PrefetchHold, c.KeepWithin = f.MaxPrefetches, f.PrefetchQueue, f.PrefetchPins, f.PrefetchHold, f.KeepWithin
}
