package node

import (
	"errors"
	"testing"

	"cairn/coherency"
)

// The bytes of a name whose home is a member by the log, and not yet one by what the cluster
// shows of its members, are waited for, however often that has to be asked.
func TestReadFromAHomeThatHasJustJoined(t *testing.T) {
	const never = 1 << 30
	c := newMemCluster()
	see := func(after int) (left int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		left, c.unseen["n1"] = c.unseen["n1"], after
		return left
	}
	see(never)
	nodes := joinAll(t, c, 2, onDisk, nil)
	name := nameAt(t, nodes[1], coherency.WriteThrough)
	see(4 * rereads)
	wantName(t, nodes[0], name, "v")
	if left := see(0); left != 0 {
		t.Fatalf("the home was not needed: it was to be shown %d questions later", left)
	}

	// One that was there and is gone is not.
	if _, err := setName(t.Context(), nodes[1], name, "v2", NameOptions{Policy: coherency.WriteThrough}); err != nil {
		t.Fatal(err)
	}
	see(never)
	_, _, err := nodes[0].ReadName(t.Context(), space, []byte(name), ReadOptions{Level: ReadStrict})
	if asked := never - see(0); !errors.Is(err, ErrBytesUnreachable) || asked > 4*rereads {
		t.Errorf("a home that has gone was asked for %d times: %v", asked, err)
	}
}
