package vram

import (
	"math/rand/v2"
	"testing"

	"cairn/block"
	"cairn/eviction"
	"cairn/internal/testseed"
)

// check recomputes everything that a slab keeps count of.
func (s *slab) check(t *testing.T) {
	t.Helper()
	var used, size, objects, pinned int64
	empty := 0
	idle, stamped := make([]int, len(s.classes)), make([]uint64, len(s.classes))
	roomy := make([]map[ref]bool, len(s.classes))
	for c := range s.classes {
		roomy[c] = members(t, &s.classes[c].roomy)
	}
	for i := range s.runs {
		ru := &s.runs[i]
		if ru.taken == 0 {
			empty++
			continue
		}
		taken, busy, stamps := 0, 0, uint64(0)
		for place := range ru.slots {
			sl, r := &ru.slots[place], slotRef(i, place)
			if sl.state == free {
				continue
			}
			taken++
			used += s.classes[ru.class].size
			evictable := sl.state == live && sl.idle()
			if evictable {
				stamps += sl.used
				idle[ru.class]++
				stamped[ru.class] += sl.used
			} else {
				busy++
			}
			if sl.state == live && s.refs[sl.id] != r {
				t.Fatalf("slot %#x is not what the policy knows as %d", r, sl.id)
			}
			if sl.state == live {
				objects++
				size += int64(sl.d.Length)
				if !sl.idle() {
					pinned++
				}
				if s.index[sl.d.Key] != r {
					t.Fatalf("slot %#x is not what the index has for its key", r)
				}
			}
		}
		if taken != ru.taken || busy != ru.busy || stamps != ru.used || len(ru.vacant) != len(ru.slots)-taken {
			t.Fatalf("run %d counts %d taken, %d busy, %d vacant of %d, stamps %d; there are %d, %d, stamps %d",
				i, ru.taken, ru.busy, len(ru.vacant), len(ru.slots), ru.used, taken, busy, stamps)
		}
		if room := len(ru.vacant) > 0; ru.hasRoom != room || roomy[ru.class][ref(i)] != room {
			t.Fatalf("run %d with %d vacant slots is listed wrongly", i, len(ru.vacant))
		}
	}
	for c := range s.classes {
		if cl := &s.classes[c]; cl.idle != idle[c] || cl.used != stamped[c] {
			t.Fatalf("class %d counts %d idle slots with stamps %d; there are %d with %d", c, cl.idle, cl.used, idle[c], stamped[c])
		}
		if id, ok := s.policy.Victim(c, s.now()); ok != (idle[c] > 0) || ok && !s.slot(s.refs[id]).idle() {
			t.Fatalf("the victim of class %d with %d idle slots is %d, %v", c, idle[c], id, ok)
		}
	}
	if empty != len(s.freeRuns) {
		t.Fatalf("%d runs are empty, %d in stock", empty, len(s.freeRuns))
	}
	st := s.stats
	if st.Used != used || st.Bytes != size || st.Objects != objects || st.Pinned != pinned || int(objects) != len(s.index) || int(objects) != s.policy.Len() || len(s.refs)-len(s.freeIDs) != s.policy.Len() {
		t.Fatalf("Stats %+v; there are %d used, %d bytes, %d objects, %d pinned, %d in the index", st, used, size, objects, pinned, len(s.index))
	}
}

// members walks a list both ways.
func members(t *testing.T, o *order) map[ref]bool {
	t.Helper()
	m := map[ref]bool{}
	before := noRef
	for r := o.newest; r != noRef; r = o.at(r).older {
		if m[r] || o.at(r).newer != before {
			t.Fatalf("list broken at %#x", r)
		}
		m[r], before = true, r
	}
	if o.oldest != before {
		t.Fatal("list broken at its end")
	}
	return m
}

// TestSlabAccounts runs random operations and recounts after each.
func TestSlabAccounts(t *testing.T) {
	for _, policy := range []string{eviction.KindLRU, eviction.KindHazard} {
		t.Run(policy, func(t *testing.T) { testSlabAccounts(t, policy) })
	}
}

func mustSlab(t *testing.T, capacity, runSize int64, sizes []int, policy string) *slab {
	t.Helper()
	s, err := newSlab(capacity, runSize, sizes, policy, 1)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testSlabAccounts(t *testing.T, policy string) {
	seed := testseed.Of(t)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const kib, objects = 1 << 10, 120
	s := mustSlab(t, 8*64*kib, 64*kib, []int{4 * kib, 12 * kib, 64 * kib}, policy)
	key := func(i int) block.Key { return block.Key{2: byte(i), 3: byte(i), 4: 1} }
	var filling, held []ref
	pop := func(list *[]ref) (ref, bool) {
		if len(*list) == 0 {
			return noRef, false
		}
		i := rnd.IntN(len(*list))
		r := (*list)[i]
		(*list)[i] = (*list)[len(*list)-1]
		*list = (*list)[:len(*list)-1]
		return r, true
	}
	for range 6000 {
		r, sl := s.find(key(rnd.IntN(objects)))
		switch op := rnd.IntN(12); {
		case op < 3 && len(filling) < 4:
			if r, _, err := s.take(rnd.IntN(len(s.classes))); err == nil {
				filling = append(filling, r)
			}
		case op < 6:
			if r, ok := pop(&filling); ok {
				i := rnd.IntN(objects)
				d := block.Descriptor{Key: key(i), Parent: key(i / 2), Length: uint32(i)}
				if s.exists(d) == nil && op > 3 {
					s.publish(r, d)
				} else {
					s.discard(r)
				}
			}
		case op == 6 && sl != nil && len(held) < 8:
			s.hold(r)
			held = append(held, r)
		case op < 9:
			if r, ok := pop(&held); ok {
				s.release(r)
			}
		case op == 9 && sl != nil && s.stats.Pinned < 12:
			s.pin(r)
		case op == 10 && sl != nil:
			s.unpin(r)
		case op == 11 && sl != nil && rnd.IntN(3) == 0:
			s.drop(r)
		}
		s.check(t)
	}
	if s.stats.Evictions == 0 {
		t.Error("nothing was evicted")
	}
}

// TestSlotsDoNotOverlap: every slot of every class lies inside the arena and
// inside its run.
func TestSlotsDoNotOverlap(t *testing.T) {
	const kib, run = 1 << 10, 100 * 1 << 10
	s := mustSlab(t, 3*run, run, []int{4 * kib, 12 * kib, 64 * kib}, eviction.KindLRU)
	for c, size := range []int64{4 * kib, 12 * kib, 64 * kib} {
		taken := map[int64]bool{}
		var refs []ref
		for {
			r, evicted, err := s.take(c)
			if err != nil {
				break
			}
			at := s.offset(r)
			if len(evicted) > 0 || taken[at] || at/run != (at+size-1)/run || (at%run)%size != 0 {
				t.Fatalf("class %d: slot at %d, evicted %v", size, at, evicted)
			}
			taken[at] = true
			refs = append(refs, r)
		}
		if want := 3 * int(run/size); len(refs) != want {
			t.Errorf("class %d: %d slots, want %d", size, len(refs), want)
		}
		for _, r := range refs {
			s.discard(r)
		}
	}
	s.check(t)
}
