package eviction

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"cairn/block"
	"cairn/internal/testseed"
	"cairn/tier"
)

// keyOf is the key of block number i of sequence s.
func keyOf(s, i int) block.Key {
	var hash [block.HashSize]byte
	binary.BigEndian.PutUint64(hash[:], mix(uint64(s)<<32|uint64(i)))
	k, err := block.NewKey(i, hash)
	if err != nil {
		panic(err)
	}
	return k
}

func mix(x uint64) uint64 {
	x = (x + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	return (x ^ x>>31) * 0x94d049bb133111eb
}

// blockOf is block number i of sequence s.
func blockOf(s, i int) Block {
	b := Block{Key: keyOf(s, i)}
	if i > 0 {
		b.Parent = keyOf(s, i-1)
	}
	return b
}

func newHazard(t testing.TB, cfg Config) *Hazard {
	t.Helper()
	h, err := NewHazard(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newLRU(t testing.TB, cfg Config) *LRU {
	t.Helper()
	l, err := NewLRU(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func policies(t *testing.T) map[string]Policy {
	return map[string]Policy{"lru": newLRU(t, Config{}), "hazard": newHazard(t, Config{Guard: -1})}
}

// Both policies evict in order of use while nothing tells blocks apart.
func TestOrderOfUseAtFirst(t *testing.T) {
	for name, p := range policies(t) {
		t.Run(name, func(t *testing.T) {
			for i := range 10 {
				p.Insert(uint32(i), Block{Key: keyOf(i, 0)}, time.Duration(i)*time.Minute)
			}
			p.Touch(0, 10*time.Minute)
			p.Remove(2)
			for _, want := range []uint32{1, 3, 4, 5, 6, 7, 8, 9} {
				got, ok := p.Victim(0, time.Hour)
				if !ok || got != want {
					t.Fatalf("victim is %d, %v, want %d", got, ok, want)
				}
				p.Evict(got, time.Hour)
			}
			if p.Len() != 1 {
				t.Errorf("%d blocks are left, want 1", p.Len())
			}
		})
	}
}

func TestPark(t *testing.T) {
	for name, p := range policies(t) {
		t.Run(name, func(t *testing.T) {
			p.Insert(0, Block{Key: keyOf(0, 0)}, 0)
			p.Insert(1, Block{Key: keyOf(1, 0)}, time.Minute)
			p.Park(0)
			if id, ok := p.Victim(0, time.Hour); !ok || id != 1 {
				t.Errorf("victim is %d, %v beside a parked block, want 1", id, ok)
			}
			p.Park(1)
			if id, ok := p.Victim(0, time.Hour); ok {
				t.Errorf("%d is a victim though all are parked", id)
			}
			p.Touch(1, time.Hour)
			if id, ok := p.Victim(0, 2*time.Hour); !ok || id != 1 {
				t.Errorf("victim is %d, %v, want 1: a use ends parking", id, ok)
			}
			p.Evict(1, 2*time.Hour)
			p.Unpark(0)
			if id, ok := p.Victim(0, 2*time.Hour); !ok || id != 0 {
				t.Errorf("victim is %d, %v after Unpark, want 0", id, ok)
			}
			p.Park(0)
			p.Remove(0)
			if _, ok := p.Victim(0, 2*time.Hour); ok || p.Len() != 0 {
				t.Error("a parked block that was removed is still there")
			}
		})
	}
}

// The zero key stands for no parent, but as the key of a block it is one like any other.
func TestZeroKey(t *testing.T) {
	for name, p := range policies(t) {
		t.Run(name, func(t *testing.T) {
			p.Insert(7, Block{}, 0)
			p.Insert(8, Block{Key: keyOf(0, 1)}, time.Minute)
			for _, want := range []uint32{7, 8} {
				got, ok := p.Victim(0, time.Hour)
				if !ok || got != want {
					t.Fatalf("victim is %d, %v, want %d", got, ok, want)
				}
				p.Evict(got, time.Hour)
			}
			p.Insert(9, Block{}, time.Hour)
			p.Remove(9)
			if id, ok := p.Victim(0, 2*time.Hour); ok || p.Len() != 0 {
				t.Errorf("victim is %d of %d blocks, want none", id, p.Len())
			}
		})
	}
}

func TestGroupsAreApart(t *testing.T) {
	for name, p := range policies(t) {
		t.Run(name, func(t *testing.T) {
			if _, ok := p.Victim(3, 0); ok {
				t.Error("a group that never was has a victim")
			}
			p.Insert(0, Block{Key: keyOf(0, 0)}, 0)
			p.Insert(1, Block{Key: keyOf(1, 0), Group: 3}, time.Minute)
			if id, ok := p.Victim(3, time.Hour); !ok || id != 1 {
				t.Errorf("victim of group 3 is %d, %v, want 1", id, ok)
			}
		})
	}
}

// hints are what the owner of a store says in a test.
type hints map[uint32]tier.Hint

func (h hints) of(id uint32) tier.Hint { return h[id] }

// Of two blocks alike the one with another copy goes first, even when it was used
// later; and one that is needed goes last.
func TestHints(t *testing.T) {
	said := hints{}
	for name, p := range map[string]Policy{"lru": newLRU(t, Config{Hint: said.of}), "hazard": newHazard(t, Config{Hint: said.of})} {
		t.Run(name, func(t *testing.T) {
			clear(said)
			p.Insert(0, Block{Key: keyOf(0, 0)}, 0)
			p.Insert(1, Block{Key: keyOf(1, 0)}, time.Minute)
			said[1] = tier.Copied
			if id, _ := p.Victim(0, 3*time.Minute); id != 1 {
				t.Errorf("victim is %d, want the one that is copied", id)
			}
			delete(said, 1)
			if id, _ := p.Victim(0, 3*time.Minute); id != 0 {
				t.Errorf("victim is %d, want the older one now that there is no copy", id)
			}
			said[0] = tier.Needed
			if id, _ := p.Victim(0, 3*time.Minute); id != 1 {
				t.Errorf("victim is %d, want the one that is not needed", id)
			}
			said[1] = tier.Needed
			if _, ok := p.Victim(0, 3*time.Minute); !ok {
				t.Error("no victim among needed blocks")
			}
		})
	}
}

// A copy counts among the oldest leaves only: what was just used stays.
func TestCopiesCountWithinBounds(t *testing.T) {
	asked := 0
	l := newLRU(t, Config{Look: 3, Hint: func(id uint32) tier.Hint {
		asked++
		if id == 3 {
			return tier.Copied
		}
		return 0
	}})
	for i := range uint32(10) {
		l.Insert(i, Block{Key: keyOf(int(i), 0)}, time.Duration(i))
	}
	if id, _ := l.Victim(0, time.Hour); id != 0 || asked != 3 {
		t.Errorf("victim is %d after %d questions, want the oldest after 3", id, asked)
	}
	l.Evict(0, time.Hour)
	if id, _ := l.Victim(0, time.Hour); id != 3 {
		t.Errorf("victim is %d, want the copied one of the oldest three", id)
	}
}

// Where every request uses the whole of its prefix, in whatever order, LRU takes the leaf
// of the request that is longest ago, and from it on to its parents.
func TestLRUOfLeavesIsExact(t *testing.T) {
	seed := testseed.Of(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	l := newLRU(t, Config{})
	const room, fanout, depth = 60, 3, 6
	type held struct {
		b    Block
		used int
	}
	ids, by := map[block.Key]uint32{}, map[uint32]held{}
	var free []uint32
	for i := range uint32(room) {
		free = append(free, i)
	}
	leafOldest := func() uint32 {
		parents := map[block.Key]bool{}
		for _, h := range by {
			parents[h.b.Parent] = true
		}
		best, found := uint32(0), false
		for id, h := range by {
			if o := by[best]; !parents[h.b.Key] && (!found || h.used < o.used || h.used == o.used && h.b.Key.Position() > o.b.Key.Position()) {
				best, found = id, true
			}
		}
		return best
	}
	for step := range 4000 {
		path, parent := []Block(nil), block.Key{}
		for i, s := 0, 0; i < 1+rng.IntN(depth); i++ {
			s = s*fanout + rng.IntN(fanout)
			b := Block{Key: keyOf(s+1, i), Parent: parent}
			path, parent = append(path, b), b.Key
		}
		for _, b := range path {
			if id, ok := ids[b.Key]; ok {
				by[id] = held{b, step}
				l.Touch(id, 0)
			}
		}
		for _, b := range path {
			if _, ok := ids[b.Key]; ok {
				continue
			}
			if len(free) == 0 {
				got, ok := l.Victim(0, 0)
				if want := leafOldest(); !ok || got != want {
					t.Fatalf("step %d: victim is %d, used at %d, want %d, used at %d", step, got, by[got].used, want, by[want].used)
				}
				l.Evict(got, 0)
				delete(ids, by[got].b.Key)
				delete(by, got)
				free = append(free, got)
			}
			id := free[len(free)-1]
			free = free[:len(free)-1]
			l.Insert(id, b, 0)
			ids[b.Key], by[id] = id, held{b, step}
		}
	}
}

// What was just stored may be about to get a child: it goes last.
func TestFreshLeavesGoLast(t *testing.T) {
	h := newHazard(t, Config{Hint: hints{1: tier.Copied}.of})
	now := time.Hour
	h.Insert(0, Block{Key: keyOf(0, 0)}, now)
	h.Insert(1, blockOf(1, 0), now+500*time.Millisecond)
	if id, _ := h.Victim(0, now+900*time.Millisecond); id != 0 {
		t.Errorf("victim is %d, want the older of two fresh ones", id)
	}
	if id, _ := h.Victim(0, now+1200*time.Millisecond); id != 0 {
		t.Errorf("victim is %d, want the one that is not fresh", id)
	}
	if id, _ := h.Victim(0, now+2*time.Second); id != 1 {
		t.Errorf("victim is %d, want the one that is worth less", id)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []Config{{Samples: -1}, {CopyWeight: -1}, {CopyWeight: 1.1}} {
		if _, err := NewHazard(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// A store of sequences that share beginnings, of which some are removed from the
// middle, checked against a plain model: a victim is always a leaf.
func TestLeavesBeforeParents(t *testing.T) {
	seed := testseed.Of(t)
	l, h := newLRU(t, Config{}), newHazard(t, Config{Seed: seed, Ghosts: 2})
	t.Run("lru", func(t *testing.T) { testLeavesBeforeParents(t, seed, l, func() { checkLists(t, l) }) })
	t.Run("hazard", func(t *testing.T) { testLeavesBeforeParents(t, seed, h, func() { checkTables(t, h) }) })
}

func testLeavesBeforeParents(t *testing.T, seed uint64, h Policy, check func()) {
	rng := rand.New(rand.NewPCG(seed, 0))
	type node struct {
		b  Block
		id uint32
	}
	var free []uint32
	held := map[block.Key]node{}
	byID := map[uint32]block.Key{}
	const room = 200
	for i := range room {
		free = append(free, uint32(i))
	}
	drop := func(id uint32) {
		delete(held, byID[id])
		delete(byID, id)
		free = append(free, id)
	}
	evictions := 0
	now := time.Duration(0)
	for range 5000 {
		now += time.Duration(rng.ExpFloat64() * float64(3*time.Second))
		// The first blocks of all sequences of a family are the same.
		family, sequence, length := rng.IntN(5), rng.IntN(40), 1+rng.IntN(20)
		parent := block.Key{}
		for i := range length {
			s := 1000 + sequence
			if i < 4 {
				s = family
			}
			b := Block{Key: keyOf(s, i), Parent: parent}
			parent = b.Key
			if n, ok := held[b.Key]; ok {
				h.Touch(n.id, now)
				continue
			}
			for len(free) == 0 {
				id, ok := h.Victim(0, now)
				if !ok {
					t.Fatal("no victim in a full store")
				}
				for _, other := range held {
					if other.b.Parent == byID[id] {
						t.Fatalf("victim %v is the parent of %v", byID[id], other.b.Key)
					}
				}
				h.Evict(id, now)
				drop(id)
				evictions++
			}
			id := free[len(free)-1]
			free = free[:len(free)-1]
			h.Insert(id, b, now)
			held[b.Key], byID[id] = node{b, id}, b.Key
		}
		if rng.IntN(50) == 0 {
			for _, n := range held {
				h.Remove(n.id)
				drop(n.id)
				break
			}
		}
		if rng.IntN(20) == 0 {
			for _, n := range held {
				h.Park(n.id)
				h.Unpark(n.id)
				break
			}
		}
		if h.Len() != len(held) {
			t.Fatalf("the policy counts %d blocks, want %d", h.Len(), len(held))
		}
	}
	if evictions < 1000 {
		t.Fatalf("only %d evictions: the test tests nothing", evictions)
	}
	check()
}

// checkLists compares the lists of a policy with what it says of each block.
func checkLists(t *testing.T, l *LRU) {
	t.Helper()
	listed := 0
	for _, g := range l.groups {
		for in := useList; in < listCount; in++ {
			older := uint32(0)
			for at := g[in].oldest; at != 0; at = l.links.at(at - 1).newer {
				n := l.links.at(at - 1)
				if n.in != in || n.older != older || n.key == 0 {
					t.Fatalf("block %d says that it is in list %d after %d; it is in %d after %d", at-1, n.in, n.older, in, older)
				}
				if in == asideList && n.children == 0 {
					t.Fatalf("block %d was set aside and has no children", at-1)
				}
				older = at
				listed++
			}
			if g[in].newest != older {
				t.Fatalf("list %d ends with %d, want %d", in, g[in].newest, older)
			}
		}
	}
	if listed != l.n || len(l.family.ids) != l.n {
		t.Fatalf("%d blocks are listed and %d indexed, want %d", listed, len(l.family.ids), l.n)
	}
}

// checkTables compares lists and counts with what they are made of.
func checkTables(t *testing.T, h *Hazard) {
	t.Helper()
	children := map[uint64]uint32{}
	n := 0
	for i := range h.entries.len() {
		if e := h.entries.at(uint32(i)); e.key != 0 {
			n++
			if e.parent != 0 {
				children[e.parent]++
			}
		}
	}
	leaves := 0
	for i := range h.entries.len() {
		e := h.entries.at(uint32(i))
		if e.key == 0 {
			continue
		}
		if e.children != children[e.key] {
			t.Fatalf("entry %d counts %d children, want %d", i, e.children, children[e.key])
		}
		delete(children, e.key)
		if is := e.children == 0 && e.flags&parked == 0; is != (e.leaf != 0) {
			t.Fatalf("entry %d is a leaf: %v; listed at %d", i, is, e.leaf)
		}
		if e.leaf != 0 {
			leaves++
			if h.groups[e.group].leaves[e.leaf-1] != uint32(i) {
				t.Fatalf("entry %d is not at its place among the leaves", i)
			}
		}
	}
	listed := 0
	for _, g := range h.groups {
		listed += len(g.leaves)
	}
	if n != h.n || len(h.family.ids) != n || listed != leaves {
		t.Fatalf("%d entries, %d counted, %d indexed; %d leaves, %d listed", n, h.n, len(h.family.ids), leaves, listed)
	}
	for k, v := range children {
		if h.family.waiting[k] != v {
			t.Fatalf("%d children wait for %x, want %d", h.family.waiting[k], k, v)
		}
	}
	if len(h.family.waiting) != len(children) {
		t.Fatalf("%d parents are waited for, want %d", len(h.family.waiting), len(children))
	}
}

// Leaves that may not go protect their parents no further than there is a choice, and
// a lineage that goes in a circle, or into another group, does not stop it.
func TestSomethingAlwaysGoes(t *testing.T) {
	h := newHazard(t, Config{})
	for i := range 3 {
		h.Insert(uint32(i), blockOf(1, i), time.Duration(i)*time.Minute)
	}
	h.Park(2)
	if id, ok := h.Victim(0, time.Hour); !ok || id != 0 {
		t.Errorf("victim is %d, %v, want the oldest that is not parked", id, ok)
	}
	h.Park(0)
	h.Park(1)
	if id, ok := h.Victim(0, time.Hour); ok {
		t.Errorf("%d is a victim though all are parked", id)
	}
	h.Evict(0, time.Hour)
	h.Unpark(1)
	if id, ok := h.Victim(0, time.Hour); !ok || id != 1 {
		t.Errorf("victim is %d, %v, want 1", id, ok)
	}
	checkTables(t, h)

	a, b := keyOf(7, 3), keyOf(8, 3)
	circle := newHazard(t, Config{})
	circle.Insert(0, Block{Key: a, Parent: b}, 0)
	circle.Insert(1, Block{Key: b, Parent: a}, 0)
	circle.Insert(2, Block{Key: keyOf(9, 4), Parent: b, Group: 1}, 0)
	for _, g := range []int{0, 0, 1} {
		id, ok := circle.Victim(g, time.Hour)
		if !ok {
			t.Fatalf("no victim in group %d", g)
		}
		circle.Evict(id, time.Hour)
	}
	checkTables(t, circle)
}
