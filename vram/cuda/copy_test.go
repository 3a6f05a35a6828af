//go:build cuda && cgo

package cuda_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cairn/vram"
	"cairn/vram/cuda"
	"cairn/vram/cuda/driver"
	"cairn/vram/cuda/fakedriver"
)

// TestRegisterInPieces: a piece that cannot be page-locked leaves none.
func TestRegisterInPieces(t *testing.T) {
	needFake(t)
	p := mapped(t, 1<<20)
	dev := open(t, cuda.Config{RegisterChunk: 64 << 10})
	fake.Fail("cuMemHostRegister", 9, fakedriver.OutOfMemory, false)
	err := dev.Register(p)
	if err == nil || errors.Is(err, vram.ErrOutOfMemory) || !strings.Contains(err.Error(), "page-lock") {
		t.Errorf("Register gave %v", err)
	}
	if n := fake.Leaks().Registrations; n != 0 {
		t.Errorf("%d pieces are page-locked after a Register that failed", n)
	}
	must(t, dev.Register(p))
	if n := fake.Leaks().Registrations; n != 16 {
		t.Errorf("%d pieces of 64 KiB are page-locked of 1 MiB", n)
	}
	if err := dev.Register(p[100:200]); err == nil {
		t.Error("a part of registered memory was registered")
	}
	s, a := newStream(t, dev), alloc(t, dev, 1<<20)
	content(p, 1)
	must(t, s.CopyInBatch([]vram.Addr{a, a + 700_000}, [][]byte{p[:700_000], p[700_000:]}))
	must(t, s.Synchronize())
	got := make([]byte, len(p))
	must(t, s.CopyOut(got, a))
	must(t, s.Synchronize())
	if !bytes.Equal(got, p) {
		t.Error("a batch across the borders of pieces came back changed")
	}
	if fake.Calls("cuMemcpyBatchAsync") != 1 || fake.Calls("cuMemcpyHtoDAsync") != 0 {
		t.Errorf("the batch took %d calls and %d copies", fake.Calls("cuMemcpyBatchAsync"), fake.Calls("cuMemcpyHtoDAsync"))
	}
}

// TestCopiesAllocateNothing: what a node does per block leaves nothing for the garbage collector.
func TestCopiesAllocateNothing(t *testing.T) {
	p := mapped(t, 1<<20)
	dev := open(t, cuda.Config{})
	must(t, dev.Register(p))
	s, a := newStream(t, dev), alloc(t, dev, 1<<20)
	one := func() {
		must(t, s.CopyIn(a, p))
		e := record(t, s)
		must(t, e.Wait(context.Background()))
		e.Release()
	}
	one()
	// One for the driver's answer that an event is not over, which cu makes an error of.
	if n := testing.AllocsPerRun(200, one); n > 1 {
		t.Errorf("%v allocations for a copy and its event, want at most 1", n)
	}
	must(t, dev.Close())
}

// again runs tests of this binary in a process of its own, with another driver.
func again(t *testing.T, path, run string, env ...string) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, "-test.run="+run, "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), append(env, driverPath+"="+path)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestWithoutBatches: a driver from before CUDA 12.8 copies batches one by one.
func TestWithoutBatches(t *testing.T) {
	needFake(t)
	path, err := fakedriver.Build(t.TempDir(), fakedriver.WithoutBatch, fakedriver.WithoutBatchV2)
	if errors.Is(err, fakedriver.ErrNoCompiler) {
		t.Skip("there is no C compiler to build another fake driver")
	}
	must(t, err)
	out, err := again(t, path, "^(TestConformance|TestRandomMoves|TestBatchCalls)$")
	if err != nil || !strings.Contains(out, "--- PASS: TestBatchCalls") || !strings.Contains(out, "--- PASS: TestConformance/Batch") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestBatchCalls: a batch is one call where the driver can, and as many as there are copies where it cannot.
func TestBatchCalls(t *testing.T) {
	needFake(t)
	p := mapped(t, 1<<20)
	dev := open(t, cuda.Config{})
	must(t, dev.Register(p))
	s, a := newStream(t, dev), alloc(t, dev, 1<<20)
	var at []vram.Addr
	var src [][]byte
	for i := range 2000 {
		at, src = append(at, a+vram.Addr(i*500)), append(src, p[i*500:][:500])
	}
	must(t, s.CopyInBatch(at, src))
	must(t, s.Synchronize())
	calls, copies := fake.Calls("cuMemcpyBatchAsync"), fake.Calls("cuMemcpyHtoDAsync")
	if has := batches(t); has && (calls != 2 || copies != 0) || !has && (calls != 0 || copies != 2000) {
		t.Errorf("2000 copies took %d calls for batches and %d for copies; the driver has batches: %v", calls, copies, has)
	}
}

// TestBatchInParts: of a batch that takes several calls, the second of which fails, nothing is under way any
// more when its error is there; and page-locked memory and other memory go together.
func TestBatchInParts(t *testing.T) {
	needFake(t)
	if !driver.HasBatch() {
		t.Skip("this driver has no batches")
	}
	const n, size = 2500, 400
	p := mapped(t, n*size)
	dev := open(t, cuda.Config{})
	must(t, dev.Register(p[:n*size/5/4096*4096]))
	s, a := newStream(t, dev), alloc(t, dev, n*size)
	var at []vram.Addr
	var host [][]byte
	for i := range n {
		at, host = append(at, a+vram.Addr(i*size)), append(host, p[i*size:][:size])
	}
	content(p, 7)
	must(t, s.CopyInBatch(at, host))
	must(t, s.Synchronize())
	want := bytes.Clone(p)
	clear(p)
	must(t, s.CopyOutBatch(host, at))
	must(t, s.Synchronize())
	if !bytes.Equal(p, want) {
		t.Error("bytes came back changed")
	}
	must(t, dev.Unregister(p[:n*size/5/4096*4096]))
	must(t, dev.Register(p))
	fake.Delay("cuMemcpyBatchAsync", time.Millisecond)
	for part := 1; part <= 3; part++ {
		fake.Fail("cuMemcpyBatchAsync", part, int(errInjected), false)
		if err := s.CopyInBatch(at, host); !errors.Is(err, errInjected) {
			t.Errorf("the batch gave %v", err)
		}
		if queued := fake.Queued(); queued != 0 {
			t.Errorf("%d copies are under way after the error of part %d", queued, part)
		}
		must(t, s.Synchronize())
	}
}
