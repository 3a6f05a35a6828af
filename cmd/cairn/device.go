package main

import (
	"errors"
	"fmt"
	"time"

	"cairn/node"
)

// deviceFlags are the limits of engines on this machine that work in the node's GPU memory;
// see node.Config.
type deviceFlags struct {
	DevicePins           float64       `help:"Share of GPU memory that engines on this machine may hold in place, as blocks that they read and slots that they fill, above 0 to 1." default:"0.5"`
	MaxDeviceHolds       int           `help:"Most slots and pins in GPU memory of one connection." default:"4096"`
	MaxDeviceRegions     int           `help:"Most pieces of its own memory that an engine's connection may let the node map." default:"16"`
	MaxDeviceRegionBytes size          `help:"Most bytes of these pieces together." default:"256GiB"`
	DeviceIdle           time.Duration `help:"After how long without a command an engine loses what it holds of GPU memory." default:"10m"`
}

func (f deviceFlags) validate() error {
	var errs []error
	for _, limit := range []struct {
		flag  string
		value int64
	}{
		{"--max-device-holds", int64(f.MaxDeviceHolds)}, {"--max-device-regions", int64(f.MaxDeviceRegions)},
		{"--max-device-region-bytes", int64(f.MaxDeviceRegionBytes)}, {"--device-idle", int64(f.DeviceIdle)},
	} {
		if limit.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: want more than 0", limit.flag))
		}
	}
	if !(f.DevicePins > 0 && f.DevicePins <= 1) { // also refuses NaN
		errs = append(errs, fmt.Errorf("--device-pins %v: want above 0, to 1", f.DevicePins))
	}
	return errors.Join(errs...)
}

func (f deviceFlags) apply(c *node.Config) {
	c.DevicePins, c.DeviceHolds, c.DeviceRegions = f.DevicePins, f.MaxDeviceHolds, f.MaxDeviceRegions
	c.DeviceRegionBytes, c.DeviceIdle = int64(f.MaxDeviceRegionBytes), f.DeviceIdle
}
