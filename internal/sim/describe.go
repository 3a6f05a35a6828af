package sim

import (
	"fmt"
	"slices"
	"strings"

	"cairn/coherency/ledger"
	"cairn/coherency/protocol"

	"github.com/anishathalye/porcupine"
)

var outcomeNames = [...]string{"…", "ok", "refused", "nothing", "unknown"}
var levelNames = [...]string{"strict", "session", "bounded", "as owner"}
var condNames = [...]string{"always", "exactly", "absent", "present"}
var kindNames = [...]string{"read", "write", "barrier", "clear", "loss"}

// text is an operation in words.
func (o *operation) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", kindNames[o.kind], o.key.name)
	switch o.kind {
	case opRead:
		fmt.Fprintf(&b, " %s", levelNames[o.plan.level])
	case opWrite:
		fmt.Fprintf(&b, " %v %v if %s", o.plan.policy, o.wrote, condNames[o.cond])
		if o.cond == ledger.Exactly {
			fmt.Fprintf(&b, " %x", o.expect)
		}
	}
	if o.outcome != pending {
		fmt.Fprintf(&b, " -> %s", outcomeNames[o.outcome])
	}
	if o.outcome == done || o.outcome == refused {
		fmt.Fprintf(&b, " version %x %v", o.version, o.value)
		if o.kind == opWrite {
			fmt.Fprintf(&b, " before %x %v", o.before.Version, idOf(o.before.Value))
		}
	}
	return b.String()
}

// describe is a message in words.
func describe(m *ledger.Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%x.%d applied %d [", m.Incarnation, m.Number, m.Applied)
	for i := range m.Records {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(describeRecord(&m.Records[i]))
	}
	b.WriteString("]")
	return b.String()
}

func describeRecord(r *ledger.Record) string {
	s := r.Kind.String()
	if r.Kind >= ledger.Commit && r.Kind <= ledger.Rehome {
		s += fmt.Sprintf(" token %x version %x %v homes %v flags %b if %s %x", r.Token, r.Version, idOf(r.Value), r.Value.Homes, r.Flags,
			condNames[r.If], r.Expect)
	}
	if r.Kind == ledger.Expire {
		s += fmt.Sprintf(" %s.%x at %d", r.Member, r.Incarnation, r.Sequence)
	}
	return s
}

func (p *proc) traceEffect(e protocol.Effect) {
	w, id := p.n.w, p.n.id
	switch e := e.(type) {
	case protocol.Publish, *protocol.Moved:
	case protocol.Stage:
		w.tracef("%s stages #%d version %x at %v", id, number(e.Value.Object), e.Version, e.Homes)
	case protocol.Serve:
		w.tracef("%s serves %s: version %x %v", id, w.byKey[e.Pointer.Key].name, e.Pointer.Version, idOf(e.Pointer.Value))
	case protocol.Reply:
		w.tracef("%s replies to %d: %v, version %x", id, e.Op, e.Err, e.After.Version)
	case protocol.Forward:
		w.tracef("%s forwards to %s by %x", id, e.Node, e.Token)
	case protocol.Local:
		w.tracef("%s has of its own %s version %x %v, drops #%d", id, w.byKey[e.Key].name, e.Version, idOf(e.Value), number(e.Drop))
	case protocol.Collect:
		w.tracef("%s collects #%d", id, number(e.Object))
	case protocol.Declared:
		w.tracef("%s: declared lost, %s is version %x %v", id, w.byKey[e.Pointer.Key].name, e.Pointer.Version, idOf(e.Pointer.Value))
	default:
		w.tracef("%s: %T %+v", id, e, e)
	}
}

// explain adds the history of a block to the trace.
func (w *World) explain(k *keyState, history []porcupine.Operation) {
	if !w.tracing {
		return
	}
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, h := range history {
		ret := fmt.Sprint(h.Return)
		if h.Return == ever {
			ret = "∞"
		}
		w.tracef("    [%d, %s] c%d %s", h.Call, ret, h.ClientId, h.Input.(*operation).text())
	}
}
