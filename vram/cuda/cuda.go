//go:build cuda && cgo

package cuda

import (
	"fmt"
	"math"
	"strings"

	"gorgonia.org/cu"

	"cairn/vram/cuda/driver"
)

// Load loads the CUDA driver's library, "" being the one of the system, and starts it. It must
// succeed before anything else here does; doing so again changes nothing. ErrNoDriver says that there is
// none; any other error is the driver's own.
func Load(path string) error {
	if err := driver.Load(path); err != nil {
		return fmt.Errorf("cuda: %w", err) // it names the library and what failed
	}
	return nil
}

// DriverVersion is the newest version of CUDA that the driver knows, as 1000·major + 10·minor: 12080
// is 12.8.
func DriverVersion() (int, error) {
	if err := driver.Err(); err != nil {
		return 0, fmt.Errorf("cuda: read the driver's version: %w", err)
	}
	return cu.Version(), nil
}

// Info describes one GPU.
type Info struct {
	Ordinal int    // what Config.Ordinal takes
	Name    string // as NVIDIA calls the model
	UUID    string // GPU- and 36 characters; the same in every process and container
	PCI     string // address on the bus: domain:bus:device.function
	Compute string // compute capability: 9.0
	Memory  int64  // in bytes, in all
}

// Devices lists the GPUs that the driver shows to this process, which CUDA_VISIBLE_DEVICES may narrow.
func Devices() ([]Info, error) {
	if err := driver.Err(); err != nil {
		return nil, fmt.Errorf("cuda: list the devices: %w", err)
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("cuda: count the devices: %w", plain(err))
	}
	list := make([]Info, n)
	for i := range list {
		if list[i], err = describe(i); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func describe(ordinal int) (Info, error) {
	info := Info{Ordinal: ordinal}
	fail := func(what string, err error) (Info, error) {
		return info, fmt.Errorf("cuda: read the %s of device %d: %w", what, ordinal, plain(err))
	}
	if ordinal < 0 || ordinal > math.MaxInt32 {
		return fail("number", fmt.Errorf("want 0 or more"))
	}
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return fail("handle", err)
	}
	if info.Name, err = dev.Name(); err != nil {
		return fail("name", err)
	}
	if info.Memory, err = dev.TotalMem(); err != nil {
		return fail("memory size", err)
	}
	id, err := driver.Uuid(int(dev))
	if err != nil {
		return fail("UUID", err)
	}
	info.UUID = fmt.Sprintf("GPU-%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	bus, err := driver.PCIBusID(int(dev))
	if err != nil {
		return fail("address on the bus", err)
	}
	info.PCI = strings.ToLower(bus) // as the kernel writes it
	var a [2]int
	for i, what := range []cu.DeviceAttribute{cu.ComputeCapabilityMajor, cu.ComputeCapabilityMinor} {
		if a[i], err = dev.Attribute(what); err != nil {
			return fail("attributes", err)
		}
	}
	info.Compute = fmt.Sprintf("%d.%d", a[0], a[1])
	return info, nil
}
