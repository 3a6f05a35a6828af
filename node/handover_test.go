package node

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/hostcache"
	"cairn/sequence"
	"cairn/tier"
)

// forest is blocks of many sequences that share beginnings, parents first.
type forest struct {
	blocks []treeBlock
	parent map[block.Key]block.Key
}

type treeBlock struct {
	key, parent block.Key
	content     int
}

// grow adds a run of blocks after the given one, which -1 leaves out, and returns the
// index of the last.
func (f *forest) grow(after, blocks int) int {
	if f.parent == nil {
		f.parent = map[block.Key]block.Key{}
	}
	for range blocks {
		var parent block.Key
		position := 0
		if after >= 0 {
			parent = f.blocks[after].key
			position = parent.Position() + 1
		}
		i := len(f.blocks)
		key, err := block.NewKey(position, [block.HashSize]byte{byte(i * 37), byte(i >> 8), byte(i), 0x7a})
		if err != nil {
			panic(err)
		}
		f.blocks = append(f.blocks, treeBlock{key, parent, i})
		f.parent[key] = parent
		after = i
	}
	return after
}

// conversations are sequences with one beginning in common, some of which fork.
func conversations(n int) *forest {
	f := &forest{}
	system := f.grow(-1, 3)
	for i := range n {
		end := f.grow(system, 2+i%4)
		if i%3 == 0 {
			f.grow(end-1, 2)
		}
	}
	return f
}

func (f *forest) put(t testing.TB, n *Node) {
	t.Helper()
	for _, b := range f.blocks {
		if _, err := n.Put(t.Context(), b.key, b.parent, content(b.content, testBlock), coherency.WriteBack); err != nil {
			t.Fatal(err)
		}
	}
}

// keptBy counts the blocks of the forest that each of the nodes holds in its home tier, and
// checks their bytes there.
func (f *forest) keptBy(t testing.TB, nodes ...*Node) (counts []int, missing int) {
	t.Helper()
	counts = make([]int, len(nodes))
	for _, b := range f.blocks {
		found := false
		for i, n := range nodes {
			if !n.durable(b.key) {
				continue
			}
			found = true
			counts[i]++
			loans, _ := n.Read(t.Context(), []block.Key{b.key}, Local)
			if loans[0] == nil {
				t.Errorf("%s: %s cannot be read", n.ID(), b.key)
				continue
			}
			if !bytes.Equal(loans[0].Bytes, content(b.content, testBlock)) || loans[0].Parent != b.parent {
				t.Errorf("%s: %s has other bytes or another parent", n.ID(), b.key)
			}
			loans[0].Release()
		}
		if !found {
			missing++
		}
	}
	return counts, missing
}

// prefixClosed checks, at every change that any node but those left out announces, that no
// block is there without its parent.
func (f *forest) prefixClosed(t testing.TB, c *memCluster, leaveOut ...string) {
	held := map[string]map[block.Key]block.TierMask{}
	children := map[block.Key][]block.Key{}
	for k, p := range f.parent {
		children[p] = append(children[p], k)
	}
	c.watch = func(node string, ch Change) {
		if slices.Contains(leaveOut, node) {
			return
		}
		h := held[node]
		if h == nil {
			h = map[block.Key]block.TierMask{}
			held[node] = h
		}
		if ch.Stored {
			if parent := f.parent[ch.Key]; !parent.IsZero() && !h[parent].Any() {
				t.Errorf("%s holds %s without what is before it", node, ch.Key)
			}
			h[ch.Key] = h[ch.Key].With(ch.Tier)
			return
		}
		h[ch.Key] = h[ch.Key].Without(ch.Tier)
		for _, child := range children[ch.Key] {
			if !h[ch.Key].Any() && h[child].Any() {
				t.Errorf("%s drops %s before what is behind it", node, ch.Key)
			}
		}
	}
}

func quickLooks(c *Config) { c.HandoverEvery = 50 * time.Millisecond }

func drain(t testing.TB, n *Node, o DrainOptions) {
	t.Helper()
	if err := n.Drain(o); err != nil {
		t.Fatal(err)
	}
}

// awaitHandover polls the status of a drain until it is as it should be.
func awaitHandover(t testing.TB, n *Node, what string, ok func(HandoverStatus) bool) HandoverStatus {
	t.Helper()
	const patience = 2 * time.Minute // a receiver flushes its disk for each chain
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s := n.Handover()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %+v", what, patience, s)
		}
	}
}

func safe(s HandoverStatus) bool    { return s.Safe }
func waiting(s HandoverStatus) bool { return s.Phase == HandoverWaiting }

func TestDrainHandsOverWhatOnlyThisNodeHas(t *testing.T) {
	for name, tiers := range map[string]testTiers{"disk": {vram: 2 << 20, host: 4 << 20, disk: 64 << 20}, "no disk": {host: 32 << 20}} {
		t.Run(name, func(t *testing.T) {
			c := newMemCluster()
			f := conversations(20)
			f.prefixClosed(t, c, "n1")
			n1, _ := c.join(t, "n1", tiers.open(t), quickLooks)
			calm := func(c *Config) { c.PromoteAfter = 0 } // a copy on its way would be in a tier and not yet in the directory
			n2, _ := c.join(t, "n2", tiers.open(t), calm)
			n3, _ := c.join(t, "n3", tiers.open(t), calm)
			f.put(t, n1)
			drain(t, n1, DrainOptions{})
			s := awaitHandover(t, n1, "all is handed over", safe)
			if s.Blocks != int64(len(f.blocks)) || s.Bytes != s.Blocks*testBlock || s.LeftBlocks != 0 || s.LeftBytes != 0 || !s.Draining {
				t.Errorf("%d blocks, but the status is %+v", len(f.blocks), s)
			}
			c.crash("n1")
			counts, missing := f.keptBy(t, n2, n3)
			if missing > 0 {
				t.Errorf("%d of %d blocks are lost", missing, len(f.blocks))
			}
			if low := len(f.blocks) / 4; counts[0] < low || counts[1] < low {
				t.Errorf("spread %v of %d", counts, len(f.blocks))
			}
			for _, n := range []*Node{n2, n3} {
				checkDirectory(t, n)
			}
		})
	}
}

// A peer that has the beginning of a sequence is given the rest of it. What a peer has is
// not given at all, but if it lies in its memory only, and it has a disk, it goes there.
func TestDrainGivesSequencesToWhoHasTheirBeginning(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 16 << 20, disk: 64 << 20}
	n1, _ := c.join(t, "n1", tiers.open(t), quickLooks)
	n2, _ := c.join(t, "n2", tiers.open(t), nil)
	n3, _ := c.join(t, "n3", tiers.open(t), nil)
	f := &forest{}
	f.grow(f.grow(-1, 4), 8)
	other := f.grow(-1, 6)
	f.prefixClosed(t, c)
	f.put(t, n1)
	begun := &forest{blocks: f.blocks[:4]}
	begun.put(t, n3)
	if err := n3.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys := []block.Key{}
	for _, b := range f.blocks[other-5:] {
		keys = append(keys, b.key)
	}
	s, err := n2.OpenSequence(SequenceSpec{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Onboard(t.Context(), block.Host, sequence.Range{}); err != nil || got.Range.Len() != 6 {
		t.Fatalf("onboarded %+v: %v", got, err)
	}
	drain(t, n1, DrainOptions{})
	st := awaitHandover(t, n1, "all is handed over", safe)
	if st.Blocks != 14 {
		t.Errorf("%d blocks were handed over, want the 8 behind what n3 has and the 6 that n2 has in memory: %+v", st.Blocks, st)
	}
	first := &forest{blocks: f.blocks[:12]}
	second := &forest{blocks: f.blocks[12:]}
	if counts, _ := first.keptBy(t, n2, n3); counts[0] != 0 || counts[1] != 12 {
		t.Errorf("of the sequence that n3 begins n2 and n3 have %v", counts)
	}
	if counts, _ := second.keptBy(t, n2, n3); counts[0] != 6 {
		t.Errorf("of the sequence in n2's memory n2 and n3 have %v on disk", counts)
	}
	if taken := n2.counters.taken.Load(); taken != 0 {
		t.Errorf("n2 was sent %d blocks that it has", taken)
	}
}

func TestDrainWithoutAnybodyToTakeOver(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 16 << 20}
	n1, _ := c.join(t, "n1", tiers.open(t), quickLooks)
	f := conversations(2)
	drain(t, n1, DrainOptions{})
	awaitHandover(t, n1, "a node without blocks may go", safe)
	f.put(t, n1)
	s := awaitHandover(t, n1, "nobody is there", func(s HandoverStatus) bool { return s.LeftBlocks == int64(len(f.blocks)) && waiting(s) })
	if s.Safe || s.Refused[TakeNobody] != s.LeftBlocks || s.Trouble != "there is no other node" {
		t.Errorf("%+v", s)
	}
	n2, _ := c.join(t, "n2", tiers.open(t), quickLooks)
	drain(t, n2, DrainOptions{})
	awaitHandover(t, n1, "the other drains as well", func(s HandoverStatus) bool { return strings.Contains(s.Trouble, "drains: n2") })
	n2.Undrain()
	awaitHandover(t, n1, "the other takes over", safe)
}

// A receiver takes over no more than a share of its free room, and evicts nothing for it,
// unless it is asked to.
func TestDrainToFullReceivers(t *testing.T) {
	for name, small := range map[string]testTiers{"disk": {host: 4 << 20, disk: 24 << 20}, "no disk": {host: 4 << 20}} {
		t.Run(name, func(t *testing.T) {
			c := newMemCluster()
			n1, _ := c.join(t, "n1", testTiers{host: 32 << 20}.open(t), quickLooks)
			n2, _ := c.join(t, "n2", small.open(t), nil)
			room := small.host
			if small.disk > 0 {
				room = small.disk
			}
			own := int(room / testBlock / 4)
			for i := range own {
				put(t, n2, i, coherency.WriteThrough)
			}
			f := conversations(80)
			f.prefixClosed(t, c, "n1")
			f.put(t, n1)
			drain(t, n1, DrainOptions{})
			s := awaitHandover(t, n1, "the receiver is full", func(s HandoverStatus) bool { return waiting(s) && s.Blocks > 0 })
			if s.Safe || s.LeftBlocks+s.Blocks != int64(len(f.blocks)) || s.Refused[TakeFull] != s.LeftBlocks || s.Bytes > room*4/5 {
				t.Errorf("%d blocks: %+v", len(f.blocks), s)
			}
			for i := range own {
				want(t, n2, i, Local)
			}
			c.watch = nil // what is evicted is the receiver's own affair
			before := s.Blocks
			drain(t, n1, DrainOptions{Evict: 0.25})
			s = awaitHandover(t, n1, "more goes where older blocks were", func(s HandoverStatus) bool { return waiting(s) && s.Blocks > before })
			if s.Bytes > room*21/20 {
				t.Errorf("asked to evict a quarter: %+v", s)
			}
			if small.disk == 0 && s.Safe {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestDrainWhenTheReceiverDies(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 32 << 20}
	f := conversations(60)
	f.prefixClosed(t, c, "n1", "n2")
	n1, _ := c.join(t, "n1", tiers.open(t), func(cfg *Config) {
		quickLooks(cfg)
		cfg.FetchTimeout = time.Second
		cfg.HandoverRate = 40 << 20
	})
	c.join(t, "n2", tiers.open(t), nil)
	n3, _ := c.join(t, "n3", tiers.open(t), nil)
	f.put(t, n1)
	drain(t, n1, DrainOptions{})
	awaitHandover(t, n1, "n2 has some", func(s HandoverStatus) bool {
		return slices.ContainsFunc(s.Receivers, func(r ReceiverStatus) bool { return r.Node == "n2" && r.Blocks > 5 })
	})
	c.crash("n2")
	awaitHandover(t, n1, "n3 takes all", func(s HandoverStatus) bool { _, missing := f.keptBy(t, n3); return s.Safe && missing == 0 })
}

// Between its death and the end of its lease a receiver counts as a member, but what it
// has taken over does not count as safe.
func TestDrainWhenTheReceiverIsSilent(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 32 << 20}
	f := conversations(10)
	n1, _ := c.join(t, "n1", tiers.open(t), func(cfg *Config) {
		quickLooks(cfg)
		cfg.FetchTimeout = 100 * time.Millisecond
	})
	n2, addr := c.join(t, "n2", tiers.open(t), nil)
	f.put(t, n1)
	drain(t, n1, DrainOptions{})
	awaitHandover(t, n1, "n2 has all", safe)
	c.mu.Lock()
	c.nodes["n2"].addr = "127.0.0.1:1" // nobody listens
	c.mu.Unlock()
	s := awaitHandover(t, n1, "n2 is missed", func(s HandoverStatus) bool { return !s.Safe && waiting(s) })
	if s.LeftBlocks != int64(len(f.blocks)) || s.Trouble != "no other node answers: n2" {
		t.Errorf("%+v", s)
	}
	c.mu.Lock()
	c.nodes["n2"].addr = addr
	c.mu.Unlock()
	awaitHandover(t, n1, "n2 is back", safe)
	if _, missing := f.keptBy(t, n2); missing != 0 {
		t.Errorf("%d are missing", missing)
	}
}

func TestUndrain(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 32 << 20}
	f := conversations(60)
	f.prefixClosed(t, c, "n1")
	n1, _ := c.join(t, "n1", tiers.open(t), quickLooks)
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	slow := tiers.open(t)
	slow.Host = newGatedHost(slow.Host.(*hostcache.Cache), len(f.blocks)/2, gate)
	n2, _ := c.join(t, "n2", slow, nil)
	f.put(t, n1)
	drain(t, n1, DrainOptions{})
	awaitHandover(t, n1, "it has begun", func(s HandoverStatus) bool { return s.Blocks > 0 })
	n1.Undrain()
	s := n1.Handover()
	if s.Draining || s.Safe || s.Phase != HandoverOff {
		t.Errorf("undone: %+v", s)
	}
	counts, _ := f.keptBy(t, n2)
	if counts[0] == len(f.blocks) {
		t.Error("all was handed over: there was nothing to undo")
	}
	if _, missing := f.keptBy(t, n1); missing > 0 {
		t.Errorf("%d blocks left the node that handed them over", missing)
	}
	open()
	drain(t, n1, DrainOptions{})
	s = awaitHandover(t, n1, "the rest follows", safe)
	if s.Blocks > int64(len(f.blocks)-counts[0]) {
		t.Errorf("%d were there, and %d of %d were handed over again", counts[0], s.Blocks, len(f.blocks))
	}
}

// gatedHost is host memory that gives so many slots, and more when a gate opens.
type gatedHost struct {
	*hostcache.Cache
	left *atomic.Int64
	gate chan struct{}
}

func newGatedHost(c *hostcache.Cache, slots int, gate chan struct{}) gatedHost {
	h := gatedHost{c, new(atomic.Int64), gate}
	h.left.Store(int64(slots))
	return h
}

func (h gatedHost) Reserve(ctx context.Context, n int) (tier.Reservation, []block.Key, error) {
	if h.left.Add(-1) < 0 {
		select {
		case <-h.gate:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	return h.Cache.Reserve(ctx, n)
}

// Blocks that are put during the drain go as well, and nothing is called safe in between.
func TestPutsDuringADrain(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 8 << 20, disk: 64 << 20}
	f := conversations(40)
	f.prefixClosed(t, c, "n1")
	n1, _ := c.join(t, "n1", tiers.open(t), quickLooks)
	n2, _ := c.join(t, "n2", tiers.open(t), nil)
	drain(t, n1, DrainOptions{})
	awaitHandover(t, n1, "empty", safe)
	var writing sync.WaitGroup
	writing.Go(func() { f.put(t, n1) })
	writing.Wait()
	if s := n1.Handover(); s.Safe {
		if _, missing := f.keptBy(t, n2); missing > 0 {
			t.Errorf("called safe with %d blocks missing elsewhere", missing)
		}
	}
	awaitHandover(t, n1, "all is handed over", safe)
	if _, missing := f.keptBy(t, n2); missing > 0 {
		t.Errorf("%d blocks are only at the drained node", missing)
	}
}

// An index whose memory is bounded does not show all that a receiver has: its own word
// counts.
func TestDrainByABoundedIndex(t *testing.T) {
	c := newMemCluster()
	c.blind = map[string]bool{"n1": true}
	tiers := testTiers{host: 32 << 20}
	f := conversations(20)
	f.prefixClosed(t, c, "n1")
	n1, _ := c.join(t, "n1", tiers.open(t), quickLooks)
	n2, _ := c.join(t, "n2", tiers.open(t), nil)
	f.put(t, n1)
	drain(t, n1, DrainOptions{})
	awaitHandover(t, n1, "all is handed over", safe)
	if taken := n2.counters.taken.Load(); taken != int64(len(f.blocks)) {
		t.Errorf("%d of %d blocks were sent", taken, len(f.blocks))
	}
}

func TestTakeRefusesWhatWouldLeaveAHole(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 8 << 20, disk: 64 << 20}
	n1, _ := c.join(t, "n1", tiers.open(t), nil)
	n2, _ := c.join(t, "n2", tiers.open(t), nil)
	f := &forest{}
	f.grow(-1, 6)
	f.prefixClosed(t, c, "n1")
	keys := make([]block.Key, len(f.blocks))
	for i, b := range f.blocks {
		keys[i] = b.key
	}
	(&forest{blocks: slices.Delete(slices.Clone(f.blocks), 3, 4)}).put(t, n1)
	for _, step := range []struct {
		what string
		keys []block.Key
		held int
		why  TakeRefusal
	}{
		{"without its beginning", keys[1:3], 0, TakeCut},
		{"with a hole", keys, 3, TakeCut},
		{"behind the hole", keys[4:], 0, TakeCut},
		{"up to the hole", keys[:4], 3, TakeAbsent},
		{"again", keys[:3], 3, ""},
		{"nothing", nil, 0, ""},
	} {
		got, err := n2.Take(t.Context(), "n1", step.keys, false)
		if err != nil || got.Held != step.held || got.Refused != step.why {
			t.Errorf("%s: %+v, %v; want %d held, %q", step.what, got, err, step.held, step.why)
		}
	}
	if _, err := n2.Take(t.Context(), "nobody", keys, false); err == nil {
		t.Error("blocks were taken from a node that is no member")
	}
	if err := n1.Drain(DrainOptions{Evict: 2}); err == nil {
		t.Error("evict 2 was accepted")
	}
}

func TestChains(t *testing.T) {
	f := &forest{}
	system := f.grow(-1, 2)
	f.grow(system, 2) // 2, 3
	hot := f.grow(system, 3)
	f.grow(hot-1, 1) // 7
	f.grow(-1, 1)    // 8
	var blocks []soleBlock
	for i, b := range f.blocks {
		s := soleBlock{block.Descriptor{Key: b.key, Parent: b.parent, Length: 1}, 0}
		if i == hot {
			s.worth = 7
		}
		blocks = append(blocks, s)
	}
	var show func(c *chain) string
	show = func(c *chain) string {
		text := fmt.Sprint(c.worth, ":")
		for _, b := range c.blocks {
			text += fmt.Sprint(slices.IndexFunc(f.blocks, func(o treeBlock) bool { return o.key == b.Key }), " ")
		}
		for _, b := range c.branches {
			text += "(" + show(b) + ")"
		}
		return text
	}
	var got []string
	for _, c := range chains(blocks) {
		got = append(got, show(c))
	}
	if want := []string{"7:0 1 4 5 6 (0:2 3 )(0:7 )", "0:8 "}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	// Parents that go round in circles, as no sequence has them.
	a, b := f.blocks[0].key, f.blocks[8].key
	circle := []soleBlock{{block.Descriptor{Key: a, Parent: b}, 0}, {block.Descriptor{Key: b, Parent: a}, 0}}
	if got := chains(circle); len(got) != 2 {
		t.Errorf("%d chains of a circle", len(got))
	}
}

func TestBestBid(t *testing.T) {
	r := func(grant, given int64, refused TakeRefusal) *receiver {
		return &receiver{grant: grant, given: given, refused: refused}
	}
	for name, step := range map[string]struct {
		bids []bid
		want int
	}{
		"who has the beginning":          {[]bid{{r(100, 0, ""), nil, 50}, {r(100, 0, ""), nil, 0}}, 1},
		"who has more room":              {[]bid{{r(100, 0, ""), nil, 0}, {r(200, 0, ""), nil, 0}}, 1},
		"who has been given less":        {[]bid{{r(100, 40, ""), nil, 0}, {r(100, 0, ""), nil, 10}}, 1},
		"not who is full":                {[]bid{{r(100, 95, ""), nil, 0}, {r(20, 0, ""), nil, 10}}, 1},
		"not who refuses":                {[]bid{{r(100, 0, TakeFull), nil, 0}, {r(20, 0, ""), nil, 0}}, 1},
		"not who has no room for before": {[]bid{{r(100, 0, ""), nil, 100}}, -1},
		"nobody":                         {nil, -1},
	} {
		b, ok := best(step.bids, 10, 15)
		if ok != (step.want >= 0) || ok && b.r != step.bids[step.want].r {
			t.Errorf("%s: got %+v, %v", name, b, ok)
		}
	}
}

func TestPace(t *testing.T) {
	p := pace{rate: 1 << 40}
	for range 3 {
		if !p.wait(t.Context(), 1<<20) {
			t.Fatal("it did not let pass")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	slow := pace{rate: 1}
	if !slow.wait(ctx, 1<<30) {
		t.Fatal("the first must not wait")
	}
	cancel()
	if slow.wait(ctx, 1) {
		t.Error("the second did not wait until the end")
	}
}
