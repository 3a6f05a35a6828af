package hostcache

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"cairn/block"
	"cairn/internal/testseed"
	"cairn/tier"
)

// checkOrders compares what each class's order counts with the entries that say
// that they are in it.
func checkOrders(t *testing.T, c *Cache) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	live := map[*recency]int{}
	for _, id := range c.index {
		if e := c.entries.at(id); e.run != 0 {
			o := c.orderLocked(id).(exactOrder)
			of := o.recency
			if e.aside {
				of = o.aside
			}
			live[of]++
			in, ok := of.runs.Peek(e.run)
			if !ok || int(e.pos) >= len(in.ids) || in.ids[e.pos] != id || int(e.pos) < in.head {
				t.Fatalf("entry %d says that it is in run %d at %d; the run does not", id, e.run, e.pos)
			}
		}
	}
	for _, cl := range c.classes {
		o := cl.order.(exactOrder)
		for _, of := range []*recency{o.recency, o.aside} {
			inRuns := 0
			for _, in := range of.runs.Values() {
				inRuns += in.live
			}
			if of.live != live[of] || inRuns != live[of] {
				t.Fatalf("class %d: the order counts %d, its runs %d, and %d entries are in it", cl.size, of.live, inRuns, live[of])
			}
		}
	}
}

// Entries move between classes as slabs do. An entry that has left one class's order
// and come into another's must not be taken for one of the first, wherever it
// stands there: that emptied an order that still counted it, and the search for
// its oldest entry never ended.
func TestOrdersOfClassesAreApart(t *testing.T) {
	for name, check := range map[string]func(*testing.T, *Cache){
		EvictLRU:    func(t *testing.T, c *Cache) { checkOrders(t, c); checkInvariants(t, c) },
		EvictHazard: func(t *testing.T, c *Cache) { checkInvariants(t, c) },
	} {
		t.Run(name, func(t *testing.T) { testOrdersApart(t, name, check) })
	}
}

// treeKey is the key of block i of a tree in which each block has up to three children,
// and that of its parent.
func treeKey(t testing.TB, i int) (key, parent block.Key) {
	at := func(i int) block.Key {
		depth := 0
		for j := i; j > 0; j = (j - 1) / 3 {
			depth++
		}
		return chainKey(t, i, depth)
	}
	if i > 0 {
		parent = at((i - 1) / 3)
	}
	return at(i), parent
}

func testOrdersApart(t *testing.T, eviction string, check func(*testing.T, *Cache)) {
	seed := testseed.Of(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 15 {
		c := openTest(t, Config{Capacity: 2 << 20, SlabSize: 128 << 10, Classes: []int{4 << 10, 64 << 10}, Eviction: eviction})
		c.Advise(func(k block.Key) tier.Hint { return tier.Hint(k.Hash64() % 4) })
		var pinned []block.Key
		for op := range 600 {
			length := 1 + rng.IntN(4<<10)
			if rng.IntN(3) > 0 {
				length = 4<<10 + 1 + rng.IntN(60<<10)
			}
			// Trees of sequences, of which any part comes and goes in any order.
			k, parent := treeKey(t, rng.IntN(op+1))
			switch r := rng.IntN(10); {
			case r < 6:
				if _, err := c.Put(context.Background(), block.Describe(k, parent, content(k, length)), content(k, length)); err != nil &&
					!errors.Is(err, tier.ErrFull) && !errors.Is(err, tier.ErrExists) && !errors.Is(err, tier.ErrConflict) {
					t.Fatal(err)
				}
				if r < 2 && c.Pin(k) == nil {
					pinned = append(pinned, k)
				}
			case r < 7:
				c.Delete(k)
			case r < 9 && len(pinned) > 0:
				i := rng.IntN(len(pinned))
				c.Unpin(pinned[i])
				pinned[i] = pinned[len(pinned)-1]
				pinned = pinned[:len(pinned)-1]
			default:
				if v, err := c.View(k); err == nil {
					v.Release()
				}
			}
			check(t, c)
		}
		c.Close()
	}
}
