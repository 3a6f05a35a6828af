package tiertest

import (
	"context"
	"errors"
	"testing"

	"cairn/block"
	"cairn/tier"
)

func testRoundTrip(s *suite) {
	for i, n := range []int{0, 1, 7, 4095, 4096, 4097, 64 << 10, 64<<10 + 1, 100_003} {
		if n > s.maxObject() {
			continue
		}
		d := s.mustPut(i, n)
		s.mustGet(d)
		s.check()
	}
	for _, d := range s.held {
		s.mustGet(d)
	}
}

func testSourceIsCopied(s *suite) {
	d, p := object(1, s.cfg.BlockSize)
	if err := s.put(d, p); err != nil {
		s.Fatal(err)
	}
	clear(p)
	s.mustGet(d)
}

func testMissing(s *suite) {
	key := keyOf(1)
	d, err := s.store.Get(context.Background(), key, make([]byte, 8))
	s.wantError("Get of a missing object", err, tier.ErrNotFound)
	if d != (block.Descriptor{}) {
		s.Errorf("Get of a missing object gave the descriptor %+v", d)
	}
	if _, ok := s.store.Stat(key); ok {
		s.Error("Stat of a missing object gave true")
	}
	s.remove(key)
	if stats := s.store.Stats(); stats.Misses != 1 || stats.Hits != 0 || stats.Deletes != 0 {
		s.Errorf("after one miss: %+v", stats)
	}
	s.check()
}

func testExists(s *suite) {
	d := s.mustPut(1, s.cfg.BlockSize)
	_, p := object(1, s.cfg.BlockSize)
	s.wantError("Put of the same object", s.put(d, p), tier.ErrExists)

	for name, other := range map[string][]byte{
		"other bytes":  content(keyOf(2), s.cfg.BlockSize),
		"other length": content(keyOf(1), s.cfg.BlockSize-1),
	} {
		conflict := block.Describe(d.Key, d.Parent, other)
		s.wantError("Put of "+name, s.put(conflict, other), tier.ErrConflict)
	}
	s.check()
	s.mustGet(d)
	if stats := s.store.Stats(); stats.Puts != 1 {
		s.Errorf("one object was stored, Stats say %d", stats.Puts)
	}
}

func testShortBuffer(s *suite) {
	d := s.mustPut(1, 4097)
	for _, n := range []int{0, 1, 4096} {
		got, err := s.store.Get(context.Background(), d.Key, make([]byte, n))
		s.wantError("Get into a short buffer", err, tier.ErrShortBuffer)
		if got != d {
			s.Errorf("ErrShortBuffer came with the descriptor %+v, want %+v", got, d)
		}
	}
	s.mustGet(d)
	s.check()
}

func testTooLarge(s *suite) {
	s.mustPut(1, s.cfg.BlockSize)
	d, p := object(2, s.maxObject()+1)
	s.wantError("Put of an object that is too large", s.put(d, p), tier.ErrTooLarge)
	if m, ok := s.store.(tier.Memory); ok {
		r, evicted, err := m.Reserve(context.Background(), len(p))
		s.wantError("Reserve of a slot that is too large", err, tier.ErrTooLarge)
		s.left(evicted)
		if err == nil {
			r.Abort()
		}
	}
	if s.evicted != 0 {
		s.Errorf("%d objects were evicted for one that can never fit", s.evicted)
	}
	s.check()
}

// testLengthMismatch: a caller's mistake is an error, not an object whose bytes
// are another's.
func testLengthMismatch(s *suite) {
	d, p := object(1, s.cfg.BlockSize)
	for _, src := range [][]byte{p[:len(p)-1], append(p, 0), nil} {
		if err := s.put(d, src); err == nil {
			s.Fatalf("Put of %d bytes under a descriptor of %d gave no error", len(src), d.Length)
		}
	}
	s.check()
	s.mustPut(1, s.cfg.BlockSize)
	s.check()
}

func testDelete(s *suite) {
	for i := range 3 {
		s.mustPut(i, s.cfg.BlockSize)
	}
	s.remove(keyOf(1))
	s.remove(keyOf(1))
	s.check()
	_, err := s.store.Get(context.Background(), keyOf(1), make([]byte, s.cfg.BlockSize))
	s.wantError("Get of a deleted object", err, tier.ErrNotFound)

	s.mustPut(1, s.cfg.BlockSize/2) // the key may return, even with other bytes
	s.check()
	for _, d := range s.held {
		s.mustGet(d)
	}
	// The room of deleted objects is used again: far more than fits passes
	// through without one eviction.
	most := 4 * int(s.store.Stats().Capacity) / s.cfg.BlockSize
	if s.cfg.Persists {
		most = 4 // a log gets its room back when it is compacted
	}
	for i := 3; i < 3+most; i++ {
		s.mustPut(i, s.cfg.BlockSize)
		s.remove(keyOf(i))
	}
	if s.evicted != 0 {
		s.Errorf("%d objects were evicted from a store that was nearly empty", s.evicted)
	}
	s.check()
}

func testAll(s *suite) {
	s.check()
	for i := range 5 {
		s.mustPut(i, 100+i)
	}
	s.check()
	calls := 0
	s.store.All(func(block.Descriptor) bool {
		calls++
		return calls < 3
	})
	if calls != 3 {
		s.Errorf("All called yield %d times, want 3: it returned false then", calls)
	}
}

func testStats(s *suite) {
	const n = 4
	for i := range n {
		s.mustPut(i, s.cfg.BlockSize)
	}
	for _, d := range s.held {
		s.mustGet(d)
		s.store.Stat(d.Key)
	}
	if _, err := s.store.Get(context.Background(), keyOf(n), nil); err == nil {
		s.Error("Get of a missing object gave no error")
	}
	s.remove(keyOf(0))
	got := s.store.Stats()
	want := got // what is not named here is the store's own affair
	want.Objects, want.Bytes = n-1, (n-1)*int64(s.cfg.BlockSize)
	want.Hits, want.Misses, want.Puts, want.Deletes, want.Evictions = n, 1, n, 1, 0
	want.Pinned, want.Corrupt, want.Errors = 0, 0, 0
	if got != want {
		s.Errorf("Stats are %+v, want %+v", got, want)
	}
	if got.Used < got.Bytes || got.Capacity < got.Used {
		s.Errorf("Stats say %d bytes held, %d used, of %d", got.Bytes, got.Used, got.Capacity)
	}
}

func testCanceled(s *suite) {
	d := s.mustPut(1, s.cfg.BlockSize)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	other, p := object(2, s.cfg.BlockSize)
	evicted, err := s.store.Put(ctx, other, p)
	s.left(evicted)
	s.wantError("Put with a canceled context", err, context.Canceled)
	_, err = s.store.Get(ctx, d.Key, make([]byte, d.Length))
	s.wantError("Get with a canceled context", err, context.Canceled)
	if m, ok := s.store.(tier.Memory); ok {
		r, evicted, err := m.Reserve(ctx, s.cfg.BlockSize)
		s.left(evicted)
		s.wantError("Reserve with a canceled context", err, context.Canceled)
		if err == nil {
			r.Abort()
		}
	}
	s.check()
	s.mustGet(d)
	s.mustPut(2, s.cfg.BlockSize)
	s.check()
}

func testClosed(s *suite) {
	d := s.mustPut(1, s.cfg.BlockSize)
	for range 2 {
		if err := s.store.Close(); err != nil {
			s.Fatalf("Close: %v", err)
		}
	}
	ctx := context.Background()
	other, p := object(2, s.cfg.BlockSize)
	evicted, err := s.store.Put(ctx, other, p)
	s.wantError("Put after Close", err, tier.ErrClosed)
	if len(evicted) != 0 {
		s.Errorf("Put after Close reports %d evictions", len(evicted))
	}
	_, err = s.store.Get(ctx, d.Key, p)
	s.wantError("Get after Close", err, tier.ErrClosed)
	if _, ok := s.store.Stat(d.Key); ok {
		s.Error("Stat after Close found the object")
	}
	if s.store.Delete(d.Key) {
		s.Error("Delete after Close found the object")
	}
	s.store.All(func(block.Descriptor) bool {
		s.Error("All after Close yields an object")
		return false
	})
	s.store.Stats()
	if pinner, ok := s.store.(tier.Pinner); ok {
		s.wantError("Pin after Close", pinner.Pin(d.Key), tier.ErrClosed)
		pinner.Unpin(d.Key)
	}
	if m, ok := s.store.(tier.Memory); ok {
		_, _, err := m.Reserve(ctx, 1)
		s.wantError("Reserve after Close", err, tier.ErrClosed)
		_, err = m.View(d.Key)
		s.wantError("View after Close", err, tier.ErrClosed)
	}
	if syncer, ok := s.store.(tier.Syncer); ok {
		s.wantError("Sync after Close", syncer.Sync(ctx), tier.ErrClosed)
	}
}

// testReopen: what was synced is there, byte for byte, when the store is opened
// again, and what was deleted is not.
func testReopen(s *suite) {
	syncer, ok := s.store.(tier.Syncer)
	if !ok {
		if s.cfg.Persists {
			s.Error("a store that persists must be a tier.Syncer")
		}
		return
	}
	for round := range 3 {
		for i := range 4 {
			s.mustPut(10*round+i, s.cfg.BlockSize-i)
		}
		s.remove(keyOf(10*round + 1))
		if err := syncer.Sync(context.Background()); err != nil {
			s.Fatalf("Sync: %v", err)
		}
		if !s.cfg.Persists {
			return
		}
		if err := s.store.Close(); err != nil {
			s.Fatalf("Close: %v", err)
		}
		s.open()
		syncer = s.store.(tier.Syncer)
		s.check()
		for _, d := range s.held {
			s.mustGet(d)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := syncer.Sync(ctx); err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("Sync with a canceled context: %v", err)
	}
}

var _ testing.TB = (*suite)(nil)
