package devicetest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"cairn/vram"
	"cairn/vram/devicetest"
	"cairn/vram/emulated"
)

// brokenVariable makes this binary run the suite on the broken device of that name.
const brokenVariable = "CAIRN_DEVICETEST_BROKEN"

func TestMain(m *testing.M) {
	devicetest.Engine(func() (vram.Device, error) { return emulated.New(emulated.Config{Memory: devicetest.Need}) })
	os.Exit(m.Run())
}

func open(t testing.TB) *emulated.Device {
	dev, err := emulated.New(emulated.Config{Memory: devicetest.Need})
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func TestEmulated(t *testing.T) {
	devicetest.Run(t, func(t testing.TB) vram.Device { return open(t) })
	devicetest.RunShared(t, func(t testing.TB) vram.Device { return open(t) })
}

// The devices below each break one promise of package vram. The suite must refuse every one of them.

type keepsMemory struct{ *emulated.Device }

func (d keepsMemory) Free(vram.Addr) error { return nil }

type otherError struct{ *emulated.Device }

func (d otherError) Alloc(n int64) (vram.Addr, error) {
	a, err := d.Device.Alloc(n)
	if errors.Is(err, vram.ErrOutOfMemory) {
		err = errors.New("no")
	}
	return a, err
}

type overlaps struct{ *emulated.Device }

func (d overlaps) Alloc(n int64) (vram.Addr, error) { return d.Device.Alloc((n + 1) / 2) }

type ownImport struct{ *emulated.Device }

func (d ownImport) Import(h vram.Handle) (vram.Addr, int64, error) {
	a, size, err := d.Device.Import(h)
	if err != nil {
		return 0, 0, err
	}
	if err := d.Device.Unimport(a); err != nil {
		return 0, 0, err
	}
	a, err = d.Device.Alloc(size)
	return a, size, err
}

type anyHandle struct{ *emulated.Device }

func (d anyHandle) Export(a vram.Addr) (vram.Handle, error) {
	if h, err := d.Device.Export(a); err == nil {
		return h, nil
	}
	return d.Device.Export(a - vram.Alignment)
}

type keepsImport struct{ *emulated.Device }

func (d keepsImport) Unimport(vram.Addr) error { return nil }

// streams is a device whose streams are wrapped.
type streams struct {
	*emulated.Device
	wrap func(vram.BatchStream) vram.Stream
}

func (d streams) NewStream() (vram.Stream, error) {
	s, err := d.Device.NewStream()
	if err != nil {
		return nil, err
	}
	return d.wrap(s.(vram.BatchStream)), nil
}

type cutsCopies struct{ vram.BatchStream }

func (s cutsCopies) CopyIn(dst vram.Addr, src []byte) error {
	return s.BatchStream.CopyIn(dst, src[:max(1, len(src)-1)])
}

type cutsBatches struct{ vram.BatchStream }

func (s cutsBatches) CopyOutBatch(dst [][]byte, src []vram.Addr) error {
	return s.BatchStream.CopyOutBatch(dst[:len(dst)-1], src[:len(src)-1])
}

type forgetsClose struct{ vram.BatchStream }

func (s forgetsClose) Close() error { return nil }

// early is a stream whose events are over before the work is.
type early struct{ vram.BatchStream }

type earlyEvent struct{ vram.Event }

func (s early) Record() (vram.Event, error) {
	e, err := s.BatchStream.Record()
	return earlyEvent{e}, err
}

func (e earlyEvent) Done() bool                 { return true }
func (e earlyEvent) Wait(context.Context) error { return nil }

var broken = map[string]func(testing.TB) vram.Device{
	"memory that is freed is gone":   func(t testing.TB) vram.Device { return keepsMemory{open(t)} },
	"out of memory is not typed":     func(t testing.TB) vram.Device { return otherError{open(t)} },
	"allocations are too small":      func(t testing.TB) vram.Device { return overlaps{open(t)} },
	"an import is other memory":      func(t testing.TB) vram.Device { return ownImport{open(t)} },
	"handles of no allocation":       func(t testing.TB) vram.Device { return anyHandle{open(t)} },
	"what is unmapped stays mapped":  func(t testing.TB) vram.Device { return keepsImport{open(t)} },
	"copies are cut":                 wrapped(func(s vram.BatchStream) vram.Stream { return cutsCopies{s} }),
	"batches are cut":                wrapped(func(s vram.BatchStream) vram.Stream { return cutsBatches{s} }),
	"streams do not close":           wrapped(func(s vram.BatchStream) vram.Stream { return forgetsClose{s} }),
	"events complete before copying": wrapped(func(s vram.BatchStream) vram.Stream { return early{s} }),
}

func wrapped(wrap func(vram.BatchStream) vram.Stream) func(testing.TB) vram.Device {
	return func(t testing.TB) vram.Device { return streams{open(t), wrap} }
}

// TestBroken runs the suite in a process of its own on each device that is broken.
func TestBroken(t *testing.T) {
	if name := os.Getenv(brokenVariable); name != "" {
		devicetest.Run(t, broken[name])
		devicetest.RunShared(t, broken[name])
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(exe, "-test.run=^TestBroken$", "-test.timeout=5m")
			cmd.Env = append(os.Environ(), brokenVariable+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestBroken/") || strings.Contains(string(out), "panic:") {
				t.Errorf("the suite says %v of it:\n%s", err, out)
			}
		})
	}
}
