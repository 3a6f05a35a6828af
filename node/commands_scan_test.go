package node

import (
	"fmt"
	"testing"
	"time"

	"cairn/coherency"
	"cairn/resp"
)

// A name is found while its first version goes from the owner's memory to the log.
func TestScanDuringFlushes(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 64 << 20, disk: 256 << 20}.open(t), func(c *Config) { c.FlushAfter = time.Millisecond })
	s := n.NewHandler(resp.ConnInfo{}).(*session)
	for i := range 150 {
		name := fmt.Appendf(nil, "name-%d", i)
		in, err := n.Reserve(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.SetName(t.Context(), s.namespace.Name, name, in, NameOptions{Policy: coherency.WriteBack}); err != nil {
			t.Fatal(err)
		}
		key := n.coherence.keyOf(s.namespace.Name, name)
		for flushed := false; !flushed; {
			flushed = n.coherence.overlay.count.Load() == 0
			if got := s.shardKeys(shardOf(key)); len(got) == 0 {
				t.Fatalf("%s is not found", name)
			}
		}
	}
}
