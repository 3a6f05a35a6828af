package tiertest

import (
	"context"
	"runtime"
	"sync"

	"cairn/block"
	"cairn/tier"
)

// reserve takes a slot of n bytes and keeps the model.
func (s *suite) reserve(m tier.Memory, n int) tier.Reservation {
	s.Helper()
	r, evicted, err := m.Reserve(context.Background(), n)
	s.left(evicted)
	if err != nil {
		s.Fatalf("Reserve of %d bytes: %v", n, err)
	}
	if len(r.Bytes()) != n || cap(r.Bytes()) != n {
		s.Fatalf("Reserve of %d bytes gave a slice of length %d, capacity %d", n, len(r.Bytes()), cap(r.Bytes()))
	}
	return r
}

func testReserve(s *suite) {
	m, ok := s.store.(tier.Memory)
	if !ok {
		return
	}
	for i, n := range []int{0, 1, 4095, s.cfg.BlockSize} {
		d, p := object(i, n)
		r := s.reserve(m, n)
		copy(r.Bytes(), p)
		s.check() // the object is invisible until Commit
		if err := r.Commit(d, 0); err != nil {
			s.Fatalf("Commit: %v", err)
		}
		s.held[d.Key] = d
		r.Abort() // after Commit it does nothing
		s.check()
		s.mustGet(d)
	}
	stored := s.store.Stats().Puts

	d, p := object(100, s.cfg.BlockSize)
	r := s.reserve(m, len(p))
	copy(r.Bytes(), p)
	if err := r.Commit(block.Describe(d.Key, d.Parent, p[1:]), 0); err == nil {
		s.Error("Commit of a descriptor with another length gave no error")
	}
	r.Abort()
	s.check()

	r = s.reserve(m, len(p))
	r.Abort()
	r.Abort()
	s.check()
	if got := s.store.Stats().Puts; got != stored {
		s.Errorf("Stats say %d puts after reservations that were given up, want %d", got, stored)
	}
	s.mustPut(100, s.cfg.BlockSize)
	s.check()
}

// testReserveNoLeak: reservations that end without an object give their slot
// back, however often.
func testReserveNoLeak(s *suite) {
	m, ok := s.store.(tier.Memory)
	if !ok {
		return
	}
	keys, next := s.fillPinned(m, 0)
	for _, key := range keys[:len(keys)-1] {
		m.Unpin(key)
		s.remove(key)
	}
	d := s.held[keys[len(keys)-1]]
	conflict := d
	conflict.Sum++
	before := s.store.Stats()
	for i := range 10_000 {
		r := s.reserve(m, int(d.Length))
		switch i % 3 {
		case 0:
			s.wantError("Commit of an object that is there", r.Commit(d, 1), tier.ErrExists)
		case 1:
			s.wantError("Commit of other bytes", r.Commit(conflict, 1), tier.ErrConflict)
		default:
			r.Abort()
		}
		if s.Failed() {
			s.FailNow()
		}
	}
	if after := s.store.Stats(); after != before {
		s.Errorf("Stats after 10000 reservations are %+v, want %+v", after, before)
	}
	m.Unpin(d.Key)
	s.remove(d.Key)
	again, _ := s.fillPinned(m, next)
	if len(again) != len(keys) {
		s.Errorf("%d blocks fit, before there was room for %d", len(again), len(keys))
	}
}

// testCommitPinnedExact: a reservation knows the object that it becomes.
func testCommitPinnedExact(s *suite) {
	m, ok := s.store.(tier.Memory)
	if !ok {
		return
	}
	for range 2 { // the second in the slot of the first, as it may be
		d, p := object(0, s.cfg.BlockSize)
		r := s.reserve(m, len(p))
		copy(r.Bytes(), p)
		number := r.Object()
		if err := r.Commit(d, 1); err != nil {
			s.Fatalf("Commit: %v", err)
		}
		s.held[d.Key] = d
		if got := s.pinExact(m, d.Key); got != number {
			s.Errorf("the reservation said object %d, PinExact says %d", number, got)
		}
		m.UnpinExact(d.Key, number)
		m.UnpinExact(d.Key, number)
		if got := s.store.Stats().Pinned; got != 0 {
			s.Errorf("Stats say %d objects pinned, want 0", got)
		}
		s.remove(d.Key)
	}
}

func testCommitPinned(s *suite) {
	m, ok := s.store.(tier.Memory)
	if !ok {
		return
	}
	d, p := object(0, s.cfg.BlockSize)
	r := s.reserve(m, len(p))
	copy(r.Bytes(), p)
	if err := r.Commit(d, 2); err != nil {
		s.Fatalf("Commit: %v", err)
	}
	s.held[d.Key] = d
	if got := s.store.Stats().Pinned; got != 1 {
		s.Errorf("Stats say %d objects pinned, want 1", got)
	}
	m.Unpin(d.Key)
	next := s.pressure(1)
	if _, held := s.held[d.Key]; !held {
		s.Fatal("an object born pinned was evicted")
	}
	m.Unpin(d.Key)
	if got := s.store.Stats().Pinned; got != 0 {
		s.Errorf("Stats say %d objects pinned, want 0", got)
	}
	s.pressure(next)
}

// view opens a view of d and compares every byte.
func (s *suite) view(m tier.Memory, d block.Descriptor) tier.View {
	s.Helper()
	v, err := m.View(d.Key)
	if err != nil {
		s.Fatalf("View(%s): %v", d.Key, err)
	}
	if v.Descriptor != d {
		s.Fatalf("View(%s) gave the descriptor %+v, want %+v", d.Key, v.Descriptor, d)
	}
	s.sameBytes("View", d, v.Bytes)
	return v
}

func testView(s *suite) {
	m, ok := s.store.(tier.Memory)
	if !ok {
		return
	}
	_, err := m.View(keyOf(1))
	s.wantError("View of a missing object", err, tier.ErrNotFound)
	for i, n := range []int{0, 1, 4097, s.cfg.BlockSize} {
		d := s.mustPut(i, n)
		v := s.view(m, d)
		w := s.view(m, d)
		v.Release()
		s.sameBytes("the second of two views", d, w.Bytes)
		w.Release()
	}
	if stats := s.store.Stats(); stats.Hits != 8 || stats.Misses != 1 {
		s.Errorf("after eight views and one miss: %d hits, %d misses", stats.Hits, stats.Misses)
	}
	s.check()
}

// testViewSurvives: the bytes of a view stay as they are under eviction pressure
// and when the object is deleted and its key is taken again.
func testViewSurvives(s *suite) {
	m, ok := s.store.(tier.Memory)
	if !ok {
		return
	}
	kept, gone := s.mustPut(0, s.cfg.BlockSize), s.mustPut(1, s.cfg.BlockSize)
	v, w := s.view(m, kept), s.view(m, gone)
	next := s.pressure(2)
	if _, held := s.held[kept.Key]; !held {
		s.Fatal("an object with a view was evicted")
	}
	s.remove(gone.Key)
	again := s.mustPut(1, s.cfg.BlockSize/2)
	u := s.view(m, again)
	next = s.pressure(next)
	s.sameBytes("the view of an object under pressure", kept, v.Bytes)
	s.sameBytes("the view of a deleted object", gone, w.Bytes)
	s.sameBytes("the view of the object that took its key", again, u.Bytes)
	w.Release()
	next = s.pressure(next)
	s.sameBytes("a view after another of the same key ended", again, u.Bytes)
	if _, held := s.held[again.Key]; !held {
		s.Fatal("ending the view of a deleted object ended another's")
	}
	v.Release()
	u.Release()
	s.pressure(next)
}

// testViewParallel reads views while their objects are replaced.
func testViewParallel(s *suite) {
	m, ok := s.store.(tier.Memory)
	if !ok {
		return
	}
	const objects, rounds = 8, 100
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range rounds * objects {
				d, p := object(i%objects, s.cfg.BlockSize)
				r, _, err := m.Reserve(context.Background(), len(p))
				if err != nil {
					continue // every slot may be in a view
				}
				copy(r.Bytes(), p)
				if r.Commit(d, 0) != nil {
					m.Delete(d.Key)
				}
			}
		})
		wg.Go(func() {
			for i := range rounds * objects {
				v, err := m.View(keyOf(i % objects))
				if err != nil {
					continue
				}
				if !v.Matches(v.Bytes) {
					s.Errorf("a view of %s has wrong bytes", v.Key)
				}
				runtime.Gosched()
				if !v.Matches(v.Bytes) {
					s.Errorf("the bytes of a view of %s changed", v.Key)
				}
				v.Release()
			}
		})
	}
	wg.Wait()
	if got := m.Stats().Pinned; got != 0 {
		s.Errorf("Stats say %d objects pinned after every view ended", got)
	}
}

// testViewOverClose: Close either waits for a view or leaves its bytes alone.
func testViewOverClose(s *suite) {
	m, ok := s.store.(tier.Memory)
	if !ok {
		return
	}
	d := s.mustPut(0, s.cfg.BlockSize)
	v := s.view(m, d)
	closed := make(chan error)
	go func() { closed <- m.Close() }()
	for range 100 {
		runtime.Gosched()
		s.sameBytes("a view while the store closes", d, v.Bytes)
	}
	v.Release()
	if err := <-closed; err != nil {
		s.Errorf("Close: %v", err)
	}
}
