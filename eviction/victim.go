package eviction

import (
	"time"

	"cairn/tier"
)

// Victim implements Policy.
func (h *Hazard) Victim(groupID int, now time.Duration) (id uint32, ok bool) {
	if groupID >= len(h.groups) || h.groups[groupID].eligible == 0 {
		return 0, false
	}
	g := &h.groups[groupID]
	best, second := candidate{}, candidate{}
	consider := func(id uint32) {
		c := h.candidate(id, now)
		if c.mayPrecede(&best, h.cfg.CopyWeight) {
			c.hear(h.cfg.Hint(id), h.cfg.CopyWeight)
		}
		switch {
		case best.ok && id == best.id:
		case c.before(&best):
			best, second = c, best
		case c.before(&second):
			second = c
		}
	}
	for _, key := range g.kept {
		if id, ok := h.family.ids[key]; ok {
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
	return best.id, best.ok
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
	id     uint32
	ok     bool
	fresh  bool
	needed bool
	value  float32
	at     time.Duration
}

func (h *Hazard) candidate(id uint32, now time.Duration) candidate {
	e := h.entries.at(id)
	idle := now - e.at
	return candidate{id: id, ok: true, fresh: idle < h.cfg.Guard, at: e.at, value: h.learner.value[e.spell.class][bucketOf(idle)]}
}

// mayPrecede tells whether c may turn out to be one that goes before best: whether it is
// worth asking for a hint.
func (c *candidate) mayPrecede(best *candidate, copyWeight float64) bool {
	return !best.ok || best.fresh || best.needed || !c.fresh && c.value*float32(copyWeight) <= best.value
}

// hear takes a hint into account.
func (c *candidate) hear(hint tier.Hint, copyWeight float64) {
	if hint&tier.Copied != 0 {
		c.value *= float32(copyWeight)
	}
	c.needed = hint&tier.Needed != 0
}

// before tells whether c should go rather than d. What is needed goes last. Among the
// fresh, and between equals, the one used longest ago goes first.
func (c *candidate) before(d *candidate) bool {
	switch {
	case !d.ok:
		return true
	case c.needed != d.needed:
		return d.needed
	case c.fresh != d.fresh:
		return d.fresh
	case c.fresh || c.value == d.value:
		return c.at < d.at
	}
	return c.value < d.value
}
