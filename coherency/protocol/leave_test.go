package protocol

import (
	"errors"
	"testing"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

// TestLeaveUnsettled: a write that is in the log, and that not all members are known to
// have applied when its node leaves, is not denied.
func TestLeaveUnsettled(t *testing.T) {
	w := newWorld(t, 2)
	n := w.nodes[0]
	w.put(n, "a", coherency.WriteThrough)
	w.run()
	// A deletion has nothing to stage, so its record and the Leave come together.
	op := w.put(n, "a", coherency.WriteAll, func(wr *Write) { wr.If, wr.Value = ledger.Present, ledger.Value{} })
	w.step(n, Leave{})
	w.run()
	p, _ := n.m.Ledger().Lookup(block.NamedKey("t", []byte("a"), 0))
	if !p.Value.Object.IsZero() {
		t.Fatalf("the block is %+v: nothing was deleted", p)
	}
	if err := w.replied(n, op).Err; errors.Is(err, ErrUnavailable) {
		t.Errorf("the write has happened, and its node says: %v", err)
	}
}
