package router

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

func TestPlanPrefersFastTiersAndLongRuns(t *testing.T) {
	ix := newIndex(t, Exact, 4)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 12)
	mustApply(t, ix,
		stored("node-1", 1, block.Disk, keys),
		stored("node-2", 1, block.Host, keys[2:8]),
		stored("node-3", 1, block.Host, keys[4:12]),
		stored("node-0", 1, block.Host, keys[9:10]),
	)
	r := newRouter(t, ix, round)
	d := route(t, r, Request{Keys: keys, Only: []string{"node-0"}}, at(0))
	want := []Transfer{
		{From: "node-1", First: 0, Count: 2, Tier: block.Disk},
		{From: "node-2", First: 2, Count: 6, Tier: block.Host},
		{From: "node-3", First: 8, Count: 1, Tier: block.Host},
		{From: "node-3", First: 10, Count: 2, Tier: block.Host},
	}
	for i := range want {
		want[i].To, want[i].FromAddr = "node-0", want[i].From+":7000"
	}
	if diff := cmp.Diff(want, d.Plan); diff != "" {
		t.Error(diff)
	}
	fetched := 0
	for _, p := range d.Plan {
		fetched += p.Count
	}
	if c := d.Candidates[0]; fetched != c.Peers || c.Cached != 12 || c.Overlap.Total() != 1 {
		t.Errorf("%d planned for %+v", fetched, c)
	}
}
