package protocol

import (
	"os"
	"slices"
	"testing"
	"time"
)

// TestOrderOfSearchDoesNotMatter: if two states with one encoding went on differently,
// what is found would depend on which is met first.
func TestOrderOfSearchDoesNotMatter(t *testing.T) {
	names := []string{"through and through", "lease mode, two nodes", "sessions"}
	if os.Getenv("CAIRN_LONG") != "" {
		names = append(names, "copies, crash of a holder", "staged objects and duplicates")
	}
	for _, in := range instances() {
		if !slices.Contains(names, in.name) {
			continue
		}
		states := 0
		for seed := range uint64(3) {
			r := in.search(1<<40, time.Now().Add(time.Minute), seed, newVisited())
			if r.err != nil || !r.complete {
				t.Fatalf("%s: complete: %v, error: %v", in.name, r.complete, r.err)
			}
			if states != 0 && r.states != states {
				t.Errorf("%s: %d states in one order, %d in another", in.name, states, r.states)
			}
			states = r.states
		}
	}
}

// TestStatesOfOneEncodingGoOnAlike compares what follows from states that are taken for
// the same. Where incarnations end the encoding keeps some states apart that are the
// same, so there successors may differ in it.
func TestStatesOfOneEncodingGoOnAlike(t *testing.T) {
	most := 300
	if os.Getenv("CAIRN_LONG") != "" {
		most = 20_000
	}
	for _, in := range instances() {
		if in.budget[advances] > 0 || in.budget[crashes] > 0 {
			continue
		}
		h := &hasher{}
		seen := map[uint64][]uint64{}
		for queue := []*universe{in.setup()}; len(queue) > 0 && len(seen) < most; queue = queue[1:] {
			u := queue[0]
			var next []uint64
			var states []*universe
			for _, m := range u.moves(nil) {
				v := u.make(m)
				next, states = append(next, v.hash(h)), append(states, v)
			}
			slices.Sort(next)
			next = slices.Compact(next)
			hash := u.hash(h)
			if before, ok := seen[hash]; !ok {
				seen[hash] = next
				queue = append(queue, states...)
			} else if !slices.Equal(before, next) {
				t.Fatalf("%s: two states have one encoding, and go on differently", in.name)
			}
		}
	}
}
