package node

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/sequence"
)

// A block that a user deletes and puts again belongs to the sequences that pinned it since:
// the end of an older one does not take their pins.
func TestEndOfASequenceLeavesNewerPins(t *testing.T) {
	for _, to := range []block.Tier{block.Host, block.VRAM} {
		for name, pin := range map[string]func(t *testing.T, s *Sequence){
			"what was there": func(t *testing.T, s *Sequence) {
				put(t, s.n, 0, coherency.WriteBack)
				onboard(t, s, block.Host, sequence.Range{})
				onboard(t, s, to, sequence.Range{})
			},
			"what a peer gave": func(t *testing.T, s *Sequence) { onboard(t, s, to, sequence.Range{}) },
			"what was committed": func(t *testing.T, s *Sequence) {
				if _, err := s.Commit(t.Context(), 0, incoming(t, s.n, 0, 1), coherency.WriteBack); err != nil {
					t.Fatal(err)
				}
				onboard(t, s, to, sequence.Range{})
			},
		} {
			t.Run(to.String()+"/"+name, func(t *testing.T) {
				c := newMemCluster()
				peer, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
				n, _ := c.join(t, "n2", testTiers{vram: 4 << 20, host: 4 << 20}.open(t), nil)
				put(t, peer, 0, coherency.WriteBack)
				older, newer := openSequence(t, n, 1), openSequence(t, n, 1)
				pin(t, older)
				n.Remove(key(0))
				wantPinned(t, n, to, 0)
				pin(t, newer)
				wantPinned(t, n, to, 1)
				older.Close()
				wantPinned(t, n, to, 1)
				newer.Close()
				nothingPinned(t, n)
			})
		}
	}
}

// A node that closes closes the sequences that are being opened, or refuses them.
func TestOpenWhileTheNodeCloses(t *testing.T) {
	for range 20 {
		n, _ := newMemCluster().join(t, "n1", testTiers{host: 1 << 20}.open(t), nil)
		var opened atomic.Int64
		some := make(chan struct{})
		var opening sync.WaitGroup
		for range 4 {
			opening.Go(func() {
				for {
					s, err := n.OpenSequence(SequenceSpec{Keys: seqKeys(1)})
					switch {
					case errors.Is(err, ErrClosed):
						return
					case errors.Is(err, ErrSequenceLimit):
						continue
					case err != nil:
						t.Error(err)
						return
					}
					defer func() { <-s.Done() }()
					if opened.Add(1) == 8 {
						close(some)
					}
				}
			})
		}
		<-some
		n.sequences.close()
		opening.Wait()
	}
}

// The timer of a sequence may fire while a method runs, and when one ends: the sequence ends
// all the same.
func TestTimerThatFiresWhileASequenceIsUsed(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 1 << 20}.open(t), func(c *Config) { c.SequenceIdle = time.Millisecond })
	s := openSequence(t, n, 1)
	_, done, err := s.begin(t.Context())
	for err != nil { // its time was over before it could be used
		if !errors.Is(err, ErrSequence) {
			t.Fatal(err)
		}
		<-s.Done()
		s = openSequence(t, n, 1)
		_, done, err = s.begin(t.Context())
	}
	expired := n.Status().Sequences.Expired
	s.expire()
	done()
	s.expire() // as late as one that fired before the method began
	<-s.Done()
	s.expire()
	if got := n.Status().Sequences.Expired - expired; got != 1 {
		t.Errorf("it counts %d times as closed because nobody used it", got)
	}
}
