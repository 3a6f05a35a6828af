//go:build cuda && cgo

package main

import (
	"testing"

	"cairn/vram"
	"cairn/vram/cuda"
	"cairn/vram/emulated"
)

// engineDevice is the device of an engine process: a GPU by CUDA where it has a driver.
func engineDevice(driver string) (vram.Device, error) {
	if driver == "" {
		return emulated.New(emulated.Config{Memory: 1 << 20})
	}
	if err := cuda.Load(driver); err != nil {
		return nil, err
	}
	return cuda.Open(cuda.Config{})
}

// TestKilledEngineOnGPU is TestKilledEngine with node and engines on the fake driver's GPU,
// whose memory they share as CUDA's processes do.
func TestKilledEngineOnGPU(t *testing.T) {
	t.Parallel()
	path := fakeDriver(t)
	s := startSystem(t, systemConfig{nodes: 2, flags: deviceNode("--gpu", "0", "--gpu-driver", path)})
	killEngines(t, s, path)
	s.stop()
}
