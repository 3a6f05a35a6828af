package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"cairn/cluster"
	"cairn/internal/natstest"
	"cairn/router"
	"cairn/wire"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// placementFor runs the command and returns its figures.
func placementFor(t *testing.T, c benchPlacementCmd) map[string]float64 {
	t.Helper()
	t.Setenv(childEnv, "1") // the router's view is this program once more
	c.Dir = t.TempDir()
	got := map[string]float64{}
	for _, r := range resultsOf[figureResult](t, c.Run) {
		got[strings.TrimSpace(r.Figure)] = r.Median
	}
	return got
}

// TestBenchPlacementBound: a router whose memory is bounded forgets the deepest blocks, stays
// within the bound, and never names a node that does not hold a block.
func TestBenchPlacementBound(t *testing.T) {
	got := placementFor(t, benchPlacementCmd{Nodes: 2, Rate: 2000, Duration: 100 * time.Millisecond, Blocks: 100_000, Replicas: 1, Sample: 5000,
		MaxIndexBytes: router.LeastMaxBytes})
	if is, most := got["index: bytes of the table"], got["index: bound"]; is > most || most == 0 {
		t.Errorf("%v MB of %v", is, most)
	}
	for _, something := range []string{"index: blocks evicted", "index: first position that is not kept", "the router that was there: blocks whose holders it does not know"} {
		if got[something] == 0 {
			t.Errorf("%s: nothing", something)
		}
	}
	if n := got["the router that was there: blocks with other holders than they have"]; n != 0 {
		t.Errorf("%v blocks with holders that they do not have", n)
	}
}

// TestBenchPlacement: a router follows what nodes announce, misses nothing, and one that is
// started beside them knows the same.
func TestBenchPlacement(t *testing.T) {
	got := placementFor(t, benchPlacementCmd{Nodes: 3, Rate: 3000, Duration: 200 * time.Millisecond, Blocks: 3000, Replicas: 1, Restarts: 1, Sample: 5000})
	for _, something := range []string{"changes announced", "samples", "from the call to the router's index, p99", "processor time of a change: router",
		"router: live heap, each second", "index: blocks", "a router starts beside changes, and is up to date", "snapshots that it loaded",
		"a node that leaves is out of all answers after"} {
		if got[something] == 0 {
			t.Errorf("%s: nothing", something)
		}
	}
	for _, nothing := range []string{"samples lost", "drops: queues that gave way to a snapshot", "gaps", "snapshots loaded to repair", "events that could not be read",
		"the router that was there: blocks with other holders than they have", "the router that was there: blocks whose holders it does not know",
		"the router that was started: blocks with other holders than they have", "the router that was started: blocks whose holders it does not know"} {
		if n, ok := got[nothing]; n != 0 || !ok {
			t.Errorf("%s: %v, %v", nothing, n, ok)
		}
	}
}

// TestPlacementSettles: the last report of a measurement has the samples that were under way.
func TestPlacementSettles(t *testing.T) {
	view, err := cluster.OpenView(t.Context(), natstest.Run(t), cluster.ViewConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	var in, out bytes.Buffer
	enc := json.NewEncoder(&in)
	const samples = 3
	for i := range uint64(samples) { // of a node that the view waits a second for
		if err := enc.Encode(viewQuestion{Sample: &wire.Token{Node: "nobody", Incarnation: 1, Position: i}, At: time.Now().UnixNano()}); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Encode(viewQuestion{Report: true, Settle: true}); err != nil {
		t.Fatal(err)
	}
	w := &viewWatch{view: view, hist: newHistogram()}
	if err := w.serve(t.Context(), &in, &out); err != nil {
		t.Fatal(err)
	}
	var r viewAnswer
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if n := hdr.Import(r.Samples).TotalCount(); n != samples || r.Lost != 0 {
		t.Errorf("%d samples, %d lost", n, r.Lost)
	}
}

// TestPlacementSpan: what an announcer says that it holds is prefix-closed at any time, and
// is what its changes amount to.
func TestPlacementSpan(t *testing.T) {
	s := placementSpan{Added: 2 * placementChain}
	held := map[string]bool{}
	for chain := range uint64(2) {
		for i := range placementChain {
			held[s.key(chain, i).String()] = true
		}
	}
	for step := range 6 * placementChain {
		if step%2 == 0 {
			held[s.added(s.Added).String()] = true
			s.Added++
		} else {
			delete(held, s.removed(s.Removed).String())
			s.Removed++
		}
		n := 0
		for chain, end := s.chains(); chain < end; chain++ {
			for i := range placementChain {
				holds := s.holds(chain, i)
				if holds != held[s.key(chain, i).String()] {
					t.Fatalf("step %d: block %d of sequence %d: %v", step, i, chain, holds)
				}
				if holds {
					n++
				}
				if holds && i > 0 && !s.holds(chain, i-1) {
					t.Fatalf("step %d: block %d of sequence %d without the one before it", step, i, chain)
				}
			}
		}
		if n != len(held) {
			t.Fatalf("step %d: %d blocks, want %d", step, n, len(held))
		}
	}
}

func TestBenchPlacementUsage(t *testing.T) {
	good := benchPlacementCmd{Nodes: 3, Rate: 1, Duration: time.Second, Blocks: 1000, Sample: 1}
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*benchPlacementCmd){
		"no node":         func(c *benchPlacementCmd) { c.Nodes = 0 },
		"too many nodes":  func(c *benchPlacementCmd) { c.Nodes = mostAnnouncers + 1 },
		"no rate":         func(c *benchPlacementCmd) { c.Rate = 0 },
		"no time":         func(c *benchPlacementCmd) { c.Duration = 0 },
		"too few blocks":  func(c *benchPlacementCmd) { c.Blocks = 100 },
		"too many blocks": func(c *benchPlacementCmd) { c.Blocks = mostPlacementBlocks + 1 },
		"restarts":        func(c *benchPlacementCmd) { c.Restarts = -1 },
		"sample":          func(c *benchPlacementCmd) { c.Sample = 0 },
	} {
		c := good
		if change(&c); c.validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
