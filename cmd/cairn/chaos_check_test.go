package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"cairn/client"

	"github.com/anishathalye/porcupine"
)

// chaosSearch bounds the search for the linearization of one block.
const chaosSearch = 30 * time.Second

// violation is a promise that a history breaks.
type violation struct {
	key  int
	text string
	// info and model show a search for a linearization that found none.
	info *porcupine.LinearizationInfo
}

// checker judges a history.
type checker struct {
	h          *chaosHistory
	violations []violation
	// lost counts acknowledged write-back writes that a declared loss has undone.
	lost int
}

// keyFacts is what all answers together tell about one block.
type keyFacts struct {
	key      int
	ops      []*chaosOp
	losses   []*chaosLoss
	valueAt  map[client.Version]int64
	madeAt   map[int64]client.Version // by value: the version that its write made
	seen     map[int64]time.Duration  // by value: the end of the first strict read of it
	observed map[int64]bool
	writer   map[int64]*chaosOp
}

func (c *checker) fail(key int, format string, args ...any) {
	c.violations = append(c.violations, violation{key: key, text: c.h.Keys[key].String() + ": " + fmt.Sprintf(format, args...)})
}

// checkHistory finds everything that the history breaks.
func checkHistory(h *chaosHistory) *checker {
	c := &checker{h: h}
	byKey := make([][]*chaosOp, len(h.Keys))
	for i := range h.Ops {
		o := &h.Ops[i]
		byKey[o.Key] = append(byKey[o.Key], o)
	}
	for key, ops := range byKey {
		f := c.facts(key, ops)
		c.durable(f)
		c.sessions(f)
		c.local(f)
		c.everywhere(f)
		c.linearizable(f)
	}
	return c
}

// facts gathers what is known, and finds contradictions: a version with two values, a
// value with two versions, a value that cannot be.
func (c *checker) facts(key int, ops []*chaosOp) *keyFacts {
	f := &keyFacts{key: key, ops: ops, valueAt: map[client.Version]int64{}, madeAt: map[int64]client.Version{},
		seen: map[int64]time.Duration{}, observed: map[int64]bool{}, writer: map[int64]*chaosOp{}}
	lossAt := map[client.Version]bool{}
	for i := range c.h.Losses {
		if l := &c.h.Losses[i]; l.Key == key {
			f.losses = append(f.losses, l)
			lossAt[l.Version] = true
		}
	}
	for _, o := range ops {
		if o.Kind.writes() && o.Kind != del {
			f.writer[o.Value] = o
		}
	}
	for _, o := range ops {
		if o.Outcome != done || o.Version == 0 {
			continue
		}
		if v, known := f.valueAt[o.Version]; known && v != o.Value {
			c.fail(key, "version %s is value %d and value %d", o.Version, v, o.Value)
		}
		f.valueAt[o.Version] = o.Value
		if lossAt[o.Version] {
			continue
		}
		if v, known := f.madeAt[o.Value]; known && v != o.Version {
			c.fail(key, "value %d has version %s and version %s: it was written twice", o.Value, v, o.Version)
		}
		f.madeAt[o.Value] = o.Version
	}
	for _, o := range ops {
		if o.Kind == cas && o.Outcome == refused && o.Version != 0 && o.Version <= o.Expect {
			c.fail(key, "a change that expected version %s was refused because of %s", o.Expect, o.Version)
		}
		if o.Kind.writes() || o.Outcome != done || o.Value == 0 {
			continue
		}
		w := f.writer[o.Value]
		switch {
		case w == nil:
			c.fail(key, "value %d was read, and written to another block", o.Value)
		case w.Outcome == failed, w.Outcome == refused:
			c.fail(key, "value %d was read at %v at %s; its write was %s: %s", o.Value, o.Return, c.h.Nodes[o.Node], w.Outcome, w.Err)
		case w.Call > o.Return:
			c.fail(key, "value %d was read before it was written", o.Value)
		}
		f.observed[o.Value] = true
		if first, before := f.seen[o.Value]; o.Kind == readStrict && (!before || o.Return < first) {
			f.seen[o.Value] = o.Return
		}
	}
	return f
}

// durable: no loss goes back beyond an acknowledged write that was to be durable, or that a
// barrier has made so.
func (c *checker) durable(f *keyFacts) {
	for _, l := range f.losses {
		before, known := f.valueAt[l.Base]
		if after, read := f.valueAt[l.Version]; known && read && !l.Replaced && before != after {
			c.fail(f.key, "a loss at %s, back to %s, gave value %d, not %d", l.Version, l.Base, after, before)
		}
		for _, o := range f.ops {
			v := f.madeAt[o.Value]
			if !o.Kind.writes() || o.Kind == del || o.Outcome != done || v <= l.Base || v >= l.Version {
				continue
			}
			switch {
			case o.Durable:
				c.fail(f.key, "a loss at %s, back to %s, has undone value %d (%s), which %s had acknowledged as durable at %v",
					l.Version, l.Base, o.Value, v, c.h.Nodes[o.Node], o.Return)
			case c.passed(o, l):
				c.fail(f.key, "a loss at %s, back to %s, has undone value %d (%s), acknowledged at %v, before a barrier that was passed before the loss",
					l.Version, l.Base, o.Value, v, o.Return)
			case !l.Replaced:
				c.lost++
			}
		}
	}
}

// passed tells whether a barrier began after the acknowledgement of a write and ended before a
// loss (I6).
func (c *checker) passed(o *chaosOp, l *chaosLoss) bool {
	return slices.ContainsFunc(c.h.Bars, func(b chaosBarrier) bool { return o.Return < b.Call && b.Return < l.Call })
}

// sessions: what one session reads is never older than what it has read or written.
func (c *checker) sessions(f *keyFacts) {
	bySession := map[int][]*chaosOp{}
	for _, o := range f.ops {
		bySession[o.Client] = append(bySession[o.Client], o)
	}
	for session, ops := range bySession {
		slices.SortFunc(ops, func(a, b *chaosOp) int { return cmp.Compare(a.Call, b.Call) })
		var newest client.Version
		for _, o := range ops {
			v := o.Version
			if o.Kind.writes() && o.Kind != cas {
				v = f.madeAt[o.Value]
			}
			if o.Outcome != done || v == 0 {
				continue
			}
			if o.Kind == readSession && v < newest {
				c.fail(f.key, "session %d, which had seen version %s, read %s (value %d) at %s, from %v to %v",
					session, newest, v, o.Value, c.h.Nodes[o.Node], o.Call, o.Return)
			}
			newest = max(newest, v)
		}
	}
}

// local: what one process shows does not go back.
func (c *checker) local(f *keyFacts) {
	type process struct{ node, life int }
	byProcess := map[process][]*chaosOp{}
	for _, o := range f.ops {
		if o.Kind == readLocal && o.Outcome == done && o.Version != 0 && o.Life >= 0 {
			p := process{o.Node, o.Life}
			byProcess[p] = append(byProcess[p], o)
		}
	}
	for p, ops := range byProcess {
		c.ascending(ops, func(o *chaosOp, newest client.Version) {
			c.fail(f.key, "%s showed version %s, and then %s (value %d), from %v to %v",
				c.h.Nodes[p.node], newest, o.Version, o.Value, o.Call, o.Return)
		})
	}
}

// ascending calls bad for every operation that has a lower version than one that
// ended before it began.
func (c *checker) ascending(ops []*chaosOp, bad func(o *chaosOp, newest client.Version)) {
	byEnd := slices.Clone(ops)
	slices.SortFunc(ops, func(a, b *chaosOp) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortFunc(byEnd, func(a, b *chaosOp) int { return cmp.Compare(a.Return, b.Return) })
	var newest client.Version
	ended := 0
	for _, o := range ops {
		for ; ended < len(byEnd) && byEnd[ended].Return < o.Call; ended++ {
			newest = max(newest, byEnd[ended].Version)
		}
		if o.Version < newest {
			bad(o, newest)
		}
	}
}

// everywhere: after a write-all no local read at a live node is older.
func (c *checker) everywhere(f *keyFacts) {
	space := c.h.Keys[f.key].Space
	if space != spaceAll && space != spaceLease {
		return
	}
	type end struct {
		at time.Duration
		v  client.Version
	}
	var acked []end
	for _, o := range f.ops {
		if o.Kind.writes() && o.Kind != del && o.Outcome == done && f.madeAt[o.Value] != 0 {
			acked = append(acked, end{o.Return, f.madeAt[o.Value]})
		}
	}
	slices.SortFunc(acked, func(a, b end) int { return cmp.Compare(a.at, b.at) })
	for i := range acked { // the newest so far
		acked[i].v = max(acked[i].v, acked[max(i-1, 0)].v)
	}
	for _, o := range f.ops {
		if o.Kind != readLocal || o.Outcome != done || o.Version == 0 {
			continue
		}
		i, _ := slices.BinarySearchFunc(acked, o.Call, func(e end, t time.Duration) int { return cmp.Compare(e.at, t) })
		if i > 0 && o.Version < acked[i-1].v && c.member(o, acked[i-1].v) {
			c.fail(f.key, "%s, a live member, showed version %s (value %d) at %v, after %s had been acknowledged everywhere at %v",
				c.h.Nodes[o.Node], o.Version, o.Value, o.Call, acked[i-1].v, acked[i-1].at)
		}
	}
}

// member tells whether a node was a live member from the place of a version to the
// end of a read.
func (c *checker) member(o *chaosOp, v client.Version) bool {
	return slices.ContainsFunc(c.h.Spans, func(s chaosSpan) bool {
		return s.Node == c.h.Nodes[o.Node] && s.first <= v.Sequence() && s.From <= o.Call && o.Return < s.Until
	})
}

// linearizable: strict reads and writes have one order, each between its call and its
// return.
func (c *checker) linearizable(f *keyFacts) {
	history := c.modelled(f)
	result := porcupine.CheckOperationsTimeout(chaosModel, history, chaosSearch)
	if result == porcupine.Ok {
		return
	}
	text := fmt.Sprintf("not decided within %v whether %d operations are linearizable", chaosSearch, len(history))
	short := history
	if result == porcupine.Illegal {
		short = shrink(history)
		text = fmt.Sprintf("not linearizable: %d operations, shrunk to %d", len(history), len(short))
	}
	_, info := porcupine.CheckOperationsVerbose(chaosModel, short, chaosSearch)
	for _, o := range short[max(0, len(short)-40):] {
		text += fmt.Sprintf("\n\t%12v %12v  session %-3d %s", time.Duration(o.Call), time.Duration(o.Return), o.ClientId, o.Input.(*modelOp).describe())
	}
	c.fail(f.key, "%s", text)
	c.violations[len(c.violations)-1].info = &info
}

// modelled is the history of a block as the model takes it.
func (c *checker) modelled(f *keyFacts) []porcupine.Operation {
	var history []porcupine.Operation
	var dels, writes []time.Duration // when those began that nobody has seen
	for _, o := range f.ops {
		m := &modelOp{chaosOp: o, value: o.Value, version: o.Version, expected: somethingElse}
		end := o.Return
		switch {
		case o.Kind == readSession, o.Kind == readLocal, o.Outcome == failed:
			continue
		case o.Kind == del && o.Outcome == unknown:
			dels = append(dels, o.Call)
			continue
		case o.Outcome == unknown && !f.observed[o.Value]:
			writes = append(writes, o.Call)
			continue
		case o.Outcome == unknown: // it has happened before it was first read
			end = forever
			if first, ok := f.seen[o.Value]; ok {
				end = first
			}
		}
		if o.Kind.writes() && o.Kind != del {
			if m.version = f.madeAt[o.Value]; m.version == 0 {
				m.value = unseen
			}
		}
		if v, ok := f.valueAt[o.Expect]; o.Kind == cas && ok {
			m.expected = v
		}
		history = append(history, porcupine.Operation{ClientId: o.Client, Input: m, Call: int64(o.Call), Return: int64(end)})
	}
	slices.Sort(dels)
	slices.Sort(writes)
	for _, o := range history {
		m := o.Input.(*modelOp)
		m.dels, m.writes = begun(dels, o.Return), begun(writes, o.Return)
	}
	for _, l := range f.losses {
		m := &modelOp{chaosOp: &chaosOp{}, loss: l, value: f.after(l), version: l.Version}
		history = append(history, porcupine.Operation{ClientId: chaosWorkers * len(chaosSpaces), Input: m, Call: int64(l.Call), Return: int64(f.effective(l))})
	}
	number(history)
	return history
}

// number says of each operation with a known version how many have a lower one.
func number(history []porcupine.Operation) {
	var versions []client.Version
	for _, o := range history {
		if m := o.Input.(*modelOp); m.ordered() {
			versions = append(versions, m.version)
		}
	}
	slices.Sort(versions)
	for _, o := range history {
		m := o.Input.(*modelOp)
		m.below, _ = slices.BinarySearch(versions, m.version)
	}
}

// begun is how many of the times are not later than a moment.
func begun(times []time.Duration, at int64) int {
	n, _ := slices.BinarySearchFunc(times, at, func(t time.Duration, at int64) int {
		if int64(t) <= at {
			return -1
		}
		return 1
	})
	return n
}

// effective is when a loss certainly has its place: somebody has seen its version, or a
// later one.
func (f *keyFacts) effective(l *chaosLoss) time.Duration {
	at := l.Return
	for _, o := range f.ops {
		if o.Outcome == done && o.Kind == readStrict && o.Version >= l.Version {
			at = min(at, o.Return)
		}
	}
	return max(at, l.Call)
}

// after is the value that a block has after a loss, as far as anybody has read it.
func (f *keyFacts) after(l *chaosLoss) int64 {
	if !l.Present {
		return 0
	}
	if v, ok := f.valueAt[l.Base]; ok && !l.Replaced {
		return v
	}
	if v, ok := f.valueAt[l.Version]; ok {
		return v
	}
	return somethingElse
}

// shrinking bounds the time for making a contradiction easier to read.
const shrinking = 30 * time.Second

// shrink finds the first moment at which the history cannot be explained any more, and
// leaves out reads and refused changes that the contradiction does not need.
func shrink(history []porcupine.Operation) []porcupine.Operation {
	began := time.Now()
	bad := func(h []porcupine.Operation) bool {
		return porcupine.CheckOperationsTimeout(chaosModel, h, shrinking/10) == porcupine.Illegal
	}
	var ends []int64
	for _, o := range history {
		ends = append(ends, o.Return)
	}
	slices.Sort(ends)
	n, _ := slices.BinarySearchFunc(ends, true, func(at int64, _ bool) int {
		if bad(until(history, at)) {
			return 1
		}
		return -1
	})
	if n < len(ends) {
		history = until(history, ends[n])
	}
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for size := len(history) / 2; size > 0; size /= 2 {
		for from := 0; from < len(history); from += size {
			rest := slices.Clone(history[:from])
			for i, o := range history[from:] {
				if m := o.Input.(*modelOp); i >= size || m.loss == nil && m.Kind.writes() && m.Outcome != refused {
					rest = append(rest, o)
				}
			}
			if time.Since(began) > shrinking {
				return history
			}
			if rest = until(rest, int64(forever)); len(rest) < len(history) && bad(rest) {
				history = rest
			}
		}
	}
	return history
}

// until is what was known at a moment: of a change that had not ended, nobody knew
// whether it would happen.
func until(history []porcupine.Operation, at int64) []porcupine.Operation {
	var known []porcupine.Operation
	for _, o := range history {
		m := *o.Input.(*modelOp)
		switch {
		case o.Return <= at:
		case o.Call > at || m.loss == nil && !m.Kind.writes() || m.Outcome == refused:
			continue
		case m.loss == nil:
			m.maybe, m.version, o.Return = true, 0, int64(forever)
		}
		o.Input = &m
		known = append(known, o)
	}
	number(known)
	return known
}
