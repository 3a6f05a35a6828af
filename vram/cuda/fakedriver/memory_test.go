//go:build cuda && cgo

package fakedriver

import (
	"bytes"
	"runtime/debug"
	"syscall"
	"testing"
	"unsafe"
)

const (
	alreadyRegistered = 712
	notRegistered     = 713
)

// TestOutOfReach: the processor cannot use an address of device memory.
func TestOutOfReach(t *testing.T) {
	u := opened(t, 0)
	a := u.alloc(4096)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() == nil {
			t.Error("device memory was read like host memory")
		}
	}()
	p := *(**byte)(unsafe.Pointer(&a))
	t.Logf("device memory holds %d", *p)
}

func TestBounds(t *testing.T) {
	const n = 1000
	host := hostMemory(t, 4096)
	for name, call := range map[string]func(u user, a, s uint64) int{
		"one byte too many": func(u user, a, s uint64) int { return u.try("cuMemcpyHtoDAsync_v2", a, addr(host), n+1, s) },
		"behind the end":    func(u user, a, s uint64) int { return u.try("cuMemcpyDtoHAsync_v2", addr(host), a+n, 1, s) },
		"before the start":  func(u user, a, s uint64) int { return u.try("cuMemcpyDtoHAsync_v2", addr(host), a-1, 1, s) },
		"far away":          func(u user, a, s uint64) int { return u.try("cuMemcpyDtoDAsync_v2", a, a+1<<40, 1, s) },
		"enormous":          func(u user, a, s uint64) int { return u.try("cuMemcpyDtoDAsync_v2", a, a+8, ^uint64(0)-4, s) },
		"host as device":    func(u user, a, s uint64) int { return u.try("cuMemcpyHtoDAsync_v2", addr(host), a, 8, s) },
		"device as host":    func(u user, a, s uint64) int { return u.try("cuMemcpyHtoD_v2", a, a+100, 8) },
		"address 0":         func(u user, a, s uint64) int { return u.try("cuMemcpyHtoDAsync_v2", a, 0, 8, s) },
		"fill":              func(u user, a, s uint64) int { return u.try("cuMemsetD8Async", a+1, 0, n, s) },
		"free inside":       func(u user, a, s uint64) int { return u.try("cuMemFree_v2", a+256) },
		"free host":         func(u user, a, s uint64) int { return u.try("cuMemFree_v2", addr(host)) },
	} {
		t.Run(name, func(t *testing.T) {
			u := opened(t, 0)
			a, s := u.alloc(n), u.stream()
			if r := call(u, a, s); r != InvalidValue {
				t.Errorf("gave %d, want %d", r, InvalidValue)
			}
			if got := u.Misuse(); len(got) != 1 {
				t.Errorf("misuse: %q, want one", got)
			}
			u.ok("cuMemcpyHtoDAsync_v2", a, addr(host), n, s) // the device works on
			u.ok("cuStreamSynchronize", s)
		})
	}
}

func TestUseAfterFree(t *testing.T) {
	u := opened(t, 0)
	host := hostMemory(t, 64)
	a, s, e := u.alloc(64), u.stream(), u.event()
	u.ok("cuMemFree_v2", a)
	u.want(InvalidValue, "cuMemFree_v2", a)
	if b := u.alloc(64); b == a {
		t.Error("an address was given twice")
	}
	u.want(IllegalAddress, "cuMemcpyDtoHAsync_v2", addr(host), a, 64, s)
	u.want(IllegalAddress, "cuEventQuery", e)
	u.want(IllegalAddress, "cuStreamSynchronize", s)
	u.want(IllegalAddress, "cuMemAlloc_v2", addr(u.out), 64)
	u.misused("any more", "have been freed")
	u.context(1) // another device does not know
	u.alloc(64)
	u.Restore()
	u.context(0)
	u.ok("cuStreamSynchronize", s)
}

// TestFreeWhileQueued: noted at the call, and an illegal address when the stream gets there.
func TestFreeWhileQueued(t *testing.T) {
	for name, call := range map[string]struct {
		free func(u user, a uint64, host []byte)
		text string
	}{
		"device memory": {func(u user, a uint64, _ []byte) { u.ok("cuMemFree_v2", a) }, "was freed before"},
		"host memory":   {func(u user, _ uint64, host []byte) { u.ok("cuMemHostUnregister", addr(host)) }, "was unregistered before"},
	} {
		t.Run(name, func(t *testing.T) {
			u := opened(t, 0)
			host := hostMemory(t, 4096)
			a, s, e := u.alloc(64), u.stream(), u.event()
			u.ok("cuMemHostRegister_v2", addr(host), 4096, 0)
			u.Hold("")
			u.ok("cuMemcpyHtoDAsync_v2", a, addr(host), 64, s)
			u.ok("cuEventRecord", e, s)
			call.free(u, a, host)
			u.misused("used by 1 copies")
			u.Release()
			u.want(IllegalAddress, "cuEventSynchronize", e)
			u.misused("used by 1 copies", call.text)
		})
	}
}

// TestUnmappedHostMemory: a copy of memory that is gone is an error, not the end of the process.
func TestUnmappedHostMemory(t *testing.T) {
	u := opened(t, 0)
	host, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	a, s := u.alloc(4096), u.stream()
	u.Hold("")
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(host), 4096, s)
	if err := syscall.Munmap(host); err != nil {
		t.Fatal(err)
	}
	u.Release()
	u.want(IllegalAddress, "cuStreamSynchronize", s)
	u.misused("unmapped before")
}

func TestMemoryLimit(t *testing.T) {
	u := opened(t, 0)
	const limit = 1 << 20
	u.SetMemory(0, limit)
	memory := func() (free, total uint64) {
		u.ok("cuMemGetInfo_v2", addr(u.out), addr(u.out)+8)
		return *(*uint64)(unsafe.Pointer(&u.out[0])), *(*uint64)(unsafe.Pointer(&u.out[8]))
	}
	u.want(OutOfMemory, "cuMemAlloc_v2", addr(u.out), limit+1)
	u.want(OutOfMemory, "cuMemAlloc_v2", addr(u.out), 1<<63-1)
	u.want(InvalidValue, "cuMemAlloc_v2", addr(u.out), 0)
	a := u.alloc(limit - 1000)
	if free, total := memory(); free > 1000 || total != limit {
		t.Errorf("%d of %d bytes are free", free, total)
	}
	u.want(OutOfMemory, "cuMemAlloc_v2", addr(u.out), 1001)
	u.SetMemory(0, limit/2) // another process has taken it
	if free, _ := memory(); free != 0 {
		t.Errorf("%d bytes are free, want none", free)
	}
	u.want(OutOfMemory, "cuMemAlloc_v2", addr(u.out), 1)
	u.ok("cuMemFree_v2", a)
	if free, _ := memory(); free != limit/2 {
		t.Errorf("%d bytes are free, want %d", free, limit/2)
	}
	u.context(1)
	u.alloc(limit + 1)
}

func TestAddressRange(t *testing.T) {
	u := opened(t, 0)
	a := u.alloc(5000)
	u.ok("cuMemGetAddressRange_v2", addr(u.out), addr(u.out)+8, a+4999)
	if base, size := *(*uint64)(unsafe.Pointer(&u.out[0])), *(*uint64)(unsafe.Pointer(&u.out[8])); base != a || size != 5000 {
		t.Errorf("the allocation is %d bytes at %#x, want 5000 at %#x", size, base, a)
	}
	u.want(InvalidValue, "cuMemGetAddressRange_v2", addr(u.out), addr(u.out)+8, a+5000)
	if kind := u.get("cuPointerGetAttribute", 2, a+1); kind != 2 {
		t.Errorf("device memory has kind %d", kind)
	}
	u.want(InvalidValue, "cuPointerGetAttribute", addr(u.out), 2, addr(u.out))
}

func TestRegister(t *testing.T) {
	u := opened(t, 0)
	const n = 3 * 4096
	host := hostMemory(t, n)
	copy(host, pattern(n, 2))
	a := u.alloc(n)
	u.ok("cuMemHostRegister_v2", addr(host), 4096, 1)
	u.want(alreadyRegistered, "cuMemHostRegister_v2", addr(host)+100, 8, 1)
	u.ok("cuMemHostRegister_v2", addr(host)+4096, 4096, 1)
	u.ok("cuMemcpyHtoD_v2", a, addr(host)+4096, 4096)
	u.want(InvalidValue, "cuMemcpyHtoD_v2", a, addr(host)+4000, 200)   // in two registrations
	u.want(InvalidValue, "cuMemcpyHtoD_v2", a, addr(host)+2*4096-8, 9) // one and none
	u.misused("only partly", "only partly")
	back := hostMemory(t, 4096)
	u.ok("cuMemcpyDtoH_v2", addr(back), a, 4096)
	if !bytes.Equal(back, host[4096:2*4096]) {
		t.Error("page-locked memory was not copied")
	}
	if l := u.Leaks(); l.Registrations != 2 {
		t.Errorf("leaks: %+v, want two registrations", l)
	}
	u.ok("cuMemHostUnregister", addr(host))
	u.want(notRegistered, "cuMemHostUnregister", addr(host))
	u.want(notRegistered, "cuMemHostUnregister", addr(host)+4096+1)
	u.ok("cuMemHostUnregister", addr(host)+4096)
	u.want(InvalidValue, "cuMemHostRegister_v2", addr(host), 1<<40, 0)
	u.misused("only partly", "only partly", "not known", "not known", "not all mapped")
	p := u.get("cuMemHostAlloc", 100, 0)
	u.ok("cuMemcpyDtoH_v2", p, a, 100)
	if l := u.Leaks(); l.Registrations != 0 || l.HostAllocations != 1 {
		t.Errorf("leaks: %+v, want one of page-locked memory", l)
	}
	u.ok("cuMemFreeHost", p)
}

// TestUnmappedRegistration: memory must be unregistered before it is unmapped.
func TestUnmappedRegistration(t *testing.T) {
	u := opened(t, 0)
	host, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	u.ok("cuMemHostRegister_v2", addr(host), 4096, 0)
	at := addr(host)
	if err := syscall.Munmap(host); err != nil {
		t.Fatal(err)
	}
	u.ok("cuMemHostUnregister", at)
	u.misused("unmapped already")
}
