package router

import (
	"cmp"
	"math"
	"slices"
)

// ranking is the candidates of a request and their order. It is used again by another
// request, so that a thousand nodes cost no allocation, and no moves when they are sorted.
type ranking struct {
	nodes []Candidate // by name
	order []place     // the best first
}

// place is what a candidate is sorted by, and where in nodes it is.
type place struct {
	cost     int64 // rounded
	assigned uint64
	at       int32
}

// sort puts all nodes in order: of those that cost the same, the one that was sent the fewest
// requests, then the first by name.
func (k *ranking) sort() {
	k.order = k.order[:0]
	for i := range k.nodes {
		c := &k.nodes[i]
		k.order = append(k.order, place{roundCost(c.Cost), c.Assigned, int32(i)})
	}
	slices.SortFunc(k.order, func(a, b place) int {
		if a.cost != b.cost {
			return cmp.Compare(a.cost, b.cost)
		}
		if a.assigned != b.assigned {
			return cmp.Compare(a.assigned, b.assigned)
		}
		return cmp.Compare(a.at, b.at)
	})
}

// get is the candidate at place i of the order.
func (k *ranking) get(i int) *Candidate { return &k.nodes[k.order[i].at] }

// toFront makes the candidate at place i the first; the others keep their order.
func (k *ranking) toFront(i int) {
	chosen := k.order[i]
	copy(k.order[1:i+1], k.order[:i])
	k.order[0] = chosen
}

// first is a copy of the first so many candidates; 0 means of all.
func (k *ranking) first(limit int) []Candidate {
	n := len(k.order)
	if limit > 0 {
		n = min(n, limit)
	}
	list := make([]Candidate, n)
	for i := range list {
		list[i] = *k.get(i)
	}
	return list
}

// sample is the place of the candidate to take. r.mu is held.
func (r *Router) sample(k *ranking) int {
	if r.config.Temperature == 0 {
		return 0
	}
	least := k.get(0).Cost
	weight := func(i int) float64 { return math.Exp((least - k.get(i).Cost) / r.config.Temperature) }
	var sum float64
	for i := range k.order {
		sum += weight(i)
	}
	at := r.rng.Float64() * sum
	for i := range k.order {
		if at -= weight(i); at < 0 {
			return i
		}
	}
	return 0
}

// roundCost makes costs that differ by less than a microsecond equal, so that
// ties are ties.
func roundCost(seconds float64) int64 { return int64(math.Round(seconds * 1e6)) }
