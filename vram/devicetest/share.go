package devicetest

import (
	"bytes"
	"errors"
	"testing"

	"cairn/tier"
	"cairn/vram"
)

// shareSize is the size of the allocations that are shared, in bytes: what a GPU hands to another
// process is a multiple of it.
const shareSize = 4 << 20

// testHandles asks for what a device that shares its memory must refuse.
func testHandles(t *testing.T, dev vram.Device) {
	d, ok := dev.(vram.Sharer)
	if !ok {
		t.Skip("this device does not share its memory")
	}
	a := alloc(t, dev, shareSize)
	h, err := d.Export(a)
	if err != nil || len(h) == 0 {
		t.Fatalf("Export gave %q, %v", h, err)
	}
	if _, err := d.Export(a); err != nil {
		t.Errorf("a second Export: %v", err)
	}
	if _, err := d.Export(a + vram.Alignment); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("Export of the middle of an allocation gave %v, want ErrInvalidAddress", err)
	}
	for _, bad := range []vram.Handle{nil, {}, h[:len(h)-1], append(h[:len(h):len(h)], 0), make(vram.Handle, len(h)), pattern(9, 64)} {
		if _, _, err := d.Import(bad); !errors.Is(err, vram.ErrInvalidHandle) {
			t.Errorf("Import of %q gave %v, want ErrInvalidHandle", []byte(bad), err)
		}
	}
	if err := d.Unimport(a); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("Unimport of what was not imported gave %v, want ErrInvalidAddress", err)
	}
	must(t, dev.Free(a))
	if _, err := d.Export(a); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("Export of what was freed gave %v, want ErrInvalidAddress", err)
	}
	must(t, dev.Close())
	_, export := d.Export(a)
	for what, err := range map[string]error{"Export": export, "Unimport": d.Unimport(a)} {
		if !errors.Is(err, tier.ErrClosed) {
			t.Errorf("%s after Close gave %v, want ErrClosed", what, err)
		}
	}
	if _, _, err := d.Import(h); !errors.Is(err, tier.ErrClosed) && !errors.Is(err, vram.ErrInvalidHandle) { // the memory is gone, too
		t.Errorf("Import after Close gave %v, want ErrClosed", err)
	}
}

// RunShared runs the cases that need a second process, an engine with a device of its own: the test
// binary itself, whose TestMain must call [Engine]. open is as for [Run], for a [vram.Sharer].
func RunShared(t *testing.T, open func(t testing.TB) vram.Device) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, vram.Sharer){
		"EngineReadsAndWrites": testEngineReadsAndWrites,
		"EngineShares":         testEngineShares,
		"EngineDies":           testEngineDies,
		"EngineDiesExporting":  testEngineDiesExporting,
	} {
		t.Run(name, func(t *testing.T) {
			dev, ok := opened(t, open).(vram.Sharer)
			if !ok {
				t.Fatal("this device does not share its memory")
			}
			test(t, dev)
		})
	}
}

// ends are the pieces of a shared allocation that are looked at: the first bytes, the last, and one
// across the middle.
var ends = []struct{ at, n int }{{0, 4096}, {shareSize - 333, 333}, {shareSize/2 - 100_001, 200_002}}

// fill and check write and read one of these pieces.
func fill(t *testing.T, dev vram.Device, a vram.Addr, at, n, seed int) {
	t.Helper()
	s := stream(t, dev)
	must(t, s.CopyIn(a+vram.Addr(at), pattern(seed, n)))
	must(t, s.Synchronize())
	must(t, s.Close())
}

func check(t *testing.T, dev vram.Device, a vram.Addr, at, n, seed int) {
	t.Helper()
	s, got := stream(t, dev), make([]byte, n)
	must(t, s.CopyOut(got, a+vram.Addr(at)))
	must(t, s.Synchronize())
	must(t, s.Close())
	if !bytes.Equal(got, pattern(seed, n)) {
		t.Errorf("%d bytes at %d are not those that were written", n, at)
	}
}

func testEngineReadsAndWrites(t *testing.T, dev vram.Sharer) {
	e := startEngine(t)
	a := alloc(t, dev, shareSize)
	h, err := dev.Export(a)
	must(t, err)
	for i, p := range ends {
		fill(t, dev, a, p.at, p.n, i)
	}
	got := e.must(request{Op: "import", Handle: h})
	if got.Size < shareSize {
		t.Errorf("the engine has mapped %d bytes of %d", got.Size, shareSize)
	}
	for i, p := range ends {
		e.must(request{Op: "check", Addr: got.Addr, At: p.at, N: p.n, Seed: i})
		e.must(request{Op: "fill", Addr: got.Addr, At: p.at, N: p.n, Seed: i + 10})
		check(t, dev, a, p.at, p.n, i+10)
		fill(t, dev, a, p.at, p.n, i+20)
		e.must(request{Op: "check", Addr: got.Addr, At: p.at, N: p.n, Seed: i + 20})
	}
	again := e.must(request{Op: "import", Handle: h})
	e.must(request{Op: "check", Addr: again.Addr, At: 0, N: 4096, Seed: 20})
	e.must(request{Op: "unimport", Addr: again.Addr})
	e.must(request{Op: "check", Addr: got.Addr, At: 0, N: 4096, Seed: 20}) // as each import has an end of its own
	e.must(request{Op: "unimport", Addr: got.Addr})
	if again := e.ask(request{Op: "check", Addr: got.Addr, N: 1}); again.Err == "" {
		t.Error("the engine reads what it has unmapped")
	}
	e.stop()
	must(t, dev.Free(a))
}

// testEngineShares copies between the engine's memory and the device's own, and the host's.
func testEngineShares(t *testing.T, dev vram.Sharer) {
	e := startEngine(t)
	theirs := e.must(request{Op: "alloc", N: shareSize})
	for i, p := range ends {
		e.must(request{Op: "fill", Addr: theirs.Addr, At: p.at, N: p.n, Seed: i})
	}
	a, size, err := dev.Import(theirs.Handle)
	must(t, err)
	if size < shareSize {
		t.Fatalf("Import gave %d bytes of %d", size, shareSize)
	}
	if err := dev.Free(a); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("Free of imported memory gave %v, want ErrInvalidAddress", err)
	}
	own, s := alloc(t, dev, shareSize), stream(t, dev)
	for i, p := range ends {
		at, n := vram.Addr(p.at), int64(p.n)
		check(t, dev, a, p.at, p.n, i)
		must(t, s.CopyDevice(own+at, a+at, n))
		must(t, s.Synchronize())
		check(t, dev, own, p.at, p.n, i)
		fill(t, dev, own, p.at, p.n, i+10)
		must(t, s.CopyDevice(a+at, own+at, n))
		must(t, s.Synchronize())
		e.must(request{Op: "check", Addr: theirs.Addr, At: p.at, N: p.n, Seed: i + 10})
	}
	if err := s.CopyDevice(own, a+vram.Addr(size)-10, 11); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("a copy over the end of imported memory gave %v, want ErrInvalidAddress", err)
	}
	must(t, dev.Unimport(a))
	if err := s.CopyDevice(own, a, 1); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("a copy from unmapped memory gave %v, want ErrInvalidAddress", err)
	}
	if err := dev.Unimport(a); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("a second Unimport gave %v, want ErrInvalidAddress", err)
	}
	e.must(request{Op: "free", Addr: theirs.Addr})
	e.stop()
}

// testEngineDies: memory that a dead engine had mapped is as good as before.
func testEngineDies(t *testing.T, dev vram.Sharer) {
	e := startEngine(t)
	a := alloc(t, dev, shareSize)
	h, err := dev.Export(a)
	must(t, err)
	got := e.must(request{Op: "import", Handle: h})
	e.must(request{Op: "fill", Addr: got.Addr, N: 4096, Seed: 1})
	e.kill()
	check(t, dev, a, 0, 4096, 1)
	fill(t, dev, a, 0, shareSize, 2)
	check(t, dev, a, 0, shareSize, 2)
	next := startEngine(t)
	got = next.must(request{Op: "import", Handle: h})
	next.must(request{Op: "check", Addr: got.Addr, N: shareSize, Seed: 2})
	next.stop()
	must(t, dev.Free(a))
	must(t, dev.Free(alloc(t, dev, shareSize)))
}

// testEngineDiesExporting: the mapping of a dead engine's memory can be taken down, and the device
// goes on. What the memory holds then is not said.
func testEngineDiesExporting(t *testing.T, dev vram.Sharer) {
	e := startEngine(t)
	theirs := e.must(request{Op: "alloc", N: shareSize})
	a, _, err := dev.Import(theirs.Handle)
	must(t, err)
	e.kill()
	must(t, dev.Unimport(a))
	own := alloc(t, dev, shareSize)
	fill(t, dev, own, 0, shareSize, 3)
	check(t, dev, own, 0, shareSize, 3)
}
