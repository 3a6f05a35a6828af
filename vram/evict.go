package vram

import (
	"cairn/block"
	"cairn/tier"
)

// makeRoom sees to it that the class has a free slot: one that is there, a free
// run, a run of another class that is of less use than what would have to go
// here, or an object of the class, by its policy.
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

// evict drops the object to make room.
func (s *slab) evict(r ref) {
	s.remove(r, true)
	s.stats.Evictions++
}

// victim is the object of the class that should go. Those that it meets which are held
// after all are out of the question until they are let go.
func (s *slab) victim(c int) ref {
	for {
		id, ok := s.policy.Victim(c, s.now())
		if !ok {
			return noRef
		}
		r := s.refs[id]
		sl := s.slot(r)
		if sl.idle() {
			return r
		}
		sl.quiet = false
		s.policy.Park(id)
	}
}

// age is how long ago the oldest object of the class was used: the victim, where the
// policy goes by that, and else twice the mean.
func (s *slab) age(c int, victim ref) float64 {
	if s.byUse {
		return float64(s.clock - s.slot(victim).used)
	}
	cl := &s.classes[c]
	return 2 * (float64(s.clock) - float64(cl.used)/float64(cl.idle))
}

// staleRun is the run of another class that should go rather than the victim, or
// -1. Its age is the mean over its objects, divided by how full it is: half the
// objects are worth half as much. As the mean over a class is about half the age
// of its oldest object, classes in balance do not take from each other by
// turns. Without a victim any run that can be evicted will do, the oldest best.
func (s *slab) staleRun(c int, victim ref) int {
	limit, best := float64(-1), -1
	if victim != noRef {
		limit = s.age(c, victim)
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
