package tiertest

import (
	"context"
	"errors"
	"math/rand/v2"

	"cairn/block"
	"cairn/tier"
)

// model runs random operations against the store and against the obvious
// description of what a store is: a map.
type model struct {
	*suite
	rnd          *rand.Rand
	pins         map[block.Key]int
	views        []tier.View
	reservations []tier.Reservation
	objects      int // numbers in use; more than fit
	step         int
}

// Most views and reservations at a time, so that they do not fill the store.
const mostViews, mostReservations = 2, 2

func testModel(s *suite) {
	const steps = 3000
	m := &model{
		suite: s, rnd: rand.New(rand.NewPCG(s.cfg.Seed, 2)),
		pins:    map[block.Key]int{},
		objects: 3*int(s.store.Stats().Capacity)/s.cfg.BlockSize/2 + 4,
	}
	s.Cleanup(func() {
		if s.Failed() {
			s.Logf("seed %d, step %d", s.cfg.Seed, m.step)
		}
	})
	operations := []func(*model){(*model).get, (*model).get, (*model).put, (*model).put, (*model).put, (*model).delete}
	if _, ok := s.store.(tier.Pinner); ok {
		operations = append(operations, (*model).pin, (*model).unpin, (*model).unpin)
	}
	if _, ok := s.store.(tier.Memory); ok {
		operations = append(operations, (*model).reserve, (*model).endReservation, (*model).openView, (*model).endView)
	}
	for m.step = range steps {
		operations[m.rnd.IntN(len(operations))](m)
		m.checkPinned()
		if m.step%64 == 0 {
			s.check()
		}
		if s.Failed() {
			s.FailNow()
		}
	}
	for len(m.views) > 0 {
		m.endView()
	}
	for len(m.reservations) > 0 {
		m.endReservation()
	}
	s.check()
}

// pick draws an object; its length depends on its number only, and most have
// the usual one.
func (m *model) pick() (block.Descriptor, []byte) {
	i := m.rnd.IntN(m.objects)
	n := m.cfg.BlockSize
	if i%4 == 0 {
		n = int(mix(uint64(i)) % uint64(min(2*n, m.maxObject())))
	}
	return object(i, n)
}

// crowded: ErrFull is a fair answer while something is pinned.
func (m *model) crowded() bool {
	return len(m.pins) > 0 || len(m.views) > 0 || len(m.reservations) > 0
}

func (m *model) put() {
	d, p := m.pick()
	_, held := m.held[d.Key]
	switch err := m.suite.put(d, p); {
	case err == nil && !held:
	case held && errors.Is(err, tier.ErrExists):
	case !held && errors.Is(err, tier.ErrFull) && m.crowded():
	default:
		m.Errorf("Put(%s), there already: %v, gave %v", d.Key, held, err)
	}
}

func (m *model) get() {
	d, _ := m.pick()
	if _, held := m.held[d.Key]; held {
		m.mustGet(d)
		return
	}
	_, err := m.store.Get(context.Background(), d.Key, nil)
	m.wantError("Get of an object that left", err, tier.ErrNotFound)
}

func (m *model) delete() {
	d, _ := m.pick()
	delete(m.pins, d.Key)
	m.remove(d.Key)
}

func (m *model) pin() {
	if len(m.pins) >= 3 {
		m.unpin()
		return
	}
	d, _ := m.pick()
	err := m.store.(tier.Pinner).Pin(d.Key)
	if _, held := m.held[d.Key]; !held {
		m.wantError("Pin of an object that left", err, tier.ErrNotFound)
		return
	}
	if err != nil {
		m.Errorf("Pin(%s): %v", d.Key, err)
	}
	m.pins[d.Key]++
}

func (m *model) unpin() {
	d, _ := m.pick()
	for i := range m.objects { // the pinned object with the lowest number, if any
		if m.pins[keyOf(i)] > 0 {
			d.Key = keyOf(i)
			break
		}
	}
	m.store.(tier.Pinner).Unpin(d.Key)
	if m.pins[d.Key]--; m.pins[d.Key] <= 0 {
		delete(m.pins, d.Key)
	}
}

func (m *model) checkPinned() {
	for key := range m.pins {
		if _, held := m.held[key]; !held {
			m.Errorf("%s was evicted with %d pins", key, m.pins[key])
		}
	}
}

func (m *model) reserve() {
	if len(m.reservations) >= mostReservations {
		m.endReservation()
		return
	}
	_, p := m.pick()
	r, evicted, err := m.store.(tier.Memory).Reserve(context.Background(), len(p))
	m.left(evicted)
	switch {
	case err == nil:
		m.reservations = append(m.reservations, r)
	case !errors.Is(err, tier.ErrFull) || !m.crowded():
		m.Errorf("Reserve: %v", err)
	}
}

func (m *model) endReservation() {
	if len(m.reservations) == 0 {
		return
	}
	r := m.reservations[0]
	m.reservations = m.reservations[1:]
	d, p := m.pick()
	if len(p) != len(r.Bytes()) || m.rnd.IntN(4) == 0 {
		r.Abort()
		return
	}
	copy(r.Bytes(), p)
	pins := m.rnd.IntN(2)
	err := r.Commit(d, pins)
	if _, held := m.held[d.Key]; held {
		m.wantError("Commit of an object that is there", err, tier.ErrExists)
		return
	}
	if err != nil {
		m.Errorf("Commit: %v", err)
		return
	}
	m.held[d.Key] = d
	if pins > 0 {
		m.pins[d.Key] = pins
	}
}

func (m *model) openView() {
	if len(m.views) >= mostViews {
		m.endView()
		return
	}
	d, _ := m.pick()
	if _, held := m.held[d.Key]; held {
		m.views = append(m.views, m.view(m.store.(tier.Memory), d))
	}
}

func (m *model) endView() {
	if len(m.views) == 0 {
		return
	}
	v := m.views[0]
	m.views = m.views[1:]
	m.sameBytes("an old view", v.Descriptor, v.Bytes)
	v.Release()
}
