package cluster

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/router"
)

// ErrPlacement reports a placement event or a placement snapshot that does not
// follow its format. The message is dropped; the gap it leaves is repaired from
// a snapshot.
var ErrPlacement = errors.New("cluster: bad placement data")

const (
	// MaxPlacementBytes is the largest placement event that is decoded. It is the
	// default limit of a NATS message.
	MaxPlacementBytes = 1 << 20
	// maxPosition keeps positions exact in every JSON reader, which hold
	// numbers as 64-bit floats.
	maxPosition = 1<<53 - 1
)

// placementJSON is the wire form. Changes are grouped in runs of one tier and one
// direction; the order of runs, and of keys in a run, is the order of changes.
type placementJSON struct {
	Node        string         `json:"node"`
	Incarnation uint64         `json:"incarnation"`
	First       uint64         `json:"first"`
	Runs        []placementRun `json:"runs"`
}

type placementRun struct {
	Tier    *block.Tier `json:"tier"`
	Stored  keyList     `json:"stored"`
	Removed keyList     `json:"removed"`
}

// AppendPlacement appends the JSON form of e to b and returns the extended slice:
//
//	{"node":"n1","incarnation":1825…,"first":12,"runs":[
//	  {"tier":"host","stored":["000000…","000001…"]},
//	  {"tier":"disk","removed":["000007…"]}]}
//
// Change number i has position first+i; positions count 1, 2, 3… over all tiers of
// one incarnation. Without runs the event is a heartbeat: first is then the next
// position to be used, so a reader that has fewer knows that it has missed some.
//
// It is written by hand because it is the one encoder on the path of every Put,
// and because the format is small enough to read here.
func AppendPlacement(b []byte, e router.Event) []byte {
	b = append(b, `{"node":`...)
	b = appendString(b, e.Node)
	b = fmt.Appendf(b, `,"incarnation":%d,"first":%d,"runs":[`, e.Incarnation, e.First)
	for i := 0; i < len(e.Changes); {
		c := e.Changes[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"tier":"`...)
		b = append(b, c.Tier.String()...)
		if c.Stored {
			b = append(b, `","stored":[`...)
		} else {
			b = append(b, `","removed":[`...)
		}
		for first := true; i < len(e.Changes) && e.Changes[i].Tier == c.Tier && e.Changes[i].Stored == c.Stored; i++ {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(b, '"')
			b = hex.AppendEncode(b, e.Changes[i].Key[:])
			b = append(b, '"')
		}
		b = append(b, `]}`...)
	}
	return append(b, `]}`...)
}

// appendString appends s as a JSON string. A string always encodes.
func appendString(b []byte, s string) []byte {
	text, _ := json.Marshal(s)
	return append(b, text...)
}

// DecodePlacement reads what [AppendPlacement] writes. Members that it does not
// know are skipped, so that a newer node can say more; everything else that is
// not as specified is an error that wraps [ErrPlacement]. It keeps nothing of data.
func DecodePlacement(data []byte) (router.Event, error) {
	if len(data) > MaxPlacementBytes {
		return router.Event{}, fmt.Errorf("%w: event of %d bytes, at most %d", ErrPlacement, len(data), MaxPlacementBytes)
	}
	var w placementJSON
	if err := json.Unmarshal(data, &w); err != nil {
		return router.Event{}, fmt.Errorf("%w: %w", ErrPlacement, err)
	}
	n := 0
	for i, r := range w.Runs {
		if r.Tier == nil {
			return router.Event{}, fmt.Errorf("%w: run %d: no tier", ErrPlacement, i)
		}
		if (len(r.Stored) == 0) == (len(r.Removed) == 0) {
			return router.Event{}, fmt.Errorf("%w: run %d: want either stored or removed keys", ErrPlacement, i)
		}
		n += len(r.Stored) + len(r.Removed)
	}
	switch {
	case ValidID(w.Node) != nil:
		return router.Event{}, fmt.Errorf("%w: %w", ErrPlacement, ValidID(w.Node))
	case w.Incarnation == 0:
		return router.Event{}, fmt.Errorf("%w: no incarnation", ErrPlacement)
	case w.First == 0 || w.First > maxPosition-uint64(n):
		return router.Event{}, fmt.Errorf("%w: first position %d out of range", ErrPlacement, w.First)
	}
	e := router.Event{Node: w.Node, Incarnation: w.Incarnation, First: w.First}
	if n > 0 {
		e.Changes = make([]router.Change, 0, n)
	}
	for _, r := range w.Runs {
		for _, k := range r.Stored {
			e.Changes = append(e.Changes, router.Change{Key: k, Tier: *r.Tier, Stored: true})
		}
		for _, k := range r.Removed {
			e.Changes = append(e.Changes, router.Change{Key: k, Tier: *r.Tier})
		}
	}
	return e, nil
}

// hex64 is a 64-bit number as 16 hexadecimal digits: JSON readers that hold
// numbers as floats would change it.
type hex64 uint64

func (h hex64) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(h)), nil }

func (h *hex64) UnmarshalText(text []byte) error {
	var b [8]byte
	if len(text) != 2*len(b) {
		return fmt.Errorf("number of %d digits: want 16 hexadecimal digits", len(text))
	}
	if _, err := hex.Decode(b[:], text); err != nil {
		return errors.New("number: want 16 hexadecimal digits")
	}
	*h = hex64(binary.BigEndian.Uint64(b[:]))
	return nil
}

// keyList decodes an array of hexadecimal keys without an allocation per key.
type keyList []block.Key

// UnmarshalJSON implements json.Unmarshaler. The decoder has checked already
// that data is one JSON value.
func (l *keyList) UnmarshalJSON(data []byte) error {
	*l = nil
	if string(data) == "null" {
		return nil
	}
	if len(data) < 2 || data[0] != '[' {
		return errors.New("keys: want an array of strings")
	}
	const width = 2*block.KeySize + 2 // with the quotes
	keys := make([]block.Key, 0, len(data)/(width+1)+1)
	rest := skipSpace(data[1:])
	for len(rest) > 0 && rest[0] != ']' {
		if len(rest) < width || rest[0] != '"' || rest[width-1] != '"' {
			return fmt.Errorf("key %d: %w", len(keys), block.ErrSyntax)
		}
		var k block.Key
		if _, err := hex.Decode(k[:], rest[1:width-1]); err != nil {
			return fmt.Errorf("key %d: %w", len(keys), block.ErrSyntax)
		}
		if k.IsZero() {
			return fmt.Errorf("key %d: the zero key names nothing", len(keys))
		}
		keys = append(keys, k)
		rest = skipSpace(rest[width:])
		if len(rest) > 0 && rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
	}
	*l = keys
	return nil
}

func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\n' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}
