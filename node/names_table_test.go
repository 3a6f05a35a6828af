package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/internal/testseed"

	"github.com/google/go-cmp/cmp"
)

func tableName(i int) []byte { return fmt.Appendf(nil, "name-%d-%s", i, strings.Repeat("x", i%200)) }

// tablePointer is a pointer with something in every field.
func tablePointer(i int, version uint64) ledger.Pointer {
	name := tableName(i)
	p := ledger.Pointer{
		Key: block.NamedKey("ns", name, 0), Namespace: "ns", Name: name, Version: ledger.Version(version), Changed: ledger.Place(version + 1),
		Value: ledger.Value{Length: uint32(i), Sum: version * 7, Expires: int64(version), Homes: ledger.Homes{1, 2, uint16(i)}},
		Token: ledger.Version(version / 2), Owner: uint16(i), OwnerIncarnation: version + 9, Copies: uint8(i), Lease: i%2 == 0,
	}
	if version%3 > 0 {
		p.Value.Object = block.NamedKey("ns", name, version)
	} else {
		p.Value = ledger.Value{}
	}
	return p
}

// The table agrees with a plain map under random changes.
func TestNameTableAgreesWithAMap(t *testing.T) {
	table, model := newNameTable(), ledger.NewMapTable()
	seed := testseed.Of(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	for version := uint64(1); version <= 20_000; version++ {
		i := rng.IntN(500)
		p := tablePointer(i, version)
		if rng.IntN(5) == 0 {
			table.Delete(p.Key)
			model.Delete(p.Key)
			continue
		}
		table.Store(p)
		model.Store(p)
	}
	live := 0
	model.Range(func(want ledger.Pointer) bool {
		got, ok := table.Load(want.Key)
		if d := cmp.Diff(want, got); !ok || d != "" {
			t.Fatalf("%s: %v\n%s", want.Name, ok, d)
		}
		if !want.Value.Object.IsZero() {
			live++
		}
		return true
	})
	ranged := 0
	table.Range(func(ledger.Pointer) bool { ranged++; return true })
	if table.Len() != model.Len() || ranged != model.Len() || table.live("ns") != live || table.liveAll() != live || table.live("other") != 0 {
		t.Errorf("%d, %d ranged, %d live; want %d, %d", table.Len(), ranged, table.live("ns"), model.Len(), live)
	}
}

func TestNameTableHidesWhatWasCleared(t *testing.T) {
	table := newNameTable()
	for i := range 10 {
		table.Store(tablePointer(i, uint64(1+3*i)))
	}
	hidden := 0
	table.clear("ns", 15, func(_, object block.Key) {
		if object.IsZero() {
			t.Error("a name without an object was told of")
		}
		hidden++
	})
	table.clear("other", 99, nil)
	if hidden != 5 {
		t.Errorf("%d objects were hidden, want 5", hidden)
	}
	live := 0
	for i := range 10 {
		p, ok := table.lookup(tablePointer(i, 1).Key)
		switch version := uint64(1 + 3*i); {
		case !ok:
			t.Errorf("name %d is unknown", i)
		case version < 15 && (p.Version != 15 || p.Value != ledger.Value{} || p.Changed < 15):
			t.Errorf("name %d was cleared: %+v", i, p)
		case version >= 15 && p.Version != ledger.Version(version):
			t.Errorf("name %d came after the clear: %+v", i, p)
		case version >= 15:
			live++
		}
	}
	if table.live("ns") != live {
		t.Errorf("%d live, want %d", table.live("ns"), live)
	}
	table.Store(tablePointer(0, 16)) // one of them comes back
	table.Delete(tablePointer(1, 1).Key)
	if table.live("ns") != live+1 {
		t.Errorf("%d live, want %d", table.live("ns"), live+1)
	}
	if left := table.takeLeft(); len(left) != 2 || len(table.takeLeft()) != 0 {
		t.Errorf("pointers have left %d objects, want 2", len(left))
	}
	table.reset()
	if table.Len() != 0 || table.liveAll() != 0 {
		t.Error("a table that was reset is not empty")
	}
}

// Readers find whole pointers while the writer changes, deletes and compacts.
func TestNameTableIsReadWhileItChanges(t *testing.T) {
	table := newNameTable()
	const names = 300
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for r := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 2))
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := rng.IntN(names)
				key := block.NamedKey("ns", tableName(i), 0)
				p, ok := table.lookup(key)
				if !ok {
					continue
				}
				if want := tablePointer(i, uint64(p.Version)); p.Value != want.Value || !bytes.Equal(p.Name, want.Name) || p.Token != want.Token {
					t.Errorf("name %d: %+v, want %+v", i, p, want)
					return
				}
			}
		})
	}
	for version := uint64(1); version < 10_000; version++ {
		i := int(version*7919) % names
		if version%4 == 0 {
			table.Delete(tablePointer(i, 1).Key)
		} else {
			table.Store(tablePointer(i, version))
		}
	}
	close(stop)
	wg.Wait()
}

// Names that come and go do not make the table grow.
func TestNameTableCompacts(t *testing.T) {
	table := newNameTable()
	long := bytes.Repeat([]byte("n"), 4000)
	pointer := func(i int) ledger.Pointer {
		text := append(fmt.Appendf(nil, "%d-", i), long...)
		return ledger.Pointer{Key: block.NamedKey("ns", text, 0), Namespace: "ns", Name: text, Version: 1}
	}
	const kept, passing = 50, 5000
	for i := range kept {
		table.Store(pointer(i))
	}
	first, _ := table.Load(pointer(0).Key)
	held := first.Name[:2]
	for i := kept; i < kept+passing; i++ {
		table.Store(pointer(i))
		table.Delete(pointer(i).Key)
	}
	total := 0
	for _, c := range *table.chunks.Load() {
		total += cap(c)
	}
	if total > 4*nameChunk {
		t.Errorf("%d bytes of chunks for %d of names", total, kept*len(long))
	}
	for i := range kept {
		want := pointer(i)
		if got, ok := table.Load(want.Key); !ok || !bytes.Equal(got.Name, want.Name) {
			t.Errorf("name %d is %.10q…", i, got.Name)
		}
	}
	if !slices.Equal(held, []byte("0-")) {
		t.Error("compaction changed memory that had been handed out")
	}
}

func TestNameLongerThanAChunk(t *testing.T) {
	table := newNameTable()
	long := bytes.Repeat([]byte("n"), nameChunk+1)
	p := ledger.Pointer{Key: block.NamedKey("ns", long, 0), Namespace: "ns", Name: long, Version: 1}
	table.Store(tablePointer(1, 1))
	table.Store(p)
	table.Store(tablePointer(2, 1))
	for _, want := range []ledger.Pointer{p, tablePointer(1, 1), tablePointer(2, 1)} {
		if got, ok := table.Load(want.Key); !ok || !bytes.Equal(got.Name, want.Name) {
			t.Errorf("name of %d bytes is %.10q…", len(want.Name), got.Name)
		}
	}
}

func BenchmarkNameTableStore(b *testing.B) {
	table := newNameTable()
	pointers := make([]ledger.Pointer, 10_000)
	for i := range pointers {
		pointers[i] = tablePointer(i, 1)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p := &pointers[i%len(pointers)]
		p.Version++
		table.Store(*p)
	}
}

func BenchmarkNameTableLookup(b *testing.B) {
	table := newNameTable()
	keys := make([]block.Key, 10_000)
	for i := range keys {
		p := tablePointer(i, 1)
		keys[i] = p.Key
		table.Store(p)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := table.lookup(keys[i%len(keys)]); !ok {
			b.Fatal("missing")
		}
	}
}
