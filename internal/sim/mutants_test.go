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
