package node

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/sequence"
	"cairn/tier"
)

// seqKeys is the keys of blocks 0 to n-1 of a test.
func seqKeys(n int) []block.Key {
	keys := make([]block.Key, n)
	for i := range keys {
		keys[i] = key(i)
	}
	return keys
}

func openSequence(t testing.TB, n *Node, blocks int) *Sequence {
	t.Helper()
	s, err := n.OpenSequence(SequenceSpec{Keys: seqKeys(blocks)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func onboard(t testing.TB, s *Sequence, to block.Tier, want sequence.Range) Onboarded {
	t.Helper()
	got, err := s.Onboard(t.Context(), to, want)
	if err != nil {
		t.Fatalf("onboard %s to %s: %v", want, to, err)
	}
	return got
}

// wantPinned checks how many objects of a tier are pinned.
func wantPinned(t testing.TB, n *Node, tr block.Tier, want int64) {
	t.Helper()
	if got := n.stores[tr].Stats().Pinned; got != want {
		t.Errorf("%s: %d objects are pinned in %s, want %d", n.ID(), got, tr, want)
	}
}

// wantHeld checks that the tier holds the right bytes of blocks from to to-1.
func wantHeld(t testing.TB, n *Node, tr block.Tier, from, to int) {
	t.Helper()
	buf := make([]byte, testBlock)
	for i := from; i < to; i++ {
		d, err := n.stores[tr].Get(context.Background(), key(i), buf)
		if err != nil || !bytes.Equal(buf[:d.Length], content(i, testBlock)) {
			t.Fatalf("%s: block %d in %s: %v, or wrong bytes", n.ID(), i, tr, err)
		}
	}
}

// putRange puts blocks at a node and makes them durable.
func putRange(t *testing.T, n *Node, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		put(t, n, i, coherency.WriteBack)
	}
	if err := n.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// evict takes a block out of one tier of a node, as if it had been evicted.
func evict(n *Node, tr block.Tier, i int) {
	n.stores[tr].Delete(key(i))
	n.dropped(tr, key(i))
}

func TestOnboardFromPeerToVRAM(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{vram: 8 << 20, host: 8 << 20, disk: 16 << 20}.open(t), nil)
	const blocks = 40
	putRange(t, n1, 0, blocks)
	s := openSequence(t, n2, blocks+3)
	if m := s.Status().Matched; m.Prefix != blocks || m.Local != 0 {
		t.Errorf("matched: %+v", m)
	}
	got := onboard(t, s, block.VRAM, sequence.Range{})
	if got.Range != (sequence.Range{End: blocks}) || got.Missing != "absent" || got.Blocks != [origins]int{FromPeer: blocks} {
		t.Errorf("onboarded: %+v", got)
	}
	wantHeld(t, n2, block.VRAM, 0, blocks)
	wantPinned(t, n2, block.VRAM, blocks)
	if st := n2.stores[block.Host].Stats(); st.Used != 0 || st.Objects != 0 {
		t.Errorf("the way through host memory left something there: %+v", st)
	}
	if where := n2.Explain(key(3)).Here; len(where) != 1 || where[0] != block.VRAM {
		t.Errorf("block 3 is said to be in %v", where)
	}
	checkDirectory(t, n2)

	again := onboard(t, s, block.VRAM, sequence.Range{End: blocks})
	if again.Range.End != blocks || again.Missing != "" || again.Blocks != [origins]int{} {
		t.Errorf("the second time: %+v", again)
	}
	other := openSequence(t, n2, blocks)
	if got := onboard(t, other, block.VRAM, sequence.Range{}); got.Blocks != [origins]int{FromVRAM: blocks} {
		t.Errorf("another sequence: %+v", got)
	}
	st := n2.Status().Sequences
	if st.Open != 2 || st.Pinned[0].Blocks != blocks || st.Pinned[0].Bytes != blocks*testBlock || st.Onboarded["peer"] != blocks {
		t.Errorf("status: %+v", st)
	}
	s.Close()
	wantPinned(t, n2, block.VRAM, blocks)
	other.Close()
	wantPinned(t, n2, block.VRAM, 0)
	if st := n2.Status().Sequences; st.Open != 0 || st.Pinned[0].Blocks != 0 || st.Pinned[0].Bytes != 0 {
		t.Errorf("status at the end: %+v", st)
	}
	if _, err := s.Onboard(t.Context(), block.VRAM, sequence.Range{}); !errors.Is(err, ErrSequence) {
		t.Errorf("a closed sequence: %v", err)
	}
	wantHeld(t, n2, block.VRAM, 0, blocks) // they stay in the cache
}

// The scenario of two tiers at different offsets: GPU memory has the first two blocks,
// host memory the next three, and the plan pairs these with the slots in GPU memory.
func TestOnboardTwoTiersAtDifferentOffsets(t *testing.T) {
	c := newMemCluster()
	n, _ := c.join(t, "n1", testTiers{vram: 4 << 20, host: 4 << 20}.open(t), nil)
	for i := range 5 {
		put(t, n, i, coherency.WriteAll)
	}
	for i := range 2 {
		evict(n, block.Host, i)
	}
	for i := 2; i < 5; i++ {
		evict(n, block.VRAM, i)
	}
	s := openSequence(t, n, 8)
	if got := onboard(t, s, block.VRAM, sequence.Range{End: 2}); got.Blocks != [origins]int{FromVRAM: 2} || got.Missing != "" {
		t.Errorf("what is there: %+v", got)
	}
	if got := onboard(t, s, block.Host, sequence.Range{Start: 2, End: 5}); got.Blocks != [origins]int{FromHost: 3} || got.Range != (sequence.Range{Start: 2, End: 5}) {
		t.Errorf("the host's: %+v", got)
	}
	st := s.Status()
	if h := st.Held[block.Host]; len(h) != 1 || h[0] != (sequence.Range{Start: 2, End: 5}) {
		t.Errorf("held in host memory: %v", h)
	}
	got := onboard(t, s, block.VRAM, sequence.Range{End: 5})
	if got.Range.End != 5 || got.Blocks != [origins]int{FromHost: 3} {
		t.Errorf("onboarded: %+v", got)
	}
	wantHeld(t, n, block.VRAM, 0, 5)
	wantPinned(t, n, block.VRAM, 5)
	wantPinned(t, n, block.Host, 3)
	// And the other way: what only GPU memory has comes into host memory, before the run
	// that is there.
	got = onboard(t, s, block.Host, sequence.Range{})
	if got.Range.End != 5 || got.Blocks != [origins]int{FromVRAM: 2} || got.Missing != "absent" {
		t.Errorf("back: %+v", got)
	}
	if h := s.Status().Held[block.Host]; len(h) != 1 || h[0] != (sequence.Range{End: 5}) {
		t.Errorf("held in host memory: %v", h)
	}
	checkDirectory(t, n)
	s.Close()
	wantPinned(t, n, block.VRAM, 0)
	wantPinned(t, n, block.Host, 0)
}

func TestOnboardFromDisk(t *testing.T) {
	for _, to := range []block.Tier{block.Host, block.VRAM} {
		t.Run(to.String(), func(t *testing.T) {
			c := newMemCluster()
			n, _ := c.join(t, "n1", testTiers{vram: 4 << 20, host: 4 << 20, disk: 16 << 20}.open(t), nil)
			const blocks = 20
			putRange(t, n, 0, blocks)
			for i := range blocks {
				if i != 7 {
					evict(n, block.Host, i)
				}
			}
			s := openSequence(t, n, blocks)
			want := [origins]int{FromDisk: blocks - 1, FromHost: 1}
			if got := onboard(t, s, to, sequence.Range{}); got.Blocks != want || got.Missing != "" || got.Bytes[FromDisk] != (blocks-1)*testBlock {
				t.Errorf("onboarded: %+v", got)
			}
			wantHeld(t, n, to, 0, blocks)
			wantPinned(t, n, to, blocks)
			checkDirectory(t, n)
			s.Close()
			wantPinned(t, n, to, 0)
		})
	}
}

// Blocks that the engine computes go into the host tier behind what was onboarded into
// GPU memory, and up from there.
func TestCommitBehindTheOnboarded(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{vram: 4 << 20, host: 4 << 20, disk: 16 << 20}.open(t), nil)
	tokens := make([]uint32, 40)
	for i := range tokens {
		tokens[i] = uint32(i)
	}
	spec := SequenceSpec{Tokens: tokens[:16], BlockSize: 4}
	keys, err := sequence.KeysOf(nil, spec.Salt, 4, tokens)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		parent := block.Key{}
		if i > 0 {
			parent = keys[i-1]
		}
		if _, err := n1.Put(t.Context(), keys[i], parent, content(i, testBlock), coherency.WriteBack); err != nil {
			t.Fatal(err)
		}
	}
	s, err := n2.OpenSequence(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := onboard(t, s, block.VRAM, sequence.Range{}); got.Range.End != 3 {
		t.Fatalf("onboarded: %+v", got)
	}
	r, err := s.Extend(t.Context(), tokens[16:22]) // block 4, and half of 5
	if err != nil || r != (sequence.Range{Start: 4, End: 5}) {
		t.Fatalf("extended: %v, %v", r, err)
	}
	if st := s.Status(); st.Pending != 2 || st.Blocks != 5 || st.Tokens != 22 {
		t.Errorf("after Extend: %+v", st)
	}
	done, err := s.Commit(t.Context(), 3, incoming(t, n2, 3, 5), coherency.WriteBack)
	if err != nil || done.Stored != 2 || done.Existed != 0 || done.Token.Node != "n2" {
		t.Fatalf("committed: %+v, %v", done, err)
	}
	if st := s.Status(); st.Pending != 0 || st.Held[block.Host][0] != (sequence.Range{Start: 3, End: 5}) || st.Held[block.VRAM][0] != (sequence.Range{End: 3}) {
		t.Errorf("after Commit: %+v", st)
	}
	if m := n1.Match(keys); m.Prefix != 5 || m.Local != 3 {
		t.Errorf("the other node finds %+v", m)
	}
	if e := n2.Explain(keys[3]); e.Parent == nil || *e.Parent != keys[2] {
		t.Errorf("block 3: %+v", e)
	}
	if err := n2.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPinned(t, n2, block.Host, 2) // the offload's pins are gone, the sequence's not
	again, err := s.Commit(t.Context(), 3, incoming(t, n2, 3, 4), coherency.WriteBack)
	if err != nil || again.Existed != 1 {
		t.Errorf("committed again: %+v, %v", again, err)
	}
	if _, err := s.Commit(t.Context(), 4, incoming(t, n2, 9, 10), coherency.WriteBack); !errors.Is(err, tier.ErrConflict) {
		t.Errorf("other bytes: %v", err)
	}
	if _, err := s.Commit(t.Context(), 4, incoming(t, n2, 4, 6), coherency.WriteBack); !errors.Is(err, ErrPosition) {
		t.Errorf("more than there are: %v", err)
	}
	if got := onboard(t, s, block.VRAM, sequence.Range{}); got.Range.End != 5 || got.Blocks != [origins]int{FromHost: 2} {
		t.Errorf("onboarded: %+v", got)
	}

	// A speculation that was wrong: blocks 3 and 4 go, 12 tokens and the prefix stay.
	if err := s.Unwind(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	wantPinned(t, n2, block.Host, 0)
	wantPinned(t, n2, block.VRAM, 3)
	if st := s.Status(); st.Tokens != 14 || st.Blocks != 3 || st.Held[block.VRAM][0] != (sequence.Range{End: 3}) {
		t.Errorf("after Unwind: %+v", st)
	}
	if r, err := s.Extend(t.Context(), []uint32{100, 101}); err != nil || r != (sequence.Range{Start: 3, End: 4}) {
		t.Errorf("another way on: %v, %v", r, err)
	}
	if got := onboard(t, s, block.VRAM, sequence.Range{}); got.Range.End != 3 || got.Missing != "absent" {
		t.Errorf("the other way is not cached: %+v", got)
	}
	if err := s.Truncate(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	wantPinned(t, n2, block.VRAM, 1)
	var length *sequence.LengthError
	if err := s.Unwind(t.Context(), 6); !errors.As(err, &length) {
		t.Errorf("unwound beyond the start: %v", err)
	}
	checkDirectory(t, n2)
	s.Close()
	wantPinned(t, n2, block.VRAM, 0)
	wantPinned(t, n2, block.Host, 0)
	if st := n2.stores[block.Host].Stats(); st.Used != st.Objects*testBlock {
		t.Errorf("a slot was not given back: %+v", st)
	}
}

// incoming receives blocks from to to-1.
func incoming(t *testing.T, n *Node, from, to int) []*Incoming {
	t.Helper()
	var blocks []*Incoming
	for i := from; i < to; i++ {
		in, err := n.Reserve(t.Context(), testBlock)
		if err != nil {
			t.Fatal(err)
		}
		copy(in.Bytes(), content(i, testBlock))
		blocks = append(blocks, in)
	}
	return blocks
}

func TestOpenSequenceRefuses(t *testing.T) {
	c := newMemCluster()
	n, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), func(c *Config) { c.Sequences, c.SequenceBlocks = 2, 4 })
	for what, try := range map[string]struct {
		spec SequenceSpec
		want error
	}{
		"block size 0":       {SequenceSpec{Tokens: []uint32{1}}, sequence.ErrBlockSize},
		"too many tokens":    {SequenceSpec{Tokens: make([]uint32, 10), BlockSize: 2}, ErrSequenceLimit},
		"too many keys":      {SequenceSpec{Keys: seqKeys(5)}, ErrSequenceLimit},
		"keys not from 0 on": {SequenceSpec{Keys: seqKeys(3)[1:]}, ErrPosition},
		"keys of names":      {SequenceSpec{Keys: []block.Key{block.NamedKey("default", nil, 1)}}, ErrPosition},
	} {
		if _, err := n.OpenSequence(try.spec); !errors.Is(err, try.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := openSequence(t, n, 4)
	if _, err := s.Onboard(t.Context(), block.VRAM, sequence.Range{}); !errors.Is(err, ErrNoTier) {
		t.Errorf("a tier that the node lacks: %v", err)
	}
	if _, err := s.Onboard(t.Context(), block.Disk, sequence.Range{}); !errors.Is(err, ErrNoTier) {
		t.Errorf("onboard to disk: %v", err)
	}
	for _, r := range []sequence.Range{{Start: -1, End: 2}, {Start: 3, End: 2}, {End: 5}, {Start: 5}} {
		if _, err := s.Onboard(t.Context(), block.Host, r); !errors.Is(err, ErrPosition) {
			t.Errorf("blocks %s: %v", r, err)
		}
	}
	if _, err := s.Extend(t.Context(), []uint32{1}); !errors.Is(err, errKeysOnly) {
		t.Errorf("tokens for a sequence of keys: %v", err)
	}
	if _, err := s.ExtendKeys(t.Context(), []block.Key{key(4)}); !errors.Is(err, ErrSequenceLimit) {
		t.Errorf("a fifth block: %v", err)
	}
	openSequence(t, n, 1)
	if _, err := n.OpenSequence(SequenceSpec{Keys: seqKeys(1)}); !errors.Is(err, ErrSequenceLimit) {
		t.Errorf("a third sequence: %v", err)
	}
	s.Close()
	openSequence(t, n, 1)
}

func TestPinsAreLimited(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{vram: 2 << 20, host: 2 << 20}.open(t), func(c *Config) { c.SequencePins = 0.25 })
	putRange(t, n1, 0, 20)
	for _, to := range []block.Tier{block.Host, block.VRAM} {
		limit := int(n2.sequences.limit[to] / testBlock)
		s := openSequence(t, n2, 20)
		got, err := s.Onboard(t.Context(), to, sequence.Range{})
		var pins *PinsError
		if !errors.As(err, &pins) || pins.Tier != to || pins.Length != testBlock {
			t.Fatalf("%s: %v", to, err)
		}
		if got.Range.End != limit || got.Missing != "full" {
			t.Errorf("%s: onboarded %+v, there is room for %d", to, got, limit)
		}
		other := openSequence(t, n2, 20)
		if got := onboard(t, other, to, sequence.Range{End: limit}); got.Range.End != limit {
			t.Errorf("%s: the same blocks again: %+v", to, got)
		}
		if to == block.Host {
			if _, err := other.Commit(t.Context(), limit, incoming(t, n2, limit, limit+1), coherency.WriteBack); !errors.As(err, &pins) {
				t.Errorf("commit: %v", err)
			}
		}
		wantPinned(t, n2, to, int64(limit))
		other.Close()
		s.Close()
		wantPinned(t, n2, to, 0)
	}
	checkDirectory(t, n2)
}

func TestIdleSequenceIsClosed(t *testing.T) {
	c := newMemCluster()
	n, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), func(c *Config) { c.SequenceIdle = 10 * time.Millisecond })
	put(t, n, 0, coherency.WriteBack)
	s := openSequence(t, n, 1)
	if _, err := s.Onboard(t.Context(), block.Host, sequence.Range{}); err != nil && !errors.Is(err, ErrSequence) {
		t.Fatal(err)
	}
	<-s.Done()
	wantPinned(t, n, block.Host, 0)
	if st := n.Status().Sequences; st.Open != 0 || st.Expired != 1 {
		t.Errorf("status: %+v", st)
	}
}
