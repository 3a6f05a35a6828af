package main

import (
	"strings"
	"testing"
	"time"
)

// benchFor runs the command and returns its figures.
func benchFor(t *testing.T, c benchCoherenceCmd) map[string]figureResult {
	t.Helper()
	c.Dir = t.TempDir()
	byName := map[string]figureResult{}
	for _, r := range resultsOf[figureResult](t, c.Run) {
		shrinks := strings.Contains(r.Figure, "heap") // with few names, for other reasons
		if r.Median < r.Low || r.Median > r.High || r.Median < 0 && !shrinks {
			t.Errorf("%s: %v–%v, median %v", r.Figure, r.Low, r.High, r.Median)
		}
		byName[strings.TrimSpace(r.Figure)] = r
	}
	return byName
}

// TestBenchCoherence: every case measures something.
func TestBenchCoherence(t *testing.T) {
	got := benchFor(t, benchCoherenceCmd{Replicas: 1, Writers: 2, Readers: 4, Owners: 2, Size: 512, Rounds: 3, Duration: 20 * time.Millisecond})
	for _, id := range []string{"bare publish, p50", "write-through, one writer, protocol alone, p50", "write-through 512 B, one writer, p50",
		"commits without bytes, 3 × 2 writers", "commits of 512 B with fsync, 3 × 2 writers", "strict read, one reader, p50", "reads for each fence",
		"write-back 512 B by the owner, one writer, p50", "over RESP on a unix socket, one client, p50", "local read / sealed block"} {
		if r := got[id]; r.Median == 0 || r.Rounds != 3 {
			t.Errorf("%s: %+v", id, r)
		}
	}
}

// TestBenchNames: a node starts from the log, and from a snapshot and its tail.
func TestBenchNames(t *testing.T) {
	t.Setenv(childEnv, "1") // the NATS server is this program once more
	const names = 2000
	got := benchFor(t, benchCoherenceCmd{Replicas: 1, Writers: 1, Readers: 1, Owners: 1, Size: 1, Rounds: 1, Duration: time.Second, Blocks: names})
	if n := got["names"].Median; n != names {
		t.Errorf("%v names", n)
	}
	for _, id := range []string{"snapshot", "a fresh node is ready: from the log alone", "a fresh node is ready: from the snapshot and a tail of 200 commits"} {
		if got[id].Median == 0 {
			t.Errorf("%s: nothing", id)
		}
	}
}

// TestMeasuresSomething: a measurement whose time is up before it begins still has an operation.
func TestMeasuresSomething(t *testing.T) {
	h, err := timed(t.Context(), 0, func(int) error { return nil })
	if err != nil || h.TotalCount() != 1 {
		t.Errorf("%d operations, %v", h.TotalCount(), err)
	}
	const workers = 3
	r, err := together(t.Context(), 0, workers, func(int, int) error { return nil })
	if err != nil || r.ops != workers {
		t.Errorf("%d operations, %v", r.ops, err)
	}
}

// TestBenchCoherenceCases: --only names cases that there are, each once.
func TestBenchCoherenceCases(t *testing.T) {
	all := benchCases(&benchCoherenceCmd{})[1:]
	if len(all) != len(benchCaseNames) {
		t.Fatalf("%d cases, %d names of cases", len(all), len(benchCaseNames))
	}
	c := benchCoherenceCmd{Writers: 1, Readers: 1, Owners: 1, Size: 1, Rounds: 1, Duration: time.Second}
	for i, k := range all {
		if c.Only = []string{benchCaseNames[i]}; k.name != c.Only[0] || c.validate() != nil {
			t.Errorf("case %s is named %s: %v", k.name, c.Only[0], c.validate())
		}
	}
	if c.Only = []string{"commits"}; c.validate() == nil {
		t.Error("a case that does not exist was accepted")
	}
}
