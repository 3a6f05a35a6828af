package vram

import (
	"cairn/block"
	"cairn/tier"
)

// This file holds the calls that move no bytes.

// Stat implements [tier.Store].
func (p *Pool) Stat(key block.Key) (block.Descriptor, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readyLocked() != nil {
		return block.Descriptor{}, false
	}
	_, sl := p.slab.find(key)
	if sl == nil {
		return block.Descriptor{}, false
	}
	return sl.d, true
}

// Delete implements [tier.Store].
func (p *Pool) Delete(key block.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readyLocked() != nil {
		return false
	}
	r, sl := p.slab.find(key)
	if sl == nil {
		return false
	}
	p.slab.drop(r)
	p.slab.stats.Deletes++
	return true
}

// allBatch is how many descriptors All copies in one go.
const allBatch = 1 << 10

// All implements [tier.Store]. It goes through the arena, and no lock is held
// while yield runs.
func (p *Pool) All(yield func(block.Descriptor) bool) {
	batch := make([]block.Descriptor, 0, allBatch)
	for next := ref(0); next != noRef; {
		batch, next = p.batch(batch[:0], next)
		for _, d := range batch {
			if !yield(d) {
				return
			}
		}
	}
}

// batch appends the live objects from place next on, and says where to go on.
func (p *Pool) batch(to []block.Descriptor, next ref) ([]block.Descriptor, ref) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readyLocked() != nil {
		return to, noRef
	}
	place := next.place()
	for i := next.run(); i < len(p.slab.runs); i++ {
		ru := &p.slab.runs[i]
		for ; ru.taken > 0 && place < len(ru.slots); place++ {
			if len(to) == cap(to) {
				return to, slotRef(i, place)
			}
			if sl := &ru.slots[place]; sl.state == live {
				to = append(to, sl.d)
			}
		}
		place = 0
	}
	return to, noRef
}

// Pin implements [tier.Pinner].
func (p *Pool) Pin(key block.Key) error {
	_, err := p.PinExact(key)
	return err
}

// PinExact implements [tier.Pinner].
func (p *Pool) PinExact(key block.Key) (object uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.readyLocked(); err != nil {
		return 0, wrap("pin", key, err)
	}
	r, sl := p.slab.find(key)
	if sl == nil {
		return 0, wrap("pin", key, tier.ErrNotFound)
	}
	p.slab.pin(r)
	return sl.birth, nil
}

// Unpin implements [tier.Pinner].
func (p *Pool) Unpin(key block.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readyLocked() != nil {
		return
	}
	if r, sl := p.slab.find(key); sl != nil {
		p.slab.unpin(r)
	}
}

// UnpinExact implements [tier.Pinner].
func (p *Pool) UnpinExact(key block.Key, object uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readyLocked() != nil {
		return
	}
	if r, sl := p.slab.find(key); sl != nil && sl.birth == object {
		p.slab.unpin(r)
	}
}

// Advise implements [tier.Advised].
func (p *Pool) Advise(ask func(block.Key) tier.Hint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slab.ask = ask
}

// Stats implements [tier.Store]. Pinned counts what is pinned, viewed or being
// copied out; Used includes slots that are being filled.
func (p *Pool) Stats() tier.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.slab.stats
	s.Hits, s.Misses, s.Errors = p.hits, p.misses, p.errs
	return s
}
