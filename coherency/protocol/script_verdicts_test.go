package protocol

import (
	"fmt"
	"slices"
	"strings"

	"cairn/block"
	"cairn/coherency/ledger"
)

// verdictAt is where the records under test stand; what came before is below.
const verdictAt = 10

// blockStates are the states that a block can be in when n1 publishes something about
// it. n1, n2 and n3 are members from sequence 1, 2 and 3 on; the block is written at
// 4 and owned from 5 on.
var blockStates = []struct {
	name    string
	written bool
	deleted bool
	owner   string
	dead    bool // the owner's incarnation ends at 6
	reborn  bool // and its next one joins at 7
}{
	{name: "absent, never written"},
	{name: "absent, deleted", written: true, deleted: true},
	{name: "free", written: true},
	{name: "owned by n1, the author", written: true, owner: "n1"},
	{name: "owned by n1, an older life", written: true, owner: "n1", dead: true, reborn: true},
	{name: "owned by n2, live", written: true, owner: "n2"},
	{name: "owned by n2, dead", written: true, owner: "n2", dead: true},
	{name: "owned by n2, an older life", written: true, owner: "n2", dead: true, reborn: true},
}

// verdictWorld is a ledger alone, with one block.
type verdictWorld struct {
	*script
	led   *ledger.Ledger
	sent  map[string]uint64
	lives map[string]uint64
	block block.Key
}

func newVerdictWorld(s *script) *verdictWorld {
	w := &verdictWorld{script: &script{call: s.call, ref: ledger.New(ledger.NewMapTable(), 0), keys: map[block.Key]string{}, objects: map[block.Key]string{},
		tokens: map[block.Key][]ledger.Version{}}, sent: map[string]uint64{}, lives: map[string]uint64{"n1": 1, "n2": 1, "n3": 1, "n4": 1}}
	w.led = w.ref
	w.block = w.key("a")
	w.tokens[w.block] = []ledger.Version{ledger.Version(ledger.At(5, 0))}
	for i, n := range []string{"n1", "n2", "n3"} {
		w.apply(uint64(i+1), n, ledger.Record{Kind: ledger.Join, Flags: ledger.Durable})
	}
	return w
}

// apply puts one record of an author at a sequence.
func (w *verdictWorld) apply(sequence uint64, author string, r ledger.Record) (o ledger.Outcome) {
	w.sent[author]++
	m := &ledger.Message{Node: author, Incarnation: w.lives[author], Number: w.sent[author], Applied: sequence - 1, Records: []ledger.Record{r}}
	w.led.Apply(sequence, m, 0, func(_ *ledger.Record, out *ledger.Outcome) { o = *out })
	return o
}

// about is a record about the block.
func (w *verdictWorld) about(k ledger.Kind) ledger.Record {
	return ledger.Record{Kind: k, Key: w.block, Namespace: scriptNamespace, Name: []byte("a")}
}

func (w *verdictWorld) object(word string, version uint64) ledger.Value {
	v := ledger.Value{Object: block.NamedKey(scriptNamespace, []byte("a"), version), Length: 1, Homes: ledger.Homes{3}}
	w.objects[v.Object] = word
	return v
}

// verdicts prints what becomes of a record of n1, for each state of the block.
// Arguments: the kind, flags, and token=, version=, if=, author=, barrier=.
func (s *script) verdicts(kind string) {
	for i, st := range blockStates {
		w := newVerdictWorld(s)
		if st.written {
			r := w.about(ledger.Commit)
			if !st.deleted {
				r.Value = w.object("old", 1)
			}
			w.apply(4, "n3", r)
		}
		if st.owner != "" {
			w.apply(5, st.owner, w.about(ledger.Own))
		}
		if st.dead {
			w.apply(6, "n3", ledger.Record{Kind: ledger.Expire, Member: st.owner, Incarnation: 1, Sequence: 5})
		}
		if st.reborn {
			w.lives[st.owner], w.sent[st.owner] = 2, 0
			w.apply(7, st.owner, ledger.Record{Kind: ledger.Join, Flags: ledger.Durable})
		}
		s.openBarrier(w)
		r := w.build(kind)
		if i == 0 {
			s.printf("%s: %s", s.text("author", "n1"), w.record(&r))
		}
		before := w.look()
		o := w.apply(verdictAt, s.text("author", "n1"), r)
		after := w.look()
		if after == before {
			after = "the same"
		}
		s.printf("  %-27s %-32s %-9s -> %s%s", st.name+":", before, o.Verdict, after, w.rest())
	}
}

// openBarrier opens a barrier if the test asks for one: barrier=open, or acked by all
// others than n1, or by all.
func (s *script) openBarrier(w *verdictWorld) {
	how := s.text("barrier", "")
	if how == "" {
		return
	}
	w.apply(8, "n3", ledger.Record{Kind: ledger.Barrier})
	members := map[string][]string{"open": nil, "acked-by-others": {"n2", "n3"}, "acked": {"n1", "n2", "n3"}}[how]
	for _, n := range members {
		mem, _ := w.led.Find(n)
		if mem.Live {
			w.led.Member(mem.Number).Acked = w.led.Epoch() + 1
		}
	}
}

// build is the record that the command describes.
func (w *verdictWorld) build(kind string) ledger.Record {
	r := ledger.Record{}
	for k := ledger.Join; k.Valid(); k++ {
		if k.String() == kind {
			r = w.about(k)
		}
	}
	if r.Kind == 0 {
		w.fatalf("no kind %s", kind)
	}
	for _, f := range []struct {
		flag ledger.Flags
		name string
	}{{ledger.Keep, "keep"}, {ledger.Unchanged, "unchanged"}, {ledger.Lost, "lost"}} {
		if slices.Contains(w.plain, f.name) {
			r.Flags |= f.flag
		}
	}
	switch cond := w.text("if", ""); cond {
	case "":
	case "absent":
		r.If = ledger.Absent
	case "present":
		r.If = ledger.Present
	default:
		r.If, r.Expect = ledger.Exactly, w.version(cond)
	}
	r.Token, r.Version = w.version(w.text("token", "5.0")), w.version(w.text("version", "5.0+2"))
	r.Value = w.object("new", 2)
	switch r.Kind {
	case ledger.Expire:
		r.Member, r.Incarnation, r.Sequence = w.text("member", "n2"), uint64(w.number("incarnation", 1)), uint64(w.number("heard", 7))
	case ledger.Rehome:
		r.Value.Homes = ledger.Homes{2, 3}
	case ledger.Forget:
		r.Sequence = verdictAt
	}
	return r
}

// look is the block as the ledger has it.
func (w *verdictWorld) look() string {
	p, ok := w.led.Lookup(w.block)
	p.Key = w.block
	switch {
	case !ok:
		return "unknown"
	case !p.Owned():
		return w.short(p) + w.homesOf(p.Value.Homes)
	}
	live := "live"
	if !w.led.Acting(p) {
		live = "dead"
	}
	return fmt.Sprintf("%s%s, %s/%d %s", w.short(p), w.homesOf(p.Value.Homes), w.member(p.Owner), p.OwnerIncarnation, live)
}

// rest is what else the ledger says, where it is not as at the beginning.
func (w *verdictWorld) rest() string {
	var text []string
	if n := w.led.Losses(); n > 0 {
		text = append(text, fmt.Sprintf("losses %d", n))
	}
	if n := w.led.Orphaned(); n > 0 {
		text = append(text, fmt.Sprintf("orphans %d", n))
	}
	if w.led.Barrier() != 0 {
		text = append(text, "barrier open")
	}
	if w.led.Epoch() > 0 {
		text = append(text, fmt.Sprintf("epoch %d", w.led.Epoch()))
	}
	if n := w.led.Generation(scriptNamespace); n > 0 {
		text = append(text, fmt.Sprintf("generation %d", n))
	}
	if text == nil {
		return ""
	}
	return "; " + strings.Join(text, ", ")
}
