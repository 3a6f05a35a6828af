package coherency

import (
	"errors"
	"math/rand/v2"
	"testing"

	"cairn/block"
)

// world is one block with its bytes: what each tier really holds, as the number
// of the write that made it, beside the State that is supposed to know. It checks
// the invariants of the package comment after each step.
type world struct {
	t       *testing.T
	s       State
	bytes   [block.Tiers]Version
	safe    Version // what home holds durably
	newest  Version
	set     block.TierMask // what the last WriteAll still wants, besides home
	copies  []moving       // every copy begun, ended ones included: they may come back
	lost    int            // losses that were reported
	commits int
}

type moving struct {
	Copy
	read  Version // what the source held when the copy began
	ended bool
}

func newWorld(t *testing.T, at, home block.Tier) *world {
	w := &world{t: t, s: made(t, at, home), newest: 1}
	w.bytes[at] = 1
	if at == home {
		w.safe = 1
	}
	return w
}

// step takes one operation from two bytes.
func (w *world) step(op, arg byte) {
	tier := block.Tier(arg % block.Tiers)
	before := w.s
	failed := false
	switch op % 8 {
	case 0, 1:
		failed = !w.write(tier, WritePolicy(arg>>2%policies), arg>>5 == 7)
	case 2:
		c, err := w.s.Begin(tier)
		if failed = err != nil; !failed {
			w.begun(c)
		}
	case 3, 4:
		failed = !w.commit(int(arg))
	case 5:
		if n := len(w.copies); n > 0 {
			c := &w.copies[int(arg)%n]
			if w.s.current(c.Copy) {
				w.set = w.set.Without(c.To)
			}
			w.s.Abort(c.Copy)
			c.ended = true
		}
	case 6:
		failed = !w.invalidate(tier)
	case 7:
		w.remove(tier, arg&0x40 != 0)
	}
	if failed && w.s != before {
		w.t.Fatalf("B5: operation %d(%d) failed and changed\n%+v to\n%+v", op%8, arg, before, w.s)
	}
	w.check()
}

func (w *world) begun(copies ...Copy) {
	for _, c := range copies {
		if w.bytes[c.From] != w.newest || c.Version != w.newest {
			w.t.Fatalf("copy %+v of version %d, the newest is %d", c, w.bytes[c.From], w.newest)
		}
		for _, other := range w.copies {
			if !other.ended && other.To == c.To && w.s.current(other.Copy) {
				w.t.Fatalf("B8: two copies in flight to %s", c.To)
			}
		}
		w.copies = append(w.copies, moving{Copy: c, read: w.bytes[c.From]})
	}
}

func (w *world) write(t block.Tier, p WritePolicy, blind bool) bool {
	expect := w.newest
	if blind {
		expect--
	}
	asked := w.s.Valid().Union(w.set).Without(t).Without(w.s.Home())
	v, copies, err := w.s.Write(t, p, expect)
	if err != nil {
		if !errors.Is(err, ErrConflict) && !(p == WriteAll && errors.Is(err, ErrNoCopy)) {
			w.t.Fatalf("write: %v", err)
		}
		return false
	}
	if blind || v != w.newest+1 {
		w.t.Fatalf("B5: version %d after %d, expected %d", v, w.newest, expect)
	}
	if p == WriteBack && len(copies) != 0 || p != WriteBack && (len(copies) == 0 || copies[0].To != w.s.Home()) {
		w.t.Fatalf("%s asks for %v", p, copies)
	}
	w.newest = v
	w.bytes[t] = v
	if w.set = 0; p == WriteAll {
		w.set = asked
	}
	if p != WriteBack && len(copies) != 1+w.set.Count() {
		w.t.Fatalf("%s to %s asks for %v, want home and %s", p, t, copies, w.set)
	}
	w.begun(copies...)
	return true
}

// commit ends some copy, perhaps one that had ended already. The bytes that arrive
// are those that the source has by now, or had at the start: both must be right.
func (w *world) commit(i int) bool {
	if len(w.copies) == 0 {
		return true
	}
	c := &w.copies[i%len(w.copies)]
	ended := c.ended
	c.ended = true
	if err := w.s.Commit(c.Copy); err != nil {
		if !errors.Is(err, ErrStale) {
			w.t.Fatalf("commit: %v", err)
		}
		return false
	}
	if ended || c.read != w.newest || w.bytes[c.From] != w.newest {
		w.t.Fatalf("B4: commit of %+v, ended before: %v; source has %d, the newest is %d", *c, ended, w.bytes[c.From], w.newest)
	}
	w.commits++
	w.set = w.set.Without(c.To)
	w.bytes[c.To] = c.read
	if c.To == w.s.Home() {
		w.safe = c.read
	}
	return true
}

// last tells whether t has the only copy of the newest bytes.
func (w *world) last(t block.Tier) bool {
	for u, v := range w.bytes {
		if v == w.newest && block.Tier(u) != t {
			return false
		}
	}
	return w.bytes[t] == w.newest
}

func (w *world) invalidate(t block.Tier) bool {
	last := w.last(t)
	err := w.s.Invalidate(t)
	switch {
	case errors.Is(err, ErrNoCopy):
		if w.bytes[t] != 0 {
			w.t.Fatalf("invalidate %s: %v, but it holds version %d", t, err, w.bytes[t])
		}
		return false
	case last != errors.Is(err, ErrLastCopy):
		w.t.Fatalf("B6: invalidate %s, last copy %v: %v", t, last, err)
	case err != nil && errors.Is(err, ErrLastDirtyCopy) == (w.safe == w.newest):
		w.t.Fatalf("invalidate %s: %v, but home is safe with %d of %d", t, err, w.safe, w.newest)
	case err != nil:
		return false
	}
	w.forget(t)
	return true
}

func (w *world) remove(t block.Tier, discard bool) {
	last, unsafe := w.last(t), w.safe != w.newest
	lost := false
	if discard {
		lost = w.s.Discard(t)
	} else {
		var gone bool
		if gone, lost = w.s.Evicted(t); gone != w.s.Gone() {
			w.t.Fatalf("B6: evicted answers gone %v", gone)
		}
	}
	if lost != (last && unsafe) {
		w.t.Fatalf("B6: lost %v; last copy %v, home unsafe %v", lost, last, unsafe)
	}
	if lost {
		w.lost++
	}
	w.forget(t)
}

func (w *world) forget(t block.Tier) {
	w.bytes[t] = 0
	w.set = w.set.Without(t)
	if t == w.s.Home() {
		w.safe = 0
	}
}

func (w *world) check() {
	var valid, stale block.TierMask
	for t, v := range w.bytes {
		if v == w.newest {
			valid = valid.With(block.Tier(t))
		} else if v != 0 {
			stale = stale.With(block.Tier(t))
		}
	}
	s, safe := w.s, w.safe == w.newest
	owner, owned := s.Owner()
	switch {
	case s.Valid() != valid || s.Stale() != stale:
		w.t.Fatalf("B1: valid %s, stale %s; the bytes say %s, %s", s.Valid(), s.Stale(), valid, stale)
	case s.Durable() != safe || s.Dirty().Any() != (valid.Any() && !safe):
		w.t.Fatalf("B2: durable %v, dirty %s; home has %d of %d", s.Durable(), s.Dirty(), w.safe, w.newest)
	case owned != valid.Any() || owned && !valid.Has(owner):
		w.t.Fatalf("B3: owner %s (%v), valid %s", owner, owned, valid)
	case s.Gone() == valid.Any():
		w.t.Fatalf("B7: gone %v, valid %s", s.Gone(), valid)
	case s.Version() != w.newest:
		w.t.Fatalf("B5: version %d, want %d", s.Version(), w.newest)
	case s.NeedsSync().Has(s.Home()) != s.Dirty().Any():
		w.t.Fatalf("needs %s, dirty %s", s.NeedsSync(), s.Dirty())
	case valid.Any() && s.NeedsSync().Without(s.Home()) != w.set:
		w.t.Fatalf("needs %s; the set lacks %s", s.NeedsSync(), w.set)
	}
}

// settle copies whatever is needed: then nothing is, and the block is clean.
func (w *world) settle() {
	for i := range w.copies {
		c := &w.copies[i]
		if w.s.current(c.Copy) {
			w.set = w.set.Without(c.To)
		}
		w.s.Abort(c.Copy)
		c.ended = true
	}
	for to := range w.s.NeedsSync().All() {
		c, err := w.s.Begin(to)
		if err != nil {
			w.t.Fatalf("needs %s: %v", to, err)
		}
		w.begun(c)
		w.commit(len(w.copies) - 1)
		w.check()
	}
	if w.s.NeedsSync().Any() || w.s.Dirty().Any() || !w.s.Gone() && !w.s.Durable() {
		w.t.Fatalf("after all syncs: needs %s, dirty %s", w.s.NeedsSync(), w.s.Dirty())
	}
}

func TestInvariantsAtRandom(t *testing.T) {
	const runs, length = 2000, 60
	r := rand.New(rand.NewPCG(1, 2))
	lost, commits := 0, 0
	for range runs {
		w := newWorld(t, block.Tier(r.IntN(block.Tiers)), block.Tier(1+r.IntN(2)))
		for range length {
			w.step(byte(r.Uint32()), byte(r.Uint32()))
		}
		w.settle()
		lost += w.lost
		commits += w.commits
	}
	if lost == 0 || commits == 0 {
		t.Errorf("%d losses, %d commits: the walk does not reach them", lost, commits)
	}
	t.Logf("%d steps, %d copies committed, %d losses reported", runs*length, commits, lost)
}

// FuzzState reads a sequence of operations from the input.
func FuzzState(f *testing.F) {
	f.Add([]byte{0, 1, 3, 0})
	f.Add([]byte{2, 0, 2, 2, 3, 0, 0, 8, 3, 1, 3, 2, 6, 0, 7, 0})
	f.Add([]byte{1, 0, 0, 0, 2, 1, 7, 0, 3, 0, 7, 65})
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < 2 || len(p) > 1<<12 {
			return
		}
		w := newWorld(t, block.Tier(p[0]%block.Tiers), block.Tier(1+p[1]%2))
		for p = p[2:]; len(p) >= 2; p = p[2:] {
			w.step(p[0], p[1])
		}
		w.settle()
	})
}
