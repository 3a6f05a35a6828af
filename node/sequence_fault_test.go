package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/sequence"
	"cairn/tier"
)

// gate is a host tier that keeps the first reader of one block waiting.
type gate struct {
	tier.Memory
	key     block.Key
	shut    atomic.Bool
	reached chan struct{} // closed when somebody waits
	open    chan struct{} // to be closed by the test
}

func newGate(m tier.Memory, i int) *gate {
	g := &gate{Memory: m, key: key(i), reached: make(chan struct{}), open: make(chan struct{})}
	g.shut.Store(true)
	return g
}

func (g *gate) View(k block.Key) (tier.View, error) {
	if k == g.key && g.shut.CompareAndSwap(true, false) {
		close(g.reached)
		<-g.open
	}
	return g.Memory.View(k)
}

// result is what an onboard in the background gave.
type result struct {
	got Onboarded
	err error
}

// gated is two nodes, of which the first has some blocks and keeps who asks for block at
// waiting.
type gated struct {
	c      *memCluster
	n1, n2 *Node
	addr2  string
	gate   *gate

	// Of an onboard of all blocks at the second node.
	s      *Sequence
	done   chan result
	cancel context.CancelFunc
}

func newGated(t *testing.T, blocks, at int) *gated {
	t.Helper()
	g := &gated{c: newMemCluster()}
	tiers := testTiers{host: 8 << 20}.open(t)
	g.gate = newGate(tiers.Host, at)
	g.n2, g.addr2 = g.c.join(t, "n2", testTiers{vram: 8 << 20, host: 8 << 20}.open(t), func(c *Config) { c.SequenceBatch, c.SequenceTransfers = 8, 2 })
	tiers.Host = g.gate
	g.n1, _ = g.c.join(t, "n1", tiers, nil)
	putRange(t, g.n1, 0, blocks)
	return g
}

// startGated is newGated, and returns when an onboard waits at the gate.
func startGated(t *testing.T, to block.Tier, blocks, at int) *gated {
	t.Helper()
	g := newGated(t, blocks, at)
	g.done = make(chan result, 1)
	ctx, cancel := context.WithCancel(t.Context())
	g.cancel = cancel
	g.s = openSequence(t, g.n2, blocks)
	go func() {
		got, err := g.s.Onboard(ctx, to, sequence.Range{})
		g.done <- result{got, err}
	}()
	<-g.gate.reached
	return g
}

// nothingLeft checks that no pin and no half-visible block is left at the node.
func nothingLeft(t *testing.T, n *Node) {
	t.Helper()
	for _, tr := range []block.Tier{block.VRAM, block.Host} {
		if n.stores[tr] == nil {
			continue
		}
		wantPinned(t, n, tr, 0)
		if st := n.stores[tr].Stats(); st.Used != st.Objects*testBlock {
			t.Errorf("%s: %d bytes of %s are in use for %d blocks", n.ID(), st.Used, tr, st.Objects)
		}
	}
	for _, p := range n.Status().Sequences.Pinned {
		if p.Blocks != 0 || p.Bytes != 0 {
			t.Errorf("%s: sequences are said to pin %+v", n.ID(), p)
		}
	}
	checkDirectory(t, n)
}

func TestOnboardCancelled(t *testing.T) {
	for _, to := range []block.Tier{block.VRAM, block.Host} {
		for how, stop := range map[string]func(*gated){
			"context": func(g *gated) { g.cancel() },
			"cancel": func(g *gated) {
				if !g.s.Cancel() {
					t.Error("nothing to cancel")
				}
			},
		} {
			t.Run(to.String()+"/"+how, func(t *testing.T) {
				g := startGated(t, to, 40, 20)
				stop(g)
				r := <-g.done
				close(g.gate.open)
				if !errors.Is(r.err, context.Canceled) || !r.got.Range.Empty() {
					t.Errorf("got %+v, %v", r.got, r.err)
				}
				nothingLeft(t, g.n2)
				if st := g.s.Status(); len(st.Held[to]) != 0 || st.Busy {
					t.Errorf("the sequence has %+v", st)
				}
				got := onboard(t, g.s, to, sequence.Range{}) // it lives on
				if got.Range.End != 40 || got.Missing != "" {
					t.Errorf("once more: %+v", got)
				}
				g.s.Close()
				nothingLeft(t, g.n2)
				if st := g.n2.Status().Sequences; st.Cancelled != 1 || st.Onboards != 2 {
					t.Errorf("status: %+v", st)
				}
			})
		}
	}
}

func TestCloseEndsAnOnboard(t *testing.T) {
	g := startGated(t, block.VRAM, 40, 20)
	g.s.Close()
	if r := <-g.done; !errors.Is(r.err, ErrSequence) {
		t.Errorf("got %+v, %v", r.got, r.err)
	}
	close(g.gate.open)
	nothingLeft(t, g.n2)
}

// A peer that dies in the middle: what came before stays, and the rest is a miss with a
// reason.
func TestPeerDiesInTheMiddle(t *testing.T) {
	g := startGated(t, block.VRAM, 40, 20)
	for i := range 16 { // the batches before may still be on their way
		for _, landed := g.n2.stores[block.VRAM].Stat(key(i)); !landed; _, landed = g.n2.stores[block.VRAM].Stat(key(i)) {
			runtime.Gosched()
		}
	}
	crashed := make(chan struct{})
	go func() {
		g.c.crash("n1")
		close(crashed)
	}()
	r := <-g.done
	close(g.gate.open)
	<-crashed
	if r.err != nil || r.got.Range.End != 16 || r.got.Missing != "peer" { // two batches of 8 before the one with block 20
		t.Errorf("got %+v, %v", r.got, r.err)
	}
	wantHeld(t, g.n2, block.VRAM, 0, 16)
	wantPinned(t, g.n2, block.VRAM, 16)
	if n := g.n2.counters.misses[missPeer].Load(); n != 1 {
		t.Errorf("%d misses for the peer's sake", n)
	}
	g.s.Close()
	nothingLeft(t, g.n2)
}

func TestAnotherPeerTakesOver(t *testing.T) {
	g := startGated(t, block.Host, 40, 20)
	n3, _ := g.c.join(t, "n3", testTiers{host: 8 << 20}.open(t), nil)
	putRange(t, n3, 0, 40)
	crashed := make(chan struct{})
	go func() {
		g.c.crash("n1")
		close(crashed)
	}()
	r := <-g.done
	close(g.gate.open)
	<-crashed
	if r.err != nil || r.got.Range.End != 40 || r.got.Missing != "" || r.got.Blocks[FromPeer] != 40 {
		t.Errorf("got %+v, %v", r.got, r.err)
	}
	wantHeld(t, g.n2, block.Host, 0, 40)
	g.s.Close()
	nothingLeft(t, g.n2)
}

func TestBlockGoneBetweenMatchAndOnboard(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{vram: 4 << 20, host: 4 << 20}.open(t), nil)
	putRange(t, n1, 0, 30)
	s := openSequence(t, n2, 30)
	if m := s.Status().Matched; m.Prefix != 30 {
		t.Fatalf("matched %+v", m)
	}
	n1.stores[block.Host].Delete(key(20)) // the others still believe that it is there
	if got := onboard(t, s, block.VRAM, sequence.Range{}); got.Range.End != 20 || got.Missing != "absent" {
		t.Errorf("gone unnoticed: %+v", got)
	}
	evict(n1, block.Host, 10)
	s2 := openSequence(t, n2, 30)
	if got := onboard(t, s2, block.Host, sequence.Range{}); got.Range.End != 20 || got.Blocks[FromVRAM] != 20 {
		t.Errorf("this node has 20 in GPU memory: %+v", got)
	}
	n2.Remove(key(5)) // by a user: pins do not protect from that
	s3 := openSequence(t, n2, 30)
	if got := onboard(t, s3, block.VRAM, sequence.Range{}); got.Range.End != 20 || got.Blocks != [origins]int{FromVRAM: 19, FromPeer: 1} {
		t.Errorf("block 5 is at the peer: %+v", got)
	}
	for _, s := range []*Sequence{s, s2, s3} {
		s.Close()
	}
	nothingLeft(t, n2)
}

// A corrupt copy is not taken: another holder is asked, or it is a miss.
func TestCorruptBlockIsNotOnboarded(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 4 << 20}.open(t)
	n1, _ := c.join(t, "n1", tiers, nil)
	n2, _ := c.join(t, "n2", testTiers{vram: 4 << 20, host: 4 << 20}.open(t), nil)
	putRange(t, n1, 0, 10)
	v, err := tiers.Host.View(key(6))
	if err != nil {
		t.Fatal(err)
	}
	v.Bytes[17] ^= 1
	v.Release()
	s := openSequence(t, n2, 10)
	if got := onboard(t, s, block.VRAM, sequence.Range{}); got.Range.End != 6 || got.Missing != "corrupt" {
		t.Errorf("onboarded %+v", got)
	}
	n3, _ := c.join(t, "n3", testTiers{host: 4 << 20}.open(t), nil)
	putRange(t, n3, 0, 10)
	if got := onboard(t, s, block.VRAM, sequence.Range{}); got.Range.End != 10 || got.Missing != "" {
		t.Errorf("with another holder: %+v", got)
	}
	wantHeld(t, n2, block.VRAM, 0, 10)
	s.Close()
	nothingLeft(t, n2)
}

// Two sequences with the same beginning fetch it once, also when the first is cancelled.
func TestSequencesShareAFetch(t *testing.T) {
	for how, cancelled := range map[string]bool{"both": false, "one cancelled": true} {
		t.Run(how, func(t *testing.T) {
			g := startGated(t, block.VRAM, 40, 20)
			other := openSequence(t, g.n2, 40)
			done := make(chan result, 1)
			go func() {
				got, err := other.Onboard(t.Context(), block.VRAM, sequence.Range{})
				done <- result{got, err}
			}()
			if cancelled {
				g.cancel()
				<-g.done
			}
			close(g.gate.open)
			if r := <-done; r.err != nil || r.got.Range.End != 40 || r.got.Blocks[FromVRAM]+r.got.Blocks[FromPeer] != 40 {
				t.Errorf("got %+v, %v", r.got, r.err)
			}
			if !cancelled {
				if r := <-g.done; r.err != nil || r.got.Range.End != 40 {
					t.Errorf("the first got %+v, %v", r.got, r.err)
				}
				if n := g.n1.Status().Hits; n != 40 {
					t.Errorf("the peer has sent %d blocks", n)
				}
				wantPinned(t, g.n2, block.VRAM, 40)
				g.s.Close()
			}
			wantPinned(t, g.n2, block.VRAM, 40)
			other.Close()
			nothingLeft(t, g.n2)
			if left := len(g.n2.sequences.claims.taken); left != 0 {
				t.Errorf("%d claims are left", left)
			}
		})
	}
}

// Many sequences over the same blocks, in tiers that are too small for all of them.
func TestSequencesInParallel(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20, disk: 32 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{vram: 4 << 20, host: 4 << 20, disk: 32 << 20}.open(t), func(c *Config) { c.PromoteAfter, c.SequenceBatch = 0, 4 })
	const blocks = 48
	putRange(t, n1, 0, blocks)
	putRange(t, n2, 20, 30)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for range 12 {
				s, err := n2.OpenSequence(SequenceSpec{Keys: seqKeys(1 + rng.IntN(blocks))})
				if err != nil {
					t.Error(err)
					return
				}
				for range 3 {
					to := block.Tier(rng.IntN(2))
					got, err := s.Onboard(t.Context(), to, sequence.Range{Start: rng.IntN(s.Status().Blocks + 1)})
					if err != nil && !errors.Is(err, ErrPins) {
						t.Error(err)
					}
					for i := got.Range.Start; i < got.Range.End; i++ {
						if d, ok := n2.stores[to].Stat(key(i)); !ok || d.Length != testBlock {
							t.Errorf("block %d is not in %s", i, to)
						}
					}
					if err := s.Truncate(t.Context(), rng.IntN(blocks)); err != nil {
						t.Error(err)
					}
				}
				s.Close()
			}
		})
	}
	wg.Wait()
	if err := n2.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, n2)
	for i := range blocks {
		want(t, n2, i, Cluster)
	}
}
