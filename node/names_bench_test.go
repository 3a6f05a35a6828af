package node

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

const benchValue = 4 << 10

func benchNode(b *testing.B) *Node {
	n, _ := newMemCluster().join(b, "n1", testTiers{host: 512 << 20, disk: 2 << 30}.open(b), func(c *Config) {
		c.Logger = slog.New(slog.DiscardHandler)
		c.FlushAfter = time.Second
	})
	return n
}

func benchNames(count int) [][]byte {
	names := make([][]byte, count)
	for i := range names {
		names[i] = fmt.Appendf(nil, "name-%d", i)
	}
	return names
}

func benchSet(b *testing.B, n *Node, name, value []byte, p coherency.WritePolicy) {
	in, err := n.Reserve(b.Context(), len(value))
	if err != nil {
		b.Fatal(err)
	}
	copy(in.Bytes(), value)
	if _, err := n.SetName(b.Context(), space, name, in, NameOptions{Policy: p}); err != nil {
		b.Fatal(err)
	}
}

// A write-back write of 4 KiB by the owner, one after another; the median is reported.
func BenchmarkOwnerWrite(b *testing.B) {
	n, names, value := benchNode(b), benchNames(256), content(1, benchValue)
	for _, name := range names {
		benchSet(b, n, name, value, coherency.WriteBack)
	}
	took := make([]time.Duration, 0, b.N)
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		benchSet(b, n, names[i%len(names)], value, coherency.WriteBack)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
}

// The same from many goroutines.
func BenchmarkOwnerWriteParallel(b *testing.B) {
	n, names, value := benchNode(b), benchNames(4096), content(1, benchValue)
	for _, name := range names {
		benchSet(b, n, name, value, coherency.WriteBack)
	}
	var next atomic.Int64
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			benchSet(b, n, names[next.Add(1)%int64(len(names))], value, coherency.WriteBack)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

// 64 writers whose objects go home before they are acknowledged.
func BenchmarkWriteThroughParallel(b *testing.B) {
	n, names, value := benchNode(b), benchNames(4096), content(1, benchValue)
	var next atomic.Int64
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			benchSet(b, n, names[next.Add(1)%int64(len(names))], value, coherency.WriteThrough)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

func BenchmarkReadName(b *testing.B) {
	n, names, value := benchNode(b), benchNames(1024), content(1, benchValue)
	for _, name := range names {
		benchSet(b, n, name, value, coherency.WriteThrough)
	}
	for _, level := range []ReadLevel{ReadSession, ReadLocal, ReadStrict} {
		b.Run(level.String(), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				loan, _, err := n.ReadName(b.Context(), space, names[i%len(names)], ReadOptions{Level: level})
				if err != nil {
					b.Fatal(err)
				}
				loan.Release()
			}
		})
	}
	b.Run("strict, batch of 256", func(b *testing.B) {
		for b.Loop() {
			if _, err := n.statesOf(b.Context(), space, names[:256], ReadOptions{Level: ReadStrict}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sealed block", func(b *testing.B) {
		keys := make([]block.Key, 1024)
		for i := range keys {
			keys[i] = key(i)
			if _, err := n.Put(b.Context(), key(i), block.Key{}, value, coherency.WriteBack); err != nil {
				b.Fatal(err)
			}
		}
		for i := 0; b.Loop(); i++ {
			loans, _ := n.Read(b.Context(), keys[i%len(keys):][:1], Cluster)
			loans[0].Release()
		}
	})
}

// loop is a log whose messages nobody reads.
type loop struct{ port }

func (loop) Publish(*ledger.Message) {}

// Commits of another node, as they come from the log.
func BenchmarkDeliver(b *testing.B) {
	p := loop{port{newMemCluster(), "n1"}}
	p.c.nodes["n1"] = &member{}
	n, err := New(Config{ID: "n1"}, testTiers{host: 4 << 20}.open(b), Ports{Announcer: p, Peers: p, Coherence: p, Router: p})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	names := benchNames(100_000)
	const records = 256
	h := n.LogHandler()
	h.Message(1, &ledger.Message{Node: "other", Incarnation: 1, Number: 1, Records: []ledger.Record{{Kind: ledger.Join}}}, 1)
	number := uint64(1)
	done := 0
	for b.Loop() {
		b.StopTimer()
		m := &ledger.Message{Node: "other", Incarnation: 1, Number: number + 1, Records: make([]ledger.Record, records)}
		for i := range m.Records {
			name := names[(done+i)%len(names)]
			m.Records[i] = ledger.Record{Kind: ledger.Commit, Key: block.NamedKey(space, name, 0), Namespace: space, Name: name,
				Value: ledger.Value{Object: block.NamedKey(space, name, number), Length: 1, Homes: ledger.Homes{1}}}
		}
		b.StartTimer()
		number++
		done += records
		h.Message(number, m, number)
		await(b, n, func() bool { return n.coherence.applied.Load() >= number })
	}
	b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "commits/s")
}

// What a name costs in memory: 200 bytes are allowed, with a name of 16.
func TestMemoryOfANameTable(t *testing.T) {
	const names = 200_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	table := newNameTable()
	for i := range names {
		name := fmt.Appendf(nil, "user:%011d", i)
		table.Store(ledger.Pointer{Key: block.NamedKey(space, name, 0), Namespace: space, Name: name, Version: 1,
			Value: ledger.Value{Object: block.NamedKey(space, name, 1)}})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / names
	t.Logf("%.0f bytes a name", each)
	if each > 260 {
		t.Errorf("a name costs %.0f bytes", each)
	}
	runtime.KeepAlive(table)
}
