package hostcache

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"cairn/block"
)

// TestRecencyIsExact runs the runs beside golang-lru holding one element per
// entry: the oldest must always be the same, and the runs must stay few.
func TestRecencyIsExact(t *testing.T) {
	const entries = 3000
	for name, skew := range map[string]float64{"uniform": 0, "hot": 0.99} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, uint64(skew*100)))
			tab := &table{free: noEntry}
			for range entries {
				tab.take()
			}
			got, err := newRecency(tab)
			if err != nil {
				t.Fatal(err)
			}
			want, err := simplelru.NewLRU[uint32, struct{}](entries, nil)
			if err != nil {
				t.Fatal(err)
			}
			most := 0
			for step := range 300_000 {
				id := rng.Uint32N(entries)
				if rng.Float64() < skew {
					id %= 8
				}
				switch {
				case step%1000 >= 990:
					oldest, _, ok := want.GetOldest()
					if id, found := got.oldest(); found != ok || ok && id != oldest {
						t.Fatalf("step %d: oldest is %d, %v, want %d, %v", step, id, found, oldest, ok)
					}
					got.drop(oldest)
					want.Remove(oldest)
				case rng.IntN(50) == 0:
					got.drop(id)
					want.Remove(id)
				default:
					got.touch(id)
					want.Add(id, struct{}{})
				}
				most = max(most, got.runs.Len())
			}
			var order []uint32
			for id, ok := got.oldest(); ok; id, ok = got.oldest() {
				order = append(order, id)
				got.drop(id)
			}
			if diff := cmp.Diff(want.Keys(), order); diff != "" {
				t.Errorf("order differs (-want +got):\n%s", diff)
			}
			if bound := 2 * (sparseFactor*(entries/runLen+1) + sparseSlack); most > bound {
				t.Errorf("%d runs for %d entries, want at most %d", most, entries, bound)
			}
		})
	}
}

// TestEvictionIsExactLRU: with one class, a cache evicts what a list of
// its keys in order of use would.
func TestEvictionIsExactLRU(t *testing.T) {
	const slots = 512
	c := openTest(t, Config{Capacity: slots * PageSize, Classes: []int{PageSize}, SlabSize: 8 * PageSize})
	var want []block.Key
	model, err := simplelru.NewLRU(slots, func(k block.Key, _ int) { want = append(want, k) })
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(2, 3))
	for step := range 100_000 {
		i := rng.IntN(800)
		key := keyOf(i)
		want = want[:0]
		var got []block.Key
		switch op := rng.IntN(20); {
		case op == 0:
			if c.Delete(key) != model.Contains(key) {
				t.Fatalf("step %d: Delete disagrees", step)
			}
			model.Remove(key)
			want = want[:0]
		case model.Contains(key) && op < 10:
			if _, err := c.Get(context.Background(), key, make([]byte, 64)); err != nil {
				t.Fatal(err)
			}
			model.Get(key)
		case model.Contains(key):
			v, err := c.View(key)
			if err != nil {
				t.Fatal(err)
			}
			v.Release()
			model.Get(key)
		default:
			got = put(t, c, i, 64)
			model.Add(key, 0)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("step %d: evicted %v, want %v", step, got, want)
		}
	}
	if c.Stats().Evictions < 1000 {
		t.Fatalf("only %d evictions: the test tests nothing", c.Stats().Evictions)
	}
	checkInvariants(t, c)
}
