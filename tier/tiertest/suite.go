package tiertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"cairn/block"
	"cairn/tier"
)

// suite is one case at work: a store, and the model of what it must hold.
type suite struct {
	testing.TB
	cfg   Config
	dir   string
	store tier.Store
	// held is what the store holds if everything that it said is true.
	held map[block.Key]block.Descriptor
	// evicted counts the objects that the store said to have evicted.
	evicted int64
}

func (s *suite) open() {
	s.Helper()
	s.store = s.cfg.Open(s.TB, Options{Capacity: s.cfg.Capacity, Dir: s.dir})
	if s.held == nil {
		s.held = map[block.Key]block.Descriptor{}
	}
	store := s.store
	s.Cleanup(func() {
		if err := store.Close(); err != nil {
			s.Errorf("Close at the end of the test: %v", err)
		}
	})
}

// object makes object number i of n bytes: the same key and bytes every time.
func object(i, n int) (block.Descriptor, []byte) {
	key := keyOf(i)
	var parent block.Key
	if i%2 == 1 {
		parent = keyOf(1<<20 + i) // never stored, so that no object has a child
	}
	p := content(key, n)
	return block.Describe(key, parent, p), p
}

func keyOf(i int) block.Key {
	var k block.Key
	k[0], k[1], k[2] = byte(i>>16), byte(i>>8), byte(i)
	binary.BigEndian.PutUint64(k[3:], mix(uint64(i)))
	binary.BigEndian.PutUint32(k[11:], uint32(mix(uint64(i)+1<<40)))
	return k
}

// content is the n bytes that belong to key.
func content(key block.Key, n int) []byte {
	p := make([]byte, n+8)
	state := key.Hash64()
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], mix(state+uint64(i)))
	}
	return p[:n:n]
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable
// pseudorandom number generators, OOPSLA 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// put puts the object and keeps the model. It returns what Put returned.
func (s *suite) put(d block.Descriptor, p []byte) error {
	s.Helper()
	evicted, err := s.store.Put(context.Background(), d, p)
	s.left(evicted)
	if err == nil {
		if _, ok := s.held[d.Key]; ok {
			s.Errorf("Put of %s, which is there, gave no error", d.Key)
		}
		s.held[d.Key] = d
	}
	return err
}

// mustPut puts object number i of n bytes.
func (s *suite) mustPut(i, n int) block.Descriptor {
	s.Helper()
	d, p := object(i, n)
	if err := s.put(d, p); err != nil {
		s.Fatalf("Put of object %d, %d bytes: %v", i, n, err)
	}
	return d
}

// left takes evicted objects out of the model.
func (s *suite) left(evicted []block.Key) {
	s.Helper()
	for _, key := range evicted {
		if _, ok := s.held[key]; !ok {
			s.Errorf("evicted list names %s, which was not there", key)
		}
		delete(s.held, key)
		s.evicted++
	}
}

// remove deletes the object from store and model.
func (s *suite) remove(key block.Key) {
	s.Helper()
	_, want := s.held[key]
	if got := s.store.Delete(key); got != want {
		s.Errorf("Delete(%s) = %v, want %v", key, got, want)
	}
	delete(s.held, key)
}

// mustGet reads d and compares every byte.
func (s *suite) mustGet(d block.Descriptor) {
	s.Helper()
	const guard = 0xa5
	dst := bytes.Repeat([]byte{guard}, int(d.Length)+16)
	got, err := s.store.Get(context.Background(), d.Key, dst)
	if err != nil {
		s.Fatalf("Get(%s): %v", d.Key, err)
	}
	if got != d {
		s.Fatalf("Get(%s) gave the descriptor %+v, want %+v", d.Key, got, d)
	}
	s.sameBytes("Get", d, dst[:d.Length])
	for _, b := range dst[d.Length:] {
		if b != guard {
			s.Fatalf("Get(%s) wrote beyond the object", d.Key)
		}
	}
}

func (s *suite) sameBytes(what string, d block.Descriptor, p []byte) {
	s.Helper()
	if len(p) != int(d.Length) || !bytes.Equal(p, content(d.Key, len(p))) {
		s.Fatalf("%s: wrong bytes for %s", what, d.Key)
	}
}

// check compares the store with the model: the set, the descriptors, and the
// figures in Stats that follow from them.
func (s *suite) check() {
	s.Helper()
	found := map[block.Key]block.Descriptor{}
	s.store.All(func(d block.Descriptor) bool {
		if _, twice := found[d.Key]; twice {
			s.Errorf("All yields %s twice", d.Key)
		}
		found[d.Key] = d
		return true
	})
	var size int64
	for key, want := range s.held {
		size += int64(want.Length)
		if got, ok := found[key]; !ok {
			s.Errorf("%s left the store unreported", key)
		} else if got != want {
			s.Errorf("All yields %+v, want %+v", got, want)
		}
		if got, ok := s.store.Stat(key); !ok || got != want {
			s.Errorf("Stat(%s) = %+v, %v, want %+v", key, got, ok, want)
		}
	}
	for key := range found {
		if _, ok := s.held[key]; !ok {
			s.Errorf("All yields %s, which must not be there", key)
		}
	}
	stats := s.store.Stats()
	if stats.Objects != int64(len(s.held)) || stats.Bytes != size {
		s.Errorf("Stats say %d objects, %d bytes; want %d, %d", stats.Objects, stats.Bytes, len(s.held), size)
	}
	if stats.Used > stats.Capacity {
		s.Errorf("Stats say %d bytes used of %d", stats.Used, stats.Capacity)
	}
	if s.Failed() {
		s.FailNow()
	}
}

// wantError reports err unless it is want.
func (s *suite) wantError(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// maxObject is the size of the largest object that the store takes.
func (s *suite) maxObject() int {
	if s.cfg.MaxObject != 0 {
		return s.cfg.MaxObject
	}
	return int(s.store.Stats().Capacity)
}
