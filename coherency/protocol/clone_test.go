package protocol

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"cairn/block"
	"cairn/coherency/ledger"
)

// smallTable is a Table of few pointers that is cheap to copy. A pointer that is
// replaced keeps its place.
type smallTable struct{ list []ledger.Pointer }

func (t *smallTable) at(key block.Key) int {
	return slices.IndexFunc(t.list, func(p ledger.Pointer) bool { return p.Key == key })
}

func (t *smallTable) Load(key block.Key) (ledger.Pointer, bool) {
	if i := t.at(key); i >= 0 {
		return t.list[i], true
	}
	return ledger.Pointer{}, false
}

func (t *smallTable) Store(p ledger.Pointer) {
	if i := t.at(p.Key); i >= 0 {
		t.list[i] = p
		return
	}
	t.list = append(t.list, p)
}

func (t *smallTable) Delete(key block.Key) {
	t.list = slices.DeleteFunc(t.list, func(p ledger.Pointer) bool { return p.Key == key })
}

func (t *smallTable) Range(yield func(ledger.Pointer) bool) {
	for _, p := range t.list {
		if !yield(p) {
			return
		}
	}
}

func (t *smallTable) Len() int { return len(t.list) }

// clearanceCopy has the layout of ledger.clearance; TestCloneKnowsAllFields checks it.
//
//nolint:unused // it is about the layout
type clearanceCopy struct {
	namespace string
	place     ledger.Place
	count     uint64
}

// Where the slices of a Ledger lie. A Ledger is copied as a value, and then gets its
// own copy of what it would share.
var (
	ledgerTable   = offset[ledger.Ledger]("table")
	ledgerMembers = offset[ledger.Ledger]("members")
	ledgerCleared = offset[ledger.Ledger]("cleared")
)

func offset[T any](name string) uintptr {
	f, ok := reflect.TypeFor[T]().FieldByName(name)
	if !ok {
		panic("no field " + name)
	}
	return f.Offset
}

func fieldAt[F, T any](p *T, at uintptr) *F { return (*F)(unsafe.Add(unsafe.Pointer(p), at)) }

// cloneLedger is an independent copy of a ledger over a smallTable that keeps no history.
func cloneLedger(l *ledger.Ledger) *ledger.Ledger {
	c := *l
	*fieldAt[ledger.Table](&c, ledgerTable) = &smallTable{slices.Clone(l.Table().(*smallTable).list)}
	members := fieldAt[[]ledger.Member](&c, ledgerMembers)
	*members = slices.Clone(*members)
	if cleared := fieldAt[[]clearanceCopy](&c, ledgerCleared); len(*cleared) > 0 {
		*cleared = slices.Clone(*cleared)
	}
	return &c
}

// cloneMachine is an independent copy. Slices whose elements are never written to are
// shared, but without room behind them, so that an append of the one does not
// show in the other.
func cloneMachine(m *Machine) *Machine {
	c := *m
	c.led = cloneLedger(m.led)
	c.members = slices.Clone(m.members)
	c.asked = slices.Clone(m.asked)
	c.out = slices.Clip(m.out)
	c.readers = slices.Clip(m.readers)
	c.flights = slices.Clone(m.flights)
	c.ops = make(map[Op]*op, len(m.ops))
	for id, o := range m.ops {
		o2 := *o
		c.ops[id] = &o2
	}
	c.early = slices.Clip(m.early)
	c.blocks = make(map[block.Key]*local, len(m.blocks))
	for key, b := range m.blocks {
		b2 := *b
		b2.waiting, b2.flushWaiters = slices.Clip(b.waiting), slices.Clip(b.flushWaiters)
		c.blocks[key] = &b2
	}
	c.dirty, c.idle = slices.Clip(m.dirty), slices.Clip(m.idle)
	c.contended = slices.Clip(m.contended)
	c.flushOps = maps.Clone(m.flushOps)
	c.sessions, c.unsealed, c.barriers = slices.Clip(m.sessions), slices.Clip(m.unsealed), slices.Clip(m.barriers)
	c.staged = make(map[block.Key][]stagedObject, len(m.staged))
	for key, list := range m.staged {
		c.staged[key] = slices.Clip(list)
	}
	c.effects, c.moves, c.woken = nil, nil, nil
	return &c
}

// TestCloneKnowsAllFields fails when a type gets another field: clone and encoding
// must then be looked at.
func TestCloneKnowsAllFields(t *testing.T) {
	for _, c := range []struct {
		of   reflect.Type
		want string
	}{
		{reflect.TypeFor[Machine](), "cfg led now phase away incarnation number leased confirmed members orphans homeless draining swept asked " +
			"out usual readers flights sent lastSent owes ops early blocks dirty idle contended flushes flushOps inner " +
			"sessions unsealed barriers acking musts staged effects moves woken"},
		{reflect.TypeFor[op](), "id write read kind fenced staged homes version born staging dead settle done result asked barrier"},
		{reflect.TypeFor[local](), "key namespace name space waiting nextAsk contended yield asking token owner since from last version value base " +
			"recalled wanted first lastWrite dirtySince staging flushing undecided flushed flushValue flushWaiters must"},
		{reflect.TypeFor[flight](), "incarnation number sent entries readers"},
		{reflect.TypeFor[entry](), "rec op"},
		{reflect.TypeFor[watched](), "heard died rehomed"},
		{reflect.TypeFor[due](), "key token at"},
		{reflect.TypeFor[attempt](), "what at"},
		{reflect.TypeFor[stagedObject](), "object author incarnation token version"},
		{reflect.TypeFor[ledger.Ledger](), "table members cleared epoch barrier orphaned losses sequence digest history"},
		{reflect.TypeFor[ledger.Member](), "ID Number Incarnation Live Durable Last Sequence Applied Acked Owned"},
		{reflect.TypeFor[ledger.Pointer](), "Key Namespace Name Version Value Changed Token Owner OwnerIncarnation Copies Lease"},
		{reflect.TypeFor[ledger.Value](), "Object Length Sum Expires Homes"},
		{reflect.TypeFor[ledger.Record](), "Kind Flags Key Namespace Name If Expect Now Token Version Value Copies Lease Member Incarnation Sequence Epoch"},
		{reflect.TypeFor[ledger.Message](), "Node Incarnation Number Applied Digest Records"},
	} {
		got := ""
		for i := range c.of.NumField() {
			if i > 0 {
				got += " "
			}
			got += c.of.Field(i).Name
		}
		if got != c.want {
			t.Errorf("%v has other fields than clone and encoding know:\n%s\n%s", c.of, got, c.want)
		}
	}
	f, _ := reflect.TypeFor[ledger.Ledger]().FieldByName("cleared")
	want, have := reflect.TypeFor[clearanceCopy](), f.Type.Elem()
	if fmt.Sprint(layout(want)) != fmt.Sprint(layout(have)) {
		t.Errorf("%v: want the layout %v", layout(have), layout(want))
	}
}

func layout(t reflect.Type) (l []string) {
	for f := range t.NumField() {
		l = append(l, fmt.Sprint(t.Field(f).Name, t.Field(f).Type, t.Field(f).Offset))
	}
	return l
}
