package vram

import (
	"cairn/block"
	"cairn/eviction"
	"cairn/tier"
)

var _ tier.Foreseer = (*Pool)(nil)

// Candidates implements [tier.Foreseer]. Classes take turns, as any of them may need room
// next. A run that goes over to another class as a whole is not foreseen.
func (p *Pool) Candidates(most int) []block.Descriptor {
	p.mu.Lock()
	defer p.mu.Unlock()
	policy, ok := p.slab.policy.(eviction.Foreseer)
	if !ok || most < 1 || p.readyLocked() != nil {
		return nil
	}
	var lists [][]uint32
	left := 0
	for c := range p.slab.classes {
		if p.slab.classes[c].idle > 0 {
			ids := policy.Next(c, most, p.slab.now())
			lists = append(lists, ids)
			left += len(ids)
		}
	}
	next := make([]block.Descriptor, 0, min(most, left))
	for round := 0; len(next) < cap(next); round++ {
		for _, ids := range lists {
			if round < len(ids) && len(next) < cap(next) {
				next = append(next, p.slab.slot(p.slab.refs[ids[round]]).d)
			}
		}
	}
	return next
}

// Yield implements [tier.Foreseer].
func (p *Pool) Yield(key block.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readyLocked() != nil {
		return false
	}
	r, sl := p.slab.find(key)
	if sl == nil || !sl.idle() {
		return false
	}
	p.slab.evict(r)
	return true
}
