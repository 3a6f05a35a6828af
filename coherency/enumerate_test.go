package coherency

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"cairn/block"
)

// build makes a State that shows as r. ok is false when no State can: then why
// names the deviation that makes r a lie.
func build(r reference) (s State, why string) {
	switch {
	case r.home == block.VRAM:
		return State{}, "T18"
	case r.owner == noOwner && r.valid.Any():
		return State{}, "T11"
	case !r.dirty.Any() && r.valid.Any() && !r.valid.Has(r.home):
		return State{}, "T12"
	case r.dirty.Any() && r.valid.Has(r.home) && r.owner != r.home:
		return State{}, "T9"
	}
	s = State{cur: 5, home: r.home, owner: r.owner, durable: r.valid.Has(r.home) && !r.dirty.Any()}
	for t := range block.Tier(block.Tiers) {
		s.have[t] = 3 // an older version
		if r.valid.Has(t) {
			s.have[t] = s.cur
		}
	}
	return s, ""
}

// deviation says whether ours must differ after o, under which name, what it
// must show then, and with which error.
func deviation(r reference, o operation) (name string, want reference, err error) {
	want = r
	takeOver := func() {
		want.valid = r.valid.Without(o.tier)
		if want.owner == o.tier {
			want.owner, _ = want.valid.Fastest()
		}
		want.dirty = block.MaskOf(want.owner)
	}
	cleanAtHome := func() {
		want.valid, want.dirty = r.valid.With(r.home), 0
	}
	dirty := r.dirty.Any()
	switch o.kind {
	case "write":
		if o.policy != WriteAll {
			return "", want, nil
		}
		if !r.valid.Any() {
			return "T5", want, ErrNoCopy
		}
		if !r.valid.With(o.tier).Has(r.home) {
			want.valid, want.dirty, want.owner = r.valid.With(o.tier).With(r.home), 0, o.tier
			return "T4", want, nil
		}
	case "mark_synced":
		switch {
		case !r.valid.Any():
			return "T11", want, ErrNoCopy
		case dirty && o.tier == r.owner && o.tier != r.home:
			return "T8", want, ErrCurrent
		case dirty && o.tier == r.home && o.tier != r.owner:
			cleanAtHome()
			return "T9", want, nil
		}
	case "sync_to":
		if dirty && o.tier == r.home && r.valid.Has(r.home) {
			cleanAtHome()
			return "T10", want, nil
		}
	case "invalidate":
		switch {
		case !r.valid.Has(o.tier):
		case r.valid == block.MaskOf(o.tier) && dirty:
			return "T6", want, ErrLastDirtyCopy
		case r.valid == block.MaskOf(o.tier):
			return "T6", want, ErrLastCopy
		case dirty && o.tier == r.owner:
			takeOver()
			return "T7", want, nil
		case !dirty && o.tier == r.home:
			takeOver()
			return "T12", want, nil
		}
	}
	return "", want, nil
}

// reachable is every state that the reference gets to from its constructor.
func reachable() []reference {
	seen := map[reference]bool{}
	var queue []reference
	visit := func(r reference) {
		if !seen[r] {
			seen[r] = true
			queue = append(queue, r)
		}
	}
	for at := range block.Tier(block.Tiers) {
		for home := range block.Tier(block.Tiers) {
			visit(newReference(at, home))
		}
	}
	for i := 0; i < len(queue); i++ {
		for _, o := range operations() {
			visit(queue[i].apply(o))
		}
	}
	return queue
}

// TestEveryStateAndOperation takes every state that the reference can reach
// through every operation. Ours equals it once all copies are committed, or
// differs as the named deviation says.
func TestEveryStateAndOperation(t *testing.T) {
	states, ops := reachable(), operations()
	counts := map[string]int{}
	for _, r := range states {
		for _, o := range ops {
			s, why := build(r)
			if why != "" {
				counts["state is "+why]++
				continue
			}
			if got := view(s); got != r {
				t.Fatalf("built %s, want %s", got, r)
			}
			theirs := r.apply(o)
			before := s
			err := perform(&s, o)
			ours := view(s)
			name, want, wantErr := deviation(r, o)
			if name == "" {
				counts["equal"]++
				if ours != theirs {
					t.Errorf("%s: %s:\n ours %s (%v)\n reference %s", r, o, ours, err, theirs)
				}
				continue
			}
			counts[name]++
			if ours != want || !errors.Is(err, wantErr) {
				t.Errorf("%s: %s: %s:\n got  %s (%v)\n want %s (%v)", name, r, o, ours, err, want, wantErr)
			}
			if ours == theirs {
				t.Errorf("%s: %s: %s: ours does not deviate", name, r, o)
			}
			if err != nil && s != before {
				t.Errorf("%s: %s: %s: failed and changed the state", name, r, o)
			}
		}
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		total += counts[name]
		t.Logf("%5d %s", counts[name], name)
	}
	t.Logf("%5d cases: %d states × %d operations", total, len(states), len(ops))
	want := map[string]int{
		"state is T9": 144, "state is T11": 252, "state is T12": 144, "state is T18": 576, "equal": 528,
		"T4": 16, "T5": 6, "T6": 8, "T7": 10, "T8": 8, "T9": 8, "T10": 8, "T11": 6, "T12": 14,
	}
	if len(states) != 96 || total != 1728 || !maps.Equal(counts, want) {
		t.Errorf("%d states, %d cases: %v, want %v", len(states), total, counts, want)
	}
}

// TestReachableViews walks ours from New through every operation, Discard
// included, with all copies committed or aborted. What it shows is never one of
// the states that are a lie, and every other state of the reference is shown.
func TestReachableViews(t *testing.T) {
	seen := map[reference]bool{}
	var queue []State
	visit := func(s State) {
		// Lags instead of versions keep the walk finite.
		for i := range s.have {
			if s.have[i] == s.cur {
				s.have[i] = 5
			} else {
				s.have[i] = min(s.have[i], 3)
			}
			s.flights[i] = 0
		}
		s.cur = 5
		if !seen[view(s)] {
			seen[view(s)] = true
			queue = append(queue, s)
		}
	}
	for at := range block.Tier(block.Tiers) {
		for _, home := range []block.Tier{block.Host, block.Disk} {
			s, err := New(at, home)
			if err != nil {
				t.Fatal(err)
			}
			visit(s)
		}
	}
	for i := 0; i < len(queue); i++ {
		for _, o := range operations() {
			s := queue[i]
			_ = perform(&s, o) // a refusal leaves a state as well
			visit(s)
			if o.kind == "write" {
				s = queue[i]
				_, copies, _ := s.Write(o.tier, o.policy, s.Version())
				for _, c := range copies {
					s.Abort(c)
				}
				visit(s)
			}
			s = queue[i]
			s.Discard(o.tier)
			visit(s)
		}
	}
	honest := 0
	for _, r := range reachable() {
		_, why := build(r)
		if why == "" {
			honest++
		}
		if seen[r] != (why == "") {
			t.Errorf("%s: shown %v, deviation %q", r, seen[r], why)
		}
	}
	if len(seen) != honest {
		t.Errorf("ours shows %d states, %d are the reference's", len(seen), honest)
	}
	t.Logf("%d states shown", len(seen))
}
