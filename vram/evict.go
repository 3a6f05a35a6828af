package vram

import (
	"cairn/block"
	"cairn/tier"
)

// makeRoom sees to it that the class has a free slot: one that is there, a free
// run, a run of another class that is of less use than what would have to go
// here, or the least recently used object of the class.
func (s *slab) makeRoom(c int) (evicted []block.Key, err error) {
	cl := &s.classes[c]
	if cl.roomy.newest != noRef || s.takeFreeRun(c) {
		return nil, nil
	}
	victim := s.victim(c)
	if cl.patience--; cl.patience < 0 || victim == noRef {
		cl.patience = int(s.runSize / cl.size)
		if run := s.staleRun(c, victim); run >= 0 {
			evicted = s.evictRun(run)
			s.takeFreeRun(c)
			return evicted, nil
		}
	}
	if victim == noRef {
		return nil, tier.ErrFull
	}
	evicted = []block.Key{s.slot(victim).d.Key}
	s.evict(victim)
	if cl.roomy.newest == noRef { // it was the only object of its run
		s.takeFreeRun(c)
	}
	return evicted, nil
}

func (s *slab) takeFreeRun(c int) bool {
	last := len(s.freeRuns) - 1
	if last < 0 {
		return false
	}
	i := s.freeRuns[last]
	s.freeRuns = s.freeRuns[:last]
	s.format(i, c)
	return true
}

// evict drops the object. A parent that lost its last child by that, and was
// passed over for its sake although it is older than all the rest, is next: a
// sequence goes from its end to its beginning, at one step a block.
func (s *slab) evict(r ref) {
	parent := s.slot(r).d.Parent
	s.drop(r)
	s.stats.Evictions++
	if parent.IsZero() || s.children[parent] > 0 {
		return
	}
	p, sl := s.find(parent)
	if sl == nil || !sl.idle() {
		return
	}
	if idle := &s.classes[s.runs[p.run()].class].idle; sl.used < s.slot(idle.oldest).used {
		idle.remove(p)
		idle.pushOldest(p)
	}
}

const (
	// mostSteps bounds how many parents are passed over in one search for a leaf:
	// more than the blocks of any sequence.
	mostSteps = 1 << 16
	// stepsEarned is by how much one eviction raises the number of steps that
	// the searches of a class may take: the mean cost of an eviction stays
	// small even where no leaf can be found.
	stepsEarned = 16
)

// victim is the object of the class that should go: the least recently used
// without children. Parents that are found on the way go to the other end of the
// order, with the time of their use unchanged. Where leaves are pinned or in
// other classes, the oldest parent goes.
func (s *slab) victim(c int) ref {
	cl := &s.classes[c]
	cl.steps = min(cl.steps+stepsEarned, mostSteps)
	for first := cl.idle.oldest; cl.steps > 0; cl.steps-- {
		r := cl.idle.oldest
		if r == noRef || s.children[s.slot(r).d.Key] == 0 {
			return r
		}
		cl.idle.remove(r)
		cl.idle.push(r)
		if cl.idle.oldest == first {
			break // all were passed over, and are in order again
		}
	}
	return cl.idle.oldest
}

// staleRun is the run of another class that should go rather than the victim, or
// -1. Its age is the mean over its objects, divided by how full it is: half the
// objects are worth half as much. As the mean over a class is about half the age
// of its oldest object, classes in balance do not take from each other by
// turns. Without a victim any run that can be evicted will do, the oldest best.
func (s *slab) staleRun(c int, victim ref) int {
	limit, best := float64(-1), -1
	if victim != noRef {
		limit = float64(s.clock - s.slot(victim).used)
	}
	for i := range s.runs {
		ru := &s.runs[i]
		if ru.class == c || ru.taken == 0 || ru.busy > 0 {
			continue
		}
		n := float64(ru.taken)
		age := (float64(s.clock) - float64(ru.used)/n) * float64(len(ru.slots)) / n
		if age > limit {
			limit, best = age, i
		}
	}
	return best
}

// evictRun evicts everything in a run that holds nothing busy, and so frees it.
func (s *slab) evictRun(i int) (evicted []block.Key) {
	slots := s.runs[i].slots
	for place := range slots {
		if slots[place].state == live {
			evicted = append(evicted, slots[place].d.Key)
			s.evict(slotRef(i, place))
		}
	}
	return evicted
}
