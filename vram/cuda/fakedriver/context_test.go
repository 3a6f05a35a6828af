//go:build cuda && cgo

package fakedriver

import (
	"runtime"
	"strings"
	"testing"
)

const (
	invalidDevice      = 101
	invalidContext     = 201
	contextIsDestroyed = 709
)

// TestContextPerThread: what one thread has made current is not current in another.
func TestContextPerThread(t *testing.T) {
	u := fresh(t)
	u.want(invalidContext, "cuMemAlloc_v2", addr(u.out), 64)
	c := u.context(0)
	a := u.alloc(64)
	other := make(chan [3]int)
	go func() {
		defer close(other) // its last call is over: calls are counted
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before := u.try("cuMemFree_v2", a)
		set := u.try("cuCtxSetCurrent", c)
		other <- [3]int{before, set, u.try("cuMemFree_v2", a)}
		u.try("cuCtxSetCurrent", 0)
	}()
	got := <-other
	<-other
	if got != [3]int{invalidContext, 0, 0} {
		t.Errorf("another thread without a context got %d, with it %d and %d", got[0], got[1], got[2])
	}
	u.ok("cuCtxSetCurrent", 0)
	u.want(invalidContext, "cuStreamCreate", addr(u.out), 1)
	u.want(invalidContext, "cuCtxSetCurrent", 12345)
}

func TestContextCount(t *testing.T) {
	u := opened(t, 1)
	a := u.alloc(1 << 20)
	s := u.stream()
	if c := u.get("cuDevicePrimaryCtxRetain", 1); c != u.get("cuCtxGetCurrent") {
		t.Error("a device has more than one primary context")
	}
	if d := u.get("cuCtxGetDevice"); uint32(d) != 1 {
		t.Errorf("the context is that of device %d", d)
	}
	u.ok("cuDevicePrimaryCtxRelease_v2", 1)
	u.ok("cuStreamQuery", s)
	u.ok("cuDevicePrimaryCtxRelease_v2", 1)
	u.want(contextIsDestroyed, "cuStreamQuery", s)
	u.want(contextIsDestroyed, "cuMemFree_v2", a)
	u.want(invalidContext, "cuDevicePrimaryCtxRelease_v2", 1)
	if l := u.Leaks(); l != (Leaks{Dropped: 2}) {
		t.Errorf("leaks: %+v, want what the end of the context has freed", l)
	}
	u.get("cuDevicePrimaryCtxRetain", 1) // the same context lives again, and is empty
	u.want(InvalidHandle, "cuStreamQuery", s)
	u.misused("no primary context", "is none")
}

// TestContextEndsEarly: what is queued is dropped, and that is noted.
func TestContextEndsEarly(t *testing.T) {
	u := opened(t, 0)
	src := hostMemory(t, 64)
	a, s := u.alloc(64), u.stream()
	u.Hold("")
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(src), 64, s)
	u.ok("cuDevicePrimaryCtxReset_v2", 0)
	if l := u.Leaks(); l.Allocations+l.Streams != 0 {
		t.Errorf("leaks: %+v", l)
	}
	u.misused("ended with 1 entries")
}

func TestContextStack(t *testing.T) {
	u := opened(t, 0)
	first := u.get("cuCtxGetCurrent")
	second := u.get("cuDevicePrimaryCtxRetain", 1)
	u.ok("cuCtxPushCurrent_v2", second)
	if u.get("cuCtxGetCurrent") != second || u.get("cuCtxPopCurrent_v2") != second || u.get("cuCtxGetCurrent") != first {
		t.Error("contexts were not pushed and popped")
	}
}

func TestDevices(t *testing.T) {
	u := fresh(t)
	if n := u.get("cuDeviceGetCount"); n != 2 {
		t.Errorf("%d devices, want 2", n)
	}
	u.Devices(5)
	if n := u.get("cuDeviceGetCount"); n != 5 {
		t.Errorf("%d devices, want 5", n)
	}
	u.want(invalidDevice, "cuDeviceGet", addr(u.out), 5)
	seen := map[string]bool{}
	for d := range uint64(5) {
		text := func(name string, args ...uint64) string {
			clear(u.out)
			u.ok(name, args...)
			s, _, _ := strings.Cut(string(u.out), "\x00")
			return s
		}
		name, pci := text("cuDeviceGetName", addr(u.out), 256, d), text("cuDeviceGetPCIBusId", addr(u.out), 256, d)
		uuid := text("cuDeviceGetUuid_v2", addr(u.out), d)
		if !strings.Contains(name, "fake driver") || seen[pci] || seen[uuid] {
			t.Errorf("device %d is %q at %q with UUID %q", d, name, pci, uuid)
		}
		seen[pci], seen[uuid] = true, true
		if n := u.get("cuDeviceTotalMem_v2", d); n != 1<<30 {
			t.Errorf("device %d has %d bytes", d, n)
		}
	}
	u.Devices(0)
	u.want(NoDevice, "cuInit", 0)
}

// TestReset: nothing that one test has done shows in the next one.
func TestReset(t *testing.T) {
	u := opened(t, 0)
	host := hostMemory(t, 4096)
	a, s := u.alloc(64), u.stream()
	u.event()
	u.ok("cuMemHostRegister_v2", addr(host), 4096, 0)
	u.want(InvalidValue, "cuMemFree_v2", a+1)
	u.Hold("")
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(host), 64, s)
	u.Fail("cuMemAlloc", 1, Unknown, false)
	u.Delay("cuMemAlloc", 1<<62)
	u.Devices(1)
	u.SetMemory(0, 1)
	u.Lose(0, IllegalAddress)
	u.Reset()
	if n, l := u.TotalCalls(), u.Leaks(); n != 0 || l != (Leaks{}) || u.Pending() != 0 || u.Queued() != 0 {
		t.Errorf("%d calls, %d errors pending, %d entries queued, leaks %+v", n, u.Pending(), u.Queued(), l)
	}
	u.misused()
	u.want(invalidContext, "cuMemAlloc_v2", addr(u.out), 64)
	u.context(1)
	u.context(0)
	u.want(InvalidHandle, "cuStreamQuery", s)
	u.alloc(1 << 20)
	u.ok("cuMemHostRegister_v2", addr(host), 4096, 0)
}
