package diskstore

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cairn/block"
	"cairn/tier"
)

// unreadableFS calls before, if set, with the key of each object that is about to be
// read; the read gives an input error if it says so.
type unreadableFS struct {
	*memFS
	before atomic.Pointer[func(block.Key) (fails bool)]
}

type unreadableFile struct {
	file
	fs *unreadableFS
}

func (f *unreadableFS) fail(before func(block.Key) bool) { f.before.Store(&before) }

func (f *unreadableFS) Create(name string) (file, error) {
	inner, err := f.memFS.Create(name)
	return unreadableFile{inner, f}, err
}

func (f *unreadableFS) Open(name string) (file, error) {
	inner, err := f.memFS.Open(name)
	return unreadableFile{inner, f}, err
}

func (f unreadableFile) ReadV(bufs [][]byte, off int64) (int, error) {
	before := f.fs.before.Load()
	if before == nil || len(bufs[0]) < cellSize {
		return f.file.ReadV(bufs, off)
	}
	var head [cellSize]byte
	if _, err := f.file.ReadV([][]byte{head[:]}, off); err != nil {
		return 0, err
	}
	if (*before)(block.Key(head[24:40])) {
		return 0, unix.EIO
	}
	return f.file.ReadV(bufs, off)
}

// wantPuts wants n sealed objects to go in, from number next on, and those that are
// kept to be there.
func wantPuts(t *testing.T, s *Store, next, n int, kept map[int]bool, length int) {
	t.Helper()
	for i := next; i < next+n; i++ {
		for _, k := range put(t, s, i, 3000) {
			if k.Named() {
				t.Fatalf("named %v was evicted", k)
			}
		}
	}
	for i := range kept {
		checkNamed(t, s, i, length)
	}
	if st := s.Stats(); st.Used > st.Capacity {
		t.Errorf("%d bytes used of %d", st.Used, st.Capacity)
	}
}

// fillWithBoth fills a store with named objects up to three quarters of what it may
// keep, with sealed ones between them.
func fillWithBoth(t *testing.T, s *Store, length int) (kept map[int]bool) {
	t.Helper()
	kept = map[int]bool{}
	for i := 0; s.Kept().Used < s.Kept().Limit*3/4; i++ {
		mustPutNamed(t, s, i, length)
		kept[i] = true
		put(t, s, 10000+i, 3000)
	}
	return kept
}

// TestRoomAfterReadErrors: segments of which all but some objects could be moved stay
// and take the room for what is moved. When all can be read again there is room again.
func TestRoomAfterReadErrors(t *testing.T) {
	for _, every := range []int{2, 5, 9} {
		fs := &unreadableFS{memFS: newMemFS()}
		s := openMem(t, fs, small)
		kept := fillWithBoth(t, s, 900)
		failed := 0
		for i := range 500 {
			fs.fail(func(k block.Key) bool { return k.Named() && (int(k[15])+i/20)%every == 0 })
			p := content(i, 0, 3000)
			if _, err := s.Put(t.Context(), block.Describe(keyOf(i), block.Key{}, p), p); err != nil {
				failed++
			}
			if i%10 == 0 {
				mustSync(t, s)
			}
		}
		if st := s.Stats(); failed == 0 || st.Used > st.Capacity*3/2 {
			t.Fatalf("%d puts failed, %d bytes used of %d", failed, st.Used, st.Capacity)
		}
		fs.fail(func(block.Key) bool { return false })
		wantPuts(t, s, 1000, 500, kept, 900)
		closeStore(t, s)
		s = openMem(t, fs.afterKill(), small)
		wantPuts(t, s, 2000, 100, kept, 900)
	}
}

// TestRoomBesideUnreadable: one object can never be read again. Its segment stays, and
// does not keep others from going of which that was true only for a while.
func TestRoomBesideUnreadable(t *testing.T) {
	fs := &unreadableFS{memFS: newMemFS()}
	s := openMem(t, fs, small)
	kept := fillWithBoth(t, s, 900)
	fs.fail(func(k block.Key) bool { return k.Named() && k[15]%3 == 0 || k == named(0) })
	for i := range 300 {
		p := content(i, 0, 3000)
		_, _ = s.Put(t.Context(), block.Describe(keyOf(i), block.Key{}, p), p)
	}
	fs.fail(func(k block.Key) bool { return k == named(0) })
	delete(kept, 0)
	failed := 0
	for i := 1000; i < 1020; i++ {
		p := content(i, 0, 3000)
		if _, err := s.Put(t.Context(), block.Describe(keyOf(i), block.Key{}, p), p); err != nil {
			failed++
		}
	}
	t.Logf("%d puts failed", failed)
	wantPuts(t, s, 2000, 500, kept, 900)
}

// openSparse opens a store with half of the Capacity that it had, after three of four
// named objects were deleted: every segment has something left that is kept.
func openSparse(t *testing.T, length int) (s *Store, fs *unreadableFS, kept map[int]bool) {
	t.Helper()
	m := newMemFS()
	s = openMem(t, m, small)
	n := fillNamed(t, s, length)
	closeStore(t, s)
	fs = &unreadableFS{memFS: m.afterKill()}
	less := small
	less.Capacity /= 2
	s = openMem(t, fs, less)
	p := content(0, 0, 3000)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = s.Put(t.Context(), block.Describe(keyOf(i), block.Key{}, p), p)
	}
	if !errors.Is(err, tier.ErrNoSpace) {
		t.Fatalf("put into a store with less room than it keeps: %v", err)
	}
	kept = map[int]bool{}
	for i := range n {
		if i%4 == 0 {
			kept[i] = true
		} else if !s.Delete(named(i)) {
			t.Fatal("not there")
		}
	}
	return s, fs, kept
}

// TestRoomAfterDeletions: a store that was opened with less Capacity takes objects again
// once enough is deleted.
func TestRoomAfterDeletions(t *testing.T) {
	s, _, kept := openSparse(t, 900)
	wantPuts(t, s, 1000, 500, kept, 900)
}

// TestReadWhileMovedBack: an object is found in the spare segment by who is about to
// read it, when its move is taken back and another object takes the place.
func TestReadWhileMovedBack(t *testing.T) {
	s, fs, kept := openSparse(t, 900)
	reading, proceed, done := make(chan struct{}), make(chan struct{}), make(chan error)
	works := func(block.Key) bool { return false }
	var last block.Key
	fs.fail(func(k block.Key) bool {
		s.mu.Lock()
		moved := s.spare != nil && s.index[last].segment == s.spare.id
		s.mu.Unlock()
		if !moved {
			last = k
			return false
		}
		fs.fail(func(block.Key) bool {
			fs.fail(works)
			close(reading)
			<-proceed
			return false
		})
		go func() {
			_, err := s.Get(t.Context(), last, make([]byte, 900))
			done <- err
		}()
		<-reading
		return true
	})
	wantPuts(t, s, 1000, 100, nil, 900)
	close(proceed)
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantPuts(t, s, 2000, 100, kept, 900)
}

// TestRoomAfterFlushErrors: what could not be flushed is copied to another segment each
// time that a flush is tried, and that takes no more room than it did at first.
func TestRoomAfterFlushErrors(t *testing.T) {
	m := newMemFS()
	s := openMem(t, m, small)
	kept := fillWithBoth(t, s, 900)
	mustSync(t, s)
	m.inject(func(_ int, op string) faultKind {
		if op == "sync" {
			return failEIO
		}
		return noFault
	}, 0)
	for i := range 100 {
		p := content(i, 0, 3000)
		_, _ = s.Put(t.Context(), block.Describe(keyOf(i), block.Key{}, p), p)
		if s.Sync(t.Context()) == nil {
			t.Fatal("a flush succeeded")
		}
	}
	if st := s.Stats(); st.Used > st.Capacity*3/2 {
		t.Errorf("%d bytes used of %d", st.Used, st.Capacity)
	}
	m.inject(nil, 0)
	mustSync(t, s)
	wantPuts(t, s, 1000, 500, kept, 900)
}

// TestRoomAfterFlushErrorsEverywhere: every segment has something to flush when the device
// begins to fail, as while tables are being written. They are copied one after another, so
// that no more than one is there twice.
func TestRoomAfterFlushErrorsEverywhere(t *testing.T) {
	m := newMemFS()
	s := openMem(t, m, small)
	kept := fillWithBoth(t, s, 900)
	mustSync(t, s)
	before := s.Stats().Used
	s.mu.Lock()
	for _, g := range s.segments {
		g.writes++
	}
	s.mu.Unlock()
	m.inject(func(_ int, op string) faultKind {
		if op == "sync" {
			return failEIO
		}
		return noFault
	}, 0)
	for range 20 {
		if s.Sync(t.Context()) == nil {
			t.Fatal("a flush succeeded")
		}
		if used, most := s.Stats().Used, before+3*small.SegmentSize; used > most {
			t.Fatalf("%d bytes used, want at most %d", used, most)
		}
	}
	m.inject(nil, 0)
	mustSync(t, s)
	s.mu.Lock()
	for _, g := range s.segments {
		if g.suspect {
			t.Errorf("segment %d is suspect after a flush", g.id)
		}
	}
	s.mu.Unlock()
	wantPuts(t, s, 1000, 500, kept, 900)
	r := openMem(t, m.afterPowerLoss(rand.New(rand.NewPCG(1, 1))), small)
	for i := range kept {
		checkNamed(t, r, i, 900)
	}
}

// failOnceFS holds the first flush of a segment until it is told to go on, and fails it.
type failOnceFS struct {
	*memFS
	held    atomic.Bool
	proceed chan struct{}
}

type failOnceFile struct {
	file
	fs *failOnceFS
}

func (f *failOnceFS) Create(name string) (file, error) {
	inner, err := f.memFS.Create(name)
	if err == nil && name == segmentName(1) {
		inner = failOnceFile{inner, f}
	}
	return inner, err
}

func (f failOnceFile) Sync() error {
	if !f.fs.held.CompareAndSwap(false, true) {
		return f.file.Sync()
	}
	<-f.fs.proceed
	return unix.EIO
}

// TestSyncBesideFailedTable: a flush that fails in the background while Sync waits for it is
// made good by that Sync.
func TestSyncBesideFailedTable(t *testing.T) {
	fs := &failOnceFS{memFS: newMemFS(), proceed: make(chan struct{})}
	s := openMem(t, fs, small)
	const n = 12 // more than a segment takes
	for i := range n {
		put(t, s, i, 3000)
	}
	waitFor(t, fs.held.Load) // its table is begun
	done := make(chan error)
	go func() { done <- s.Sync(t.Context()) }()
	waitFor(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.segments[0].users == 2 // the table, and Sync
	})
	close(fs.proceed)
	if err := <-done; err != nil {
		t.Error(err)
	}
	r := openMem(t, fs.afterPowerLoss(rand.New(rand.NewPCG(1, 1))), small)
	for i := range n {
		check(t, r, i, 3000)
	}
}

// waitFor waits until something is so.
func waitFor(t *testing.T, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}
