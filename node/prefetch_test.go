package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/coherency"
	"cairn/sequence"
)

// never is longer than any test: what is held is let go of for another reason.
const never = time.Hour

func holdLong(c *Config) { c.PrefetchHold = never }

// prefetched asks for blocks ahead and waits for the end.
func prefetched(t testing.TB, n *Node, to block.Tier, keys []block.Key) {
	t.Helper()
	done, err := n.Prefetch(PrefetchSpec{Tier: to, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	<-done
}

// until waits for a condition that something in the background brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// unpinned waits until the offload has let go of what has become durable: it would unpin
// what comes in its place.
func unpinned(t testing.TB, n *Node) {
	t.Helper()
	until(t, "the end of the offload", func() bool { return n.stores[block.Host].Stats().Pinned == 0 })
}

func letGoOfAll(n *Node) {
	n.prefetches.giveWay(func() bool { return true })
}

func TestPrefetch(t *testing.T) {
	for _, to := range []block.Tier{block.Host, block.VRAM} {
		t.Run(to.String(), func(t *testing.T) {
			c := newMemCluster()
			n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
			n2, _ := c.join(t, "n2", testTiers{vram: 8 << 20, host: 8 << 20, disk: 16 << 20}.open(t), holdLong)
			const blocks = 30
			putRange(t, n1, 0, 20)
			putRange(t, n2, 20, blocks)
			unpinned(t, n2)
			for i := 20; i < blocks; i++ {
				evict(n2, block.Host, i)
			}
			prefetched(t, n2, to, seqKeys(blocks+3))
			wantHeld(t, n2, to, 0, blocks)
			wantPinned(t, n2, to, blocks)
			st := n2.Status()
			if p := st.Prefetch; p.Asked != 1 || p.Ended != 1 || p.Held != 1 || p.Blocks["peer"] != 20 || p.Blocks["disk"] != 10 ||
				p.Bytes["peer"] != 20*testBlock || p.Pinned[to.String()] != blocks*testBlock {
				t.Errorf("status: %+v", p)
			}
			if q := st.Sequences; q.Open != 0 || q.Onboards != 0 || q.Missed != 0 || q.Pinned[0].Blocks+q.Pinned[1].Blocks != 0 || st.Misses != 0 {
				t.Errorf("a prefetch counts as a sequence: %+v, %d misses", q, st.Misses)
			}
			s := openSequence(t, n2, blocks)
			if got := onboard(t, s, to, sequence.Range{}); got.Blocks[to] != blocks || got.Range.End != blocks {
				t.Errorf("the request found %+v", got)
			}
			if p := n2.Status().Prefetch; p.Used != blocks || p.Pinned[to.String()] != 0 {
				t.Errorf("status with the request: %+v", p)
			}
			letGoOfAll(n2)
			wantPinned(t, n2, to, blocks) // by the request
			s.Close()
			nothingLeft(t, n2)
			wantHeld(t, n2, to, 0, blocks) // an ordinary part of the cache
		})
	}
}

// What GPU memory has is pinned there rather than copied into host memory.
func TestPrefetchLeavesGPUMemory(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{vram: 8 << 20, host: 8 << 20}.open(t), holdLong)
	putRange(t, n1, 0, 20)
	s := openSequence(t, n2, 10)
	onboard(t, s, block.VRAM, sequence.Range{})
	s.Close()
	prefetched(t, n2, block.Host, seqKeys(20))
	wantPinned(t, n2, block.VRAM, 10)
	wantPinned(t, n2, block.Host, 10)
	wantHeld(t, n2, block.Host, 10, 20)
	if where := n2.Explain(key(3)).Here; len(where) != 1 || where[0] != block.VRAM {
		t.Errorf("block 3 is said to be in %v", where)
	}
	letGoOfAll(n2)
	nothingLeft(t, n2)
}

func TestPrefetchHoldEnds(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 8 << 20}.open(t), func(c *Config) { c.PrefetchHold = time.Millisecond })
	putRange(t, n1, 0, 10)
	prefetched(t, n2, block.Host, seqKeys(10))
	until(t, "the end of the hold", func() bool { return n2.Status().Prefetch.Held == 0 && n2.stores[block.Host].Stats().Pinned == 0 })
	nothingLeft(t, n2)
	if st := n2.Status().Prefetch; st.GaveWay != 0 {
		t.Errorf("status: %+v", st)
	}
	wantHeld(t, n2, block.Host, 0, 10)
}

// A request that comes while its blocks are being fetched ahead fetches none of them again,
// whatever tier it wants them in.
func TestOnboardJoinsAPrefetch(t *testing.T) {
	for _, to := range []block.Tier{block.Host, block.VRAM} {
		t.Run(to.String(), func(t *testing.T) {
			g := newGated(t, 8, 4) // one transfer
			done, err := g.n2.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(8)})
			if err != nil {
				t.Fatal(err)
			}
			<-g.gate.reached
			s := openSequence(t, g.n2, 8)
			got := make(chan result, 1)
			go func() {
				o, err := s.Onboard(t.Context(), to, sequence.Range{})
				got <- result{o, err}
			}()
			until(t, "the onboard", func() bool { return s.Status().Busy })
			close(g.gate.open)
			<-done
			r := <-got
			if r.err != nil || r.got.Range.End != 8 || r.got.Blocks[FromPeer] != 0 {
				t.Errorf("got %+v, %v", r.got, r.err)
			}
			if p := g.n2.Status().Prefetch; p.Blocks["peer"] != 8 {
				t.Errorf("status: %+v", p)
			}
			s.Close()
			letGoOfAll(g.n2)
			nothingLeft(t, g.n2)
		})
	}
}

// Sequences are never refused because of prefetches, whether these hold blocks or are on
// their way.
func TestPrefetchGivesWayToSequences(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%t", running), func(t *testing.T) {
			g := newGated(t, 40, 12)
			limits := func(c *Config) {
				holdLong(c)
				c.SequencePins, c.PrefetchPins, c.SequenceBatch = .5, .5, 4
			}
			n3, _ := g.c.join(t, "n3", testTiers{host: 2 << 20}.open(t), limits) // 32 blocks, 16 of them for pins
			if !running {
				close(g.gate.open)
			}
			done, err := n3.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(16)})
			if err != nil {
				t.Fatal(err)
			}
			if running {
				<-g.gate.reached
				until(t, "the batches before", func() bool { return n3.Status().Prefetch.Pinned["host"] == 12*testBlock })
			} else {
				<-done
				wantPinned(t, n3, block.Host, 16)
			}
			var keys []block.Key
			parent := block.Key{}
			for i := range 16 {
				k := block.Key{2: byte(i), 15: 0xee}
				payload := content(100+i, testBlock)
				if _, err := n3.Put(t.Context(), k, parent, payload, coherency.WriteBack); err != nil {
					t.Fatal(err)
				}
				keys, parent = append(keys, k), k
			}
			s, err := n3.OpenSequence(SequenceSpec{Keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			got := onboard(t, s, block.Host, sequence.Range{})
			if got.Range.End != 16 || got.Missing != "" {
				t.Errorf("the sequence got %+v", got)
			}
			wantPinned(t, n3, block.Host, 16)
			if running {
				close(g.gate.open)
				<-done
			}
			wantPinned(t, n3, block.Host, 16)
			if st := n3.Status(); st.Prefetch.GaveWay != 1 || st.Prefetch.Held != 0 || st.Sequences.RefusedPins != 0 {
				t.Errorf("status: %+v, %+v", st.Prefetch, st.Sequences)
			}
			s.Close()
			nothingLeft(t, n3)
		})
	}
}

// A put finds room where only prefetches keep blocks.
func TestPrefetchGivesWayToPuts(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 1 << 20}.open(t), func(c *Config) {
		holdLong(c)
		c.SequencePins, c.PrefetchPins, c.PutWait = 1, 1, never
	})
	putRange(t, n1, 0, 16)
	prefetched(t, n2, block.Host, seqKeys(16))
	wantPinned(t, n2, block.Host, 16)
	put(t, n2, 20, coherency.WriteBack)
	if st := n2.Status(); st.PutWaits != 0 || st.Prefetch.GaveWay != 1 {
		t.Errorf("%d waits, %+v", st.PutWaits, st.Prefetch)
	}
	nothingLeft(t, n2)
}

func TestPrefetchBounds(t *testing.T) {
	g := newGated(t, 40, 2)
	n3, _ := g.c.join(t, "n3", testTiers{host: 8 << 20}.open(t), func(c *Config) {
		holdLong(c)
		c.Prefetches, c.PrefetchQueue, c.PrefetchPins, c.SequenceBlocks = 1, 2, 16.0/128, 40
	})
	first, err := n3.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(8)})
	if err != nil {
		t.Fatal(err)
	}
	<-g.gate.reached
	for range 2 {
		if _, err := n3.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(8)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n3.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(8)}); !errors.Is(err, ErrPrefetchQueue) {
		t.Errorf("the queue took one more: %v", err)
	}
	full, stop := context.WithCancel(t.Context())
	stop()
	if here, err := n3.PrefetchWait(full, PrefetchSpec{Tier: block.Host, Keys: seqKeys(8)}); here != 0 || err != nil {
		t.Errorf("who waits for the queue: %d, %v", here, err)
	}
	if st := n3.Status().Prefetch; st.Dropped != 2 || st.Waiting != 2 || st.Asked != 5 {
		t.Errorf("status: %+v", st)
	}
	close(g.gate.open)
	<-first
	until(t, "the end of all", func() bool { return n3.Status().Prefetch.Ended == 3 })
	if st := n3.Status().Prefetch; st.Held > 2 { // of the same blocks
		t.Errorf("status: %+v", st)
	}
	letGoOfAll(n3)

	// Beyond their share of the tier they take what is nearest to the start.
	prefetched(t, n3, block.Host, seqKeys(40))
	wantPinned(t, n3, block.Host, 16)
	wantHeld(t, n3, block.Host, 0, 16)
	letGoOfAll(n3)
	nothingLeft(t, n3)

	for _, wrong := range []struct {
		to   block.Tier
		keys []block.Key
		want error
	}{
		{block.Disk, seqKeys(2), ErrNoTier},
		{block.VRAM, seqKeys(2), ErrNoTier},
		{block.Host, seqKeys(41), ErrSequenceLimit},
		{block.Host, []block.Key{key(1)}, ErrPosition},
	} {
		if _, err := n3.Prefetch(PrefetchSpec{Tier: wrong.to, Keys: wrong.keys}); !errors.Is(err, wrong.want) {
			t.Errorf("%d keys to %s: %v", len(wrong.keys), wrong.to, err)
		}
	}
}

// A peer that dies costs a prefetch the blocks that nobody else has, and nothing else.
func TestPrefetchFromADyingPeer(t *testing.T) {
	g := newGated(t, 20, 4)
	done, err := g.n2.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(20)})
	if err != nil {
		t.Fatal(err)
	}
	<-g.gate.reached
	crashed := make(chan struct{})
	go func() {
		g.c.crash("n1")
		close(crashed)
	}()
	<-done
	close(g.gate.open)
	<-crashed
	letGoOfAll(g.n2)
	nothingLeft(t, g.n2)
	if m := g.n2.Status().Misses; m != 0 {
		t.Errorf("%d misses are counted that nobody had", m)
	}
}

// A node that stops ends its prefetches, those that wait and those on their way.
func TestCloseEndsPrefetches(t *testing.T) {
	g := newGated(t, 20, 4)
	n3, _ := g.c.join(t, "n3", testTiers{host: 8 << 20}.open(t), func(c *Config) { holdLong(c); c.Prefetches = 1 })
	running, err := n3.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(20)})
	if err != nil {
		t.Fatal(err)
	}
	<-g.gate.reached
	waiting, err := n3.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(20)})
	if err != nil {
		t.Fatal(err)
	}
	late, err := n3.newPrefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(20)})
	if err != nil {
		t.Fatal(err)
	}
	g.c.crash("n3")
	<-running
	<-waiting
	close(g.gate.open)
	wantPinned(t, n3, block.Host, 0)
	if st := n3.Status().Prefetch; st.Held != 0 || st.Waiting != 0 {
		t.Errorf("status: %+v", st)
	}
	if _, err := n3.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(20)}); !errors.Is(err, ErrClosed) {
		t.Errorf("afterwards: %v", err)
	}
	if _, err := n3.PrefetchWait(t.Context(), PrefetchSpec{Tier: block.Host, Keys: seqKeys(20)}); !errors.Is(err, ErrClosed) {
		t.Errorf("afterwards: %v", err)
	}
	if err := n3.prefetches.enqueue(late); !errors.Is(err, ErrClosed) { // it would wait for ever
		t.Errorf("what was asked for just before: %v", err)
	}
}

func TestPrefetchCommand(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, addr := c.join(t, "n2", testTiers{host: 8 << 20}.open(t), holdLong)
	putRange(t, n1, 0, 5)
	conn := dialNode(t, addr)
	command := func(line string, from, to int) string {
		words := strings.Fields(line)
		for i := from; i < to; i++ {
			words = append(words, key(i).String())
		}
		return ask(t, conn, words...)
	}
	if got := command("CAIRN.PREFETCH host WAIT 20000", 0, 7); got != "5" {
		t.Errorf("with WAIT: %s", got)
	}
	wantHeld(t, n2, block.Host, 0, 5)
	wantPinned(t, n2, block.Host, 5)
	if got := command("CAIRN.PREFETCH host", 0, 7); got != "7" {
		t.Errorf("without: %s", got)
	}
	until(t, "the second", func() bool { return n2.Status().Prefetch.Ended == 2 })
	if got := command("cairn.prefetch host wait 0", 0, 2); got != "2" {
		t.Errorf("with WAIT 0: %s", got)
	}
	for _, wrong := range []struct {
		line     string
		from, to int
		want     string
	}{
		{"CAIRN.PREFETCH host", 0, 0, "ERR wrong number"},
		{"CAIRN.PREFETCH host WAIT 5", 0, 0, "ERR CAIRN.PREFETCH: want vram or host"},
		{"CAIRN.PREFETCH host WAIT x", 0, 1, "ERR value is not an integer"},
		{"CAIRN.PREFETCH disk", 0, 1, "ERR no such tier for sequences"},
		{"CAIRN.PREFETCH vram", 0, 1, "ERR no such tier for sequences"},
		{"CAIRN.PREFETCH moon", 0, 1, "ERR "},
		{"CAIRN.PREFETCH host", 1, 2, "ERR position outside"},
		{"CAIRN.PREFETCH host x", 0, 0, "ERR "},
	} {
		if got := command(wrong.line, wrong.from, wrong.to); !strings.HasPrefix(got, wrong.want) {
			t.Errorf("%s: %q, want %q", wrong.line, got, wrong.want)
		}
	}
	if st := n2.Status().Prefetch; st.Asked != 3 || st.Dropped != 0 {
		t.Errorf("status: %+v", st)
	}
}

// What a router has had fetched ahead is only for that request: it leaves when that is
// over, unless it is fetched for the second time, or nobody else has it any more.
func TestPassingPrefetch(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 8 << 20, disk: 16 << 20}.open(t), func(c *Config) {
		c.PrefetchHold, c.KeepWithin = time.Millisecond, never
	})
	putRange(t, n1, 0, 15)
	putRange(t, n2, 15, 20)
	unpinned(t, n2)
	for i := 15; i < 20; i++ {
		evict(n2, block.Host, i)
	}
	ahead := func(keys int) {
		t.Helper()
		done, err := n2.Prefetch(PrefetchSpec{Tier: block.Host, Keys: seqKeys(keys), Passing: true})
		if err != nil {
			t.Fatal(err)
		}
		<-done
		until(t, "the end of the hold", func() bool { return n2.Status().Prefetch.Held == 0 && n2.stores[block.Host].Stats().Pinned == 0 })
	}
	held := func(from, to int) int {
		count := 0
		for i := from; i < to; i++ {
			if _, ok := n2.stores[block.Host].Stat(key(i)); ok {
				count++
			}
		}
		return count
	}
	ahead(10)
	until(t, "the blocks leave", func() bool { return held(0, 10) == 0 && !n2.Holds(key(0)) })
	checkDirectory(t, n2)
	ahead(10) // again
	wantHeld(t, n2, block.Host, 0, 10)

	n1.Remove(key(12)) // while n2 has it
	ahead(20)
	until(t, "what came first leaves", func() bool { return held(10, 12) == 0 && !n2.Holds(key(10)) })
	if held(0, 10) != 10 {
		t.Errorf("what was fetched twice has left: %d of 10 are there", held(0, 10))
	}
	checkDirectory(t, n2)
	wantPinned(t, n2, block.Host, 0)
}

// A copy of what comes from peers is kept from the second time on, behind the block before
// it.
func TestKeepAgain(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 8 << 20}.open(t), func(c *Config) { c.KeepWithin = never })
	n3, _ := c.join(t, "n3", testTiers{host: 8 << 20}.open(t), nil) // keeps nothing
	for i := range 10 {
		parent := block.Key{}
		if i > 0 {
			parent = key(i - 1)
		}
		if _, err := n1.Put(t.Context(), key(i), parent, content(i, testBlock), coherency.WriteBack); err != nil {
			t.Fatal(err)
		}
	}
	read := func(n *Node, keys []block.Key) {
		t.Helper()
		loans, done := n.Read(t.Context(), keys, Cluster)
		if done != len(keys) {
			t.Fatalf("%d of %d were read", done, len(keys))
		}
		for i, l := range loans {
			if l == nil {
				t.Fatalf("block %d is missing", i)
			}
			l.Release()
		}
	}
	read(n2, seqKeys(10)[5:])
	read(n2, seqKeys(10)[5:])
	if n := n2.Status().Blocks; n != 0 {
		t.Errorf("%d blocks are kept without those before them", n)
	}
	read(n2, seqKeys(4))
	if n := n2.Status().Blocks; n != 0 {
		t.Errorf("%d blocks are kept the first time", n)
	}
	read(n2, seqKeys(10))
	wantHeld(t, n2, block.Host, 0, 4)
	if st := n2.Status(); st.KeptCopies < 4 || st.Blocks != st.KeptCopies {
		t.Errorf("status: %d copies, %d blocks", st.KeptCopies, st.Blocks)
	}
	for range 3 {
		read(n3, seqKeys(10))
	}
	if n := n3.Status().Blocks; n != 0 {
		t.Errorf("%d blocks are kept although none should", n)
	}
	nothingLeft(t, n2)
	nothingLeft(t, n3)
}

func TestRecentForgets(t *testing.T) {
	r := recent{within: 10 * time.Second}
	start := time.Unix(1000, 0)
	for _, step := range []struct {
		at    time.Duration
		block int
		again bool
	}{
		{0, 1, false}, {time.Second, 1, true}, {5 * time.Second, 2, false}, {6 * time.Second, 1, true},
		{13 * time.Second, 1, true}, {24 * time.Second, 1, false}, {time.Hour, 1, false}, {time.Hour, 1, true},
	} {
		if got := r.note(key(step.block), start.Add(step.at)); got != step.again {
			t.Errorf("block %d after %v: %t", step.block, step.at, got)
		}
	}
	for i := range 3 * mostRecent {
		r.note(key(i), start.Add(2*time.Hour))
	}
	if n := len(r.young) + len(r.old); n > 2*mostRecent {
		t.Errorf("%d blocks are remembered", n)
	}
	if (&recent{}).note(key(1), start) {
		t.Error("without a time, something is remembered")
	}
}

func TestPrefetchThroughTheClient(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, addr := c.join(t, "n2", testTiers{host: 8 << 20}.open(t), holdLong)
	putRange(t, n1, 0, 5)
	cl, err := client.Open(t.Context(), client.Config{Nodes: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	to, err := cl.Node(addr)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := to.Prefetch(t.Context(), block.Host, seqKeys(7), 20*time.Second); n != 5 || err != nil {
		t.Errorf("with patience: %d, %v", n, err)
	}
	wantPinned(t, n2, block.Host, 5)
	if n, err := to.Prefetch(t.Context(), block.Host, seqKeys(7), 0); n != 7 || err != nil {
		t.Errorf("without: %d, %v", n, err)
	}
	if _, err := to.Prefetch(t.Context(), block.Disk, seqKeys(7), 0); err == nil {
		t.Error("to disk: no error")
	}
}

// Where sequences pin all that may be pinned, a prefetch brings nothing, and costs nobody
// anything.
func TestPrefetchBesideFullPins(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 2 << 20}.open(t), holdLong) // 32 blocks, 16 of them for pins
	putRange(t, n1, 0, 16)
	s := openSequence(t, n2, 16)
	if got := onboard(t, s, block.Host, sequence.Range{}); got.Range.End != 16 {
		t.Fatalf("onboarded: %+v", got)
	}
	var keys []block.Key
	for i := range 4 {
		k, err := block.NewKey(i, [block.HashSize]byte{0xbb, byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n1.Put(t.Context(), k, block.Key{}, content(50+i, testBlock), coherency.WriteBack); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	prefetched(t, n2, block.Host, keys)
	wantPinned(t, n2, block.Host, 16)
	if st := n2.Status(); st.Prefetch.Blocks["peer"] != 0 || st.Prefetch.GaveWay != 0 || st.Sequences.RefusedPins != 0 || st.Misses != 0 {
		t.Errorf("status: %+v, %+v, %d misses", st.Prefetch, st.Sequences, st.Misses)
	}
	s.Close()
	prefetched(t, n2, block.Host, keys)
	wantPinned(t, n2, block.Host, 4)
	letGoOfAll(n2)
	nothingLeft(t, n2)
}
