package vram_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

var errBroken = errors.New("broken")

// fault makes the nth call that matches fail.
type fault struct {
	call  emulated.Call
	at    int64
	err   error
	count atomic.Int64
}

func (f *fault) hook(c emulated.Call) error {
	if c == f.call && f.count.Add(1) == f.at {
		return f.err
	}
	return nil
}

const faultSlots = 4

func openFaulty(t *testing.T, f *fault) *vram.Pool {
	return open(t, vram.Config{Capacity: faultSlots * 64 * kib, Classes: []int{64 * kib}, Streams: 1}, f.hook)
}

// workload puts, reads and deletes until the end or until a call gives an error
// that is not errBroken, which it returns. broken counts the calls that gave
// errBroken. Whatever is visible must have its own bytes.
func workload(t *testing.T, p *vram.Pool) (broken int, err error) {
	t.Helper()
	held := map[block.Key][]byte{}
	dst := make([]byte, 64*kib)
	for i := range 3 * faultSlots {
		d, src := object(i, 1000+i)
		evicted, err := p.Put(context.Background(), d, src)
		for _, key := range evicted {
			if _, ok := held[key]; !ok {
				t.Errorf("evicted %s, which was not there", key)
			}
			delete(held, key)
		}
		switch {
		case err == nil:
			held[d.Key] = src
		case errors.Is(err, errBroken):
			broken++
		default:
			return broken, err
		}
		if _, ok := p.Stat(d.Key); ok != (err == nil) {
			t.Errorf("Put gave %v, and Stat finds the object: %v", err, ok)
		}
		for key, want := range held {
			d, err := p.Get(context.Background(), key, dst)
			switch {
			case errors.Is(err, errBroken):
				broken++
			case err != nil:
				return broken, err
			case !bytes.Equal(dst[:d.Length], want):
				t.Errorf("wrong bytes for %s", key)
			}
		}
		if i%3 == 2 {
			if p.Delete(d.Key) != (held[d.Key] != nil) {
				t.Errorf("Delete and the model disagree about %s", d.Key)
			}
			delete(held, d.Key)
		}
		if got := p.Stats().Objects; got != int64(len(held)) {
			t.Fatalf("%d objects, want %d", got, len(held))
		}
	}
	return broken, nil
}

// checkNoLeak empties the pool and fills every slot.
func checkNoLeak(t *testing.T, p *vram.Pool) {
	t.Helper()
	var keys []block.Key
	p.All(func(d block.Descriptor) bool {
		keys = append(keys, d.Key)
		return true
	})
	for _, key := range keys {
		p.Delete(key)
	}
	if s := p.Stats(); s.Used != 0 || s.Bytes != 0 || s.Objects != 0 || s.Pinned != 0 {
		t.Errorf("an empty pool says %+v", s)
	}
	for i := range faultSlots {
		put(t, p, 1000+i, 64*kib)
		if err := p.Pin(key(1000 + i)); err != nil {
			t.Fatal(err)
		}
	}
	d, src := object(2000, 1)
	if _, err := p.Put(context.Background(), d, src); !errors.Is(err, tier.ErrFull) {
		t.Errorf("one more Put than there are slots gave %v, want ErrFull", err)
	}
}

// faultPoints are the calls of the copies' path.
var faultPoints = []emulated.Call{
	{Op: emulated.CopyIn}, {Op: emulated.CopyIn, Queued: true},
	{Op: emulated.CopyOut}, {Op: emulated.CopyOut, Queued: true},
	{Op: emulated.Record}, {Op: emulated.Record, Queued: true},
}

// TestFaultAtEveryCall lets each call of the workload fail in turn: that call's
// Put or Get gives the error, nothing else changes, and no slot is lost.
func TestFaultAtEveryCall(t *testing.T) {
	for _, call := range faultPoints {
		t.Run(fmt.Sprintf("%s queued=%v", call.Op, call.Queued), func(t *testing.T) {
			for at := int64(1); ; at++ {
				f := &fault{call: call, at: at, err: errBroken}
				p := openFaulty(t, f)
				broken, err := workload(t, p)
				if err != nil {
					t.Fatalf("fault at call %d: %v", at, err)
				}
				if f.count.Load() < at {
					if broken != 0 || at < 2*faultSlots {
						t.Errorf("%d errors, %d calls in all", broken, at-1)
					}
					t.Logf("%d calls", at-1)
					return
				}
				if broken != 1 {
					t.Errorf("fault at call %d: %d operations gave an error, want 1", at, broken)
				}
				if got := p.Stats().Errors; got != 1 {
					t.Errorf("fault at call %d: Stats say %d errors", at, got)
				}
				checkNoLeak(t, p)
			}
		})
	}
}

// TestLostAtEveryCall: from the loss on every call says so and the pool is empty;
// Close works, with a view outstanding that is released after the loss.
func TestLostAtEveryCall(t *testing.T) {
	for _, call := range faultPoints {
		t.Run(fmt.Sprintf("%s queued=%v", call.Op, call.Queued), func(t *testing.T) {
			for at := int64(1); ; at++ {
				f := &fault{call: call, at: at, err: tier.ErrDeviceLost}
				p := openFaulty(t, f)
				_, err := workload(t, p)
				if err == nil {
					if at < 2*faultSlots {
						t.Errorf("the workload has %d calls", at-1)
					}
					return
				}
				checkLost(t, p, err)
			}
		})
	}
}

func checkLost(t *testing.T, p *vram.Pool, err error) {
	t.Helper()
	d, src := object(1, 1000)
	_, put := p.Put(context.Background(), d, src)
	_, get := p.Get(context.Background(), d.Key, src)
	_, mapped := p.Map(d.Key)
	for what, err := range map[string]error{"the workload": err, "Put": put, "Get": get, "Map": mapped, "Pin": p.Pin(d.Key)} {
		if !errors.Is(err, tier.ErrDeviceLost) {
			t.Errorf("%s on a lost device gave %v, want ErrDeviceLost", what, err)
		}
	}
	p.Unpin(d.Key)
	if _, ok := p.Stat(d.Key); ok || p.Delete(d.Key) {
		t.Error("a lost device still has objects")
	}
	p.All(func(d block.Descriptor) bool {
		t.Errorf("All yields %s of a lost device", d.Key)
		return false
	})
	if s := p.Stats(); s.Objects != 0 || s.Bytes != 0 || s.Used != 0 || s.Pinned != 0 {
		t.Errorf("Stats of a lost device: %+v", s)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close of a lost device: %v", err)
	}
	if _, err := p.Get(context.Background(), d.Key, src); !errors.Is(err, tier.ErrClosed) {
		t.Errorf("Get after Close gave %v, want ErrClosed", err)
	}
}

// TestLostUnderView: a view and a pin outlive the loss without harm.
func TestLostUnderView(t *testing.T) {
	f := &fault{call: emulated.Call{Op: emulated.CopyOut}, at: 1, err: tier.ErrDeviceLost}
	p := openFaulty(t, f)
	put(t, p, 1, 1000)
	put(t, p, 2, 1000)
	if err := p.Pin(key(2)); err != nil {
		t.Fatal(err)
	}
	v, err := p.Map(key(1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Get(context.Background(), key(1), make([]byte, 1000))
	v.Release()
	p.Unpin(key(2))
	checkLost(t, p, err)
}

// TestOpenFaults: an Open that fails leaves nothing on the device.
func TestOpenFaults(t *testing.T) {
	for _, c := range []struct {
		op emulated.Op
		at int64
	}{{emulated.Alloc, 1}, {emulated.NewStream, 1}, {emulated.NewStream, 2}, {emulated.NewStream, 4}} {
		f := &fault{call: emulated.Call{Op: c.op}, at: c.at, err: errBroken}
		dev, err := emulated.New(emulated.Config{Memory: 1 << 20, Hook: f.hook})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vram.Open(dev, vram.Config{Capacity: 1 << 20, Classes: []int{64 * kib}}); !errors.Is(err, errBroken) {
			t.Errorf("%s %d: Open gave %v", c.op, c.at, err)
		}
		if free, total, err := dev.Memory(); err != nil || free != total {
			t.Errorf("%s %d: %d of %d bytes are free after Open, %v", c.op, c.at, free, total, err)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
}
