package sequence

import (
	"errors"
	"slices"
	"testing"

	"cairn/block"
)

func TestStageThenCommit(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 4)
	extend(t, a, 1, 2, 3, 4, 5)
	stage(t, a, keys[:2], Range{0, 2})
	stage(t, a, keys[:3], Range{2, 3})
	if a.AssignedCount() != 0 || a.StagedCount() != 3 || a.PendingCount() != 2 {
		t.Errorf("%+v", stateOf(a))
	}
	if r := a.CommitStaged(); r != (Range{0, 3}) {
		t.Errorf("committed %v", r)
	}
	holds(t, a, keys, 1, 2, 3)
	stage(t, a, keys, Range{0, 1})
	if r := a.CommitStaged(); r != (Range{3, 4}) {
		t.Errorf("committed %v", r)
	}
	holds(t, a, keys, 1, 2, 3, 4)
	waits(t, a, 5)
}

func TestAssignPendingCommitsWhatWasStaged(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 3)
	extend(t, a, 1, 2, 3)
	stage(t, a, keys[:1], Range{0, 1})
	assign(t, a, keys, Range{0, 3})
	holds(t, a, keys, 1, 2, 3)
}

func TestTakeStaged(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 4)
	extend(t, a, 1, 2, 3, 4)
	assign(t, a, keys[:1], Range{0, 1})
	stage(t, a, keys[:3], Range{0, 2})
	want := []Block[Bare]{{ID: 2, Key: keys[1]}, {ID: 3, Key: keys[2]}}
	taken := a.TakeStaged()
	if !slices.Equal(taken, want) {
		t.Errorf("took %v, want %v", taken, want)
	}
	if a.StagedCount() != 0 || a.NextPosition() != 1 || a.Contains(2) || a.Contains(3) {
		t.Errorf("after it: %+v", stateOf(a))
	}
	// What was taken is the caller's, and its ids may come back.
	extend(t, a, 3, 2)
	assign(t, a, keys[:3], Range{1, 3})
	holds(t, a, keys, 1, 4, 3)
	waits(t, a, 2)
	if !slices.Equal(taken, want) {
		t.Errorf("what was taken became %v", taken)
	}
}

func TestPositionMismatchWhenStaging(t *testing.T) {
	keys := testKeys(t, 5)
	name := block.NamedKey("ns", []byte("name"), 1)
	for _, c := range []struct {
		what  string
		wrong func([]block.Key)
		want  PositionMismatchError
	}{
		{"keys shifted by one", func(k []block.Key) { copy(k, keys[1:]) }, PositionMismatchError{Expected: 2, Actual: 3, ID: 7}},
		{"a later key twice", func(k []block.Key) { k[3] = k[2] }, PositionMismatchError{Expected: 3, Actual: 2, ID: 8}},
		{"the key of a name", func(k []block.Key) { k[4] = name }, PositionMismatchError{Expected: 4, Actual: block.NamedPosition, ID: 9}},
	} {
		a := newBare(t, 1)
		extend(t, a, 6)
		assign(t, a, keys[:2], Range{0, 1})
		extend(t, a, 7, 8, 9)
		wrong := slices.Clone(keys)
		c.wrong(wrong)
		for what, do := range map[string]func([]block.Key) (Range, error){"StagePending": a.StagePending, "AssignPending": a.AssignPending} {
			unchanged(t, a, func() {
				r, err := do(wrong)
				var pe *PositionMismatchError
				if !errors.Is(err, ErrPositionMismatch) || !errors.As(err, &pe) || *pe != c.want || !r.Empty() {
					t.Errorf("%s, %s: %v, %v", what, c.what, r, err)
				}
			})
		}
		assign(t, a, keys, Range{1, 4})
	}
}

func TestWrongKeysOutsideTheStagedRangeDoNotMatter(t *testing.T) {
	a, keys := newBare(t, 1), testKeys(t, 4)
	keys[0], keys[3] = block.Key{}, block.Key{}
	extend(t, a, 1, 2)
	assign(t, a, keys, Range{0, 2})
}

func TestExtendAssignedThenStage(t *testing.T) {
	a, keys := newBare(t, 1), testKeys(t, 6)
	extend(t, a, 8, 9)
	if r, err := a.ExtendAssigned([]Block[Bare]{{ID: 1, Key: keys[1]}, {ID: 2, Key: keys[2]}}); err != nil || r != (Range{0, 2}) {
		t.Fatal(r, err)
	}
	if id, ok := a.PendingAtPosition(3); !ok || id != 8 {
		t.Errorf("pending slots did not move up: %d, %v", id, ok)
	}
	if r, err := a.ExtendAssigned([]Block[Bare]{{ID: 3, Key: keys[3]}}); err != nil || r != (Range{2, 3}) {
		t.Fatal(r, err)
	}
	stage(t, a, keys, Range{0, 2})
	a.CommitStaged()
	holds(t, a, keys, 1, 2, 3, 8, 9)
}

func TestExtendAssignedRejectsAWrongPosition(t *testing.T) {
	keys := testKeys(t, 5)
	for _, c := range []struct {
		blocks []Block[Bare]
		want   PositionMismatchError
	}{
		{[]Block[Bare]{{ID: 7, Key: keys[1]}}, PositionMismatchError{Expected: 2, Actual: 1, ID: 7}},
		{[]Block[Bare]{{ID: 7, Key: keys[3]}}, PositionMismatchError{Expected: 2, Actual: 3, ID: 7}},
		{[]Block[Bare]{{ID: 7, Key: keys[2]}, {ID: 8, Key: keys[4]}}, PositionMismatchError{Expected: 3, Actual: 4, ID: 8}},
		{[]Block[Bare]{{ID: 7, Key: block.NamedKey("", nil, 1)}}, PositionMismatchError{Expected: 2, Actual: block.NamedPosition, ID: 7}},
	} {
		a := newBare(t, 1)
		if _, err := a.ExtendAssigned([]Block[Bare]{{ID: 1, Key: keys[1]}}); err != nil {
			t.Fatal(err)
		}
		unchanged(t, a, func() {
			r, err := a.ExtendAssigned(c.blocks)
			var pe *PositionMismatchError
			if !errors.Is(err, ErrPositionMismatch) || !errors.As(err, &pe) || *pe != c.want || r != (Range{1, 1}) {
				t.Errorf("%v: %v, %v", c.blocks, r, err)
			}
		})
	}
}

// A key whose position is all ones belongs to a name, also where a sequence of
// the greatest length would have its next block.
func TestNamedKeyIsNoBlockAfterTheLast(t *testing.T) {
	a := newBare(t, block.MaxPosition)
	if _, err := a.ExtendAssigned([]Block[Bare]{{ID: 1, Key: block.Key{0xff, 0xff, 0xfe}}}); err != nil {
		t.Fatal(err)
	}
	unchanged(t, a, func() {
		if _, err := a.ExtendAssigned([]Block[Bare]{{ID: 2, Key: block.Key{0xff, 0xff, 0xff}}}); !errors.Is(err, ErrPositionMismatch) {
			t.Errorf("got %v", err)
		}
	})
}

func TestExtendAssignedRejectsWhileStaged(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 4)
	extend(t, a, 1, 2)
	stage(t, a, keys[:2], Range{0, 2})
	unchanged(t, a, func() {
		r, err := a.ExtendAssigned([]Block[Bare]{{ID: 3, Key: keys[2]}})
		var se *StagedError
		if !errors.Is(err, ErrStaged) || !errors.As(err, &se) || se.Staged != 2 || r != (Range{0, 0}) {
			t.Errorf("got %v, %v", r, err)
		}
	})
	a.CommitStaged()
	if r, err := a.ExtendAssigned([]Block[Bare]{{ID: 3, Key: keys[2]}}); err != nil || r != (Range{2, 3}) {
		t.Errorf("after the commit: %v, %v", r, err)
	}
}

func TestDuplicatesAcrossAllPhases(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 4)
	extend(t, a, 1, 2, 3)
	assign(t, a, keys[:1], Range{0, 1})
	for _, id := range []BlockID{1, 2, 3} {
		unchanged(t, a, func() {
			_, err := a.ExtendAssigned([]Block[Bare]{{ID: 9, Key: keys[1]}, {ID: id, Key: keys[2]}})
			isDuplicate(t, err, id)
		})
		if a.Contains(9) {
			t.Error("an id of a refused call is known")
		}
	}
	// An id is in one phase, wherever it has been.
	stage(t, a, keys[:2], Range{0, 1})
	for _, id := range []BlockID{1, 2, 3} {
		n := 0
		for b := range a.AssignedBlocks() {
			n += same(b.ID, id)
		}
		for b := range a.StagedBlocks() {
			n += same(b.ID, id)
		}
		for p := range a.PendingIDs() {
			n += same(p, id)
		}
		if n != 1 {
			t.Errorf("%d is in %d phases", id, n)
		}
	}
}

func same(a, b BlockID) int {
	if a == b {
		return 1
	}
	return 0
}
