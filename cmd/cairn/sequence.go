package main

import (
	"errors"
	"fmt"
	"time"

	"cairn/node"
)

// sequenceFlags are the limits of sequences; see node.Config.
type sequenceFlags struct {
	MaxSequences           int           `help:"Most sequences open at a time." default:"1024"`
	MaxConnectionSequences int           `help:"Most sequences that one connection may have open." default:"64"`
	MaxSequenceBlocks      int           `help:"Most whole blocks of a sequence." default:"65536"`
	SequenceTransfers      int           `help:"Transfers that an onboard has under way at once." default:"4"`
	SequenceBatch          int           `help:"Most blocks of one transfer." default:"16"`
	SequencePins           float64       `help:"Share of GPU memory, and of host memory, that sequences may pin, above 0 to 1." default:"0.5"`
	SequenceIdle           time.Duration `help:"After how long without use a sequence is closed." default:"10m"`
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
	} {
		if limit.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: want more than 0", limit.flag))
		}
	}
	if !(f.SequencePins > 0 && f.SequencePins <= 1) { // also refuses NaN
		errs = append(errs, fmt.Errorf("--sequence-pins %v: want above 0, to 1", f.SequencePins))
	}
	return errors.Join(errs...)
}

func (f sequenceFlags) apply(c *node.Config) {
	c.Sequences, c.SequencesPerConnection, c.SequenceBlocks = f.MaxSequences, f.MaxConnectionSequences, f.MaxSequenceBlocks
	c.SequenceTransfers, c.SequenceBatch, c.SequencePins, c.SequenceIdle = f.SequenceTransfers, f.SequenceBatch, f.SequencePins, f.SequenceIdle
}
