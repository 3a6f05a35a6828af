//go:build cuda && cgo

package fakedriver

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// tour makes every call of the driver once or more, and returns where and with what it
// could not go on.
func (u user) tour(host []byte) (at string, result int) {
	var ctx, a, b, p, s, timed, e uint64
	batch := newBatch(u, &a, &b, 8)
	none := 0
	steps := []struct {
		name string
		call func(name string) int
		want *int // nil: success
	}{
		{"cuInit", func(n string) int { return u.try(n, 0) }, nil},
		{"cuDriverGetVersion", func(n string) int { return u.into(&p, n) }, nil},
		{"cuDeviceGetCount", func(n string) int { return u.into(&p, n) }, nil},
		{"cuDeviceGet", func(n string) int { return u.into(&p, n, 0) }, nil},
		{"cuDeviceGetName", func(n string) int { return u.try(n, addr(u.out), 100, 0) }, nil},
		{"cuDeviceTotalMem_v2", func(n string) int { return u.into(&p, n, 0) }, nil},
		{"cuDeviceGetAttribute", func(n string) int { return u.into(&p, n, 75, 0) }, nil},
		{"cuDeviceGetUuid", func(n string) int { return u.into(&p, n, 0) }, nil},
		{"cuDeviceGetPCIBusId", func(n string) int { return u.try(n, addr(u.out), 100, 0) }, nil},
		{"cuDeviceCanAccessPeer", func(n string) int { return u.into(&p, n, 0, 1) }, nil},
		{"cuDevicePrimaryCtxSetFlags_v2", func(n string) int { return u.try(n, 0, 4) }, nil},
		{"cuDevicePrimaryCtxRetain", func(n string) int { return u.into(&ctx, n, 0) }, nil},
		{"cuDevicePrimaryCtxGetState", func(n string) int { return u.try(n, 0, addr(u.out), addr(u.out)+8) }, nil},
		{"cuCtxSetCurrent", func(n string) int { return u.try(n, ctx) }, nil},
		{"cuCtxGetCurrent", func(n string) int { return u.into(&p, n) }, nil},
		{"cuCtxPushCurrent_v2", func(n string) int { return u.try(n, ctx) }, nil},
		{"cuCtxPopCurrent_v2", func(n string) int { return u.into(&p, n) }, nil},
		{"cuCtxGetDevice", func(n string) int { return u.into(&p, n) }, nil},
		{"cuCtxGetApiVersion", func(n string) int { return u.try(n, ctx, addr(u.out)) }, nil},
		{"cuCtxGetStreamPriorityRange", func(n string) int { return u.try(n, addr(u.out), addr(u.out)+8) }, nil},
		{"cuStreamCreateWithPriority", func(n string) int { return u.into(&s, n, 1, 0) }, nil},
		{"cuStreamGetFlags", func(n string) int { return u.try(n, s, addr(u.out)) }, nil},
		{"cuStreamGetPriority", func(n string) int { return u.try(n, s, addr(u.out)) }, nil},
		{"cuStreamDestroy_v2", func(n string) int { return u.try(n, s) }, nil},
		{"cuStreamCreate", func(n string) int { return u.into(&s, n, 1) }, nil},
		{"cuEventCreate", func(n string) int { return u.into(&e, n, 2) }, nil},
		{"cuEventCreate", func(n string) int { return u.into(&timed, n, 0) }, nil},
		{"cuMemGetInfo_v2", func(n string) int { return u.try(n, addr(u.out), addr(u.out)+8) }, nil},
		{"cuMemAlloc_v2", func(n string) int { return u.into(&a, n, 4096) }, nil},
		{"cuMemAlloc_v2", func(n string) int { return u.into(&b, n, 4096) }, nil},
		{"cuMemGetAddressRange_v2", func(n string) int { return u.try(n, addr(u.out), addr(u.out)+8, a) }, nil},
		{"cuPointerGetAttribute", func(n string) int { return u.try(n, addr(u.out), 2, a) }, nil},
		{"cuMemHostRegister_v2", func(n string) int { return u.try(n, addr(host), 4096, 0) }, nil},
		{"cuMemcpyHtoD_v2", func(n string) int { return u.try(n, a, addr(host), 64) }, nil},
		{"cuMemcpyDtoD_v2", func(n string) int { return u.try(n, b, a, 64) }, nil},
		{"cuMemcpyDtoH_v2", func(n string) int { return u.try(n, addr(host), b, 64) }, nil},
		{"cuMemcpy", func(n string) int { return u.try(n, addr(host), b, 64) }, nil},
		{"cuMemsetD8_v2", func(n string) int { return u.try(n, b, 1, 64) }, nil},
		{"cuMemcpyHtoDAsync_v2", func(n string) int { return u.try(n, a, addr(host), 64, s) }, nil},
		{"cuMemcpyDtoDAsync_v2", func(n string) int { return u.try(n, b, a, 64, s) }, nil},
		{"cuMemcpyDtoHAsync_v2", func(n string) int { return u.try(n, addr(host), b, 64, s) }, nil},
		{"cuMemcpyAsync", func(n string) int { return u.try(n, addr(host), b, 64, s) }, nil},
		{"cuMemsetD8Async", func(n string) int { return u.try(n, b, 1, 64, s) }, nil},
		{"cuMemcpyBatchAsync", func(n string) int { return batch.queue(n, s) }, nil},
		{"cuMemcpyBatchAsync_v2", func(n string) int { return batch.queue(n, s) }, nil},
		{"cuEventRecord", func(n string) int { return u.try(n, timed, s) }, nil},
		{"cuStreamWaitEvent", func(n string) int { return u.try(n, s, timed, 0) }, nil},
		{"cuEventSynchronize", func(n string) int { return u.try(n, timed) }, nil},
		{"cuEventElapsedTime", func(n string) int { return u.try(n, addr(u.out), timed, timed) }, nil},
		{"cuEventQuery", func(n string) int { return u.try(n, timed) }, nil},
		{"cuStreamSynchronize", func(n string) int { return u.try(n, s) }, nil},
		{"cuStreamQuery", func(n string) int { return u.try(n, s) }, nil},
		{"cuCtxSynchronize", func(n string) int { return u.try(n) }, nil},
		{"cuEventDestroy_v2", func(n string) int { return u.try(n, e) }, nil},
		{"cuIpcGetMemHandle", func(n string) int { return u.try(n, addr(u.out)+64, a) }, nil},
		{"cuIpcOpenMemHandle_v2", u.openOwn, ptr(invalidContext)},
		{"cuIpcCloseMemHandle", func(n string) int { return u.try(n, a) }, ptr(InvalidValue)},
		{"cuMemHostAlloc", func(n string) int { return u.into(&p, n, 64, 0) }, nil},
		{"cuMemFreeHost", func(n string) int { return u.try(n, p) }, nil},
		{"cuMemAllocHost_v2", func(n string) int { return u.into(&p, n, 64) }, nil},
		{"cuMemHostUnregister", func(n string) int { return u.try(n, addr(host)) }, nil},
		{"cuMemFree_v2", func(n string) int { return u.try(n, a) }, nil},
		{"cuDevicePrimaryCtxRelease_v2", func(n string) int { return u.try(n, 0) }, nil},
		{"cuDevicePrimaryCtxReset_v2", func(n string) int { return u.try(n, 0) }, nil},
	}
	for _, step := range steps {
		if step.want == nil {
			step.want = &none
		}
		if r := step.call(step.name); r != *step.want {
			return step.name, r
		}
	}
	return "", 0
}

func ptr(n int) *int { return &n }

// openOwn opens the handle that lies in out, which this process has made. A handle is
// passed by value, that is on the stack, behind what registers hold: see openHandle.
func (u user) openOwn(name string) int {
	var p uint64
	return u.openHandle(&p, u.out[64:128], 1)
}

// TestEveryCall lets each call of a program that makes all of them fail once.
func TestEveryCall(t *testing.T) {
	u := fresh(t)
	host := hostMemory(t, 4096)
	u.Reset()
	if at, r := u.tour(host); at != "" {
		t.Fatalf("%s gave %d; %q", at, r, u.Misuse())
	}
	total := u.TotalCalls()
	for _, name := range u.CallNames() {
		if u.Calls(name) == 0 {
			t.Errorf("the tour misses %s", name)
		}
	}
	for i := 1; i <= total; i++ {
		u.Reset()
		u.try("cuCtxSetCurrent", 0)
		u.Fail("", i, Unknown, false)
		if at, r := u.tour(host); r != Unknown {
			t.Errorf("call %d of %d failed, and the program got %d at %q", i, total, r, at)
		}
		if n := u.TotalCalls(); n != i+1 { // with cuCtxSetCurrent of the test
			t.Errorf("call %d failed after %d calls", i, n)
		}
		if u.Pending() != 0 {
			t.Errorf("call %d did not fail", i)
		}
	}
}

func TestFailAt(t *testing.T) {
	u := opened(t, 0)
	u.Fail("cuMemAlloc_v2", 3, OutOfMemory, false)
	u.Fail("cuMemAlloc", 4, Unknown, false)
	for i, want := range []int{0, 0, OutOfMemory, Unknown, 0} {
		u.ok("cuMemGetInfo_v2", addr(u.out), addr(u.out)+8) // others do not count
		if n := u.Pending(); n != max(0, min(2, 4-i)) {
			t.Errorf("%d errors are pending before call %d", n, i+1)
		}
		u.want(want, "cuMemAlloc_v2", addr(u.out), 64)
	}
	if n := u.Calls("cuMemAlloc"); n != 5 {
		t.Errorf("%d calls counted, want 5", n)
	}
	if l := u.Leaks(); l.Allocations != 3 {
		t.Errorf("leaks: %+v; a call that fails does nothing", l)
	}
	u.Fail("cuMemFree", 1, LaunchFailed, true)
	u.want(LaunchFailed, "cuMemFree_v2", 1)
	u.want(LaunchFailed, "cuStreamCreate", addr(u.out), 1)
	u.Fail("cuStreamCreate", 1, Unknown, false)
	u.Restore()
	u.ok("cuStreamCreate", addr(u.out), 1)
}

func TestFailPanicsWithoutCall(t *testing.T) {
	u := fresh(t)
	for _, f := range []func(){
		func() { u.Fail("cuMemAloc", 1, Unknown, false) }, func() { u.Fail("cuMemAlloc", 0, Unknown, false) },
		func() { u.Fail("cuMemAlloc", 1, 0, false) }, func() { u.Delay("cuX", 1) }, func() { u.Hold("cuX") },
		func() { u.Calls("cuX") }, func() { u.SetMemory(2, 1) }, func() { u.Devices(17) },
	} {
		func() {
			defer func() {
				if s := fmt.Sprint(recover()); !strings.Contains(s, "fakedriver: ") {
					t.Errorf("a mistake in a test gave %q", s)
				}
			}()
			f()
		}()
	}
}

// TestFailQueued: the error comes with the event behind the work, and only with that.
func TestFailQueued(t *testing.T) {
	u := opened(t, 0)
	host := hostMemory(t, 4096)
	copy(host, pattern(4096, 1))
	a, s := u.alloc(4096), u.stream()
	e := []uint64{u.event(), u.event(), u.event()}
	u.ok("cuMemsetD8_v2", a, 0, 4096)
	u.FailQueued("cuMemcpyHtoDAsync", 2, Unknown, false)
	for i := range uint64(3) {
		u.ok("cuMemcpyHtoDAsync_v2", a+i*64, addr(host)+i*64, 64, s)
		u.ok("cuEventRecord", e[i], s)
	}
	for i, want := range []int{0, Unknown, 0} {
		u.want(want, "cuEventSynchronize", e[i])
		u.want(want, "cuEventQuery", e[i])
	}
	back := hostMemory(t, 4096)
	u.ok("cuMemcpyDtoH_v2", addr(back), a, 192)
	want := slices.Concat(host[:64], make([]byte, 64), host[128:192])
	if !bytes.Equal(back[:192], want) {
		t.Error("the copy that failed was carried out, or another was not")
	}
	u.FailQueued("", 1, Unknown, false)
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(host), 64, s)
	u.want(Unknown, "cuStreamSynchronize", s)
	u.ok("cuStreamSynchronize", s)
	for call, args := range map[string][]uint64{"cuStreamQuery": {s}, "cuCtxSynchronize": {}} {
		u.FailQueued("", 1, Unknown, false)
		u.ok("cuMemcpyHtoDAsync_v2", a, addr(host), 64, s)
		u.until("the stream is empty", func() bool { return u.Queued() == 0 })
		u.want(Unknown, call, args...)
		u.ok(call, args...)
	}
	u.FailQueued("cuMemcpyDtoD", 1, Unknown, false)
	u.want(Unknown, "cuMemcpyDtoD_v2", a, a+1024, 64)
	u.FailQueued("cuMemcpyHtoDAsync", 1, LaunchFailed, true)
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(host), 64, s)
	u.want(LaunchFailed, "cuStreamSynchronize", s)
	u.want(LaunchFailed, "cuEventQuery", e[0])
	u.misused()
}

// TestLose: whatever waits comes back, nothing that was queued is carried out, and the
// context's end frees everything.
func TestLose(t *testing.T) {
	for _, result := range []int{DeviceUnavailable, IllegalAddress, LaunchFailed} {
		t.Run(fmt.Sprint(result), func(t *testing.T) {
			u := opened(t, 0)
			const n = 4096
			host, back := hostMemory(t, n), hostMemory(t, n)
			copy(host, pattern(n, 1))
			a, s, e := u.alloc(n), u.stream(), u.event()
			u.ok("cuMemHostRegister_v2", addr(host), n, 0)
			u.ok("cuMemcpyHtoD_v2", a, addr(host), n)
			c := u.get("cuCtxGetCurrent")
			u.Hold("cuMemcpyDtoHAsync")
			u.ok("cuMemcpyDtoHAsync_v2", addr(back), a, n, s)
			u.ok("cuEventRecord", e, s)
			waiting := make(chan int)
			go func() {
				defer close(waiting) // its last call is over: calls are counted
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				u.try("cuCtxSetCurrent", c)
				calls := u.Calls("cuEventSynchronize")
				waiting <- calls
				waiting <- u.try("cuEventSynchronize", e)
				u.try("cuCtxSetCurrent", 0)
			}()
			before := <-waiting
			u.until("cuEventSynchronize is called", func() bool { return u.Calls("cuEventSynchronize") > before })
			u.Lose(0, result)
			if r := <-waiting; r != result {
				t.Errorf("cuEventSynchronize gave %d to who had called it before", r)
			}
			<-waiting
			for name, args := range map[string][]uint64{
				"cuEventQuery": {e}, "cuEventSynchronize": {e}, "cuStreamQuery": {s}, "cuStreamSynchronize": {s}, "cuEventRecord": {e, s},
				"cuMemAlloc_v2": {addr(u.out), 64}, "cuMemFree_v2": {a}, "cuMemcpyDtoHAsync_v2": {addr(back), a, n, s}, "cuStreamDestroy_v2": {s},
				"cuMemHostUnregister": {addr(host)}, "cuCtxSynchronize": {}, "cuMemGetInfo_v2": {addr(u.out), addr(u.out) + 8},
				"cuCtxSetCurrent": {c}, "cuDevicePrimaryCtxRetain": {addr(u.out), 0},
			} {
				u.want(result, name, args...)
			}
			u.Release()
			u.until("the stream is empty", func() bool { return u.Queued() == 0 })
			if !bytes.Equal(back, make([]byte, n)) {
				t.Error("a copy was carried out on a device that was lost")
			}
			u.context(1)
			u.alloc(64)
			u.want(result, "cuDevicePrimaryCtxRelease_v2", 0)
			if l := u.Leaks(); l != (Leaks{Contexts: 1, Allocations: 1, Bytes: 64}) {
				t.Errorf("leaks: %+v, want what the other device has", l)
			}
			u.misused()
			u.Restore()
			u.context(0)
			u.stream()
		})
	}
}

// TestLoseWhileCopying: once a call has given the error, memory stays as it is.
func TestLoseWhileCopying(t *testing.T) {
	u := opened(t, 0)
	const n = 8 << 20
	back := hostMemory(t, n)
	a, s, e := u.alloc(n), u.stream(), u.event()
	u.ok("cuMemsetD8_v2", a, 0xff, n)
	for range 8 {
		clear(back)
		u.ok("cuMemcpyDtoHAsync_v2", addr(back), a, n, s)
		u.ok("cuEventRecord", e, s)
		u.Lose(0, LaunchFailed)
		got := bytes.Clone(back)
		u.want(LaunchFailed, "cuEventQuery", e)
		u.until("the stream is empty", func() bool { return u.Queued() == 0 })
		if !bytes.Equal(got, back) {
			t.Fatal("the device wrote to memory after it was lost")
		}
		u.Restore()
	}
}

func TestErrorNames(t *testing.T) {
	u := fresh(t)
	for result, want := range map[uint64]string{0: "CUDA_SUCCESS", 700: "CUDA_ERROR_ILLEGAL_ADDRESS", 46: "CUDA_ERROR_DEVICE_UNAVAILABLE"} {
		u.ok("cuGetErrorName", result, addr(u.out))
		if s := cString(*(*unsafe.Pointer)(unsafe.Pointer(&u.out[0]))); s != want {
			t.Errorf("%d is %q, want %q", result, s, want)
		}
	}
	u.want(InvalidValue, "cuGetErrorString", 12345, addr(u.out))
}
