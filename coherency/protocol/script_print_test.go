package protocol

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
)

// printf adds a line to what the command prints.
func (s *script) printf(format string, args ...any) {
	if s.quiet {
		return
	}
	s.flushBeats()
	fmt.Fprintf(&s.out, format+"\n", args...)
}

// flushBeats prints how many heartbeats there were since the last line.
func (s *script) flushBeats() {
	if s.beats > 0 {
		fmt.Fprintf(&s.out, "…   %d heartbeats\n", s.beats)
		s.beats = 0
	}
}

// append puts a message at the end of the log, and prints what all will make of it.
func (s *script) append(n *scriptNode, msg *ledger.Message) {
	data := msg.Append(nil)
	sequence := uint64(len(s.log) + 1)
	who := fmt.Sprintf("%s/%d#%d", msg.Node, msg.Incarnation, msg.Number)
	var lines []string
	a := s.ref.Apply(sequence, msg, ledger.Sum(data), func(r *ledger.Record, o *ledger.Outcome) {
		if r.Kind == ledger.Own && o.Verdict == ledger.Effective {
			s.tokens[r.Key] = append(s.tokens[r.Key], o.After.Token)
		}
		if r.Kind == ledger.Clear && o.Verdict == ledger.Effective { // owners count on from there
			for key := range s.keys {
				s.tokens[key] = append(s.tokens[key], ledger.Version(o.Place))
			}
		}
		lines = append(lines, fmt.Sprintf("%d.%d %s %s: %s", o.Place.Sequence(), o.Place.Index(), who, s.record(r), o.Verdict))
	})
	if len(lines) == 0 {
		lines = append(lines, fmt.Sprintf("%d   %s %s", sequence, who, s.empty(n, msg)))
	}
	if a.Stale {
		lines[0] += " (stale)"
	}
	s.log = append(s.log, scriptMessage{data, lines})
	if len(msg.Records) == 0 && !a.Stale && s.passing && !strings.HasPrefix(s.empty(n, msg), "fence") {
		s.beats++
		return
	}
	for _, l := range lines {
		s.printf("%s", l)
	}
}

// messageText is a message that is not in the log.
func (s *script) messageText(n *scriptNode, msg *ledger.Message) string {
	var records []string
	for i := range msg.Records {
		records = append(records, s.record(&msg.Records[i]))
	}
	if len(records) == 0 {
		records = []string{s.empty(n, msg)}
	}
	return fmt.Sprintf("%s/%d#%d %s", msg.Node, msg.Incarnation, msg.Number, strings.Join(records, "; "))
}

// empty says what a message without records is for.
func (s *script) empty(n *scriptNode, msg *ledger.Message) string {
	for _, f := range n.m.flights {
		if f.incarnation == msg.Incarnation && f.number == msg.Number && len(f.readers) > 0 {
			return "fence for " + s.operations(f.readers)
		}
	}
	return fmt.Sprintf("has applied %d", msg.Applied)
}

// record is a record as a reader of the script sees it.
func (s *script) record(r *ledger.Record) string {
	name := s.keys[r.Key]
	text := r.Kind.String()
	switch r.Kind {
	case ledger.Commit:
		if r.If == ledger.Exactly && r.Expect == ^ledger.Version(0) {
			return "abandon " + s.value(r.Value) + " of " + name
		}
		text += " " + name + "=" + s.value(r.Value) + s.homesOf(r.Value.Homes) + s.conditionText(r)
	case ledger.Own:
		text += " " + name + s.conditionText(r)
		if r.Copies > 0 {
			text += fmt.Sprintf(" copies=%d", r.Copies)
		}
	case ledger.Flush, ledger.Revoke:
		text += " " + name + s.under(r.Key, r.Token, 0)
		if !r.Flags.Has(ledger.Unchanged) {
			text += " " + s.value(r.Value) + "@" + s.at(r.Key, r.Version) + s.homesOf(r.Value.Homes)
		}
	case ledger.Recall:
		text += " " + name + s.under(r.Key, r.Token, 0)
	case ledger.Rehome:
		text += " " + name + "@" + s.at(r.Key, r.Version) + s.homesOf(r.Value.Homes)
	case ledger.Expire:
		text += fmt.Sprintf(" %s/%d, last heard of at %d", r.Member, r.Incarnation, r.Sequence)
	case ledger.Ack, ledger.Advance:
		text += fmt.Sprintf(" epoch=%d", r.Epoch)
	case ledger.Clear:
		text += " " + r.Namespace
	case ledger.Forget:
		text += fmt.Sprintf(" what is absent since before %d", r.Sequence)
	}
	for _, f := range []struct {
		flag ledger.Flags
		name string
	}{{ledger.Keep, "keep"}, {ledger.Unchanged, "unchanged"}, {ledger.Lost, "lost"}, {ledger.Settle, "settle"}} {
		if r.Flags.Has(f.flag) {
			text += " " + f.name
		}
	}
	return text
}

func (s *script) conditionText(r *ledger.Record) string {
	switch r.If {
	case ledger.Exactly:
		return " if=" + s.at(r.Key, r.Expect)
	case ledger.Absent:
		return " if=absent"
	case ledger.Present:
		return " if=present"
	default:
		return ""
	}
}

// value is the word that a value stands for.
func (s *script) value(v ledger.Value) string {
	if v.Object.IsZero() {
		return "(absent)"
	}
	return s.objects[v.Object]
}

// short is the value and version of a block.
func (s *script) short(p ledger.Pointer) string {
	return s.value(p.Value) + "@" + s.at(p.Key, p.Version)
}

// at is a version: a place, or a token and a count.
func (s *script) at(key block.Key, v ledger.Version) string {
	for _, token := range slices.Backward(s.tokens[key]) {
		if v > token && v.Place().Sequence() == token.Place().Sequence() {
			return fmt.Sprintf("%s+%d", place(token), v-token)
		}
	}
	return place(v)
}

func place(v ledger.Version) string {
	return fmt.Sprintf("%d.%d", v.Place().Sequence(), v.Place().Index())
}

// under is the token and the version of something under ownership; "" without.
func (s *script) under(key block.Key, token, v ledger.Version) string {
	switch {
	case token == 0:
		return ""
	case v == 0:
		return " token=" + place(token)
	}
	return " as " + s.at(key, v)
}

func (s *script) homesOf(h ledger.Homes) string {
	var names []string
	for _, number := range h {
		if number != 0 {
			names = append(names, s.member(number))
		}
	}
	if names == nil {
		return ""
	}
	return " at " + strings.Join(names, "+")
}

func (s *script) member(number uint16) string {
	if int(number) > len(s.ref.Members()) {
		return fmt.Sprint("member ", number)
	}
	return s.ref.Member(number).ID
}

func (s *script) operations(ops []Op) string {
	var names []string
	for _, op := range ops {
		name := "?"
		if reader, ok := s.aliases[op]; ok { // another node asks
			op = reader
		}
		if label, ok := s.labels[op]; ok {
			name = strings.Fields(label)[0]
		}
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

// show are the commands that only print.
func (s *script) show(cmd string) bool {
	switch cmd {
	case "log":
		for _, l := range s.log[s.number("from", 1)-1:] {
			s.printf("%s", strings.Join(l.text, "\n"))
		}
	case "members":
		for _, m := range s.ref.Members() {
			s.printf("%s/%d live=%v durable=%v owns=%d applied=%d", m.ID, m.Incarnation, m.Live, m.Durable, m.Owned, m.Applied)
		}
	case "homes":
		for _, name := range s.plain {
			h, _ := s.nodes[0].m.homes(s.key(name), s.space.Homes)
			s.printf("%s:%s", name, s.homesOf(h))
		}
	case "state":
		for _, n := range s.nodes {
			if only := s.text("node", n.name); only == n.name {
				s.state(n)
			}
		}
	default:
		return false
	}
	return true
}

var phaseNames = map[phase]string{starting: "starting", joining: "joining", serving: "serving", left: "left", stopped: "stopped"}

// state prints a node and what it knows of the blocks named, or of all.
func (s *script) state(n *scriptNode) {
	if n.down {
		s.printf("%s down", n.name)
		return
	}
	m := n.m
	lease := "no lease"
	if m.Serving(s.now) {
		lease = fmt.Sprintf("lease for %v", (m.leased - s.now).Round(time.Millisecond))
	}
	frozen := ""
	if n.frozen {
		frozen = ", frozen"
	}
	s.printf("%s/%d %s%s, %s, log at %d of %d%s", n.name, m.Incarnation(), phaseNames[m.phase], frozen, lease, m.led.Sequence(), len(s.log), s.waiting(m))
	var keys []block.Key
	for key, name := range s.keys {
		if len(s.plain) == 0 || slices.Contains(s.plain, name) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b block.Key) int { return strings.Compare(s.keys[a], s.keys[b]) })
	for _, key := range keys {
		s.stateOf(m, key)
	}
}

// waiting are the operations of a node that wait for something other than a block.
func (s *script) waiting(m *Machine) string {
	text := ""
	for _, w := range []struct {
		why string
		ops []Op
	}{{"the first Join", m.early}, {"a fence", m.readers}, {"the log", m.sessions}, {"all members", m.unsealed}, {"a barrier", m.barriers}} {
		if len(w.ops) > 0 {
			text += fmt.Sprintf("; %s: waits for %s", s.operations(w.ops), w.why)
		}
	}
	return text
}

func (s *script) stateOf(m *Machine, key block.Key) {
	p, known := m.led.Lookup(key)
	p.Key = key
	switch {
	case !known:
		s.printf("  %s: unknown", s.keys[key])
	case p.Owned():
		s.printf("  %s: %s%s, owned by %s/%d token=%s", s.keys[key], s.short(p), s.homesOf(p.Value.Homes), s.member(p.Owner), p.OwnerIncarnation, place(p.Token))
	default:
		s.printf("  %s: %s%s", s.keys[key], s.short(p), s.homesOf(p.Value.Homes))
	}
	b := m.blocks[key]
	if b == nil {
		return
	}
	var text []string
	if b.asking {
		text = append(text, "asks for it")
	}
	if b.token != 0 {
		text = append(text, "owns "+s.value(b.value)+"@"+s.at(key, b.version))
		for _, w := range []struct {
			is   bool
			name string
		}{{!m.acting(b), "lapsed"}, {b.version > b.base, "dirty"}, {b.staging != 0 || b.flushing != 0, "staging"}, {b.undecided, "undecided"}, {b.recalled, "recalled"}} {
			if w.is {
				text = append(text, w.name)
			}
		}
	}
	if ops := slices.Concat(b.waiting, b.flushWaiters); len(ops) > 0 {
		text = append(text, s.operations(ops)+" waits")
	}
	if len(text) > 0 {
		s.printf("     here: %s", strings.Join(text, ", "))
	}
}
