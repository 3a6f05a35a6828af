package diskstore

import (
	"context"
	"errors"
	"strings"
	"testing"

	"cairn/block"
	"cairn/tier"
)

func fillNamed(t testing.TB, s *Store, length int) (n int) {
	t.Helper()
	for ; n < 10000; n++ {
		evicted, err := putNamed(s, n, length)
		for _, k := range evicted {
			if k.Named() {
				t.Fatalf("named %v was evicted", k)
			}
		}
		if err != nil {
			if !errors.Is(err, tier.ErrNoSpace) || !strings.Contains(err.Error(), "MaxKept") || len(evicted) > 0 {
				t.Fatalf("put into a store full of named objects: evicted %v, %v", evicted, err)
			}
			return n
		}
	}
	t.Fatal("the store is never full")
	return 0
}

func TestFullOfKept(t *testing.T) {
	for _, length := range []int{10, 700, 9000, 20000} {
		m := newMemFS()
		s := openMem(t, m, small)
		for i := range 300 {
			put(t, s, i, 3000)
		}
		n := fillNamed(t, s, length)
		k := s.Kept()
		if int64(n) != k.Objects || k.Used > k.Limit || k.Limit-k.Used > 21000 || k.Limit < small.Capacity*6/10 {
			t.Errorf("%d objects of %d bytes: %+v", n, length, k)
		}
		before := all(s)
		for range 20 {
			if evicted, err := putNamed(s, n, length); !errors.Is(err, tier.ErrNoSpace) || len(evicted) > 0 {
				t.Fatalf("evicted %v, %v", evicted, err)
			}
		}
		if len(all(s)) != len(before) {
			t.Error("a Put that was refused changed the store")
		}
		for i := 1000; i < 1060; i++ {
			put(t, s, i, int(s.MaxObject()))
			check(t, s, i, int(s.MaxObject()))
		}
		for i := 2000; i < 2200; i++ {
			put(t, s, i, 1000)
			check(t, s, i, 1000)
		}
		if !s.Delete(named(0)) {
			t.Fatal("not there")
		}
		mustPutNamed(t, s, n, length)
		closeStore(t, s)
		s = openMem(t, m.afterKill(), small)
		for i := 1; i <= n; i++ {
			checkNamed(t, s, i, length)
		}
		if now := s.Kept(); now.Objects != k.Objects || now.Used != k.Used {
			t.Errorf("kept after the restart: %+v, before: %+v", now, k)
		}
		if st := s.Stats(); st.Used > st.Capacity {
			t.Errorf("%d bytes used of %d", st.Used, st.Capacity)
		}
	}
}

func TestKeptOnFullFileSystem(t *testing.T) {
	m := newMemFS()
	m.limit = int(small.Capacity * 5 / 8)
	s := openMem(t, m, small)
	const objects, length = 40, 1000
	next := 0
	fill := func(n int) {
		t.Helper()
		for range n {
			for _, k := range put(t, s, next, 1000+next%3000) {
				if k.Named() {
					t.Fatalf("named %v was evicted", k)
				}
			}
			next++
		}
	}
	for i := range objects {
		mustPutNamed(t, s, i, length)
		fill(10)
	}
	for range 3 {
		fill(1000)
		for i := range objects {
			checkNamed(t, s, i, length)
		}
		m = m.afterKill()
		m.limit = int(small.Capacity * 5 / 8)
		s = openMem(t, m, small)
	}
	if k := s.Kept(); k.Objects != objects {
		t.Errorf("kept: %+v", k)
	}
}

func TestKeptOnFilledFileSystem(t *testing.T) {
	m := newMemFS()
	m.limit = int(small.Capacity)
	s := openMem(t, m, small)
	mustPutNamed(t, s, 0, 1000) // in the oldest segment
	for i := range 150 {
		put(t, s, i, 3000)
	}
	m.mu.Lock()
	m.limit -= int(m.free())
	m.mu.Unlock()
	for i := 150; i < 300; i++ {
		put(t, s, i, 3000)
		checkNamed(t, s, 0, 1000)
	}
	m.mu.Lock()
	m.limit = int(small.Capacity)
	m.mu.Unlock()
	for i := 300; i < 1000; i++ {
		put(t, s, i, 3000)
	}
	checkNamed(t, s, 0, 1000)
	if k := s.Kept(); k.Objects != 1 || k.Moved == 0 {
		t.Errorf("kept: %+v", k)
	}
}

func TestLessCapacity(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	n := fillNamed(t, s, 3000)
	closeStore(t, s)
	less := small
	less.Capacity /= 2
	s = open(t, dir, less)
	refused := false
	for i := range 50 {
		p := content(i, 0, 3000)
		evicted, err := s.Put(context.Background(), block.Describe(keyOf(i), block.Key{}, p), p)
		if len(evicted) > 0 {
			t.Fatalf("evicted %v", evicted)
		}
		if err != nil && !errors.Is(err, tier.ErrNoSpace) {
			t.Fatal(err)
		}
		refused = refused || err != nil
	}
	if !refused {
		t.Error("nothing was refused")
	}
	for i := range n {
		checkNamed(t, s, i, 3000)
		if i < n*2/3 && !s.Delete(named(i)) {
			t.Fatal("not there")
		}
	}
	mustSync(t, s)
	for i := 100; i < 400; i++ {
		put(t, s, i, 3000)
	}
	for i := n * 2 / 3; i < n; i++ {
		checkNamed(t, s, i, 3000)
	}
	if st := s.Stats(); st.Used > st.Capacity {
		t.Errorf("%d bytes used of %d", st.Used, st.Capacity)
	}
}

func TestSmallerSegments(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	for i := range 5 {
		mustPutNamed(t, s, i, 25000)
	}
	closeStore(t, s)
	cfg := small
	cfg.SegmentSize, cfg.PayloadAlign = MinSegmentSize, maxAlign
	s = open(t, dir, cfg)
	for i := range 1000 {
		put(t, s, i, 3000)
	}
	for i := range 5 {
		checkNamed(t, s, i, 25000)
	}
	if s.Kept().Moved == 0 {
		t.Error("nothing was moved")
	}
}
