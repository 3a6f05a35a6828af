package tiertest

import (
	"context"
	"maps"
	"math/rand/v2"

	"cairn/block"
	"cairn/tier"
)

// testLeavesFirst keeps a sequence alive at its end, under pressure: its first block, the
// oldest of all, stays as long as a block is there that follows it.
func testLeavesFirst(s *suite) {
	const rounds = 12
	root := s.mustFollow(0, block.Key{})
	slots := int(s.store.Stats().Capacity) / s.cfg.BlockSize
	next, child := 1, block.Key{}
	for range rounds {
		if _, held := s.held[child]; held {
			s.remove(child)
		}
		child = s.mustFollow(next, root)
		next++
		for range max(slots/4, 1) {
			s.mustFollow(next, block.Key{})
			next++
			_, followed := s.held[child]
			if _, held := s.held[root]; followed && !held {
				s.Fatalf("after %d objects a parent has left, and its child is there", next)
			}
		}
		if _, held := s.held[root]; !held {
			root = s.mustFollow(next, block.Key{})
			next++
		}
	}
	s.checkEvictions()
	s.check()
}

// testLeavesAlways puts, uses and deletes blocks of trees at random. What a store of
// memory evicts, while nothing is pinned and all sizes are equal, is never a parent.
func testLeavesAlways(s *suite) {
	if _, ok := s.store.(tier.Pinner); !ok {
		return // a disk makes room by segments: it does what it can
	}
	const steps = 4000
	rnd := rand.New(rand.NewPCG(s.cfg.Seed, 3))
	s.Logf("seed %d", s.cfg.Seed)
	blocks := 3 * int(s.store.Stats().Capacity) / s.cfg.BlockSize
	children := map[block.Key]int{}
	buf := make([]byte, s.cfg.BlockSize)
	for step := range steps {
		i := rnd.IntN(blocks)
		key, parent := keyOf(i), treeParent(i)
		_, held := s.held[key]
		_, founded := s.held[parent]
		switch {
		case held && rnd.IntN(10) == 0 && children[key] == 0:
			children[parent]--
			s.remove(key)
		case held:
			if _, err := s.store.Get(context.Background(), key, buf); err != nil {
				s.Fatalf("step %d: %v", step, err)
			}
		case founded || i == 0:
			before := s.held
			s.held = maps.Clone(before)
			s.mustFollow(i, parent)
			var gone []block.Key
			for k := range before {
				if _, still := s.held[k]; !still {
					gone = append(gone, k)
					children[treeParent(k.Position())]--
				}
			}
			for _, k := range gone {
				if children[k] > 0 {
					s.Fatalf("step %d: %s was evicted, and %d blocks that follow it were not", step, k, children[k])
				}
			}
			children[parent]++
		}
	}
	s.checkEvictions()
	s.check()
}

// treeParent is the parent of object i in a tree in which each has three children.
func treeParent(i int) block.Key {
	if i == 0 {
		return block.Key{}
	}
	return keyOf((i - 1) / 3)
}

// mustFollow puts object i, of the usual size, behind the one with the key parent.
func (s *suite) mustFollow(i int, parent block.Key) block.Key {
	s.Helper()
	d, p := object(i, s.cfg.BlockSize)
	d.Parent = parent
	if err := s.put(d, p); err != nil {
		s.Fatalf("Put of object %d: %v", i, err)
	}
	return d.Key
}
