package sequence

import (
	"errors"
	"slices"
	"testing"
)

// lease is a Pin that counts how often it is released, in order.
type lease struct {
	name string
	log  *[]string
}

func (l lease) Release() {
	if l.log != nil {
		*l.log = append(*l.log, l.name)
	}
}

func newPinned(t *testing.T) (a *Assignments[lease], pin func(string) lease, released func() []string) {
	t.Helper()
	a, err := NewAssignments[lease](0)
	if err != nil {
		t.Fatal(err)
	}
	var log []string
	return a, func(name string) lease { return lease{name, &log} }, func() []string { return log }
}

func TestCacheHitIsAssignedAtOnceWithItsPin(t *testing.T) {
	a, pin, released := newPinned(t)
	keys := testKeys(t, 2)
	if _, err := a.ExtendAssigned([]Block[lease]{{ID: 1, Pin: pin("a"), Key: keys[0]}, {ID: 2, Pin: pin("b"), Key: keys[1]}}); err != nil {
		t.Fatal(err)
	}
	if b, ok := a.AtPosition(1); !ok || b.Pin.name != "b" {
		t.Errorf("position 1 holds %+v, %v", b, ok)
	}
	if len(released()) != 0 {
		t.Errorf("released %v while assigned", released())
	}
	a.Clear()
	a.Clear()
	if want := []string{"a", "b"}; !slices.Equal(released(), want) {
		t.Errorf("Clear released %v, want %v once each", released(), want)
	}
	// Nor does the memory that is kept for later blocks refer to them.
	for i, b := range a.blocks[:2] {
		if b.Pin != (lease{}) {
			t.Errorf("block %d still refers to pin %q", i, b.Pin.name)
		}
	}
}

func TestCommitPinned(t *testing.T) {
	a, pin, released := newPinned(t)
	keys := testKeys(t, 4)
	if err := a.ExtendBlockIDs(ids(1, 4)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.StagePending(keys); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pins []lease
		want Range
	}{{nil, Range{0, 0}}, {[]lease{pin("a"), pin("b")}, Range{0, 2}}, {[]lease{pin("c")}, Range{2, 3}}} {
		if r, err := a.CommitPinned(c.pins); err != nil || r != c.want {
			t.Errorf("%d pins: %v, %v; want %v", len(c.pins), r, err, c.want)
		}
	}
	r, err := a.CommitPinned([]lease{pin("d"), pin("e")})
	var pe *PinsError
	if !errors.Is(err, ErrPins) || !errors.As(err, &pe) || *pe != (PinsError{Pins: 2, Staged: 1}) || r != (Range{3, 3}) {
		t.Errorf("too many pins: %v, %v", r, err)
	}
	if b, ok := a.Staged(0); !ok || b.ID != 4 || b.Pin != (lease{}) || a.AssignedCount() != 3 {
		t.Errorf("after a refused call: staged %+v, %v; %d assigned", b, ok, a.AssignedCount())
	}
	if taken := a.TakeStaged(); len(taken) != 1 || taken[0].ID != 4 {
		t.Errorf("took %v", taken)
	}
	if len(released()) != 0 {
		t.Errorf("released early: %v", released())
	}
	a.Clear()
	if want := []string{"a", "b", "c"}; !slices.Equal(released(), want) {
		t.Errorf("Clear released %v, want %v", released(), want)
	}
}

func TestRefusedPinsRemainTheCallers(t *testing.T) {
	a, pin, released := newPinned(t)
	keys := testKeys(t, 3)
	if _, err := a.ExtendAssigned([]Block[lease]{{ID: 1, Pin: pin("a"), Key: keys[0]}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ExtendAssigned([]Block[lease]{{ID: 2, Pin: pin("b"), Key: keys[1]}, {ID: 1, Pin: pin("c"), Key: keys[2]}}); !errors.Is(err, ErrDuplicate) {
		t.Fatal(err)
	}
	a.Clear()
	if want := []string{"a"}; !slices.Equal(released(), want) {
		t.Errorf("released %v, want %v", released(), want)
	}
}

// Blocks committed without a pin have the zero one, and Clear copes with it.
func TestZeroPins(t *testing.T) {
	a, pin, released := newPinned(t)
	keys := testKeys(t, 2)
	if err := a.ExtendBlockIDs(ids(1, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AssignPending(keys[:1]); err != nil {
		t.Fatal(err)
	}
	if _, err := a.StagePending(keys); err != nil {
		t.Fatal(err)
	}
	if _, err := a.CommitPinned([]lease{pin("b")}); err != nil {
		t.Fatal(err)
	}
	a.Clear()
	if want := []string{"b"}; !slices.Equal(released(), want) {
		t.Errorf("released %v, want %v", released(), want)
	}
}

func TestTiersWithDifferentPinsAreZipped(t *testing.T) {
	host, pin, _ := newPinned(t)
	keys := testKeys(t, 2)
	if _, err := host.ExtendAssigned([]Block[lease]{{ID: 10, Pin: pin("a"), Key: keys[0]}, {ID: 11, Pin: pin("b"), Key: keys[1]}}); err != nil {
		t.Fatal(err)
	}
	device := newBare(t, 1)
	extend(t, device, 5)
	if got, want := ZipAssignedPending(host, device), []Pair{{1, 11, 5}}; !slices.Equal(got, want) {
		t.Errorf("plan %v, want %v", got, want)
	}
}
