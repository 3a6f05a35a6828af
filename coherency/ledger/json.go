package ledger

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"cairn/block"
)

var flagNames = []struct {
	flag Flags
	name string
}{{Keep, "keep"}, {Unchanged, "unchanged"}, {Lost, "lost"}, {Settle, "settle"}, {Durable, "durable"}}

var conditionNames = [conditions]string{"always", "exactly", "absent", "present"}

// messageView is a message for people. What does not fit into the 53 bits that
// readers of JSON keep is a string.
type messageView struct {
	Node        string   `json:"node"`
	Incarnation uint64   `json:"incarnation,string"`
	Number      uint64   `json:"number"`
	Applied     uint64   `json:"applied"`
	Digest      string   `json:"digest"`
	Records     []Record `json:"records"`
}

// recordView has the fields that the record's kind uses. A place or a version is the
// sequence of its message, a point, and the number in that message; a version made under
// ownership has the number of writes added to that.
type recordView struct {
	Kind        string     `json:"kind"`
	Flags       []string   `json:"flags,omitempty"`
	Key         *block.Key `json:"key,omitempty"`
	Namespace   *string    `json:"namespace,omitempty"`
	Name        *string    `json:"name,omitempty"`
	NameBase64  []byte     `json:"name_base64,omitempty"` // of a name that is not text
	If          string     `json:"if,omitempty"`
	Expect      string     `json:"expect,omitempty"`
	Now         string     `json:"now,omitempty"`
	Token       string     `json:"token,omitempty"`
	Version     string     `json:"version,omitempty"`
	Value       *valueView `json:"value,omitempty"`
	Homes       []uint16   `json:"homes,omitempty"`
	Copies      *uint8     `json:"copies,omitempty"`
	Lease       bool       `json:"lease,omitempty"`
	Member      string     `json:"member,omitempty"`
	Incarnation uint64     `json:"incarnation,omitempty,string"`
	Sequence    uint64     `json:"sequence,omitempty"`
	Epoch       *uint64    `json:"epoch,omitempty"`
}

type valueView struct {
	Absent  bool      `json:"absent,omitempty"`
	Object  block.Key `json:"object,omitzero"`
	Length  uint32    `json:"length,omitempty"`
	Sum     string    `json:"sum,omitempty"`
	Expires string    `json:"expires,omitempty"`
	Homes   []uint16  `json:"homes,omitempty"`
}

// MarshalJSON renders the message for people: kinds, conditions and flags as words,
// keys in hexadecimal, names as text or base64, times in RFC 3339. It is not
// meant to be read back.
func (m Message) MarshalJSON() ([]byte, error) {
	v := messageView{Node: m.Node, Incarnation: m.Incarnation, Number: m.Number, Applied: m.Applied,
		Digest: fmt.Sprintf("%016x", m.Digest), Records: m.Records}
	if v.Records == nil {
		v.Records = []Record{}
	}
	return json.Marshal(v)
}

// MarshalJSON renders the record as in a message.
func (r Record) MarshalJSON() ([]byte, error) {
	v := recordView{Kind: r.Kind.String()}
	for _, f := range flagNames {
		if r.Flags.Has(f.flag) {
			v.Flags = append(v.Flags, f.name)
		}
	}
	if r.Kind.aboutBlock() {
		v.Key = &r.Key
	}
	switch r.Kind {
	case Commit, Own:
		v.condition(&r)
		v.Lease = r.Lease
		if r.Kind == Own {
			v.Copies = &r.Copies
		} else {
			v.Value = viewValue(r.Value)
		}
	case Flush, Revoke:
		v.Token, v.Lease = viewVersion(r.Token), r.Lease
		if !r.Flags.Has(Unchanged) {
			v.Version, v.Value = viewVersion(r.Version), viewValue(r.Value)
		}
	case Recall:
		v.Token = viewVersion(r.Token)
	case Rehome:
		v.Version, v.Homes = viewVersion(r.Version), viewHomes(r.Value.Homes)
	case Expire:
		v.Member, v.Incarnation, v.Sequence = r.Member, r.Incarnation, r.Sequence
	case Ack, Advance:
		v.Epoch = &r.Epoch
	case Clear:
		v.Namespace = &r.Namespace
	case Forget:
		v.Sequence = r.Sequence
	}
	return json.Marshal(v)
}

// condition fills in what a Commit and an Own have in common.
func (v *recordView) condition(r *Record) {
	v.Namespace = &r.Namespace
	if name := string(r.Name); utf8.ValidString(name) {
		v.Name = &name
	} else {
		v.NameBase64 = r.Name
	}
	if r.If.Valid() {
		v.If = conditionNames[r.If]
	}
	if r.If == Exactly || r.Expect != 0 {
		v.Expect = viewVersion(r.Expect)
	}
	v.Now = viewTime(r.Now)
}

func viewValue(value Value) *valueView {
	v := &valueView{Absent: value.Object.IsZero(), Object: value.Object, Length: value.Length,
		Expires: viewTime(value.Expires), Homes: viewHomes(value.Homes)}
	if !v.Absent {
		v.Sum = fmt.Sprintf("%016x", value.Sum)
	}
	return v
}

func viewVersion(v Version) string {
	return fmt.Sprintf("%d.%d", v.Place().Sequence(), v.Place().Index())
}

// viewTime is empty for 0.
func viewTime(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

func viewHomes(h Homes) []uint16 {
	var all []uint16
	for _, n := range h {
		if n != 0 {
			all = append(all, n)
		}
	}
	return all
}
