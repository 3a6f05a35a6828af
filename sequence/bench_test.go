package sequence

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"cairn/block"
)

// measure runs do, which handles n blocks, and reports the time of one block in
// the median run: whatever else the machine does then stays out of the figure.
// What before does is not measured.
func measure(b *testing.B, n int, before, do func()) {
	runs := make([]time.Duration, 0, 1<<16)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		before()
		b.StartTimer()
		start := time.Now()
		do()
		runs = append(runs, time.Since(start))
	}
	slices.Sort(runs)
	b.ReportMetric(float64(runs[len(runs)/2].Nanoseconds())/float64(n), "ns/block")
}

func nothing() {}

// BenchmarkHash is the time of one block of a prompt of 8,192 tokens.
func BenchmarkHash(b *testing.B) {
	tokens := count(1, 8192)
	for _, h := range []struct {
		name   string
		hasher Hasher
	}{{"sha256", SHA256{}}, {"xxh3", XXH3{}}} {
		for _, size := range []int{16, 64, 256, 1024} {
			b.Run(h.name+"/"+strconv.Itoa(size), func(b *testing.B) {
				keys := make([]block.Key, 0, len(tokens)/size)
				measure(b, len(tokens)/size, nothing, func() {
					if _, err := h.hasher.AppendKeys(keys, Salt{}, size, tokens); err != nil {
						b.Fatal(err)
					}
				})
			})
		}
	}
}

// BenchmarkAppend is the time of one token of an answer, blocks of 16.
func BenchmarkAppend(b *testing.B) {
	s, err := New(16, Salt{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Append(7); err != nil {
			b.Fatal(err)
		}
		if s.Len() == 1<<16 {
			s.Reset()
		}
	}
}

// million is the number of blocks that the benchmarks of Assignments handle.
const million = 1_000_000

// sequenceOf is the keys of n blocks as far as Assignments looks at them.
func sequenceOf(b *testing.B, n int) []block.Key {
	b.Helper()
	keys := make([]block.Key, n)
	for i := range keys {
		key, err := block.NewKey(i, [block.HashSize]byte{})
		if err != nil {
			b.Fatal(err)
		}
		keys[i] = key
	}
	return keys
}

// BenchmarkAssign is the time of one of n blocks from an unknown slot to an
// assigned one, and of the two steps after the first; n does not matter.
func BenchmarkAssign(b *testing.B) {
	for _, n := range []int{1_000, million} {
		slots, keys := make([]BlockID, n), sequenceOf(b, n)
		for i := range slots {
			slots[i] = BlockID(i)
		}
		a, err := NewAssignments[Bare](0)
		if err != nil {
			b.Fatal(err)
		}
		extend := func() {
			a.Clear()
			if err := a.ExtendBlockIDs(slots); err != nil {
				b.Fatal(err)
			}
		}
		stageAndCommit := func() {
			if r, err := a.StagePending(keys); err != nil || r.Len() != n {
				b.Fatal(r, err)
			}
			a.CommitStaged()
		}
		extend()
		stageAndCommit()
		b.Run("stage-commit/"+strconv.Itoa(n), func(b *testing.B) {
			measure(b, n, extend, stageAndCommit)
		})
		b.Run("clear-extend-stage-commit/"+strconv.Itoa(n), func(b *testing.B) {
			measure(b, n, nothing, func() { extend(); stageAndCommit() })
		})
	}
}

// BenchmarkZip is the time of one pair of n.
func BenchmarkZip(b *testing.B) {
	for _, n := range []int{1_000, million} {
		keys := sequenceOf(b, n)
		sourceSlots, targetSlots := make([]BlockID, n), make([]BlockID, n)
		for i := range n {
			sourceSlots[i], targetSlots[i] = BlockID(i), BlockID(n+i)
		}
		tier := func(slots []BlockID) *Assignments[Bare] {
			a, err := NewAssignments[Bare](0)
			if err != nil {
				b.Fatal(err)
			}
			if err := a.ExtendBlockIDs(slots); err != nil {
				b.Fatal(err)
			}
			return a
		}
		source, target := tier(sourceSlots), tier(targetSlots)
		if _, err := source.AssignPending(keys); err != nil {
			b.Fatal(err)
		}
		zip := func(do func(*Assignments[Bare], *Assignments[Bare]) []Pair) func() {
			return func() {
				if len(do(source, target)) != n {
					b.Fatal("pairs are missing")
				}
			}
		}
		b.Run("assigned-pending/"+strconv.Itoa(n), func(b *testing.B) { measure(b, n, nothing, zip(ZipAssignedPending)) })
		if _, err := target.AssignPending(keys); err != nil {
			b.Fatal(err)
		}
		b.Run("assigned/"+strconv.Itoa(n), func(b *testing.B) { measure(b, n, nothing, zip(ZipAssigned)) })
	}
}
