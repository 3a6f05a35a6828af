package hostcache

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"cairn/block"
)

func BenchmarkGet(b *testing.B) {
	for _, size := range []int{64 << 10, 512 << 10, 2 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			const capacity = 512 << 20
			c := openTest(b, Config{Capacity: capacity})
			n := capacity / size / 2
			for i := range n {
				put(b, c, i, size)
			}
			dst := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := c.Get(context.Background(), keyOf(i%n), dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkView reads in place, in no order that a CPU cache could foresee: among
// a million blocks each step misses it.
func BenchmarkView(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			c := untouched(b, n)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 1; pb.Next(); i++ {
					v, err := c.View(keyOf(i * 7919 % n))
					if err != nil {
						b.Error(err)
						return
					}
					v.Release()
				}
			})
		})
	}
}

// BenchmarkPut evicts a block for each one that it stores.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{4 << 10, 512 << 10, 5 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			const capacity = 512 << 20
			c := openTest(b, Config{Capacity: capacity})
			src := make([]byte, size)
			n := 0
			next := func() {
				d := block.Descriptor{Key: keyOf(n), Length: uint32(size)}
				if _, err := c.Put(context.Background(), d, src); err != nil {
					b.Fatal(err)
				}
				n++
			}
			for n < capacity/size {
				next()
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
		})
	}
}

// BenchmarkGC is one cycle of the collector beside a million blocks: those of a
// cache, none at all, and a golang-lru with an element for each block, which is what
// the runs are there to avoid.
func BenchmarkGC(b *testing.B) {
	collect := func(b *testing.B) {
		runtime.GC()
		for b.Loop() {
			runtime.GC()
		}
	}
	b.Run("none", collect)
	b.Run("cache", func(b *testing.B) {
		c := untouched(b, million)
		collect(b)
		runtime.KeepAlive(c)
	})
	b.Run("element-per-block", func(b *testing.B) {
		l, err := simplelru.NewLRU[block.Key, *block.Descriptor](million, nil)
		if err != nil {
			b.Fatal(err)
		}
		for i := range million {
			l.Add(keyOf(i), &block.Descriptor{Key: keyOf(i)})
		}
		collect(b)
		runtime.KeepAlive(l)
	})
}

const million = 1_000_000

// untouched is a cache of n blocks whose memory was never written, so that it
// needs address space only.
func untouched(b *testing.B, n int) *Cache {
	c := openTest(b, Config{Capacity: int64(n) * PageSize * 2})
	for i := range n {
		commit(b, c, i, PageSize, 0)
	}
	return c
}
