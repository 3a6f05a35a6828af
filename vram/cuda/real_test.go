//go:build cuda && cgo

package cuda_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"gorgonia.org/cu"

	"cairn/hostcache"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/cuda"
	"cairn/vram/cuda/driver"
	"cairn/vram/cuda/fakedriver"
)

// batches tells whether batches of copies go to the driver as such.
func batches(t *testing.T) bool {
	t.Helper()
	gpu, err := cu.GetDevice(0)
	must(t, err)
	same, err := gpu.Attribute(cu.CanUseHostPointerForRegisteredMem)
	must(t, err)
	return driver.HasBatch() && same == 1
}

// TestDriver says what was loaded, and what this driver lacks of what is looked for.
func TestDriver(t *testing.T) {
	version, err := cuda.DriverVersion()
	must(t, err)
	t.Logf("%s of CUDA %d.%d: batches %v; lacks %q", driver.Path(), version/1000, version%1000/10, batches(t), driver.Missing())
}

// TestAliases: where registered host memory has another address on the device, as in WSL, a batch that names
// it would end the device, and copies go one by one.
func TestAliases(t *testing.T) {
	needFake(t)
	path, err := fakedriver.Build(t.TempDir(), fakedriver.WithAliases)
	if errors.Is(err, fakedriver.ErrNoCompiler) {
		t.Skip("there is no C compiler to build another fake driver")
	}
	must(t, err)
	out, err := again(t, path, "^(TestConformance|TestRandomMoves|TestBatchCalls)$")
	if err != nil || !strings.Contains(out, "--- PASS: TestBatchCalls") || !strings.Contains(out, "--- PASS: TestConformance/Batch") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestWholeBlocks: an allocation of any size lies alone in its block, so that a handle of it opens nothing else. The
// fake driver notes a handle of any other; its ledger is looked at in the end.
func TestWholeBlocks(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	for _, n := range []int64{1, 2<<20 - 1, 2 << 20, 2<<20 + 1} {
		a := alloc(t, dev, n)
		if _, err := dev.Export(a); err != nil {
			t.Errorf("Export of %d bytes gave %v", n, err)
		}
		if got := fake.Leaks().Bytes; got%(2<<20) != 0 || got-n < 0 || got-n >= 2<<20 {
			t.Errorf("an allocation of %d bytes takes %d", n, got)
		}
		s := newStream(t, dev)
		if err := s.CopyIn(a+vram.Addr(n), []byte{1}); !errors.Is(err, vram.ErrInvalidAddress) {
			t.Errorf("a copy behind the end of %d bytes gave %v", n, err)
		}
		must(t, errors.Join(s.Close(), dev.Free(a)))
	}
}

// TestExportNotSupported: where the driver shares no memory, as in some virtual machines, that is said as tiers say it.
func TestExportNotSupported(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	a := alloc(t, dev, 1)
	fake.Fail("cuIpcGetMemHandle", 1, fakedriver.NotSupported, false)
	if _, err := dev.Export(a); !errors.Is(err, tier.ErrNotShared) || !errors.Is(err, driver.Result(fakedriver.NotSupported)) {
		t.Errorf("Export gave %v, want ErrNotShared", err)
	}
}

// TestFakeIsNoGPU: where a GPU is required, the fake driver does not do, wherever it was found.
func TestFakeIsNoGPU(t *testing.T) {
	needFake(t)
	out, err := again(t, os.Getenv(driverPath), "^TestDevices$", requireGPU+"=1")
	if err == nil || !strings.Contains(out, "is a fake driver") || strings.Contains(out, "TestDevices") {
		t.Errorf("with the fake driver the tests say %v\n%s", err, out)
	}
}

// TestShownToTwo: memory that another device of the process has page-locked first, in pieces, is copied across their
// borders.
func TestShownToTwo(t *testing.T) {
	const n, chunk = 1 << 20, 64 << 10
	p := mapped(t, n)
	first, second := open(t, cuda.Config{RegisterChunk: chunk}), open(t, cuda.Config{RegisterChunk: chunk})
	must(t, errors.Join(first.Register(p), second.Register(p)))
	s, a := newStream(t, second), alloc(t, second, n)
	trip := func(seed int) {
		t.Helper()
		content(p, seed)
		want := bytes.Clone(p)
		must(t, errors.Join(s.CopyIn(a, p[:chunk+1]), s.CopyInBatch([]vram.Addr{a + chunk + 1}, [][]byte{p[chunk+1:]}), s.Synchronize()))
		clear(p)
		must(t, errors.Join(s.CopyOut(p, a), s.Synchronize()))
		if !bytes.Equal(p, want) {
			t.Error("bytes came back changed")
		}
	}
	trip(1)
	must(t, first.Unregister(p)) // the second's copies are slower from here on
	trip(2)
	must(t, second.Unregister(p))
	trip(3)
	must(t, second.Register(p))
	trip(4)
}

// TestRegisterUnknown: some drivers say no more than that when a system does not let them page-lock memory. That is
// the end of nothing; a device that is lost says so again.
func TestRegisterUnknown(t *testing.T) {
	needFake(t)
	p := mapped(t, 4096)
	dev := open(t, cuda.Config{})
	fake.Fail("cuMemHostRegister", 1, fakedriver.Unknown, false)
	if err := dev.Register(p); err == nil || errors.Is(err, tier.ErrDeviceLost) || !strings.Contains(err.Error(), "page-lock") {
		t.Errorf("Register gave %v", err)
	}
	must(t, dev.Register(p))
	must(t, dev.Unregister(p))
	fake.Fail("cuMemHostRegister", 1, fakedriver.Unknown, true)
	if err := dev.Register(p); err == nil {
		t.Error("Register on a lost device gave no error")
	}
	if _, _, err := dev.Memory(); !errors.Is(err, tier.ErrDeviceLost) {
		t.Errorf("a lost device gave %v", err)
	}
	must(t, dev.Close())
	fake.Reset()
}

// TestHostTierMemory copies from and to the arena of a host tier, which is shared memory, of huge pages where the system
// gives them, and not there yet when it is page-locked: a driver may treat it otherwise than the memory of other tests.
func TestHostTierMemory(t *testing.T) {
	const n, piece = 16 << 20, 4 << 20
	dev := open(t, cuda.Config{RegisterChunk: piece})
	s, a := newStream(t, dev), alloc(t, dev, n)
	var mem []byte
	cache, err := hostcache.Open(hostcache.Config{Capacity: n, Lock: func(arena []byte) (func() error, error) {
		mem = arena
		return func() error { return dev.Unregister(arena) }, dev.Register(arena)
	}})
	must(t, err)
	if len(mem) != n {
		t.Fatalf("the arena has %d bytes, want %d", len(mem), n)
	}
	content(mem, 1)
	must(t, errors.Join(s.CopyInBatch([]vram.Addr{a, a + piece/2}, [][]byte{mem[:piece/2], mem[piece/2:]}), s.Synchronize()))
	want := bytes.Clone(mem)
	clear(mem)
	must(t, errors.Join(s.CopyOut(mem, a), s.Synchronize()))
	if !bytes.Equal(mem, want) {
		t.Error("bytes came back changed")
	}
	must(t, cache.Close())
}

// TestResetIsForGood: what a device held is gone with its context, and is not asked of the driver again, not even when
// another part of the process has made the context anew: a driver may not notice that a handle is an old one.
func TestResetIsForGood(t *testing.T) {
	needFake(t)
	dev := open(t, cuda.Config{})
	s, a := newStream(t, dev), alloc(t, dev, 4096)
	must(t, errors.Join(s.CopyIn(a, make([]byte, 100)), s.Synchronize()))
	for i := range 3 {
		fake.Fail("cuStreamSynchronize", i+1, int(errInjected), false)
	}
	fake.Fail("cuEventQuery", 1, int(errInjected), false)
	if err := s.Synchronize(); !errors.Is(err, tier.ErrDeviceLost) {
		t.Fatalf("Synchronize gave %v, want ErrDeviceLost", err)
	}
	gpu, err := cu.GetDevice(0)
	must(t, err)
	_, err = gpu.RetainPrimaryCtx()
	must(t, err)
	calls := []string{"cuStreamSynchronize", "cuStreamDestroy", "cuEventDestroy", "cuMemFree"}
	before := map[string]int{}
	for _, name := range calls {
		before[name] = fake.Calls(name)
	}
	must(t, dev.Close())
	for _, name := range calls {
		if n := fake.Calls(name) - before[name]; n != 0 {
			t.Errorf("%s was called %d times with what the reset has ended", name, n)
		}
	}
	for _, text := range fake.Misuse() {
		t.Logf("the fake driver has seen: %s", text)
	}
	fake.Reset()
}
