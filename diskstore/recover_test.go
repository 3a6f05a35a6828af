package diskstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"cairn/block"
	"cairn/tier"
)

// oneSegment is the bytes of a segment with count objects, one of them empty,
// and a tombstone; sealed or as a killed process leaves it. starts are the
// offsets of the records.
func oneSegment(t testing.TB, count int, sealed bool) (p []byte, starts []int64) {
	t.Helper()
	m := newMemFS()
	s, err := openFS("memory", small.withDefaults(), m)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		put(t, s, i, i*20)
		starts = append(starts, s.active.tail-recordSize(int64(i*20), minAlign))
	}
	put(t, s, count, 5)
	s.Delete(keyOf(count))
	mustSync(t, s)
	if sealed {
		closeStore(t, s)
	}
	return slices.Clone(m.names[segmentName(1)].data), starts
}

// openBytes opens a store whose only segment has the bytes p.
func openBytes(t testing.TB, p []byte) (*Store, *memFS) {
	t.Helper()
	m := newMemFS()
	m.names[segmentName(1)] = &memNode{data: slices.Clone(p), dirty: map[int]bool{}}
	s, err := openFS("memory", small.withDefaults(), m)
	if err != nil {
		t.Fatal(err)
	}
	return s, m
}

// present lists the objects below count that are there; all others must be
// misses, and wrong bytes end the test.
func present(t testing.TB, s *Store, count int) []int {
	t.Helper()
	var there []int
	for i := range count {
		dst := make([]byte, i*20)
		d, err := s.Get(context.Background(), keyOf(i), dst)
		switch {
		case err == nil:
			if want := content(i, 0, i*20); !bytes.Equal(dst, want) || d != block.Describe(keyOf(i), keyOf(i-1), want) {
				t.Fatalf("object %d: wrong bytes or descriptor %+v", i, d)
			}
			there = append(there, i)
		case !errors.Is(err, tier.ErrNotFound) && !errors.Is(err, tier.ErrCorrupt):
			t.Fatalf("object %d: %v", i, err)
		}
	}
	return there
}

func TestTornTail(t *testing.T) {
	const count = 6
	p, starts := oneSegment(t, count, false)
	// The object and the tombstone behind the last counted one go as well.
	last := starts[count-1]
	payloadEnd := last + minAlign + (count-1)*20
	for size := int64(0); size <= int64(len(p)); size++ {
		s, _ := openBytes(t, p[:size])
		there := present(t, s, count)
		want := 0
		for i, start := range starts {
			if size >= start+minAlign+int64(i*20) {
				want++
			}
		}
		if size < cellSize {
			want = 0
		}
		if len(there) != want {
			t.Fatalf("cut to %d bytes (the last record is %d…%d): %d objects, want %d", size, last, payloadEnd, len(there), want)
		}
		// The store goes on from there.
		put(t, s, 100, 300)
		check(t, s, 100, 300)
		closeStore(t, s)
	}
}

func TestTornTailIsCutAndCounted(t *testing.T) {
	p, starts := oneSegment(t, 6, false)
	torn := p[:starts[5]+70]
	s, m := openBytes(t, torn)
	if r := s.Recovered(); r.Torn != 70 || r.Scanned != 1 || r.Objects != 5 || r.Corrupt != 0 {
		t.Errorf("recovery: %+v", r)
	}
	if got := len(m.names[segmentName(1)].data); int64(got) != starts[5] {
		t.Errorf("the file has %d bytes, want %d", got, starts[5])
	}
	closeStore(t, s)
}

// TestBitFlips flips every byte of a segment, sealed and not: at most the
// record that it is part of is lost, and never are bytes wrong.
func TestBitFlips(t *testing.T) {
	const count = 6
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed %v", sealed), func(t *testing.T) {
			p, _ := oneSegment(t, count, sealed)
			for at := range p {
				if at >= cellSize && at < segmentHeaderSize && at != headerCopyAt && at%512 != 0 {
					continue // zeros between and behind the headers
				}
				p[at] ^= 1 << (at % 8)
				s, _ := openBytes(t, p)
				there := present(t, s, count)
				if len(there) < count-1 {
					t.Fatalf("byte %d: only %v are left", at, there)
				}
				if lost := int64(count - len(there)); s.Stats().Corrupt < lost && s.Recovered().Torn == 0 {
					t.Fatalf("byte %d: %d lost, %d counted", at, lost, s.Stats().Corrupt)
				}
				closeStore(t, s)
				p[at] ^= 1 << (at % 8)
			}
		})
	}
}

func TestCorruptIsDroppedAndMayBePutAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	put(t, s, 1, 1000)
	closeStore(t, s)
	name := segmentFiles(t, dir)[0]
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p[segmentHeaderSize+minAlign+500] ^= 4
	if err := os.WriteFile(name, p, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, small)
	dst := make([]byte, 1000)
	if _, err := s.Get(context.Background(), keyOf(1), dst); !errors.Is(err, tier.ErrCorrupt) {
		t.Fatalf("get of damaged bytes: %v", err)
	}
	if _, err := s.Get(context.Background(), keyOf(1), dst); !errors.Is(err, tier.ErrNotFound) {
		t.Fatalf("get again: %v", err)
	}
	if st := s.Stats(); st.Corrupt != 1 || st.Objects != 0 || st.Bytes != 0 {
		t.Errorf("stats: %+v", st)
	}
	put(t, s, 1, 1000)
	check(t, s, 1, 1000)
	closeStore(t, s)
	check(t, open(t, dir, small), 1, 1000)
}

// TestHole: a crash between two writers leaves a gap before good records.
func TestHole(t *testing.T) {
	const count = 8
	p, starts := oneSegment(t, count, false)
	clear(p[starts[3]:starts[5]])
	s, _ := openBytes(t, p)
	if got := present(t, s, count); !slices.Equal(got, []int{0, 1, 2, 5, 6, 7}) {
		t.Errorf("with a hole where 3 and 4 were: %v", got)
	}
	closeStore(t, s)
}

// TestSegmentInsideAPayload: bytes that look like records are not taken for
// records when a scan walks through damage.
func TestSegmentInsideAPayload(t *testing.T) {
	inner, _ := oneSegment(t, 5, false)
	m := newMemFS()
	s, err := openFS("memory", small.withDefaults(), m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(context.Background(), block.Describe(keyOf(50), block.Key{}, inner), inner); err != nil {
		t.Fatal(err)
	}
	data := slices.Clone(m.names[segmentName(1)].data)
	data[segmentHeaderSize+minAlign] ^= 1
	r, _ := openBytes(t, data)
	if got := all(r); len(got) != 0 {
		t.Errorf("a payload was taken for records: %v", slices.Collect(maps.Keys(got)))
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"readme.txt", "1.seg", "0000000G.seg"} {
		if err := os.WriteFile(dir+"/"+name, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, small)
	put(t, s, 1, 10)
	closeStore(t, s)
	for _, name := range []string{"readme.txt", "1.seg", "0000000G.seg"} {
		if p, err := os.ReadFile(dir + "/" + name); err != nil || string(p) != "mine" {
			t.Errorf("%s: %q, %v", name, p, err)
		}
	}
}

// FuzzRecovery opens a store on arbitrary bytes: no panic, and nothing but the
// bytes that belong to a key.
func FuzzRecovery(f *testing.F) {
	const count = 6
	for _, sealed := range []bool{false, true} {
		p, starts := oneSegment(f, count, sealed)
		f.Add(p)
		f.Add(p[:len(p)-1])
		f.Add(p[:starts[4]+10])
		f.Add(slices.Concat(p[:starts[2]], p[starts[3]:]))
		f.Add(slices.Concat(p, p))
		for _, at := range []int{3, 12, 24, segmentHeaderSize + 4, len(p) - 60, len(p) - 50, len(p) - 40} {
			q := slices.Clone(p)
			q[at] ^= 0x10
			f.Add(q)
		}
	}
	f.Add([]byte{})
	f.Add(make([]byte, 3*segmentHeaderSize))
	f.Fuzz(func(t *testing.T, p []byte) {
		m := newMemFS()
		m.names[segmentName(1)] = &memNode{data: slices.Clone(p), dirty: map[int]bool{}}
		s, err := openFS("memory", small.withDefaults(), m)
		if errors.Is(err, ErrVersion) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		present(t, s, count)
		for key, d := range all(s) {
			dst := make([]byte, d.Length)
			if got, err := s.Get(context.Background(), key, dst); err == nil && (got != d || !d.Matches(dst)) {
				t.Errorf("%v: bytes and descriptor differ", key)
			}
		}
		if s.MaxObject() > 200 {
			put(t, s, 1000, 200)
			check(t, s, 1000, 200)
		}
		closeStore(t, s)
	})
}

// TestFailedWriteThatLanded: a write that reports an error may have reached the
// file all the same, with another writer's record behind it so that nothing
// overwrites it.
func TestFailedWriteThatLanded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	put(t, s, 0, 10)
	var at [3]place
	for i := 1; i < 3; i++ {
		p := content(i, 0, 500)
		d := block.Describe(keyOf(i), keyOf(i-1), p)
		s.mu.Lock()
		var err error
		at[i], err = s.reserveLocked(s.cfg.recordSize(500), 1)
		s.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.write(at[i], d, p); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			s.mu.Lock()
			s.abandonLocked(at[1], keyOf(1))
			s.commitLocked(at[2], d)
			s.mu.Unlock()
		}
	}
	mustSync(t, s)
	r := open(t, crashCopy(t, dir), small)
	check(t, r, 2, 500)
	if d, there := r.Stat(keyOf(1)); there {
		t.Errorf("what was not put is there: %+v", d)
	}
}
