//go:build cairn_mutant

package protocol

import (
	"slices"
	"testing"
	"time"

	"cairn/internal/mutant"
)

// TestExploreFindsMutants breaks the protocol in each of the ways that mutant knows, and
// wants some small cluster to show it.
func TestExploreFindsMutants(t *testing.T) {
	defer mutant.Choose(mutant.None)
	for _, name := range mutant.All() {
		mutant.Choose(name)
		r, in := hunt(name)
		switch {
		case r.err == nil && slices.Contains(unseen, name):
			t.Logf("%-40v not found, as expected", name)
		case r.err == nil:
			t.Errorf("%v: not found", name)
		default:
			t.Logf("%-40v %s, %d states, %.1f s: %v", name, in.name, r.states, r.took.Seconds(), r.err)
		}
	}
}

// unseen are mutations that need more steps than this searches in its time: a zombie
// needs a lapse, an Expire, a Revoke and a new incarnation that knows of none of them.
var unseen = []mutant.Name{mutant.ZombieFlush}

// hunt searches in all instances, a little in each at first; for long, as other processes may
// have the processors, unless nothing is expected.
func hunt(name mutant.Name) (r result, in *instance) {
	limit := 90 * time.Second
	if slices.Contains(unseen, name) {
		limit = 15 * time.Second
	}
	end := time.Now().Add(limit)
	for most := 2000; time.Now().Before(end); most *= 5 {
		for _, in = range instances() {
			if r = in.search(most, end, uint64(most), newVisited()); r.err != nil {
				return r, in
			}
		}
	}
	return r, in
}
