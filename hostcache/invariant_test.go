package hostcache

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"cairn/block"
	"cairn/tier"
)

// checkOrders compares what each class's order counts with the entries that say
// that they are in it.
func checkOrders(t *testing.T, c *Cache) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	live := map[*class]int{}
	runs := func(cl *class) *recency { return cl.order.(exactOrder).recency }
	for _, id := range c.index {
		if e := c.entries.at(id); e.run != 0 {
			cl := c.slabs.spans[e.span].class
			live[cl]++
			in, ok := runs(cl).runs.Peek(e.run)
			if !ok || int(e.pos) >= len(in.ids) || in.ids[e.pos] != id || int(e.pos) < in.head {
				t.Fatalf("entry %d says that it is in run %d at %d; the run does not", id, e.run, e.pos)
			}
		}
	}
	for _, cl := range c.classes {
		inRuns := 0
		for _, in := range runs(cl).runs.Values() {
			inRuns += in.live
		}
		if runs(cl).live != live[cl] || inRuns != live[cl] {
			t.Fatalf("class %d: the order counts %d, its runs %d, and %d entries are in it", cl.size, runs(cl).live, inRuns, live[cl])
		}
	}
}

// Entries move between classes as slabs do. An entry that has left one class's order
// and come into another's must not be taken for one of the first, wherever it
// stands there: that emptied an order that still counted it, and the search for
// its oldest entry never ended.
func TestOrdersOfClassesAreApart(t *testing.T) {
	for name, check := range map[string]func(*testing.T, *Cache){
		EvictLRU: checkOrders, EvictHazard: func(t *testing.T, c *Cache) { checkInvariants(t, c) },
	} {
		t.Run(name, func(t *testing.T) { testOrdersApart(t, name, check) })
	}
}

func testOrdersApart(t *testing.T, eviction string, check func(*testing.T, *Cache)) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 15 {
		c := openTest(t, Config{Capacity: 2 << 20, SlabSize: 128 << 10, Classes: []int{4 << 10, 64 << 10}, Eviction: eviction})
		var pinned []block.Key
		for op := range 600 {
			length := 1 + rng.IntN(4<<10)
			if rng.IntN(3) > 0 {
				length = 4<<10 + 1 + rng.IntN(60<<10)
			}
			k := keyOf(op)
			switch r := rng.IntN(10); {
			case r < 6:
				if _, err := c.Put(context.Background(), block.Describe(k, block.Key{}, content(k, length)), content(k, length)); err != nil && !errors.Is(err, tier.ErrFull) {
					t.Fatal(err)
				}
				if r < 2 && c.Pin(k) == nil {
					pinned = append(pinned, k)
				}
			case r < 7:
				c.Delete(keyOf(rng.IntN(op + 1)))
			case r < 9 && len(pinned) > 0:
				i := rng.IntN(len(pinned))
				c.Unpin(pinned[i])
				pinned[i] = pinned[len(pinned)-1]
				pinned = pinned[:len(pinned)-1]
			default:
				if v, err := c.View(keyOf(rng.IntN(op + 1))); err == nil {
					v.Release()
				}
			}
			check(t, c)
		}
		c.Close()
	}
}
