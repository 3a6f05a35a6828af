package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cairn/block"
)

func tableName(i int) []byte { return fmt.Appendf(nil, "name-%d-%s", i, strings.Repeat("x", i%200)) }

// tableState is version v of name i; version 0 is a deletion.
func tableState(i int, v, sequence uint64) Name {
	n := Name{
		Key: block.NamedKey("ns", tableName(i), 0), Namespace: "ns", Name: tableName(i),
		Length: uint32(v), Expires: int64(i), Writer: fmt.Sprint("w", i%3), Sequence: sequence,
	}
	if v > 0 {
		n.Object = block.NamedKey("ns", n.Name, v)
	}
	return n
}

// The table agrees with a map of whole states under random changes, and its
// indexes with its entries.
func TestNameTableAgreesWithAMap(t *testing.T) {
	var table nameTable
	model := map[block.Key]Name{}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for sequence := uint64(1); sequence <= 20_000; sequence++ {
		i := rng.IntN(500)
		key := block.NamedKey("ns", tableName(i), 0)
		have, known := model[key]
		switch op := rng.IntN(10); {
		case op == 0 && known:
			table.forget(key, have.Sequence)
			delete(model, key)
		case op == 1 && known: // too old to be what is there
			table.forget(key, have.Sequence-1)
		case op == 2 && known: // late
			late := tableState(i, 1<<40+sequence, have.Sequence-1)
			if gone := table.apply(late); gone != late.Object {
				t.Fatalf("a late state: %s is gone, want its own object", gone)
			}
		case op == 3 && known: // twice
			if gone := table.apply(have); !gone.IsZero() {
				t.Fatalf("a state applied twice: %s is gone", gone)
			}
		case op == 4 && known: // another end for the same object
			have.Expires, have.Sequence = int64(sequence), sequence
			if gone := table.apply(have); !gone.IsZero() {
				t.Fatalf("another end: %s is gone", gone)
			}
			model[key] = have
		default:
			next := tableState(i, min(uint64(rng.IntN(3)), 1)*sequence, sequence)
			if gone := table.apply(next); gone != have.Object {
				t.Fatalf("%s is gone, want %s", gone, have.Object)
			}
			model[key] = next
		}
	}
	live := 0
	for key, want := range model {
		got, ok := table.lookup(key)
		if !ok || !equalNames(got, want) {
			t.Fatalf("%s: got %+v, want %+v", want.Name, got, want)
		}
		if !want.Deleted() {
			live++
			if owner, ok := table.owner(want.Object); !ok || owner.Key != key {
				t.Fatalf("%s: the object's owner is %+v", want.Name, owner)
			}
		}
	}
	if table.count() != live || table.countIn("ns") != live || table.countIn("other") != 0 || len(table.byObject) != live {
		t.Errorf("%d, %d, %d counted, %d objects; want %d", table.count(), table.countIn("ns"), table.countIn("other"), len(table.byObject), live)
	}
	var scanned int
	for shard := range shards {
		scanned += len(table.scan(shard))
	}
	if scanned != len(model) {
		t.Errorf("a scan gives %d names, want %d", scanned, len(model))
	}
}

func equalNames(a, b Name) bool {
	same := bytes.Equal(a.Name, b.Name)
	a.Name, b.Name = nil, nil
	return same && fmt.Sprint(a) == fmt.Sprint(b)
}

// Names that come and go do not make the table grow.
func TestNameTableCompacts(t *testing.T) {
	var table nameTable
	long := bytes.Repeat([]byte("n"), 4000)
	name := func(i int) Name {
		text := append(fmt.Appendf(nil, "%d-", i), long...)
		return Name{Key: block.NamedKey("ns", text, 0), Namespace: "ns", Name: text, Object: block.NamedKey("ns", text, 1), Sequence: uint64(i + 1), Writer: "w"}
	}
	const kept, passing = 50, 5000
	for i := range kept {
		table.apply(name(i))
	}
	mark := name(1 << 20) // only a key, as the log's own marks
	mark.Name, mark.Object = nil, block.Key{}
	table.apply(mark)
	held := table.chunks[0][:2]
	for i := kept; i < kept+passing; i++ {
		n := name(i)
		table.apply(n)
		table.forget(n.Key, n.Sequence)
	}
	total := 0
	for _, c := range table.chunks {
		total += cap(c)
	}
	if total > 4*nameChunk {
		t.Errorf("%d bytes of chunks for %d of names", total, kept*len(long))
	}
	for i := range kept {
		want := name(i)
		if got, ok := table.lookup(want.Key); !ok || !bytes.Equal(got.Name, want.Name) {
			t.Errorf("name %d is %.10q…", i, got.Name)
		}
	}
	if _, ok := table.lookup(mark.Key); !ok {
		t.Error("the mark is gone")
	}
	if !slices.Equal(held, []byte("0-")) {
		t.Error("compaction changed memory that had been handed out")
	}
}

func TestNameLongerThanAChunk(t *testing.T) {
	var table nameTable
	long := bytes.Repeat([]byte("n"), nameChunk+1)
	n := Name{Key: block.NamedKey("ns", long, 0), Name: long, Object: block.NamedKey("ns", long, 1), Sequence: 1}
	table.apply(tableState(1, 1, 1))
	table.apply(n)
	table.apply(tableState(2, 1, 2))
	for _, want := range []Name{n, tableState(1, 1, 1), tableState(2, 1, 2)} {
		if got, ok := table.lookup(want.Key); !ok || !bytes.Equal(got.Name, want.Name) {
			t.Errorf("name of %d bytes is %.10q…", len(want.Name), got.Name)
		}
	}
}

func BenchmarkNameTableApply(b *testing.B) {
	var table nameTable
	states := make([]Name, 10_000)
	for i := range states {
		states[i] = tableState(i, 1, 1)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := states[i%len(states)]
		n.Sequence = uint64(i + 1)
		table.apply(n)
	}
}

func BenchmarkNameTableLookup(b *testing.B) {
	var table nameTable
	keys := make([]block.Key, 10_000)
	for i := range keys {
		n := tableState(i, 1, uint64(i+1))
		keys[i] = n.Key
		table.apply(n)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := table.lookup(keys[i%len(keys)]); !ok {
			b.Fatal("missing")
		}
	}
}
