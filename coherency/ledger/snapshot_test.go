package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"

	"cairn/block"

	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/xxh3"
)

// history makes random messages that are likely to be effective: it looks at the
// ledger that they are applied to.
type history struct {
	rnd *rand.Rand
	led *Ledger

	incarnation, number map[string]uint64
	effective           map[Kind]int
}

var historyNodes = []string{"n1", "n2", "n3", "n4"}

func newHistory(seed uint64) *history {
	return &history{rnd: rand.New(rand.NewPCG(seed, 1)), led: New(NewMapTable(), 16),
		incarnation: map[string]uint64{}, number: map[string]uint64{}, effective: map[Kind]int{}}
}

// message is the next message of a random node.
func (h *history) message() *Message {
	node := historyNodes[h.rnd.IntN(len(historyNodes))]
	mem, _ := h.led.Find(node)
	m := &Message{Node: node, Applied: h.led.Sequence() - min(h.led.Sequence(), h.rnd.Uint64N(3))}
	if !mem.Live {
		h.incarnation[node] += 1 + h.rnd.Uint64N(1<<60)
		h.number[node] = 0
		m.Records = append(m.Records, Record{Kind: Join, Flags: Flags(h.rnd.UintN(2)) * Durable})
	}
	if h.rnd.IntN(20) > 0 { // else it comes twice
		h.number[node]++
	}
	m.Incarnation, m.Number = h.incarnation[node], h.number[node]
	for range h.rnd.IntN(5) {
		m.Records = append(m.Records, h.record(mem))
	}
	return m
}

func (h *history) record(mem Member) Record {
	if h.rnd.IntN(4) == 0 {
		return h.general()
	}
	namespace := fmt.Sprint("ns", h.rnd.IntN(3))
	name := fmt.Append(nil, "name", h.rnd.IntN(12))
	r := Record{Kind: Commit + Kind(h.rnd.IntN(int(Rehome-Commit)+1)), Namespace: namespace, Name: name,
		Key: block.NamedKey(namespace, name, 0), Lease: h.rnd.IntN(2) == 0}
	p := h.led.Pointer(&r)
	if p.Owned() && h.rnd.IntN(4) > 0 {
		r.Kind = []Kind{Flush, Revoke}[h.rnd.IntN(2)]
	}
	r.Token, r.Expect, r.Version = p.Token, p.Version, p.Version
	if r.Kind != Rehome {
		r.Version = max(p.Version, p.Token) + Version(h.rnd.IntN(3))
	}
	r.If, r.Now = Condition(h.rnd.IntN(int(conditions))), h.rnd.Int64N(1000)
	r.Copies = uint8(h.rnd.IntN(3))
	r.Flags = Flags(h.rnd.IntN(int(knownFlags) + 1))
	if h.rnd.IntN(4) > 0 {
		r.Value = Value{Object: block.NamedKey(namespace, name, h.rnd.Uint64()|1), Length: h.rnd.Uint32(), Sum: h.rnd.Uint64(),
			Expires: h.rnd.Int64N(1000), Homes: Homes{mem.Number, uint16(h.rnd.IntN(4))}}
	}
	return r
}

// general is a record that is not about one block.
func (h *history) general() Record {
	switch h.rnd.IntN(16) {
	case 0:
		return Record{Kind: Leave}
	case 1, 2:
		other, _ := h.led.Find(historyNodes[h.rnd.IntN(len(historyNodes))])
		return Record{Kind: Expire, Member: other.ID, Incarnation: other.Incarnation, Sequence: other.Sequence}
	case 3:
		return Record{Kind: Clear, Namespace: fmt.Sprint("ns", h.rnd.IntN(3))}
	case 4, 5:
		return Record{Kind: Forget, Sequence: h.led.Sequence()}
	case 6, 7, 8:
		return Record{Kind: Barrier}
	case 9, 10:
		return Record{Kind: Advance, Epoch: h.led.Epoch()}
	default:
		return Record{Kind: Ack, Epoch: h.led.Epoch()}
	}
}

// step is one encoded message of the log, or what cannot be read, at a sequence.
type step struct {
	sequence uint64
	data     []byte
}

// apply gives the step to a ledger as a node would, and notes the verdicts.
func (s step) apply(t *testing.T, l *Ledger, each func(r *Record, o *Outcome)) {
	var m Message
	if err := Decode(s.data, &m); err != nil {
		if !errors.Is(err, ErrFormat) {
			t.Fatal(err)
		}
		l.Skip(s.sequence, Sum(s.data))
		return
	}
	l.Apply(s.sequence, &m, Sum(s.data), each)
}

func snapshotOf(t testing.TB, l *Ledger) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := l.Snapshot(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestSnapshotAndTail is I8: a snapshot anywhere and the rest of the log give the
// same verdicts and the same state as the whole log.
func TestSnapshotAndTail(t *testing.T) {
	total := map[Kind]int{}
	for seed := range uint64(60) {
		h := newHistory(seed)
		const steps = 250
		at := h.rnd.IntN(steps)
		var other *Ledger
		for i := range steps {
			s := step{h.led.Sequence() + 1 + h.rnd.Uint64N(2), h.message().Append(nil)}
			if h.rnd.IntN(50) == 0 {
				s.data = s.data[1:]
			}
			var verdicts, others []Outcome
			s.apply(t, h.led, func(r *Record, o *Outcome) {
				verdicts = append(verdicts, *o)
				if o.Verdict == Effective {
					total[r.Kind]++
				}
			})
			if other != nil {
				s.apply(t, other, func(_ *Record, o *Outcome) { others = append(others, *o) })
				if !reflect.DeepEqual(verdicts, others) {
					t.Fatalf("seed %d, snapshot at step %d: verdicts of step %d differ:\n%s", seed, at, i, cmp.Diff(verdicts, others))
				}
			}
			if i == at {
				var err error
				if other, err = LoadSnapshot(bytes.NewReader(snapshotOf(t, h.led)), NewMapTable(), 16); err != nil {
					t.Fatal(err)
				}
			}
		}
		if h.led.Digest() != other.Digest() || h.led.Sequence() != other.Sequence() {
			t.Fatalf("seed %d: digest or sequence differ", seed)
		}
		if !bytes.Equal(snapshotOf(t, h.led), snapshotOf(t, other)) {
			t.Fatalf("seed %d: the snapshots of equal states differ", seed)
		}
	}
	for k := Kind(1); k < kinds; k++ {
		if total[k] == 0 {
			t.Errorf("no %s was effective: the test says nothing about it", k)
		}
	}
	t.Log(total)
}

// randomLedger is the state after a random history.
func randomLedger(t testing.TB, seed uint64) *Ledger {
	t.Helper()
	h := newHistory(seed)
	for range 200 {
		m := h.message()
		h.led.Apply(h.led.Sequence()+1, m, 1, func(*Record, *Outcome) {})
	}
	return h.led
}

func TestSnapshotDamaged(t *testing.T) {
	l := randomLedger(t, 7)
	good := snapshotOf(t, l)
	load := func(data []byte) error {
		_, err := LoadSnapshot(bytes.NewReader(data), NewMapTable(), 0)
		return err
	}
	if err := load(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if err := load(good[:n]); !errors.Is(err, ErrFormat) {
			t.Fatalf("the first %d of %d bytes: %v, want ErrFormat", n, len(good), err)
		}
		bad := bytes.Clone(good)
		bad[n] ^= 0x10
		if err := load(bad); !errors.Is(err, ErrFormat) {
			t.Fatalf("byte %d changed: %v, want ErrFormat", n, err)
		}
	}
	if err := load(append(bytes.Clone(good), 0)); !errors.Is(err, ErrFormat) {
		t.Errorf("a byte more: %v, want ErrFormat", err)
	}
	broken := errors.New("broken")
	if _, err := LoadSnapshot(io.MultiReader(bytes.NewReader(good), errReader{broken}), NewMapTable(), 0); !errors.Is(err, broken) {
		t.Errorf("a reader that fails: %v", err)
	}
	if err := l.Snapshot(errReader{broken}); !errors.Is(err, broken) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error)  { return 0, e.err }
func (e errReader) Write([]byte) (int, error) { return 0, e.err }

// TestSnapshotFields fails when a type of the state gets a field that the snapshot,
// or the encoding of messages, does not know.
func TestSnapshotFields(t *testing.T) {
	for _, c := range []struct {
		v    any
		want int
	}{{Ledger{}, 10}, {Member{}, 10}, {clearance{}, 3}, {Pointer{}, 11}, {Value{}, 5}, {Record{}, 17}, {Message{}, 6}} {
		if got := reflect.TypeOf(c.v).NumField(); got != c.want {
			t.Errorf("%T has %d fields; the formats were made for %d: give the new ones a place, or decide that they need none", c.v, got, c.want)
		}
	}
}

// FuzzSnapshot: whatever the checksum lets through is loaded or refused.
func FuzzSnapshot(f *testing.F) {
	for seed := range uint64(4) {
		data := snapshotOf(f, randomLedger(f, seed))
		f.Add(data[:len(data)-snapshotTrailer])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		data := binary.LittleEndian.AppendUint64(bytes.Clone(body), xxh3.Hash(body))
		l, err := LoadSnapshot(bytes.NewReader(data), NewMapTable(), 4)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		again, err := LoadSnapshot(bytes.NewReader(snapshotOf(t, l)), NewMapTable(), 4)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(l, again) {
			t.Fatalf("%+v loaded again is\n%+v", l, again)
		}
	})
}

// TestSnapshotOrder: pointers are in the order of their keys, whatever these have in common.
func TestSnapshotOrder(t *testing.T) {
	l := New(NewMapTable(), 0)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		k := block.Key{byte(rnd.IntN(2)), 0, 0, 0, 0, byte(rnd.IntN(2)), 0, byte(rnd.IntN(2)), byte(rnd.IntN(4)), 15: byte(i)}
		if rnd.IntN(3) == 0 {
			k[0], k[1], k[2] = 0xff, 0xff, 0xff
		}
		l.table.Store(Pointer{Key: k, Version: 1})
	}
	data, order := l.encodeTable()
	if len(order) != l.table.Len() {
		t.Fatalf("%d of %d pointers", len(order), l.table.Len())
	}
	for i := 1; i < len(order); i++ {
		if a, b := keyAt(data, order[i-1]), keyAt(data, order[i]); a.Compare(b) >= 0 {
			t.Fatalf("%s before %s", a, b)
		}
	}
}

// BenchmarkSnapshot writes and loads a million pointers. Of a MapTable most of the time is
// for the map, whose entries are all over the memory.
func BenchmarkSnapshot(b *testing.B) {
	const pointers = 1_000_000
	l := New(NewMapTable(), 0)
	m := &Message{Node: "node-1", Incarnation: 1, Number: 1, Records: []Record{{Kind: Join}}}
	l.Apply(1, m, 1, func(*Record, *Outcome) {})
	for l.Table().Len() < pointers {
		m.Number++
		m.Records = m.Records[:0]
		for i := range 500 {
			r := Record{Kind: Commit, Namespace: "engrams", Name: fmt.Appendf(nil, "agent-%010d/kv%d", l.Table().Len(), i),
				Value: Value{Length: 1 << 20, Sum: 1 << 60, Homes: Homes{1, 2}}}
			r.Key = block.NamedKey(r.Namespace, r.Name, 0)
			r.Value.Object = block.NamedKey(r.Namespace, r.Name, 1)
			m.Records = append(m.Records, r)
		}
		l.Apply(l.Sequence()+1, m, 1, func(*Record, *Outcome) {})
	}
	var buf bytes.Buffer
	write := func(b *testing.B, l *Ledger) {
		for b.Loop() {
			buf.Reset()
			if err := l.Snapshot(&buf); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(buf.Len())/pointers, "B/pointer")
		b.ReportMetric(pointers*float64(b.N)/b.Elapsed().Seconds(), "pointers/s")
	}
	b.Run("write", func(b *testing.B) { write(b, l) })
	dense := *l
	dense.table = newDenseTable(l.table)
	b.Run("write dense", func(b *testing.B) { write(b, &dense) })
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := LoadSnapshot(bytes.NewReader(buf.Bytes()), NewMapTable(), 0); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(pointers*float64(b.N)/b.Elapsed().Seconds(), "pointers/s")
	})
}

// denseTable has its pointers side by side, as the table of a node.
type denseTable struct {
	Table
	pointers []Pointer
}

func newDenseTable(from Table) *denseTable {
	t := &denseTable{Table: from}
	var names []byte
	from.Range(func(p Pointer) bool {
		names = append(names, p.Name...)
		p.Name = names[len(names)-len(p.Name):]
		t.pointers = append(t.pointers, p)
		return true
	})
	return t
}

func (t *denseTable) Range(yield func(Pointer) bool) {
	for _, p := range t.pointers {
		if !yield(p) {
			return
		}
	}
}
