//go:build cuda && cgo

package fakedriver

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

struct counts {
	long long contexts, allocations, bytes, streams, events, registrations, host_allocations, imports;
	long long dropped, queued;
};

static int call_fail(void *f, const char *call, long long at, int result, int sticky, int queued) {
	return ((int (*)(const char *, long long, int, int, int))f)(call, at, result, sticky, queued);
}
static int call_named(void *f, const char *call, long long n) { return ((int (*)(const char *, long long))f)(call, n); }
static int call_hold(void *f, const char *call, int on) { return ((int (*)(const char *, int))f)(call, on); }
static long long call_calls(void *f, const char *call) { return ((long long (*)(const char *))f)(call); }
static const char *call_name(void *f, int i) { return ((const char *(*)(int))f)(i); }
static int call_plain(void *f) { return ((int (*)(void))f)(); }
static void call_void(void *f) { ((void (*)(void))f)(); }
static void call_lose(void *f, int device, int result) { ((void (*)(int, int))f)(device, result); }
static int call_memory(void *f, int device, long long n) { return ((int (*)(int, long long))f)(device, n); }
static int call_devices(void *f, int n) { return ((int (*)(int))f)(n); }
static void call_leaks(void *f, struct counts *c) { ((void (*)(struct counts *))f)(c); }
static int call_misuse(void *f, int i, char *text, int n) { return ((int (*)(int, char *, int))f)(i, text, n); }

// call_any calls a function of the Driver API by its address: all of them take integers and
// pointers, of which the platform's convention passes each as a word.
static int call_any(void *f, uint64_t *a) {
	return ((int (*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t))f)(
		a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
}

struct handle { unsigned char bytes[64]; };
static int call_open(void *f, uint64_t p, struct handle *h, unsigned flags) {
	return ((int (*)(uint64_t, struct handle, unsigned))f)(p, *h, flags);
}
*/
import "C"

import (
	"errors"
	"unsafe"
)

// library is a loaded shared object.
type library struct {
	handle unsafe.Pointer
	at     map[string]unsafe.Pointer // the functions for tests
}

func load(path string) (library, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	handle := C.dlopen(name, C.RTLD_NOW|C.RTLD_LOCAL)
	if handle == nil {
		return library{}, errors.New(C.GoString(C.dlerror()))
	}
	l := library{handle, map[string]unsafe.Pointer{}}
	for _, name := range []string{"fail", "pending", "delay", "hold", "calls", "call_name", "misuse", "leaks",
		"lose", "restore", "reset", "set_memory", "devices"} {
		f := l.symbol("fake_" + name)
		if f == nil {
			return library{}, errors.New("it is not the fake driver, or another version of it")
		}
		l.at[name] = f
	}
	return l, nil
}

// symbol is the address of a function, nil if there is none.
func (l library) symbol(name string) unsafe.Pointer {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	return C.dlsym(l.handle, s)
}

// call calls a function of the Driver API with up to nine integers and addresses. The
// memory behind an address must not be the Go heap's, unless it is pinned.
func (l library) call(name string, args ...uint64) (result int, ok bool) {
	f := l.symbol(name)
	if f == nil {
		return 0, false
	}
	var words [9]C.uint64_t
	for i, a := range args {
		words[i] = C.uint64_t(a)
	}
	return int(C.call_any(f, &words[0])), true
}

// open calls cuIpcOpenMemHandle, whose handle is passed by value and so fits no word.
func (l library) open(p uint64, handle [64]byte, flags int) int {
	return int(C.call_open(l.symbol("cuIpcOpenMemHandle_v2"), C.uint64_t(p), (*C.struct_handle)(unsafe.Pointer(&handle)), C.uint(flags)))
}

// cString is the text at an address outside the Go heap.
func cString(p unsafe.Pointer) string { return C.GoString((*C.char)(p)) }

func truth(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func (l library) fail(call string, at, result int, sticky, queued bool) int {
	s := C.CString(call)
	defer C.free(unsafe.Pointer(s))
	return int(C.call_fail(l.at["fail"], s, C.longlong(at), C.int(result), truth(sticky), truth(queued)))
}

func (l library) delay(call string, ns int64) int {
	s := C.CString(call)
	defer C.free(unsafe.Pointer(s))
	return int(C.call_named(l.at["delay"], s, C.longlong(ns)))
}

func (l library) hold(call string, on bool) int {
	s := C.CString(call)
	defer C.free(unsafe.Pointer(s))
	return int(C.call_hold(l.at["hold"], s, truth(on)))
}

func (l library) calls(call string) int {
	s := C.CString(call)
	defer C.free(unsafe.Pointer(s))
	return int(C.call_calls(l.at["calls"], s))
}

func (l library) callName(i int) string { return C.GoString(C.call_name(l.at["call_name"], C.int(i))) }

func (l library) pending() int { return int(C.call_plain(l.at["pending"])) }

func (l library) lose(device, result int) { C.call_lose(l.at["lose"], C.int(device), C.int(result)) }

func (l library) restore() { C.call_void(l.at["restore"]) }

func (l library) reset() { C.call_void(l.at["reset"]) }

func (l library) setMemory(device int, n int64) int {
	return int(C.call_memory(l.at["set_memory"], C.int(device), C.longlong(n)))
}

func (l library) devices(n int) int { return int(C.call_devices(l.at["devices"], C.int(n))) }

func (l library) leaks() C.struct_counts {
	var c C.struct_counts
	C.call_leaks(l.at["leaks"], &c)
	return c
}

func (l library) misuse() []string {
	var all []string
	var text [200]C.char
	for C.call_misuse(l.at["misuse"], C.int(len(all)), &text[0], C.int(len(text))) != 0 {
		all = append(all, C.GoString(&text[0]))
	}
	return all
}
