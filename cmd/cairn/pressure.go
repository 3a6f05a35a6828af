package main

import (
	"errors"
	"fmt"

	"cairn/node"
	"cairn/vram"
)

// pressureFlags are the limits of copies from and to GPU memory, and say when blocks go down
// from it; see node.Config and vram.Config.
type pressureFlags struct {
	VRAMHigh     float64 `name:"vram-high" help:"Share of GPU memory, above 0 to 1, beyond which blocks that the node has nowhere else move from it to host memory; 1 is never." default:"0.9"`
	VRAMLow      float64 `name:"vram-low" help:"Share of GPU memory down to which they do." default:"0.8"`
	VRAMBatch    int     `name:"vram-batch" help:"Most blocks that are promoted or demoted with one operation of the device." default:"16"`
	VRAMInFlight size    `name:"vram-in-flight" help:"Most bytes of batches that are being copied to and from GPU memory; more wait." default:"256MiB"`
}

func (f pressureFlags) validate() error {
	var errs []error
	if !(f.VRAMLow > 0 && f.VRAMLow <= f.VRAMHigh && f.VRAMHigh <= 1) { // also refuses NaN
		errs = append(errs, fmt.Errorf("--vram-low %v, --vram-high %v: want shares above 0, to 1, the low one not higher", f.VRAMLow, f.VRAMHigh))
	}
	if f.VRAMBatch < 1 {
		errs = append(errs, fmt.Errorf("--vram-batch %d: want more than 0", f.VRAMBatch))
	}
	if f.VRAMInFlight < 1 {
		errs = append(errs, fmt.Errorf("--vram-in-flight %v: want more than 0", f.VRAMInFlight))
	}
	return errors.Join(errs...)
}

func (f pressureFlags) apply(c *node.Config) {
	c.VRAMHigh, c.VRAMLow, c.VRAMBatch = f.VRAMHigh, f.VRAMLow, f.VRAMBatch
}

func (f pressureFlags) pool(c vram.Config) vram.Config {
	c.BatchBytes = int64(f.VRAMInFlight)
	return c
}
