package hostcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"cairn/block"
	"cairn/tier"
)

// small holds eight blocks of one page.
var small = Config{Capacity: 8 * PageSize, SlabSize: 2 * PageSize, Classes: []int{PageSize}}

func TestDeletedBlockKeepsItsSlotWhileViewed(t *testing.T) {
	c := openTest(t, small)
	for i := range 8 {
		put(t, c, i, 100)
	}
	v, err := c.View(keyOf(3))
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.View(keyOf(3))
	if err != nil {
		t.Fatal(err)
	}
	if !c.Delete(keyOf(3)) || c.Delete(keyOf(3)) {
		t.Error("Delete must find the block once")
	}
	put(t, c, 3, 90) // the same key returns, in another slot
	for i := 8; i < 40; i++ {
		put(t, c, i, 100)
	}
	want := content(keyOf(3), 100)
	if !bytes.Equal(v.Bytes, want) {
		t.Error("a deleted block changed under its view")
	}
	v.Release()
	if put(t, c, 40, 100); !bytes.Equal(second.Bytes, want) {
		t.Error("a deleted block changed under its second view")
	}
	second.Release()
	if evicted := put(t, c, 41, 100); len(evicted) != 0 {
		t.Errorf("the slot of the deleted block was not free: %v evicted", evicted)
	}
	checkInvariants(t, c)
}

func TestSlotOfAnEarlierView(t *testing.T) {
	c := openTest(t, small)
	if _, ok := c.ViewSlot(0, keyOf(1)); ok {
		t.Error("an empty cache has a block")
	}
	put(t, c, 1, 100)
	first, err := c.View(keyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	slot := first.Slot()
	first.Release()
	again, ok := c.ViewSlot(slot, keyOf(1))
	if !ok || again.Slot() != slot || again.Descriptor != first.Descriptor || !bytes.Equal(again.Bytes, content(keyOf(1), 100)) {
		t.Fatalf("%v, %+v", ok, again.Descriptor)
	}
	if c.Stats().Hits != 2 {
		t.Error("it counts as a use")
	}
	for _, other := range []uint64{slot + 1, slot + 1<<32, slot + 1<<20, ^uint64(0)} {
		if _, ok := c.ViewSlot(other, keyOf(1)); ok {
			t.Errorf("block 1 is in slot %#x, and also in %#x", slot, other)
		}
	}
	if _, ok := c.ViewSlot(slot, keyOf(2)); ok {
		t.Error("another block is in the slot")
	}
	c.Delete(keyOf(1))
	if _, ok := c.ViewSlot(slot, keyOf(1)); ok {
		t.Error("a deleted block that is viewed was lent once more")
	}
	again.Release()
	put(t, c, 1, 100) // the same block in the same place
	if _, ok := c.ViewSlot(slot, keyOf(1)); ok {
		t.Error("a slot that was given to another block is told from the one before")
	}
	checkInvariants(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.ViewSlot(slot, keyOf(1)); ok {
		t.Error("a closed cache lends")
	}
}

func TestStaleReleaseIsIgnored(t *testing.T) {
	c := openTest(t, small)
	put(t, c, 0, 100)
	stale, err := c.View(keyOf(0))
	if err != nil {
		t.Fatal(err)
	}
	stale.Release()
	stale.Release()
	c.Delete(keyOf(0))
	put(t, c, 1, 100) // takes the slot and the entry
	v, err := c.View(keyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	stale.Release()
	if got := c.Stats().Pinned; got != 1 {
		t.Errorf("%d pinned after the release of another block's view, want 1", got)
	}
	v.Release()
	checkInvariants(t, c)
}

// TestPinnedBlockReturnsAsNewest: eviction passes over a pinned block once, and
// the block then ranks as used when its last pin went.
func TestPinnedBlockReturnsAsNewest(t *testing.T) {
	c := openTest(t, small)
	for i := range 8 {
		put(t, c, i, 100)
	}
	if err := c.Pin(keyOf(0)); err != nil {
		t.Fatal(err)
	}
	var got []block.Key
	got = append(got, put(t, c, 8, 100)...)
	c.Unpin(keyOf(0))
	for i := 9; i < 17; i++ {
		got = append(got, put(t, c, i, 100)...)
	}
	var want []block.Key
	for _, i := range []int{1, 2, 3, 4, 5, 6, 7, 8, 0} {
		want = append(want, keyOf(i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("evicted %v, want %v", got, want)
	}
	checkInvariants(t, c)
}

// TestEvictOnDemand: what is in use, or has followers, stays.
func TestEvictOnDemand(t *testing.T) {
	for _, by := range []string{EvictLRU, EvictHazard} {
		cfg := small
		cfg.Eviction = by
		c := openTest(t, cfg)
		for i := range 3 {
			put(t, c, i, 100)
		}
		if err := c.Pin(keyOf(1)); err != nil {
			t.Fatal(err)
		}
		v, err := c.View(keyOf(2))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{true, false, false, false} { // there is no 3
			if got := c.Evict(keyOf(i)); got != want {
				t.Errorf("%s: object %d evicted: %t, want %t", by, i, got, want)
			}
		}
		c.Unpin(keyOf(1))
		v.Release()
		for i := 1; i < 3; i++ {
			if !c.Evict(keyOf(i)) {
				t.Errorf("%s: object %d stays", by, i)
			}
		}
		if st := c.Stats(); st.Objects != 0 || st.Used != 0 || st.Evictions != 3 {
			t.Errorf("%s: %+v", by, st)
		}
		checkInvariants(t, c)
	}
}

func TestEverythingPinned(t *testing.T) {
	c := openTest(t, small)
	for i := range 8 {
		commit(t, c, i, 100, 1)
	}
	for range 3 {
		if _, _, err := c.Reserve(context.Background(), 100); !errors.Is(err, tier.ErrFull) {
			t.Fatalf("Reserve with everything pinned: %v", err)
		}
	}
	c.Unpin(keyOf(5))
	if got := put(t, c, 9, 100); !slices.Equal(got, []block.Key{keyOf(5)}) {
		t.Errorf("evicted %v, want the one that was let go", got)
	}
	checkInvariants(t, c)
}

func TestMaxPins(t *testing.T) {
	cfg := small
	cfg.MaxPins = 3
	c := openTest(t, cfg)
	commit(t, c, 0, 100, 2)
	v, err := c.View(keyOf(0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.View(keyOf(0)); !errors.Is(err, ErrPins) {
		t.Errorf("View beyond MaxPins: %v", err)
	}
	if err := c.Pin(keyOf(0)); !errors.Is(err, ErrPins) {
		t.Errorf("Pin beyond MaxPins: %v", err)
	}
	v.Release()
	if err := c.Pin(keyOf(0)); err != nil {
		t.Errorf("Pin after a release: %v", err)
	}
	r, _, err := c.Reserve(context.Background(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(block.Descriptor{Key: keyOf(1), Length: 100}, 4); !errors.Is(err, ErrPins) {
		t.Errorf("Commit with more than MaxPins: %v", err)
	}
	r.Abort()
	checkInvariants(t, c)
}

// TestBadCommitFreesTheSlot: whatever is wrong with a Commit, the slot is back.
func TestBadCommitFreesTheSlot(t *testing.T) {
	c := openTest(t, small)
	for name, commit := range map[string]func(tier.Reservation) error{
		"length": func(r tier.Reservation) error { return r.Commit(block.Descriptor{Length: 99}, 0) },
		"pins":   func(r tier.Reservation) error { return r.Commit(block.Descriptor{Length: 100}, -1) },
	} {
		r, _, err := c.Reserve(context.Background(), 100)
		if err != nil {
			t.Fatal(err)
		}
		if err := commit(r); err == nil {
			t.Errorf("bad %s was accepted", name)
		}
		if err := r.Commit(block.Descriptor{Length: 100}, 0); err == nil {
			t.Error("Commit of an ended reservation was accepted")
		}
		if used := c.Stats().Used; used != 0 {
			t.Errorf("bad %s: %d bytes are still used", name, used)
		}
	}
	if _, _, err := c.Reserve(context.Background(), -1); err == nil {
		t.Error("a negative length was accepted")
	}
	checkInvariants(t, c)
}

func TestViewsAndReservationsOutliveClose(t *testing.T) {
	c := openTest(t, small)
	put(t, c, 0, 100)
	v, err := c.View(keyOf(0))
	if err != nil {
		t.Fatal(err)
	}
	var rs []tier.Reservation
	for range 2 {
		r, _, err := c.Reserve(context.Background(), PageSize)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(v.Bytes, content(keyOf(0), 100)) {
		t.Error("the view changed with Close")
	}
	for _, r := range rs {
		clear(r.Bytes())
	}
	if err := rs[0].Commit(block.Descriptor{Key: keyOf(1), Length: PageSize}, 0); !errors.Is(err, tier.ErrClosed) {
		t.Errorf("Commit after Close: %v", err)
	}
	rs[1].Abort()
	if c.arena == nil {
		t.Error("unmapped under a view")
	}
	v.Release()
	if c.arena != nil {
		t.Error("still mapped after the last view")
	}
	v.Release() // a mistake, but no crash
}

// TestParallel: readers, writers and deleters on a cache far too small; every
// byte read must belong to its key.
func TestParallel(t *testing.T) {
	c := openTest(t, Config{Capacity: 2 << 20, SlabSize: 128 << 10})
	sizes := []int{0, 100, 4 << 10, 20 << 10, 64 << 10, 200 << 10}
	size := func(i int) int { return sizes[i%len(sizes)] }
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(6, uint64(worker)))
			dst := make([]byte, 200<<10)
			for range 3000 {
				if err := stir(c, rng, rng.IntN(300), size, dst); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	checkInvariants(t, c)
	if s := c.Stats(); s.Evictions == 0 || s.Hits == 0 || s.Pinned != 0 {
		t.Errorf("after the stress: %+v", s)
	}
}

// stir does one random thing to object i.
func stir(c *Cache, rng *rand.Rand, i int, size func(int) int, dst []byte) error {
	key := keyOf(i)
	want := content(key, size(i))
	d := block.Descriptor{Key: key, Length: uint32(len(want)), Sum: uint64(i)}
	switch rng.IntN(6) {
	case 0:
		_, err := c.Put(context.Background(), d, want)
		return unless(err, tier.ErrExists, tier.ErrFull)
	case 1:
		r, _, err := c.Reserve(context.Background(), len(want))
		if err != nil {
			return unless(err, tier.ErrFull)
		}
		copy(r.Bytes(), want)
		if rng.IntN(4) == 0 {
			r.Abort()
			return nil
		}
		if err := r.Commit(d, 1); err != nil {
			return unless(err, tier.ErrExists)
		}
		c.Unpin(key)
	case 2, 3:
		got, err := c.Get(context.Background(), key, dst)
		if err == nil && (got != d || !bytes.Equal(dst[:got.Length], want)) {
			return fmt.Errorf("Get of object %d: wrong bytes", i)
		}
		return unless(err, tier.ErrNotFound)
	case 4:
		v, err := c.View(key)
		if err != nil {
			return unless(err, tier.ErrNotFound)
		}
		defer v.Release()
		if v.Descriptor != d || !bytes.Equal(v.Bytes, want) {
			return fmt.Errorf("View of object %d: wrong bytes", i)
		}
	case 5:
		c.Delete(key)
	}
	return nil
}

func unless(err error, fine ...error) error {
	for _, f := range fine {
		if errors.Is(err, f) {
			return nil
		}
	}
	return err
}

// TestViewDoesNotAllocate: reading in place makes no garbage.
func TestViewDoesNotAllocate(t *testing.T) {
	c := openTest(t, Config{Capacity: 16 << 20})
	for i := range 1000 {
		commit(t, c, i, PageSize, 0)
	}
	i := 0
	allocs := testing.AllocsPerRun(20_000, func() {
		v, err := c.View(keyOf(i % 1000))
		if err != nil {
			t.Fatal(err)
		}
		v.Release()
		i++
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a view", allocs)
	}
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		want []string // each must be in the error; none: no error
	}{
		{"zero", Config{}, nil},
		{"one page", Config{Capacity: PageSize}, nil},
		{"1 MiB", Config{Capacity: 1 << 20}, nil},
		{"64 MiB", Config{Capacity: 64 << 20}, nil},
		{"1 TiB", Config{Capacity: 1 << 40}, nil},
		{"not whole slabs", Config{Capacity: 10 << 20, SlabSize: 3 << 20}, nil},
		{"negative", Config{Capacity: -1, SlabSize: -1, MaxPins: -1}, []string{"capacity -1", "slab size -1", "max pins -1"}},
		{"too much", Config{Capacity: MaxCapacity + 1}, []string{"capacity"}},
		{"slab", Config{Capacity: 1 << 20, SlabSize: 2 << 20}, []string{"slab size 2097152 exceeds capacity 1048576"}},
		{"classes", Config{Capacity: 1 << 20, Classes: []int{0, 4096, 4096, 5000, 2 << 20, 1 << 30}},
			[]string{"class 0", "class 4096 follows 4096", "class 5000", "class 2097152 exceeds", "class 1073741824"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.cfg.Validate()
			if tc.want == nil && err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v lacks %q", err, want)
				}
			}
			if c, openErr := Open(tc.cfg); (openErr == nil) != (err == nil) {
				t.Errorf("Validate says %v, Open %v", err, openErr)
			} else if openErr == nil {
				c.Close()
			}
		})
	}
}

// TestMemoryGrowsWithUse: the kernel has given the arena no page that nobody
// wrote, unless asked to; and what it does about huge pages is reported.
func TestMemoryGrowsWithUse(t *testing.T) {
	const capacity = 32 << 20
	var log bytes.Buffer
	cfg := Config{Capacity: capacity, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	lazy := openTest(t, cfg)
	if got := resident(t, lazy); got != 0 {
		t.Errorf("%d bytes are resident in an empty cache", got)
	}
	put(t, lazy, 0, PageSize)
	if got := resident(t, lazy); got < PageSize || got > 4<<20 { // a huge page at most
		t.Errorf("%d bytes are resident for one page", got)
	}
	cfg.Prefault = true
	if got := resident(t, openTest(t, cfg)); got < capacity {
		t.Errorf("%d bytes are resident of %d prefaulted", got, capacity)
	}
	for _, want := range []string{"host arena mapped", "bytes=33554432", "huge_pages="} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, log.String())
		}
	}
}

func resident(t *testing.T, c *Cache) int64 {
	var st unix.Stat_t
	if err := unix.Fstat(c.arena.fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}
