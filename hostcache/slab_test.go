package hostcache

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"cairn/block"
	"cairn/tier"
)

// TestUtilisation: a mix of sizes that shifts from phase to phase must not
// strand memory in the sizes of the past.
func TestUtilisation(t *testing.T) {
	const capacity = 1 << 30
	sizes := []int{64 << 10, 192 << 10, 512 << 10, 1 << 20, 2 << 20, 5 << 20, 8 << 20}
	c := openTest(t, Config{Capacity: capacity})
	rng := rand.New(rand.NewPCG(4, 5))
	sum, samples, least := 0.0, 0, 1.0
	object, written := 0, 0
	for phase := range 12 {
		// Two sizes dominate each phase by bytes; the others trickle on.
		first, second := sizes[phase%len(sizes)], sizes[(phase*3+1)%len(sizes)]
		for in := 0; in < 3*capacity; {
			n := first
			switch p := rng.IntN(100); {
			case p < 10:
				n = sizes[rng.IntN(len(sizes))]
			case p < 50:
				n = second
			}
			commit(t, c, object, n, 0)
			object++
			in += n
			written += n
			if written > 2*capacity && object%16 == 0 {
				u := float64(c.Stats().Bytes) / capacity
				sum, samples, least = sum+u, samples+1, min(least, u)
			}
		}
		checkInvariants(t, c)
	}
	mean := sum / float64(samples)
	t.Logf("utilisation: mean %.1f %%, least %.1f %%, %d blocks", 100*mean, 100*least, object)
	if mean < 0.93 || least < 0.85 {
		t.Errorf("utilisation: mean %.3f, least %.3f; want 0.93 and 0.85", mean, least)
	}
}

// TestMemoryFollowsDemand: after a shift from one size to another, the new one
// gets nearly all the memory.
func TestMemoryFollowsDemand(t *testing.T) {
	const capacity, small, large = 64 << 20, 64 << 10, 5 << 20
	c := openTest(t, Config{Capacity: capacity})
	for _, size := range []int{small, large, small, 32 << 20, small} {
		for in := 0; in < 4*capacity; in += size {
			commit(t, c, in/size+size<<20, size, 0)
		}
		newest := int64(0)
		c.All(func(d block.Descriptor) bool {
			if int(d.Length) == size {
				newest += int64(size)
			}
			return true
		})
		if newest < capacity*85/100 {
			t.Errorf("after a shift to %d bytes they hold %d of %d", size, newest, capacity)
		}
		checkInvariants(t, c)
		for in := 0; in < 4*capacity; in += size { // make the keys free again
			c.Delete(keyOf(in/size + size<<20))
		}
	}
}

// TestHotBlocksSurviveStealing: a flood of one size does not take the slabs of
// blocks of another size that are used all the time.
func TestHotBlocksSurviveStealing(t *testing.T) {
	const capacity, hot, flood = 64 << 20, 64 << 10, 512 << 10
	c := openTest(t, Config{Capacity: capacity})
	const blocks = capacity / 4 / hot
	for i := range blocks {
		commit(t, c, i, hot, 0)
	}
	for i := range 16 * capacity / flood {
		commit(t, c, 1<<20+i, flood, 0)
		for j := range 16 {
			if v, err := c.View(keyOf((16*i + j) % blocks)); err == nil {
				v.Release()
			}
		}
	}
	left := 0
	for i := range blocks {
		if _, ok := c.Stat(keyOf(i)); ok {
			left++
		}
	}
	if left != blocks {
		t.Errorf("%d of %d hot blocks left", left, blocks)
	}
}

// TestSpanLengths: a span wastes at most an eighth of its slabs (7 MiB does),
// and mostly less than a sixteenth.
func TestSpanLengths(t *testing.T) {
	s := newSlabs(1024, DefaultSlabSize)
	for _, size := range DefaultClasses() {
		c := s.newClass(size, nil)
		total := c.spanLen * s.size
		if waste := float64(total%size) / float64(total); waste > 0.125 {
			t.Errorf("class %d: %d slabs waste %.0f %%", size, c.spanLen, 100*waste)
		}
		if c.shortest*s.size < size || (c.shortest-1)*s.size >= size {
			t.Errorf("class %d: shortest span is %d slabs", size, c.shortest)
		}
	}
}

// TestShortSpan: where pins leave no room for a span of the preferred length, a
// shorter one serves.
func TestShortSpan(t *testing.T) {
	c := openTest(t, Config{Capacity: 8 << 20, SlabSize: 1 << 20, Classes: []int{640 << 10, 1 << 20}})
	if got := c.classes[0].spanLen; got != 2 {
		t.Fatalf("preferred span is %d slabs, want 2", got)
	}
	for i := range 8 {
		commit(t, c, i, 1<<20, 1)
	}
	c.Unpin(keyOf(4))
	commit(t, c, 100, 640<<10, 0)
	if _, ok := c.Stat(keyOf(4)); ok {
		t.Error("the only block that could go is there")
	}
	if _, _, err := c.Reserve(context.Background(), 1<<20+1); !errors.Is(err, tier.ErrTooLarge) {
		t.Errorf("more than the largest class: %v, want ErrTooLarge", err)
	}
	checkInvariants(t, c)
}
