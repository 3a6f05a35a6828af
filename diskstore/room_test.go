package diskstore

import (
	"context"
	"testing"

	"cairn/block"
)

// A Delete that is durable at once may have to begin a segment, and cannot report
// what it evicts: it takes the room that is kept for that, and the next Put makes
// it again. So deletions between Puts evict nothing.
func TestDeletesBetweenPutsEvictNothing(t *testing.T) {
	s := open(t, t.TempDir(), Config{Capacity: 1 << 20, SegmentSize: 128 << 10, PayloadAlign: 4096, Sync: SyncAlways})
	held := map[block.Key]bool{}
	next := 0
	put := func() {
		t.Helper()
		next++
		p := make([]byte, 2000+next%1000)
		d := block.Describe(block.Key{0, byte(next >> 8), byte(next), 1}, block.Key{}, p)
		evicted, err := s.Put(context.Background(), d, p)
		if err != nil {
			t.Fatal(err)
		}
		held[d.Key] = true
		for _, k := range evicted {
			if !held[k] {
				t.Errorf("%s is said to be evicted and was not there", k)
			}
			delete(held, k)
		}
	}
	for range 300 {
		put()
	}
	silent := 0
	for range 60 {
		deletes := 0
		for k := range held {
			if deletes++; deletes > 20 {
				break
			}
			s.Delete(k)
			delete(held, k)
		}
		for k := range held {
			if _, ok := s.Stat(k); !ok {
				silent++
				delete(held, k)
			}
		}
		for range 8 {
			put()
		}
	}
	if silent > 0 {
		t.Errorf("%d objects left without a word", silent)
	}
}
