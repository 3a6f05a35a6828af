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
	for _, id := range c.index {
		if e := c.entries.at(id); e.run != 0 {
			cl := c.slabs.spans[e.span].class
			live[cl]++
			in, ok := cl.order.runs.Peek(e.run)
			if !ok || int(e.pos) >= len(in.ids) || in.ids[e.pos] != id || int(e.pos) < in.head {
				t.Fatalf("entry %d says that it is in run %d at %d; the run does not", id, e.run, e.pos)
			}
		}
	}
	for _, cl := range c.classes {
		inRuns := 0
		for _, in := range cl.order.runs.Values() {
			inRuns += in.live
		}
		if cl.order.live != live[cl] || inRuns != live[cl] {
			t.Fatalf("class %d: the order counts %d, its runs %d, and %d entries are in it", cl.size, cl.order.live, inRuns, live[cl])
		}
	}
}

// Entries move between classes as slabs do. An entry that has left one class's order
// and come into another's must not be taken for one of the first, wherever it
// stands there: that emptied an order that still counted it, and the search for
// its oldest entry never ended.
func TestOrdersOfClassesAreApart(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 15 {
		c := openTest(t, Config{Capacity: 2 << 20, SlabSize: 128 << 10, Classes: []int{4 << 10, 64 << 10}})
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
			checkOrders(t, c)
		}
		c.Close()
	}
}
