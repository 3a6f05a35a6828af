package router

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

func TestDepthGrowsWithThePosition(t *testing.T) {
	last := uint64(0)
	for p := range block.NamedPosition + 1 {
		d := depthOf(p)
		if d < last || d > last+1 || d >= anyDepth {
			t.Fatalf("position %d has depth %d after %d", p, d, last)
		}
		if d > last && depthFloor(d) != p {
			t.Fatalf("depth %d begins at %d, not at %d", d, p, depthFloor(d))
		}
		last = d
	}
	if last != depthMask {
		t.Errorf("the deepest is %d", last)
	}
}

// A shard in which many blocks have the same few homes, against a map: what does not
// fit its bucket goes on to the next, comes back when there is room, and wraps around.
func TestCrowdedShard(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		ix := newIndex(t, Exact, 0)
		s := &ix.shards[0]
		want := map[uint64]lane{}
		homes := []uint64{0, 0, rng.Uint64() >> 8, 1<<56 - 1, 1<<56 - 1}
		for range 4000 {
			fp := homes[rng.IntN(len(homes))]&^(1<<13-1) | rng.Uint64N(1<<7)<<6 | anyDepth
			if rng.IntN(4) == 0 {
				fp = rng.Uint64()>>8 | anyDepth
			}
			slot, stored := rng.IntN(6), rng.IntN(5) < 2+int(seed%2)
			bit := makeLane(0, block.MaskOf(block.Host)) << (slot + 1)
			if changed := s.set(fp, slot, block.Host, stored, ix.buf); changed != (want[fp]&bit != 0 != stored) {
				t.Fatalf("seed %d: set %x: changed %v", seed, fp, changed)
			}
			if want[fp] |= bit; !stored {
				if want[fp] &^= bit; want[fp] == 0 {
					delete(want, fp)
				}
			}
		}
		got := map[uint64]lane{}
		for fp := range want {
			word, lanes := ix.read(fp, nil)
			if !isSet(word) {
				lanes = inlineLanes(nil, word)
			}
			for _, l := range lanes {
				got[fp] |= makeLane(0, block.MaskOf(block.Host)) << (laneSlot(l) + 1)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || s.live != len(want) {
			t.Fatalf("seed %d: %d blocks in use, want %d:\n%s", seed, s.live, len(want), diff)
		}
	}
}

// held is how many blocks of the chain the node holds, and whether they are a prefix.
func held(ix *Index, node string, keys []block.Key) (n int, prefix bool) {
	prefix = true
	for i, k := range keys {
		for _, h := range ix.Holders(k, nil) {
			if h.Node == node {
				prefix = prefix && n == i
				n++
			}
		}
	}
	return n, prefix
}

func TestMemoryIsBounded(t *testing.T) {
	for _, c := range []struct {
		name           string
		nodes, holders int
		chains, length int
	}{
		{"one holder", 4, 1, 100, 2000},
		{"sets", 24, 20, 20, 1500},
	} {
		t.Run(c.name, func(t *testing.T) {
			ix, err := NewIndex(IndexConfig{MaxBytes: LeastMaxBytes})
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.nodes {
				if err := ix.SetNode(NodeInfo{ID: nodeName(i), Incarnation: 1}); err != nil {
					t.Fatal(err)
				}
			}
			rng := rand.New(rand.NewPCG(1, 1))
			chains := make([][]block.Key, c.chains)
			for i := range chains {
				chains[i] = chain(rng, 1+rng.IntN(c.length))
			}
			feed(t, ix, c.nodes, chains, func(i int) []int {
				to := make([]int, c.holders)
				for j := range to {
					to[j] = (i + j) % c.nodes
				}
				return to
			})
			s := ix.Stats()
			if s.Bytes > s.MaxBytes || s.Bytes < s.MaxBytes/3 {
				t.Errorf("%d bytes of at most %d", s.Bytes, s.MaxBytes)
			}
			if s.Evicted == 0 || s.Refused == 0 || s.Depth == 0 {
				t.Errorf("evicted %d, refused %d, depth %d", s.Evicted, s.Refused, s.Depth)
			}
			for ix.Sweep() {
			}
			counted := map[string]int{}
			for i, keys := range chains {
				for j := range c.holders {
					n, prefix := held(ix, nodeName((i+j)%c.nodes), keys)
					if want := min(len(keys), s.Depth); n != want || !prefix {
						t.Fatalf("chain %d: %d of the first %d blocks, prefix %v", i, n, want, prefix)
					}
					counted[nodeName((i+j)%c.nodes)] += n
				}
			}
			for _, n := range ix.Stats().Nodes {
				if n.Blocks.Total() != counted[n.ID] {
					t.Errorf("%s is said to hold %d blocks, and holds %d", n.ID, n.Blocks.Total(), counted[n.ID])
				}
			}
			// What is not kept may be removed all the same.
			mustApply(t, ix, Event{Node: nodeName(0), Incarnation: 1, First: s.Nodes[0].Position + 1,
				Changes: []Change{{Key: chains[0][len(chains[0])-1], Tier: block.Host}}})
		})
	}
	if err := (IndexConfig{MaxBytes: 1}).Validate(); !errors.Is(err, ErrConfig) {
		t.Errorf("a bound of 1 byte: %v", err)
	}
}

// When there is room again, the limit goes, and every node is asked for what was
// forgotten.
func TestRoomBringsBackWhatWasForgotten(t *testing.T) {
	ix, err := NewIndex(IndexConfig{MaxBytes: LeastMaxBytes})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	chains := make([][]block.Key, 64)
	for i := range chains {
		chains[i] = chain(rng, 2000)
	}
	for _, id := range []string{nodeName(0), nodeName(1)} {
		if err := ix.SetNode(NodeInfo{ID: id, Incarnation: 1}); err != nil {
			t.Fatal(err)
		}
	}
	// The first node holds five chains, the second all others.
	feed(t, ix, 2, chains, func(i int) []int { return []int{min(i/5, 1)} })
	for ix.Sweep() {
	}
	before, _ := held(ix, nodeName(0), chains[0])
	if ix.Relax() || before == len(chains[0]) {
		t.Fatalf("memory is not short: %+v", ix.Stats())
	}
	ix.RemoveNode(nodeName(1), 1)
	for ix.Sweep() {
	}
	if !ix.Relax() || ix.Relax() {
		t.Fatal("there is room now, once")
	}
	var gap *GapError
	if err := ix.Apply(Event{Node: nodeName(0), Incarnation: 1, First: 10001}); !errors.As(err, &gap) {
		t.Fatalf("the node is not asked for a snapshot: %v", err)
	}
	var entries []Entry
	for _, keys := range chains[:5] {
		for _, k := range keys {
			entries = append(entries, Entry{Key: k, Tiers: block.MaskOf(block.Host)})
		}
	}
	if err := ix.Load(nodeName(0), 1, 10000, entries); err != nil {
		t.Fatal(err)
	}
	if n, _ := held(ix, nodeName(0), chains[0]); n != len(chains[0]) || ix.Stats().Depth != 0 {
		t.Errorf("%d blocks are known, depth %d", n, ix.Stats().Depth)
	}
}
