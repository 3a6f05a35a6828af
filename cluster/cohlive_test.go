package cluster_test

import (
	"testing"

	"cairn/cluster"
	"cairn/coherency/ledger"
	"cairn/internal/natstest"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestCoherenceLive: a reader goes over to what the leader repeats, and misses nothing when
// that is wrong, has a gap, or ends.
func TestCoherenceLive(t *testing.T) {
	conn := natstest.Run(t)
	r := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	number := uint64(0)
	say := func(n int) {
		t.Helper()
		for range n {
			number++
			r.say("a", number)
			r.until("the message", func() bool { m, _ := r.led.Find("a"); return m.Last == number })
		}
	}
	live := func() uint64 { return r.log.Stats().Live }
	say(20)
	if live() == 0 {
		t.Fatal("nothing came without a consumer")
	}

	before := live()
	repeat := func(sequence string) {
		t.Helper()
		m := &ledger.Message{Node: "a", Incarnation: 7, Number: number + 1}
		err := conn.NC.PublishMsg(&nats.Msg{Subject: cluster.CoherenceLive(0, "a"), Data: m.Append(nil), Header: nats.Header{
			jetstream.SequenceHeader: {sequence}, jetstream.SubjectHeader: {cluster.CoherenceSubject(0, "a")}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	repeat("x")
	repeat("3")    // once more
	repeat("9999") // as if much had been missed
	say(20)
	if r.stale != 0 || live() == before {
		t.Errorf("%d stale; %d without a consumer, as before", r.stale, live())
	}

	stream := coherenceStream(t, conn)
	cfg := stream.CachedInfo().Config
	cfg.RePublish = nil
	if _, err := conn.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	before = live()
	say(3) // the first is found to be missing, and a consumer gives it
	if live() != before || r.stale != 0 {
		t.Errorf("%d came without a consumer, %d before; %d stale", live(), before, r.stale)
	}
	if n := len(r.fresh); n != int(number) {
		t.Errorf("%d messages, want %d", n, number)
	}
}
