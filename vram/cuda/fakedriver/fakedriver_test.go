//go:build cuda && cgo

package fakedriver

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// driver is the one that all tests of this package share.
var driver struct {
	path    string
	control *Control
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArgument {
		os.Exit(child(os.Args[2:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fakedriver")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if driver.path, err = Build(dir); err == nil {
		driver.control, err = Open(driver.path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// user makes calls as a user of the driver does, on one thread.
type user struct {
	*Control
	t   testing.TB
	out []byte // for what calls return through pointers; not in the Go heap
}

// fresh gives a driver as if it had just been loaded, to a test that is its only user.
func fresh(t testing.TB) user {
	t.Helper()
	runtime.LockOSThread()
	u := user{driver.control, t, hostMemory(t, 4096)}
	u.Reset()
	t.Cleanup(func() {
		u.Reset()
		u.try("cuCtxSetCurrent", 0)
		runtime.UnlockOSThread()
	})
	u.ok("cuInit", 0)
	return u
}

// opened is fresh with the primary context of a device current.
func opened(t testing.TB, device int) user {
	t.Helper()
	u := fresh(t)
	u.context(device)
	return u
}

func hostMemory(t testing.TB, n int) []byte {
	t.Helper()
	p, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(p) })
	return p
}

func addr(p []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) }

// try makes a call and returns its result.
func (u user) try(name string, args ...uint64) int {
	u.t.Helper()
	r, ok := u.lib.call(name, args...)
	if !ok {
		u.t.Fatalf("the driver has no %s", name)
	}
	return r
}

func (u user) ok(name string, args ...uint64) {
	u.t.Helper()
	u.want(0, name, args...)
}

func (u user) want(result int, name string, args ...uint64) {
	u.t.Helper()
	if r := u.try(name, args...); r != result {
		u.t.Fatalf("%s gave %d, want %d; misuse: %q", name, r, result, u.Misuse())
	}
}

// get makes a call whose first argument is where it puts a word.
func (u user) get(name string, args ...uint64) uint64 {
	u.t.Helper()
	clear(u.out[:8])
	u.ok(name, append([]uint64{addr(u.out)}, args...)...)
	return *(*uint64)(unsafe.Pointer(&u.out[0]))
}

// into is get for other goroutines than the test's own: it returns the result.
func (u user) into(to *uint64, name string, args ...uint64) int {
	clear(u.out[:8])
	r := u.try(name, append([]uint64{addr(u.out)}, args...)...)
	*to = *(*uint64)(unsafe.Pointer(&u.out[0]))
	return r
}

func (u user) context(device int) uint64 {
	u.t.Helper()
	c := u.get("cuDevicePrimaryCtxRetain", uint64(device))
	u.ok("cuCtxSetCurrent", c)
	return c
}

func (u user) alloc(n int) uint64 { u.t.Helper(); return u.get("cuMemAlloc_v2", uint64(n)) }
func (u user) stream() uint64     { u.t.Helper(); return u.get("cuStreamCreate", 1) }
func (u user) event() uint64      { u.t.Helper(); return u.get("cuEventCreate", 2) }

// misused expects texts with these parts, and no other.
func (u user) misused(parts ...string) {
	u.t.Helper()
	got := u.Misuse()
	if len(got) != len(parts) {
		u.t.Fatalf("misuse: %q, want %d with %q", got, len(parts), parts)
	}
	for i, p := range parts {
		if !strings.Contains(got[i], p) {
			u.t.Errorf("misuse %d: %q, want it to contain %q", i, got[i], p)
		}
	}
}

// until waits for what another thread is about to do.
func (u user) until(what string, is func() bool) {
	u.t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			u.t.Fatalf("%s: not within ten seconds", what)
		}
	}
}

func pattern(n, seed int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8 + seed)
	}
	return p
}

func TestRoundTrip(t *testing.T) {
	u := opened(t, 0)
	const n = 3<<20 + 17
	src, dst := hostMemory(t, n), hostMemory(t, n)
	copy(src, pattern(n, 1))
	a, b, s, e := u.alloc(n), u.alloc(n), u.stream(), u.event()
	u.ok("cuMemcpyHtoDAsync_v2", a, addr(src), n, s)
	u.ok("cuMemcpyDtoDAsync_v2", b, a, n, s)
	u.ok("cuMemcpyDtoHAsync_v2", addr(dst), b, n, s)
	u.ok("cuEventRecord", e, s)
	u.ok("cuEventSynchronize", e)
	u.ok("cuEventQuery", e)
	if !bytes.Equal(src, dst) {
		t.Error("bytes came back changed")
	}
	u.ok("cuMemFree_v2", a)
	u.ok("cuMemFree_v2", b)
	u.ok("cuEventDestroy_v2", e)
	u.ok("cuStreamDestroy_v2", s)
	u.ok("cuDevicePrimaryCtxRelease_v2", 0)
	u.misused()
	if l := u.Leaks(); l != (Leaks{}) {
		t.Errorf("leaks: %+v", l)
	}
}
