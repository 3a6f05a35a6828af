package tiertest

import (
	"context"
	"errors"
	"math/rand/v2"

	"cairn/block"
	"cairn/tier"
)

// testEviction fills the store several times over. After every Put the store
// holds exactly what it said.
func testEviction(s *suite) {
	most := 3*int(s.store.Stats().Capacity)/s.cfg.BlockSize + 8
	for i := range most {
		d := s.mustPut(i, s.cfg.BlockSize)
		s.check()
		if _, ok := s.held[d.Key]; !ok {
			s.Fatal("Put evicted the object that it stored")
		}
		s.mustGet(d)
	}
	s.checkEvictions()
	for _, d := range s.held {
		s.mustGet(d)
	}
}

// testEvictionMixedSizes makes room for large objects among small ones.
func testEvictionMixedSizes(s *suite) {
	rnd := rand.New(rand.NewPCG(s.cfg.Seed, 1))
	s.Logf("seed %d", s.cfg.Seed)
	largest := min(s.maxObject(), 4*s.cfg.BlockSize)
	capacity := s.store.Stats().Capacity
	var bytes int64
	for i := 0; bytes < 3*capacity; i++ {
		n := 1 + rnd.IntN(largest)
		s.mustPut(i, n)
		bytes += int64(n)
		s.check()
	}
	s.checkEvictions()
	for _, d := range s.held {
		s.mustGet(d)
	}
}

func (s *suite) checkEvictions() {
	s.Helper()
	if s.evicted == 0 {
		s.Fatal("nothing was evicted from a store that was filled three times over")
	}
	if got := s.store.Stats().Evictions; got != s.evicted {
		s.Errorf("Stats say %d evictions, reported were %d", got, s.evicted)
	}
}

func testPin(s *suite) {
	pinner, ok := s.store.(tier.Pinner)
	if !ok {
		return
	}
	s.wantError("Pin of a missing object", pinner.Pin(keyOf(1)), tier.ErrNotFound)
	pinner.Unpin(keyOf(1))

	d := s.mustPut(0, s.cfg.BlockSize)
	for range 2 { // pins count: one of two undone leaves the object pinned
		if err := pinner.Pin(d.Key); err != nil {
			s.Fatal(err)
		}
	}
	if got := s.store.Stats().Pinned; got != 1 {
		s.Errorf("Stats say %d objects pinned, want 1", got)
	}
	pinner.Unpin(d.Key)
	next := s.pressure(1)
	if _, held := s.held[d.Key]; !held {
		s.Fatal("a pinned object was evicted")
	}
	s.mustGet(d)

	pinner.Unpin(d.Key)
	if got := s.store.Stats().Pinned; got != 0 {
		s.Errorf("Stats say %d objects pinned, want 0", got)
	}
	if err := pinner.Pin(d.Key); err != nil {
		s.Fatal(err)
	}
	s.remove(d.Key) // overrides the pin
	if got := s.store.Stats().Pinned; got != 0 {
		s.Errorf("Stats say %d objects pinned after Delete, want 0", got)
	}
	s.pressure(next)
	s.check()
}

// pressure puts new objects, numbered from first, until the store was filled
// three times over, and returns the next free number.
func (s *suite) pressure(first int) int {
	s.Helper()
	n := 3*int(s.store.Stats().Capacity)/s.cfg.BlockSize + 8
	for i := range n {
		s.mustPut(first+i, s.cfg.BlockSize)
	}
	s.check()
	return first + n
}

// attempts is how many new keys the suite tries before it believes that the
// store is full, or that it is not: a store may be divided by key.
const attempts = 64

// fillPinned puts and pins objects until no more go in.
func (s *suite) fillPinned(pinner tier.Pinner, first int) (keys []block.Key, next int) {
	s.Helper()
	for refused := 0; refused < attempts; first++ {
		d, p := object(first, s.cfg.BlockSize)
		before := s.evicted
		err := s.put(d, p)
		if s.evicted != before {
			s.Fatal("a pinned object was evicted")
		}
		if errors.Is(err, tier.ErrFull) {
			refused++
			continue
		}
		if err != nil {
			s.Fatalf("Put: %v", err)
		}
		if err := pinner.Pin(d.Key); err != nil {
			s.Fatalf("Pin: %v", err)
		}
		keys = append(keys, d.Key)
		if len(keys) > 1000+int(s.store.Stats().Capacity)/s.cfg.BlockSize {
			s.Fatal("a store full of pinned objects takes more than its capacity")
		}
	}
	s.check()
	return keys, first
}

func testPinFull(s *suite) {
	pinner, ok := s.store.(tier.Pinner)
	if !ok {
		return
	}
	keys, next := s.fillPinned(pinner, 0)
	if len(keys) < 8 {
		s.Fatalf("only %d blocks fit, the suite needs 8: give it a larger Capacity", len(keys))
	}
	if m, ok := s.store.(tier.Memory); ok {
		r, evicted, err := m.Reserve(context.Background(), s.cfg.BlockSize)
		s.left(evicted)
		s.wantError("Reserve with everything pinned", err, tier.ErrFull)
		if err == nil {
			r.Abort()
		}
	}
	for _, key := range keys {
		s.mustGet(s.held[key])
	}

	victim := keys[len(keys)/2]
	pinner.Unpin(victim)
	stored := false
	for i := 0; i < attempts && !stored; i++ {
		d, p := object(next, s.cfg.BlockSize)
		next++
		err := s.put(d, p)
		if err != nil && !errors.Is(err, tier.ErrFull) {
			s.Fatalf("Put: %v", err)
		}
		stored = err == nil
	}
	if !stored {
		s.Fatal("nothing goes in after an object was unpinned")
	}
	if _, held := s.held[victim]; held {
		s.Error("the unpinned object is still there, so a pinned one must have gone")
	}
	s.check()

	for _, key := range keys {
		pinner.Unpin(key)
	}
	s.pressure(next)
}

// testPinStale: an Unpin that comes after the object was deleted and put again
// must not undo a pin that it does not belong to before that pin exists.
func testPinStale(s *suite) {
	pinner, ok := s.store.(tier.Pinner)
	if !ok {
		return
	}
	d := s.mustPut(0, s.cfg.BlockSize)
	if err := pinner.Pin(d.Key); err != nil {
		s.Fatal(err)
	}
	s.remove(d.Key)
	s.mustPut(0, s.cfg.BlockSize)
	for range 3 {
		pinner.Unpin(d.Key)
	}
	if err := pinner.Pin(d.Key); err != nil {
		s.Fatal(err)
	}
	s.pressure(1)
	if _, held := s.held[d.Key]; !held {
		s.Error("a pinned object was evicted")
	}
	if got := s.store.Stats().Pinned; got != 1 {
		s.Errorf("Stats say %d objects pinned, want 1", got)
	}
	pinner.Unpin(d.Key)
}

// testPinExact: pins that name their object leave the object alone that comes after it.
func testPinExact(s *suite) {
	pinner, ok := s.store.(tier.Pinner)
	if !ok {
		return
	}
	d := s.mustPut(0, s.cfg.BlockSize)
	first := s.pinExact(pinner, d.Key)
	s.remove(d.Key)
	_, err := pinner.PinExact(d.Key)
	s.wantError("PinExact of a missing object", err, tier.ErrNotFound)
	s.mustPut(0, s.cfg.BlockSize)
	second := s.pinExact(pinner, d.Key)
	if first == second {
		s.Fatalf("two objects are both number %d", first)
	}
	if again := s.pinExact(pinner, d.Key); again != second {
		s.Errorf("one object is number %d and %d", second, again)
	}
	for range 3 {
		pinner.UnpinExact(d.Key, first)
	}
	pinner.UnpinExact(d.Key, second)
	s.pressure(1)
	if _, held := s.held[d.Key]; !held {
		s.Error("an object was evicted that the last pin is on")
	}
	pinner.UnpinExact(d.Key, second)
	if got := s.store.Stats().Pinned; got != 0 {
		s.Errorf("Stats say %d objects pinned, want 0", got)
	}
	pinner.UnpinExact(d.Key, second)
}

func (s *suite) pinExact(pinner tier.Pinner, key block.Key) uint64 {
	s.Helper()
	object, err := pinner.PinExact(key)
	if err != nil {
		s.Fatal(err)
	}
	return object
}
