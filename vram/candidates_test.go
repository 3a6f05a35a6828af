package vram_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/eviction"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// TestCandidatesGoNext: what a pool foresees is what its puts evict, in that order, leaves
// before the blocks that they follow.
func TestCandidatesGoNext(t *testing.T) {
	p := open(t, vram.Config{Capacity: 32 * 64 * kib, Classes: []int{64 * kib}}, nil)
	if got := p.Candidates(8); len(got) != 0 {
		t.Errorf("an empty pool foresees %v", got)
	}
	for i := range 32 {
		if i%4 == 0 {
			put(t, p, i, 100)
		} else {
			putChild(t, p, i, i-1) // sequences of four blocks
		}
	}
	if err := p.Pin(key(7)); err != nil { // the end of the second one: it stays whole
		t.Fatal(err)
	}
	foreseen := p.Candidates(28)
	if len(foreseen) != 28 {
		t.Fatalf("%d objects are foreseen, want 28", len(foreseen))
	}
	for i, d := range foreseen {
		if evicted := put(t, p, 100+i, 100); len(evicted) != 1 || evicted[0] != d.Key {
			t.Fatalf("Put %d evicted %v, foreseen was %s", i, evicted, d.Key)
		}
	}
	if got := p.Candidates(3); len(got) != 3 {
		t.Errorf("%d objects are foreseen, want 3", len(got))
	}
	if p.Candidates(0) != nil {
		t.Error("nothing was asked for")
	}
}

// TestCandidatesChangeNothing: of two pools that do the same, one is asked all the time.
func TestCandidatesChangeNothing(t *testing.T) {
	for _, kind := range []string{eviction.KindLRU, eviction.KindHazard} {
		t.Run(kind, func(t *testing.T) {
			cfg := vram.Config{Capacity: 64 * 64 * kib, Classes: []int{16 * kib, 64 * kib}, RunSize: 256 * kib, Eviction: kind, Seed: 3}
			asked, other := open(t, cfg, nil), open(t, cfg, nil)
			rng := rand.New(rand.NewPCG(11, 0))
			for step := range 400 {
				i, n := rng.IntN(300), (1+rng.IntN(64))*kib
				_, there := asked.Stat(key(i))
				asked.Candidates(1 + rng.IntN(40))
				if there {
					for _, p := range []*vram.Pool{asked, other} {
						v, err := p.Map(key(i))
						if err != nil {
							t.Fatal(err)
						}
						v.Release()
					}
					continue
				}
				a, b := put(t, asked, i, n), put(t, other, i, n)
				if kind == eviction.KindHazard {
					continue // it goes by the clock as well
				}
				if len(a) != len(b) {
					t.Fatalf("step %d: evicted %v and %v", step, a, b)
				}
				for j := range a {
					if a[j] != b[j] {
						t.Fatalf("step %d: evicted %v and %v", step, a, b)
					}
				}
			}
			seen := map[block.Key]bool{}
			for _, d := range asked.Candidates(50) {
				if _, there := asked.Stat(d.Key); !there || seen[d.Key] {
					t.Errorf("%s is foreseen twice, or is not there", d.Key)
				}
				seen[d.Key] = true
			}
			if len(seen) == 0 {
				t.Error("nothing is foreseen in a full pool")
			}
		})
	}
}

// TestYield: what nothing keeps goes at once.
func TestYield(t *testing.T) {
	p := open(t, vram.Config{Capacity: 4 * 64 * kib, Classes: []int{64 * kib}}, nil)
	put(t, p, 1, 100)
	if err := p.Pin(key(1)); err != nil {
		t.Fatal(err)
	}
	if p.Yield(key(1)) || p.Yield(key(2)) {
		t.Error("an object that is pinned, or not there, has gone")
	}
	p.Unpin(key(1))
	if !p.Yield(key(1)) {
		t.Error("an idle object stays")
	}
	if s := p.Stats(); s.Objects != 0 || s.Used != 0 || s.Evictions != 1 {
		t.Errorf("at the end: %+v", s)
	}
}

// TestQuietGetIsNoUse: what is copied out because it may have to go goes as if it had not
// been, unless it was needed in between; and not while it is being copied.
func TestQuietGetIsNoUse(t *testing.T) {
	var gate atomic.Pointer[chan struct{}]
	reached := make(chan struct{})
	p := open(t, vram.Config{Capacity: 4 * 64 * kib, Classes: []int{64 * kib}}, func(c emulated.Call) error {
		if ch := gate.Load(); ch != nil && c.Op == emulated.CopyOutBatch && c.Queued {
			reached <- struct{}{}
			<-*ch
		}
		return nil
	})
	for i := range 4 {
		put(t, p, i, 1000)
	}
	quietly := func(i int) []error {
		return p.GetMany(context.Background(), []tier.Item{{Descriptor: block.Descriptor{Key: key(i)}, Bytes: make([]byte, 1000), Quiet: true}})
	}
	if errs := append(quietly(0), quietly(1)...); errors.Join(errs...) != nil {
		t.Fatal(errs)
	}
	if s := p.Stats(); s.Hits != 0 || s.Pinned != 0 {
		t.Errorf("%d hits, %d pinned", s.Hits, s.Pinned)
	}
	if errs := quietly(99); !errors.Is(errs[0], tier.ErrNotFound) || p.Stats().Misses != 0 {
		t.Errorf("%v, %d misses", errs, p.Stats().Misses)
	}
	if evicted := put(t, p, 10, 1000); len(evicted) != 1 || evicted[0] != key(0) {
		t.Errorf("evicted %v, want object 0", evicted)
	}
	open := make(chan struct{})
	gate.Store(&open)
	done := make(chan []error)
	go func() { done <- quietly(1) }()
	<-reached
	if evicted := put(t, p, 11, 1000); len(evicted) != 1 || evicted[0] != key(2) {
		t.Errorf("evicted %v, want object 2: object 1 is being copied", evicted)
	}
	gate.Store(nil)
	close(open)
	if errs := <-done; errs[0] != nil {
		t.Error(errs)
	}
	for i, want := range []int{3, 10, 11, 1} {
		if evicted := put(t, p, 20+i, 1000); len(evicted) != 1 || evicted[0] != key(want) {
			t.Errorf("evicted %v, want object %d", evicted, want)
		}
	}
	if s := p.Stats(); s.Pinned != 0 || s.Objects != 4 {
		t.Errorf("at the end: %+v", s)
	}
}

// TestQuietGetsInParallel: quiet and ordinary uses, pins and deletions of the same objects
// leave the books straight.
func TestQuietGetsInParallel(t *testing.T) {
	const slots = 16
	p := open(t, vram.Config{Capacity: slots * 64 * kib, Classes: []int{16 * kib, 64 * kib}, RunSize: 64 * kib}, nil)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(5, uint64(w)))
			buf := make([]byte, 64*kib)
			for range 500 {
				i := rng.IntN(40)
				d, src := object(i, 1+i*1000)
				switch rng.IntN(6) {
				case 0, 1:
					_, _ = p.Put(context.Background(), d, src)
				case 2:
					p.GetMany(context.Background(), []tier.Item{{Descriptor: block.Descriptor{Key: d.Key}, Bytes: buf, Quiet: true}})
				case 3:
					if object, err := p.PinExact(d.Key); err == nil {
						p.GetMany(context.Background(), []tier.Item{{Descriptor: block.Descriptor{Key: d.Key}, Bytes: buf, Quiet: true}})
						p.UnpinExact(d.Key, object)
					}
				case 4:
					_, _ = p.Get(context.Background(), d.Key, buf)
				default:
					p.Delete(d.Key)
				}
				p.Candidates(8)
			}
		})
	}
	wg.Wait()
	if s := p.Stats(); s.Pinned != 0 {
		t.Errorf("%d objects stay pinned", s.Pinned)
	}
	for i := range 2 * slots {
		put(t, p, 1000+i, 64*kib) // every run can be had again
	}
	if s := p.Stats(); s.Objects != slots || s.Used != s.Capacity {
		t.Errorf("at the end: %+v", s)
	}
}
