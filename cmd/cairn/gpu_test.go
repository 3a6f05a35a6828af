package main

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// fakeGPUs stand for the GPUs of a machine: emulated devices that say they are not.
type fakeGPUs struct {
	list    []gpuInfo
	loadErr error
	busy    map[int]error // why one cannot be opened
	memory  int64         // of each
	regErr  error         // of Register

	loaded string
	opened []*fakeGPU
}

func (f *fakeGPUs) api() gpuAPI {
	return gpuAPI{
		support: "fake",
		load:    func(path string) error { f.loaded = path; return f.loadErr },
		driver:  func() (string, int, error) { return "fake", 13000, f.loadErr },
		devices: func() ([]gpuInfo, error) { return f.list, nil },
		open:    f.open,
	}
}

func (f *fakeGPUs) open(ordinal int) (vram.Device, error) {
	if err := f.busy[ordinal]; err != nil {
		return nil, err
	}
	dev, err := emulated.New(emulated.Config{Memory: f.memory})
	if err != nil {
		return nil, err
	}
	g := &fakeGPU{Device: dev, of: f, ordinal: ordinal}
	f.opened = append(f.opened, g)
	return g, nil
}

type fakeGPU struct {
	*emulated.Device
	of         *fakeGPUs
	ordinal    int
	registered [][]byte
	closed     bool
	onUnlock   error
}

func (g *fakeGPU) Register(p []byte) error {
	if g.of.regErr != nil {
		return g.of.regErr
	}
	g.registered = append(g.registered, p)
	return nil
}

func (g *fakeGPU) Unregister(p []byte) error {
	if g.onUnlock != nil {
		return g.onUnlock
	}
	g.registered = slices.DeleteFunc(g.registered, func(q []byte) bool { return &q[0] == &p[0] })
	return nil
}

func (g *fakeGPU) Close() error {
	g.closed = true
	return g.Device.Close()
}

// twoGPUs have 64 MiB each.
func twoGPUs() *fakeGPUs {
	return &fakeGPUs{memory: 64 << 20, list: []gpuInfo{
		{Ordinal: 0, Name: "Card A", UUID: "GPU-aaaa0000-0000-0000-0000-000000000001"},
		{Ordinal: 1, Name: "Card B", UUID: "GPU-aaaabbbb-0000-0000-0000-000000000002"},
	}}
}

func TestOpenDevice(t *testing.T) {
	const emulatedOne, none = -1, -2
	noDriver := errors.New("no NVIDIA driver")
	for _, tt := range []struct {
		name   string
		gpu    string
		want   vramSize
		change func(*fakeGPUs)
		static bool // no GPU support

		driver string // of --gpu-driver

		device int
		bytes  int64
		logs   string // one line of this, or none
		err    string
		usage  bool
	}{
		{name: "auto", gpu: gpuAuto, want: vramAuto, device: 0, bytes: 16 << 20},
		{name: "driver", gpu: gpuAuto, driver: "/lib/driver", want: vramAuto, device: 0, bytes: 16 << 20},
		{name: "driver is none", gpu: gpuAuto, driver: "/lib/driver", want: vramAuto, err: "--gpu-driver /lib/driver: no NVIDIA driver",
			change: func(f *fakeGPUs) { f.loadErr = noDriver }},
		{name: "size", gpu: gpuAuto, want: 8 << 20, device: 0, bytes: 8 << 20},
		{name: "whole slots", gpu: gpuAuto, want: 8<<20 + 5, device: 0, bytes: 8 << 20},
		{name: "number", gpu: "1", want: vramAuto, device: 1, bytes: 16 << 20},
		{name: "uuid", gpu: "GPU-AAAABB", want: vramAuto, device: 1, bytes: 16 << 20},
		{name: "uuid of two", gpu: "GPU-aaaa", want: vramAuto, err: "more than one UUID begins so; there are 0 (Card A, GPU-aaaa0000-", usage: true},
		{name: "uuid of an instance", gpu: "MIG-aaaabb", want: vramAuto, device: 1, bytes: 16 << 20},
		{name: "no such number", gpu: "7", want: vramAuto, err: "--gpu 7: there is no such GPU; there are 0 (Card A", usage: true},
		{name: "no such uuid", gpu: "GPU-c", want: vramAuto, err: "no such GPU", usage: true},
		{name: "off", gpu: gpuOff, want: vramAuto, device: none},
		{name: "none wanted", gpu: gpuAuto, want: 0, device: none},
		{name: "emulated", gpu: gpuEmulated, want: vramAuto, device: emulatedOne, bytes: emulatedBytes},
		{name: "emulated size", gpu: gpuEmulated, want: 1 << 20, device: emulatedOne, bytes: 1 << 20},
		{name: "static", static: true, gpu: gpuAuto, want: vramAuto, device: emulatedOne, bytes: emulatedBytes},
		{name: "static off", static: true, gpu: gpuOff, want: vramAuto, device: none},
		{name: "first is taken", gpu: gpuAuto, want: vramAuto, device: 1, bytes: 16 << 20,
			change: func(f *fakeGPUs) { f.busy = map[int]error{0: errors.New("exclusive")} }},
		{name: "all taken", gpu: gpuAuto, want: vramAuto, device: emulatedOne, bytes: emulatedBytes, logs: "GPU 1: exclusive",
			change: func(f *fakeGPUs) {
				f.busy = map[int]error{0: errors.New("exclusive"), 1: errors.New("exclusive")}
			}},
		{name: "named one is taken", gpu: "0", want: vramAuto, err: "--gpu 0: exclusive",
			change: func(f *fakeGPUs) { f.busy = map[int]error{0: errors.New("exclusive")} }},
		{name: "no driver", gpu: gpuAuto, want: vramAuto, device: emulatedOne, bytes: emulatedBytes, logs: "no NVIDIA driver",
			change: func(f *fakeGPUs) { f.loadErr = noDriver }},
		{name: "no driver for a number", gpu: "0", want: vramAuto, err: "--gpu 0: no NVIDIA driver",
			change: func(f *fakeGPUs) { f.loadErr = noDriver }},
		{name: "no card", gpu: gpuAuto, want: vramAuto, device: emulatedOne, bytes: emulatedBytes, logs: "the driver has no GPU",
			change: func(f *fakeGPUs) { f.list = nil }},
		{name: "too much", gpu: gpuAuto, want: 1 << 30, err: "--vram 1.0 GiB is too much: emulated has 64 MiB free of 64 MiB", usage: true},
		{name: "full card", gpu: gpuAuto, want: vramAuto, err: "--vram 512 KiB is too little: emulated has 2.0 MiB free", usage: true,
			change: func(f *fakeGPUs) { f.memory = 2 << 20 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake := twoGPUs()
			if tt.change != nil {
				tt.change(fake)
			}
			api := fake.api()
			if tt.static {
				api = gpuAPI{}
			}
			var text bytes.Buffer
			log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelWarn}))
			m, err := gpuFlags{GPU: tt.gpu, GPUDriver: tt.driver}.openDevice(api, tt.want, log)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || errors.Is(err, errUsage) != tt.usage {
					t.Fatalf("error %v, usage %v; want %q, %v", err, errors.Is(err, errUsage), tt.err, tt.usage)
				}
				for _, g := range fake.opened {
					if !g.closed {
						t.Errorf("GPU %d is left open", g.ordinal)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if lines := strings.Count(text.String(), "\n"); tt.logs == "" && lines > 0 || tt.logs != "" && (lines != 1 || !strings.Contains(text.String(), tt.logs)) {
				t.Errorf("logged %q, want one line with %q, or none where that is empty", text.String(), tt.logs)
			}
			got := none
			if m != nil {
				defer m.dev.Close()
				got = emulatedOne
				if g, ok := m.dev.(*fakeGPU); ok {
					got = g.ordinal
				}
				if m.emulated != (got == emulatedOne) || m.bytes != tt.bytes {
					t.Errorf("emulated %v, %d bytes; want %d bytes", m.emulated, m.bytes, tt.bytes)
				}
			}
			if got != tt.device {
				t.Errorf("device %d, want %d", got, tt.device)
			}
			if got >= 0 && fake.loaded != tt.driver {
				t.Errorf("driver %q was loaded", fake.loaded)
			}
		})
	}
}

func TestGPUFlag(t *testing.T) {
	with := twoGPUs().api()
	for _, tt := range []struct {
		gpu  string
		gpus gpuAPI
		err  string
	}{
		{gpuAuto, gpuAPI{}, ""}, {gpuOff, gpuAPI{}, ""}, {gpuEmulated, gpuAPI{}, ""},
		{"0", with, ""}, {"15", with, ""}, {"GPU-0123", with, ""}, {"MIG-0123", with, ""}, {gpuAuto, with, ""},
		{"0", gpuAPI{}, "make cuda"}, {"GPU-0123", gpuAPI{}, "make cuda"},
		{"-1", with, "want auto, off, emulated"}, {"first", with, "want auto"}, {"1e3", with, "want auto"}, {"", with, "want auto"}, {"0123-4567", with, "begins with GPU- or MIG-"}, {"99999", with, "want auto"},
	} {
		err := gpuFlags{GPU: tt.gpu}.validate(tt.gpus)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("--gpu %q: %v, want %q", tt.gpu, err, tt.err)
		}
	}
	if err := (gpuFlags{GPU: gpuAuto, GPUDriver: "x"}).validate(gpuAPI{}); !errors.Is(err, errNoGPUSupport) {
		t.Errorf("--gpu-driver without GPU support: %v", err)
	}
}

func TestVRAMSize(t *testing.T) {
	for text, want := range map[string]vramSize{"auto": vramAuto, "0": 0, "64MiB": 64 << 20} {
		var s vramSize
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
		var again vramSize
		if err := again.UnmarshalText([]byte(s.arg())); err != nil || again != s {
			t.Errorf("%s: handed on as %q, which is %d, %v", text, s.arg(), again, err)
		}
	}
	var s vramSize
	if err := s.UnmarshalText([]byte("lots")); err == nil || !strings.Contains(err.Error(), "1.5GiB, or auto") {
		t.Errorf("lots: %v", err)
	}
}

// What cairn up is given for its nodes reaches them: each has a device, the list in turn.
func TestUpHandsOnGPUs(t *testing.T) {
	c := upCmd{Nodes: 3, GPU: []string{"0", "GPU-aaaa"}, GPUDriver: "/lib/driver", VRAM: vramAuto, Host: 1 << 20, Lease: time.Second, Data: "/d", Port: 7070}
	for i, gpu := range []string{"0", "GPU-aaaa", "0"} {
		n, err := nodeDefaults(c.nodeArgs(i, "n1")[1:]...)
		if err != nil || n.GPU != gpu || n.GPUDriver != "/lib/driver" || n.VRAM != vramAuto || n.Host != 1<<20 || n.ID != "n1" || n.Data != "/d/n1" {
			t.Errorf("node %d: %+v, %v", i, n, err)
		}
	}
	n, err := nodeDefaults(upCmd{VRAM: 5 << 20, Lease: time.Second}.nodeArgs(0, "n1")[1:]...)
	if err != nil || n.GPU != gpuAuto || n.VRAM != 5<<20 {
		t.Errorf("%+v, %v", n.gpuFlags, err)
	}
}

func TestPageLock(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	mem := make([]byte, 4096)

	if f := (*gpuMemory)(nil).pageLock(log); f != nil {
		t.Error("no device locks memory")
	}
	fake := twoGPUs()
	dev, err := fake.open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	g := fake.opened[0]
	unlock, err := (&gpuMemory{dev: dev}).pageLock(log)(mem)
	if err != nil || len(g.registered) != 1 || !strings.Contains(text.String(), "host memory is page-locked") || !strings.Contains(text.String(), "bytes=4096") {
		t.Fatalf("error %v, %d registered, log %q", err, len(g.registered), text.String())
	}
	if err := unlock(); err != nil || len(g.registered) != 0 {
		t.Errorf("unlock: %v, %d registered", err, len(g.registered))
	}
	for _, gone := range []error{tier.ErrClosed, tier.ErrDeviceLost} {
		g.onUnlock = gone
		if err := unlock(); err != nil {
			t.Errorf("unlock after %v: %v", gone, err)
		}
	}
	g.onUnlock = vram.ErrInvalidAddress
	if err := unlock(); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("unlock hides %v: %v", g.onUnlock, err)
	}

	text.Reset()
	fake.regErr = errors.New("too much page-locked memory")
	if unlock, err := (&gpuMemory{dev: dev}).pageLock(log)(mem); unlock != nil || err != nil {
		t.Errorf("a refusal ends the start: %v", err)
	}
	if !strings.Contains(text.String(), "ulimit -l") || strings.Count(text.String(), "\n") != 1 {
		t.Errorf("a refusal says %q", text.String())
	}
}

func TestCUDAVersionText(t *testing.T) {
	for v, want := range map[int]string{13000: "13.0", 12080: "12.8", 12010: "12.1"} {
		if got := cudaVersionText(v); got != want {
			t.Errorf("%d: %s, want %s", v, got, want)
		}
	}
}
