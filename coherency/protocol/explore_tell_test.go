package protocol

import (
	"fmt"
	"strings"

	"cairn/coherency/ledger"
)

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
	case *Moved:
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

// describe shows a record for people.
func describe(msg *ledger.Message) string {
	var s strings.Builder
	for i := range msg.Records {
		r := &msg.Records[i]
		if i > 0 {
			s.WriteString("; ")
		}
		s.WriteString(r.Kind.String())
		recordDetail(&s, r)
	}
	if len(msg.Records) == 0 {
		return "heartbeat"
	}
	return s.String()
}
