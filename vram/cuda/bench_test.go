//go:build cuda && cgo

package cuda_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"cairn/vram/cuda"
)

// BenchmarkCopy is one pinned copy at a time, from the call to the end of its event; on the fake driver
// that is what this package and the fake driver cost.
func BenchmarkCopy(b *testing.B) {
	for _, n := range []int{4 * kib, 64 * kib, 512 * kib, 2048 * kib} {
		for _, way := range []string{in, out} {
			b.Run(fmt.Sprintf("%s/%dKiB", way, n/kib), func(b *testing.B) {
				p := mapped(b, n)
				dev := open(b, cuda.Config{})
				must(b, dev.Register(p))
				s, a := newStream(b, dev), alloc(b, dev, int64(n))
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if way == in {
						must(b, s.CopyIn(a, p))
					} else {
						must(b, s.CopyOut(p, a))
					}
					e := record(b, s)
					must(b, e.Wait(context.Background()))
					e.Release()
				}
			})
		}
	}
}

// BenchmarkWait compares ways to learn that an event is over, for work that takes so long: through
// the goroutine of the stream, by a thread that blocks in the driver, and by asking all the time. What
// is over the time of the work is the way's latency.
func BenchmarkWait(b *testing.B) {
	needFake(b)
	for _, work := range []time.Duration{0, 20 * time.Microsecond, 200 * time.Microsecond} {
		for _, kind := range []string{"stream", "block", "spin"} {
			b.Run(fmt.Sprintf("%v/%s", work, kind), func(b *testing.B) {
				p := mapped(b, 4096)
				dev := open(b, cuda.Config{})
				must(b, dev.Register(p))
				a := alloc(b, dev, 4096)
				fake.Delay("cuMemcpyHtoDAsync", work)
				if kind == "stream" {
					s := newStream(b, dev)
					for b.Loop() {
						must(b, s.CopyIn(a, p))
						e := record(b, s)
						must(b, e.Wait(context.Background()))
						e.Release()
					}
					return
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				gpu, err := cu.GetDevice(0)
				must(b, err)
				ctx, err := gpu.RetainPrimaryCtx()
				must(b, err)
				must(b, cu.SetCurrentContext(ctx))
				s, err := cu.MakeStream(cu.NonBlocking)
				must(b, err)
				e, err := cu.MakeEvent(cu.DisableTiming | cu.BlockingSyncEvent)
				must(b, err)
				for b.Loop() {
					must(b, cu.MemcpyHtoDAsync(cu.DevicePtr(a), unsafe.Pointer(&p[0]), 4096, s))
					must(b, e.Record(s))
					if kind == "block" {
						must(b, e.Synchronize())
						continue
					}
					for e.Query() != nil {
					}
				}
				must(b, cu.DestroyEvent(&e))
				must(b, s.Destroy())
				must(b, gpu.ReleasePrimaryCtx())
			})
		}
	}
}
