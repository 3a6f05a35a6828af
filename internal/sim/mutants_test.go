//go:build cairn_mutant

package sim

import (
	"testing"
	"time"

	"cairn/internal/mutant"
)

const (
	mutantTime = 60 * time.Second
	// mutantSeed is where the search begins, always the same: whether a mutation is
	// caught does not change from run to run.
	mutantSeed = 1
)

// TestMutants breaks the protocol in each of the ways that it can be broken, and
// wants to see it noticed.
func TestMutants(t *testing.T) {
	defer mutant.Choose(mutant.None)
	for _, m := range mutant.All() {
		mutant.Choose(m)
		var count tally
		began := time.Now()
		failed := search(mutantSeed, mutantTime, &count)
		took := time.Since(began).Round(time.Millisecond)
		if failed == nil {
			t.Errorf("%-34v not caught by %d histories in %v", m, count.histories.Load(), took)
			continue
		}
		t.Logf("%-34v caught by %-9s after %6d histories, %8v: seed %d: %s", m, failed.Violation.Invariant, count.histories.Load(), took,
			failed.Plan.Seed, failed.Violation.Text)
	}
}

// TestShrink: what is left of a failing plan still fails in the same way, and is less.
func TestShrink(t *testing.T) {
	mutant.Choose(mutant.IgnoreVersion)
	defer mutant.Choose(mutant.None)
	var count tally
	failed := search(mutantSeed, mutantTime, &count)
	if failed == nil {
		t.Fatal("nothing failed")
	}
	seed := failed.Plan.Seed
	keep, v := Shrink(seed, failed.Violation)
	parsed, err := ParseKeep(keep.String())
	if err != nil {
		t.Fatal(err)
	}
	r := Run(NewPlan(seed, parsed), false)
	if r.Violation == nil || *r.Violation != *v || v.Invariant != failed.Violation.Invariant {
		t.Errorf("shrunk to %v, which gives %v, want %v", v, r.Violation, failed.Violation)
	}
	ops := 0
	for i := range failed.Plan.Ops {
		if keep.op(i) {
			ops++
		}
	}
	if ops == 0 || ops*2 > len(failed.Plan.Ops) {
		t.Errorf("%d operations of %d are left", ops, len(failed.Plan.Ops))
	}
}
