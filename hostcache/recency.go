package hostcache

import (
	"math"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// runLen is how many uses a run records.
	runLen = 256
	// mergeStep is how many runs are looked at for merging each time a run
	// fills up: more than one, so that merging outpaces filling.
	mergeStep = 4
	// sparseFactor and sparseSlack say when merging starts: with more runs
	// than sparseFactor times the runs needed, plus sparseSlack.
	sparseFactor = 4
	sparseSlack  = 16
)

// run is a part of the order of use: entry numbers, oldest first. The entry at
// index i is live when it says that it is in this run at i; otherwise it
// was used again later, or left.
type run struct {
	id   uint32 // unique over all classes: an entry may come back in another one
	head int    // entries before it are stale
	live int
	ids  []uint32
}

// recency is the exact order of use of the entries of one class. Each entry
// in it is live in exactly one run; golang-lru orders the runs, newest first,
// and finds the run of an entry.
type recency struct {
	entries *table // shared with the other classes
	runs    *simplelru.LRU[uint32, *run]
	newest  *run
	live    int
	spare   *run

	// The merge under way: the ids of runs still to be looked at, oldest first, and
	// the run that the next one may be merged into.
	pass []uint32
	into uint32
}

func newRecency(entries *table) (*recency, error) {
	runs, err := simplelru.NewLRU[uint32, *run](math.MaxInt, nil)
	if err != nil {
		return nil, err
	}
	r := &recency{entries: entries, runs: runs}
	r.grow()
	return r, nil
}

// touch makes id the most recently used.
func (r *recency) touch(id uint32) {
	e := r.entries.at(id)
	if e.run == r.newest.id && int(e.pos) == len(r.newest.ids)-1 {
		return
	}
	r.drop(id)
	if len(r.newest.ids) == runLen {
		r.rotate()
	}
	e.run, e.pos = r.newest.id, uint16(len(r.newest.ids))
	r.newest.ids = append(r.newest.ids, id)
	r.newest.live++
	r.live++
}

// drop takes id out of the order, if it is in it.
func (r *recency) drop(id uint32) {
	e := r.entries.at(id)
	if e.run == 0 {
		return
	}
	in := r.newest
	if e.run != in.id {
		in, _ = r.runs.Peek(e.run)
	}
	e.run = 0
	in.live--
	r.live--
	if in.live == 0 && in != r.newest {
		r.remove(in)
	}
}

// replace puts id, which is out of the order, into the place of old, which leaves it. It
// reports false when old was out of it.
func (r *recency) replace(old, id uint32) bool {
	o, e := r.entries.at(old), r.entries.at(id)
	if o.run == 0 {
		return false
	}
	in := r.newest
	if o.run != in.id {
		in, _ = r.runs.Peek(o.run)
	}
	in.ids[o.pos] = id
	e.run, e.pos, o.run = o.run, o.pos, 0
	return true
}

// oldest is the least recently used entry.
func (r *recency) oldest() (id uint32, ok bool) {
	for r.live > 0 {
		_, in, _ := r.runs.GetOldest()
		for ; in.head < len(in.ids); in.head++ {
			if r.current(in, in.head) {
				return in.ids[in.head], true
			}
		}
	}
	return 0, false
}

func (r *recency) current(in *run, i int) bool {
	e := r.entries.at(in.ids[i])
	return e.run == in.id && int(e.pos) == i
}

// rotate closes the newest run and opens another.
func (r *recency) rotate() {
	if r.newest.live == 0 {
		r.remove(r.newest)
	}
	r.merge()
	r.grow()
}

func (r *recency) grow() {
	runID := r.entries.nextRun()
	n := r.spare
	r.spare = nil
	if n == nil {
		n = &run{ids: make([]uint32, 0, runLen)}
	}
	*n = run{id: runID, ids: n.ids[:0]}
	r.runs.Add(n.id, n)
	r.newest = n
}

func (r *recency) remove(in *run) {
	r.runs.Remove(in.id)
	r.spare = in
}

// merge does a bounded part of joining sparse runs with their neighbours. New
// runs only ever appear at the newest end, so two runs that follow each other in
// the pass have nothing between them.
func (r *recency) merge() {
	if len(r.pass) == 0 {
		if r.runs.Len() <= sparseFactor*(r.live/runLen)+sparseSlack {
			return
		}
		r.pass, r.into = r.runs.Keys(), 0
	}
	n := min(mergeStep, len(r.pass))
	for _, id := range r.pass[:n] {
		from, ok := r.runs.Peek(id)
		if !ok {
			continue
		}
		into, ok := r.runs.Peek(r.into)
		if !ok || into.live+from.live > runLen {
			r.into = id
			continue
		}
		if len(into.ids)+from.live > runLen {
			kept := into.ids[:0]
			for i := into.head; i < len(into.ids); i++ {
				if r.current(into, i) {
					kept = r.move(kept, into.ids[i], into.id)
				}
			}
			into.ids, into.head = kept, 0
		}
		for i := from.head; i < len(from.ids); i++ {
			if r.current(from, i) {
				into.ids = r.move(into.ids, from.ids[i], into.id)
			}
		}
		into.live += from.live
		r.remove(from)
	}
	if r.pass = r.pass[n:]; len(r.pass) == 0 {
		r.pass = nil
	}
}

// move appends an entry to the entries of the run named.
func (r *recency) move(ids []uint32, id, run uint32) []uint32 {
	e := r.entries.at(id)
	e.run, e.pos = run, uint16(len(ids))
	return append(ids, id)
}
