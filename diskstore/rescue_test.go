package diskstore

import (
	"context"
	"maps"
	"math/rand/v2"
	"testing"

	"cairn/block"
	"cairn/internal/testseed"
)

// treeKey is the key of object i of a tree in which each has up to three children, and
// that of its parent.
func treeKey(t testing.TB, i int) (key, parent block.Key) {
	at := func(i int) block.Key {
		depth := 0
		for j := i; j > 0; j = (j - 1) / 3 {
			depth++
		}
		k, err := block.NewKey(depth, [block.HashSize]byte{byte(i), byte(i >> 8), 0x7e, 0xee})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if i > 0 {
		parent = at((i - 1) / 3)
	}
	return at(i), parent
}

func putTree(t testing.TB, s *Store, i, n int) (evicted []block.Key) {
	t.Helper()
	key, parent := treeKey(t, i)
	p := content(i, 0, n)
	evicted, err := s.Put(context.Background(), block.Describe(key, parent, p), p)
	if err != nil {
		t.Fatalf("put %d: %v", i, err)
	}
	return evicted
}

// checkFollowers counts who follows whom.
func checkFollowers(t testing.TB, s *Store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[block.Key]uint32{}
	for key, e := range s.index {
		if follows(key, e.parent) {
			want[e.parent]++
		}
	}
	if !maps.Equal(s.followers, want) {
		t.Fatalf("%d parents are known to be followed, want %d", len(s.followers), len(want))
	}
}

// A sequence that grows from time to time keeps its beginning, which is never read and
// older than all else; so it does over a restart.
func TestParentsAreRescued(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small)
	sequence := []int{0}
	putTree(t, s, 0, 3000)
	for i := range 2000 {
		put(t, s, i, 3000)
		if i%50 == 49 {
			last := sequence[len(sequence)-1]*3 + 1
			if len(sequence) == 9 { // it is cut, and another end grows
				for _, j := range sequence[1:] {
					key, _ := treeKey(t, j)
					s.Delete(key)
				}
				sequence, last = sequence[:1], 2+i%100/50
			}
			putTree(t, s, last, 3000)
			sequence = append(sequence, last)
		}
		for _, j := range sequence {
			if key, _ := treeKey(t, j); !stored(s, key) {
				t.Fatalf("after %d objects block %d of %v is gone", i, j, sequence)
			}
		}
	}
	checkFollowers(t, s)
	closeStore(t, s)
	s = open(t, dir, small)
	checkFollowers(t, s)
	for _, j := range sequence {
		if key, _ := treeKey(t, j); !stored(s, key) {
			t.Errorf("block %d is gone after a restart", j)
		}
	}
}

func stored(s *Store, key block.Key) bool {
	_, ok := s.Stat(key)
	return ok
}

// What nobody follows any more goes, although it was rescued for having been followed.
func TestRescueEnds(t *testing.T) {
	s := open(t, t.TempDir(), small)
	const blocks = 40
	for i := range blocks {
		putTree(t, s, i, 3000)
	}
	for i := range 3 * int(small.Capacity) / 3000 {
		put(t, s, i, 3000)
	}
	for i := range blocks {
		if key, _ := treeKey(t, i); stored(s, key) {
			t.Errorf("block %d is there for ever", i)
		}
	}
	checkFollowers(t, s)
}

// The counts stay right whatever happens.
func TestFollowersAreCounted(t *testing.T) {
	seed := testseed.Of(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	s := open(t, dir, small)
	for range 1500 {
		i := rng.IntN(400)
		key, _ := treeKey(t, i)
		switch op := rng.IntN(100); {
		case op == 0:
			closeStore(t, s)
			s = open(t, dir, small)
		case op < 15:
			s.Delete(key)
		case !stored(s, key):
			putTree(t, s, i, 1000+rng.IntN(4000))
		default:
			_, _ = s.Get(context.Background(), key, make([]byte, 5000)) // it may have another length
		}
	}
	checkFollowers(t, s)
}
