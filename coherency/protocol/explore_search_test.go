package protocol

import (
	"fmt"
	"strings"
	"time"

	"cairn/coherency/ledger"
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

// tell says which event a node gets.
func (u *universe) tell(i int, e Event) {
	text := fmt.Sprintf("%T", e)[len("protocol."):]
	switch e := e.(type) {
	case Delivered:
		text = fmt.Sprintf("gets %d: %s/%d.%d %s", e.Sequence, e.Message.Node, e.Message.Incarnation, e.Message.Number, describe(e.Message))
	case Write:
		text = fmt.Sprintf("Write op %d %v if %d expect %s", e.Op, e.Policy, e.If, versionText(e.Expect))
	case Read:
		text = fmt.Sprintf("Read op %d level %d token %s refused %s", e.Op, e.Level, versionText(e.Token), versionText(e.Refused))
	case Staged:
		text = fmt.Sprintf("Staged op %#x failed %v", uint64(e.Op), e.Failed)
	case Arrived:
		text = fmt.Sprintf("Arrived object %d of %s/%d token %s", u.in.objectOf(e.Value.Object), e.Author, e.Incarnation, versionText(e.Token))
	case Found:
		text = fmt.Sprintf("Found %v %s value %d complete %v", e.Any, versionText(e.Version), e.Value.Sum, e.Complete)
	}
	u.say("  %s at %v: %s", u.in.nodes[i], u.now, text)
}

func versionText(v ledger.Version) string {
	return fmt.Sprintf("%d+%d", v.Place().Sequence(), v.Place().Index())
}

func (u *universe) tellEffect(i int, eff Effect) {
	text := fmt.Sprintf("%T", eff)[len("protocol."):]
	switch e := eff.(type) {
	case Publish:
		text = fmt.Sprintf("Publish %d.%d: %s", e.Message.Incarnation, e.Message.Number, describe(e.Message))
	case Reply:
		text = fmt.Sprintf("Reply op %d: %v, before %d, after %d (%s)", e.Op, e.Err, e.Before.Value.Sum, e.After.Value.Sum, versionText(e.After.Version))
	case Serve:
		text = fmt.Sprintf("Serve op %d: %d (%s)", e.Op, e.Pointer.Value.Sum, versionText(e.Pointer.Version))
	case Forward:
		text = fmt.Sprintf("Forward op %d to %s, token %s", e.Op, e.Node, versionText(e.Token))
	case Stage:
		text = fmt.Sprintf("Stage op %#x object %d at %v, token %s", uint64(e.Op), u.in.objectOf(e.Value.Object), e.Homes, versionText(e.Token))
	case Collect:
		text = fmt.Sprintf("Collect %d", u.in.objectOf(e.Object))
	case Local:
		text = fmt.Sprintf("Local value %d (%s), drop %d", e.Value.Sum, versionText(e.Version), u.in.objectOf(e.Drop))
	case LocalGone:
		text = fmt.Sprintf("LocalGone, drop %d", u.in.objectOf(e.Drop))
	case Moved:
		text = fmt.Sprintf("Moved %v: %d (%s) to %d (%s), token %s", e.Kind, e.Before.Value.Sum, versionText(e.Before.Version),
			e.After.Value.Sum, versionText(e.After.Version), versionText(e.After.Token))
	case Replicate:
		text = fmt.Sprintf("Replicate object %d to %v", u.in.objectOf(e.Value.Object), e.To)
	}
	u.say("    %s: %s", u.in.nodes[i], text)
}

func recordDetail(s *strings.Builder, r *ledger.Record) {
	switch r.Kind {
	case ledger.Commit, ledger.Own:
		fmt.Fprintf(s, " value %d if %d", r.Value.Sum, r.If)
	case ledger.Flush, ledger.Revoke:
		fmt.Fprintf(s, " token %s version %s value %d flags %#x", versionText(r.Token), versionText(r.Version), r.Value.Sum, uint8(r.Flags))
	case ledger.Recall:
		fmt.Fprintf(s, " token %s", versionText(r.Token))
	case ledger.Expire:
		fmt.Fprintf(s, " %s/%d last %d", r.Member, r.Incarnation, r.Sequence)
	case ledger.Rehome:
		fmt.Fprintf(s, " version %s homes %v", versionText(r.Version), r.Value.Homes)
	}
}
