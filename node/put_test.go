package node

import (
	"context"
	"errors"
	"testing"

	"cairn/block"
	"cairn/coherency"
	"cairn/tier"
)

// leaving is a host tier in which something happens to a block just before it is pinned.
type leaving struct {
	tier.Memory
	before func()
}

func (l *leaving) PinExact(key block.Key) (uint64, error) {
	if f := l.before; f != nil {
		l.before = nil
		f()
	}
	return l.Memory.PinExact(key)
}

// A block that is put again, and leaves host memory or the node meanwhile, was there.
func TestPutOfABlockThatLeaves(t *testing.T) {
	tiers := testTiers{vram: 4 << 20, host: 4 << 20, disk: 16 << 20}.open(t)
	host := &leaving{Memory: tiers.Host}
	tiers.Host = host
	n, _ := newMemCluster().join(t, "n1", tiers, nil)
	again := func(before func()) {
		t.Helper()
		put(t, n, 1, coherency.WriteBack)
		if err := n.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		host.before = before
		placed, err := n.Put(t.Context(), key(1), block.Key{}, content(1, testBlock), coherency.WriteAll)
		if err != nil || !placed.Existed {
			t.Errorf("%+v, %v", placed, err)
		}
		if host.before != nil {
			t.Error("nothing happened meanwhile")
		}
	}
	again(func() { evict(n, block.Host, 1) })
	wantHeld(t, n, block.VRAM, 1, 2)
	wantHeld(t, n, block.Disk, 1, 2)
	again(func() { n.Remove(key(1)) })
	if n.Holds(key(1)) {
		t.Error("it has come back")
	}
	checkDirectory(t, n)
}

// hasty is a host tier in which something happens to a block just after it has become one.
type hasty struct {
	tier.Memory
	after func(block.Key)
}

type hastySlot struct {
	tier.Reservation
	h *hasty
}

func (h *hasty) Reserve(ctx context.Context, n int) (tier.Reservation, []block.Key, error) {
	r, evicted, err := h.Memory.Reserve(ctx, n)
	return hastySlot{r, h}, evicted, err
}

func (r hastySlot) Commit(d block.Descriptor, pins int) error {
	err := r.Reservation.Commit(d, pins)
	if f := r.h.after; f != nil && err == nil {
		r.h.after = nil
		f(d.Key)
	}
	return err
}

// A block that is put is not said to be where it is not.
func TestPutOfABlockThatIsEvictedAtOnce(t *testing.T) {
	tiers := testTiers{host: 4 << 20}.open(t)
	host := &hasty{Memory: tiers.Host}
	tiers.Host = host
	n, _ := newMemCluster().join(t, "n1", tiers, nil)
	host.after = func(key block.Key) {
		host.Delete(key) // for want of room
		n.evicted(block.Host, []block.Key{key})
	}
	put(t, n, 1, coherency.WriteBack)
	if n.Holds(key(1)) {
		t.Errorf("it is said to be in %v", n.Explain(key(1)).Here)
	}
	checkDirectory(t, n)
	put(t, n, 1, coherency.WriteBack)
	want(t, n, 1, Local)
}

// Nor is it left out where it is, when the block comes in another way meanwhile.
func TestPutOfABlockThatComesAnotherWay(t *testing.T) {
	for name, bytes := range map[string]int{"the same": 1, "other bytes": 2} {
		t.Run(name, func(t *testing.T) {
			tiers := testTiers{vram: 4 << 20, host: 4 << 20, disk: 16 << 20}.open(t)
			host := &hasty{Memory: tiers.Host}
			tiers.Host = host
			n, _ := newMemCluster().join(t, "n1", tiers, nil)
			host.after = func(key block.Key) { // a sequence brings it into GPU memory
				p := content(bytes, testBlock)
				d := block.Describe(key, block.Key{}, p)
				if _, err := tiers.VRAM.Put(t.Context(), d, p); err != nil {
					t.Error(err)
				}
				if err := n.enterCopy(d, block.VRAM); err != nil {
					t.Error(err)
				}
			}
			_, err := n.Put(t.Context(), key(1), block.Key{}, content(1, testBlock), coherency.WriteBack)
			if conflict := bytes != 1; errors.Is(err, tier.ErrConflict) != conflict || err != nil && !conflict {
				t.Error(err)
			}
			if err := n.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			nothingLeft(t, n)
		})
	}
}
