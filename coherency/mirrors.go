package coherency

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// ErrNoMirror: no mirror has this id, or it was removed.
var ErrNoMirror = errors.New("no such mirror")

// MirrorID names a mirror among [Mirrors]. Ids start at 1 and are never used
// again; 0 names none.
type MirrorID uint64

// Mirrors tracks many mirrors by id. The zero value is empty and ready to use. It
// does no locking, and whatever it goes through, it does in the order of ids.
type Mirrors struct {
	byID map[MirrorID]Mirror
	last MirrorID
}

// Register tracks m and returns its id.
func (ms *Mirrors) Register(m Mirror) MirrorID {
	if ms.byID == nil {
		ms.byID = make(map[MirrorID]Mirror)
	}
	ms.last++
	ms.byID[ms.last] = m
	return ms.last
}

// Len is how many are tracked.
func (ms *Mirrors) Len() int { return len(ms.byID) }

// Get is the mirror id as it is now.
func (ms *Mirrors) Get(id MirrorID) (m Mirror, ok bool) {
	m, ok = ms.byID[id]
	return m, ok
}

// Update lets change work on the mirror id. All that change did is undone when it
// returns an error, which Update then returns as it is. change must not use ms. The
// error is [ErrNoMirror] when there is no such mirror.
func (ms *Mirrors) Update(id MirrorID, change func(*Mirror) error) error {
	m, ok := ms.byID[id]
	if !ok {
		return fmt.Errorf("coherency: update mirror %d: %w", id, ErrNoMirror)
	}
	if err := change(&m); err != nil {
		return err
	}
	ms.byID[id] = m
	return nil
}

// All goes through the mirrors that were tracked when it began.
func (ms *Mirrors) All() iter.Seq2[MirrorID, Mirror] {
	return func(yield func(MirrorID, Mirror) bool) {
		for _, id := range slices.Sorted(maps.Keys(ms.byID)) {
			if m, ok := ms.byID[id]; ok && !yield(id, m) {
				return
			}
		}
	}
}

// Dirty is the ids of the mirrors that need a sync. A caller with a lock goes
// through them with [Mirror.Sync] and Commit, and copies outside the lock.
func (ms *Mirrors) Dirty() []MirrorID {
	var ids []MirrorID
	for id, m := range ms.byID {
		if m.State().NeedsSync() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// SyncAll syncs every dirty mirror: copy moves the bytes and describes what has
// arrived. One that fails stays as it was and does not keep the others from being
// synced; the error joins all failures in the order of ids. copy may use ms.
func (ms *Mirrors) SyncAll(copy func(MirrorID, MirrorCopy) (Content, error)) error {
	var errs []error
	for _, id := range ms.Dirty() {
		if err := ms.sync(id, copy); err != nil {
			errs = append(errs, fmt.Errorf("coherency: sync mirror %d: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

func (ms *Mirrors) sync(id MirrorID, copy func(MirrorID, MirrorCopy) (Content, error)) error {
	if m, ok := ms.byID[id]; !ok || !m.State().NeedsSync() {
		return nil // removed or synced by the copy of another
	}
	var c MirrorCopy
	if err := ms.Update(id, func(m *Mirror) (err error) { c, err = m.Sync(); return err }); err != nil {
		return err
	}
	arrived, err := copy(id, c)
	if err == nil {
		err = ms.Update(id, func(m *Mirror) error { return m.Commit(c, arrived) })
	}
	if err != nil {
		// A mirror that was removed meanwhile has nothing to abort.
		_ = ms.Update(id, func(m *Mirror) error { m.Abort(c); return nil })
	}
	return err
}

// Remove stops tracking id and returns its mirror, whose Holds tells which buffers
// are to be freed. It refuses a dirty one with [ErrMirrorDirty], and one with
// something in flight with [ErrInFlight].
func (ms *Mirrors) Remove(id MirrorID) (Mirror, error) {
	m, ok := ms.byID[id]
	switch {
	case !ok:
		return Mirror{}, fmt.Errorf("coherency: remove mirror %d: %w", id, ErrNoMirror)
	case m.State().NeedsSync():
		return Mirror{}, fmt.Errorf("coherency: remove mirror %d: %w", id, ErrMirrorDirty)
	case m.InFlight():
		return Mirror{}, fmt.Errorf("coherency: remove mirror %d: %w", id, ErrInFlight)
	}
	delete(ms.byID, id)
	return m, nil
}

// Discard stops tracking id whatever its state, and returns its mirror with
// nothing in flight. lost tells that it was dirty: the caller counts and reports
// it. An unknown id gives false for ok.
func (ms *Mirrors) Discard(id MirrorID) (m Mirror, lost, ok bool) {
	if m, ok = ms.byID[id]; !ok {
		return Mirror{}, false, false
	}
	delete(ms.byID, id)
	m.end()
	return m, m.State().NeedsSync(), true
}

// DeviceLost records for every mirror that the device memory is gone, and returns
// the ids of those that lost their newest version by it.
func (ms *Mirrors) DeviceLost() (lost []MirrorID) {
	for id, m := range ms.byID {
		if m.DeviceLost() {
			lost = append(lost, id)
		}
		ms.byID[id] = m
	}
	slices.Sort(lost)
	return lost
}

// MirrorStats counts mirrors by state; Total is the sum of the others.
type MirrorStats struct {
	Total      int64 `json:"total"`
	HostOnly   int64 `json:"host_only"`
	DeviceOnly int64 `json:"device_only"`
	Synced     int64 `json:"synced"`
	Dirty      int64 `json:"dirty"` // host-dirty and device-dirty
	Gone       int64 `json:"gone"`
}

// Stats counts what is tracked.
func (ms *Mirrors) Stats() MirrorStats {
	var c MirrorStats
	for _, m := range ms.byID {
		c.Add(m)
	}
	return c
}

// Add counts one mirror.
func (c *MirrorStats) Add(m Mirror) {
	c.Total++
	switch m.State() {
	case HostOnly:
		c.HostOnly++
	case DeviceOnly:
		c.DeviceOnly++
	case Synced:
		c.Synced++
	case HostDirty, DeviceDirty:
		c.Dirty++
	default:
		c.Gone++
	}
}
