package eviction

import "time"

// ghosts remembers blocks that were evicted. It is a table of sets; a set that is full
// forgets the block that was used longest ago.
type ghosts struct {
	sets  []ghostSet
	n     int
	hand  int // the next set to sweep
	most  int // sets at most
	ratio int
}

const (
	ways = 8
	// ghostTick is the resolution of a ghost's time; 32 bits of it are 8 years.
	ghostTick = time.Second / 16
)

type ghostSet [ways]ghost

// ghost has 16 bytes.
type ghost struct {
	key   uint64 // fingerprint; 0 is nobody
	at    uint32 // last use, in ticks
	spell spell
	count uint8
}

func newGhosts(ratio, most int) ghosts {
	g := ghosts{ratio: ratio, most: powerOfTwo(most / ways)}
	if ratio > 0 && most > 0 {
		g.sets = make([]ghostSet, min(8, g.most))
	}
	return g
}

// powerOfTwo is the largest one up to n, at least 1.
func powerOfTwo(n int) int {
	p := 1
	for p*2 <= n {
		p *= 2
	}
	return p
}

func (g *ghosts) set(key uint64) *ghostSet {
	return &g.sets[(key>>32^key)&uint64(len(g.sets)-1)]
}

// take finds a ghost and forgets it.
func (g *ghosts) take(key uint64) (ghost, bool) {
	if len(g.sets) == 0 {
		return ghost{}, false
	}
	set := g.set(key)
	for i := range set {
		if set[i].key == key {
			found := set[i]
			set[i] = ghost{}
			g.n--
			return found, true
		}
	}
	return ghost{}, false
}

// add remembers a block.
func (g *ghosts) add(new ghost) {
	if len(g.sets) == 0 {
		return
	}
	set := g.set(new.key)
	place := &set[0]
	for i := range set {
		w := &set[i]
		if w.key == 0 || w.key == new.key {
			place = w
			break
		}
		if w.at < place.at {
			place = w
		}
	}
	if place.key == 0 {
		g.n++
	}
	*place = new
}

// fit lets the table grow with the number of blocks in the store.
func (g *ghosts) fit(blocks int) {
	for len(g.sets) > 0 && len(g.sets) < g.most && len(g.sets)*ways < blocks*g.ratio {
		old := g.sets
		g.sets, g.n, g.hand = make([]ghostSet, 2*len(old)), 0, 0
		for i := range old {
			for _, w := range old[i] {
				if w.key != 0 {
					g.add(w)
				}
			}
		}
	}
}

// sweep settles the ghosts of one set; it reports whether that was the last one.
func (g *ghosts) sweep(l *learner, now time.Duration) (done bool) {
	if g.hand >= len(g.sets) {
		g.hand = 0
		return true
	}
	set := &g.sets[g.hand]
	for i := range set {
		if w := &set[i]; w.key != 0 {
			l.settle(&w.spell, now-w.time())
		}
	}
	g.hand++
	return false
}

func (w *ghost) time() time.Duration { return time.Duration(w.at) * ghostTick }
