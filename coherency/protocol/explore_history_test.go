package protocol

import (
	"cmp"
	"errors"
	"slices"

	"cairn/coherency"
	"cairn/coherency/ledger"
)

// history is all that the operations on a block, so far, may mean: I4 holds as long as
// there is one meaning at least. It is the search of Wing and Gong (1993) for a
// linearization, done while the operations go on: a write takes effect once between
// its beginning and its end; one without an end may still do so, or never.
type history struct {
	configs []config
	pending uint16 // writes that may still take effect, by number
	losses  uint64 // that were declared, at most 1 is counted
}

// config is one meaning: what the block holds, which of the pending writes have taken
// effect, what they replaced, and what it has held since each client's present
// operation began.
type config struct {
	value uint8 // number of the write, from 1; 0: absent
	done  uint16
	prev  [4]uint8
	seen  [4]uint32
}

func (c *config) words(w *words) {
	w.plain(uint64(c.value)<<48|uint64(c.done)<<32|uint64(c.prev[0])<<24|uint64(c.prev[1])<<16|uint64(c.prev[2])<<8|uint64(c.prev[3]),
		uint64(c.seen[0])<<30|uint64(c.seen[1]), uint64(c.seen[2])<<30|uint64(c.seen[3]))
}

func compareConfigs(a, b config) int {
	return cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.done, b.done), slices.Compare(a.prev[:], b.prev[:]), slices.Compare(a.seen[:], b.seen[:]))
}

// Operations have numbers: client × 4 + place in its program. The value that one writes
// is its number + 1, as is its Op.
func (in *instance) action(number int) action { return in.clients[number/4][number%4] }

// result is the value that an operation leaves.
func (in *instance) result(number int) uint8 {
	if d := in.action(number).do; d == remove || d == wipe {
		return 0
	}
	return uint8(number + 1)
}

// holds tells whether an operation's condition holds for a value.
func (u *universe) holds(number int, value uint8) bool {
	switch u.in.action(number).do {
	case cas:
		return value == u.expect[number]
	case create:
		return value == 0
	case replace:
		return value != 0
	}
	return true
}

// closure is all that the configs may become by pending writes; the first n are
// the configs themselves. from is the index of the one that each comes from.
func (u *universe) closure(l *history) (all []config, from []int) {
	all = append(make([]config, 0, 16), l.configs...)
	from = make([]int, len(all), 16)
	for i := range from {
		from[i] = -1
	}
	for i := 0; i < len(all); i++ {
		for number := 0; number < 16; number++ {
			bit := uint16(1) << number
			if l.pending&bit == 0 || all[i].done&bit != 0 || !u.holds(number, all[i].value) {
				continue
			}
			c := all[i]
			c.done |= bit
			if u.current(number) {
				c.prev[number/4] = c.value
			}
			c.value = u.in.result(number)
			for k := range c.seen {
				if c.seen[k] != 0 {
					c.seen[k] |= 1 << c.value
				}
			}
			if !slices.Contains(all, c) {
				all, from = append(all, c), append(from, i)
			}
		}
	}
	return all, from
}

// current tells whether a client waits for the operation.
func (u *universe) current(number int) bool {
	c := u.clients[number/4]
	return c.busy && c.at == number%4
}

// filter keeps the meanings that match, each changed by change; a meaning that follows
// from another that is kept need not be.
func (u *universe) filter(l *history, match func(*config) bool, change func(*config)) bool {
	all, from := u.closure(l)
	kept := make([]config, 0, len(all))
	ok := make([]bool, len(all))
	for i := range all {
		ok[i] = match(&all[i])
		if !ok[i] || from[i] >= 0 && ok[from[i]] {
			continue
		}
		c := all[i]
		change(&c)
		if !slices.Contains(kept, c) {
			kept = append(kept, c)
		}
	}
	slices.SortFunc(kept, compareConfigs)
	l.configs = kept
	return len(kept) > 0
}

// begin notes that an operation on a block begins.
func (u *universe) begin(b, number int, writes bool) {
	l := &u.history[b]
	k := number / 4
	configs := slices.Clone(l.configs)
	for i := range configs {
		configs[i].seen[k], configs[i].prev[k] = 1<<configs[i].value, 0
	}
	l.configs = configs
	if writes {
		l.pending |= 1 << number
	}
}

// end notes that an operation ended with what match allows. never: it has had no
// effect; open: it may have one yet.
func (u *universe) end(b, number int, never, open bool, match func(*config) bool) bool {
	l := &u.history[b]
	k, bit := number/4, uint16(1)<<number
	ok := u.filter(l, func(c *config) bool {
		return !(never && c.done&bit != 0) && match(c)
	}, func(c *config) {
		c.seen[k], c.prev[k] = 0, 0
		if !open {
			c.done &^= bit
		}
	})
	if !open {
		l.pending &^= bit
	}
	return ok
}

// possible is what the block may hold, as a set.
func (u *universe) possible(b int) (set uint32) {
	all, _ := u.closure(&u.history[b])
	for _, c := range all {
		set |= 1 << c.value
	}
	return set
}

// lost puts a declared loss into the history: the block holds an older value again.
func (u *universe) lost(b int, value uint8) {
	l := &u.history[b]
	l.losses = 1
	u.filter(l, func(*config) bool { return true }, func(*config) {})
	all, _ := u.closure(l)
	var kept []config
	for _, c := range all {
		c.value = value
		for k := range c.seen {
			if c.seen[k] != 0 {
				c.seen[k] |= 1 << value
			}
		}
		if !slices.Contains(kept, c) {
			kept = append(kept, c)
		}
	}
	slices.SortFunc(kept, compareConfigs)
	l.configs = kept
}

// replied ends a client's operation.
func (u *universe) replied(i int, r Reply) {
	if r.Op&asOwner != 0 {
		u.refusedCall(i, r.Op)
		return
	}
	number := int(r.Op) - 1
	if number >= finalRead {
		return
	}
	if !u.current(number) {
		return // its client has given up
	}
	a := u.in.action(number)
	c := &u.clients[number/4]
	defer func() {
		c.busy = false
		c.at++
		if r.Err == nil || errors.Is(r.Err, ErrCondition) {
			c.saw, c.version, c.session = uint8(r.After.Value.Sum), r.After.Version, r.Sequence
		}
	}()
	if a.do == barrier {
		return
	}
	if a.do == wipe {
		for b := range u.in.keys {
			u.ended(i, b, number, r)
		}
		return
	}
	u.ended(i, a.block, number, r)
}

// ended checks the answer of an operation on a block.
func (u *universe) ended(i, b, number int, r Reply) {
	a := u.in.action(number)
	k, bit := number/4, uint16(1)<<number
	var ok bool
	switch {
	case a.do == get || a.do == getSession: // an error
		ok = u.end(b, number, false, false, func(*config) bool { return true })
	case r.Err == nil:
		ok = u.end(b, number, false, false, func(c *config) bool {
			return c.done&bit != 0 && (a.do == wipe || uint64(c.prev[k]) == r.Before.Value.Sum)
		})
		if a.do != wipe {
			u.acked[b] = max(u.acked[b], r.After.Version)
			if a.policy != coherency.WriteBack || u.in.space.Copies > int(u.in.budget[crashes]) && u.in.budget[advances] == 0 {
				u.durable[b] = max(u.durable[b], r.After.Version)
			}
		}
	case errors.Is(r.Err, ErrCondition):
		// Versions may differ where values do not: both absent, or one from before a loss.
		same := a.do == cas && (u.history[b].losses > 0 || u.expect[number] == 0)
		ok = u.end(b, number, true, false, func(c *config) bool {
			for v := range uint8(17) {
				if c.seen[k]>>v&1 == 1 && (!u.holds(number, v) || same) {
					return true
				}
			}
			return false
		})
	case errors.Is(r.Err, ErrContended), errors.Is(r.Err, ErrStage), errors.Is(r.Err, ErrNoHome):
		ok = u.end(b, number, true, false, func(*config) bool { return true })
	default: // ErrUnknown, ErrUnavailable
		ok = u.end(b, number, false, true, func(*config) bool { return true })
	}
	if !ok {
		u.fail("I4: %s of %s at %s cannot have ended with %v (before %d, after %d)",
			verbs[a.do], u.in.names[b], u.in.nodes[i], r.Err, r.Before.Value.Sum, r.After.Value.Sum)
	}
}

// served ends a read.
func (u *universe) served(i int, s Serve) {
	if s.Op&asOwner != 0 {
		for k := range u.calls {
			if c := u.calls[k]; c.op|asOwner == s.Op && c.to == i && c.asked && c.generation == u.sites[i].generation {
				u.calls = slices.Delete(u.calls, k, k+1)
				s.Op = c.op
				u.answered(c.from, s)
				return
			}
		}
		return
	}
	u.answered(i, s)
}

func (u *universe) answered(i int, s Serve) {
	number := int(s.Op) - 1
	if number >= finalRead {
		u.finalAnswer(i, number-finalRead, s)
		return
	}
	if !u.current(number) {
		return
	}
	a := u.in.action(number)
	c := &u.clients[number/4]
	k := number / 4
	value := uint8(s.Pointer.Value.Sum)
	strict := a.do == get
	if !u.end(a.block, number, false, false, func(cf *config) bool { return !strict || cf.seen[k]>>value&1 == 1 }) {
		u.fail("I4: a read of %s at %s returned %d", u.in.names[a.block], u.in.nodes[i], value)
	}
	if !strict && s.Pointer.Version < c.version {
		u.fail("a session read of %s at %s returned version %d after %d", u.in.names[a.block], u.in.nodes[i], s.Pointer.Version, c.version)
	}
	c.busy = false
	c.at++
	c.saw, c.version, c.session = value, s.Pointer.Version, max(c.session, s.Sequence)
}

// recorded follows what an effective record means for what was acknowledged.
func (u *universe) recorded(r *ledger.Record, out *ledger.Outcome) {
	switch r.Kind {
	case ledger.Revoke:
		b := slices.Index(u.in.keys, r.Key)
		if r.Flags.Has(ledger.Lost) {
			if out.After.Version == out.Before.Version {
				u.fail("I7: a loss was declared and made no new version")
			}
			// A Clear counts as nobody's: the newest that the log has is the base.
			if out.Before.Version < u.durable[b] {
				u.fail("I5: version %d was acknowledged as durable, and declared lost", u.durable[b])
			}
			u.durable[b] = 0
			u.acked[b] = min(u.acked[b], out.After.Version)
			u.must[b] = min(u.must[b], out.After.Version)
			u.lost(b, uint8(out.After.Value.Sum))
		}
	case ledger.Barrier:
		u.must = u.acked
	case ledger.Advance:
		for b, key := range u.in.keys {
			if p, _ := u.oracle.Lookup(key); p.Version < u.must[b] {
				u.fail("I6: a barrier was passed, and version %d of %s that was acknowledged before is not in the log, which has %d",
					u.must[b], u.in.names[b], p.Version)
			}
		}
		u.must = [2]ledger.Version{}
	}
}
