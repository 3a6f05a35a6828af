package emulated_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

func open(t *testing.T, memory int64) *emulated.Device {
	t.Helper()
	d, err := emulated.New(emulated.Config{Memory: memory})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// move carries out one copy and waits for it.
func move(t *testing.T, d *emulated.Device, queue func(vram.Stream) error) error {
	t.Helper()
	s, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := queue(s); err != nil {
		return err
	}
	e, err := s.Record()
	if err != nil {
		return err
	}
	defer e.Release()
	return e.Wait(context.Background())
}

func TestMemoryIsTheSameToBoth(t *testing.T) {
	t.Parallel()
	a, b := open(t, 1<<20), open(t, 1<<20)
	if _, err := a.Alloc(vram.Alignment); err != nil { // so that the next one is not on a page
		t.Fatal(err)
	}
	at, err := a.Alloc(100_000)
	if err != nil {
		t.Fatal(err)
	}
	h, err := a.Export(at)
	if err != nil {
		t.Fatal(err)
	}
	far, size, err := b.Import(h)
	if err != nil || size < 100_000 {
		t.Fatalf("%d bytes, %v", size, err)
	}
	second, _, err := b.Import(h)
	if err != nil || second == far {
		t.Fatalf("a second import at %#x: %v", uint64(second), err)
	}
	want := bytes.Repeat([]byte("engine"), 10_000)
	if err := move(t, b, func(s vram.Stream) error { return s.CopyIn(far+1000, want) }); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := move(t, a, func(s vram.Stream) error { return s.CopyOut(got, at+1000) }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the owner does not see what the importer wrote")
	}
	clear(got)
	if err := move(t, b, func(s vram.Stream) error { return s.CopyOut(got, second+1000) }); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the other import does not see it: %v", err)
	}
	if err := move(t, b, func(s vram.Stream) error { return s.CopyOut(got, far+vram.Addr(size)-10) }); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("a copy over the end of what is imported: %v", err)
	}
	if err := b.Unimport(far); err != nil {
		t.Fatal(err)
	}
	if err := b.Unimport(far); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("twice: %v", err)
	}
	if err := move(t, b, func(s vram.Stream) error { return s.CopyOut(got, far) }); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("after it was unimported: %v", err)
	}
	if err := b.Free(second); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("imported memory freed: %v", err)
	}
	if err := a.Close(); err != nil { // the importer's mapping outlives it
		t.Fatal(err)
	}
	if err := move(t, b, func(s vram.Stream) error { return s.CopyOut(got, second+1000) }); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after its owner has closed: %v", err)
	}
}

func TestHandlesThatAreNone(t *testing.T) {
	t.Parallel()
	a, b := open(t, 1<<20), open(t, 1<<20)
	at, err := a.Alloc(4096)
	if err != nil {
		t.Fatal(err)
	}
	h, err := a.Export(at)
	if err != nil {
		t.Fatal(err)
	}
	good := string(h)
	file, err := os.Create(t.TempDir() + "/cairn-emulated")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	bad := []string{
		"", "emulated:", "cuda:" + good, good + " ", strings.Repeat("x", 1<<16),
		strings.Replace(good, "size=4096", "size=0", 1),
		strings.Replace(good, "size=4096", "size=1048577", 1),
		strings.Replace(good, "offset=0", "offset=1048577", 1),
		strings.Replace(good, "offset=0", "offset=999999999999999999", 1),
		strings.Replace(good, "offset=0", "offset=-4096", 1),
		strings.Replace(good, "cookie=", "cookie=1", 1),
		strings.Replace(good, fmt.Sprint("proc/", os.Getpid()), "proc/4294967", 1),
		fmt.Sprintf("emulated:/proc/%d/fd/%d?offset=0&size=4096&cookie=1", os.Getpid(), file.Fd()),
		"emulated:/dev/zero?offset=0&size=4096&cookie=1",
		strings.Replace(good, "/fd/", "/fd/../fd/", 1),
	}
	for _, h := range bad {
		if _, _, err := b.Import(vram.Handle(h)); !errors.Is(err, vram.ErrInvalidHandle) {
			t.Errorf("%.100q: %v", h, err)
		}
	}
	if _, _, err := b.Import(h); err != nil {
		t.Errorf("the good one: %v", err)
	}
	if _, err := a.Export(at + 256); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("export of what is no allocation: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Import(h); !errors.Is(err, vram.ErrInvalidHandle) {
		t.Errorf("after its owner has closed: %v", err)
	}
	if _, err := a.Export(at); !errors.Is(err, tier.ErrClosed) {
		t.Errorf("export by a closed device: %v", err)
	}
	if _, _, err := a.Import(h); err == nil {
		t.Error("import by a closed device")
	}
}
