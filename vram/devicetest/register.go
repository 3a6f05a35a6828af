package devicetest

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"cairn/tier"
	"cairn/vram"
)

// mapped is n bytes outside the Go heap, until the test ends.
func mapped(t *testing.T, n int) []byte {
	t.Helper()
	p, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, syscall.Munmap(p)) })
	return p
}

// testRegister copies from and to memory that the device was shown, in pieces that lie anywhere in
// it and over its ends.
func testRegister(t *testing.T, open func(testing.TB) vram.Device) {
	const n = 8 << 20
	p := mapped(t, 2*n) // unmapped after the device is closed
	d := opened(t, open)
	dev, ok := d.(vram.Registrar)
	if !ok {
		t.Skip("this device is not shown host memory")
	}
	shown := p[:n]
	if err := dev.Register(nil); err == nil {
		t.Error("Register of nothing gave no error")
	}
	must(t, dev.Register(shown))
	if err := dev.Register(shown); err == nil {
		t.Error("Register of memory that is registered gave no error")
	}
	if err := dev.Unregister(shown[:n/2]); err == nil {
		t.Error("Unregister of half of what was registered gave no error")
	}
	s, a := stream(t, dev), alloc(t, dev, n)
	trip := func(at, length int) {
		t.Helper()
		want := pattern(at+length, length)
		copy(p[at:], want)
		must(t, s.CopyIn(a, p[at:at+length]))
		must(t, s.Synchronize())
		clear(p[at : at+length])
		must(t, s.CopyOut(p[at:at+length], a))
		must(t, s.Synchronize())
		if !bytes.Equal(p[at:at+length], want) {
			t.Errorf("%d bytes at %d of the memory shown came back changed", length, at)
		}
	}
	for at, length := range map[int]int{0: n, 1: 1, 4095: 2 << 20, n - 77: 77, n: 1 << 20} {
		trip(at, length)
	}
	must(t, dev.Unregister(shown))
	if err := dev.Unregister(shown); err == nil {
		t.Error("a second Unregister gave no error")
	}
	trip(0, n)
	must(t, dev.Register(shown))
	trip(4096, 1<<20)
	must(t, dev.Close()) // which ends the registration
	for what, err := range map[string]error{"Register": dev.Register(shown), "Unregister": dev.Unregister(shown)} {
		if !errors.Is(err, tier.ErrClosed) {
			t.Errorf("%s after Close gave %v, want ErrClosed", what, err)
		}
	}
}
