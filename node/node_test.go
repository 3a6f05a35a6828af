package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/diskstore"
	"cairn/internal/testseed"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// key is the i-th key of a test, and content its bytes: both follow from i.
func key(i int) block.Key {
	k, err := block.NewKey(i, [block.HashSize]byte{byte(i), byte(i >> 8), 0xca, 0x12})
	if err != nil {
		panic(err)
	}
	return k
}

func content(i, length int) []byte {
	p := make([]byte, length)
	seed := [32]byte{byte(i), byte(i >> 8), byte(i >> 16)}
	rand.NewChaCha8(seed).Read(p)
	return p
}

func put(t *testing.T, n *Node, i int, p coherency.WritePolicy) Placed {
	t.Helper()
	placed, err := n.Put(t.Context(), key(i), block.Key{}, content(i, testBlock), p)
	if err != nil {
		t.Fatalf("put %d: %v", i, err)
	}
	return placed
}

// want checks that the node lends the right bytes of block i, and returns from
// where.
func want(t *testing.T, n *Node, i int, scope Scope) Origin {
	t.Helper()
	loans, _ := n.Read(t.Context(), []block.Key{key(i)}, scope)
	if loans[0] == nil {
		t.Fatalf("block %d is missing", i)
	}
	defer loans[0].Release()
	if !bytes.Equal(loans[0].Bytes, content(i, testBlock)) {
		t.Fatalf("block %d has wrong bytes", i)
	}
	return loans[0].Origin
}

func TestPutThenReadEveryPolicy(t *testing.T) {
	for _, p := range []coherency.WritePolicy{coherency.WriteBack, coherency.WriteThrough, coherency.WriteAll} {
		t.Run(p.String(), func(t *testing.T) {
			c := newMemCluster()
			tiers := testTiers{vram: 4 << 20, host: 4 << 20, disk: 16 << 20}.open(t)
			n, _ := c.join(t, "n1", tiers, nil)
			if placed := put(t, n, 1, p); placed.Existed || placed.Token.Position == 0 {
				t.Errorf("first put: %+v", placed)
			}
			if placed := put(t, n, 1, p); !placed.Existed {
				t.Errorf("second put: %+v", placed)
			}
			if from := want(t, n, 1, Local); from != FromHost {
				t.Errorf("read from %s", from)
			}
			_, onDisk := tiers.Disk.Stat(key(1))
			if p != coherency.WriteBack && !onDisk {
				t.Error("acknowledged, but not on disk")
			}
			if _, inVRAM := tiers.VRAM.Stat(key(1)); p == coherency.WriteAll && !inVRAM {
				t.Error("WriteAll acknowledged, but not in GPU memory")
			}
			if err := n.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s := n.Explain(key(1)); !s.Durable {
				t.Errorf("after Flush: %+v", s)
			}
		})
	}
}

func TestPutOtherBytesUnderOneKeyIsAConflict(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	put(t, n, 1, coherency.WriteBack)
	_, err := n.Put(t.Context(), key(1), block.Key{}, content(2, testBlock), coherency.WriteBack)
	if !errors.Is(err, tier.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
	want(t, n, 1, Local)
}

// A host tier of 16 blocks under 200 blocks of writes: dirty blocks are never
// evicted, the rest is read back from disk, and the directory agrees with the
// tiers at the end.
func TestSmallHostSpillsToDisk(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{vram: 1 << 20, host: 1 << 20, disk: 64 << 20}.open(t)
	// No promotion: a copy on its way would be in a tier and not yet in the directory.
	n, _ := c.join(t, "n1", tiers, func(c *Config) { c.PromoteAfter = 0 })
	const blocks = 200
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < blocks; i += 4 {
				put(t, n, i, coherency.WritePolicy(i%3))
			}
		})
	}
	wg.Wait()
	if err := n.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	origins := map[Origin]int{}
	for range 2 {
		for i := range blocks {
			origins[want(t, n, i, Local)]++
		}
	}
	t.Logf("reads by origin: %v", origins)
	if sum := n.Coherency(); sum.Blocks != blocks || sum.Dirty != 0 || sum.Copies[block.Disk] != blocks || sum.Pending+sum.InFlight != 0 {
		t.Errorf("coherency: %+v", sum)
	}
	if origins[FromDisk] == 0 {
		t.Error("nothing came from disk: the host tier cannot have been too small")
	}
	checkDirectory(t, n)
}

// checkDirectory compares the directory with what the tiers hold and with what
// was announced.
func checkDirectory(t *testing.T, n *Node) {
	t.Helper()
	held := map[block.Key]block.TierMask{}
	for tr, s := range n.stores {
		if s != nil {
			s.All(func(d block.Descriptor) bool {
				if d.Key.Named() {
					return true // these come and go beside the directory's announcements
				}
				held[d.Key] = held[d.Key].With(block.Tier(tr))
				return true
			})
		}
	}
	n.Holdings(func(k block.Key, m block.TierMask) bool {
		if held[k] != m {
			t.Errorf("%s: directory says %s, tiers hold %s", k, m, held[k])
		}
		delete(held, k)
		return true
	})
	for k, m := range held {
		t.Errorf("%s: held by %s, not in the directory", k, m)
	}
	c := n.announcer.(port).c
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, h := range c.holdings {
		if e, _ := n.dir.get(k); e.state.Valid() != h[n.ID()] {
			t.Errorf("%s: announced %s, directory says %s", k, h[n.ID()], e.state.Valid())
		}
	}
}

// statted is GPU memory that calls back when somebody asks whether it has a block.
type statted struct {
	*vram.Pool
	before atomic.Pointer[func()]
}

func (s *statted) Stat(key block.Key) (block.Descriptor, bool) {
	if f := s.before.Load(); f != nil {
		(*f)()
	}
	return s.Pool.Stat(key)
}

func TestBlocksInUseArePromoted(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{vram: 4 << 20, host: 4 << 20}.open(t)
	gpu := &statted{Pool: tiers.VRAM.(*vram.Pool)}
	tiers.VRAM = gpu
	n, _ := c.join(t, "n1", tiers, nil)
	early := func() { // the directory looks before it believes in a copy
		if n.counters.promoted.Load() != 0 {
			t.Error("a block counts as promoted, and is not found in GPU memory yet")
		}
	}
	gpu.before.Store(&early)
	put(t, n, 1, coherency.WriteBack)
	for n.counters.promoted.Load() == 0 {
		want(t, n, 1, Local)
	}
	gpu.before.Store(nil)
	tiers.Host.Delete(key(1)) // as if evicted
	n.dropped(block.Host, key(1))
	if from := want(t, n, 1, Local); from != FromVRAM {
		t.Errorf("read from %s, want vram", from)
	}
}

// When the device goes, its blocks are served from where else they are, and the
// node goes on.
func TestLostDevice(t *testing.T) {
	var lost atomic.Bool
	tiers := testTiers{host: 4 << 20}.open(t)
	dev, err := emulated.New(emulated.Config{Memory: 8 << 20, Hook: func(emulated.Call) error {
		if lost.Load() {
			return tier.ErrDeviceLost
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := vram.Open(dev, vram.Config{Capacity: 4 << 20, Classes: []int{testBlock}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close(); dev.Close() })
	tiers.VRAM = pool
	c := newMemCluster()
	n, _ := c.join(t, "n1", tiers, nil)
	for i := range 10 {
		put(t, n, i, coherency.WriteAll)
	}
	lost.Store(true)
	tiers.Host.Delete(key(0)) // as if evicted: the only copy is on the device
	n.dropped(block.Host, key(0))
	if loans, _ := n.Read(t.Context(), []block.Key{key(0)}, Local); loans[0] != nil {
		t.Error("a block of a lost device was found")
	}
	for i := 1; i < 10; i++ {
		if from := want(t, n, i, Local); from != FromHost {
			t.Errorf("block %d from %s", i, from)
		}
		if s := n.Explain(key(i)); len(s.Here) != 1 {
			t.Errorf("block %d is believed to be in %v", i, s.Here)
		}
	}
	put(t, n, 11, coherency.WriteAll) // goes on without the tier
}

func TestFetchFromPeer(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 8 << 20}.open(t), nil)
	const blocks = 40
	keys := make([]block.Key, blocks)
	for i := range blocks {
		put(t, n1, i, coherency.WriteBack)
		keys[i] = key(i)
	}
	if m := n2.Match(append(keys, key(blocks))); m.Prefix != blocks || m.Local != 0 {
		t.Errorf("match: %+v", m)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			loans, done := n2.Read(t.Context(), keys, Cluster)
			if done != blocks {
				t.Errorf("%d of %d blocks", done, blocks)
			}
			for i, l := range loans {
				if l == nil {
					t.Errorf("block %d is missing", i)
					continue
				}
				if l.Origin != FromPeer || !bytes.Equal(l.Bytes, content(i, testBlock)) {
					t.Errorf("block %d: from %s, or wrong bytes", i, l.Origin)
				}
				l.Release()
			}
		})
	}
	wg.Wait()
	if n2.Holds(key(0)) {
		t.Error("a fetch must not duplicate a block")
	}
	if s := n2.stores[block.Host].Stats(); s.Used != 0 {
		t.Errorf("%d bytes of the host tier are still taken by fetched blocks", s.Used)
	}
}

func TestFetchFallsBackToTheNextHolder(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 4 << 20}.open(t), nil)
	n3, _ := c.join(t, "n3", testTiers{host: 4 << 20}.open(t), nil)
	put(t, n1, 1, coherency.WriteBack)
	put(t, n2, 1, coherency.WriteBack)
	c.mu.Lock()
	c.nodes["n1"].addr = "127.0.0.1:1" // nobody answers there
	c.mu.Unlock()
	if from := want(t, n3, 1, Cluster); from != FromPeer {
		t.Errorf("read from %s", from)
	}
	if n3.counters.peerErrors.Load() == 0 {
		t.Error("the dead peer was not counted")
	}
	// With no holder left it is a miss, not an error.
	c.leave("n2")
	c.leave("n1")
	if loans, _ := n3.Read(t.Context(), []block.Key{key(1)}, Cluster); loans[0] != nil {
		t.Error("a block that nobody has was found")
	}
}

func TestRestartServesTheDiskAgain(t *testing.T) {
	dir := t.TempDir()
	func() {
		disk, err := diskstore.Open(dir, diskstore.Config{Capacity: 64 << 20, SegmentSize: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		tiers := testTiers{host: 4 << 20}.open(t)
		tiers.Disk = disk
		p := port{newMemCluster(), "n1"}
		p.c.nodes["n1"] = &member{}
		n, err := New(Config{ID: "n1"}, tiers, Ports{p, p, p, p})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			put(t, n, i, coherency.WriteBack)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 4 << 20, disk: 64 << 20, dir: dir}.open(t), nil)
	for i := range 100 {
		if from := want(t, n, i, Local); from != FromDisk {
			t.Errorf("block %d came from %s", i, from)
		}
	}
	checkDirectory(t, n)
}

func TestFlippedBitOnDiskIsAMiss(t *testing.T) {
	dir := t.TempDir()
	c := newMemCluster()
	tiers := testTiers{host: 4 << 20, disk: 64 << 20, dir: dir}.open(t)
	n, _ := c.join(t, "n1", tiers, nil)
	put(t, n, 1, coherency.WriteThrough)
	tiers.Host.Delete(key(1))
	n.dropped(block.Host, key(1))
	flipSomewhere(t, dir, content(1, testBlock)[:64])
	if loans, _ := n.Read(t.Context(), []block.Key{key(1)}, Local); loans[0] != nil {
		t.Fatal("a block with a flipped bit was served")
	}
	if n.Holds(key(1)) {
		t.Error("the directory still believes in the corrupt copy")
	}
	put(t, n, 1, coherency.WriteThrough) // and the node can store it again
	want(t, n, 1, Local)
}

// flipSomewhere flips one bit behind the given bytes in a file below dir.
func flipSomewhere(t *testing.T, dir string, marker []byte) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := dir + "/" + f.Name()
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(p, marker); i >= 0 {
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if _, err := file.WriteAt([]byte{p[i+100] ^ 4}, int64(i+100)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the block's bytes are in no file")
}

// With a full disk a node goes on as a cache in memory: WriteBack succeeds,
// WriteThrough says why not, and once there is room blocks become durable again.
func TestFullDisk(t *testing.T) {
	var full atomic.Bool
	full.Store(true)
	c := newMemCluster()
	tiers := testTiers{host: 2 << 20, disk: 64 << 20, noSpace: &full}.open(t)
	n, _ := c.join(t, "n1", tiers, nil)
	for i := range 100 { // three times the host tier
		put(t, n, i, coherency.WriteBack)
	}
	want(t, n, 99, Local)
	_, err := n.Put(t.Context(), key(100), block.Key{}, content(100, testBlock), coherency.WriteThrough)
	if !errors.Is(err, tier.ErrNoSpace) {
		t.Errorf("WriteThrough on a full disk: %v", err)
	}
	if err := n.Flush(t.Context()); !errors.Is(err, tier.ErrNoSpace) {
		t.Errorf("flush to a full disk: %v", err)
	}
	if s := n.Status(); s.Trouble == "" || s.OffloadErrors == 0 {
		t.Errorf("the status does not tell: %+v", s)
	}
	full.Store(false)
	if err := n.Flush(t.Context()); err != nil {
		t.Errorf("flush with room again: %v", err)
	}
	if s := n.Explain(key(99)); !s.Durable {
		t.Errorf("flushed with room again: %+v", s)
	}
	put(t, n, 101, coherency.WriteThrough)
	if s := n.Explain(key(101)); !s.Durable {
		t.Errorf("with room again: %+v", s)
	}
	// Who puts a block that is here already gets what the policy says, too.
	if placed := put(t, n, 99, coherency.WriteThrough); !placed.Existed {
		t.Errorf("block 99 was stored again: %+v", placed)
	}
	if s := n.Explain(key(99)); !s.Durable {
		t.Errorf("a block that was in memory only, put again by WriteThrough: %+v", s)
	}
}

// A WriteThrough put of a block that is on its way home already ends when it is there,
// not before, however many there are.
func TestWriteThroughTogether(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 16 << 20, disk: 64 << 20}.open(t), nil)
	for i := range 50 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := n.Put(t.Context(), key(i), block.Key{}, content(i, testBlock), coherency.WriteThrough); err != nil {
					t.Error(err)
				}
				if s := n.Explain(key(i)); !s.Durable {
					t.Errorf("block %d was put, and is not durable: %+v", i, s)
				}
			})
		}
		wg.Go(func() { put(t, n, i, coherency.WriteBack) })
		wg.Wait()
	}
	if err := n.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := n.host.Stats(); s.Pinned != 0 {
		t.Errorf("%d blocks are still pinned", s.Pinned)
	}
}

func TestTooLargeIsRefusedAtOnce(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), func(c *Config) { c.MaxBlock = 1 << 20 })
	if _, err := n.Reserve(t.Context(), 1<<20+1); !errors.Is(err, tier.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestEverySlotPinnedIsATypedError(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 1 << 20}.open(t), func(c *Config) { c.PutWait = time.Millisecond })
	var held []*Incoming
	defer func() {
		for _, in := range held {
			in.Abort()
		}
	}()
	for {
		in, err := n.Reserve(t.Context(), testBlock)
		if err != nil {
			if !errors.Is(err, tier.ErrFull) {
				t.Errorf("got %v, want ErrFull", err)
			}
			return
		}
		if held = append(held, in); len(held) > 1000 {
			t.Fatal("the host tier has no bound")
		}
	}
}

// A write that finds every slot lent to readers goes on as soon as one lets go.
func TestPutGoesOnWhenAReaderLetsGo(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 1 << 20}.open(t), func(c *Config) { c.PutWait = time.Minute })
	var loans []*Loan
	for i := 0; ; i++ {
		in, err := n.tryReserve(t.Context(), testBlock)
		if errors.Is(err, tier.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		copy(in.Bytes(), content(i, testBlock))
		if _, err := in.Commit(t.Context(), key(i), block.Key{}, coherency.WriteBack); err != nil {
			t.Fatal(err)
		}
		l, _ := n.Read(t.Context(), []block.Key{key(i)}, Local)
		loans = append(loans, l[0])
	}
	stored := make(chan error)
	go func() {
		_, err := n.Put(context.Background(), key(1000), block.Key{}, content(1000, testBlock), coherency.WriteBack)
		stored <- err
	}()
	for n.counters.putWaits.Load() == 0 {
		runtime.Gosched()
	}
	for _, l := range loans {
		l.Release()
	}
	if err := <-stored; err != nil {
		t.Error(err)
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	err := Config{ID: "a b", Namespaces: []Namespace{{Name: "x"}, {Name: "x"}, {Name: ""}}, MaxBatch: -1}.Validate()
	for _, part := range []string{`node id "a b"`, `"x" is listed twice`, `namespace ""`, "max-batch -1"} {
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(part)) {
			t.Errorf("the error does not mention %s: %v", part, err)
		}
	}
}

// Many clients put, read and remove the same blocks on two nodes. Whatever is
// read has the right bytes.
func TestConcurrentUse(t *testing.T) {
	c := newMemCluster()
	var nodes []*Node
	for i := range 2 {
		n, _ := c.join(t, fmt.Sprintf("n%d", i), testTiers{vram: 1 << 20, host: 1 << 20, disk: 16 << 20}.open(t), nil)
		nodes = append(nodes, n)
	}
	const blocks, rounds = 60, 150
	seed := testseed.Of(t)
	var wg sync.WaitGroup
	for w := range 6 {
		rng := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			for range rounds {
				n, i := nodes[rng.IntN(2)], rng.IntN(blocks)
				switch op := rng.IntN(10); {
				case op < 4:
					policy := coherency.WritePolicy(rng.IntN(3))
					if _, err := n.Put(context.Background(), key(i), block.Key{}, content(i, testBlock), policy); err != nil {
						t.Errorf("put %d: %v", i, err)
					}
				case op < 9:
					loans, _ := n.Read(context.Background(), []block.Key{key(i)}, Cluster)
					if l := loans[0]; l != nil {
						if !bytes.Equal(l.Bytes, content(i, testBlock)) {
							t.Errorf("block %d from %s has wrong bytes", i, l.Origin)
						}
						l.Release()
					}
				default:
					n.Remove(key(i))
				}
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		if err := n.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
