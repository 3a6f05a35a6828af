//go:build cuda && cgo

package fakedriver

import (
	"bytes"
	"path/filepath"
	"testing"
	"unsafe"
)

// batch is the arguments of a batch of copies, outside the Go heap.
type batch struct {
	u              user
	dst, src, size []uint64
	attributes     []uint32 // one: when sources are read, two hints of two words, flags
	from           []uint64
	failed         []uint64
	count          uint64
	fixed          func() // sets dst, src and size at the last moment
}

func words(t testing.TB, n int) []uint64 {
	p := hostMemory(t, max(n, 8)*8)
	return unsafe.Slice((*uint64)(unsafe.Pointer(&p[0])), n)
}

func makeBatch(u user, n int) *batch {
	p := words(u.t, 4)
	b := &batch{u: u, dst: words(u.t, n), src: words(u.t, n), size: words(u.t, n), from: words(u.t, 1), failed: words(u.t, 1), count: uint64(n)}
	b.attributes = unsafe.Slice((*uint32)(unsafe.Pointer(&p[0])), 6)
	b.attributes[0] = 1
	b.fixed = func() {}
	return b
}

// newBatch copies n pieces of 64 bytes from a to b, which are known when it is queued.
func newBatch(u user, a, b *uint64, n int) *batch {
	x := makeBatch(u, n)
	x.fixed = func() {
		for i := range x.dst {
			x.dst[i], x.src[i], x.size[i] = *b+uint64(i)*64, *a+uint64(i)*64, 64
		}
	}
	return x
}

func at[T any](p []T) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) }

func (b *batch) queue(name string, stream uint64) int {
	b.fixed()
	args := []uint64{at(b.dst), at(b.src), at(b.size), b.count, at(b.attributes), at(b.from), 1}
	if name == "cuMemcpyBatchAsync" {
		b.failed[0] = 1234
		args = append(args, at(b.failed))
	}
	return b.u.try(name, append(args, stream)...)
}

func TestBatch(t *testing.T) {
	for _, name := range []string{"cuMemcpyBatchAsync", "cuMemcpyBatchAsync_v2"} {
		t.Run(name, func(t *testing.T) {
			u := opened(t, 0)
			const n, size = 20, 5000
			host := hostMemory(t, n*size)
			copy(host, pattern(n*size, 4))
			a, s := u.alloc(n*size), u.stream()
			b := makeBatch(u, n)
			for i := range uint64(n) {
				b.dst[i], b.src[i], b.size[i] = a+i*size, addr(host)+i*size, size
			}
			u.Hold("")
			if r := b.queue(name, s); r != 0 {
				t.Fatalf("gave %d; %q", r, u.Misuse())
			}
			want := bytes.Clone(host)
			u.Release()
			u.ok("cuStreamSynchronize", s)
			b.dst, b.src = b.src, b.dst
			clear(host)
			if r := b.queue(name, s); r != 0 {
				t.Fatalf("gave %d; %q", r, u.Misuse())
			}
			u.ok("cuStreamSynchronize", s)
			if !bytes.Equal(host, want) {
				t.Error("bytes came back changed")
			}
			u.misused()
		})
	}
}

// TestBatchBackwards: who relies on an order is found out, and told.
func TestBatchBackwards(t *testing.T) {
	u := opened(t, 0)
	host, back := hostMemory(t, 4096), hostMemory(t, 4096)
	host[0], host[1] = 1, 2
	a, s := u.alloc(64), u.stream()
	b := makeBatch(u, 2)
	for i := range uint64(2) {
		b.dst[i], b.src[i], b.size[i] = a, addr(host)+i, 1
	}
	if r := b.queue("cuMemcpyBatchAsync", s); r != 0 {
		t.Fatalf("gave %d", r)
	}
	u.ok("cuMemcpyDtoHAsync_v2", addr(back), a, 1, s)
	u.ok("cuStreamSynchronize", s)
	if back[0] != 1 {
		t.Errorf("the last copy was not the first one: %d", back[0])
	}
	u.misused("copies 0 and 1 of 2 overlap")
}

func TestBatchRefused(t *testing.T) {
	u := opened(t, 0)
	host := hostMemory(t, 4096)
	copy(host, pattern(4096, 1))
	a, s := u.alloc(4096), u.stream()
	u.ok("cuMemsetD8_v2", a, 0, 4096)
	good := func() *batch {
		b := makeBatch(u, 3)
		for i := range uint64(3) {
			b.dst[i], b.src[i], b.size[i] = a+i*64, addr(host)+i*64, 64
		}
		return b
	}
	for name, spoil := range map[string]func(b *batch){
		"outside":       func(b *batch) { b.dst[1] = a + 4090 },
		"empty":         func(b *batch) { b.size[1] = 0 },
		"no order":      func(b *batch) { b.attributes[0] = 0 },
		"flags":         func(b *batch) { b.attributes[5] = 2 },
		"not the first": func(b *batch) { b.from[0] = 1 },
		"no copies":     func(b *batch) { b.count = 0 },
	} {
		b := good()
		spoil(b)
		if r := b.queue("cuMemcpyBatchAsync", s); r != InvalidValue {
			t.Errorf("%s: gave %d", name, r)
		}
		if which := b.failed[0]; (which == 1) != (name == "outside" || name == "empty") || which != 1 && which != ^uint64(0) {
			t.Errorf("%s: copy %d is said to have failed", name, which)
		}
	}
	if r := good().queue("cuMemcpyBatchAsync_v2", 0); r != InvalidValue {
		t.Errorf("in the default stream: gave %d", r)
	}
	back := hostMemory(t, 4096)
	u.ok("cuMemcpyDtoH_v2", addr(back), a, 4096)
	if !bytes.Equal(back, make([]byte, 4096)) {
		t.Error("a batch that was refused was carried out in part")
	}
}

// TestBatchReadsDuringCall: where the caller asks for it, sources may change after the call.
func TestBatchReadsDuringCall(t *testing.T) {
	u := opened(t, 0)
	host, back := hostMemory(t, 4096), hostMemory(t, 4096)
	a, s := u.alloc(4096), u.stream()
	for order, want := range map[uint32]byte{1: 9, 2: 7} {
		host[0] = 7
		b := makeBatch(u, 1)
		b.attributes[0] = order
		b.dst[0], b.src[0], b.size[0] = a, addr(host), 1
		u.Hold("")
		if r := b.queue("cuMemcpyBatchAsync_v2", s); r != 0 {
			t.Fatalf("gave %d", r)
		}
		host[0] = 9
		u.Release()
		u.ok("cuMemcpyDtoHAsync_v2", addr(back), a, 1, s)
		u.ok("cuStreamSynchronize", s)
		if back[0] != want {
			t.Errorf("with order %d the copy read %d, want %d", order, back[0], want)
		}
	}
}

// TestOptions: drivers that do not have all of it. The compiler has nothing to say about them.
func TestOptions(t *testing.T) {
	for _, test := range []struct {
		options []Option
		v1, v2  bool
	}{{[]Option{WithoutBatchV2, "-Werror"}, true, false}, {[]Option{WithoutBatch, "-Werror"}, false, false}} {
		dir := t.TempDir()
		path, err := Build(dir, test.options...)
		if err != nil {
			t.Fatal(err)
		}
		if path != filepath.Join(dir, "libcuda.so.1") {
			t.Errorf("it was built at %s", path)
		}
		c, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if v1, v2 := c.lib.symbol("cuMemcpyBatchAsync") != nil, c.lib.symbol("cuMemcpyBatchAsync_v2") != nil; v1 != test.v1 || v2 != test.v2 {
			t.Errorf("with %v it has %v and %v", test.options, v1, v2)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that does not exist was loaded")
	}
}
