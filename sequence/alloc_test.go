//go:build !race

// The race detector makes code allocate that does not otherwise.

package sequence

import (
	"testing"

	"cairn/block"
)

func TestHashersDoNotAllocate(t *testing.T) {
	tokens := count(1, 256)
	for _, size := range []int{16, 256} {
		for _, h := range []Hasher{SHA256{}, XXH3{}} {
			keys := make([]block.Key, 0, len(tokens)/size)
			n := testing.AllocsPerRun(100, func() {
				if _, err := h.AppendKeys(keys, Salt{}, size, tokens); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%T: %v allocations for blocks of %d tokens", h, n, size)
			}
		}
	}
}

// Once a tier has had its size, nothing allocates, however many blocks pass.
func TestAssigningDoesNotAllocate(t *testing.T) {
	const n = 10_000
	keys, slots := testKeys(t, n), ids(0, n-1)
	a := newBare(t, 0)
	allocs := testing.AllocsPerRun(10, func() {
		a.Clear()
		for from := 0; from < n; from += 100 {
			to := from + 100
			if err := a.ExtendBlockIDs(slots[from:to]); err != nil {
				t.Fatal(err)
			}
			if _, err := a.StagePending(keys[:to-50]); err != nil {
				t.Fatal(err)
			}
			a.CommitStaged()
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations for %d blocks", allocs, n)
	}
}

// A zip allocates its result and nothing else.
func TestZipsAllocateOnce(t *testing.T) {
	const n = 10_000
	keys := testKeys(t, n)
	source, target := newBare(t, 0), newBare(t, 0)
	extend(t, source, ids(0, n-1)...)
	extend(t, target, ids(0, n-1)...)
	assign(t, source, keys, Range{0, n})
	zips := func(zip func(*Assignments[Bare], *Assignments[Bare]) []Pair) {
		t.Helper()
		allocs := testing.AllocsPerRun(10, func() {
			if len(zip(source, target)) != n {
				t.Fatal("pairs are missing")
			}
		})
		if allocs != 1 {
			t.Errorf("%v allocations for %d pairs", allocs, n)
		}
	}
	zips(ZipAssignedPending)
	assign(t, target, keys, Range{0, n})
	zips(ZipAssigned)
}
