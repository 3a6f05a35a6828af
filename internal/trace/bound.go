package trace

import "iter"

// Bound counts what a cache that never forgets would find: no cache of a finite
// size does better on the same requests in the same order. The zero value is
// ready to use; it is for one goroutine.
type Bound struct {
	// Requests, References (of blocks) and Distinct (blocks) are what has been added.
	Requests, References, Distinct int
	// Hits is how many references continued a prefix whose blocks had all been
	// seen in earlier requests.
	Hits int

	seen map[place]struct{}
}

// place is a block of a trace: replay gives the same id at another position
// another key.
type place struct {
	id       uint64
	position int
}

// Add counts the next request and returns how many of its leading blocks earlier
// requests had. Call it after every request for the ratio over time.
func (b *Bound) Add(r Request) (prefix int) {
	if b.seen == nil {
		b.seen = map[place]struct{}{}
	}
	b.Requests++
	b.References += len(r.IDs)
	for prefix < len(r.IDs) {
		if _, ok := b.seen[place{r.IDs[prefix], prefix}]; !ok {
			break
		}
		prefix++
	}
	b.Hits += prefix
	for i := prefix; i < len(r.IDs); i++ {
		b.seen[place{r.IDs[i], i}] = struct{}{}
	}
	b.Distinct = len(b.seen)
	return prefix
}

// Ratio is the share of references that are hits, 0 to 1.
func (b *Bound) Ratio() float64 {
	if b.References == 0 {
		return 0
	}
	return float64(b.Hits) / float64(b.References)
}

// Measure is the bound of a whole trace. On an error it is the bound of what came
// before it.
func Measure(requests iter.Seq2[Request, error]) (Bound, error) {
	var b Bound
	for r, err := range requests {
		if err != nil {
			return b, err
		}
		b.Add(r)
	}
	return b, nil
}
