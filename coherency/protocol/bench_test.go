package protocol

import (
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

// loop is one machine whose messages come back at once, and whose homes answer at once.
type loop struct {
	m        *Machine
	now      time.Duration
	sequence uint64
	replies  int
	log      []*ledger.Message
}

func newLoop(b *testing.B) *loop {
	m, err := New(Config{Node: "n1", Incarnation: 1, Durable: true, Flights: 1}, ledger.New(ledger.NewMapTable(), 64), 0)
	if err != nil {
		b.Fatal(err)
	}
	l := &loop{m: m}
	l.step(CaughtUp{})
	l.drain()
	return l
}

func (l *loop) step(e Event) {
	l.now++
	var staged []Op
	for _, eff := range l.m.Step(l.now, e) {
		switch eff := eff.(type) {
		case Publish:
			l.log = append(l.log, eff.Message)
		case Stage:
			staged = append(staged, eff.Op)
		case Reply, Serve:
			l.replies++
		}
	}
	for _, op := range staged {
		l.step(Staged{Op: op})
	}
}

func (l *loop) drain() {
	for len(l.log) > 0 {
		msg := l.log[0]
		l.log = l.log[1:]
		l.sequence++
		l.step(Delivered{Sequence: l.sequence, Message: msg, Sum: l.sequence})
	}
}

func benchKeys(n int) []block.Key {
	keys := make([]block.Key, n)
	for i := range keys {
		keys[i] = block.NamedKey("b", []byte{byte(i), byte(i >> 8)}, 0)
	}
	return keys
}

// BenchmarkCommit is the machine's work for one write-through write, 64 writers at once.
func BenchmarkCommit(b *testing.B) {
	l, keys := newLoop(b), benchKeys(64)
	b.ReportAllocs()
	op := Op(0)
	for b.Loop() {
		op++
		l.step(Write{Op: op, Key: keys[op%64], Namespace: "b", Name: keys[op%64][:8], Policy: coherency.WriteThrough, Value: ledger.Value{Object: block.Key{1, byte(op)}}})
		if op%64 == 0 {
			l.drain()
		}
	}
}

// BenchmarkOwnWrite is the machine's work for one write of an owner.
func BenchmarkOwnWrite(b *testing.B) {
	l, keys := newLoop(b), benchKeys(64)
	b.ReportAllocs()
	op := Op(0)
	for b.Loop() {
		op++
		l.step(Write{Op: op, Key: keys[op%64], Namespace: "b", Name: keys[op%64][:8], Policy: coherency.WriteBack, Value: ledger.Value{Object: block.Key{1, byte(op)}}})
		if op%64 == 0 {
			l.drain()
		}
	}
}

// BenchmarkFencedRead is the machine's work for one strict read, 64 readers at once.
func BenchmarkFencedRead(b *testing.B) {
	l, keys := newLoop(b), benchKeys(64)
	b.ReportAllocs()
	op := Op(0)
	for b.Loop() {
		op++
		l.step(Read{Op: op, Key: keys[op%64]})
		if op%64 == 0 {
			l.drain()
		}
	}
}
