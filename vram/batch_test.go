package vram_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"cairn/block"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// plain is a device whose streams know no batches.
type plain struct{ vram.Device }

type plainStream struct{ vram.Stream }

func (d plain) NewStream() (vram.Stream, error) {
	s, err := d.Device.NewStream()
	return plainStream{s}, err
}

// openBatches opens a pool of faultSlots slots on a device with or without batches.
func openBatches(t *testing.T, batches bool, cfg vram.Config, hook func(emulated.Call) error) *vram.Pool {
	t.Helper()
	if batches {
		return open(t, cfg, hook)
	}
	dev, err := emulated.New(emulated.Config{Memory: cfg.Capacity, Hook: hook})
	if err != nil {
		t.Fatal(err)
	}
	p, err := vram.Open(plain{dev}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Close(), dev.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func faultConfig() vram.Config {
	return vram.Config{Capacity: faultSlots * 64 * kib, Classes: []int{64 * kib}, Streams: 1}
}

// batchOf is objects from to to-1, as items to be put.
func batchOf(from, to int) []tier.Item {
	var items []tier.Item
	for i := from; i < to; i++ {
		d, src := object(i, 1000+i)
		items = append(items, tier.Item{Descriptor: d, Bytes: src})
	}
	return items
}

// batchWorkload puts and gets in batches. It returns how many batches gave errBroken, and
// the first other error. What is visible must have its own bytes; a batch that failed has
// left nothing.
func batchWorkload(t *testing.T, p *vram.Pool) (broken int, err error) {
	t.Helper()
	held := map[block.Key][]byte{}
	look := func(errs []error) error {
		if slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, errBroken) }) {
			broken++
		}
		for _, err := range errs {
			if err != nil && !errors.Is(err, errBroken) {
				return err
			}
		}
		return nil
	}
	for round := range 6 {
		items := batchOf(3*round, 3*round+3)
		evicted, errs := p.PutMany(context.Background(), items)
		for _, key := range evicted {
			if held[key] == nil {
				t.Errorf("evicted %s, which was not there", key)
			}
			delete(held, key)
		}
		for i, it := range items {
			if errs[i] == nil {
				held[it.Key] = it.Bytes
			}
			if _, ok := p.Stat(it.Key); ok != (errs[i] == nil) {
				t.Errorf("PutMany gave %v, and Stat finds the object: %v", errs[i], ok)
			}
			if (errs[i] == nil) != (errs[0] == nil) {
				t.Errorf("one batch gave %v", errs)
			}
		}
		if err := look(errs); err != nil {
			return broken, err
		}
		var ask []tier.Item
		for key := range held {
			ask = append(ask, tier.Item{Descriptor: block.Descriptor{Key: key}, Bytes: make([]byte, 64*kib)})
		}
		errs = p.GetMany(context.Background(), ask)
		if err := look(errs); err != nil {
			return broken, err
		}
		for i, it := range ask {
			if errs[i] == nil && !bytes.Equal(it.Bytes[:it.Length], held[it.Key]) {
				t.Errorf("wrong bytes for %s", it.Key)
			}
		}
		if s := p.Stats(); s.Objects != int64(len(held)) || s.Pinned != 0 {
			t.Fatalf("%d objects, %d pinned, want %d and none", s.Objects, s.Pinned, len(held))
		}
	}
	return broken, nil
}

// batchFaults are the calls of the path of batches, with streams that know them and
// without.
var batchFaults = map[bool][]emulated.Call{
	true: {
		{Op: emulated.CopyInBatch}, {Op: emulated.CopyInBatch, Queued: true},
		{Op: emulated.CopyOutBatch}, {Op: emulated.CopyOutBatch, Queued: true},
		{Op: emulated.Record}, {Op: emulated.Record, Queued: true},
	},
	false: {
		{Op: emulated.CopyIn}, {Op: emulated.CopyIn, Queued: true},
		{Op: emulated.CopyOut}, {Op: emulated.CopyOut, Queued: true},
	},
}

// TestBatchFaultAtEveryCall lets each call of batches fail in turn: that batch gives the
// error, none of its objects is there, and no slot is lost.
func TestBatchFaultAtEveryCall(t *testing.T) {
	for batches, calls := range batchFaults {
		for _, call := range calls {
			t.Run(fmt.Sprintf("batches=%v %s queued=%v", batches, call.Op, call.Queued), func(t *testing.T) {
				for at := int64(1); ; at++ {
					f := &fault{call: call, at: at, err: errBroken}
					p := openBatches(t, batches, faultConfig(), f.hook)
					broken, err := batchWorkload(t, p)
					if err != nil {
						t.Fatalf("fault at call %d: %v", at, err)
					}
					if f.count.Load() < at {
						if broken != 0 || at < 6 {
							t.Errorf("%d errors, %d calls in all", broken, at-1)
						}
						return
					}
					if broken != 1 {
						t.Errorf("fault at call %d: %d batches gave an error, want 1", at, broken)
					}
					if s := p.Stats(); s.Errors != 1 {
						t.Errorf("fault at call %d: Stats say %d errors", at, s.Errors)
					}
					if f := p.Flights(); f.Batches != 0 || f.Bytes != 0 {
						t.Errorf("fault at call %d: %+v is under way", at, f)
					}
					checkNoLeak(t, p)
				}
			})
		}
	}
}

func TestBatchLostAtEveryCall(t *testing.T) {
	for batches, calls := range batchFaults {
		for _, call := range calls {
			t.Run(fmt.Sprintf("batches=%v %s queued=%v", batches, call.Op, call.Queued), func(t *testing.T) {
				for at := int64(1); ; at++ {
					f := &fault{call: call, at: at, err: tier.ErrDeviceLost}
					p := openBatches(t, batches, faultConfig(), f.hook)
					_, err := batchWorkload(t, p)
					if err == nil {
						if at < 6 {
							t.Errorf("the workload has %d calls", at-1)
						}
						return
					}
					checkLost(t, p, err)
				}
			})
		}
	}
}

// TestBatchIsBornPinned: nothing can push out what a batch has put with a pin, and what was
// there is pinned as well.
func TestBatchIsBornPinned(t *testing.T) {
	p := open(t, faultConfig(), nil)
	put(t, p, 1, 1001)
	items := batchOf(0, faultSlots+1)
	for i := range items {
		items[i].Pin = true
	}
	_, errs := p.PutMany(context.Background(), items)
	for i, err := range errs {
		switch {
		case i == 1 && !errors.Is(err, tier.ErrExists), i == faultSlots && !errors.Is(err, tier.ErrFull), i != 1 && i != faultSlots && err != nil:
			t.Errorf("item %d: %v", i, err)
		case (items[i].Object != 0) != (i != faultSlots):
			t.Errorf("item %d: object %d", i, items[i].Object)
		}
	}
	if s := p.Stats(); s.Pinned != faultSlots || s.Objects != faultSlots {
		t.Fatalf("%+v, want all of %d objects pinned", s, faultSlots)
	}
	for _, it := range items {
		p.UnpinExact(it.Key, it.Object)
	}
	if s := p.Stats(); s.Pinned != 0 {
		t.Errorf("%d objects stay pinned", s.Pinned)
	}
}

// TestBatchItemsFailByThemselves: an item that cannot be put or got does not harm the rest.
func TestBatchItemsFailByThemselves(t *testing.T) {
	p := open(t, faultConfig(), nil)
	items := batchOf(0, 4)
	items[1].Bytes = items[1].Bytes[1:]                                                              // not what the descriptor says
	items[2].Descriptor, items[2].Bytes = block.Describe(key(2), block.Key{}, nil), nil              // empty
	items[3].Bytes = make([]byte, 65*kib)                                                            // too large
	items[3].Descriptor = block.Describe(key(3), block.Key{}, items[3].Bytes)                        //
	items = append(items, items[0], tier.Item{Descriptor: items[0].Descriptor, Bytes: []byte("zz")}) // again, and in conflict
	items[5].Descriptor = block.Describe(key(0), block.Key{}, []byte("zz"))
	_, errs := p.PutMany(context.Background(), items)
	for i, want := range []error{nil, nil, nil, tier.ErrTooLarge, tier.ErrExists, tier.ErrConflict} {
		if i == 1 {
			if errs[1] == nil {
				t.Error("an item with too few bytes was put")
			}
		} else if !errors.Is(errs[i], want) {
			t.Errorf("item %d: %v, want %v", i, errs[i], want)
		}
	}
	ask := []tier.Item{
		{Descriptor: block.Descriptor{Key: key(0)}, Bytes: make([]byte, 1000)}, {Descriptor: block.Descriptor{Key: key(1)}},
		{Descriptor: block.Descriptor{Key: key(2)}}, {Descriptor: block.Descriptor{Key: key(0)}, Bytes: make([]byte, 10)},
	}
	errs = p.GetMany(context.Background(), ask)
	for i, want := range []error{nil, tier.ErrNotFound, nil, tier.ErrShortBuffer} {
		if !errors.Is(errs[i], want) {
			t.Errorf("get %d: %v, want %v", i, errs[i], want)
		}
	}
	if !bytes.Equal(ask[0].Bytes, items[0].Bytes) || ask[3].Length != 1000 {
		t.Error("got other bytes, or no descriptor with a buffer that is too short")
	}
	checkNoLeak(t, p)
}

// TestBatchesWaitForTheirTurn: no more are under way than may be, in batches and in bytes;
// who waits takes no slot, and leaves when its context ends.
func TestBatchesWaitForTheirTurn(t *testing.T) {
	for name, cfg := range map[string]vram.Config{"batches": {Batches: 1}, "bytes": {BatchBytes: 1000}} {
		t.Run(name, func(t *testing.T) {
			cfg.Capacity, cfg.Classes, cfg.Streams = 8*64*kib, []int{64 * kib}, 2
			reached, gate := make(chan struct{}, 8), make(chan struct{})
			p := open(t, cfg, func(c emulated.Call) error {
				if c.Op == emulated.CopyInBatch && c.Queued {
					reached <- struct{}{}
					<-gate
				}
				return nil
			})
			results := make(chan []error, 2)
			start := func(ctx context.Context, i int) {
				go func() {
					_, errs := p.PutMany(ctx, batchOf(i, i+1))
					results <- errs
				}()
			}
			waits := func(n int64) {
				for p.Flights().Waits < n {
					runtime.Gosched()
				}
			}
			start(context.Background(), 0)
			<-reached
			ctx, cancel := context.WithCancel(context.Background())
			start(ctx, 1)
			waits(1)
			if s, f := p.Stats(), p.Flights(); s.Used != 64*kib || f.Batches != 1 || f.Bytes != 1000 {
				t.Errorf("%d bytes are in use and %+v is under way", s.Used, f)
			}
			cancel()
			if errs := <-results; !errors.Is(errs[0], context.Canceled) {
				t.Errorf("who waited got %v", errs)
			}
			start(context.Background(), 2)
			waits(2)
			close(gate)
			for range 2 {
				if errs := <-results; errs[0] != nil {
					t.Error(errs[0])
				}
			}
			for i, want := range []bool{true, false, true} {
				if _, ok := p.Stat(key(i)); ok != want {
					t.Errorf("object %d is there: %v", i, ok)
				}
			}
			if f := p.Flights(); f.Batches != 0 || f.Bytes != 0 || f.Waits != 2 {
				t.Errorf("%+v at the end", f)
			}
		})
	}
}

// TestBatchesInParallel: many batches over the same objects, in a pool that is too small.
func TestBatchesInParallel(t *testing.T) {
	p := open(t, vram.Config{Capacity: 16 * 64 * kib, Classes: []int{64 * kib}, Batches: 2, BatchBytes: 5000}, nil)
	done := make(chan struct{})
	for w := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			rng := rand.New(rand.NewPCG(7, uint64(w)))
			for range 200 {
				from := rng.IntN(40)
				items := batchOf(from, from+rng.IntN(8))
				for i := range items {
					items[i].Pin = rng.IntN(4) == 0
				}
				_, errs := p.PutMany(context.Background(), items)
				for i, err := range errs {
					if err != nil && !errors.Is(err, tier.ErrExists) && !errors.Is(err, tier.ErrFull) && !errors.Is(err, tier.ErrNotFound) {
						t.Error(err)
					}
					if items[i].Object != 0 {
						p.UnpinExact(items[i].Key, items[i].Object)
					}
				}
				ask := batchOf(from, from+len(items))
				for i := range ask {
					ask[i].Bytes = make([]byte, 64*kib)
				}
				for i, err := range p.GetMany(context.Background(), ask) {
					if err == nil && !bytes.Equal(ask[i].Bytes[:ask[i].Length], items[i].Bytes) {
						t.Errorf("wrong bytes for %s", ask[i].Key)
					}
				}
				if rng.IntN(4) == 0 {
					p.Delete(key(from))
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
	if s := p.Stats(); s.Pinned != 0 || s.Used != s.Objects*64*kib {
		t.Errorf("at the end: %+v", s)
	}
}
