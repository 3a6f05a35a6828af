package node

import (
	"log/slog"
	"testing"

	"cairn/block"
	"cairn/coherency"
)

// A sealed block of 4 KiB is put, with write-back, and brought to the disk in the background.
func BenchmarkPut(b *testing.B) {
	n, _ := newMemCluster().join(b, "n1", testTiers{host: 64 << 20, disk: 1 << 30}.open(b), func(c *Config) {
		c.Logger = slog.New(slog.DiscardHandler)
	})
	value := content(1, 4<<10)
	b.SetBytes(int64(len(value)))
	i := 0
	for b.Loop() {
		if _, err := n.Put(b.Context(), key(i), block.Key{}, value, coherency.WriteBack); err != nil {
			b.Fatal(err)
		}
		i++
	}
	if err := n.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}
