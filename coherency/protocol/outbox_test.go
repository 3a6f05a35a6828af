package protocol

import (
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

// published counts the records of each message among the effects.
func published(effects []Effect) (records []int) {
	for _, e := range effects {
		if p, ok := e.(Publish); ok {
			records = append(records, len(p.Message.Records))
		}
	}
	return records
}

// TestGather: what is there at once shares a message, and while a large one is on its
// way little waits for its return, but not for long.
func TestGather(t *testing.T) {
	m, err := New(Config{Node: "n1", Incarnation: 1, Durable: true}, ledger.New(ledger.NewMapTable(), 64), 0)
	if err != nil {
		t.Fatal(err)
	}
	now, op := time.Duration(0), Op(0)
	join := m.Step(now, CaughtUp{})[0].(Publish).Message
	m.Step(now, Delivered{Sequence: 1, Message: join, Sum: 1})
	writes := func(n int) (records []int) {
		for range n {
			op++
			w := Write{Op: op, Key: block.Key{byte(op)}, Name: []byte{byte(op)}, Policy: coherency.WriteThrough}
			if got := published(m.Gather(now, w)); got != nil {
				t.Fatalf("Gather published %v", got)
			}
		}
		return published(m.Send(now))
	}
	expect := func(what string, got []int, want ...int) {
		t.Helper()
		if len(got) != len(want) || len(want) == 1 && got[0] != want[0] {
			t.Errorf("%s: messages of %v records, want %v", what, got, want)
		}
	}
	expect("at first", writes(40), 40)
	expect("less than twice what is on its way", writes(79))
	expect("twice", writes(1), 80)
	expect("little again", writes(5))
	now += gatherFor + 1
	expect("after a while", published(m.Send(now)), 5)
	expect("as many on their way as may be", writes(200))
}

// TestGatherSmall: small messages wait for nothing.
func TestGatherSmall(t *testing.T) {
	m, err := New(Config{Node: "n1", Incarnation: 1, Durable: true}, ledger.New(ledger.NewMapTable(), 64), 0)
	if err != nil {
		t.Fatal(err)
	}
	join := m.Step(0, CaughtUp{})[0].(Publish).Message
	m.Step(0, Delivered{Sequence: 1, Message: join, Sum: 1})
	for i := range 3 {
		w := Write{Op: Op(i + 1), Key: block.Key{byte(i)}, Policy: coherency.WriteThrough}
		if got := published(m.Step(0, w)); len(got) != 1 || got[0] != 1 {
			t.Errorf("write %d: messages of %v records, want one of 1", i, got)
		}
	}
}
