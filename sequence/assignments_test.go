package sequence

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

// testKeys is the keys of the n blocks of a sequence.
func testKeys(t testing.TB, n int) []block.Key {
	t.Helper()
	keys, err := KeysOf(nil, Salt{}, 4, count(1, uint32(4*n)))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// ids is from…to.
func ids(from, to int) []BlockID {
	var out []BlockID
	for i := from; i <= to; i++ {
		out = append(out, BlockID(i))
	}
	return out
}

func newBare(t testing.TB, offset int) *Assignments[Bare] {
	t.Helper()
	a, err := NewAssignments[Bare](offset)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// state is everything that can be observed through the iterators.
type state struct {
	Offset           int
	Assigned, Staged []Block[Bare]
	Pending          []BlockID
}

func stateOf(a *Assignments[Bare]) state {
	return state{a.Offset(), slices.Collect(a.AssignedBlocks()), slices.Collect(a.StagedBlocks()), slices.Collect(a.PendingIDs())}
}

// unchanged fails the test when do changes what can be observed of a.
func unchanged(t *testing.T, a *Assignments[Bare], do func()) {
	t.Helper()
	before, known := stateOf(a), maps.Clone(a.known)
	do()
	if diff := cmp.Diff(before, stateOf(a)) + cmp.Diff(known, a.known); diff != "" {
		t.Errorf("the call changed the assignments: %s", diff)
	}
}

func extend(t *testing.T, a *Assignments[Bare], ids ...BlockID) {
	t.Helper()
	if err := a.ExtendBlockIDs(ids); err != nil {
		t.Fatal(err)
	}
}

func stage(t *testing.T, a *Assignments[Bare], keys []block.Key, want Range) {
	t.Helper()
	if r, err := a.StagePending(keys); err != nil || r != want {
		t.Fatalf("staged %v, %v; want %v", r, err, want)
	}
}

func assign(t *testing.T, a *Assignments[Bare], keys []block.Key, want Range) {
	t.Helper()
	if r, err := a.AssignPending(keys); err != nil || r != want {
		t.Fatalf("assigned %v, %v; want %v", r, err, want)
	}
}

// holds checks that exactly the given slots are assigned, with the right keys.
func holds(t *testing.T, a *Assignments[Bare], keys []block.Key, want ...BlockID) {
	t.Helper()
	if a.AssignedCount() != len(want) {
		t.Fatalf("%d assigned, want %d", a.AssignedCount(), len(want))
	}
	for i, id := range want {
		b, ok := a.Assigned(i)
		if !ok || b.ID != id || b.Key != keys[a.Offset()+i] {
			t.Errorf("assigned block %d is %d %s, %v; want %d %s", i, b.ID, b.Key, ok, id, keys[a.Offset()+i])
		}
		if at, ok := a.AtPosition(a.Offset() + i); !ok || at != b {
			t.Errorf("position %d: %v, %v", a.Offset()+i, at, ok)
		}
	}
}

func waits(t *testing.T, a *Assignments[Bare], want ...BlockID) {
	t.Helper()
	if got := slices.Collect(a.PendingIDs()); !slices.Equal(got, want) || a.PendingCount() != len(want) {
		t.Errorf("pending are %v, %d of them; want %v", got, a.PendingCount(), want)
	}
}

func TestOffset(t *testing.T) {
	keys := testKeys(t, 6)
	a := newBare(t, 2)
	if a.Offset() != 2 || a.NextPosition() != 2 {
		t.Errorf("offset %d, next %d", a.Offset(), a.NextPosition())
	}
	extend(t, a, 1, 2, 3, 4)
	assign(t, a, keys[:2], Range{0, 0})
	assign(t, a, keys[:3], Range{0, 1})
	stage(t, a, keys[:5], Range{0, 2})
	if a.NextPosition() != 2+1+2 {
		t.Errorf("next position %d: want offset + assigned + staged", a.NextPosition())
	}
	a.CommitStaged()
	holds(t, a, keys, 1, 2, 3)
}

func TestOffsetIsValidated(t *testing.T) {
	if _, err := NewAssignments[Bare](block.MaxPosition); err != nil {
		t.Error(err)
	}
	for _, offset := range []int{-1, block.MaxPosition + 1} {
		_, err := NewAssignments[Bare](offset)
		var pe *PositionError
		if !errors.Is(err, block.ErrPosition) || !errors.As(err, &pe) || pe.Position != offset {
			t.Errorf("offset %d: %v", offset, err)
		}
	}
}

func TestTwoTiersFollowOneSequence(t *testing.T) {
	keys := testKeys(t, 6)
	near, far := newBare(t, 0), newBare(t, 3)
	extend(t, near, 1, 2, 3)
	extend(t, far, 1, 2, 3)
	assign(t, near, keys, Range{0, 3})
	assign(t, far, keys, Range{0, 3})
	holds(t, near, keys, 1, 2, 3)
	holds(t, far, keys, 1, 2, 3)
}

func TestClearKeepsTheOffset(t *testing.T) {
	a, keys := newBare(t, 2), testKeys(t, 6)
	extend(t, a, 1, 2, 3)
	assign(t, a, keys[:3], Range{0, 1})
	stage(t, a, keys[:4], Range{0, 1})
	a.Clear()
	if diff := cmp.Diff(state{Offset: 2}, stateOf(a)); diff != "" || a.NextPosition() != 2 {
		t.Error(diff, a.NextPosition())
	}
	for _, id := range ids(1, 3) {
		if a.Contains(id) {
			t.Errorf("%d is known", id)
		}
	}
	extend(t, a, 3, 2, 1)
	assign(t, a, keys, Range{0, 3})
	holds(t, a, keys, 3, 2, 1)
}

func TestPositionRanges(t *testing.T) {
	a, keys := newBare(t, 10), testKeys(t, 13)
	check := func(assigned, staged, pending Range) {
		t.Helper()
		if got := [3]Range{a.AssignedPositions(), a.StagedPositions(), a.PendingPositions()}; got != [3]Range{assigned, staged, pending} {
			t.Errorf("got %v, want %v", got, [3]Range{assigned, staged, pending})
		}
	}
	check(Range{10, 10}, Range{10, 10}, Range{10, 10})
	extend(t, a, 1, 2, 3, 4, 5)
	check(Range{10, 10}, Range{10, 10}, Range{10, 15})
	assign(t, a, keys[:11], Range{0, 1})
	check(Range{10, 11}, Range{11, 11}, Range{11, 15})
	stage(t, a, keys, Range{0, 2})
	check(Range{10, 11}, Range{11, 13}, Range{13, 15})
}

func TestGettersOutsideTheirRange(t *testing.T) {
	a, keys := newBare(t, 2), testKeys(t, 5)
	extend(t, a, 1, 2, 3, 4)
	assign(t, a, keys[:3], Range{0, 1})
	stage(t, a, keys[:4], Range{0, 1})
	type getter func(int) bool
	for name, c := range map[string]struct {
		get  getter
		want Range
	}{
		"Assigned":          {func(i int) bool { _, ok := a.Assigned(i); return ok }, Range{0, 1}},
		"Staged":            {func(i int) bool { _, ok := a.Staged(i); return ok }, Range{0, 1}},
		"AtPosition":        {func(i int) bool { _, ok := a.AtPosition(i); return ok }, Range{2, 3}},
		"PendingAtPosition": {func(i int) bool { _, ok := a.PendingAtPosition(i); return ok }, Range{4, 6}},
	} {
		for i := -3; i < 9; i++ {
			if ok := c.get(i); ok != (i >= c.want.Start && i < c.want.End) {
				t.Errorf("%s(%d) = %v, want those of %v", name, i, ok, c.want)
			}
		}
	}
	for position, want := range map[int]BlockID{4: 3, 5: 4} {
		if id, _ := a.PendingAtPosition(position); id != want {
			t.Errorf("pending at %d is %d, want %d", position, id, want)
		}
	}
	if b, _ := a.Staged(0); b.ID != 2 || b.Key != keys[3] {
		t.Errorf("staged %v", b)
	}
}

func TestContains(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 2)
	extend(t, a, 1, 2, 3)
	assign(t, a, keys[:1], Range{0, 1})
	stage(t, a, keys, Range{0, 1})
	for id, want := range map[BlockID]bool{0: false, 1: true, 2: true, 3: true, 4: false} {
		if a.Contains(id) != want {
			t.Errorf("Contains(%d) = %v", id, !want)
		}
	}
}

func TestIteratorsStopWhenAsked(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 4)
	extend(t, a, ids(1, 6)...)
	assign(t, a, keys[:2], Range{0, 2})
	stage(t, a, keys, Range{0, 2})
	var got []string
	for b := range a.AssignedBlocks() {
		got = append(got, fmt.Sprint("assigned ", b.ID))
		break
	}
	for b := range a.StagedBlocks() {
		got = append(got, fmt.Sprint("staged ", b.ID))
		break
	}
	for id := range a.PendingIDs() {
		got = append(got, fmt.Sprint("pending ", id))
		break
	}
	if want := []string{"assigned 1", "staged 3", "pending 5"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
