package node

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/coherency"
	"cairn/sequence"
	"cairn/vram/emulated"
)

// Blocks that host memory has go up together, a batch for each transfer; where a batch fails,
// each of its blocks is tried alone.
func TestLiftInBatches(t *testing.T) {
	for name, broken := range map[string]emulated.Call{
		"nothing fails": {Op: emulated.CopyDevice}, "refused": {Op: emulated.CopyInBatch}, "fails": {Op: emulated.CopyInBatch, Queued: true},
	} {
		t.Run(name, func(t *testing.T) {
			var batches, singles, failed atomic.Int64
			hook := func(c emulated.Call) error {
				switch c {
				case emulated.Call{Op: emulated.CopyInBatch}:
					batches.Add(1)
				case emulated.Call{Op: emulated.CopyIn}:
					singles.Add(1)
				}
				if c == broken && failed.CompareAndSwap(0, 1) {
					return errBroken
				}
				return nil
			}
			n, _ := newMemCluster().join(t, "n1", withDevice(t, testTiers{host: 8 << 20}.open(t), 32, hook), func(c *Config) {
				noDemoter(c)
				c.SequenceBatch, c.SequenceTransfers = 4, 1
			})
			putRange(t, n, 0, 12)
			s := openSequence(t, n, 12)
			if got := onboard(t, s, block.VRAM, sequence.Range{}); got.Range.End != 12 || got.Blocks[FromHost] != 12 {
				t.Errorf("onboarded %+v", got)
			}
			want := int64(0)
			if failed.Load() == 1 {
				want = 4
			}
			if batches.Load() != 3 || singles.Load() != want {
				t.Errorf("%d batches and %d copies, want 3 and %d", batches.Load(), singles.Load(), want)
			}
			wantHeld(t, n, block.VRAM, 0, 12)
			wantPinned(t, n, block.VRAM, 12)
			s.Close()
			nothingLeft(t, n)
		})
	}
}

// An onboard that is cancelled while a batch goes up keeps nothing of it.
func TestLiftCancelled(t *testing.T) {
	reached, open := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	hook := func(c emulated.Call) error {
		if c == (emulated.Call{Op: emulated.CopyInBatch, Queued: true}) && first.CompareAndSwap(false, true) {
			close(reached)
			<-open
		}
		return nil
	}
	n, _ := newMemCluster().join(t, "n1", withDevice(t, testTiers{host: 8 << 20}.open(t), 32, hook), noDemoter)
	putRange(t, n, 0, 12)
	s := openSequence(t, n, 12)
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := s.Onboard(ctx, block.VRAM, sequence.Range{})
		done <- err
	}()
	<-reached
	cancel()
	close(open)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nothingLeft(t, n)
	if got := onboard(t, s, block.VRAM, sequence.Range{}); got.Range.End != 12 {
		t.Errorf("once more: %+v", got)
	}
	s.Close()
	nothingLeft(t, n)
}

// A block that no slot of GPU memory takes stays where it is: that is no failure, and comes
// again with every read.
func TestPromotionOfWhatIsTooLarge(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", deviceTiers.open(t), nil)
	large := mustSet(t, n, "large", strings.Repeat("x", 3*testBlock)).After.Value.Object
	small := mustSet(t, n, "small", "x").After.Value.Object
	n.promote(t.Context(), []block.Key{large, small})
	if errs, done := n.counters.promoteErrors.Load(), n.counters.promoted.Load(); errs != 0 || done != 1 {
		t.Errorf("%d failures, %d promoted; want the small one, and no failure", errs, done)
	}
}

// What is asked for while a promotion is under way goes up together after it.
func TestPromotionsGoTogether(t *testing.T) {
	reached, open := make(chan struct{}), make(chan struct{})
	var batches atomic.Int64
	hook := func(c emulated.Call) error {
		if c == (emulated.Call{Op: emulated.CopyInBatch}) && batches.Add(1) == 1 {
			close(reached)
			<-open
		}
		return nil
	}
	n, _ := newMemCluster().join(t, "n1", withDevice(t, testTiers{host: 8 << 20}.open(t), 32, hook), func(c *Config) { c.PromoteAfter = 1 })
	for i := range 9 {
		put(t, n, i, coherency.WriteBack)
	}
	want(t, n, 0, Local)
	<-reached
	for i := 1; i < 9; i++ {
		want(t, n, i, Local)
		want(t, n, i, Local) // asks again
	}
	close(open)
	for n.counters.promoted.Load() < 9 || n.host.Stats().Pinned > 0 { // they are held until the directory knows
		runtime.Gosched()
	}
	if got := batches.Load(); got != 2 {
		t.Errorf("%d batches, want the first block and then the other 8", got)
	}
	wantHeld(t, n, block.VRAM, 0, 9)
	nothingLeft(t, n)
}
