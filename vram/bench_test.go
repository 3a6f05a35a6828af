package vram_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/vram"
)

var benchSizes = []int{512 * kib, 2048 * kib}

func benchPool(b *testing.B) *vram.Pool {
	return open(b, vram.Config{Capacity: 256 << 20, Classes: []int{512 * kib, 2048 * kib}}, nil)
}

// BenchmarkPut puts into a pool that is full, so that every Put evicts.
func BenchmarkPut(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("%dKiB", n/kib), func(b *testing.B) {
			p := benchPool(b)
			d, src := object(0, n)
			i := 0
			one := func() {
				i++
				d.Key = block.Key{4: byte(i >> 24), 5: byte(i >> 16), 6: byte(i >> 8), 7: byte(i)}
				if _, err := p.Put(context.Background(), d, src); err != nil {
					b.Fatal(err)
				}
			}
			for range (256 << 20) / n {
				one()
			}
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				one()
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("%dKiB", n/kib), func(b *testing.B) {
			p := benchPool(b)
			objects := (256 << 20) / n
			for i := range objects {
				put(b, p, i, n)
			}
			var turn atomic.Int64
			b.SetBytes(int64(n))
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				dst := make([]byte, n)
				for pb.Next() {
					i := int(turn.Add(1)) % objects
					if _, err := p.Get(context.Background(), key(i), dst); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkStat(b *testing.B) {
	p := benchPool(b)
	put(b, p, 1, 1)
	b.ReportAllocs()
	for b.Loop() {
		p.Stat(key(1))
	}
}
