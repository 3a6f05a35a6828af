package hostcache

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"testing"

	"cairn/block"
)

func openTest(t testing.TB, cfg Config) *Cache {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

func keyOf(i int) block.Key {
	var k block.Key
	binary.BigEndian.PutUint64(k[4:], uint64(i)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint32(k[12:], uint32(i))
	return k
}

// content is what the tests store under key: n bytes that no other key has.
func content(key block.Key, n int) []byte {
	return bytes.Repeat(key[4:], n/12+1)[:n]
}

// put stores n bytes as object i and returns what was evicted.
func put(t testing.TB, c *Cache, i, n int) []block.Key {
	t.Helper()
	p := content(keyOf(i), n)
	evicted, err := c.Put(context.Background(), block.Describe(keyOf(i), block.Key{}, p), p)
	if err != nil {
		t.Fatalf("Put of object %d, %d bytes: %v", i, n, err)
	}
	return evicted
}

// commit stores object i of n bytes without touching its memory.
func commit(t testing.TB, c *Cache, i, n, pins int) {
	t.Helper()
	r, _, err := c.Reserve(context.Background(), n)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(block.Descriptor{Key: keyOf(i), Length: uint32(n)}, pins); err != nil {
		t.Fatal(err)
	}
}

// checkInvariants compares every sum and list that the cache keeps with what they
// are made of.
func checkInvariants(t testing.TB, c *Cache) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slabs
	free, used := 0, int64(0)
	partial, live := map[*class]int{}, map[*class]int{}
	for i := 0; i < len(s.owner); {
		if s.owner[i] == 0 {
			free++
			i++
			continue
		}
		sp := &s.spans[i]
		if int(s.owner[i]) != i+1 || sp.class == nil || sp.used == 0 {
			t.Fatalf("slab %d: owner %d, span %+v", i, s.owner[i], sp)
		}
		if sp.listed {
			partial[sp.class]++
		}
		checkSpan(t, c, uint32(i), sp, live)
		used += int64(sp.used) * int64(sp.class.size)
		i += sp.slabs
	}
	if free != s.free || used != c.stats.Used {
		t.Fatalf("%d slabs are free, want %d; %d bytes used, want %d", free, s.free, used, c.stats.Used)
	}
	present, ticks := map[*class]int{}, map[*class]uint64{}
	for _, id := range c.index {
		e := c.entries.at(id)
		cl := s.spans[e.span].class
		present[cl]++
		ticks[cl] += e.tick
	}
	for _, cl := range c.classes {
		listed := 0
		for at := cl.partial; at != noSpan; at = s.spans[at].to {
			listed++
		}
		if listed != partial[cl] {
			t.Fatalf("class %d: %d spans listed, want %d", cl.size, listed, partial[cl])
		}
		if o, exact := cl.order.(exactOrder); exact && o.live+o.aside.live != live[cl] {
			t.Fatalf("class %d: %d in order and %d aside, want %d", cl.size, o.live, o.aside.live, live[cl])
		}
		if present[cl] != cl.present || ticks[cl] != cl.tickSum {
			t.Fatalf("class %d: %d present with ticks %d; it says %d, %d", cl.size, present[cl], ticks[cl], cl.present, cl.tickSum)
		}
	}
	if o, exact := c.classes[0].order.(exactOrder); exact {
		checkChildren(t, c, o.leaves)
	}
	if o, ok := c.classes[0].order.(valueOrder); ok && o.policy.Len() != len(c.index) {
		t.Fatalf("the policy counts %d blocks, %d are present", o.policy.Len(), len(c.index))
	}
}

// checkChildren counts who follows whom.
func checkChildren(t testing.TB, c *Cache, l *leaves) {
	t.Helper()
	children := map[block.Key]uint32{}
	for _, id := range c.index {
		if key, ok := parentOf(&c.entries.at(id).Descriptor); ok {
			children[key]++
		}
	}
	for key, id := range c.index {
		e := c.entries.at(id)
		if e.children != children[key] || e.aside && (e.children == 0 || e.run == 0) {
			t.Fatalf("%s says that %d blocks follow it, want %d; it is aside: %v", key, e.children, children[key], e.aside)
		}
		delete(children, key)
	}
	if !maps.Equal(children, l.waiting) {
		t.Fatalf("%d parents that are not here have children, want %d", len(l.waiting), len(children))
	}
}

func checkSpan(t testing.TB, c *Cache, at uint32, sp *span, live map[*class]int) {
	t.Helper()
	used, held, ticks := 0, 0, uint64(0)
	for slot, id := range sp.ids {
		if id&freeSlot != 0 {
			continue
		}
		e := c.entries.at(id)
		if e.span != at || int(e.slot) != slot || e.state == vacant {
			t.Fatalf("entry %d is at %d/%d in state %d, found at %d/%d", id, e.span, e.slot, e.state, at, slot)
		}
		used++
		if e.state != present || e.held() {
			held++
		}
		if e.state == present {
			ticks += e.tick
			if e.run != 0 {
				live[sp.class]++
			}
		}
	}
	if used != sp.used || held != sp.held || ticks != sp.tickSum || sp.listed != (sp.free != noSlot) {
		t.Fatalf("span %d: used %d, held %d, ticks %d; it says %+v", at, used, held, ticks, sp)
	}
}
