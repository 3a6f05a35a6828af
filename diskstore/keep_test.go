package diskstore

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"

	"cairn/block"
)

// named is a key that every store keeps.
func named(i int) block.Key { return block.NamedKey("test", []byte{byte(i >> 8), byte(i)}, uint64(i)) }

func putNamed(s *Store, i, n int) (evicted []block.Key, err error) {
	p := content(i, 9, n)
	return s.Put(context.Background(), block.Describe(named(i), block.Key{}, p), p)
}

func mustPutNamed(t testing.TB, s *Store, i, n int) []block.Key {
	t.Helper()
	evicted, err := putNamed(s, i, n)
	if err != nil {
		t.Fatalf("put named %d: %v", i, err)
	}
	return evicted
}

func checkNamed(t testing.TB, s *Store, i, n int) {
	t.Helper()
	dst := make([]byte, n)
	if _, err := s.Get(context.Background(), named(i), dst); err != nil {
		t.Fatalf("get named %d: %v", i, err)
	}
	if !bytes.Equal(dst, content(i, 9, n)) {
		t.Fatalf("get named %d: wrong bytes", i)
	}
}

// TestNamedOutliveSealed: named objects stay, whatever is put after them and whatever
// ends the process.
func TestNamedOutliveSealed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	const objects, length = 150, 3000 // about half of the store
	for i := range objects {
		mustPutNamed(t, s, i, length)
		put(t, s, i, 2000)
	}
	wantNamed := func(s *Store) {
		t.Helper()
		for i := range objects {
			checkNamed(t, s, i, length)
		}
		if st := s.Stats(); st.Used > st.Capacity {
			t.Fatalf("%d bytes used of %d", st.Used, st.Capacity)
		}
	}
	next := objects
	fill := func(s *Store) {
		t.Helper()
		for range 1000 {
			for _, k := range put(t, s, next, 1000+next%4000) {
				if k.Named() {
					t.Fatalf("named %v was evicted", k)
				}
			}
			next++
		}
	}
	fill(s)
	wantNamed(s)
	for range 3 {
		closeStore(t, s)
		s = open(t, dir, small)
		wantNamed(s)
		fill(s)

		crashed := crashCopy(t, dir)
		names := segmentFiles(t, crashed)
		f, err := os.OpenFile(names[len(names)-1], os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(content(next, 0, 5000)); err != nil { // a torn tail
			t.Fatal(err)
		}
		f.Close()
		c := open(t, crashed, small)
		wantNamed(c)
		fill(c)
		wantNamed(c)
	}
	if k := s.Kept(); k.Objects != objects || k.Bytes != objects*length || k.Moved == 0 || k.Used > k.Limit {
		t.Errorf("kept: %+v", k)
	}
}

// openMem opens a store in memory that the test closes, at the latest when it ends.
func openMem(t testing.TB, fs filesystem, cfg Config) *Store {
	t.Helper()
	s, err := openFS("memory", cfg.withDefaults(), fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fillNamed puts named objects until the store refuses one.
// TestFullOfKept: a Put that cannot be kept fails at once and evicts nothing; other
// objects still go in and out, even the largest; a deletion makes room.
// TestKeptOverwritten: the life of named blocks, where every write deletes the object
// before it, beside others that never change and that hold on to the oldest segments.
func TestKeptOverwritten(t *testing.T) {
	for _, align := range []int{minAlign, maxAlign} {
		m := newMemFS()
		cfg := small
		cfg.PayloadAlign = align
		s := openMem(t, m, cfg)
		static := 0
		for s.Kept().Used < s.Kept().Limit*6/10 {
			mustPutNamed(t, s, static, 900)
			static++
		}
		next := 10000
		for round := range 3 {
			for range 3000 {
				mustPutNamed(t, s, next, 500)
				if !s.Delete(named(next-5)) && next > 10005 {
					t.Fatalf("%d is not there", next-5)
				}
				next++
				if next%50 == 0 {
					mustSync(t, s)
					put(t, s, next, 3000)
				}
			}
			if st := s.Stats(); st.Used > st.Capacity {
				t.Errorf("%d bytes used of %d", st.Used, st.Capacity)
			}
			mustSync(t, s)
			if round == 1 {
				closeStore(t, s)
			}
			m = m.afterKill()
			s = openMem(t, m, cfg)
			for i := range static {
				checkNamed(t, s, i, 900)
			}
			for i := 10000; i < next-5; i++ {
				if _, there := s.Stat(named(i)); there {
					t.Fatalf("object %d was deleted for good and is back", i)
				}
			}
		}
	}
}

// TestPassedOver: segments that are all kept are not moved for ever, while others have
// more to gain.
func TestPassedOver(t *testing.T) {
	s := openMem(t, newMemFS(), small)
	for s.Kept().Used < s.Kept().Limit/2 {
		mustPutNamed(t, s, int(s.Kept().Objects), 3000)
	}
	var bytes int64
	for i := range 3000 {
		put(t, s, i, 3000)
		bytes += 3000
	}
	// The oldest first always would move 64 % of what is put.
	if k := s.Kept(); k.Moved == 0 || k.MovedBytes > bytes*45/100 {
		t.Errorf("%d bytes put, %d moved", bytes, k.MovedBytes)
	}
}

// hookFS calls a function once, after the first record of the key is written.
type hookFS struct {
	*memFS
	key  []byte
	hook atomic.Pointer[func()]
}

type hookFile struct {
	file
	fs *hookFS
}

func (f *hookFS) Create(name string) (file, error) {
	inner, err := f.memFS.Create(name)
	if err == nil {
		inner = hookFile{inner, f}
	}
	return inner, err
}

func (f hookFile) WriteV(bufs [][]byte, off int64) (int, error) {
	n, err := f.file.WriteV(bufs, off)
	if len(bufs) > 1 && bytes.Contains(bufs[0], f.fs.key) { // so no table
		if hook := f.fs.hook.Swap(nil); hook != nil {
			(*hook)()
		}
	}
	return n, err
}

// TestDeleteWhileMoved: a deletion that is made durable while the object is copied
// hides the copy as well, in the same process and after a crash at once.
func TestDeleteWhileMoved(t *testing.T) {
	key := named(0)
	fs := &hookFS{memFS: newMemFS(), key: key[:]}
	s := openMem(t, fs, small)
	mustPutNamed(t, s, 0, 3000)
	mustSync(t, s)
	var after []*memFS
	hook := func() {
		if !s.Delete(named(0)) {
			t.Error("nothing to delete")
		}
		mustSync(t, s)
		r := rand.New(rand.NewPCG(1, 1))
		after = append(after, fs.afterKill(), fs.afterPowerLoss(r))
	}
	fs.hook.Store(&hook)
	for i := 0; len(after) == 0 && i < 2000; i++ {
		put(t, s, i, 3000)
	}
	if len(after) == 0 {
		t.Fatal("the object was never moved")
	}
	stores := []*Store{s}
	for _, m := range after {
		stores = append(stores, openMem(t, m, small))
	}
	for i, store := range stores {
		if _, there := store.Stat(named(0)); there {
			t.Errorf("store %d: an object that was deleted for good is back", i)
		}
		for j := 5000; j < 5600; j++ {
			put(t, store, j, 3000)
		}
		if _, there := store.Stat(named(0)); there {
			t.Errorf("store %d: an object that was deleted for good came back", i)
		}
		if k := store.Kept(); k.Objects != 0 || k.Used != 0 {
			t.Errorf("store %d: kept %+v", i, k)
		}
	}
}

// TestCrashWhileMoved: the object is there after a crash when the copy is written and
// the original still is.
func TestCrashWhileMoved(t *testing.T) {
	key := named(0)
	fs := &hookFS{memFS: newMemFS(), key: key[:]}
	s := openMem(t, fs, small)
	mustPutNamed(t, s, 0, 3000)
	mustSync(t, s)
	var after []*memFS
	next := 0
	for len(after) < 40 && next < 20000 {
		hook := func() {
			after = append(after, fs.afterKill(), fs.afterPowerLoss(rand.New(rand.NewPCG(uint64(len(after)), 1))))
		}
		fs.hook.Store(&hook)
		put(t, s, next, 3000)
		next++
	}
	if len(after) < 40 {
		t.Fatal("the object was not moved")
	}
	for _, m := range after {
		r := openMem(t, m, small)
		checkNamed(t, r, 0, 3000)
		for i := range 400 {
			put(t, r, 100000+i, 3000)
		}
		checkNamed(t, r, 0, 3000)
		if k := r.Kept(); k.Objects != 1 {
			t.Errorf("kept: %+v", k)
		}
		closeStore(t, r)
	}
}

// TestDamagedKept: an object that is found damaged when it is to be moved is reported.
func TestDamagedKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	for i := range 4 {
		mustPutNamed(t, s, i, 3000)
	}
	mustSync(t, s)
	name := segmentFiles(t, dir)[0]
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(p, content(2, 9, 3000))
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil || at < 0 {
		t.Fatal(at, err)
	}
	if _, err := f.WriteAt([]byte{p[at+100] ^ 1}, int64(at+100)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	var lost []block.Key
	for i := range 1000 {
		for _, k := range put(t, s, i, 3000) {
			if k.Named() {
				lost = append(lost, k)
			}
		}
	}
	if len(lost) != 1 || lost[0] != named(2) {
		t.Errorf("reported: %v, want %v", lost, named(2))
	}
	if st := s.Stats(); st.Corrupt != 1 || s.Kept().Objects != 3 {
		t.Errorf("stats %+v, kept %+v", st, s.Kept())
	}
	for _, i := range []int{0, 1, 3} {
		checkNamed(t, s, i, 3000)
	}
}

// TestUnreadableKept: a segment with an object that gives input or output errors stays,
// and others go on being reclaimed.
func TestUnreadableKept(t *testing.T) {
	m := newMemFS()
	s := openMem(t, m, small)
	for i := range 4 {
		mustPutNamed(t, s, i, 3000)
	}
	for i := range 400 {
		put(t, s, i, 3000)
	}
	for i := range 4 {
		checkNamed(t, s, i, 3000)
	}
	m.mu.Lock()
	m.fault = func(_ int, op string) faultKind {
		if op == "read" {
			return failEIO
		}
		return noFault
	}
	m.mu.Unlock()
	for i := 400; i < 1200; i++ {
		put(t, s, i, 3000)
	}
	m.mu.Lock()
	m.fault = nil
	m.mu.Unlock()
	for i := range 4 {
		checkNamed(t, s, i, 3000)
	}
	for i := 1200; i < 2000; i++ {
		put(t, s, i, 3000)
	}
	for i := range 4 {
		checkNamed(t, s, i, 3000)
	}
}

// TestKeptOnFullFileSystem: where the file system has less room than Capacity, ordinary objects
// make room for others although every segment has kept ones, which stay.
// TestKeptOnFilledFileSystem: when somebody else takes what was left of the file system,
// objects make room that stand where nothing must be moved.
// TestLessCapacity: a store that is opened with less room than what it must keep loses
// nothing and refuses, until enough is deleted.
// TestSmallerSegments: what does not fit into a segment any more is kept nevertheless.
