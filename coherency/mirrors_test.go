package coherency

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// referenceManager is the reference's manager, restated: order is that in which
// its map happens to be gone through.
type referenceManager struct {
	mirrors map[uint64]*mirrorReference
	next    uint64
}

func (r *referenceManager) register(m mirrorReference) uint64 {
	id := r.next
	r.next++
	r.mirrors[id] = &m
	return id
}

func (r *referenceManager) syncAll(order []uint64, fails uint64) (failed bool) {
	for _, id := range order {
		if r.mirrors[id].state.NeedsSync() && r.mirrors[id].sync(id == fails).failed {
			return true
		}
	}
	return false
}

// arrived is a copy that works.
func arrived(_ MirrorID, c MirrorCopy) (Content, error) { return c.Content, nil }

func TestMirrorDeviationE11SyncAll(t *testing.T) {
	dirty := mirrorReference{state: DeviceDirty, handle: true, deviceOwn: true}
	for _, order := range [][]uint64{{1, 2, 3}, {2, 1, 3}} {
		r := referenceManager{mirrors: map[uint64]*mirrorReference{}, next: 1}
		for range 3 {
			r.register(dirty)
		}
		if !r.syncAll(order, 2) || r.mirrors[3].state != DeviceDirty {
			t.Fatal("the reference goes on after an error")
		}
		if synced := r.mirrors[1].state == Synced; synced != (order[0] == 1) {
			t.Fatal("the reference does not depend on the order")
		}
	}
	var ms Mirrors
	for range 4 {
		ms.Register(mirrorAfter(t, "upload", "device write"))
	}
	ms.Register(mirrorMade(t)) // not dirty
	var asked []MirrorID
	err := ms.SyncAll(func(id MirrorID, c MirrorCopy) (Content, error) {
		asked = append(asked, id)
		switch id {
		case 2:
			return Content{}, errMove
		case 4:
			return Content{}, nil // nothing has arrived
		}
		return c.Content, nil
	})
	if !slices.Equal(asked, []MirrorID{1, 2, 3, 4}) {
		t.Errorf("copied %v", asked)
	}
	if !errors.Is(err, errMove) || !errors.Is(err, ErrContent) ||
		strings.Index(err.Error(), "mirror 2") > strings.Index(err.Error(), "mirror 4") {
		t.Errorf("%v; want both errors in order", err)
	}
	if got := ms.Dirty(); !slices.Equal(got, []MirrorID{2, 4}) {
		t.Errorf("dirty %v, want those that failed", got)
	}
	if got, want := ms.Stats(), (MirrorStats{Total: 5, HostOnly: 1, Synced: 2, Dirty: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := ms.SyncAll(arrived); err != nil || ms.Dirty() != nil { // nothing was left in flight
		t.Errorf("%v, dirty %v", err, ms.Dirty())
	}
}

func TestMirrorsSyncAllBusy(t *testing.T) {
	var ms Mirrors
	id := ms.Register(mirrorAfter(t, "upload", "host write"))
	ms.Register(mirrorAfter(t, "upload", "host write"))
	var w MirrorWrite
	if err := ms.Update(id, func(m *Mirror) (err error) { w, err = m.BeginWrite(HostSide, 2); return err }); err != nil {
		t.Fatal(err)
	}
	err := ms.SyncAll(func(id MirrorID, c MirrorCopy) (Content, error) {
		ms.Discard(id) // removed while it is copied
		return c.Content, nil
	})
	if !errors.Is(err, ErrInFlight) || !errors.Is(err, ErrNoMirror) || ms.Len() != 1 {
		t.Errorf("%v, %d left", err, ms.Len())
	}
	if _, err := ms.Remove(id); !errors.Is(err, ErrMirrorDirty) {
		t.Errorf("Remove: %v, want ErrMirrorDirty", err)
	}
	m, lost, ok := ms.Discard(id)
	if !lost || !ok || m.InFlight() {
		t.Errorf("Discard: lost %v, ok %v, in flight %v", lost, ok, m.InFlight())
	}
	if _, err := m.CommitWrite(w, ContentOf(nil)); !errors.Is(err, ErrStale) {
		t.Errorf("the write goes on: %v, want ErrStale", err)
	}
}

func TestMirrorsSyncAllRemovesAnother(t *testing.T) {
	var ms Mirrors
	for range 2 {
		ms.Register(mirrorAfter(t, "upload", "host write"))
	}
	err := ms.SyncAll(func(id MirrorID, c MirrorCopy) (Content, error) {
		ms.Discard(id + 1)
		return c.Content, nil
	})
	if got, want := ms.Stats(), (MirrorStats{Total: 1, Synced: 1}); err != nil || got != want {
		t.Errorf("%v, %+v; want %+v", err, got, want)
	}
}

func TestMirrorDeviationE11Remove(t *testing.T) {
	// Reference: remove hands out whatever it is, and a default manager starts at 0.
	r := referenceManager{mirrors: map[uint64]*mirrorReference{}}
	if id := r.register(mirrorReference{state: DeviceDirty, handle: true}); id != 0 {
		t.Fatalf("reference: first id %d", id)
	}
	var ms Mirrors
	dirty := ms.Register(mirrorAfter(t, "upload", "device write"))
	clean := ms.Register(mirrorAfter(t, "upload"))
	if dirty != 1 || clean != 2 {
		t.Errorf("ids %d and %d", dirty, clean)
	}
	if _, err := ms.Remove(dirty); !errors.Is(err, ErrMirrorDirty) || ms.Len() != 2 {
		t.Errorf("Remove of a dirty one: %v, want ErrMirrorDirty", err)
	}
	m, err := ms.Remove(clean)
	if v, _ := m.Holds(DeviceSide); err != nil || v == 0 {
		t.Errorf("Remove: %v; the caller must see which memory to free", err)
	}
	if _, lost, ok := ms.Discard(dirty); !lost || !ok || ms.Len() != 0 {
		t.Errorf("Discard: lost %v, ok %v", lost, ok)
	}
	if _, lost, ok := ms.Discard(dirty); lost || ok {
		t.Errorf("second Discard: lost %v, ok %v", lost, ok)
	}
	if _, err := ms.Remove(clean); !errors.Is(err, ErrNoMirror) {
		t.Errorf("second Remove: %v, want ErrNoMirror", err)
	}
	if id := ms.Register(m); id != 3 {
		t.Errorf("id %d is used again", id)
	}
	busy := ms.Register(mirrorMade(t))
	if err := ms.Update(busy, func(m *Mirror) error { _, err := m.Begin(DeviceSide); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := ms.Remove(busy); !errors.Is(err, ErrInFlight) {
		t.Errorf("Remove while copied: %v, want ErrInFlight", err)
	}
}

func TestMirrorsUpdate(t *testing.T) {
	var ms Mirrors
	if err := ms.Update(1, func(*Mirror) error { return nil }); !errors.Is(err, ErrNoMirror) {
		t.Errorf("%v, want ErrNoMirror", err)
	}
	id := ms.Register(mirrorMade(t))
	before, _ := ms.Get(id)
	err := ms.Update(id, func(m *Mirror) error {
		m.Discard(HostSide)
		return errMove
	})
	if after, _ := ms.Get(id); err != errMove || after != before {
		t.Errorf("%v; a change that fails is undone", err)
	}
}

func TestMirrorsDeviceLost(t *testing.T) {
	var ms Mirrors
	for _, ops := range [][]string{
		{"upload", "device write"}, {}, {"upload"}, {"upload", "host write"}, {"upload", "device write"},
	} {
		ms.Register(mirrorAfter(t, ops...))
	}
	born, err := NewMirror(DeviceSide, Content{Length: 4})
	if err != nil {
		t.Fatal(err)
	}
	ms.Register(born)
	if got, want := ms.Stats(), (MirrorStats{Total: 6, HostOnly: 1, DeviceOnly: 1, Synced: 1, Dirty: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if lost := ms.DeviceLost(); !slices.Equal(lost, []MirrorID{1, 5, 6}) {
		t.Errorf("lost %v, want 1, 5, 6", lost)
	}
	if got, want := ms.Stats(), (MirrorStats{Total: 6, HostOnly: 3, Gone: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if lost := ms.DeviceLost(); lost != nil {
		t.Errorf("lost %v twice", lost)
	}
	var order []MirrorID
	for id, m := range ms.All() {
		if _, err := m.Read(DeviceSide); !errors.Is(err, ErrNoCopy) {
			t.Errorf("%d: %v, want ErrNoCopy", id, err)
		}
		if order = append(order, id); id == 5 {
			break
		}
	}
	if !slices.Equal(order, []MirrorID{1, 2, 3, 4, 5}) {
		t.Errorf("gone through as %v", order)
	}
	// The older host copy of 1 is not served by itself, only when it is chosen.
	m, _ := ms.Get(1)
	if _, err := m.Read(HostSide); !errors.Is(err, ErrStale) {
		t.Errorf("read after a loss: %v, want ErrStale", err)
	}
	if _, err := m.Sync(); !errors.Is(err, ErrNoCopy) {
		t.Errorf("sync after a loss: %v, want ErrNoCopy", err)
	}
	if lost, err := m.Keep(HostSide); lost || err != nil || m.State() != HostOnly || m.Version() != 3 {
		t.Errorf("lost %v, %v, %s, version %d", lost, err, m.State(), m.Version())
	}
}
