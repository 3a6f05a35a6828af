package vram

import (
	"time"

	"cairn/block"
	"cairn/eviction"
	"cairn/tier"
)

// state is where a slot is in its life; see the package comment.
type state uint8

const (
	free    state = iota
	filling       // taken, invisible
	live          // in the index
	dying         // deleted, still held by readers
)

// slot is the host's record of one slot. It holds no pointers.
type slot struct {
	d     block.Descriptor
	used  uint64 // value of slab.clock at the last use
	id    uint32 // in the policy, while it is live
	birth uint64 // value of slab.births when it became live
	pins  int32  // by Pin
	holds int32  // copies under way and views
	state state
	// quiet: it is held, and the policy does not know; see hush.
	quiet bool
}

func (s *slot) idle() bool { return s.pins == 0 && s.holds == 0 }

// run is a stretch of the arena that is cut into slots of one class.
type run struct {
	byRoom  links // in the class's list of runs with a free slot
	slots   []slot
	vacant  []uint32 // places of the free slots
	class   int
	taken   int    // slots that are not free
	busy    int    // taken slots that cannot be evicted
	used    uint64 // sum of slot.used over the slots that can be
	hasRoom bool   // is in the list of runs with a free slot
}

// class is one size of slots.
type class struct {
	size  int64
	roomy order // runs of the class with a free slot
	// patience is how many more objects are evicted before the runs of other
	// classes are looked at again.
	patience int
	// idle is the number of slots that may be evicted, used the sum of their slot.used.
	idle int
	used uint64
}

// slab is the bookkeeping of the arena: which slot is where, holds what, and goes
// next. It knows neither locks nor the device.
type slab struct {
	classes  []class // by size
	runs     []run
	runSize  int64
	freeRuns []int
	index    map[block.Key]ref
	clock    uint64
	births   uint64 // objects published so far
	stats    tier.Stats

	// policy chooses who goes. It knows live objects by ids, each class as a group.
	policy  eviction.Policy
	byUse   bool // the policy goes by time of use alone
	refs    []ref
	freeIDs []uint32
	start   time.Time
	ask     func(block.Key) tier.Hint // nil until somebody advises
}

// newSlab divides capacity bytes into runs; sizes are sorted.
func newSlab(capacity, runSize int64, sizes []int, policy string, seed uint64) (*slab, error) {
	s := &slab{
		runs:    make([]run, capacity/runSize),
		runSize: runSize,
		index:   map[block.Key]ref{},
		byUse:   policy == eviction.KindLRU,
		start:   time.Now(),
	}
	var err error
	if s.policy, err = eviction.New(policy, eviction.Config{Seed: seed, Hint: s.hint}); err != nil {
		return nil, err
	}
	s.stats.Capacity = capacity
	for i := len(s.runs) - 1; i >= 0; i-- {
		s.freeRuns = append(s.freeRuns, i)
	}
	for _, size := range sizes {
		s.classes = append(s.classes, class{
			size:  int64(size),
			roomy: newOrder(func(r ref) *links { return &s.runs[r].byRoom }),
		})
	}
	return s, nil
}

// hint asks the owner of the pool about an object.
func (s *slab) hint(id uint32) tier.Hint {
	if s.ask == nil {
		return 0
	}
	return s.ask(s.slot(s.refs[id]).d.Key)
}

func (s *slab) now() time.Duration { return time.Since(s.start) }

// enter makes the policy know a live object. leave undoes it; evicted says that the object
// went to make room.
func (s *slab) enter(r ref) {
	sl := s.slot(r)
	if last := len(s.freeIDs) - 1; last >= 0 {
		sl.id, s.freeIDs = s.freeIDs[last], s.freeIDs[:last]
	} else {
		sl.id = uint32(len(s.refs))
		s.refs = append(s.refs, noRef)
	}
	s.refs[sl.id] = r
	s.policy.Insert(sl.id, eviction.Block{Key: sl.d.Key, Parent: sl.d.Parent, Group: s.runs[r.run()].class}, s.now())
}

func (s *slab) leave(r ref, evicted bool) {
	id := s.slot(r).id
	if evicted {
		s.policy.Evict(id, s.now())
	} else {
		s.policy.Remove(id)
	}
	s.refs[id] = noRef
	s.freeIDs = append(s.freeIDs, id)
}

func (s *slab) slot(r ref) *slot { return &s.runs[r.run()].slots[r.place()] }

// offset is where the slot begins in the arena.
func (s *slab) offset(r ref) int64 {
	return int64(r.run())*s.runSize + int64(r.place())*s.classes[s.runs[r.run()].class].size
}

// classFor is the smallest class that n bytes fit into.
func (s *slab) classFor(n int) (class int, ok bool) {
	for c := range s.classes {
		if int64(n) <= s.classes[c].size {
			return c, true
		}
	}
	return 0, false
}

// find looks the object up.
func (s *slab) find(key block.Key) (ref, *slot) {
	r, ok := s.index[key]
	if !ok {
		return noRef, nil
	}
	return r, s.slot(r)
}

// exists is what a Put of d must answer if the object is there.
func (s *slab) exists(d block.Descriptor) error {
	_, held := s.find(d.Key)
	switch {
	case held == nil:
		return nil
	case held.d.Length == d.Length && held.d.Sum == d.Sum:
		return tier.ErrExists
	default:
		return tier.ErrConflict
	}
}

// take takes a slot of the class, evicting if it must. The slot is filling:
// publish or discard ends that. evicted lists what left, also with an error.
func (s *slab) take(c int) (r ref, evicted []block.Key, err error) {
	evicted, err = s.makeRoom(c)
	if err != nil {
		return noRef, evicted, err
	}
	cl := &s.classes[c]
	i := int(cl.roomy.newest)
	ru := &s.runs[i]
	last := len(ru.vacant) - 1
	place := ru.vacant[last]
	ru.vacant = ru.vacant[:last]
	if last == 0 {
		cl.roomy.remove(ref(i))
		ru.hasRoom = false
	}
	r = slotRef(i, int(place))
	ru.taken++
	ru.busy++
	s.stats.Used += cl.size
	*s.slot(r) = slot{state: filling}
	return r, evicted, nil
}

// format gives a free run to a class.
func (s *slab) format(i, c int) {
	cl := &s.classes[c]
	ru := &s.runs[i]
	n := int(s.runSize / cl.size)
	if cap(ru.slots) < n || cap(ru.slots) > 4*n {
		ru.slots, ru.vacant = make([]slot, n), make([]uint32, n)
	}
	ru.slots, ru.vacant = ru.slots[:n], ru.vacant[:n]
	for place := range n {
		ru.slots[place] = slot{}
		ru.vacant[place] = uint32(n - 1 - place)
	}
	ru.class, ru.hasRoom = c, true
	cl.roomy.push(ref(i))
}

// vacate frees a slot that is in no order and not in the index. A run without
// objects returns to the common stock.
func (s *slab) vacate(r ref) {
	i := r.run()
	ru := &s.runs[i]
	cl := &s.classes[ru.class]
	*s.slot(r) = slot{}
	s.stats.Used -= cl.size
	ru.vacant = append(ru.vacant, uint32(r.place()))
	ru.taken--
	if !ru.hasRoom {
		ru.hasRoom = true
		cl.roomy.push(ref(i))
	}
	if ru.taken == 0 {
		cl.roomy.remove(ref(i))
		ru.hasRoom = false
		s.freeRuns = append(s.freeRuns, i)
	}
}

// publish makes a filling slot the object d.
func (s *slab) publish(r ref, d block.Descriptor) {
	sl := s.slot(r)
	s.births++
	sl.d, sl.state, sl.birth = d, live, s.births
	s.index[d.Key] = r
	s.stats.Objects++
	s.stats.Bytes += int64(d.Length)
	s.stats.Puts++
	s.enter(r)
	s.rest(r)
}

// discard frees a slot that is busy for the last time.
func (s *slab) discard(r ref) {
	s.runs[r.run()].busy--
	s.vacate(r)
}

// rest lets an object that just became idle be evicted.
func (s *slab) rest(r ref) {
	ru := &s.runs[r.run()]
	cl := &s.classes[ru.class]
	s.clock++
	s.slot(r).used = s.clock
	ru.used += s.clock
	ru.busy--
	cl.idle++
	cl.used += s.clock
	s.policy.Unpark(s.slot(r).id)
}

// resume is rest of an object that was held as no use of it, if the policy has not met it
// since: it goes where it would have gone.
func (s *slab) resume(r ref) {
	sl, ru := s.slot(r), &s.runs[r.run()]
	if !sl.quiet {
		s.rest(r)
		return
	}
	cl := &s.classes[ru.class]
	sl.quiet = false
	ru.used += sl.used
	ru.busy--
	cl.idle++
	cl.used += sl.used
}

// unrest undoes rest, except that the policy does not know.
func (s *slab) unrest(r ref) {
	ru := &s.runs[r.run()]
	cl := &s.classes[ru.class]
	ru.used -= s.slot(r).used
	ru.busy++
	cl.idle--
	cl.used -= s.slot(r).used
}

// rouse protects an idle object from eviction.
func (s *slab) rouse(r ref) {
	s.unrest(r)
	s.stats.Pinned++
	s.policy.Park(s.slot(r).id)
}

// hold keeps the slot's bytes in place until release, as a use of them.
func (s *slab) hold(r ref) {
	sl := s.slot(r)
	if sl.idle() {
		s.rouse(r)
	}
	s.policy.Touch(sl.id, s.now())
	s.policy.Park(sl.id) // Touch has ended that
	sl.quiet = false
	sl.holds++
}

// hush is hold that is no use of the object. The policy learns of it only when it names the
// object as a victim.
func (s *slab) hush(r ref) {
	sl := s.slot(r)
	if sl.idle() {
		s.unrest(r)
		s.stats.Pinned++
		sl.quiet = true
	}
	sl.holds++
}

func (s *slab) release(r ref) {
	sl := s.slot(r)
	sl.holds--
	switch {
	case sl.holds > 0:
	case sl.state == dying:
		s.discard(r)
	case sl.pins == 0:
		s.stats.Pinned--
		s.resume(r)
	}
}

func (s *slab) pin(r ref) {
	sl := s.slot(r)
	if sl.idle() {
		s.rouse(r)
	}
	sl.pins++
}

func (s *slab) unpin(r ref) {
	sl := s.slot(r)
	if sl.pins == 0 {
		return // of an object that was deleted and came back
	}
	sl.pins--
	if sl.idle() {
		s.stats.Pinned--
		s.resume(r)
	}
}

// drop takes a live object out of the index, pinned or not. Its slot is free now
// or when the last hold ends.
func (s *slab) drop(r ref) { s.remove(r, false) }

// remove is drop, of which the policy learns whether it was to make room.
func (s *slab) remove(r ref, evicted bool) {
	sl := s.slot(r)
	delete(s.index, sl.d.Key)
	s.leave(r, evicted)
	s.stats.Objects--
	s.stats.Bytes -= int64(sl.d.Length)
	if sl.idle() {
		s.unrest(r)
		s.discard(r)
		return
	}
	s.stats.Pinned--
	sl.pins = 0
	if sl.holds > 0 {
		sl.state = dying
		return
	}
	s.discard(r)
}
