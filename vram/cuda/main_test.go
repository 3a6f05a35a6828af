//go:build cuda && cgo

package cuda_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"cairn/tier"
	"cairn/tier/tiertest"
	"cairn/vram"
	"cairn/vram/cuda"
	"cairn/vram/cuda/driver"
	"cairn/vram/cuda/fakedriver"
	"cairn/vram/devicetest"
)

// Variables of the environment.
const (
	// requireGPU makes the tests use the system's driver, and fail without a GPU or with a fake driver.
	requireGPU = "CAIRN_REQUIRE_GPU"
	// driverPath names another driver: a fake one for a machine without gcc.
	driverPath = "CAIRN_CUDA_DRIVER"
)

// fake controls the driver where it is the fake one, and is nil on a GPU.
var fake *fakedriver.Control

func TestMain(m *testing.M) {
	devicetest.Engine(func() (vram.Device, error) {
		if err := cuda.Load(os.Getenv(driverPath)); err != nil {
			return nil, err
		}
		return cuda.Open(cuda.Config{})
	})
	os.Exit(run(m))
}

func run(m *testing.M) int {
	path := os.Getenv(driverPath)
	if path == "" && os.Getenv(requireGPU) == "" {
		dir, err := os.MkdirTemp("", "cairn-fakedriver")
		if err != nil {
			return failed(err)
		}
		defer os.RemoveAll(dir)
		if path, err = fakedriver.Build(dir); err != nil {
			return failed(err)
		}
		os.Setenv(driverPath, path) // for engines, which are children
	}
	if err := cuda.Load(path); err != nil {
		return failed(err)
	}
	// Asked of what was loaded: the system's driver may be a fake one, too. The error is that this is another.
	fake, _ = fakedriver.Open(driver.Path())
	if fake != nil && os.Getenv(requireGPU) != "" {
		return failed(fmt.Errorf("%s is set, and %s is a fake driver", requireGPU, driver.Path()))
	}
	if list, err := cuda.Devices(); err != nil || len(list) == 0 {
		return failed(fmt.Errorf("%d devices: %w", len(list), err))
	}
	return m.Run()
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "vram/cuda:", err)
	return 1
}

// needFake skips what only the fake driver can do.
func needFake(t testing.TB) {
	t.Helper()
	if fake == nil {
		t.Skip("a GPU does not fail on demand: needs the fake driver")
	}
}

// clean sees to it that nothing is left with the driver at the end of the test, after what is
// cleaned up otherwise.
func clean(t testing.TB) {
	t.Helper()
	if fake == nil {
		return
	}
	t.Cleanup(func() {
		checkLedger(t)
		fake.Reset()
	})
}

func checkLedger(t testing.TB) {
	t.Helper()
	if left := fake.Leaks(); left != (fakedriver.Leaks{}) {
		t.Errorf("left with the fake driver: %+v", left)
	}
	for _, text := range fake.Misuse() {
		// A killed process takes its mappings with it; the fake driver has not seen it go.
		if strings.HasSuffix(t.Name(), "/EngineDies") && strings.Contains(text, "mapped 1 times by other processes") {
			continue
		}
		t.Errorf("the fake driver has seen a mistake: %s", text)
	}
}

// opened is how many devices tests have open; the first of a test looks at what is left in the end.
var opened int

// open opens a device for the length of the test.
func open(t testing.TB, cfg cuda.Config) *cuda.Device {
	t.Helper()
	if opened == 0 {
		clean(t)
	}
	dev, err := cuda.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	opened++
	t.Cleanup(func() {
		opened--
		if err := dev.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return dev
}

func TestConformance(t *testing.T) {
	devicetest.Run(t, func(t testing.TB) vram.Device { return open(t, cuda.Config{}) })
}

func TestShared(t *testing.T) {
	devicetest.RunShared(t, func(t testing.TB) vram.Device { return open(t, cuda.Config{}) })
}

// TestPoolConformance runs the suite of all tiers on a pool on the device.
func TestPoolConformance(t *testing.T) {
	for name, cfg := range map[string]vram.Config{
		"one class":     {Classes: []int{64 * kib}},
		"three classes": {Classes: []int{256 * kib, 16 * kib, 64 * kib}, Streams: 1},
	} {
		t.Run(name, func(t *testing.T) {
			suite := tiertest.Config{MaxObject: cfg.Classes[0]}
			suite.Open = func(t testing.TB, o tiertest.Options) tier.Store {
				cfg.Capacity = o.Capacity
				return openPool(t, open(t, cuda.Config{}), cfg)
			}
			tiertest.Run(t, suite)
		})
	}
}

const kib = 1 << 10

// openPool opens a pool for the length of the test.
func openPool(t testing.TB, dev vram.Device, cfg vram.Config) *vram.Pool {
	t.Helper()
	p, err := vram.Open(dev, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the pool: %v", err)
		}
	})
	return p
}
