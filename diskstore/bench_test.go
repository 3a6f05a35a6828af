package diskstore

import (
	"context"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"cairn/block"
)

const benchLength = 512 << 10

// BenchmarkPut writes 512 KiB objects from several goroutines, with one Sync at
// the end, which is timed.
func BenchmarkPut(b *testing.B) {
	s := open(b, b.TempDir(), Config{Capacity: 4 << 30})
	src := content(1, 0, benchLength)
	sum := block.Checksum(src)
	var next atomic.Int64
	b.SetBytes(benchLength)
	b.ReportAllocs()
	b.SetParallelism(4)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d := block.Descriptor{Key: keyOf(int(next.Add(1))), Length: benchLength, Sum: sum}
			if _, err := s.Put(context.Background(), d, src); err != nil {
				b.Fatal(err)
			}
		}
	})
	mustSync(b, s)
}

// BenchmarkPutSync makes each 4 KiB object durable; goroutines share flushes.
func BenchmarkPutSync(b *testing.B) {
	s := open(b, b.TempDir(), Config{Sync: SyncAlways})
	src := content(1, 0, 4<<10)
	sum := block.Checksum(src)
	var next atomic.Int64
	b.SetBytes(4 << 10)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d := block.Descriptor{Key: keyOf(int(next.Add(1))), Length: 4 << 10, Sum: sum}
			if _, err := s.Put(context.Background(), d, src); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkGet reads 512 KiB objects: hot from the page cache, cold after asking
// the kernel to drop it.
func BenchmarkGet(b *testing.B) {
	const objects = 2048 // 1 GiB
	dir := b.TempDir()
	s := open(b, dir, Config{Capacity: 4 << 30})
	src := content(1, 0, benchLength)
	for i := range objects {
		d := block.Descriptor{Key: keyOf(i), Length: benchLength, Sum: block.Checksum(src)}
		if _, err := s.Put(context.Background(), d, src); err != nil {
			b.Fatal(err)
		}
	}
	mustSync(b, s)
	for _, cold := range []bool{false, true} {
		name := "hot"
		if cold {
			name = "cold"
		}
		b.Run(name, func(b *testing.B) {
			set := objects
			if !cold {
				set = 64
			}
			var next atomic.Int64
			b.SetBytes(benchLength)
			b.ReportAllocs()
			b.SetParallelism(4)
			if cold {
				dropCache(b, dir)
			}
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				dst := make([]byte, benchLength)
				for pb.Next() {
					i := int(next.Add(1))
					if cold && i%set == 0 {
						dropCache(b, dir)
					}
					if _, err := s.Get(context.Background(), keyOf(i%set), dst); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func dropCache(b *testing.B, dir string) {
	for _, name := range segmentFiles(b, dir) {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

// BenchmarkRecover opens a store of 100,000 small objects, from tables, and
// from a scan as after a crash within one large segment.
func BenchmarkRecover(b *testing.B) {
	const objects = 100_000
	cfg := Config{Capacity: 4 << 30, SegmentSize: 256 << 20}
	dir := b.TempDir()
	s := open(b, dir, cfg)
	src := content(1, 0, 1024)
	for _, i := range rand.Perm(objects) {
		if _, err := s.Put(context.Background(), block.Descriptor{Key: keyOf(i), Length: 1024, Sum: block.Checksum(src)}, src); err != nil {
			b.Fatal(err)
		}
	}
	crashed := crashCopy(b, dir)
	closeStore(b, s)
	for name, from := range map[string]string{"table": dir, "scan": crashed} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s, err := openFS(from, cfg.withDefaults(), osDir(from))
				if err != nil {
					b.Fatal(err)
				}
				if s.stats.Objects != objects {
					b.Fatalf("%d objects", s.stats.Objects)
				}
				b.StopTimer()
				if name == "table" {
					s.Close() // writes the table again
				} else {
					for _, g := range s.segments {
						g.file.Close()
					}
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkPutRolling writes 4 KiB objects to a store that is full, so that segments
// are begun and removed all the time: without kept objects, and with a third of it
// kept.
func BenchmarkPutRolling(b *testing.B) {
	for _, kept := range []bool{false, true} {
		name := "cache"
		if kept {
			name = "kept"
		}
		b.Run(name, func(b *testing.B) {
			s := open(b, b.TempDir(), Config{Capacity: 64 << 20, SegmentSize: 4 << 20})
			src := content(1, 0, 4<<10)
			sum := block.Checksum(src)
			put := func(key block.Key) {
				if _, err := s.Put(context.Background(), block.Descriptor{Key: key, Length: 4 << 10, Sum: sum}, src); err != nil {
					b.Fatal(err)
				}
			}
			for i := range 16 << 10 {
				if kept && i%3 == 0 {
					put(block.NamedKey("bench", nil, uint64(i)))
				} else {
					put(keyOf(i))
				}
			}
			next := 1 << 20
			b.SetBytes(4 << 10)
			for b.Loop() {
				put(keyOf(next))
				next++
			}
			b.StopTimer()
			if k := s.Kept(); kept {
				b.ReportMetric(float64(k.MovedBytes)/float64(b.N)/(4<<10), "moved/put")
			}
		})
	}
}
