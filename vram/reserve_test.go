package vram_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"cairn/block"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// engine is another device that has mapped the arena of a pool.
type engine struct {
	t     *testing.T
	dev   *emulated.Device
	arena vram.Addr
}

func newEngine(t *testing.T, p *vram.Pool) *engine {
	t.Helper()
	dev, err := emulated.New(emulated.Config{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	a, err := p.Arena()
	if err != nil {
		t.Fatal(err)
	}
	at, size, err := dev.Import(a.Handle)
	if err != nil || size != a.Bytes {
		t.Fatalf("import of %d bytes gave %d: %v", a.Bytes, size, err)
	}
	return &engine{t, dev, at}
}

func (e *engine) run(queue func(vram.Stream) error) {
	e.t.Helper()
	s, err := e.dev.NewStream()
	if err != nil {
		e.t.Fatal(err)
	}
	defer s.Close()
	if err := errors.Join(queue(s), s.Synchronize()); err != nil {
		e.t.Fatal(err)
	}
}

func (e *engine) write(offset int64, p []byte) {
	e.t.Helper()
	e.run(func(s vram.Stream) error { return s.CopyIn(e.arena+vram.Addr(offset), p) })
}

func (e *engine) read(offset int64, n int) []byte {
	e.t.Helper()
	p := make([]byte, n)
	e.run(func(s vram.Stream) error { return s.CopyOut(p, e.arena+vram.Addr(offset)) })
	return p
}

func TestEngineFillsASlot(t *testing.T) {
	p := open(t, vram.Config{Capacity: 256 * kib, Classes: []int{64 * kib}}, nil)
	e := newEngine(t, p)
	put(t, p, 1, 1000)
	s, evicted, err := p.Reserve(t.Context(), 50_000)
	if err != nil || len(evicted) != 0 || s.Len() != 50_000 {
		t.Fatalf("evicted %v, %v", evicted, err)
	}
	d, content := object(7, 50_000)
	e.write(s.Offset(), content)
	if _, ok := p.Stat(d.Key); ok {
		t.Error("visible before it is committed")
	}
	got := make([]byte, s.Len())
	if err := s.CopyOut(got); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("what the engine wrote: %v", err)
	}
	if err := s.CopyOut(got[1:]); !errors.Is(err, tier.ErrShortBuffer) {
		t.Errorf("into too little: %v", err)
	}
	placed, err := s.Commit(d)
	if err != nil || placed.Descriptor != d || !bytes.Equal(e.read(placed.Offset, 50_000), content) {
		t.Fatalf("%+v, %v", placed, err)
	}
	for i := 10; i < 20; i++ {
		put(t, p, i, 1000)
	}
	if _, ok := p.Stat(d.Key); !ok {
		t.Error("evicted while it is pinned")
	}
	s.Abort() // does nothing
	p.Delete(d.Key)
	for i := 20; i < 30; i++ {
		put(t, p, i, 1000)
	}
	if !bytes.Equal(e.read(placed.Offset, 50_000), content) {
		t.Error("the slot of a deleted object was used again under its reader")
	}
	placed.Release()
	if _, err := s.Commit(d); err == nil {
		t.Error("committed twice")
	}
	if st := p.Stats(); st.Pinned != 0 {
		t.Errorf("%+v", st)
	}
}

func TestReservationsAreRoomTaken(t *testing.T) {
	p := open(t, vram.Config{Capacity: 256 * kib, Classes: []int{64 * kib}}, nil)
	for i := range 4 {
		put(t, p, i, 1000)
	}
	var slots []tier.DeviceSlot
	gone := 0
	for range 4 {
		s, evicted, err := p.Reserve(t.Context(), 64*kib)
		if err != nil {
			t.Fatal(err)
		}
		gone += len(evicted)
		slots = append(slots, s)
	}
	if gone != 4 {
		t.Errorf("%d objects were evicted, want 4", gone)
	}
	if _, _, err := p.Reserve(t.Context(), 1); !errors.Is(err, tier.ErrFull) {
		t.Errorf("a fifth: %v", err)
	}
	if _, _, err := p.Reserve(t.Context(), 64*kib+1); !errors.Is(err, tier.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, _, err := p.Reserve(t.Context(), 0); err == nil {
		t.Error("a slot of no bytes")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := p.Reserve(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	d, _ := object(9, 64*kib)
	placed, err := slots[0].Commit(d)
	if err != nil {
		t.Fatal(err)
	}
	placed.Release()
	if _, err := slots[1].Commit(d); !errors.Is(err, tier.ErrExists) {
		t.Errorf("the same again: %v", err)
	}
	other := d
	other.Sum++
	if _, err := slots[2].Commit(other); !errors.Is(err, tier.ErrConflict) {
		t.Errorf("other bytes: %v", err)
	}
	short := d
	short.Key, short.Length = key(77), 5
	if _, err := slots[3].Commit(short); err == nil {
		t.Error("another length than reserved")
	}
	if st := p.Stats(); st.Used != 64*kib || st.Objects != 1 {
		t.Errorf("slots leaked: %+v", st)
	}
}

func TestRegions(t *testing.T) {
	p := open(t, vram.Config{Capacity: 256 * kib, Classes: []int{64 * kib}}, nil)
	e := newEngine(t, p)
	at, err := e.dev.Alloc(100_000)
	if err != nil {
		t.Fatal(err)
	}
	h, err := e.dev.Export(at)
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Import(h)
	if err != nil || r.Size() < 100_000 {
		t.Fatal(r, err)
	}
	d, content := object(3, 40_000)
	e.run(func(s vram.Stream) error { return s.CopyIn(at+500, content) })
	s, _, err := p.Reserve(t.Context(), len(content))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Store(s, 500); err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{-1, r.Size() - 39_999, r.Size() + 1, 1 << 62} {
		if err := r.Store(s, from); !errors.Is(err, vram.ErrInvalidAddress) {
			t.Errorf("from %d: %v", from, err)
		}
	}
	placed, err := s.Commit(d)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if _, err := p.Get(t.Context(), d.Key, got); err != nil || !bytes.Equal(got, content) {
		t.Errorf("what was stored: %v", err)
	}
	if err := r.Load(placed, 60_000); err != nil {
		t.Fatal(err)
	}
	clear(got)
	e.run(func(s vram.Stream) error { return s.CopyOut(got, at+60_000) })
	if !bytes.Equal(got, content) {
		t.Error("what was loaded is something else")
	}
	if err := r.Load(placed, r.Size()-39_999); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("over the end: %v", err)
	}
	placed.Release()
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Load(placed, 0); !errors.Is(err, vram.ErrInvalidAddress) {
		t.Errorf("after it is closed: %v", err)
	}
	if _, err := p.Import([]byte("something")); !errors.Is(err, tier.ErrHandle) {
		t.Errorf("a handle of nothing: %v", err)
	}
	if st := p.Stats(); st.Errors != 0 {
		t.Errorf("mistakes of engines count as errors of the device: %+v", st)
	}
}

func TestLostUnderAReservation(t *testing.T) {
	var f fault
	p := open(t, vram.Config{Capacity: 256 * kib, Classes: []int{64 * kib}}, func(c emulated.Call) error {
		if f.err != nil && c.Op == emulated.CopyOut {
			return f.err
		}
		return nil
	})
	first, _, err := p.Reserve(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := p.Reserve(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	f.err = tier.ErrDeviceLost
	if err := first.CopyOut(make([]byte, 1000)); !errors.Is(err, tier.ErrDeviceLost) {
		t.Fatalf("copy: %v", err)
	}
	d, _ := object(1, 1000)
	if _, err := first.Commit(d); !errors.Is(err, tier.ErrDeviceLost) {
		t.Errorf("commit: %v", err)
	}
	second.Abort()
	if st := p.Stats(); st.Used != 0 {
		t.Errorf("slots leaked: %+v", st)
	}
	if _, _, err := p.Reserve(t.Context(), 1000); !errors.Is(err, tier.ErrDeviceLost) {
		t.Errorf("reserve: %v", err)
	}
	if _, err := p.Place(block.Key{}); !errors.Is(err, tier.ErrDeviceLost) {
		t.Errorf("place: %v", err)
	}
}
