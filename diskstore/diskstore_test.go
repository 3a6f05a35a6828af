package diskstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
	"cairn/tier"
	"cairn/tier/tiertest"
)

func TestConformance(t *testing.T) {
	for name, base := range map[string]Config{
		"aligned to 64":                {SegmentSize: 128 << 10},
		"aligned to 4096, sync always": {SegmentSize: 128 << 10, PayloadAlign: 4096, Sync: SyncAlways},
	} {
		t.Run(name, func(t *testing.T) {
			most := base.withDefaults().maxObject()
			tiertest.Run(t, tiertest.Config{
				MaxObject: int(most),
				Persists:  true,
				Open: func(t testing.TB, o tiertest.Options) tier.Store {
					cfg := base
					cfg.Capacity = o.Capacity
					return open(t, o.Dir, cfg)
				},
			})
		})
	}
}

// open opens a store that the test closes, at the latest when it ends.
func open(t testing.TB, dir string, cfg Config) *Store {
	t.Helper()
	s, err := Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// keyOf and content make the key and the bytes of object i, any time.
func keyOf(i int) block.Key {
	var k block.Key
	binary.BigEndian.PutUint64(k[3:], uint64(i)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint32(k[11:], uint32(i))
	return k
}

func content(i, version, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24), byte(version), byte(version >> 8)})
	p := make([]byte, n)
	r.Read(p)
	return p
}

func put(t testing.TB, s *Store, i, n int) []block.Key {
	t.Helper()
	p := content(i, 0, n)
	evicted, err := s.Put(context.Background(), block.Describe(keyOf(i), keyOf(i-1), p), p)
	if err != nil {
		t.Fatalf("put %d: %v", i, err)
	}
	return evicted
}

// check wants object i to be there whole.
func check(t testing.TB, s *Store, i, n int) {
	t.Helper()
	want := content(i, 0, n)
	dst := make([]byte, n)
	d, err := s.Get(context.Background(), keyOf(i), dst)
	if err != nil {
		t.Fatalf("get %d: %v", i, err)
	}
	if !bytes.Equal(dst, want) || d != block.Describe(keyOf(i), keyOf(i-1), want) {
		t.Fatalf("get %d: wrong bytes or descriptor %+v", i, d)
	}
}

func mustSync(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func all(s *Store) map[block.Key]block.Descriptor {
	m := map[block.Key]block.Descriptor{}
	s.All(func(d block.Descriptor) bool {
		m[d.Key] = d
		return true
	})
	return m
}

// small makes many segments of a few objects.
var small = Config{Capacity: 1 << 20, SegmentSize: 32 << 10}

func TestRestartEquality(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	for i := range 200 {
		put(t, s, i, i*7)
	}
	for i := 0; i < 200; i += 3 {
		s.Delete(keyOf(i))
	}
	for i := 0; i < 200; i += 6 {
		put(t, s, i, i*7)
	}
	before, stats, id := all(s), s.Stats(), s.ID()
	for range 3 {
		closeStore(t, s)
		s = open(t, dir, small)
		if diff := cmp.Diff(before, all(s)); diff != "" {
			t.Fatalf("after the restart (-before +after):\n%s", diff)
		}
		now := s.Stats()
		if now.Objects != stats.Objects || now.Bytes != stats.Bytes || now.Used > now.Capacity || s.ID() != id {
			t.Fatalf("after the restart: %+v, id %s; before: %+v, id %s", now, s.ID(), stats, id)
		}
		if r := s.Recovered(); r.Scanned != 0 || r.Corrupt != 0 || r.Torn != 0 || r.Objects != stats.Objects {
			t.Fatalf("recovery after a clean close: %+v", r)
		}
		for i := range 200 {
			if i%3 != 0 || i%6 == 0 {
				check(t, s, i, i*7)
			}
		}
	}
}

// TestReappendAfterRestart sees that restarts do not litter the directory.
func TestReappendAfterRestart(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		s := open(t, dir, small)
		put(t, s, i, 100)
		for j := range i + 1 {
			check(t, s, j, 100)
		}
		closeStore(t, s)
	}
	if names := segmentFiles(t, dir); len(names) != 1 {
		t.Errorf("20 restarts with one small object each left %v", names)
	}
}

func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	_, err := Open(dir, small)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "process ") {
		t.Fatalf("second Open: %v", err)
	}
	closeStore(t, s)
	open(t, dir, small)
}

func TestPrivateFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, dir, small)
	put(t, s, 1, 10)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", st.Mode(), err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 3 {
		t.Errorf("%d files, want lock, identity and a segment", len(entries))
	}
	for _, e := range entries {
		if st, err := e.Info(); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), st.Mode(), err)
		}
	}
}

func TestNotADirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path, small); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("Open of a file: %v, %v", s, err)
	}
}

func TestValidateReportsEverything(t *testing.T) {
	err := Config{Capacity: -1, PayloadAlign: 100, RescueFraction: 2, MaxKept: 1, Sync: 9, SyncEvery: -1}.Validate()
	for _, want := range []string{"Capacity", "PayloadAlign", "RescueFraction", "MaxKept", "Sync ", "SyncEvery"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in: %v", want, err)
		}
	}
	for _, c := range []Config{{}, {Capacity: 1 << 20}, {Capacity: 64 << 40 / 1024}, {Capacity: 4 << 40}} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := (Config{Capacity: 1 << 40, SegmentSize: 1 << 20}).Validate(); err == nil {
		t.Error("a million segments were accepted")
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	put(t, s, 1, 10)
	closeStore(t, s)
	name := segmentFiles(t, dir)[0]
	p := segmentHeader{id: 1, align: 64}.encode()
	le.PutUint32(p[8:], 2)
	le.PutUint64(p[checkAt:], checksumOf(p[:checkAt]))
	if err := os.WriteFile(name, p, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, small); !errors.Is(err, ErrVersion) {
		t.Fatalf("Open: %v, want ErrVersion", err)
	}
	if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, p) {
		t.Error("the file of the newer format was changed")
	}
}

func checksumOf(p []byte) uint64 { return block.Checksum(p) }

func TestDamagedIdentity(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, open(t, dir, small))
	if err := os.WriteFile(filepath.Join(dir, identityName), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, small); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Fatalf("Open: %v", err)
	}
}

func TestDeletePersists(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	for i := range 10 {
		put(t, s, i, 500)
	}
	mustSync(t, s)
	for i := range 5 {
		s.Delete(keyOf(i))
	}
	mustSync(t, s)
	put(t, s, 2, 700) // other bytes under the key of a deleted object
	mustSync(t, s)
	copyOf := crashCopy(t, dir)
	r := open(t, copyOf, small)
	want := []block.Key{keyOf(2), keyOf(5), keyOf(6), keyOf(7), keyOf(8), keyOf(9)}
	got := slices.SortedFunc(maps.Keys(all(r)), block.Key.Compare)
	slices.SortFunc(want, block.Key.Compare)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("after the crash (-want +got):\n%s", diff)
	}
	check(t, r, 2, 700)
}

// crashCopy copies the directory of a store that is open: what a process that
// is killed leaves.
func crashCopy(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}
