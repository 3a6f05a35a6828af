package node

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/coherency"
	"cairn/sequence"
	"cairn/tier"
	"cairn/vram/emulated"
)

// The device goes at the n-th call of any kind, under a workload of puts, reads, onboards,
// promotions and demotions. Nobody gets wrong bytes; what another tier or node has stays; what
// was only in GPU memory is counted.
func TestDeviceLostAtEveryCall(t *testing.T) {
	for _, op := range []emulated.Op{emulated.CopyIn, emulated.CopyInBatch, emulated.CopyOut, emulated.CopyOutBatch, emulated.Record} {
		for _, queued := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s queued=%v", op, queued), func(t *testing.T) {
				for at := int64(1); ; at++ {
					var count atomic.Int64
					w := newLossWorkload(t, func(c emulated.Call) error {
						if c == (emulated.Call{Op: op, Queued: queued}) && count.Add(1) == at {
							return tier.ErrDeviceLost
						}
						return nil
					})
					w.run()
					w.check()
					w.end()
					if count.Load() < at {
						if w.n.lost[block.VRAM].Load() || at == 1 {
							t.Errorf("%d calls, lost %v", at-1, w.n.lost[block.VRAM].Load())
						}
						return
					}
					if t.Failed() {
						t.Fatalf("loss at call %d", at)
					}
				}
			})
		}
	}
}

// lossWorkload is two nodes: the first has blocks 0 to 11, the second the device.
type lossWorkload struct {
	t    *testing.T
	c    *memCluster
	peer *Node
	n    *Node
	s    *Sequence
	// solitary are blocks that were left in GPU memory alone.
	solitary []int
}

func newLossWorkload(t *testing.T, hook func(emulated.Call) error) *lossWorkload {
	w := &lossWorkload{t: t, c: newMemCluster()}
	w.peer, _ = w.c.join(t, "n1", testTiers{host: 2 << 20}.open(t), nil)
	w.n, _ = w.c.join(t, "n2", withDevice(t, testTiers{host: 4 << 20}.open(t), 24, hook), func(c *Config) {
		noDemoter(c)
		c.SequencePins, c.SequenceBatch, c.SequenceTransfers = 1, 4, 2
	})
	putRange(t, w.peer, 0, 12)
	return w
}

func (w *lossWorkload) run() {
	t, n := w.t, w.n
	for i := 20; i < 26; i++ {
		put(t, n, i, coherency.WriteAll)
	}
	w.leaveAlone(20, 22)
	w.s = openSequence(t, n, 12)
	w.onboard(block.Host, sequence.Range{End: 6})
	w.onboard(block.VRAM, sequence.Range{}) // six lifted, six from the peer
	w.read(5, 8, 20, 24)
	for i := 30; i < 34; i++ {
		put(t, n, i, coherency.WriteBack)
	}
	for i, err := range n.raiseMany(t.Context(), []block.Key{key(30), key(31), key(32), key(33)}) {
		if err != nil {
			t.Errorf("raise block %d: %v", 30+i, err)
		}
	}
	w.leaveAlone(30, 32)
	if err := w.s.Truncate(t.Context(), 4); err != nil {
		t.Error(err)
	}
	n.demoter.look(t.Context(), 0.1, 0)
	w.read(20, 30, 31, 33, 2)
}

// onboard brings blocks in. That the device is gone is the only error that there may be.
func (w *lossWorkload) onboard(to block.Tier, want sequence.Range) {
	got, err := w.s.Onboard(w.t.Context(), to, want)
	switch {
	case err != nil && (to != block.VRAM || !errors.Is(err, ErrNoTier)):
		w.t.Errorf("onboard to %s: %v", to, err)
	case err == nil && got.Missing != "":
		w.t.Errorf("onboard to %s: %+v", to, got)
	case err != nil && !w.n.lost[block.VRAM].Load():
		w.t.Errorf("no device, and it is not lost: %v", err)
	}
}

// leaveAlone evicts host memory's copy of blocks that GPU memory has.
func (w *lossWorkload) leaveAlone(from, to int) {
	for i := from; i < to; i++ {
		if w.n.Explain(key(i)).has(block.VRAM) {
			w.solitary = append(w.solitary, i)
			evict(w.n, block.Host, i)
		}
	}
}

// read checks that what is found has its own bytes.
func (w *lossWorkload) read(blocks ...int) (found int) {
	for _, i := range blocks {
		loans, _ := w.n.Read(w.t.Context(), []block.Key{key(i)}, Cluster)
		if loans[0] == nil {
			continue
		}
		if !bytes.Equal(loans[0].Bytes, content(i, testBlock)) {
			w.t.Errorf("block %d has wrong bytes", i)
		}
		loans[0].Release()
		found++
	}
	return found
}

func (w *lossWorkload) check() {
	t, n := w.t, w.n
	st := n.Status()
	var vram TierStatus
	for _, ts := range st.Tiers {
		if ts.Tier == block.VRAM {
			vram = ts
		}
	}
	lost := n.lost[block.VRAM].Load()
	if vram.Lost != lost || vram.Device != "emulated" || lost && (vram.Used != 0 || vram.Objects != 0 || vram.Sealed != 0) {
		t.Errorf("the status of the tier: %+v", vram)
	}
	missing := int64(0)
	for i := range 40 {
		mayBeLost := false
		for _, s := range w.solitary {
			mayBeLost = mayBeLost || s == i
		}
		known := i < 12 || i >= 20 && i < 26 || i >= 30 && i < 34
		switch found := w.read(i) == 1; {
		case !known || found:
		case mayBeLost:
			missing++
		default:
			t.Errorf("block %d is gone, which others had", i)
		}
	}
	if missing > 0 && !lost || st.Lost != missing || st.LostBytes != missing*testBlock {
		t.Errorf("%d blocks are missing; the status says that %d with %d bytes are lost, device lost: %v", missing, st.Lost, st.LostBytes, lost)
	}
	if lost {
		if held := w.s.Status().Held[block.VRAM]; len(held) != 0 {
			t.Errorf("the sequence has %v in GPU memory", held)
		}
		if _, err := w.s.Onboard(t.Context(), block.VRAM, sequence.Range{}); !errors.Is(err, ErrNoTier) {
			t.Errorf("an onboard into a tier that is gone: %v", err)
		}
		for _, p := range st.Sequences.Pinned {
			if p.Tier == block.VRAM && p.Blocks != 0 {
				t.Errorf("sequences are said to pin %+v", p)
			}
		}
		if err := n.raise(t.Context(), block.Descriptor{Key: key(24)}); err != nil {
			t.Errorf("a promotion without a device: %v", err)
		}
	}
	w.onboard(block.Host, sequence.Range{}) // life goes on
}

func (w *lossWorkload) end() {
	w.s.Close()
	nothingLeft(w.t, w.n)
	w.c.crash("n1")
	w.c.crash("n2")
}

// The device goes while everything is going on at once.
func TestDeviceLostInTheMiddle(t *testing.T) {
	for _, at := range []int64{1, 40, 90, 200} {
		var count atomic.Int64
		w := newLossWorkload(t, func(c emulated.Call) error {
			if c.Op != emulated.Alloc && c.Op != emulated.NewStream && count.Add(1) >= at {
				return tier.ErrDeviceLost
			}
			return nil
		})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 4 {
					s, err := w.n.OpenSequence(SequenceSpec{Keys: seqKeys(12)})
					if err != nil {
						t.Error(err)
						return
					}
					for _, to := range []block.Tier{block.VRAM, block.Host, block.VRAM} {
						if _, err := s.Onboard(t.Context(), to, sequence.Range{}); err != nil && !errors.Is(err, ErrNoTier) && !errors.Is(err, ErrPins) {
							t.Errorf("onboard: %v", err)
						}
					}
					s.Close()
				}
			})
		}
		wg.Go(func() {
			for i := range 40 {
				if _, err := w.n.Put(t.Context(), key(50+i), block.Key{}, content(50+i, testBlock), coherency.WriteAll); err != nil {
					t.Errorf("put: %v", err)
				}
				w.n.demoter.look(t.Context(), 0.2, 0.1)
			}
		})
		wg.Go(func() {
			for i := range 60 {
				w.read(i%12, 50+i%40)
			}
		})
		wg.Wait()
		if !w.n.lost[block.VRAM].Load() {
			t.Errorf("loss at call %d: not noticed after %d calls", at, count.Load())
		}
		for i := range 12 {
			want(t, w.n, i, Cluster)
		}
		nothingLeft(t, w.n)
		w.c.crash("n1")
		w.c.crash("n2")
	}
}

// What was fetched ahead into GPU memory goes with the device, whether it is there or on its
// way, and is accounted for.
func TestDeviceLostUnderAPrefetch(t *testing.T) {
	for _, during := range []bool{true, false} {
		var lost atomic.Bool
		lost.Store(during)
		w := newLossWorkload(t, func(c emulated.Call) error {
			if lost.Load() && (c.Op == emulated.CopyIn || c.Op == emulated.CopyOut) {
				return tier.ErrDeviceLost
			}
			return nil
		})
		done, err := w.n.Prefetch(PrefetchSpec{Tier: block.VRAM, Keys: seqKeys(6), Wait: longestAhead})
		if err != nil {
			t.Fatal(err)
		}
		<-done
		if !during {
			if got := w.n.sequences.pinnedAhead(block.VRAM); got != 6*testBlock {
				t.Errorf("the prefetch pins %d bytes", got)
			}
			lost.Store(true)
			put(t, w.n, 20, coherency.WriteBack)
			if _, err := w.n.stores[block.VRAM].Get(t.Context(), key(0), make([]byte, testBlock)); !w.n.noteLoss(block.VRAM, err) {
				t.Fatalf("the device is not lost: %v", err)
			}
		}
		if !w.n.lost[block.VRAM].Load() || w.n.sequences.pinnedAhead(block.VRAM) != 0 {
			t.Errorf("during %v: lost %v, %d bytes are still said to be pinned", during, w.n.lost[block.VRAM].Load(), w.n.sequences.pinnedAhead(block.VRAM))
		}
		if _, err := w.n.Prefetch(PrefetchSpec{Tier: block.VRAM, Keys: seqKeys(8)}); !errors.Is(err, ErrNoTier) {
			t.Errorf("a prefetch into a tier that is gone: %v", err)
		}
		for i := range 12 {
			want(t, w.n, i, Cluster)
		}
		nothingLeft(t, w.n)
	}
}
