package protocol

import (
	"testing"

	"cairn/block"
	"cairn/coherency"
)

// TestWriteBehindClears: an ownership and two clears of its namespace may come in one
// message. The write that the ownership was asked for comes after all of them: its version is
// that of no clear, and it is not lost.
func TestWriteBehindClears(t *testing.T) {
	w := newWorld(t, 2, func(c *Config) { c.Flights = 1 })
	n := w.nodes[0]
	clear := func(namespace string) {
		w.ops++
		w.step(n, Clear{Op: w.ops, Namespace: namespace})
	}
	clear("another") // what comes while this is on its way shares the next message
	write := w.put(n, "a", coherency.WriteBack)
	clear("t")
	clear("t")
	w.run()
	var shared bool
	for _, m := range w.log {
		shared = shared || len(m.Records) == 3
	}
	if !shared {
		t.Fatal("no message has three records: this tests nothing")
	}
	r := w.replied(n, write)
	p, _ := n.m.Ledger().Lookup(block.NamedKey("t", []byte("a"), 0))
	if r.Err != nil || r.After.Version <= p.Version {
		t.Errorf("written as version %v (%v); the log has %v", r.After.Version, r.Err, p.Version)
	}
	w.ops++
	w.step(n, Barrier{Op: w.ops})
	w.run()
	if p, _ = n.m.Ledger().Lookup(p.Key); p.Value.Object != r.After.Value.Object {
		t.Errorf("after the barrier the log has version %v, %+v", p.Version, p.Value)
	}
}
