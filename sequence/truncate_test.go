package sequence

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Of two assigned, two staged and two pending slots, from position 1 on, each cut keeps
// what lies before it.
func TestTruncate(t *testing.T) {
	keys := testKeys(t, 9)
	for end, want := range map[int]string{
		-1: "", 0: "", 1: "", 2: "A", 3: "AA", 4: "AAS", 5: "AASS", 6: "AASSP", 7: "AASSPP", 8: "AASSPP", 1 << 30: "AASSPP",
	} {
		a := newBare(t, 1)
		extend(t, a, ids(10, 15)...)
		assign(t, a, keys[:3], Range{0, 2})
		stage(t, a, keys[:5], Range{0, 2})
		a.Truncate(end)
		got := ""
		for _, phase := range []struct {
			name string
			n    int
		}{{"A", a.AssignedCount()}, {"S", a.StagedCount()}, {"P", a.PendingCount()}} {
			for range phase.n {
				got += phase.name
			}
		}
		if got != want {
			t.Errorf("cut at %d: %q, want %q", end, got, want)
		}
		for i, id := range ids(10, 15) {
			if a.Contains(id) != (i < len(want)) {
				t.Errorf("cut at %d: Contains(%d) = %v", end, id, a.Contains(id))
			}
		}
		// What was cut may come again, in another order.
		again := ids(10, 15)[len(want):]
		slices.Reverse(again)
		extend(t, a, again...)
		assign(t, a, keys, Range{min(len(want), 2), 6})
		holds(t, a, keys, slices.Concat(ids(10, 15)[:len(want)], again)...)
	}
}

// A sequence that is unwound and goes on with other tokens has other keys from there on.
func TestUnwoundSequenceGoesOnWithOtherKeys(t *testing.T) {
	s, err := New(4, Salt{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := newBare(t, 0)
	grow := func(tokens []uint32, want Range) {
		t.Helper()
		if _, err := s.Extend(tokens); err != nil {
			t.Fatal(err)
		}
		assign(t, a, s.Keys(), want)
	}
	extend(t, a, ids(1, 4)...)
	grow(count(1, 14), Range{0, 3})
	if err := s.Unwind(4); err != nil {
		t.Fatal(err)
	}
	a.Truncate(s.Blocks())
	holds(t, a, s.Keys(), 1, 2)
	waits(t, a) // slot 4 waited for the fourth block
	extend(t, a, 4, 3)
	grow(count(100, 108), Range{2, 4})
	holds(t, a, s.Keys(), 1, 2, 4, 3)
}

func TestTruncateReleasesPinsByPosition(t *testing.T) {
	a, pin, released := newPinned(t)
	keys := testKeys(t, 4)
	var blocks []Block[lease]
	for i, name := range []string{"a", "b", "c"} {
		blocks = append(blocks, Block[lease]{ID: BlockID(i), Pin: pin(name), Key: keys[i]})
	}
	if _, err := a.ExtendAssigned(blocks); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		end  int
		want []string
	}{{3, nil}, {1, []string{"b", "c"}}, {1, []string{"b", "c"}}, {0, []string{"b", "c", "a"}}} {
		a.Truncate(c.end)
		if diff := cmp.Diff(c.want, released()); diff != "" {
			t.Errorf("cut at %d (-want +got): %s", c.end, diff)
		}
	}
	// Nor does the memory that is kept for later blocks refer to them.
	for i, b := range a.blocks[:3] {
		if b.Pin != (lease{}) {
			t.Errorf("block %d still refers to pin %q", i, b.Pin.name)
		}
	}
}
