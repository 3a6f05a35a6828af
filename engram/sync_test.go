package engram

import (
	"context"
	"errors"
	"slices"
	"testing"

	"cairn/vram"
	"cairn/vram/emulated"
)

// dirty is engrams of a manager that need an upload, in batches of as many.
func dirty(t *testing.T, b *bench, n int) (*Manager, []*Engram) {
	t.Helper()
	m, err := NewManager(ManagerConfig{Batch: n})
	if err != nil {
		t.Fatal(err)
	}
	var all []*Engram
	for range n {
		e := b.engram("seed")
		m.Register(e)
		b.run(e, "upload", "host write")
		all = append(all, e)
	}
	return m, all
}

func (b *bench) release(all []*Engram) {
	b.t.Helper()
	for _, e := range all {
		b.run(e, "release")
	}
	b.empty()
}

// hold makes the first copy of a kind wait: begun is closed when it has begun, and it
// goes on when the caller closes gate. Later ones do not wait.
func (b *bench) hold(op emulated.Op) (begun, gate chan struct{}) {
	begun, gate = make(chan struct{}), make(chan struct{})
	held := false
	b.set(func(c emulated.Call) error {
		if isCopy(c, op) && c.Queued && !held {
			held = true
			close(begun)
			<-gate
		}
		return nil
	})
	return begun, gate
}

// TestSyncAllOneBadCopy: it takes no other of its batch with it, whichever it is.
func TestSyncAllOneBadCopy(t *testing.T) {
	for i := range 8 {
		bad, b := i%4, newBench(t)
		if i >= 4 {
			b.plain()
		}
		m, all := dirty(t, b, 4)
		for _, e := range all {
			b.run(e, "sync", "device write")
		}
		// Its memory is gone, without anybody having said so.
		if err := b.dev.Free(all[bad].device.addr); err != nil {
			t.Fatal(err)
		}
		if err := m.SyncAll(t.Context()); !errors.Is(err, vram.ErrInvalidAddress) {
			t.Errorf("engram %d: %v", bad+1, err)
		}
		for i, e := range all {
			want := Synced
			if i == bad {
				want = DeviceDirty
			}
			if e.State() != want {
				t.Errorf("engram %d is %s, the bad one is %d", i+1, e.State(), bad+1)
			}
		}
		if _, err := all[bad].Discard(Device); !errors.Is(err, vram.ErrInvalidAddress) {
			t.Errorf("memory that is gone is freed: %v", err)
		}
		b.release(slices.Delete(all, bad, bad+1))
	}
}

// TestSyncAllBatches counts the events, of which each batch has one in a direction.
func TestSyncAllBatches(t *testing.T) {
	for _, c := range []struct {
		cfg    ManagerConfig
		events int
	}{
		{ManagerConfig{}, 2}, {ManagerConfig{Batch: 3}, 4}, {ManagerConfig{Batch: 1}, 7},
		{ManagerConfig{BatchBytes: 1}, 7}, {ManagerConfig{BatchBytes: 17}, 3},
	} {
		for _, plain := range []bool{false, true} {
			b := newBench(t)
			if plain {
				b.plain()
			}
			m, err := NewManager(c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			var all []*Engram
			for i := range 7 {
				e := b.engram("seed")
				m.Register(e)
				all = append(all, e)
				b.run(e, "upload", []string{"host write", "device write"}[i/4])
			}
			events := 0
			b.set(func(call emulated.Call) error {
				if call.Op == emulated.Record && !call.Queued {
					events++
				}
				return nil
			})
			if err := m.SyncAll(t.Context()); err != nil || events != c.events {
				t.Errorf("%+v, plain %v: %v, %d events, want %d", c.cfg, plain, err, events, c.events)
			}
			b.set(nil)
			for i, e := range all {
				b.want(e, []string{`synced 2 "host" "host"`, `synced 2 "card" "card"`}[i/4])
			}
			b.release(all)
		}
	}
}

// TestSyncAllTriesOneByOne: a fault that is over makes no error.
func TestSyncAllTriesOneByOne(t *testing.T) {
	b := newBench(t)
	m, all := dirty(t, b, 4)
	faults := 0
	b.set(func(c emulated.Call) error {
		if isCopy(c, emulated.CopyIn) && c.Queued && faults == 0 {
			faults++
			return errBroken
		}
		return nil
	})
	if err := m.SyncAll(t.Context()); err != nil || faults != 1 {
		t.Errorf("%v, %d faults", err, faults)
	}
	b.set(nil)
	for _, e := range all {
		b.want(e, `synced 2 "host" "host"`)
	}
	b.release(all)
}

// TestSyncAllOvertaken: what is written while it is copied is synced all the same, and
// what somebody else copies is waited for.
func TestSyncAllOvertaken(t *testing.T) {
	b := newBench(t)
	m, all := dirty(t, b, 3)
	begun, gate := b.hold(emulated.CopyIn)
	done := make(chan error)
	go func() { done <- m.SyncAll(t.Context()) }()
	<-begun
	b.run(all[1], "host grow") // does not wait for the copy
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.want(all[0], `synced 2 "host" "host"`)
	b.want(all[1], `synced 3 "a longer host" "a longer host"`)
	if s := m.Stats(); s.Failed != 0 {
		t.Errorf("%d copies have failed", s.Failed)
	}

	b.run(all[2], "host write")
	begun, gate = b.hold(emulated.CopyIn)
	go func() { done <- all[2].Upload(t.Context()) }()
	<-begun
	all2 := make(chan error)
	go func() { all2 <- m.SyncAll(t.Context()) }()
	close(gate)
	if err := errors.Join(<-done, <-all2); err != nil {
		t.Error(err)
	}
	b.want(all[2], `synced 3 "host" "host"`)
	ctx, cancel := context.WithCancel(t.Context())
	b.run(all[2], "host write")
	begun, gate = b.hold(emulated.CopyIn)
	go func() { done <- all[2].Upload(t.Context()) }()
	<-begun
	cancel()
	if err := m.SyncAll(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a sync that does not wait any more: %v", err)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.release(all)
}

func TestRemoveRefusesHostDirty(t *testing.T) {
	b := newBench(t)
	m, all := dirty(t, b, 1)
	if _, err := m.Remove(1); !errors.Is(err, ErrDirty) || m.Stats().Total != 1 {
		t.Errorf("%v", err)
	}
	b.want(all[0], `host-dirty 2 "host" "seed"`)
	b.release(all)
}

// TestMemoryOfAnAbandonedCopyStays: the device may be using it until the copy is over,
// whoever has given up on what.
func TestMemoryOfAnAbandonedCopyStays(t *testing.T) {
	for _, c := range []struct {
		op    emulated.Op
		setup []string
		run   func(context.Context, *Engram) error
	}{
		{emulated.CopyIn, nil, func(ctx context.Context, e *Engram) error { return e.Upload(ctx) }},
		{emulated.CopyOut, []string{"upload", "device write"}, func(ctx context.Context, e *Engram) error { return e.Download(ctx) }},
	} {
		b := newBench(t)
		e := b.engram("seed")
		b.run(e, c.setup...)
		begun, gate := b.hold(c.op)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.run(ctx, e) }()
		<-begun
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", c.op, err)
		}
		if _, err := e.Discard(Device); err != nil {
			t.Error(err)
		}
		if b.used() == 0 {
			t.Errorf("%s: the memory was freed under the copy", c.op)
		}
		close(gate)
		if err := b.mem.Close(); err != nil {
			t.Error(err)
		}
		b.empty()
	}
}

func TestReplaceHostOwnsItsMemory(t *testing.T) {
	e, p := New(nil), []byte("mine")
	if _, err := e.ReplaceHost(t.Context(), 0, p); err != nil {
		t.Fatal(err)
	}
	p[0] = 'M'
	if got, _, err := e.Snapshot(); string(got) != "mine" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestCheckDeviceOvertaken: what was read of other memory says nothing about this one.
func TestCheckDeviceOvertaken(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	b.run(e, "upload", "unmarked device write")
	begun, gate := b.hold(emulated.CopyOut)
	type result struct {
		changed bool
		err     error
	}
	done := make(chan result)
	go func() {
		changed, err := e.CheckDevice(t.Context())
		done <- result{changed, err}
	}()
	<-begun
	b.run(e, "host write", "sync")
	close(gate)
	if r := <-done; r.changed || r.err != nil {
		t.Errorf("%+v", r)
	}
	b.want(e, `synced 2 "host" "host"`)
	b.release([]*Engram{e})
}

// TestDeviceLostFreesWhatItCan: a device that is given up, and works, keeps nothing.
func TestDeviceLostFreesWhatItCan(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	b.run(e, "upload")
	if e.DeviceLost() || e.State() != HostOnly {
		t.Errorf("%s", e.State())
	}
	b.empty()
}
