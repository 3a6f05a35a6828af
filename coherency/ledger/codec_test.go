package ledger

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"cairn/block"

	"github.com/google/go-cmp/cmp"
)

func testKey(name string) block.Key { return block.NamedKey("ns", []byte(name), 0) }

// testValue is a value with every field in use.
func testValue(version uint64) Value {
	return Value{Object: block.NamedKey("ns", []byte("value"), version), Length: 65536, Sum: 0x0123456789abcdef,
		Expires: 1764000000123, Homes: Homes{3, 0, 65535}}
}

// eachKind has, for each kind, records with every field that it uses, and bare ones.
func eachKind() map[string]Record {
	plain := block.Key{0, 0, 7, 1, 2, 3}
	value := testValue(7)
	return map[string]Record{
		"join":         {Kind: Join, Flags: Durable},
		"leave":        {Kind: Leave, Flags: Settle},
		"expire":       {Kind: Expire, Member: "node-2", Incarnation: math.MaxUint64, Sequence: 77},
		"commit":       {Kind: Commit, Key: testKey("a"), Namespace: "ns", Name: []byte("a"), If: Exactly, Expect: math.MaxUint64, Value: value, Lease: true},
		"commit if":    {Kind: Commit, Key: testKey("b"), Namespace: "ns2", Name: []byte{0xff, 0}, If: Present, Now: -1, Value: value},
		"commit bare":  {Kind: Commit, Key: plain},
		"commit data":  {Kind: Commit, Key: plain, Value: Value{Object: block.Key{1}, Sum: 1}},
		"own":          {Kind: Own, Flags: Settle, Key: testKey("a"), Namespace: "ns", Name: []byte("a"), If: Absent, Now: 1764000000123, Copies: 255, Lease: true},
		"own bare":     {Kind: Own, Key: plain},
		"flush":        {Kind: Flush, Flags: Keep, Key: testKey("a"), Token: 1 << 40, Version: 1<<40 + 3, Value: value, Lease: true},
		"flush none":   {Kind: Flush, Flags: Unchanged, Key: plain, Token: 5},
		"recall":       {Kind: Recall, Key: testKey("a"), Token: 5},
		"revoke":       {Kind: Revoke, Flags: Lost, Key: testKey("a"), Token: 5, Version: 6, Value: value, Lease: true},
		"revoke none":  {Kind: Revoke, Flags: Lost | Unchanged, Key: plain, Token: 5},
		"rehome":       {Kind: Rehome, Key: testKey("a"), Version: 9, Value: Value{Homes: Homes{1, 2, 3}}},
		"barrier":      {Kind: Barrier},
		"ack":          {Kind: Ack, Epoch: 300},
		"advance":      {Kind: Advance, Epoch: 1},
		"clear":        {Kind: Clear, Namespace: "ns"},
		"clear noname": {Kind: Clear},
		"forget":       {Kind: Forget, Sequence: 1 << 50},
	}
}

func testMessage(records ...Record) Message {
	return Message{Node: "node-1", Incarnation: 1825746310123456789, Number: 12, Applied: 345, Digest: 0xfedcba9876543210, Records: records}
}

func TestMessageEachKind(t *testing.T) {
	seen := map[Kind]bool{}
	var all []Record
	var reused Message
	for name, r := range eachKind() {
		seen[r.Kind] = true
		all = append(all, r)
		want := testMessage(r, r) // the second has the namespace of the first
		var got Message
		if err := Decode(want.Append(nil), &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s changed on its way:\n%s", name, diff)
		}
		if err := Decode(want.Append(nil), &reused); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, reused); diff != "" {
			t.Errorf("%s changed in a message that was used before:\n%s", name, diff)
		}
	}
	for k := Kind(1); k < kinds; k++ {
		if !seen[k] {
			t.Errorf("no test of %s", k)
		}
	}
	want := testMessage(all...)
	var got Message
	if err := Decode(want.Append(nil), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("all kinds in one message changed:\n%s", diff)
	}
	heartbeat := Message{Node: "n"}
	if err := Decode(heartbeat.Append(nil), &got); err != nil || got.Node != "n" || len(got.Records) != 0 {
		t.Errorf("heartbeat = %+v, %v", got, err)
	}
}

// TestMessageGolden pins the format: nodes of different builds share a log.
func TestMessageGolden(t *testing.T) {
	const want = "ca01" + "066e6f64652d31" + "95928ec788d396ab19" + "0c" + "d902" + "1032547698badcfe" + "02" +
		"0400" + "1d" + "a7237aee8a3782e16685dae490" + "036e73" + "0161" + "07" + // commit, up to what it expects
		"1f" + "12c7d953216827e2dd66738671" + "808004" + "efcdab8967452301" + "fbd0dfb4ab33" + "0300ffff03" + // its value
		"0b00" + "ac02" // ack
	k := eachKind()
	commit := k["commit"]
	commit.Expect = 7
	m := testMessage(commit, k["ack"])
	if got := hex.EncodeToString(m.Append(nil)); got != want {
		t.Errorf("encoded as\n%s, want\n%s", got, want)
	}
}

func TestMessageSize(t *testing.T) {
	r := Record{Kind: Commit, Namespace: "engrams", Name: []byte("agent-0123456789/kv1"), If: Exactly, Expect: Version(At(100_000_000, 500)),
		Value: Value{Object: block.Key{1: 1}, Length: 1 << 20, Sum: 1 << 60, Homes: Homes{1, 2}}, Lease: true}
	r.Key = block.NamedKey(r.Namespace, r.Name, 0)
	one, two := testMessage(r), testMessage(r, r)
	if n := len(two.Append(nil)) - len(one.Append(nil)); n > 90 {
		t.Errorf("a commit of a name of %d bytes takes %d bytes, want at most 90", len(r.Name), n)
	} else {
		t.Logf("a commit of a name of %d bytes takes %d bytes", len(r.Name), n)
	}
}

func TestMessageRefused(t *testing.T) {
	k := eachKind()
	message := testMessage(k["commit"], k["expire"], k["flush"])
	good := message.Append(nil)
	header := len((&Message{Node: "n"}).Append(nil))
	ack := func(edit func(b []byte)) []byte {
		b := (&Message{Node: "n", Records: []Record{{Kind: Ack}}}).Append(nil)
		edit(b[header:])
		return b
	}
	count := func(n ...byte) []byte { return append((&Message{Node: "n"}).Append(nil)[:header-1], n...) }
	for name, data := range map[string][]byte{
		"empty":            {},
		"magic":            append([]byte{0xcb}, good[1:]...),
		"version":          append([]byte{messageMagic, 2}, good[2:]...),
		"trailing":         append(slices.Clone(good), 0),
		"kind 0":           ack(func(b []byte) { b[0] = 0 }),
		"kind of tomorrow": ack(func(b []byte) { b[0] = byte(kinds) }),
		"flag of tomorrow": ack(func(b []byte) { b[1] = byte(knownFlags + 1) }),
		"count":            count(1),
		"huge count":       count(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		"too many":         append(count(0x80, 0x80, 0x40), make([]byte, 3<<20)...),
		"varint too long":  count(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
	} {
		if err := Decode(data, new(Message)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
	for n := range good {
		if err := Decode(good[:n], new(Message)); !errors.Is(err, ErrFormat) {
			t.Errorf("the first %d of %d bytes: %v, want ErrFormat", n, len(good), err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, r := range eachKind() {
		m := testMessage(r, r)
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var a, b Message
		if err := Decode(data, &a); err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		again := a.Append(nil)
		if err := Decode(again, &b); err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Fatal(diff)
		}
		if _, err := a.MarshalJSON(); err != nil {
			t.Fatal(err)
		}
	})
}

// benchMessage has as many commits as a message of a busy node.
func benchMessage() *Message {
	m := &Message{Node: "node-1", Incarnation: 1825746310123456789, Number: 12, Applied: 345, Digest: 1}
	for i := range 128 {
		r := Record{Kind: Commit, Namespace: "engrams", Name: []byte("agent-0123456789/kv1"), If: Exactly, Expect: Version(At(100_000, i)),
			Value: Value{Object: block.Key{1: byte(i)}, Length: 1 << 20, Sum: 1 << 60, Homes: Homes{1, 2}}, Lease: true}
		r.Key = block.NamedKey(r.Namespace, r.Name, 0)
		m.Records = append(m.Records, r)
	}
	return m
}

// BenchmarkMessage is encoding and decoding, in nanoseconds and allocations a record.
func BenchmarkMessage(b *testing.B) {
	m := benchMessage()
	var buf []byte
	var got Message
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(m.Records) {
		buf = m.Append(buf[:0])
		if err := Decode(buf, &got); err != nil {
			b.Fatal(err)
		}
	}
}

func TestMessageJSON(t *testing.T) {
	k := eachKind()
	m := testMessage(k["commit"], k["own"], k["commit if"], k["flush none"], k["expire"], Record{Kind: Commit, Key: testKey("a")})
	const want = `{"node":"node-1","incarnation":"1825746310123456789","number":12,"applied":345,"digest":"fedcba9876543210","records":[` +
		`{"kind":"commit","key":"ffffffa7237aee8a3782e16685dae490","namespace":"ns","name":"a","if":"exactly","expect":"17592186044415.1048575",` +
		`"value":{"object":"ffffff12c7d953216827e2dd66738671","length":65536,"sum":"0123456789abcdef","expires":"2025-11-24T16:00:00.123Z","homes":[3,65535]},"lease":true},` +
		`{"kind":"own","flags":["settle"],"key":"ffffffa7237aee8a3782e16685dae490","namespace":"ns","name":"a","if":"absent","now":"2025-11-24T16:00:00.123Z","copies":255,"lease":true},` +
		`{"kind":"commit","key":"ffffff326417a63f226a10266be9508b","namespace":"ns2","name_base64":"/wA=","if":"present","now":"1969-12-31T23:59:59.999Z",` +
		`"value":{"object":"ffffff12c7d953216827e2dd66738671","length":65536,"sum":"0123456789abcdef","expires":"2025-11-24T16:00:00.123Z","homes":[3,65535]}},` +
		`{"kind":"flush","flags":["unchanged"],"key":"00000701020300000000000000000000","token":"0.5"},` +
		`{"kind":"expire","member":"node-2","incarnation":"18446744073709551615","sequence":77},` +
		`{"kind":"commit","key":"ffffffa7237aee8a3782e16685dae490","namespace":"","name":"","if":"always","value":{"absent":true}}]}`
	got, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.ReplaceAll(want, `,{"kind"`, ",\n"+`{"kind"`), strings.ReplaceAll(string(got), `,{"kind"`, ",\n"+`{"kind"`)); diff != "" {
		t.Error(diff)
	}
}
