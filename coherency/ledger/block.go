package ledger

import (
	"cairn/block"
	"cairn/internal/mutant"
)

// aboutBlock tells whether a record is about one block.
func (k Kind) aboutBlock() bool { return k >= Commit && k <= Rehome }

// Lookup is the pointer of a block as its readers see it: a name that was cleared
// with its namespace is absent. ok is false for one that the log does not know.
func (l *Ledger) Lookup(key block.Key) (p Pointer, ok bool) {
	p, ok = l.table.Load(key)
	return l.seen(p), ok
}

// Pointer is Lookup for the block of a record; an unknown one is absent, version 0.
func (l *Ledger) Pointer(r *Record) Pointer {
	p, ok := l.Lookup(r.Key)
	if !ok {
		p.Key, p.Namespace, p.Name = r.Key, r.Namespace, r.Name
		if c := l.Cleared(r.Namespace); c != 0 {
			p = clearedAt(p, c)
		}
	}
	return p
}

// seen shows what a Clear has made of a pointer.
func (l *Ledger) seen(p Pointer) Pointer {
	if len(l.cleared) > 0 {
		if c := l.Cleared(p.Namespace); Version(c) > p.Version {
			return clearedAt(p, c)
		}
	}
	if mutant.Is(mutant.ImplicitRevoke) && p.Owned() && !l.acting(p) {
		l.free(&p)
	}
	return p
}

func clearedAt(p Pointer, c Place) Pointer {
	p.Version, p.Value = Version(c), Value{}
	p.Changed = max(p.Changed, c)
	return p
}

// Holds tells whether the condition of a write holds for a block whose present
// version and value are given; now is the writer's wall clock in milliseconds since 1970.
func (c Condition) Holds(v Version, value Value, expect Version, now int64) bool {
	switch c {
	case Always:
		return true
	case Exactly:
		return v == expect
	case Absent:
		return !value.Alive(now)
	case Present:
		return value.Alive(now)
	default:
		return false
	}
}

// applyBlock decides about a record of a live member that is about one block.
func (l *Ledger) applyBlock(author uint16, r *Record, o *Outcome) {
	p := l.Pointer(r)
	o.Before, o.After, o.Verdict = p, p, Conflict
	mem := l.Member(author)
	switch r.Kind {
	case Commit:
		if p.Owned() || !r.If.Holds(p.Version, p.Value, r.Expect, r.Now) && !mutant.Is(mutant.IgnoreVersion) {
			return
		}
		p.Version, p.Value, p.Lease = Version(o.Place), r.Value, r.Lease
	case Own:
		if p.Owned() || !r.If.Holds(p.Version, p.Value, r.Expect, r.Now) {
			return
		}
		p.Token, p.Owner, p.OwnerIncarnation = Version(o.Place), author, mem.Incarnation
		p.Copies, p.Lease = r.Copies, r.Lease
		mem.Owned++
	case Flush:
		if !p.Owned() || p.Token != r.Token || p.Owner != author {
			if mutant.Is(mutant.ZombieFlush) && r.Version != p.Version && !p.Owned() {
				p.Version, p.Value = Version(o.Place), r.Value
				break
			}
			return
		}
		if !r.Flags.Has(Unchanged) && r.Version > p.Version {
			p.Version, p.Value = r.Version, r.Value
		}
		if !r.Flags.Has(Keep) || p.OwnerIncarnation != mem.Incarnation {
			l.free(&p)
		}
	case Recall:
		if !p.Owned() || p.Token != r.Token {
			return
		}
		o.Verdict = Effective
		return // changes nothing
	case Revoke:
		if !p.Owned() || p.Token != r.Token || p.Owner != author && l.acting(p) {
			return
		}
		l.revoke(&p, r, o.Place)
	case Rehome:
		if p.Version != r.Version || p.Value.Object.IsZero() {
			return
		}
		p.Value.Homes = r.Value.Homes
		o.Verdict, o.After = Effective, p
		l.table.Store(p)
		return // the version stays, so Changed does
	}
	p.Changed = o.Place
	o.Verdict, o.After = Effective, p
	l.table.Store(p)
}

// acting tells whether the incarnation that owns the block is live (I1).
func (l *Ledger) acting(p Pointer) bool {
	m := l.Member(p.Owner)
	return m.Live && m.Incarnation == p.OwnerIncarnation
}

// Acting tells whether the block has an owner whose incarnation is a live member.
func (l *Ledger) Acting(p Pointer) bool { return p.Owned() && l.acting(p) }

// revoke ends an ownership for its owner. What was lost makes a new version of the
// old value, so that nobody takes the old version number for the lost one.
func (l *Ledger) revoke(p *Pointer, r *Record, at Place) {
	l.free(p)
	found := !r.Flags.Has(Unchanged) && r.Version > p.Version
	switch {
	case found && !r.Flags.Has(Lost):
		p.Version, p.Value = r.Version, r.Value
		return
	case found:
		p.Value = r.Value
	case !r.Flags.Has(Lost):
		return
	}
	p.Version = Version(at)
	l.losses++
}

func (l *Ledger) free(p *Pointer) {
	if l.acting(*p) {
		l.Member(p.Owner).Owned--
	} else {
		l.orphaned--
	}
	p.Token, p.Owner, p.OwnerIncarnation, p.Copies = 0, 0, 0, 0
}
