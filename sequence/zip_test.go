package sequence

import (
	"slices"
	"testing"

	"cairn/block"
)

// tierAt has the given slots assigned from offset on, and others pending.
func tierAt(t *testing.T, keys []block.Key, offset int, assigned, pending []BlockID) *Assignments[Bare] {
	t.Helper()
	a := newBare(t, offset)
	extend(t, a, assigned...)
	assign(t, a, keys, Range{0, len(assigned)})
	extend(t, a, pending...)
	return a
}

func TestZipAssigned(t *testing.T) {
	keys := testKeys(t, 12)
	for _, c := range []struct {
		name                       string
		sourceOffset, targetOffset int
		source, target             []BlockID
		want                       []Pair
	}{
		{"full overlap", 1, 1, ids(10, 12), ids(20, 22), []Pair{{1, 10, 20}, {2, 11, 21}, {3, 12, 22}}},
		{"target begins later", 0, 2, ids(10, 13), ids(20, 25), []Pair{{2, 12, 20}, {3, 13, 21}}},
		{"source begins later", 3, 0, ids(10, 13), ids(20, 24), []Pair{{3, 10, 23}, {4, 11, 24}}},
		{"target inside source", 0, 1, ids(10, 15), ids(20, 21), []Pair{{1, 11, 20}, {2, 12, 21}}},
		{"neighbours", 0, 3, ids(10, 12), ids(20, 22), nil},
		{"far apart, source first", 0, 8, ids(10, 11), ids(20, 21), nil},
		{"far apart, target first", 8, 0, ids(10, 11), ids(20, 21), nil},
		{"source empty", 0, 0, nil, ids(20, 22), nil},
		{"target empty", 0, 0, ids(10, 12), nil, nil},
		{"both empty", 0, 0, nil, nil, nil},
	} {
		source := tierAt(t, keys, c.sourceOffset, c.source, ids(100, 103))
		target := tierAt(t, keys, c.targetOffset, c.target, ids(200, 203))
		got := ZipAssigned(source, target)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		ascending(t, got)
	}
}

func TestZipAssignedPending(t *testing.T) {
	keys := testKeys(t, 12)
	for _, c := range []struct {
		name                       string
		sourceOffset, targetOffset int
		source, assigned, pending  []BlockID
		want                       []Pair
	}{
		{"full overlap", 2, 0, ids(10, 12), ids(20, 21), ids(30, 32), []Pair{{2, 10, 30}, {3, 11, 31}, {4, 12, 32}}},
		{"source ends first", 0, 0, ids(10, 13), ids(20, 21), ids(30, 35), []Pair{{2, 12, 30}, {3, 13, 31}}},
		{"source begins later", 4, 0, ids(10, 13), ids(20, 21), ids(30, 33), []Pair{{4, 10, 32}, {5, 11, 33}}},
		{"all assigned already", 0, 0, ids(10, 12), ids(20, 22), ids(30, 32), nil},
		{"far apart", 8, 0, ids(10, 11), nil, ids(30, 32), nil},
		{"source empty", 0, 0, nil, nil, ids(30, 32), nil},
		{"nothing pending", 0, 0, ids(10, 12), nil, nil, nil},
		{"both empty", 0, 0, nil, nil, nil, nil},
	} {
		source := tierAt(t, keys, c.sourceOffset, c.source, nil)
		target := tierAt(t, keys, c.targetOffset, c.assigned, c.pending)
		got := ZipAssignedPending(source, target)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		ascending(t, got)
	}
}

func TestZipLooksAtAssignedBlocksOnly(t *testing.T) {
	keys := testKeys(t, 4)
	source := tierAt(t, keys, 0, ids(10, 13), nil)
	target := newBare(t, 0)
	extend(t, target, ids(20, 23)...)
	stage(t, target, keys[:2], Range{0, 2})
	if got := ZipAssigned(source, target); got != nil {
		t.Errorf("staged target: %v", got)
	}
	if got := ZipAssigned(target, source); got != nil {
		t.Errorf("staged source: %v", got)
	}
	// Staged blocks have their positions already: pending slots follow them.
	if got, want := ZipAssignedPending(source, target), []Pair{{2, 12, 22}, {3, 13, 23}}; !slices.Equal(got, want) {
		t.Errorf("plan %v, want %v", got, want)
	}
	if got := ZipAssignedPending(target, source); got != nil {
		t.Errorf("plan from staged blocks: %v", got)
	}
}

// The device has blocks 0 and 1 and three free slots, the host blocks 2 to 4: the
// plan brings these three, and assigning them afterwards reproduces it.
func TestOnboarding(t *testing.T) {
	keys := testKeys(t, 5)
	device := tierAt(t, keys[:2], 0, ids(0, 1), ids(2, 4))
	host := tierAt(t, keys, 2, ids(100, 102), nil)
	plan := ZipAssignedPending(host, device)
	if want := []Pair{{2, 100, 2}, {3, 101, 3}, {4, 102, 4}}; !slices.Equal(plan, want) {
		t.Fatalf("plan %v, want %v", plan, want)
	}
	assign(t, device, keys, Range{2, 5})
	if after := ZipAssigned(host, device); !slices.Equal(after, plan) {
		t.Errorf("assigned %v, planned %v", after, plan)
	}
	holds(t, device, keys, ids(0, 4)...)
}

func ascending(t *testing.T, pairs []Pair) {
	t.Helper()
	if !slices.IsSortedFunc(pairs, func(a, b Pair) int { return a.Position - b.Position }) {
		t.Errorf("positions do not ascend: %v", pairs)
	}
}
