package emulated

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/devicetest"
)

func open(t testing.TB, cfg Config) *Device {
	t.Helper()
	dev, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

func TestConformance(t *testing.T) {
	devicetest.Run(t, func(t testing.TB) vram.Device {
		return open(t, Config{Memory: devicetest.Need})
	})
}

func TestValidate(t *testing.T) {
	for _, n := range []int64{-1, 100, -vram.Alignment} {
		if _, err := New(Config{Memory: n}); err == nil {
			t.Errorf("a device of %d bytes was made", n)
		}
	}
	if total := int64(len(open(t, Config{}).memory)); total != DefaultMemory {
		t.Errorf("the zero Config gives %d bytes, want %d", total, DefaultMemory)
	}
}

// TestAllocFirstFit: what was given back between two allocations is used again.
func TestAllocFirstFit(t *testing.T) {
	dev := open(t, Config{Memory: 4 * vram.Alignment})
	var a [4]vram.Addr
	for i := range a {
		var err error
		if a[i], err = dev.Alloc(vram.Alignment); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dev.Alloc(1); !errors.Is(err, vram.ErrOutOfMemory) {
		t.Errorf("Alloc on a full device gave %v", err)
	}
	for _, i := range []int{1, 3} {
		if err := dev.Free(a[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dev.Alloc(2 * vram.Alignment); !errors.Is(err, vram.ErrOutOfMemory) {
		t.Errorf("two holes were taken for one: %v", err)
	}
	if got, err := dev.Alloc(1); err != nil || got != a[1] {
		t.Errorf("Alloc = %#x, %v, want the hole at %#x", got, err, a[1])
	}
	if err := dev.Free(a[3]); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("a second Free gave %v, want ErrInvalidAddress", err)
	}
}

func TestAddressesAreChecked(t *testing.T) {
	dev := open(t, Config{Memory: 1 << 20})
	s, err := dev.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	a, err := dev.Alloc(4096)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	for name, err := range map[string]error{
		"in beyond the end":    s.CopyIn(a+1, p),
		"in before the start":  s.CopyIn(a-1, p),
		"in at no address":     s.CopyIn(0, p),
		"in far away":          s.CopyIn(^vram.Addr(0), p),
		"out beyond the end":   s.CopyOut(p, a+1),
		"device, bad source":   s.CopyDevice(a, a+4000, 97),
		"device, bad target":   s.CopyDevice(a+4000, a, 97),
		"device, bad length":   s.CopyDevice(a, a, -1),
		"device, large length": s.CopyDevice(a, a, 1<<62),
	} {
		if !errors.Is(err, vram.ErrInvalidAddress) {
			t.Errorf("copy %s gave %v, want ErrInvalidAddress", name, err)
		}
	}
	if err := s.Synchronize(); err != nil {
		t.Errorf("a refused copy left an error in the stream: %v", err)
	}
}

// TestErrorsArriveWithTheNextEvent: a copy that fails when it is carried out shows
// in the first event behind it and nowhere else.
func TestErrorsArriveWithTheNextEvent(t *testing.T) {
	broken := errors.New("broken")
	copies := 0
	dev := open(t, Config{Memory: 1 << 20, Hook: func(c Call) error {
		if c.Op == CopyIn && c.Queued {
			if copies++; copies == 2 {
				return broken
			}
		}
		return nil
	}})
	s, _ := dev.NewStream()
	a, _ := dev.Alloc(16)
	for i, want := range []error{nil, broken, nil} {
		if err := s.CopyIn(a, bytes.Repeat([]byte{byte(i)}, 16)); err != nil {
			t.Fatal(err)
		}
		e, err := s.Record()
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Wait(context.Background()); !errors.Is(err, want) {
			t.Errorf("event %d gives %v, want %v", i, err, want)
		}
		e.Release()
	}
}

// TestAsynchronous: a copy is carried out after the call that queued it, and
// streams do not wait for one another.
func TestAsynchronous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		held := false
		dev, err := New(Config{Memory: 1 << 20, Hook: func(c Call) error {
			if c.Op == CopyIn && c.Queued && !held {
				held = true
				<-gate
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		slow, _ := dev.NewStream()
		quick, _ := dev.NewStream()
		a, _ := dev.Alloc(32)
		src := bytes.Repeat([]byte{7}, 16)
		if err := slow.CopyIn(a, src); err != nil {
			t.Fatal(err)
		}
		e, err := slow.Record()
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the stream stands in front of the gate
		if e.Done() {
			t.Error("the event completed before the copy")
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := e.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with a canceled context gave %v", err)
		}
		if err := quick.CopyIn(a+16, src); err != nil {
			t.Fatal(err)
		}
		if err := quick.Synchronize(); err != nil {
			t.Errorf("another stream: %v", err)
		}
		close(gate)
		if err := e.Wait(context.Background()); err != nil {
			t.Errorf("Wait: %v", err)
		}
		e.Release()
		dst := make([]byte, 32)
		if err := slow.CopyOut(dst, a); err != nil {
			t.Fatal(err)
		}
		if err := slow.Synchronize(); err != nil || !bytes.Equal(dst, append(src, src...)) {
			t.Errorf("read back %v, %v", dst, err)
		}
	})
}

func TestLost(t *testing.T) {
	for _, queued := range []bool{false, true} {
		dev := open(t, Config{Memory: 1 << 20, Hook: func(c Call) error {
			if c == (Call{CopyIn, queued}) {
				return tier.ErrDeviceLost
			}
			return nil
		}})
		s, _ := dev.NewStream()
		a, _ := dev.Alloc(16)
		p := make([]byte, 16)
		err := s.CopyIn(a, p)
		if queued != (err == nil) {
			t.Errorf("queued %v: CopyIn gave %v", queued, err)
		}
		if err := s.Synchronize(); !errors.Is(err, tier.ErrDeviceLost) {
			t.Errorf("Synchronize gave %v", err)
		}
		_, _, memory := dev.Memory()
		_, alloc := dev.Alloc(1)
		_, newStream := dev.NewStream()
		_, record := s.Record()
		for what, err := range map[string]error{
			"Memory": memory, "Alloc": alloc, "NewStream": newStream, "Record": record, "Free": dev.Free(a),
			"CopyIn": s.CopyIn(a, p), "CopyOut": s.CopyOut(p, a), "CopyDevice": s.CopyDevice(a, a+8, 8),
		} {
			if !errors.Is(err, tier.ErrDeviceLost) {
				t.Errorf("%s on a lost device gave %v, want ErrDeviceLost", what, err)
			}
		}
		if err := dev.Close(); err != nil {
			t.Errorf("Close of a lost device: %v", err)
		}
	}
}
