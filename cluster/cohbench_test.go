package cluster_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/coherency/ledger"
	"cairn/internal/natstest"

	"github.com/nats-io/nats.go"
)

// benchReader hands on the number of each message.
type benchReader struct {
	numbers  chan uint64
	caughtUp chan struct{}
}

func (r benchReader) Restore(uint64, io.Reader) error               { return nil }
func (r benchReader) Message(_ uint64, m *ledger.Message, _ uint64) { r.numbers <- m.Number }
func (r benchReader) Bad(uint64, uint64)                            {}
func (r benchReader) CaughtUp()                                     { close(r.caughtUp) }
func (r benchReader) Regressed(error)                               {}

func benchLog(b *testing.B, conn *cluster.Conn) (*cluster.Coherence, benchReader) {
	b.Helper()
	log, err := cluster.NewCoherence(conn, cluster.CoherenceConfig{})
	if err != nil {
		b.Fatal(err)
	}
	r := benchReader{make(chan uint64, 64), make(chan struct{})}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = log.Run(ctx, r) // ends with ctx
	}()
	b.Cleanup(func() { cancel(); <-ended })
	<-r.caughtUp
	return log, r
}

func benchMessage(records int) *ledger.Message {
	m := &ledger.Message{Node: "a", Incarnation: 1825746310123456789}
	for i := range records {
		m.Records = append(m.Records, ledger.Record{Kind: ledger.Commit, Key: block.NamedKey("ns", fmt.Append(nil, i), 0), Namespace: "ns",
			Name: fmt.Appendf(nil, "agent-0123456789/%03d", i), If: ledger.Exactly, Expect: 1 << 40,
			Value: ledger.Value{Object: block.Key{1}, Length: 1 << 20, Sum: 1 << 60, Homes: ledger.Homes{1, 2}}})
	}
	return m
}

// median reports the middle of what was measured, in microseconds.
func median(b *testing.B, name string, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e3, name+"-p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100])/1e3, name+"-p99-µs")
}

// BenchmarkCoherence is the time from Publish to the delivery at the same node, which a
// strict read waits for, beside that of a bare publish of the same bytes; and the
// records per second with three packed messages on their way.
func BenchmarkCoherence(b *testing.B) {
	b.Run("R1 in process", func(b *testing.B) { benchCoherence(b, natstest.Run(b)) })
	b.Run("R1 tcp", func(b *testing.B) {
		srv := natstest.Server(b, cluster.ServerConfig{})
		conn := natstest.Connect(b, cluster.ConnConfig{URLs: []string{srv.ClientURL()}})
		natstest.Ensure(b, conn)
		benchCoherence(b, conn)
	})
	b.Run("R3", func(b *testing.B) { benchCoherence(b, natstest.RunCluster(b, 3).Connect(0)) })
}

func benchCoherence(b *testing.B, conn *cluster.Conn) {
	number := uint64(0)
	log, r := benchLog(b, conn)
	b.Run("latency", func(b *testing.B) {
		m := benchMessage(1)
		data := m.Append(nil)
		var bare, own []time.Duration
		for b.Loop() { // in turn, so that both see the same machine
			t := time.Now()
			if _, err := conn.JS.PublishMsg(b.Context(), &nats.Msg{Subject: cluster.CoherenceSubject(0, "a"), Data: data}); err != nil {
				b.Fatal(err)
			}
			bare = append(bare, time.Since(t))
			<-r.numbers
			number++
			m.Number = number
			t = time.Now()
			log.Publish(m)
			<-r.numbers
			own = append(own, time.Since(t))
		}
		median(b, "publish", bare)
		median(b, "delivery", own)
	})
	for _, records := range []int{128, 512} {
		b.Run(fmt.Sprint("packed ", records), func(b *testing.B) {
			const flights = 3
			m := benchMessage(records)
			flying := 0
			for b.Loop() {
				for ; flying < flights; flying++ {
					number++
					m.Number = number
					log.Publish(m)
				}
				<-r.numbers
				flying--
			}
			for ; flying > 0; flying-- {
				<-r.numbers
			}
			b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkCoherenceRead is reading the whole log, as a late node does.
func BenchmarkCoherenceRead(b *testing.B) {
	b.Run("R1 in process", func(b *testing.B) { benchCoherenceRead(b, natstest.Run(b)) })
	b.Run("R3", func(b *testing.B) { benchCoherenceRead(b, natstest.RunCluster(b, 3).Connect(0)) })
}

func benchCoherenceRead(b *testing.B, conn *cluster.Conn) {
	const messages, records = 1000, 128
	log, r := benchLog(b, conn)
	m := benchMessage(records)
	for m.Number = 1; m.Number <= messages; m.Number++ {
		log.Publish(m)
		<-r.numbers
	}
	for b.Loop() {
		late, err := cluster.NewCoherence(conn, cluster.CoherenceConfig{})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		all := &countReader{end: cancel}
		_ = late.Run(ctx, all) // ends with ctx
		if all.records != messages*records {
			b.Fatalf("%d records of %d", all.records, messages*records)
		}
	}
	b.ReportMetric(messages*records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// countReader counts records until all are there.
type countReader struct {
	benchReader
	records int
	end     func()
}

func (r *countReader) Message(_ uint64, m *ledger.Message, _ uint64) { r.records += len(m.Records) }
func (r *countReader) CaughtUp()                                     { r.end() }
