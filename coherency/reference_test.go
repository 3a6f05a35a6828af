package coherency

import (
	"fmt"

	"cairn/block"
)

// reference is what the reference implementation of multi-tier coherency does,
// restated: masks set by hand, no versions, no copies.
type reference struct {
	valid, dirty block.TierMask
	owner        block.Tier // noOwner when none
	home         block.Tier
}

func newReference(at, home block.Tier) reference {
	return reference{valid: block.MaskOf(at), owner: at, home: home}
}

func (r *reference) write(t block.Tier, p WritePolicy) {
	switch p {
	case WriteBack:
		r.valid, r.dirty = block.MaskOf(t), block.MaskOf(t)
	case WriteThrough:
		r.valid, r.dirty = block.MaskOf(t, r.home), 0
	case WriteAll:
		r.valid, r.dirty = r.valid.With(t), 0
	}
	r.owner = t
}

func (r *reference) markSynced(t block.Tier) {
	r.valid, r.dirty = r.valid.With(t), r.dirty.Without(t)
}

func (r *reference) invalidate(t block.Tier) {
	r.valid, r.dirty = r.valid.Without(t), r.dirty.Without(t)
	if r.owner != t {
		return
	}
	r.owner = noOwner
	if f, ok := r.valid.Fastest(); ok {
		r.owner = f
	}
}

func (r *reference) syncTo(t block.Tier) bool {
	if !r.dirty.Any() || r.valid.Has(t) {
		return false
	}
	r.valid = r.valid.With(t)
	if t == r.home {
		r.dirty = 0
	}
	return true
}

// operation is one of the 18 that the reference knows.
type operation struct {
	kind   string // write, mark_synced, invalidate, sync_to
	tier   block.Tier
	policy WritePolicy
}

func (o operation) String() string {
	if o.kind == "write" {
		return fmt.Sprintf("%s(%s, %s)", o.kind, o.tier, o.policy)
	}
	return fmt.Sprintf("%s(%s)", o.kind, o.tier)
}

func operations() []operation {
	var ops []operation
	for t := range block.Tier(block.Tiers) {
		for p := range WritePolicy(policies) {
			ops = append(ops, operation{"write", t, p})
		}
		for _, kind := range []string{"mark_synced", "invalidate", "sync_to"} {
			ops = append(ops, operation{kind: kind, tier: t})
		}
	}
	return ops
}

func (r reference) apply(o operation) reference {
	switch o.kind {
	case "write":
		r.write(o.tier, o.policy)
	case "mark_synced":
		r.markSynced(o.tier)
	case "invalidate":
		r.invalidate(o.tier)
	case "sync_to":
		r.syncTo(o.tier)
	}
	return r
}

// view is what the reference shows of itself, of ours.
func view(s State) reference {
	owner, ok := s.Owner()
	if !ok {
		owner = noOwner
	}
	return reference{valid: s.Valid(), dirty: s.Dirty(), owner: owner, home: s.Home()}
}

func (r reference) String() string {
	owner := "none"
	if r.owner != noOwner {
		owner = r.owner.String()
	}
	return fmt.Sprintf("valid %s, dirty %s, owner %s, home %s", r.valid, r.dirty, owner, r.home)
}

// perform runs the operation on ours and commits every copy that it asks for.
func perform(s *State, o operation) error {
	switch o.kind {
	case "write":
		_, copies, err := s.Write(o.tier, o.policy, s.Version())
		if err != nil {
			return err
		}
		for _, c := range copies {
			if err := s.Commit(c); err != nil {
				return err
			}
		}
		return nil
	case "invalidate":
		return s.Invalidate(o.tier)
	case "sync_to":
		if !s.Dirty().Any() { // a sync is for dirty blocks; the reference answers false
			return nil
		}
	}
	c, err := s.Begin(o.tier)
	if err != nil {
		return err
	}
	return s.Commit(c)
}

// referenceQueue is the reference's sync protocol, restated.
type referenceQueue struct {
	epoch   uint64
	pending []int
}

func (q *referenceQueue) queue(id int) { q.pending = append(q.pending, id) }

func (q *referenceQueue) drain() []int {
	p := q.pending
	q.pending = nil
	return p
}

func (q *referenceQueue) advance() uint64 {
	q.epoch++
	return q.epoch - 1
}
