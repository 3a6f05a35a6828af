//go:build cuda && cgo

package cuda_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"cairn/block"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/cuda"
)

// What is asked of a GPU.
const (
	leastOfPlain  = 0.90 // of a plain asynchronous copy's rate, at 2 MiB through a stream
	leastOfOneWay = 1.6  // both directions together, of one
)

// depth is how many copies are under way at a time, as one node keeps them.
const depth = 32

// rig is a device with what measurements need: host memory that is page-locked, device memory of the
// same size, and the driver without us.
type rig struct {
	t      testing.TB
	dev    *cuda.Device
	host   []byte
	at     vram.Addr
	total  int // bytes that one measurement moves
	rounds int
	stream vram.BatchStream
	other  vram.BatchStream
	plain  cu.Stream
	ctx    cu.CUContext
}

// newRig is small on the fake driver, whose figures say nothing about a GPU.
func newRig(t testing.TB) *rig {
	r := &rig{t: t, total: 2 << 30, rounds: 7}
	size := 512 << 20
	if fake != nil {
		r.total, r.rounds, size = 16<<20, 3, 16<<20
	}
	r.host = mapped(t, size)
	r.dev = open(t, cuda.Config{})
	must(t, r.dev.Register(r.host))
	r.at, r.stream, r.other = alloc(t, r.dev, int64(size)), newStream(t, r.dev), newStream(t, r.dev)
	gpu, err := cu.GetDevice(0)
	must(t, err)
	r.ctx, err = gpu.RetainPrimaryCtx()
	must(t, err)
	r.locked(func() error { r.plain, err = cu.MakeStream(cu.NonBlocking); return err })
	t.Cleanup(func() {
		r.locked(func() error { return r.plain.Destroy() })
		must(t, gpu.ReleasePrimaryCtx())
	})
	return r
}

// locked runs f with the context of the device.
func (r *rig) locked(f func() error) {
	r.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(r.t, errors.Join(cu.SetCurrentContext(r.ctx), f()))
}

// each calls f with the place of every piece of n bytes, round and round, until r.total bytes are moved.
func (r *rig) each(n int, f func(i, at int)) {
	pieces := len(r.host) / n
	for i := range r.total / n {
		f(i, i%pieces*n)
	}
}

// in and out are the directions.
const (
	in  = "in"
	out = "out"
)

// plainCopies is what all else is compared with: nothing but asynchronous copies, and one wait.
func (r *rig) plainCopies(way string, n int) {
	r.locked(func() (err error) {
		r.each(n, func(_, at int) {
			host, device := unsafe.Pointer(&r.host[at]), cu.DevicePtr(r.at)+cu.DevicePtr(at)
			if way == in {
				err = errors.Join(err, cu.MemcpyHtoDAsync(device, host, int64(n), r.plain))
			} else {
				err = errors.Join(err, cu.MemcpyDtoHAsync(host, device, int64(n), r.plain))
			}
		})
		return errors.Join(err, r.plain.Synchronize())
	})
}

// copies uses a stream as the pool does, with an event behind each copy and some of them under way.
func (r *rig) copies(s vram.Stream, way string, n int) {
	var events []vram.Event
	wait := func() {
		must(r.t, events[0].Wait(context.Background()))
		events[0].Release()
		events = events[1:]
	}
	r.each(n, func(_, at int) {
		if len(events) == depth {
			wait()
		}
		if way == in {
			must(r.t, s.CopyIn(r.at+vram.Addr(at), r.host[at:at+n]))
		} else {
			must(r.t, s.CopyOut(r.host[at:at+n], r.at+vram.Addr(at)))
		}
		events = append(events, record(r.t, s))
	})
	for len(events) > 0 {
		wait()
	}
}

// batches gives depth copies to the stream in one call.
func (r *rig) batches(way string, n int) {
	var device []vram.Addr
	var host [][]byte
	flush := func() {
		if way == in {
			must(r.t, r.stream.CopyInBatch(device, host))
		} else {
			must(r.t, r.stream.CopyOutBatch(host, device))
		}
		device, host = device[:0], host[:0]
	}
	r.each(n, func(_, at int) {
		device, host = append(device, r.at+vram.Addr(at)), append(host, r.host[at:at+n])
		if len(host) == depth {
			flush()
		}
	})
	if len(host) > 0 {
		flush()
	}
	must(r.t, r.stream.Synchronize())
}

// pooled puts or gets blocks, some at a time.
func (r *rig) pooled(p *vram.Pool, way string, n int) {
	const workers = 4
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var items []tier.Item
			flush := func() {
				var errs []error
				if way == in {
					for _, it := range items {
						p.Delete(it.Key)
					}
					_, errs = p.PutMany(context.Background(), items)
				} else {
					errs = p.GetMany(context.Background(), items)
				}
				if err := errors.Join(errs...); err != nil {
					r.t.Error(err)
				}
				items = items[:0]
			}
			r.each(n, func(i, at int) {
				if i/depth%workers != w {
					return
				}
				d := block.Descriptor{Key: key(at / n), Length: uint32(n), Sum: 1}
				if items = append(items, tier.Item{Descriptor: d, Bytes: r.host[at : at+n]}); len(items) == depth/workers {
					flush()
				}
			})
			flush()
		})
	}
	wg.Wait()
}

// way is one way of moving bytes; rate is what it reached in each round, in GB/s.
type way struct {
	name string
	run  func()
	rate []float64
}

func (w *way) median() float64 {
	sorted := slices.Sorted(slices.Values(w.rate))
	return sorted[len(sorted)/2]
}

// compare runs the ways in turn, some rounds after one for warmth, and prints the medians. bytes is what each moves.
func (r *rig) compare(what string, bytes float64, ways ...*way) {
	r.t.Helper()
	for round := range r.rounds + 1 {
		for _, w := range ways {
			start := time.Now()
			w.run()
			if round > 0 {
				w.rate = append(w.rate, bytes/1e9/time.Since(start).Seconds())
			}
		}
	}
	line := what
	for i, w := range ways {
		line += fmt.Sprintf("  %s %.2f GB/s", w.name, w.median())
		if i > 0 {
			line += fmt.Sprintf(" (%.0f %%)", 100*w.median()/ways[0].median())
		}
	}
	r.print("%s", line)
}

func (r *rig) print(format string, args ...any) {
	label := "figure"
	if fake != nil || strings.Contains(r.dev.Name(), "fake driver") {
		label = "fake driver, no evidence of anything"
	}
	fmt.Printf("%s: %s\n", label, fmt.Sprintf(format, args...))
}

// atLeast fails the test where a figure of a GPU is not what is asked.
func (r *rig) atLeast(what string, got, want float64) {
	r.t.Helper()
	verdict := "is"
	if got < want {
		verdict = "IS NOT"
		if fake == nil {
			r.t.Errorf("%s: %.2f, asked is %.2f", what, got, want)
		}
	}
	r.print("%s: %.2f, which %s the %.2f that is asked", what, got, verdict, want)
}

// TestFigures measures what a GPU moves through this package against the driver alone, on the same memory, by
// turns. On the fake driver it only shows that the measurement works.
func TestFigures(t *testing.T) {
	r := newRig(t)
	r.print("device %s, %d rounds of %d MiB, medians", r.dev.Name(), r.rounds, r.total>>20)
	oneWay := map[string]float64{}
	for _, n := range []int{64 * kib, 512 * kib, 2048 * kib} {
		p := openPool(t, r.dev, vram.Config{Capacity: int64(len(r.host)), RunSize: 16 << 20, Classes: []int{n}})
		for _, dir := range []string{in, out} {
			plain := &way{name: "plain", run: func() { r.plainCopies(dir, n) }}
			ours := &way{name: "stream", run: func() { r.copies(r.stream, dir, n) }}
			batches := &way{name: "batches", run: func() { r.batches(dir, n) }}
			pool := &way{name: "pool", run: func() { r.pooled(p, dir, n) }}
			r.compare(fmt.Sprintf("%4d KiB %-3s", n/kib, dir), float64(r.total/n*n), plain, ours, batches, pool)
			if n == 2048*kib {
				oneWay[dir] = ours.median()
				r.atLeast("2 MiB "+dir+", stream to plain", ours.median()/plain.median(), leastOfPlain)
			}
		}
	}
	const n = 2048 * kib
	both := &way{name: "stream", run: func() {
		var wg sync.WaitGroup
		wg.Go(func() { r.copies(r.stream, in, n) })
		wg.Go(func() { r.copies(r.other, out, n) })
		wg.Wait()
	}}
	r.compare("2048 KiB both ways at once", 2*float64(r.total), both)
	r.atLeast("both ways at once to one", both.median()/((oneWay[in]+oneWay[out])/2), leastOfOneWay)
	half := len(r.host) / 2
	device := &way{name: "read and written", run: func() {
		for range 2 * r.total / half {
			must(t, r.stream.CopyDevice(r.at, r.at+vram.Addr(half), int64(half)))
		}
		must(t, r.stream.Synchronize())
	}}
	r.compare("on the device", 2*float64(2*r.total/half*half), device)
}
