// Package devicetest is the conformance suite of [vram.Device]: what the pool
// relies on, asked of every device, emulated or real.
package devicetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"cairn/tier"
	"cairn/vram"
)

// Need is how much memory, in bytes, a device must have free for the suite.
const Need = 64 << 20

// Run runs every case, each on a device of its own. open ends the test when it
// cannot open a device; the suite closes it.
func Run(t *testing.T, open func(t testing.TB) vram.Device) {
	t.Helper()
	t.Run("Register", func(t *testing.T) { testRegister(t, open) })
	for name, test := range map[string]func(*testing.T, vram.Device){
		"Memory":     testMemory,
		"Alloc":      testAlloc,
		"RoundTrip":  testRoundTrip,
		"Order":      testOrder,
		"Events":     testEvents,
		"EventReuse": testEventReuse,
		"Parallel":   testParallel,
		"Batch":      testBatch,
		"Handles":    testHandles,
		"Close":      testClose,
	} {
		t.Run(name, func(t *testing.T) { test(t, opened(t, open)) })
	}
}

// opened is a device that is closed at the end of the test.
func opened(t *testing.T, open func(testing.TB) vram.Device) vram.Device {
	t.Helper()
	dev := open(t)
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("Close at the end of the test: %v", err)
		}
	})
	return dev
}

func testMemory(t *testing.T, dev vram.Device) {
	if dev.Name() == "" {
		t.Error("the device has no name")
	}
	before, total, err := dev.Memory()
	if err != nil {
		t.Fatal(err)
	}
	if before < Need || total < before {
		t.Fatalf("%d bytes free of %d, the suite needs %d", before, total, Need)
	}
	alloc(t, dev, Need/2)
	after, _, err := dev.Memory()
	if err != nil {
		t.Fatal(err)
	}
	if before-after < Need/2 {
		t.Errorf("%d bytes were free, %d after an allocation of %d", before, after, Need/2)
	}
}

func testAlloc(t *testing.T, dev vram.Device) {
	free, total, err := dev.Memory()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{total + 1, 1<<63 - 1} {
		if _, err := dev.Alloc(n); !errors.Is(err, vram.ErrOutOfMemory) {
			t.Errorf("Alloc of %d bytes of %d gave %v, want ErrOutOfMemory", n, total, err)
		}
	}
	for _, n := range []int64{0, -1} {
		if _, err := dev.Alloc(n); err == nil {
			t.Errorf("Alloc of %d bytes gave no error", n)
		}
	}
	sizes := []int64{1, vram.Alignment, vram.Alignment + 1, 1 << 20}
	var addrs []vram.Addr
	for _, n := range sizes {
		addrs = append(addrs, alloc(t, dev, n))
	}
	for i, a := range addrs {
		for j, b := range addrs {
			if i != j && a < b+vram.Addr(sizes[j]) && b < a+vram.Addr(sizes[i]) {
				t.Errorf("allocations at %#x and %#x overlap", uint64(a), uint64(b))
			}
		}
	}
	for _, a := range addrs {
		if err := dev.Free(a); err != nil {
			t.Errorf("Free: %v", err)
		}
	}
	// Twice what there is passes through when it is given back.
	for range 8 {
		if err := dev.Free(alloc(t, dev, free/4)); err != nil {
			t.Fatal(err)
		}
	}
}

func testRoundTrip(t *testing.T, dev vram.Device) {
	s := stream(t, dev)
	a := alloc(t, dev, 1<<20)
	for i, n := range []int{1, 255, 4096, 64<<10 + 1, 512 << 10} {
		for _, offset := range []vram.Addr{0, 1, 4096, 333} {
			src, dst := pattern(i+int(offset), n), make([]byte, n)
			must(t, s.CopyIn(a+offset, src))
			must(t, s.CopyOut(dst, a+offset))
			wait(t, s)
			if !bytes.Equal(src, dst) {
				t.Fatalf("%d bytes at offset %d came back changed", n, offset)
			}
		}
	}
	if err := s.Synchronize(); err != nil {
		t.Errorf("Synchronize of an idle stream: %v", err)
	}
}

// testOrder queues copies that need one another and waits once.
func testOrder(t *testing.T, dev vram.Device) {
	const n, steps = 64 << 10, 32
	s := stream(t, dev)
	a := alloc(t, dev, (steps+1)*n)
	src, dst := pattern(1, n), make([]byte, n)
	must(t, s.CopyIn(a, src))
	for i := range vram.Addr(steps) {
		must(t, s.CopyDevice(a+(i+1)*n, a+i*n, n))
		must(t, s.CopyIn(a+i*n, make([]byte, n)))
	}
	must(t, s.CopyOut(dst, a+steps*n))
	must(t, s.Synchronize())
	if !bytes.Equal(src, dst) {
		t.Error("copies on one stream were not carried out in order")
	}
}

func testEvents(t *testing.T, dev vram.Device) {
	s := stream(t, dev)
	a := alloc(t, dev, 1<<20)
	src := pattern(2, 1<<20)
	must(t, s.CopyIn(a, src))
	e, err := s.Record()
	must(t, err)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := e.Wait(context.Background()); err != nil {
				t.Errorf("Wait: %v", err)
			}
			if !e.Done() {
				t.Error("an event is not done after Wait")
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.Wait(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with a canceled context: %v", err)
	}
	e.Release()
}

// testEventReuse gives events back before they complete: each must still tell of
// the work before it, not of another's.
func testEventReuse(t *testing.T, dev vram.Device) {
	const n = 64 << 10
	s := stream(t, dev)
	a := alloc(t, dev, n)
	for i := range 100 {
		src, dst := pattern(i, n), make([]byte, n)
		must(t, s.CopyIn(a, src))
		e, err := s.Record()
		must(t, err)
		e.Release()
		must(t, s.CopyOut(dst, a))
		wait(t, s)
		if !bytes.Equal(src, dst) {
			t.Fatalf("round %d: an event completed before the work before it", i)
		}
	}
}

// testParallel uses a stream from each of several goroutines, and one from all.
func testParallel(t *testing.T, dev vram.Device) {
	const workers, rounds, n = 4, 50, 32 << 10
	shared := stream(t, dev)
	a := alloc(t, dev, workers*n)
	var wg sync.WaitGroup
	for w := range workers {
		own := stream(t, dev)
		at := a + vram.Addr(w*n)
		wg.Go(func() {
			for i := range rounds {
				src, dst := pattern(w*rounds+i, n), make([]byte, n)
				err := copyAndWait(own, func() error { return own.CopyIn(at, src) })
				if err == nil {
					err = copyAndWait(shared, func() error { return shared.CopyOut(dst, at) })
				}
				if err != nil {
					t.Errorf("copy: %v", err)
				} else if !bytes.Equal(src, dst) {
					t.Error("bytes came back changed")
				}
			}
		})
	}
	wg.Wait()
}

func testClose(t *testing.T, dev vram.Device) {
	closed, open := stream(t, dev), stream(t, dev)
	a := alloc(t, dev, 4096)
	for range 2 {
		must(t, closed.Close())
	}
	if err := closed.CopyIn(a, make([]byte, 1)); !errors.Is(err, tier.ErrClosed) {
		t.Errorf("CopyIn on a closed stream gave %v, want ErrClosed", err)
	}
	must(t, open.CopyIn(a, make([]byte, 4096)))
	for range 2 {
		must(t, dev.Close())
	}
	_, _, memory := dev.Memory()
	_, alloc := dev.Alloc(1)
	_, newStream := dev.NewStream()
	_, record := open.Record()
	for what, err := range map[string]error{
		"Memory": memory, "Alloc": alloc, "Free": dev.Free(a), "NewStream": newStream, "Record": record,
		"CopyIn":      open.CopyIn(a, make([]byte, 1)),
		"CopyOut":     open.CopyOut(make([]byte, 1), a),
		"CopyDevice":  open.CopyDevice(a, a+8, 8),
		"Synchronize": open.Synchronize(),
	} {
		if !errors.Is(err, tier.ErrClosed) {
			t.Errorf("%s after Close gave %v, want ErrClosed", what, err)
		}
	}
	must(t, open.Close())
}

func alloc(t *testing.T, dev vram.Device, n int64) vram.Addr {
	t.Helper()
	a, err := dev.Alloc(n)
	if err != nil {
		t.Fatalf("Alloc of %d bytes: %v", n, err)
	}
	if a == 0 || a%vram.Alignment != 0 {
		t.Fatalf("Alloc gave the address %#x", uint64(a))
	}
	return a
}

func stream(t *testing.T, dev vram.Device) vram.Stream {
	t.Helper()
	s, err := dev.NewStream()
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, s vram.Stream) {
	t.Helper()
	must(t, copyAndWait(s, func() error { return nil }))
}

func copyAndWait(s vram.Stream, queue func() error) error {
	if err := queue(); err != nil {
		return err
	}
	e, err := s.Record()
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer e.Release()
	return e.Wait(context.Background())
}

// pattern is n bytes that differ from those of another seed.
func pattern(seed, n int) []byte {
	p := make([]byte, n+8)
	state := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := 0; i < n; i += 8 {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		binary.LittleEndian.PutUint64(p[i:], state)
	}
	return p[:n:n]
}
