package engram

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"cairn/coherency"
)

// ID names an engram in a Manager. IDs start at 1 and are never used again; 0 is none.
type ID uint64

// ErrNoEngram: no engram has this id, or it was removed.
var ErrNoEngram = errors.New("no such engram")

// Defaults of ManagerConfig.
const (
	// DefaultBatch is how many copies share one event: enough that queueing them costs
	// little beside the copies.
	DefaultBatch = 64
	// DefaultBatchBytes is how much memory of host a batch of downloads takes.
	DefaultBatchBytes = 64 << 20
)

// ManagerConfig says how a Manager syncs. The zero value is usable.
type ManagerConfig struct {
	// Batch is how many copies share one event; 0 is DefaultBatch.
	Batch int
	// BatchBytes ends a batch that has reached as many bytes; 0 is DefaultBatchBytes.
	BatchBytes int64
}

// Validate reports every problem at once.
func (c ManagerConfig) Validate() error {
	var errs []error
	if c.Batch < 0 {
		errs = append(errs, fmt.Errorf("engram: batches of %d copies: want 1 or more, or 0 for %d", c.Batch, DefaultBatch))
	}
	if c.BatchBytes < 0 {
		errs = append(errs, fmt.Errorf("engram: batches of %d bytes: want 1 or more, or 0 for %d", c.BatchBytes, DefaultBatchBytes))
	}
	return errors.Join(errs...)
}

// Manager tracks engrams by id and syncs them together. All methods may be called in
// parallel. Whatever goes through the engrams does so in the order of their ids.
type Manager struct {
	cfg ManagerConfig

	// mu guards what follows. An engram's lock may be taken under it.
	mu   sync.Mutex
	byID map[ID]*Engram
	last ID
	gone Counts // of engrams that were removed
}

// NewManager checks the configuration.
func NewManager(cfg ManagerConfig) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Batch == 0 {
		cfg.Batch = DefaultBatch
	}
	if cfg.BatchBytes == 0 {
		cfg.BatchBytes = DefaultBatchBytes
	}
	return &Manager{cfg: cfg, byID: map[ID]*Engram{}}, nil
}

// Register tracks e, which should be in no other manager, and returns its id.
func (m *Manager) Register(e *Engram) ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	m.byID[m.last] = e
	return m.last
}

// Get is the engram id, if there is one.
func (m *Manager) Get(id ID) (e *Engram, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok = m.byID[id]
	return e, ok
}

// Remove stops tracking an engram, frees its device memory and returns it; what it has on
// host stays. ErrDirty: one side lacks a write; ErrLastCopy: only the device has it;
// ErrInFlight: something is under way; then nothing is changed. ErrNoEngram: there is
// none.
func (m *Manager) Remove(id ID) (*Engram, error) {
	m.mu.Lock()
	e, ok := m.byID[id]
	err := ErrNoEngram
	var unused *buffer
	if ok {
		if unused, err = e.retire(); err == nil {
			m.forgetLocked(id, e)
		}
	}
	m.mu.Unlock()
	if err == nil {
		err = unused.drop()
	}
	if err != nil {
		return nil, fmt.Errorf("engram: remove %d: %w", id, err)
	}
	return e, nil
}

// retire gives up the device's copy of an engram that is neither dirty nor in flight.
func (e *Engram) retire() (unused *buffer, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.mirror.InFlight():
		return nil, ErrInFlight
	case e.mirror.State().NeedsSync():
		return nil, ErrDirty
	case e.device == nil:
		return nil, nil
	}
	return e.dropLocked(Device)
}

// forgetLocked keeps what an engram has counted.
func (m *Manager) forgetLocked(id ID, e *Engram) {
	delete(m.byID, id)
	m.gone.add(e.Counts())
}

// Discard stops tracking an engram whatever its state, frees its device memory and
// returns it; what it has on host stays. lost tells that the newest version was only on
// the device.
func (m *Manager) Discard(id ID) (e *Engram, lost bool, err error) {
	m.mu.Lock()
	e, ok := m.byID[id]
	var unused *buffer
	if ok {
		lost, unused = e.discard(Device)
		m.forgetLocked(id, e)
	}
	m.mu.Unlock()
	if err = unused.drop(); !ok {
		err = ErrNoEngram
	}
	if err != nil {
		return e, lost, fmt.Errorf("engram: discard %d: %w", id, err)
	}
	return e, lost, nil
}

// All goes through the engrams that were tracked when it began, in the order of ids.
func (m *Manager) All() iter.Seq2[ID, *Engram] {
	ids, engrams := m.list()
	return func(yield func(ID, *Engram) bool) {
		for i, id := range ids {
			if !yield(id, engrams[i]) {
				return
			}
		}
	}
}

func (m *Manager) list() (ids []ID, engrams []*Engram) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids = slices.Sorted(maps.Keys(m.byID))
	for _, id := range ids {
		engrams = append(engrams, m.byID[id])
	}
	return ids, engrams
}

// DeviceLost says that the device mem is on is gone, and returns the ids of the
// engrams that lost their newest version by it. nil stands for all devices.
func (m *Manager) DeviceLost(mem *Memory) (lost []ID) {
	ids, engrams := m.list()
	for i, e := range engrams {
		if e.deviceLost(mem) {
			lost = append(lost, ids[i])
		}
	}
	return lost
}

// Stats is how many engrams are in which state, and what they have done, also those
// that were removed.
type Stats struct {
	coherency.MirrorStats
	Counts
}

// Stats counts.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Stats{Counts: m.gone}
	for _, e := range m.byID {
		e.mu.Lock()
		s.Add(e.mirror)
		s.Counts.add(e.counts)
		e.mu.Unlock()
	}
	return s
}
