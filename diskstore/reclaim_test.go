package diskstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	gosync "sync"
	"testing"
	"testing/synctest"
	"time"

	"cairn/block"
	"cairn/tier"
)

// TestFirstInFirstOut: without reads, the oldest go first, all are reported, and
// the files stay within Capacity.
func TestFirstInFirstOut(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	gone := map[block.Key]bool{}
	next := 0
	for i := range 500 {
		for _, k := range put(t, s, i, 5000) {
			if k != keyOf(next) {
				t.Fatalf("put %d evicted %v, want object %d", i, k, next)
			}
			gone[k] = true
			next++
		}
	}
	if next < 200 || next > 400 {
		t.Errorf("%d of 500 were evicted", next)
	}
	for i := range 500 {
		if _, there := s.Stat(keyOf(i)); there == gone[keyOf(i)] {
			t.Errorf("object %d: there %v, evicted %v", i, there, gone[keyOf(i)])
		}
	}
	closeStore(t, s)
	var size int64
	for _, name := range segmentFiles(t, dir) {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	if st := s.Stats(); size > small.Capacity || st.Evictions != int64(next) {
		t.Errorf("%d bytes in files of %d; stats %+v", size, small.Capacity, st)
	}
}

// TestSecondChance: what is read survives the reclaim of its segment, within
// the budget, restarts included; what is not goes.
func TestSecondChance(t *testing.T) {
	for _, test := range []struct {
		fraction float64
		kept     bool
	}{{0.25, true}, {-1, false}} {
		t.Run(fmt.Sprint(test.fraction), func(t *testing.T) {
			dir := t.TempDir()
			cfg := small
			cfg.RescueFraction = test.fraction
			s := open(t, dir, cfg)
			put(t, s, 0, 3000)
			for i := 1; i < 1000; i++ {
				put(t, s, i, 3000)
				if _, there := s.Stat(keyOf(0)); there {
					check(t, s, 0, 3000)
				}
			}
			if _, there := s.Stat(keyOf(0)); there != test.kept {
				t.Errorf("an object that is read all the time: there %v, want %v", there, test.kept)
			}
			closeStore(t, s)
			s = open(t, dir, cfg)
			if test.kept {
				check(t, s, 0, 3000)
			}
		})
	}
}

// TestDeadSegmentsGoFirst: deleted objects make room before any living object
// is evicted.
func TestDeadSegmentsGoFirst(t *testing.T) {
	s := open(t, t.TempDir(), small)
	put(t, s, 0, 3000)
	for i := 1; i < tombBatch; i++ { // so few deletions wait in memory
		if evicted := put(t, s, i, 3000); len(evicted) > 0 {
			t.Fatalf("put %d evicted %v", i, evicted)
		}
		s.Delete(keyOf(i))
	}
	if st := s.Stats(); st.Puts*3000 < 2*st.Capacity {
		t.Fatal("the store was never full")
	}
	check(t, s, 0, 3000)
}

// TestReadersOutliveReclaim reads while everything is evicted under the reader.
func TestReadersOutliveReclaim(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Capacity: 256 << 10, SegmentSize: 32 << 10, RescueFraction: -1}
	s := open(t, dir, cfg)
	const objects, length = 400, 2000
	ctx := context.Background()
	var newest, hits int64
	var mu gosync.Mutex
	var wg gosync.WaitGroup
	done := make(chan struct{})
	for w := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 0))
			dst := make([]byte, length)
			for {
				select {
				case <-done:
					return
				default:
				}
				mu.Lock()
				i := int(max(0, newest-int64(r.IntN(120))))
				mu.Unlock()
				d, err := s.Get(ctx, keyOf(i), dst)
				switch {
				case err == nil:
					if !block.Describe(keyOf(i), block.Key{}, content(i, 0, length)).Matches(dst[:d.Length]) {
						t.Errorf("object %d: wrong bytes", i)
					}
					mu.Lock()
					hits++
					mu.Unlock()
				case !errors.Is(err, tier.ErrNotFound):
					t.Errorf("get %d: %v", i, err)
				}
			}
		})
	}
	for i := range objects {
		put(t, s, i, length)
		mu.Lock()
		newest = int64(i)
		mu.Unlock()
	}
	close(done)
	wg.Wait()
	if st := s.Stats(); st.Corrupt != 0 || st.Errors != 0 || st.Evictions == 0 {
		t.Errorf("stats: %+v", st)
	}
	s.mu.Lock()
	open := len(s.segments)
	s.mu.Unlock()
	if limit := cfg.maxSegments(); open > limit {
		t.Errorf("%d files are open, limit %d", open, limit)
	}
}

// TestStress runs everything in parallel on keys that collide, and then
// compares what is left with a restart.
func TestStress(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Capacity: 512 << 10, SegmentSize: 64 << 10}
	s := open(t, dir, cfg)
	ctx := context.Background()
	var wg gosync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			dst := make([]byte, 8000)
			for range 400 {
				i := r.IntN(150)
				p := content(i, 0, i*50)
				d := block.Describe(keyOf(i), keyOf(i-1), p)
				switch r.IntN(8) {
				case 0:
					s.Delete(d.Key)
				case 1:
					if err := s.Sync(ctx); err != nil {
						t.Errorf("sync: %v", err)
					}
				case 2, 3, 4:
					got, err := s.Get(ctx, d.Key, dst)
					if err == nil && (got != d || !d.Matches(dst[:got.Length])) || err != nil && !errors.Is(err, tier.ErrNotFound) {
						t.Errorf("get %d: %+v, %v", i, got, err)
					}
				default:
					if _, err := s.Put(ctx, d, p); err != nil && !errors.Is(err, tier.ErrExists) {
						t.Errorf("put %d: %v", i, err)
					}
				}
			}
		})
	}
	wg.Wait()
	before := all(s)
	if st := s.Stats(); st.Objects != int64(len(before)) || st.Used > st.Capacity || st.Errors > 0 {
		t.Errorf("stats %+v, %d objects", st, len(before))
	}
	closeStore(t, s)
	s = open(t, dir, cfg)
	if after := all(s); len(after) != len(before) {
		t.Errorf("%d objects after the restart, %d before", len(after), len(before))
	}
	for key, d := range before {
		dst := make([]byte, d.Length)
		if got, err := s.Get(ctx, key, dst); err != nil || got != d || !d.Matches(dst) {
			t.Errorf("get after the restart: %v", err)
		}
	}
}

// slowFS counts flushes and holds each until it is told to go on.
type slowFS struct {
	*memFS
	entered chan struct{}
	proceed chan struct{}
}

type slowFile struct {
	file
	fs *slowFS
}

func (f *slowFS) Create(name string) (file, error) {
	inner, err := f.memFS.Create(name)
	if err == nil && name != identityName+".new" {
		inner = slowFile{inner, f}
	}
	return inner, err
}

func (f slowFile) Sync() error {
	f.fs.entered <- struct{}{}
	<-f.fs.proceed
	return f.file.Sync()
}

// TestGroupCommit: callers that arrive while a flush runs share one more.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowFS{newMemFS(), make(chan struct{}), make(chan struct{})}
		s, err := openFS("memory", small.withDefaults(), slow)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, 1, 100)
		var wg gosync.WaitGroup
		wg.Go(func() { mustSync(t, s) })
		<-slow.entered
		put(t, s, 2, 100)
		for range 20 {
			wg.Go(func() { mustSync(t, s) })
		}
		canceled, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if err := s.Sync(canceled); !errors.Is(err, context.Canceled) {
				t.Errorf("a canceled Sync: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		slow.proceed <- struct{}{}
		<-slow.entered
		slow.proceed <- struct{}{}
		// A third flush would block here for ever.
		wg.Wait()
		wg.Go(func() { closeStore(t, s) })
		<-slow.entered // the table
		slow.proceed <- struct{}{}
		wg.Wait()
	})
}

func TestSyncInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		cfg := small
		cfg.Sync, cfg.SyncEvery = SyncInterval, time.Minute
		s, err := openFS("memory", cfg.withDefaults(), m)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		put(t, s, 1, 100)
		lost := func() bool {
			r, err := openFS("memory", small.withDefaults(), m.afterPowerLoss(rand.New(rand.NewPCG(0, 0))))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			_, there := r.Stat(keyOf(1))
			return !there
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if lost() {
			t.Error("lost after a flush was due")
		}
	})
}

// TestSecondWriterOfAKeyWaits: of two different objects put at once under one
// key, one is stored and the other is a conflict, after a restart too.
func TestSecondWriterOfAKeyWaits(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	ctx := context.Background()
	won := map[int]int{}
	for i := range 50 {
		var mu gosync.Mutex
		var wg gosync.WaitGroup
		for v := range 4 {
			wg.Go(func() {
				p := content(i, v, 600)
				_, err := s.Put(ctx, block.Describe(keyOf(i), block.Key{}, p), p)
				mu.Lock()
				defer mu.Unlock()
				if _, taken := won[i]; err == nil && taken {
					t.Errorf("object %d was stored twice", i)
				} else if err == nil {
					won[i] = v
				} else if !errors.Is(err, tier.ErrConflict) {
					t.Errorf("put %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	}
	for _, store := range []*Store{s, open(t, crashCopy(t, dir), small)} {
		for i, v := range won {
			want := content(i, v, 600)
			if d, ok := store.Stat(keyOf(i)); !ok || d.Sum != block.Checksum(want) {
				t.Errorf("object %d: %+v, %v", i, d, ok)
			}
		}
	}
}

func TestFullFileSystem(t *testing.T) {
	m := newMemFS()
	s, err := openFS("memory", small.withDefaults(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, 1, 1000)
	full := true
	m.fault = func(int, string) faultKind {
		if full {
			return failFull
		}
		return noFault
	}
	p := content(2, 0, 1000)
	d := block.Describe(keyOf(2), keyOf(1), p)
	if _, err := s.Put(context.Background(), d, p); !errors.Is(err, tier.ErrNoSpace) {
		t.Fatalf("put with a full file system: %v", err)
	}
	check(t, s, 1, 1000)
	m.mu.Lock()
	full = false
	m.mu.Unlock()
	if _, err := s.Put(context.Background(), d, p); err != nil {
		t.Fatalf("put with room again: %v", err)
	}
	check(t, s, 2, 1000)
	for i := 3; i < 60; i++ {
		put(t, s, i, 1000)
	}
	// One call fails; the oldest segment goes, and the Put succeeds.
	s.background.Wait() // for the tables of full segments, whose writing could fail in its place
	failed := false
	m.mu.Lock()
	m.fault = func(_ int, op string) faultKind {
		if op == "write" && !failed {
			failed = true
			return failFull
		}
		return noFault
	}
	m.mu.Unlock()
	if evicted := put(t, s, 100, 1000); len(evicted) == 0 || evicted[0] != keyOf(1) {
		t.Errorf("relief evicted %v, want the oldest first", evicted)
	}
	check(t, s, 100, 1000)
}

// TestTombstonesOutliveTheirSegmentsObjects: a segment in which nothing lives
// must stay while its tombstone hides a record in an older one.
func TestTombstonesOutliveTheirSegmentsObjects(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	for i := range 9 {
		put(t, s, i, 3000) // one segment, and it lives on
	}
	put(t, s, 9, 3000)  // the next segment
	s.background.Wait() // for the table of the first, which lists object 0
	s.Delete(keyOf(0))
	s.Delete(keyOf(9))
	mustSync(t, s)
	if n := len(s.segments); n != 2 || s.segments[0].live != 8 || len(s.segments[1].tombs) != 2 {
		t.Fatalf("%d segments: the test does not stage what it means to", n)
	}
	for i := 10; i < tombBatch; i++ {
		put(t, s, i, 3000)
		s.Delete(keyOf(i))
	}
	check(t, s, 1, 3000)
	r := open(t, crashCopy(t, dir), small)
	check(t, r, 1, 3000)
	if _, there := r.Stat(keyOf(0)); there {
		t.Error("an object that was deleted for good is back")
	}
}
