package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"cairn/block"
)

// lostText stands for the size of a tier whose device is gone.
const lostText = "lost"

// printGPUs shows what goes on in the GPU memory of each node, if any has some: how full it is,
// and what goes up and down.
func printGPUs(out io.Writer, reports []nodeReport) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	any := false
	for _, r := range reports {
		if r.Status == nil {
			continue
		}
		s := *r.Status
		ts := tierStatus(s, block.VRAM)
		if ts.Capacity == 0 {
			continue
		}
		if !any {
			fmt.Fprintln(w, "\nGPU MEMORY\tDEVICE\tUSED\tOBJECTS\tPINNED\tHITS\tPROMOTED\tDEMOTED\tLET GO\tIN FLIGHT\tWAITS\tERRORS")
			any = true
		}
		device := ts.Device
		if device == "" {
			device = "?"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%d\t%d\n", s.Node, device, fill(s, block.VRAM), ts.Objects, ts.Pinned, ts.Hits,
			s.Promoted, s.Demoted.Blocks, s.Demoted.LetGo, bytesText(ts.InFlight), ts.Waits, ts.Errors)
	}
	return w.Flush()
}
