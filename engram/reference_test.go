package engram

import (
	"errors"
	"slices"
	"testing"

	"cairn/vram/emulated"
)

// The tests of the reference, under its names, restated for ours; the rest of its file is
// in package coherency. A reference that hands out its host bytes to be changed has no
// error to give: where it does, ours is a function that is given them.

func TestReferenceCoherencyStateChecks(t *testing.T) {
	if !HostOnly.HostIsCurrent() || HostOnly.DeviceIsCurrent() {
		t.Error("host-only")
	}
	if !Synced.HostIsCurrent() || !Synced.DeviceIsCurrent() {
		t.Error("synced")
	}
	if !HostDirty.NeedsSync() || !DeviceDirty.NeedsSync() || Synced.NeedsSync() {
		t.Error("needs sync")
	}
}

func TestReferenceCoherentEngramNew(t *testing.T) {
	data := []byte{1, 2, 3, 4}
	e := New(data)
	if e.State() != HostOnly || e.OnDevice() {
		t.Errorf("%s, on device %v", e.State(), e.OnDevice())
	}
	if err := e.ReadHost(func(p []byte) error {
		if !slices.Equal(p, data) {
			t.Errorf("host has %v", p)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	data[0] = 9 // the caller's again
	if p, _, _ := e.Snapshot(); p[0] != 1 {
		t.Error("the engram shares memory with whoever made it")
	}
}

func TestReferenceCoherentEngramSparseVecRoundtrip(t *testing.T) {
	v := SparseVec{Pos: []uint32{1, 5, 10, 100}, Neg: []uint32{2, 7, 50}}
	e, err := FromVector(v)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := e.Vector(); err != nil || !back.Equal(v) {
		t.Errorf("%v, %v", back, err)
	}
}

func TestReferenceCoherentEngramModifyMarksDirty(t *testing.T) {
	b := newBench(t)
	e := b.engram("123")
	if e.State() != HostOnly {
		t.Errorf("new: %s", e.State())
	}
	b.run(e, "upload")
	if e.State() != Synced {
		t.Errorf("uploaded: %s", e.State())
	}
	b.run(e, "host write")
	if e.State() != HostDirty {
		t.Errorf("modified: %s", e.State())
	}
	b.run(e, "release")
	if e.State() != HostOnly {
		t.Errorf("released: %s", e.State())
	}
}

func TestReferenceCoherencyManager(t *testing.T) {
	m, err := NewManager(ManagerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	e1, e2 := New([]byte{1, 2, 3}), New([]byte{4, 5, 6})
	id1, id2 := m.Register(e1), m.Register(e2)
	if got, ok := m.Get(id1); !ok || got != e1 {
		t.Error("the first is not there")
	}
	if got, ok := m.Get(id2); !ok || got != e2 {
		t.Error("the second is not there")
	}
	if _, ok := m.Get(999); ok {
		t.Error("999 is there")
	}
	if s := m.Stats(); s.Total != 2 || s.HostOnly != 2 {
		t.Errorf("%+v", s)
	}
}

// The example at the top of the reference's file.
func TestReferenceExample(t *testing.T) {
	b := newBench(t)
	e := b.engram("data")
	b.run(e, "upload")
	if e.State() != Synced {
		t.Errorf("uploaded: %s", e.State())
	}
	b.run(e, "unmarked device write")
	if v, err := e.MarkDeviceDirty(t.Context()); v != 2 || err != nil || e.State() != DeviceDirty {
		t.Errorf("marked: version %d, %v, %s", v, err, e.State())
	}
	b.run(e, "sync")
	b.want(e, `synced 2 "poke" "poke"`)
	b.run(e, "release")
	b.empty()
}

// What its documentation says and no test of it shows.
func TestReferenceManagerLifecycle(t *testing.T) {
	b := newBench(t)
	m, err := NewManager(ManagerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	host, device := b.engram("a"), b.engram("b")
	ids := []ID{m.Register(host), m.Register(device)}
	b.run(host, "upload", "host write")
	b.run(device, "upload", "device write")
	if s := m.Stats(); s.Dirty != 2 {
		t.Errorf("%+v", s)
	}
	if err := m.SyncAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.want(host, `synced 2 "host" "host"`)
	b.want(device, `synced 2 "c" "c"`)
	if s := m.Stats(); s.Synced != 2 || s.Uploads != 3 || s.Downloads != 1 || s.BytesUploaded != 6 || s.BytesDownloaded != 1 {
		t.Errorf("%+v", s)
	}
	seen := []ID{}
	for id, e := range m.All() {
		if got, ok := m.Get(id); !ok || got != e {
			t.Errorf("%d is another", id)
		}
		seen = append(seen, id)
	}
	if !slices.Equal(seen, ids) {
		t.Errorf("went through %v, want %v", seen, ids)
	}
	if e, err := m.Remove(ids[0]); e != host || err != nil {
		t.Error(err)
	}
	if _, err := m.Remove(ids[0]); !errors.Is(err, ErrNoEngram) {
		t.Errorf("a second remove: %v", err)
	}
	b.run(device, "device write")
	if e, lost, err := m.Discard(ids[1]); e != device || !lost || err != nil {
		t.Errorf("discard: lost %v, %v", lost, err)
	}
	if _, _, err := m.Discard(ids[1]); !errors.Is(err, ErrNoEngram) {
		t.Errorf("a second discard: %v", err)
	}
	b.empty()
	if id := m.Register(New(nil)); id != 3 {
		t.Errorf("an id was used again: %d", id)
	}
	if s := m.Stats(); s.Total != 1 || s.Uploads != 3 || s.Lost != 1 {
		t.Errorf("what was removed is not counted any more: %+v", s)
	}
	for _, e := range m.All() {
		_ = e
		break
	}
}

func TestManagerRefuses(t *testing.T) {
	if _, err := NewManager(ManagerConfig{Batch: -1, BatchBytes: -1}); err == nil {
		t.Error("a configuration below zero was taken")
	}
	b := newBench(t)
	m, err := NewManager(ManagerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	e := b.engram("seed")
	id := m.Register(e)
	b.run(e, "upload", "drop host")
	if _, err := m.Remove(id); !errors.Is(err, ErrLastCopy) {
		t.Errorf("remove of what only the device has: %v", err)
	}
	b.run(e, "download", "device write")
	begun, gate := make(chan struct{}), make(chan struct{})
	b.set(func(c emulated.Call) error {
		if isCopy(c, emulated.CopyOut) && c.Queued {
			close(begun)
			<-gate
		}
		return nil
	})
	done := make(chan error)
	go func() { done <- m.SyncAll(t.Context()) }()
	<-begun
	b.set(nil)
	if _, err := m.Remove(id); !errors.Is(err, ErrInFlight) {
		t.Errorf("remove while it is copied: %v", err)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := m.Remove(id); err != nil {
		t.Error(err)
	}
	b.empty()
}

func TestAttach(t *testing.T) {
	b, o := newBench(t), newBench(t)
	e := New([]byte("seed"))
	for _, op := range []func() error{
		func() error { return e.Upload(t.Context()) },
		func() error { _, err := e.ReplaceDevice(t.Context(), 1, b.write("x")); return err },
	} {
		if err := op(); !errors.Is(err, ErrNoDevice) {
			t.Errorf("without a device: %v", err)
		}
	}
	if err := e.Attach(b.mem); err != nil {
		t.Fatal(err)
	}
	b.run(e, "upload")
	if err := e.Attach(b.mem); err != nil {
		t.Errorf("the same again: %v", err)
	}
	for _, mem := range []*Memory{o.mem, nil} {
		if err := e.Attach(mem); !errors.Is(err, ErrAttached) {
			t.Errorf("another: %v, want ErrAttached", err)
		}
	}
	b.run(e, "release")
	if err := e.Attach(o.mem); err != nil {
		t.Error(err)
	}
	b.run(e, "upload")
	b.empty()
	if o.used() == 0 {
		t.Error("nothing on the other device")
	}
	b.run(e, "release")
	o.empty()
	if err := e.Attach(nil); err != nil {
		t.Error(err)
	}
}
