package protocol

import (
	"strings"
	"testing"
)

// walk goes along a path, one move a line, all of which must be possible, and then lets
// the cluster settle.
func walk(t *testing.T, in *instance, path string) (u, end *universe) {
	t.Helper()
	u = in.setup()
	for line := range strings.SplitSeq(strings.TrimSpace(path), ",") {
		line = strings.TrimSpace(line)
		var found *move
		list := u.moves(nil)
		for i := range list {
			if list[i].String() == line {
				found = &list[i]
			}
		}
		if found == nil {
			t.Fatalf("%s is not possible, but %v", line, list)
		}
		if u = u.make(*found); u.err != nil {
			t.Fatalf("%s: %v", line, u.err)
		}
	}
	end = u.settle()
	if end.err != nil {
		t.Fatal(end.err)
	}
	return u, end
}

// A node whose Own is overtaken by that of another asks the other to give the block
// back, even if it has asked for something of this block a moment ago. It waited for ever.
func TestOvertakenOwnerAsksAgain(t *testing.T) {
	in := &instance{clients: [][]action{
		{on(1, put, back), on(1, put, back), on(1, get, 0)},
		{on(2, get, 0), on(2, put, back)}}, budget: may(map[int]uint8{advances: 3})}
	walk(t, in, `invoke 1.0, invoke 0.0, enter 0.0, receive 1.0, pass 0.0, pass 0.0, tick 0.0, enter 0.0, enter 1.0,
		receive 0.0, receive 0.0, receive 0.0, enter 0.0, receive 1.0, receive 0.0, enter 0.0, receive 1.0, receive 0.0,
		receive 1.0, receive 1.0, enter 1.0, receive 0.0, receive 1.0, invoke 1.0, enter 1.0, receive 1.0, receive 0.0,
		staged 0.0, enter 0.0, receive 1.0, tick 1.0`)
}

// An owner that is asked before it knows that it is one answers when it does. It
// refused, and was asked to give the block back before its first write.
func TestOwnerIsAskedBeforeItKnows(t *testing.T) {
	in := &instance{clients: [][]action{{on(1, put, back)}, {on(2, get, 0)}}}
	u, _ := walk(t, in, `invoke 0.0, enter 0.0, receive 1.0, invoke 1.0, ask 0.0, receive 0.0`)
	if c := u.clients[1]; c.at != 1 || c.saw != 1 {
		t.Errorf("the read: %+v, want it answered", c)
	}
}

// Whoever leaves serves nothing by its lease any more: once its Leave is in the log, no
// write waits for it.
func TestLeavingNodeServesNothingByLease(t *testing.T) {
	in := &instance{space: Space{Lease: true}, homeAt: 1, clients: [][]action{
		{on(1, put, through)},
		{on(2, put, through), on(2, get, 0)}}, budget: may(map[int]uint8{leaves: 1})}
	walk(t, in, `invoke 1.0, invoke 0.0, staged 0.0, enter 1.0, receive 0.0, receive 1.0, staged 0.0, enter 0.0, leave 1.0,
		receive 1.0, enter 1.0, enter 1.0, receive 1.0, enter 0.0, receive 0.0, receive 0.0, receive 0.0, receive 0.0,
		enter 0.0, receive 0.0, invoke 1.0`)
}
