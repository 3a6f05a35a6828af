package diskstore_test

import (
	"testing"

	"cairn/block"
	"cairn/diskstore"
	"cairn/tier"
)

// As long as a store says that there is room it evicts nothing, and it uses most of its
// capacity before it says that there is none.
func TestRoomEvictsNothing(t *testing.T) {
	for _, length := range []int{1 << 10, 100 << 10, 700 << 10} {
		cfg := diskstore.Config{Capacity: 24 << 20, SegmentSize: 2 << 20}
		s, err := diskstore.Open(t.TempDir(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		const slack = 4 << 10 // headers and padding
		var stored int64
		for i := 0; s.Room() >= int64(length+slack); i++ {
			key, err := block.NewKey(i, [block.HashSize]byte{1})
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, length)
			evicted, err := s.Put(t.Context(), block.Describe(key, block.Key{}, p), p)
			if err != nil {
				t.Fatal(err)
			}
			if len(evicted) > 0 {
				t.Fatalf("blocks of %d bytes: block %d evicted %d", length, i, len(evicted))
			}
			stored += int64(length)
		}
		if least := cfg.Capacity - 3*cfg.SegmentSize; stored < least*3/5 {
			t.Errorf("blocks of %d bytes: %d stored in %d, then there was no room", length, stored, cfg.Capacity)
		}
		if got := tier.Room(s); got != s.Room() {
			t.Errorf("tier.Room is %d, not %d", got, s.Room())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
