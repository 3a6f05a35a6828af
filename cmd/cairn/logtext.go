package main

import (
	"fmt"
	"strings"
	"time"

	"cairn/coherency/ledger"
	"cairn/wire"
)

// what says in words what a record about a block wants and, where it could not have
// that, why.
func (l *blockLog) what(r *ledger.Record, o *ledger.Outcome) string {
	text := l.wants(r)
	if o.Verdict == ledger.Conflict {
		switch before := o.Before; {
		case before.Owned():
			text += fmt.Sprintf(" (it was owned by %s, token %s)", l.member(before.Owner), wire.Version(before.Token))
		default:
			text += fmt.Sprintf(" (its version was %s, and nobody owned it)", wire.Version(before.Version))
		}
	}
	if o.Verdict != ledger.Effective {
		return text
	}
	now := o.After.Version
	if r.Kind == ledger.Clear {
		now = ledger.Version(o.Place)
	}
	if now != o.Before.Version {
		text += "; now version " + wire.Version(now).String()
	}
	return text
}

func (l *blockLog) wants(r *ledger.Record) string {
	token := wire.Version(r.Token).String()
	switch r.Kind {
	case ledger.Commit:
		if r.Value.Object.IsZero() {
			return "delete" + condition(r)
		}
		return "write " + l.value(r.Value) + condition(r)
	case ledger.Own:
		text := "own" + condition(r)
		if r.Copies > 0 {
			text += fmt.Sprintf(", each write on %d homes", r.Copies)
		}
		return text
	case ledger.Flush:
		text := "flush of token " + token + ": " + l.found(r)
		if r.Flags.Has(ledger.Keep) {
			return text + ", still owner"
		}
		return text + ", given back"
	case ledger.Recall:
		return "ask the owner of token " + token + " to give it back"
	case ledger.Revoke:
		text := "end of token " + token + ": " + l.found(r)
		if r.Flags.Has(ledger.Lost) {
			text += ", unflushed writes are LOST"
		}
		return text
	case ledger.Rehome:
		return "homes of version " + wire.Version(r.Version).String() + " are now " + l.homes(r.Value.Homes)
	case ledger.Clear:
		return "clear namespace " + r.Namespace
	}
	return r.Kind.String()
}

// condition is that of a Commit or an Own.
func condition(r *ledger.Record) string {
	switch r.If {
	case ledger.Exactly:
		return " if version " + wire.Version(r.Expect).String()
	case ledger.Absent:
		return " if absent"
	case ledger.Present:
		return " if present"
	}
	return ""
}

// found is the version that a Flush or a Revoke brings.
func (l *blockLog) found(r *ledger.Record) string {
	if r.Flags.Has(ledger.Unchanged) {
		return "nothing new"
	}
	text := "version " + wire.Version(r.Version).String() + ", "
	if r.Value.Object.IsZero() {
		return text + "deleted"
	}
	return text + l.value(r.Value)
}

func (l *blockLog) value(v ledger.Value) string {
	text := bytesText(int64(v.Length)) + " on " + l.homes(v.Homes)
	if v.Expires != 0 {
		text += ", ends " + time.UnixMilli(v.Expires).Format(timeFormat)
	}
	return text
}

func (l *blockLog) homes(h ledger.Homes) string {
	var names []string
	for _, n := range h {
		if n != 0 {
			names = append(names, l.member(n))
		}
	}
	if len(names) == 0 {
		return "no home"
	}
	return strings.Join(names, ", ")
}

// member is the name of a member; its number where the log does not tell.
func (l *blockLog) member(number uint16) string {
	if number == 0 || int(number) > len(l.ledger.Members()) {
		return fmt.Sprintf("member %d", number)
	}
	return l.ledger.Member(number).ID
}
