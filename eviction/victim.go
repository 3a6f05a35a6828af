package eviction

import "time"

// Victim implements Policy.
func (h *Hazard) Victim(groupID int, now time.Duration) (id uint32, ok bool) {
	if groupID >= len(h.groups) || h.groups[groupID].eligible == 0 {
		return 0, false
	}
	g := &h.groups[groupID]
	best, second := candidate{}, candidate{}
	consider := func(id uint32) {
		c := h.candidate(id, now)
		switch {
		case best.ok && id == best.id:
		case c.before(&best):
			best, second = c, best
		case c.before(&second):
			second = c
		}
	}
	for _, key := range g.kept {
		if id, ok := h.ids[key]; ok {
			if e := h.entries.at(id); e.leaf != 0 && int(e.group) == groupID {
				consider(id)
			}
		}
	}
	switch {
	case len(g.leaves) == 0:
		h.anyBlocks(groupID, consider)
	case len(g.leaves) <= h.cfg.Samples:
		for _, id := range g.leaves {
			consider(id)
		}
	default:
		for range h.cfg.Samples {
			consider(g.leaves[h.rng.IntN(len(g.leaves))])
		}
	}
	g.kept[1] = 0
	if second.ok {
		g.kept[1] = h.entries.at(second.id).key
	}
	return best.id, true
}

// anyBlocks finds a few blocks that are not parked in a group whose leaves all are.
func (h *Hazard) anyBlocks(groupID int, consider func(uint32)) {
	left := h.cfg.Samples
	for range h.entries.len() {
		h.search++
		if int(h.search) >= h.entries.len() {
			h.search = 0
		}
		if e := h.entries.at(h.search); e.key != 0 && int(e.group) == groupID && e.flags&parked == 0 {
			consider(h.search)
			if left--; left == 0 {
				return
			}
		}
	}
}

// candidate is a block that may be the victim.
type candidate struct {
	id    uint32
	ok    bool
	fresh bool
	value float32
	at    time.Duration
}

func (h *Hazard) candidate(id uint32, now time.Duration) candidate {
	e := h.entries.at(id)
	idle := now - e.at
	c := candidate{id: id, ok: true, fresh: idle < h.cfg.Guard, at: e.at, value: h.learner.value[e.spell.class][bucketOf(idle)]}
	if e.flags&copied != 0 {
		c.value *= float32(h.cfg.CopyWeight)
	}
	return c
}

// before tells whether c should go rather than d. Among the fresh, and between
// equals, that is the one used longest ago.
func (c *candidate) before(d *candidate) bool {
	switch {
	case !d.ok:
		return true
	case c.fresh != d.fresh:
		return d.fresh
	case c.fresh || c.value == d.value:
		return c.at < d.at
	}
	return c.value < d.value
}
