package engram

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"cairn/vram"
	"cairn/vram/emulated"
)

// bench is an emulated device with its memory, and a hook that a test may set.
type bench struct {
	t   testing.TB
	dev *emulated.Device
	mem *Memory

	mu   sync.Mutex
	hook func(emulated.Call) error
}

const deviceMemory = 1 << 20

// newBench checks at the end that nothing is left on the device.
func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t}
	var err error
	b.dev, err = emulated.New(emulated.Config{Memory: deviceMemory, Hook: func(c emulated.Call) error {
		b.mu.Lock()
		hook := b.hook
		b.mu.Unlock()
		if hook == nil {
			return nil
		}
		return hook(c)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if b.mem, err = NewMemory(b.dev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.mem.Close(); err != nil {
			t.Errorf("close the memory: %v", err)
		}
		if err := b.dev.Close(); err != nil {
			t.Errorf("close the device: %v", err)
		}
	})
	return b
}

// plain makes the bench's streams ones that know no batches. Nothing may be on the
// device.
func (b *bench) plain() {
	b.t.Helper()
	mem, err := NewMemory(plainDevice{b.dev})
	if err = errors.Join(err, b.mem.Close()); err != nil {
		b.t.Fatal(err)
	}
	b.mem = mem
}

type plainDevice struct{ vram.Device }

func (d plainDevice) NewStream() (vram.Stream, error) {
	s, err := d.Device.NewStream()
	return struct{ vram.Stream }{s}, err
}

func (b *bench) set(hook func(emulated.Call) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

// fail makes the operation fail whenever it is carried out.
func (b *bench) fail(op emulated.Op) {
	b.set(func(c emulated.Call) error {
		if isCopy(c, op) {
			return errBroken
		}
		return nil
	})
}

// isCopy tells whether a call is the operation, by itself or in a batch.
func isCopy(c emulated.Call, op emulated.Op) bool {
	return strings.HasPrefix(c.Op.String(), op.String())
}

var errBroken = errors.New("broken by the test")

// used is how much of the device's memory is allocated.
func (b *bench) used() int64 {
	b.t.Helper()
	free, total, err := b.dev.Memory()
	if err != nil {
		b.t.Fatal(err)
	}
	return total - free
}

// empty checks that nothing is allocated.
func (b *bench) empty() {
	b.t.Helper()
	if used := b.used(); used != 0 {
		b.t.Errorf("%d bytes of the device are allocated, want none", used)
	}
}

func (b *bench) engram(data string) *Engram {
	b.t.Helper()
	e := New([]byte(data))
	if err := e.Attach(b.mem); err != nil {
		b.t.Fatal(err)
	}
	return e
}

// do runs an operation by its name, as the tests of package coherency do.
func (b *bench) do(e *Engram, op string) error {
	ctx := b.t.Context()
	set := func(s string) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) { return []byte(s), nil }
	}
	failing := func(op emulated.Op, f func(context.Context) error) error {
		b.fail(op)
		defer b.set(nil)
		return f(ctx)
	}
	switch op {
	case "look", "read host":
		return e.ReadHost(func([]byte) error { return nil })
	case "host write":
		_, err := e.WriteHost(ctx, set("host"))
		return err
	case "host grow":
		_, err := e.WriteHost(ctx, set("a longer host"))
		return err
	case "host shrink":
		_, err := e.WriteHost(ctx, set("h"))
		return err
	case "device write":
		_, err := e.WriteDevice(ctx, b.write("card"))
		return err
	case "unmarked device write":
		return b.poke(e, "poke")
	case "mark":
		_, err := e.MarkDeviceDirty(ctx)
		return err
	case "check":
		_, err := e.CheckDevice(ctx)
		return err
	case "upload":
		return e.Upload(ctx)
	case "failing upload":
		return failing(emulated.CopyIn, e.Upload)
	case "download":
		return e.Download(ctx)
	case "failing download":
		return failing(emulated.CopyOut, e.Download)
	case "sync":
		return e.Sync(ctx)
	case "release":
		return e.Release(ctx)
	case "failing release":
		return failing(emulated.CopyOut, e.Release)
	case "drop host":
		return e.DropHost(ctx)
	}
	panic(op)
}

// write is a function for WriteDevice: a kernel that fills all bytes with s, again and
// again.
func (b *bench) write(s string) func(vram.Addr, int64) error {
	return func(a vram.Addr, n int64) error {
		p := bytes.Repeat([]byte(s), int(n)/max(len(s), 1)+1)[:n]
		return b.mem.CopyIn(b.t.Context(), a, p)
	}
}

// poke writes to where the engram is without a word.
func (b *bench) poke(e *Engram, s string) error {
	e.mu.Lock()
	held := e.device
	e.mu.Unlock()
	if held == nil {
		return nil
	}
	return b.write(s)(held.addr, held.size)
}

// on reads what the device holds of e, of whatever version.
func (b *bench) on(e *Engram) string {
	b.t.Helper()
	e.mu.Lock()
	held := e.device
	e.mu.Unlock()
	if held == nil {
		return "-"
	}
	p := make([]byte, held.size)
	if err := b.mem.CopyOut(b.t.Context(), p, held.addr); err != nil {
		b.t.Fatal(err)
	}
	return string(p)
}

// is says everything about an engram in a line: state, version, host's bytes, device's.
func (b *bench) is(e *Engram) string {
	e.mu.Lock()
	host := "-"
	if v, _ := e.mirror.Holds(Host); v != 0 {
		host = string(e.host)
	}
	e.mu.Unlock()
	return fmt.Sprintf("%s %d %q %q", e.State(), e.Version(), host, b.on(e))
}

func (b *bench) want(e *Engram, want string) {
	b.t.Helper()
	if got := b.is(e); got != want {
		b.t.Errorf("the engram is %s, want %s", got, want)
	}
}

// run runs operations of which none may fail.
func (b *bench) run(e *Engram, ops ...string) {
	b.t.Helper()
	for _, op := range ops {
		if err := b.do(e, op); err != nil {
			b.t.Fatalf("%s: %v", op, err)
		}
	}
}
