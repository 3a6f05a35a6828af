package node

import (
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
