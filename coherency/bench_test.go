package coherency

import (
	"encoding/binary"
	"testing"

	"cairn/block"
)

// BenchmarkOffload is the life of a block that is put into host memory and
// copied to its home on disk.
func BenchmarkOffload(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		s, err := New(block.Host, block.Disk)
		if err != nil {
			b.Fatal(err)
		}
		c, err := s.Begin(block.Disk)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Commit(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFastest(b *testing.B) {
	s, err := New(block.Host, block.Disk)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if t, ok := s.Fastest(); !ok || t != block.Host {
			b.Fatal(t, ok)
		}
	}
}

// BenchmarkQueue adds, hands out and finishes one intent, beside 100,000 others.
func BenchmarkQueue(b *testing.B) {
	q := NewSyncQueue(WriteBack)
	var k block.Key
	n := uint32(0)
	add := func() {
		n++
		binary.BigEndian.PutUint32(k[:], n)
		q.Add(k, 1, block.Host, block.Disk)
	}
	for range 100_000 {
		add()
	}
	b.ReportAllocs()
	for b.Loop() {
		add()
		for _, in := range q.Next(1) {
			q.Done(in)
		}
	}
}
