package protocol

import (
	"fmt"
	"strings"
	"time"
)

// visited is a set of hashes, in a table that grows.
type visited struct {
	table []uint64
	count int
	zero  bool
}

func newVisited() *visited { return &visited{table: make([]uint64, 1<<12)} }

// add tells whether the hash was not there before.
func (v *visited) add(h uint64) bool {
	if h == 0 {
		was := v.zero
		v.zero = true
		return !was
	}
	if v.count*4 >= len(v.table)*3 {
		old := v.table
		v.table = make([]uint64, 2*len(old))
		for _, x := range old {
			if x != 0 {
				v.table[v.slot(x)] = x
			}
		}
	}
	i := v.slot(h)
	if v.table[i] == h {
		return false
	}
	v.table[i] = h
	v.count++
	return true
}

// slot is where the hash is, or would be.
func (v *visited) slot(h uint64) int {
	mask := uint64(len(v.table) - 1)
	i := h & mask
	for v.table[i] != 0 && v.table[i] != h {
		i = (i + 1) & mask
	}
	return int(i)
}

// frame is a state on the path that is being searched, and what may happen there.
type frame struct {
	u     *universe
	moves []move
	next  int
}

// result is what a search has found.
type result struct {
	states, transitions, rests, depth int
	cut                               int // states after which it did not go on: the log was too long
	took                              time.Duration
	complete                          bool
	err                               error
	path                              []move // to the error
	settling                          bool   // the error came when the cluster settled
}

// longest is how many messages the log of a state may have that is searched on from.
const longest = 100

// search goes through all states that can be reached, depth first, each once. Only the path
// that leads to the present state is kept, and the hashes of all. It ends early
// after most states, at the deadline, or at the first error. seed changes in which
// order the moves of a state are tried. total gets the hashes too.
func (in *instance) search(most int, deadline time.Time, seed uint64, total *visited) (r result) {
	started := time.Now()
	defer func() { r.took = time.Since(started) }()
	seen := newVisited()
	h := &hasher{}
	first := in.setup()
	path := []frame{{u: first}}
	if first.err != nil {
		r.err = first.err
		return r
	}
	total.add(first.hash(h))
	seen.add(first.hash(h))
	path[0].moves = shuffled(first.moves(nil), seed)
	for len(path) > 0 {
		r.depth = max(r.depth, len(path)-1)
		f := &path[len(path)-1]
		if f.next == 0 && atRest(f.moves) {
			r.rests++
			if end := f.u.settle(); end.err != nil {
				r.err, r.settling = end.err, true
				r.path = pathOf(path)
				return r
			}
		}
		if f.next == len(f.moves) {
			path[len(path)-1] = frame{moves: f.moves[:0]}
			path = path[:len(path)-1]
			continue
		}
		m := f.moves[f.next]
		f.next++
		u := f.u.make(m)
		r.transitions++
		if u.err != nil {
			r.err = u.err
			r.path = pathOf(path)
			return r
		}
		hash := u.hash(h)
		if !seen.add(hash) {
			continue
		}
		total.add(hash)
		if len(u.log) > longest {
			r.cut++
			continue
		}
		r.states = seen.count
		if seen.count >= most || seen.count&1023 == 0 && time.Now().After(deadline) {
			return r
		}
		var spare []move
		if len(path) < cap(path) {
			spare = path[:len(path)+1][len(path)].moves[:0]
		}
		path = append(path, frame{u: u, moves: shuffled(u.moves(spare), seed^hash)})
	}
	r.complete = r.cut == 0
	return r
}

// explore is several searches of at most some states each, which go different ways
// from the start, and then, if there is time, one that tries to be complete: one that
// is not sees only the ways that begin as its first.
func (in *instance) explore(each, times int, complete bool, limit time.Duration) (sum result) {
	started := time.Now()
	total := newVisited()
	add := func(r result) {
		sum.transitions += r.transitions
		sum.rests += r.rests
		sum.cut = max(sum.cut, r.cut)
		sum.depth = max(sum.depth, r.depth)
		sum.states = total.count
		sum.complete, sum.err, sum.path, sum.settling = r.complete, r.err, r.path, r.settling
		sum.took = time.Since(started)
	}
	for i := range times {
		add(in.search(each, started.Add(limit/2), uint64(i), total))
		if sum.err != nil || sum.complete || time.Since(started) > limit/2 {
			break
		}
	}
	if complete && sum.err == nil && !sum.complete {
		add(in.search(1<<40, started.Add(limit), 1, total))
	}
	return sum
}

// shuffled changes the order of a list.
func shuffled(list []move, seed uint64) []move {
	for i := len(list) - 1; i > 0; i-- {
		seed = mix(seed)
		j := int(seed % uint64(i+1))
		list[i], list[j] = list[j], list[i]
	}
	return list
}

// atRest tells whether nothing has to happen any more.
func atRest(list []move) bool {
	for _, m := range list {
		if m.must() {
			return false
		}
	}
	return true
}

func pathOf(path []frame) []move {
	var list []move
	for _, f := range path {
		if f.next > 0 {
			list = append(list, f.moves[f.next-1])
		}
	}
	return list
}

// replay goes along a path, leaving out what is not possible, and settles the cluster at
// its end if that is where the error was.
func (in *instance) replay(path []move, settling bool, say func(string, ...any)) (*universe, []move) {
	u := in.setup()
	u.say = say
	var taken []move
	var list []move
	for _, m := range path {
		list = u.moves(list[:0])
		possible := false
		for _, l := range list {
			possible = possible || l == m
		}
		if !possible {
			continue
		}
		taken = append(taken, m)
		if say != nil {
			say("%v", m)
		}
		u = u.make(m)
		if u.err != nil {
			return u, taken
		}
	}
	if settling {
		if say != nil {
			say("the cluster settles")
		}
		u = u.settle()
	}
	return u, taken
}

// shrink leaves out of a path what the error does not need.
func (in *instance) shrink(path []move, settling bool) []move {
	invariant := func(err error) string {
		before, _, _ := strings.Cut(err.Error(), ":")
		return before
	}
	u, path := in.replay(path, settling, nil)
	if u.err == nil {
		return path
	}
	want := invariant(u.err)
	for size := max(len(path)/2, 1); ; {
		smaller := false
		for at := 0; at+size <= len(path); {
			try := append(append([]move(nil), path[:at]...), path[at+size:]...)
			u, taken := in.replay(try, settling, nil)
			if u.err != nil && invariant(u.err) == want && len(taken) < len(path) {
				path, smaller = taken, true
				continue
			}
			at++
		}
		if size == 1 && !smaller {
			return path
		}
		if !smaller || size > len(path) {
			size = max(size/2, 1)
		}
	}
}

// trace is a short path to the error, for people.
func (in *instance) trace(r result) string {
	path := in.shrink(r.path, r.settling)
	var s strings.Builder
	u, _ := in.replay(path, r.settling, func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) })
	fmt.Fprintf(&s, "=> %v\n", u.err)
	if s.Len() > 20000 {
		return s.String()[:14000] + "\n…\n" + s.String()[s.Len()-6000:]
	}
	return s.String()
}
