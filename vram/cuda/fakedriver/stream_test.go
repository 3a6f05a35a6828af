//go:build cuda && cgo

package fakedriver

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestLater: a copy is carried out after the call, with what its source holds by then.
func TestLater(t *testing.T) {
	u := opened(t, 0)
	const n = 4096
	src, dst := hostMemory(t, n), hostMemory(t, n)
	a, s, e := u.alloc(n), u.stream(), u.event()
	u.ok("cuEventQuery", e) // not recorded yet: nothing to wait for
	u.Hold("cuMemcpyHtoDAsync")
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(src), n, s)
	u.ok("cuMemcpyDtoHAsync_v2", addr(dst), a, n, s)
	u.ok("cuEventRecord", e, s)
	copy(src, pattern(n, 3))
	u.want(NotReady, "cuEventQuery", e)
	u.want(NotReady, "cuStreamQuery", s)
	if got := u.Queued(); got != 3 {
		t.Errorf("%d entries are queued, want 3", got)
	}
	if !bytes.Equal(dst, make([]byte, n)) {
		t.Error("a copy was carried out in spite of Hold")
	}
	u.Release()
	u.ok("cuEventSynchronize", e)
	if !bytes.Equal(dst, src) {
		t.Error("the copy took what its source held at the call")
	}
	u.ok("cuStreamQuery", s)
	u.misused()
}

func TestDelay(t *testing.T) {
	u := opened(t, 0)
	src := hostMemory(t, 64)
	a, s := u.alloc(64), u.stream()
	const d = 30 * time.Millisecond
	for _, call := range []string{"cuMemcpyHtoDAsync", "cuStreamSynchronize"} { // in the stream; in the call
		u.Delay(call, d)
		start := time.Now()
		u.ok("cuMemcpyHtoDAsync_v2", a, addr(src), 64, s)
		u.ok("cuStreamSynchronize", s)
		if took := time.Since(start); took < d {
			t.Errorf("with a delay of %v in %s it took %v", d, call, took)
		}
		u.Delay(call, 0)
	}
}

// TestStreamsApart: streams do not wait for each other, unless they are told to.
func TestStreamsApart(t *testing.T) {
	u := opened(t, 0)
	const n = 1 << 16
	src, dst := hostMemory(t, n), hostMemory(t, n)
	copy(src, pattern(n, 5))
	a, s1, s2, e := u.alloc(n), u.stream(), u.stream(), u.event()
	u.Hold("cuMemcpyHtoDAsync")
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(src), n, s1)
	u.ok("cuEventRecord", e, s1)
	u.ok("cuMemcpyDtoHAsync_v2", addr(dst), a, n, s2)
	u.ok("cuStreamSynchronize", s2) // would never end
	if !bytes.Equal(dst, make([]byte, n)) {
		t.Error("the second stream read what the first one has not written")
	}
	u.ok("cuStreamWaitEvent", s2, e, 0)
	u.ok("cuMemcpyDtoHAsync_v2", addr(dst), a, n, s2)
	u.want(NotReady, "cuStreamQuery", s2)
	u.Release()
	u.ok("cuStreamSynchronize", s2)
	if !bytes.Equal(dst, src) {
		t.Error("the second stream did not wait for the event of the first")
	}
}

func TestDefaultStream(t *testing.T) {
	u := opened(t, 1)
	const n = 100_000
	src, dst := hostMemory(t, n), hostMemory(t, n)
	copy(src, pattern(n, 9))
	a, b := u.alloc(n), u.alloc(n)
	u.ok("cuMemcpyHtoD_v2", a, addr(src), n)
	u.ok("cuMemcpyDtoD_v2", b, a, n)
	u.ok("cuMemcpyDtoH_v2", addr(dst), b, n)
	if !bytes.Equal(dst, src) {
		t.Error("synchronous copies changed the bytes")
	}
	u.ok("cuMemsetD8_v2", b+1, 0xab, n-2)
	u.ok("cuMemcpy", addr(dst), b, n)
	want := append(append([]byte{src[0]}, bytes.Repeat([]byte{0xab}, n-2)...), src[n-1])
	if !bytes.Equal(dst, want) {
		t.Error("cuMemsetD8 did not set the bytes that it was told to")
	}
	u.ok("cuMemcpyAsync", b, addr(src), n, 0)
	u.ok("cuMemcpyAsync", addr(dst), b, n, 0)
	u.ok("cuCtxSynchronize")
	if !bytes.Equal(dst, src) {
		t.Error("copies in the default stream changed the bytes")
	}
	u.misused()
}

// TestEvents: an event stands for its last record, and may be destroyed at any time.
func TestEvents(t *testing.T) {
	u := opened(t, 0)
	src := hostMemory(t, 64)
	a, s, e, gone := u.alloc(64), u.stream(), u.event(), u.event()
	u.ok("cuEventRecord", e, s)
	u.ok("cuEventSynchronize", e)
	u.Hold("")
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(src), 64, s)
	u.ok("cuEventRecord", e, s)
	u.ok("cuEventRecord", gone, s)
	u.want(NotReady, "cuEventQuery", e)
	u.ok("cuEventDestroy_v2", gone)
	u.want(InvalidHandle, "cuEventQuery", gone)
	u.Release()
	u.ok("cuStreamSynchronize", s)
	u.ok("cuEventQuery", e)
	u.want(InvalidHandle, "cuEventElapsedTime", addr(u.out), e, e) // made without timing
	timed := u.get("cuEventCreate", 0)
	u.want(InvalidHandle, "cuEventElapsedTime", addr(u.out), timed, timed) // not recorded
	u.ok("cuEventRecord", timed, s)
	u.ok("cuEventSynchronize", timed)
	u.ok("cuEventElapsedTime", addr(u.out), timed, timed)
	u.misused("is none")
}

// TestDestroyedStream: its entries are carried out, its handle is none.
func TestDestroyedStream(t *testing.T) {
	u := opened(t, 0)
	src, dst := hostMemory(t, 64), hostMemory(t, 64)
	copy(src, pattern(64, 8))
	a, s, e := u.alloc(64), u.stream(), u.event()
	u.Hold("")
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(src), 64, s)
	u.ok("cuMemcpyDtoHAsync_v2", addr(dst), a, 64, s)
	u.ok("cuEventRecord", e, s)
	u.ok("cuStreamDestroy_v2", s)
	u.want(InvalidHandle, "cuStreamQuery", s)
	u.want(InvalidHandle, "cuStreamDestroy_v2", s)
	u.want(InvalidHandle, "cuMemcpyHtoDAsync_v2", a, addr(src), 64, s)
	if n := u.Leaks().Streams; n != 0 {
		t.Errorf("%d streams are left", n)
	}
	u.Release()
	u.ok("cuEventSynchronize", e)
	if !bytes.Equal(dst, src) {
		t.Error("a stream that was destroyed did not carry out its entries")
	}
	u.misused("is none", "is none", "is none")
}

// TestParallel: threads with streams of their own copy, allocate and free all at once.
func TestParallel(t *testing.T) {
	u := opened(t, 0)
	c := u.get("cuCtxGetCurrent")
	var wg sync.WaitGroup
	for worker := range 6 {
		mine := user{u.Control, t, hostMemory(t, 4096)}
		src, dst := hostMemory(t, 1<<16), hostMemory(t, 1<<16)
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			s, e := uint64(0), uint64(0)
			check := func(r int) bool {
				if r != 0 {
					t.Errorf("worker %d: %d; %q", worker, r, u.Misuse())
				}
				return r == 0
			}
			if !check(mine.try("cuCtxSetCurrent", c)) || !check(mine.into(&s, "cuStreamCreate", 1)) || !check(mine.into(&e, "cuEventCreate", 2)) {
				return
			}
			for i := range 60 {
				n := uint64(1 + (worker*7919+i*104729)%(1<<16))
				var a uint64
				copy(src, pattern(int(n), worker+i))
				if !check(mine.into(&a, "cuMemAlloc_v2", n)) || !check(mine.try("cuMemcpyHtoDAsync_v2", a, addr(src), n, s)) ||
					!check(mine.try("cuMemcpyDtoHAsync_v2", addr(dst), a, n, s)) || !check(mine.try("cuEventRecord", e, s)) ||
					!check(mine.try("cuEventSynchronize", e)) || !check(mine.try("cuMemFree_v2", a)) {
					return
				}
				if !bytes.Equal(src[:n], dst[:n]) {
					t.Errorf("worker %d: %d bytes came back changed", worker, n)
				}
			}
			check(mine.try("cuEventDestroy_v2", e))
			check(mine.try("cuStreamDestroy_v2", s))
		})
	}
	wg.Wait()
	u.misused()
	if l := u.Leaks(); l != (Leaks{Contexts: 1}) {
		t.Errorf("leaks: %+v", l)
	}
}
