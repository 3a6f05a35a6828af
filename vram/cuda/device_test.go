//go:build cuda && cgo

package cuda_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/cuda"
	"cairn/vram/cuda/driver"
	"cairn/vram/cuda/fakedriver"
)

func newStream(t testing.TB, dev vram.Device) vram.BatchStream {
	t.Helper()
	s, err := dev.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	return s.(vram.BatchStream)
}

func alloc(t testing.TB, dev vram.Device, n int64) vram.Addr {
	t.Helper()
	a, err := dev.Alloc(n)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func record(t testing.TB, s vram.Stream) vram.Event {
	t.Helper()
	e, err := s.Record()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestDevices(t *testing.T) {
	list, err := cuda.Devices()
	if err != nil {
		t.Fatal(err)
	}
	version, err := cuda.DriverVersion()
	if err != nil || version < 11000 {
		t.Errorf("the driver's version is %d, %v", version, err)
	}
	seen := map[string]bool{}
	for i, info := range list {
		t.Logf("driver %d: %+v", version, info)
		if info.Ordinal != i || info.Name == "" || info.Memory <= 0 || strings.Count(info.PCI, ":") != 2 || !strings.Contains(info.Compute, ".") {
			t.Errorf("device %d is described as %+v", i, info)
		}
		if len(info.UUID) != len("GPU-00000000-0000-0000-0000-000000000000") || seen[info.UUID] {
			t.Errorf("device %d has the UUID %s", i, info.UUID)
		}
		seen[info.UUID] = true
		dev := open(t, cuda.Config{Ordinal: i})
		if kind, id := dev.Identity(); kind != "cuda" || id != info.UUID || dev.Info() != info || !strings.Contains(dev.Name(), info.Name) {
			t.Errorf("device %d says that it is %s, %s %s, %+v", i, dev.Name(), kind, id, dev.Info())
		}
	}
	if _, err := cuda.Open(cuda.Config{Ordinal: len(list)}); err == nil {
		t.Error("a device beyond the last was opened")
	}
	err = cuda.Config{Ordinal: -1, RegisterChunk: 5000}.Validate()
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 2 {
		t.Errorf("two problems were reported as %v", err)
	}
}

// TestTwoDevices works on two devices at once, from the same host memory; the loss of one is nothing to
// the other.
func TestTwoDevices(t *testing.T) {
	list, err := cuda.Devices()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 2 {
		t.Skip("this machine has one device")
	}
	const n, rounds = 300_000, 20
	arena := mapped(t, 4*n)
	var devices [2]*cuda.Device
	var wg sync.WaitGroup
	for i := range devices {
		devices[i] = open(t, cuda.Config{Ordinal: i})
		must(t, devices[i].Register(arena))
	}
	for i, dev := range devices {
		a, s := alloc(t, dev, n), newStream(t, dev)
		wg.Go(func() {
			src, dst := arena[2*i*n:][:n], arena[(2*i+1)*n:][:n]
			for round := range rounds {
				content(src, 2*round+i)
				if err := errors.Join(s.CopyIn(a, src), s.CopyOut(dst, a), s.Synchronize()); err != nil || !bytes.Equal(src, dst) {
					t.Errorf("device %d: bytes came back changed, %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if fake == nil {
		return
	}
	fake.Lose(0, fakedriver.LaunchFailed)
	if _, _, err := devices[0].Memory(); !errors.Is(err, tier.ErrDeviceLost) {
		t.Errorf("a lost device gave %v", err)
	}
	a, s := alloc(t, devices[1], n), newStream(t, devices[1])
	must(t, errors.Join(s.CopyIn(a, arena[:n]), s.Synchronize()))
	must(t, devices[0].Close())
	must(t, errors.Join(s.CopyOut(arena[n:2*n], a), s.Synchronize()))
	must(t, s.Close())
	must(t, devices[1].Close())
	fake.Reset() // nothing of a lost device comes back
}

// TestFinalErrors: whatever the driver calls the end of a device is one.
func TestFinalErrors(t *testing.T) {
	needFake(t)
	for _, code := range []int{
		fakedriver.DeviceUnavailable, 214, 220, fakedriver.IllegalAddress, 702, 709, 714, 715, 716, 717, 718, fakedriver.LaunchFailed, 802, fakedriver.Unknown,
	} {
		dev := open(t, cuda.Config{})
		s := newStream(t, dev)
		a := alloc(t, dev, 4096)
		fake.Lose(0, code)
		_, _, memory := dev.Memory()
		_, record := s.Record()
		_, export := dev.Export(a)
		p := make([]byte, 16)
		for what, err := range map[string]error{
			"Memory": memory, "Record": record, "Export": export, "Free": dev.Free(a), "CopyIn": s.CopyIn(a, p), "CopyOut": s.CopyOut(p, a),
			"CopyDevice": s.CopyDevice(a, a+16, 16), "CopyInBatch": s.CopyInBatch([]vram.Addr{a}, [][]byte{p}), "Synchronize": s.Synchronize(),
		} {
			if !errors.Is(err, tier.ErrDeviceLost) {
				t.Errorf("result %d: %s gave %v, want ErrDeviceLost", code, what, err)
			}
		}
		if !errors.Is(memory, driver.Result(code)) && !strings.Contains(memory.Error(), "lost") {
			t.Errorf("result %d: the error does not say so: %v", code, memory)
		}
		must(t, s.Close())
		must(t, dev.Close())
		fake.Reset()
	}
}

// TestErrorsAreTyped: what can be told apart by errors.Is, and how it reads.
func TestErrorsAreTyped(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	s, a, p := newStream(t, dev), alloc(t, dev, 4096), make([]byte, 100)
	for what, err := range map[string]error{
		"in":     s.CopyIn(a+4000, p),
		"out":    s.CopyOut(p, a-1),
		"device": s.CopyDevice(a+4000, a, 97),
		"batch":  s.CopyOutBatch([][]byte{p, p}, []vram.Addr{a, a + 4090}),
		"free":   dev.Free(a + 256),
	} {
		if !errors.Is(err, vram.ErrInvalidAddress) {
			t.Errorf("%s gave %v, want ErrInvalidAddress", what, err)
		}
	}
	if err := s.CopyInBatch([]vram.Addr{a}, nil); err == nil {
		t.Error("a batch of one address and no bytes was taken")
	}
	if n := fake.Queued(); n != 0 {
		t.Errorf("%d copies are queued", n)
	}
	fake.SetMemory(0, 1<<20)
	if _, err := dev.Alloc(2 << 20); !errors.Is(err, vram.ErrOutOfMemory) || !errors.Is(err, driver.Result(2)) {
		t.Errorf("Alloc on a full device gave %v", err)
	}
	fake.Fail("cuMemcpyHtoDAsync", 1, int(errInjected), false)
	err := s.CopyIn(a, p)
	if !errors.Is(err, errInjected) || !strings.HasPrefix(err.Error(), "cuda: copy in on fake driver, GPU 0: CUDA_ERROR_OPERATING_SYSTEM") {
		t.Errorf("a failed copy gave %v", err)
	}
	must(t, s.Synchronize()) // as that call queued nothing
}

// TestRequireGPU: where a GPU is required and there is no driver, the tests fail rather than skip.
func TestRequireGPU(t *testing.T) {
	out, err := again(t, "/nonexistent/libcuda.so.1", "^$", requireGPU+"=1")
	if err == nil || !strings.Contains(out, "no CUDA driver") {
		t.Errorf("without a driver the tests say %v\n%s", err, out)
	}
	// It says once whose error it is, and what to do; "vram/cuda: " is these tests' own.
	for _, part := range []string{"vram/cuda: cuda: no CUDA driver: /nonexistent/libcuda.so.1: ", "(install NVIDIA's driver"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	if err := cuda.Load("/nonexistent/libcuda.so.1"); err == nil || !strings.HasPrefix(err.Error(), "cuda: load /nonexistent/libcuda.so.1: ") {
		t.Errorf("loading a second driver gave %v", err)
	}
}
