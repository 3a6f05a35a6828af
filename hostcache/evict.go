package hostcache

import (
	"cairn/block"
	"cairn/tier"
)

// takeLocked gives n bytes a slot, evicting what it must. The entry is reserved
// and counted in slots.
func (c *Cache) takeLocked(n int) (id uint32, evicted []block.Key, err error) {
	cl, err := c.classOf(n)
	if err != nil {
		return 0, nil, err
	}
	for cl.partial == noSpan {
		if evicted, err = c.makeRoomLocked(cl, evicted); err != nil {
			return 0, evicted, err
		}
	}
	id = c.entries.take()
	e := c.entries.at(id)
	e.span, e.slot, _ = c.slabs.takeSlot(cl, id)
	e.Length, e.state = uint32(n), reserved
	c.slabs.spans[e.span].held++
	c.stats.Used += int64(cl.size)
	c.slots++
	return id, evicted, nil
}

// makeRoomLocked takes one step towards a free slot in cl, or says that there is
// none. The rule is in the package comment.
func (c *Cache) makeRoomLocked(cl *class, evicted []block.Key) ([]block.Key, error) {
	if cl.failedAt != c.slabs.frees+1 {
		if first, ok := c.slabs.findFree(cl.spanLen); ok {
			c.slabs.carve(cl, first, cl.spanLen)
			return evicted, nil
		}
		cl.failedAt = c.slabs.frees + 1
	}
	own, ok := c.victimLocked(cl)
	if ok && cl.credit > 0 {
		cl.credit--
		return c.evictLocked(own, evicted), nil
	}
	w, found := c.slabs.oldestWindow(cl.spanLen, cl, c.tick)
	if ok && (!found || w.age <= c.ageLocked(cl, own)) {
		cl.credit = cl.spanLen*c.slabs.size/cl.size - 1
		return c.evictLocked(own, evicted), nil
	}
	if found {
		return c.stealLocked(cl, w.first, cl.spanLen, evicted), nil
	}
	if cl.shortest < cl.spanLen {
		w, found = c.slabs.oldestWindow(cl.shortest, cl, c.tick)
	}
	if found {
		return c.stealLocked(cl, w.first, cl.shortest, evicted), nil
	}
	return evicted, tier.ErrFull
}

// ageLocked is the age of the oldest entry of cl: that of own, the one to evict next,
// if entries go in the order of use, and else twice the mean.
func (c *Cache) ageLocked(cl *class, own uint32) float64 {
	if _, exact := cl.order.(exactOrder); exact {
		return float64(c.tick - c.entries.at(own).tick)
	}
	return 2 * (float64(c.tick) - float64(cl.tickSum)/float64(cl.present))
}

// victimLocked is the entry of cl to evict next. Held entries that it meets leave
// the order until they are let go.
func (c *Cache) victimLocked(cl *class) (id uint32, ok bool) {
	for {
		id, ok = cl.order.victim()
		if !ok || !c.entries.at(id).held() {
			return id, ok
		}
		cl.order.park(id)
	}
}

// stealLocked evicts every block in n slabs and gives the slabs to cl.
func (c *Cache) stealLocked(cl *class, first, n int, evicted []block.Key) []block.Key {
	for i := first; i < first+n; i++ {
		if c.slabs.owner[i] == 0 {
			continue
		}
		sp := &c.slabs.spans[c.slabs.owner[i]-1]
		ids := sp.ids
		for _, id := range ids {
			if id&freeSlot == 0 {
				evicted = c.evictLocked(id, evicted)
			}
		}
	}
	c.slabs.carve(cl, first, n)
	return evicted
}
