package hostcache

import (
	"context"
	"errors"
	"testing"

	"cairn/block"
	"cairn/tier"
)

// chainKey is the key of block i of sequence s.
func chainKey(t testing.TB, s, i int) block.Key {
	t.Helper()
	k := keyOf(s*1000 + i)
	key, err := block.NewKey(i, [block.HashSize]byte(k[3:]))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func putChain(t testing.TB, c *Cache, s, i int) {
	t.Helper()
	key, parent := chainKey(t, s, i), block.Key{}
	if i > 0 {
		parent = chainKey(t, s, i-1)
	}
	p := content(key, 64)
	if _, err := c.Put(context.Background(), block.Describe(key, parent, p), p); err != nil {
		t.Fatalf("block %d of sequence %d: %v", i, s, err)
	}
}

// Sequences that are put in order, first block first, lose their ends, though their
// beginnings were used longer ago.
func TestLeavesGoFirst(t *testing.T) {
	for _, how := range []string{EvictLRU, EvictHazard} {
		t.Run(how, func(t *testing.T) { testLeavesGoFirst(t, how) })
	}
}

func testLeavesGoFirst(t *testing.T, how string) {
	const slots = 256
	c := openTest(t, Config{Capacity: slots * PageSize, Classes: []int{PageSize}, SlabSize: 8 * PageSize, Eviction: how})
	const length = 20
	for s := range 200 {
		for i := range length {
			putChain(t, c, s, i)
		}
		if s%3 == 0 { // some are read again
			for i := length - 1; i >= 0; i-- {
				if v, err := c.View(chainKey(t, s, i)); err == nil {
					v.Release()
				}
			}
		}
		held := 0
		for past := range s + 1 {
			broken := false
			for i := range length {
				_, ok := c.Stat(chainKey(t, past, i))
				if ok && broken {
					t.Fatalf("after sequence %d: sequence %d has block %d without those before it", s, past, i)
				}
				broken = broken || !ok
				if ok {
					held++
				}
			}
		}
		if want := min((s+1)*length, slots); held != want {
			t.Fatalf("after sequence %d the cache holds %d blocks, want %d", s, held, want)
		}
	}
	if c.Stats().Evictions < 3000 {
		t.Fatalf("only %d evictions: the test tests nothing", c.Stats().Evictions)
	}
	checkInvariants(t, c)
}

// The owner's hints decide between blocks used nearly as long ago: one that has a copy
// goes, one that is needed stays as long as there is another.
func TestHintsDecide(t *testing.T) {
	for _, how := range []string{EvictLRU, EvictHazard} {
		t.Run(how, func(t *testing.T) {
			const slots = 32
			c := openTest(t, Config{Capacity: slots * PageSize, Classes: []int{PageSize}, SlabSize: slots * PageSize, Eviction: how})
			said := map[block.Key]tier.Hint{keyOf(0): tier.Needed, keyOf(2): tier.Copied}
			c.Advise(func(k block.Key) tier.Hint { return said[k] })
			for i := range slots {
				put(t, c, i, 64)
			}
			for i, want := range []int{2, 1, 3, 4} {
				if got := put(t, c, slots+i, 64); len(got) != 1 || how == EvictLRU && got[0] != keyOf(want) || got[0] == keyOf(0) {
					t.Errorf("put %d evicted %v, want %v", i, got, keyOf(want))
				}
			}
			for i := range slots {
				said[keyOf(i)], said[keyOf(slots+i)] = tier.Needed, tier.Needed
			}
			put(t, c, 2*slots, 64) // when all are needed one goes all the same
			checkInvariants(t, c)
		})
	}
}

// Eviction passes over what is pinned, takes a parent when every leaf is, and says
// that the cache is full only when all is.
func TestEvictionAndPins(t *testing.T) {
	for _, how := range []string{EvictLRU, EvictHazard} {
		t.Run(how, func(t *testing.T) { testEvictionAndPins(t, how) })
	}
}

func testEvictionAndPins(t *testing.T, how string) {
	const slots = 32
	c := openTest(t, Config{Capacity: slots * PageSize, Classes: []int{PageSize}, SlabSize: slots * PageSize, Eviction: how})
	for i := range slots {
		putChain(t, c, 1, i)
	}
	for i := 1; i < slots; i++ {
		if err := c.Pin(chainKey(t, 1, i)); err != nil {
			t.Fatal(err)
		}
	}
	putChain(t, c, 2, 0)
	if _, ok := c.Stat(chainKey(t, 1, 0)); ok {
		t.Error("the only block without a pin is still there")
	}
	if err := c.Pin(chainKey(t, 2, 0)); err != nil {
		t.Fatal(err)
	}
	key := chainKey(t, 3, 0)
	if _, err := c.Put(context.Background(), block.Describe(key, block.Key{}, content(key, 64)), content(key, 64)); !errors.Is(err, tier.ErrFull) {
		t.Errorf("a put into a cache of pinned blocks: %v, want ErrFull", err)
	}
	checkInvariants(t, c)
	c.Unpin(chainKey(t, 1, 9))
	putChain(t, c, 3, 0)
	if _, ok := c.Stat(chainKey(t, 1, 9)); ok {
		t.Error("the block that was let go is still there")
	}
	c.Delete(chainKey(t, 1, 10))
	checkInvariants(t, c)
}

func TestUnknownEviction(t *testing.T) {
	if err := (Config{Eviction: "mru"}).Validate(); err == nil {
		t.Error("it was accepted")
	}
}

func BenchmarkEviction(b *testing.B) {
	for _, how := range []string{EvictLRU, EvictHazard} {
		b.Run(how, func(b *testing.B) {
			const slots = 1 << 14
			c := openTest(b, Config{Capacity: slots * PageSize, Classes: []int{PageSize}, Eviction: how})
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				commit(b, c, i, 64, 0)
				i++
			}
		})
	}
}
