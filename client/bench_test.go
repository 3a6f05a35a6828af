package client_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"cairn/block"
	"cairn/client"
)

// benchClient is a client of a server that holds blocks 0 to 7 of a size.
func benchClient(b *testing.B, network string, size int) (*client.Client, *client.Node) {
	addr := ""
	if network == "unix" {
		addr = filepath.Join(b.TempDir(), "s")
	}
	s := newServer("n1").start(b, network, addr)
	c := open(b, client.Config{}, s)
	for i := range 8 {
		mustPut(b, c, i, size)
	}
	s.quiet = true
	n, err := c.Node(s.addr)
	if err != nil {
		b.Fatal(err)
	}
	return c, n
}

func eachSize(b *testing.B, f func(b *testing.B, network string, size int)) {
	for _, network := range []string{"tcp", "unix"} {
		for _, size := range []int{64 << 10, 512 << 10, 2 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", network, size>>10), func(b *testing.B) { f(b, network, size) })
		}
	}
}

func BenchmarkGet(b *testing.B) {
	eachSize(b, func(b *testing.B, network string, size int) {
		c, _ := benchClient(b, network, size)
		buf := make([]byte, size)
		b.SetBytes(int64(size))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Get(b.Context(), key(1), buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGetParallel(b *testing.B) {
	eachSize(b, func(b *testing.B, network string, size int) {
		c, _ := benchClient(b, network, size)
		b.SetBytes(int64(size))
		b.ReportAllocs()
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			buf := make([]byte, size)
			for pb.Next() {
				if _, err := c.Get(b.Context(), key(1), buf); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkGetBatch8(b *testing.B) {
	eachSize(b, func(b *testing.B, network string, size int) {
		_, n := benchClient(b, network, size)
		var keys []block.Key
		var bufs [][]byte
		for i := range 8 {
			keys = append(keys, key(i))
			bufs = append(bufs, make([]byte, size))
		}
		b.SetBytes(8 * int64(size))
		b.ReportAllocs()
		for b.Loop() {
			found, err := n.GetBatch(b.Context(), keys, func(i int, _ block.Descriptor) []byte { return bufs[i] })
			if err != nil || !found[7] {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPut(b *testing.B) {
	eachSize(b, func(b *testing.B, network string, size int) {
		c, _ := benchClient(b, network, size)
		p := content(1, size)
		b.SetBytes(int64(size))
		b.ReportAllocs()
		for b.Loop() { // of a block that is there already: the transfer alone
			if _, err := c.Put(b.Context(), key(1), block.Key{}, p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
