//go:build !cuda || !cgo

package main

import (
	"errors"

	"cairn/vram"
	"cairn/vram/emulated"
)

// engineDevice is the device of an engine process.
func engineDevice(driver string) (vram.Device, error) {
	if driver != "" {
		return nil, errors.New("this binary has no GPU support")
	}
	return emulated.New(emulated.Config{Memory: 1 << 20})
}
