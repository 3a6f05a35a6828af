package sequence

import (
	"errors"
	"testing"
)

func TestZeroOneThreeBlocksAreAssigned(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		a, keys := newBare(t, 0), testKeys(t, n)
		extend(t, a, ids(10, 9+n)...)
		assign(t, a, keys, Range{0, n})
		holds(t, a, keys, ids(10, 9+n)...)
		waits(t, a)
	}
}

func TestPartialBlockIsNeverAssigned(t *testing.T) {
	s, err := New(4, Salt{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := newBare(t, 0)
	extend(t, a, 1, 2, 3)
	for _, c := range []struct {
		add  int
		want Range
	}{{3, Range{0, 0}}, {1, Range{0, 1}}, {7, Range{1, 2}}, {1, Range{2, 3}}} {
		if _, err := s.Extend(make([]uint32, c.add)); err != nil {
			t.Fatal(err)
		}
		assign(t, a, s.Keys(), c.want)
	}
	holds(t, a, s.Keys(), 1, 2, 3)
}

func TestExcessIDsStayPendingInOrder(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 2)
	extend(t, a, 9, 4, 7, 1, 8)
	assign(t, a, keys, Range{0, 2})
	holds(t, a, keys, 9, 4)
	waits(t, a, 7, 1, 8)
}

func TestEveryNumberOfIDsMeetsEveryNumberOfBlocks(t *testing.T) {
	for nIDs := range 7 {
		for nBlocks := range 7 {
			a, keys := newBare(t, 0), testKeys(t, nBlocks)
			extend(t, a, ids(1, nIDs)...)
			both := min(nIDs, nBlocks)
			assign(t, a, keys, Range{0, both})
			holds(t, a, keys, ids(1, both)...)
			waits(t, a, ids(both+1, nIDs)...)
		}
	}
}

func TestThousandsOfBlocks(t *testing.T) {
	const n = 5000
	a, keys := newBare(t, 0), testKeys(t, n)
	for from := 0; from < n; from += 7 {
		to := min(from+7, n)
		extend(t, a, ids(from, to-1)...)
		assign(t, a, keys[:to], Range{from, to})
	}
	holds(t, a, keys, ids(0, n-1)...)
}

func TestKnownPrefixIsSkipped(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 5)
	extend(t, a, 1, 2, 3)
	assign(t, a, keys[:1], Range{0, 1})
	stage(t, a, keys[:2], Range{0, 1})
	extend(t, a, 1, 2, 3, 4, 5)
	waits(t, a, 3, 4, 5)
	assign(t, a, keys, Range{1, 5})
	holds(t, a, keys, 1, 2, 3, 4, 5)
}

func TestOldPendingAreAssignedBeforeNew(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 4)
	extend(t, a, 8, 9)
	assign(t, a, keys[:1], Range{0, 1})
	extend(t, a, 1, 2)
	assign(t, a, keys, Range{1, 4})
	holds(t, a, keys, 8, 9, 1, 2)
}

func TestSeveralRounds(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 9)
	var known []BlockID
	for round := range 4 {
		known = append(known, ids(10*round, 10*round+2)...)
		extend(t, a, known...)
		assign(t, a, keys[:2*round+2], Range{2 * round, 2*round + 2})
	}
	assign(t, a, keys, Range{8, 9})
	holds(t, a, keys, 0, 1, 2, 10, 11, 12, 20, 21, 22)
	waits(t, a, 30, 31, 32)
}

func TestEmptyInput(t *testing.T) {
	a := newBare(t, 0)
	unchanged(t, a, func() {
		extend(t, a)
		assign(t, a, nil, Range{0, 0})
		if r := a.CommitStaged(); r != (Range{0, 0}) {
			t.Errorf("committed %v", r)
		}
		if r, err := a.ExtendAssigned(nil); err != nil || r != (Range{0, 0}) {
			t.Errorf("extended %v, %v", r, err)
		}
		if taken := a.TakeStaged(); len(taken) != 0 {
			t.Errorf("took %v", taken)
		}
	})
	assign(t, a, testKeys(t, 2), Range{0, 0})
}

func TestAllDuplicatesChangeNothing(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 2)
	extend(t, a, 1, 2, 3)
	assign(t, a, keys[:1], Range{0, 1})
	stage(t, a, keys, Range{0, 1})
	unchanged(t, a, func() {
		extend(t, a, 1, 2, 3)
		extend(t, a, 3, 1)
	})
}

func TestShorterSequenceNeverShrinks(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 4)
	extend(t, a, 1, 2, 3, 4)
	assign(t, a, keys[:3], Range{0, 3})
	for n := range 4 {
		unchanged(t, a, func() {
			assign(t, a, keys[:n], Range{3, 3})
			stage(t, a, keys[:n], Range{0, 0})
		})
	}
	assign(t, a, keys, Range{3, 4})
}

func TestOrderingViolation(t *testing.T) {
	a, keys := newBare(t, 0), testKeys(t, 2)
	extend(t, a, 1, 2, 3)
	assign(t, a, keys[:1], Range{0, 1})
	stage(t, a, keys, Range{0, 1})
	for _, known := range []BlockID{1, 2, 3} {
		unchanged(t, a, func() {
			err := a.ExtendBlockIDs([]BlockID{1, 7, 8, known, 9})
			var oe *OrderingError
			if !errors.Is(err, ErrOrdering) || !errors.As(err, &oe) ||
				*oe != (OrderingError{KnownID: known, NewID: 7, KnownIndex: 3, FirstNewIndex: 1}) {
				t.Errorf("known %d: %v", known, err)
			}
		})
		if a.Contains(7) || a.Contains(8) {
			t.Error("ids of a refused call are known")
		}
	}
	extend(t, a, 7, 8)
	waits(t, a, 3, 7, 8)
}

func TestDuplicateInOneBatch(t *testing.T) {
	a := newBare(t, 0)
	extend(t, a, 1)
	unchanged(t, a, func() {
		err := a.ExtendBlockIDs([]BlockID{1, 5, 6, 5})
		isDuplicate(t, err, 5)
	})
	keys := testKeys(t, 3)
	unchanged(t, a, func() {
		r, err := a.ExtendAssigned([]Block[Bare]{{ID: 7, Key: keys[0]}, {ID: 8, Key: keys[1]}, {ID: 7, Key: keys[2]}})
		isDuplicate(t, err, 7)
		if r != (Range{0, 0}) {
			t.Errorf("range %v", r)
		}
	})
}

func isDuplicate(t *testing.T, err error, id BlockID) {
	t.Helper()
	var de *DuplicateError
	if !errors.Is(err, ErrDuplicate) || !errors.As(err, &de) || de.ID != id {
		t.Errorf("got %v, want duplicate %d", err, id)
	}
}
