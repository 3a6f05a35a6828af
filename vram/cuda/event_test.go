//go:build cuda && cgo

package cuda_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/cuda"
	"cairn/vram/cuda/driver"
	"cairn/vram/cuda/fakedriver"
)

// TestEventErrors: an event tells of the work since the event before it, and of no other.
func TestEventErrors(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	s, a, p := newStream(t, dev), alloc(t, dev, 4096), make([]byte, 100)
	fake.Hold("cuMemcpyHtoDAsync")
	fake.FailQueued("cuMemcpyHtoDAsync", 2, int(errInjected), false)
	fake.FailQueued("cuMemcpyHtoDAsync", 5, fakedriver.InvalidValue, false)
	fake.FailQueued("cuMemcpyHtoDAsync", 6, int(errInjected), false)
	var events []vram.Event
	for i := range 8 {
		must(t, s.CopyIn(a, p))
		if i != 4 { // so that one event is about copies 4 and 5
			events = append(events, record(t, s))
		}
	}
	fake.Release()
	for i, want := range []error{nil, errInjected, nil, nil, driver.Result(fakedriver.InvalidValue), nil, nil} {
		if err := events[i].Wait(context.Background()); !errors.Is(err, want) {
			t.Errorf("event %d gives %v, want %v", i, err, want)
		}
		events[i].Release()
	}
	must(t, s.Synchronize())
}

// asked waits until the driver was asked so often whether an event is over.
func asked(n int) {
	for fake.Calls("cuEventQuery") < n {
		runtime.Gosched()
	}
}

// TestErrorBehindTheLastEvent: an error of work without an event, which the driver gives to who waits for the
// whole stream, is told by the next event.
func TestErrorBehindTheLastEvent(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	s, a, p := newStream(t, dev), alloc(t, dev, 4096), make([]byte, 100)
	fake.Hold("cuEventRecord")
	plug := record(t, s)
	asked(1) // about plug, which the stream's goroutine waits for until all is queued
	must(t, s.CopyIn(a, p))
	first := record(t, s)
	must(t, s.CopyIn(a, p))
	fake.Fail("cuEventQuery", 1, int(errInjected), false) // about first; so the stream is waited for
	fake.FailQueued("cuMemcpyHtoDAsync", 2, fakedriver.InvalidValue, false)
	fake.Release()
	must(t, plug.Wait(context.Background()))
	plug.Release()
	if err := first.Wait(context.Background()); !errors.Is(err, errInjected) {
		t.Errorf("the first event gives %v", err)
	}
	first.Release()
	if err := s.Synchronize(); !errors.Is(err, driver.Result(fakedriver.InvalidValue)) {
		t.Errorf("the next event gives %v", err)
	}
	must(t, s.Synchronize())
}

// TestNobodyCanTell: a driver that does not say whether copies are over has lost the device, which then
// copies no more: the memory is used again.
func TestNobodyCanTell(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	s, other, a, p := newStream(t, dev), newStream(t, dev), alloc(t, dev, 4096), make([]byte, 100)
	fake.Hold("cuMemcpyDtoHAsync")
	must(t, s.CopyIn(a, p))
	must(t, other.CopyOut(p, a))
	pending := record(t, other)
	asked(1)
	fake.Fail("cuEventQuery", 1, int(errInjected), false)
	for i := range 3 {
		fake.Fail("cuStreamSynchronize", i+1, int(errInjected), false)
	}
	if err := s.Synchronize(); !errors.Is(err, tier.ErrDeviceLost) || !errors.Is(err, errInjected) {
		t.Errorf("Synchronize gave %v, want ErrDeviceLost", err)
	}
	if err := pending.Wait(context.Background()); !errors.Is(err, tier.ErrDeviceLost) {
		t.Errorf("an event of another stream gave %v, want ErrDeviceLost", err)
	}
	pending.Release()
	if n := fake.Queued(); n != 0 {
		t.Errorf("%d copies are under way on a device that is lost", n)
	}
	must(t, dev.Close())
	if left := fake.Leaks(); left.Contexts != 0 || left.Allocations != 0 || left.Streams != 0 {
		t.Errorf("left with the fake driver: %+v", left)
	}
	for _, text := range fake.Misuse() {
		t.Logf("the fake driver has seen: %s", text)
	}
	fake.Reset()
}

// TestWaitEndsWithContext: the waiter goes, the copy goes on.
func TestWaitEndsWithContext(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	s, a, dst := newStream(t, dev), alloc(t, dev, 4096), make([]byte, 4096)
	_, src := object(1, 4096)
	fake.Hold("cuMemcpyHtoDAsync")
	must(t, s.CopyIn(a, src))
	e := record(t, s)
	for _, after := range []time.Duration{0, time.Millisecond} {
		ctx, cancel := context.WithTimeout(context.Background(), after)
		if err := e.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || e.Done() {
			t.Errorf("Wait on work that is held gave %v, done %v", err, e.Done())
		}
		cancel()
	}
	e.Release()
	must(t, s.CopyOut(dst, a))
	e = record(t, s)
	fake.Release()
	must(t, e.Wait(context.Background()))
	e.Release()
	if !bytes.Equal(src, dst) {
		t.Error("bytes came back changed")
	}
}

// TestManyEvents: Record waits when too many are outstanding, and goes on when some are over. A Close
// meanwhile waits for all of them.
func TestManyEvents(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	s, a := newStream(t, dev), alloc(t, dev, 4096)
	fake.Hold("cuMemcpyHtoDAsync")
	must(t, s.CopyIn(a, make([]byte, 100)))
	const n = 3000
	recorded := make(chan vram.Event, n)
	go func() {
		defer close(recorded)
		for range n {
			e, err := s.Record()
			if err != nil {
				t.Error(err)
				return
			}
			recorded <- e
		}
	}()
	for len(recorded) < 1024 {
		runtime.Gosched()
	}
	if got := fake.Calls("cuEventRecord"); got > 1024 {
		t.Errorf("%d events are outstanding", got)
	}
	fake.Release()
	got := 0
	for e := range recorded {
		must(t, e.Wait(context.Background()))
		e.Release()
		got++
	}
	if got != n {
		t.Errorf("%d of %d events completed", got, n)
	}
}

// TestMemoryIsLetGo: copies without an event behind them do not pin memory for ever.
func TestMemoryIsLetGo(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	s, a := newStream(t, dev), alloc(t, dev, 4096)
	for range 5000 {
		must(t, s.CopyIn(a, make([]byte, 100)))
	}
	if n := fake.Calls("cuEventRecord"); n < 4 || n > 5 {
		t.Errorf("the stream has recorded %d events of its own for 5000 copies, want about 4", n)
	}
	must(t, s.Synchronize())
	must(t, s.CopyOut(make([]byte, 100), a)) // pinned when the stream is closed
}
