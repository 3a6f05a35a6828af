package node

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"cairn/block"
	"cairn/coherency"
	"cairn/hostcache"
	"cairn/internal/testseed"
	"cairn/tier"
)

// treeKey is the key of block i of a tree in which each block has up to three children,
// and that of its parent.
func treeKey(i int) (k, parent block.Key) {
	at := func(i int) block.Key {
		depth := 0
		for j := i; j > 0; j = (j - 1) / 3 {
			depth++
		}
		k, err := block.NewKey(depth, [block.HashSize]byte{byte(i), byte(i >> 8), 0x7e, 0xee})
		if err != nil {
			panic(err)
		}
		return k
	}
	if i > 0 {
		parent = at((i - 1) / 3)
	}
	return at(i), parent
}

// putTree puts block i of the tree, which has the bytes of content.
func putTree(t *testing.T, n *Node, i int, p coherency.WritePolicy) {
	t.Helper()
	k, parent := treeKey(i)
	if _, err := n.Put(t.Context(), k, parent, content(i, testBlock), p); err != nil {
		t.Fatalf("put block %d: %v", i, err)
	}
}

// Children are found whatever the order in which they came and went.
func TestFamilies(t *testing.T) {
	seed := testseed.Of(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	f := new(families)
	var parents [5]block.Key
	model := map[block.Key][]block.Key{}
	for i := range parents {
		parents[i] = key(i)
	}
	for range 5000 {
		p := parents[rng.IntN(len(parents))]
		k := key(100 + rng.IntN(200))
		if i := slices.Index(model[p], k); i >= 0 {
			f.unlink(k, p)
			model[p] = slices.Delete(model[p], i, i+1)
		} else if !slices.ContainsFunc(parents[:], func(o block.Key) bool { return slices.Contains(model[o], k) }) {
			f.link(k, p)
			model[p] = append(model[p], k)
		}
		for _, p := range parents {
			newest, ok := f.child(p)
			if want := model[p]; ok != (len(want) > 0) || ok && newest != want[len(want)-1] {
				t.Fatalf("the newest child is %s, %v; the model has %v", newest, ok, want)
			}
		}
	}
	for p, list := range model {
		for _, k := range list {
			f.unlink(k, p)
		}
	}
	for i := range f {
		if len(f[i].newest)+len(f[i].siblings) > 0 {
			t.Fatalf("%d parents and %d siblings are left", len(f[i].newest), len(f[i].siblings))
		}
	}
}

// checkClosed fails when the node, or what it has announced, has a block of the tree
// without its parent.
func checkClosed(t *testing.T, c *memCluster, n *Node, blocks int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 1; i < blocks; i++ {
		k, parent := treeKey(i)
		if n.Holds(k) && !n.Holds(parent) {
			t.Fatalf("the node holds block %d without the one before it", i)
		}
		if c.holdings[k][n.ID()].Any() && !c.holdings[parent][n.ID()].Any() {
			t.Fatalf("the node has announced block %d and not the one before it", i)
		}
	}
}

// A node under any load, with tiers that are all too small and whatever is removed or
// read, never holds a block that it had with its parent without it.
func TestNodeHoldsWholePrefixes(t *testing.T) {
	var followers int64
	for name, tt := range map[string]testTiers{
		"host": {host: 2 << 20}, "vram, host": {vram: 1 << 20, host: 2 << 20},
		"host, disk": {host: 2 << 20, disk: 8 << 20}, "vram, host, disk": {vram: 1 << 20, host: 2 << 20, disk: 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			seed := testseed.Of(t)
			rng := rand.New(rand.NewPCG(seed, 0))
			c := newMemCluster()
			n, _ := c.join(t, "n1", tt.open(t), noDemoter)
			const blocks = 400
			for step := range 600 {
				i := rng.IntN(blocks)
				k, _ := treeKey(i)
				switch op := rng.IntN(20); {
				case op < 13:
					// From the first block on, as far as there is room for all of it.
					var path []int
					for j := i; j > 0; j = (j - 1) / 3 {
						path = append(path, j)
					}
					for _, j := range slices.Backward(append(path, 0)) {
						if _, parent := treeKey(j); j == 0 || n.Holds(parent) {
							putTree(t, n, j, coherency.WritePolicy(rng.IntN(3)))
							// What goes home meanwhile could push out the parent of the next.
							if err := n.Flush(t.Context()); err != nil {
								t.Fatal(err)
							}
						}
					}
				case op < 18:
					if loans, _ := n.Read(t.Context(), []block.Key{k}, Local); loans[0] != nil {
						if !bytes.Equal(loans[0].Bytes, content(i, testBlock)) {
							t.Fatalf("step %d: block %d has wrong bytes", step, i)
						}
						loans[0].Release()
					}
				case op == 18:
					n.Remove(k)
					n.demoter.look(t.Context(), 0.5, 0.1)
				default: // a tier loses it, as when its bytes have rotted
					for _, s := range n.stores {
						if s != nil {
							s.Delete(k)
						}
					}
					for at := range n.stores {
						n.dropped(block.Tier(at), k)
					}
				}
				if err := n.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkClosed(t, c, n, blocks)
			}
			followers += n.Status().Followers
		})
	}
	if followers == 0 {
		t.Error("no block was dropped for the loss of one before it: the test tests little")
	}
}

// A block that others follow leaves after them, announced in that order; what a sequence
// has pinned stays.
func TestLossTakesWhatFollows(t *testing.T) {
	c := newMemCluster()
	n, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	for i := range 13 { // the root, 3 children, 9 grandchildren
		putTree(t, n, i, coherency.WriteBack)
	}
	root, _ := treeKey(0)
	one, _ := treeKey(1)
	if got := n.Remove(one); got != 1 {
		t.Errorf("Remove of one key gives %d", got)
	}
	for i := range 13 {
		k, _ := treeKey(i)
		if want := i != 1 && (i < 4 || i > 6); n.Holds(k) != want {
			t.Errorf("block %d is held: %v", i, !want)
		}
	}
	checkClosed(t, c, n, 13)
	if s := n.Status(); s.Followers != 3 {
		t.Errorf("%d blocks were dropped because one before them left, want 3", s.Followers)
	}

	two, _ := treeKey(2)
	if err := n.sequences.take(block.Host, two, testBlock); err != nil {
		t.Fatal(err)
	}
	n.Remove(root)
	if n.Holds(root) || !n.Holds(two) {
		t.Error("the root must go and what a sequence has pinned stay")
	}
	n.sequences.give(block.Host, two, false)
}

// The last copy of a block that others follow is not what a tier evicts, as long as it
// has another choice.
func TestWhatIsNeededStays(t *testing.T) {
	tiers := testTiers{host: 2 << 20, disk: 64 << 20}.open(t)
	n, _ := newMemCluster().join(t, "n1", tiers, nil)
	for i := range 4 {
		putTree(t, n, i, coherency.WriteThrough)
	}
	root, _ := treeKey(0)
	for i := 1; i < 4; i++ { // only on disk
		k, _ := treeKey(i)
		tiers.Host.Delete(k)
		n.dropped(block.Host, k)
	}
	tiers.Disk.Delete(root) // only in host memory
	n.dropped(block.Disk, root)
	for i := range 100 {
		put(t, n, 1000+i, coherency.WriteThrough)
	}
	for i := range 4 {
		if k, _ := treeKey(i); !n.Holds(k) {
			t.Errorf("block %d is gone", i)
		}
	}
}

// A block that may be changing is not given away: what follows it would go with it, even if a
// peer holds the block itself.
func TestHintOfABlockThatChanges(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	put(t, n, 1, coherency.WriteBack)
	s := &n.dir.shards[shardOf(key(1))]
	s.mu.Lock()
	got := n.hint(block.Host, key(1), everywhere{})
	s.mu.Unlock()
	if got != tier.Needed {
		t.Errorf("while it changes: hint %d, want %d", got, tier.Needed)
	}
	if got := n.hint(block.Host, key(1), everywhere{}); got != tier.Copied {
		t.Errorf("nothing follows it, and a peer holds it: hint %d, want %d", got, tier.Copied)
	}
}

// everywhere holds every block.
type everywhere struct{}

func (everywhere) Held(block.Key) bool { return true }

// A hint costs little beside the copy that it may save: it neither allocates nor waits.
func BenchmarkHint(b *testing.B) {
	host, err := hostcache.Open(hostcache.Config{Capacity: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { host.Close() })
	c := newMemCluster()
	n, _ := c.join(b, "n1", Tiers{Host: host}, nil)
	state, err := coherency.New(block.Host, block.Host)
	if err != nil {
		b.Fatal(err)
	}
	const blocks = 1 << 17
	for i := range blocks {
		k, parent := treeKey(i)
		n.dir.change(k, func(e *entry, _ bool) { *e = newEntry(block.Descriptor{Key: k, Parent: parent}, state) })
	}
	keys := make([]block.Key, blocks)
	for i := range keys {
		keys[i], _ = treeKey(i * 7919 % blocks)
	}
	needed := 0
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if n.hint(block.Host, keys[i%blocks], nil)&tier.Needed != 0 {
			needed++
		}
		i++
	}
	if needed == 0 {
		b.Error("no block is needed")
	}
}
