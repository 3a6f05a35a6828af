package engram

import (
	"context"
	"fmt"
	"testing"

	"cairn/vram/emulated"
)

// benchMemory is a memory of n bound pairs.
func benchMemory(n uint64) SparseVec {
	var sum Accumulator
	for i := range n {
		v, _ := usual.Bind(usual.Code(i), usual.Code(1000+i))
		sum.Add(v, 1)
	}
	return sum.Vector()
}

func BenchmarkAlgebra(b *testing.B) {
	memory, code := benchMemory(24), usual.Code(1)
	encoded, err := memory.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("a memory of %d dimensions that are not zero, of %d; a code has %d", memory.Len(), usual.Dims(), code.Len())
	var buf []byte
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"encode", func() { buf, _ = memory.Append(buf[:0]) }},
		{"decode", func() { _, _ = Decode(encoded) }},
		{"bundle-code", func() { Bundle(memory, code) }},
		{"bundle-memory", func() { Bundle(memory, memory) }},
		{"bind-code", func() { _, _ = usual.Bind(memory, code) }},
		{"bind-memory", func() { _, _ = usual.Bind(memory, memory) }},
		{"unbind-code", func() { _, _ = usual.Unbind(memory, code) }},
		{"permute", func() { _, _ = usual.Permute(memory, 3) }},
		{"similarity", func() { Similarity(memory, code) }},
		{"code", func() { usual.Code(3) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.run()
			}
		})
	}
}

// BenchmarkSyncAll is of engrams of 24 KiB on an emulated device.
func BenchmarkSyncAll(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch-%d", batch), func(b *testing.B) {
			dev, err := emulated.New(emulated.Config{Memory: 64 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer dev.Close()
			mem, err := NewMemory(dev)
			if err != nil {
				b.Fatal(err)
			}
			defer mem.Close()
			m, err := NewManager(ManagerConfig{Batch: batch})
			if err != nil {
				b.Fatal(err)
			}
			const count = 256
			var all []*Engram
			for i := range uint64(count) {
				e, err := FromVector(Bundle(benchMemory(24), usual.Code(i)))
				if err == nil {
					err = e.Attach(mem)
				}
				if err == nil {
					err = e.Upload(b.Context())
				}
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, e)
				m.Register(e)
			}
			for b.Loop() {
				b.StopTimer()
				for _, e := range all {
					if _, err := e.WriteHost(context.Background(), func(p []byte) ([]byte, error) { return p, nil }); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				if err := m.SyncAll(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/engram")
		})
	}
}
