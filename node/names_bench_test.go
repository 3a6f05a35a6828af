package node

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/resp"
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
}

// pairBatch is how many reads are timed at once when two kinds are compared: few enough
// that most batches run without being interrupted.
const pairBatch = 128

// comparePairs runs batches of two kinds of read in turn, in as many goroutines as there
// are processors, and reports the medians and their ratio.
func comparePairs(b *testing.B, reader func() (sealed, named func(i int))) {
	var mu sync.Mutex
	var took [2][]float64
	b.RunParallel(func(pb *testing.PB) {
		var mine [2][]float64
		sealed, named := reader()
		reads := [2]func(int){sealed, named}
		for i := 0; pb.Next(); i++ {
			if i%(2*pairBatch) != 0 {
				continue
			}
			for kind, read := range reads {
				start := time.Now()
				for j := range pairBatch {
					read(i + j)
				}
				mine[kind] = append(mine[kind], float64(time.Since(start).Nanoseconds())/pairBatch)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for kind := range took {
			took[kind] = append(took[kind], mine[kind]...)
		}
	})
	var median [2]float64
	for kind := range took {
		slices.Sort(took[kind])
		median[kind] = took[kind][len(took[kind])/2]
	}
	b.ReportMetric(median[0], "sealed-ns")
	b.ReportMetric(median[1], "named-ns")
	b.ReportMetric(median[1]/median[0], "named/sealed")
}

// Reads of names against reads of sealed blocks of the same size, in turn. An operation
// of the benchmark is one read of either kind.
func BenchmarkNamedAgainstSealed(b *testing.B) {
	for _, tiers := range []testTiers{{host: 512 << 20, disk: 2 << 30}, {vram: 256 << 20, host: 512 << 20, disk: 2 << 30}} {
		const count = 1 << 14
		n, addr := newMemCluster().join(b, "n1", tiers.open(b), func(c *Config) {
			c.Logger, c.PromoteAfter = slog.New(slog.DiscardHandler), 2
		})
		names, value := benchNames(count), content(1, benchValue)
		keys, args := make([]block.Key, count), make([][]byte, count)
		for i, name := range names {
			keys[i], args[i] = key(i), fmt.Appendf(nil, "%s%s", blockPrefix, key(i))
			if _, err := n.Put(b.Context(), keys[i], block.Key{}, value, coherency.WriteBack); err != nil {
				b.Fatal(err)
			}
			benchSet(b, n, name, value, coherency.WriteThrough)
		}
		b.Run(fmt.Sprintf("node/vram=%v", tiers.vram > 0), func(b *testing.B) {
			comparePairs(b, func() (sealed, named func(int)) {
				return func(i int) {
						loans, _ := n.Read(b.Context(), keys[i%count:][:1], Cluster)
						loans[0].Release()
					}, func(i int) {
						loan, _, err := n.ReadName(b.Context(), space, names[i%count], ReadOptions{})
						if err != nil {
							b.Error(err)
							return
						}
						loan.Release()
					}
			})
		})
		b.Run(fmt.Sprintf("session/vram=%v", tiers.vram > 0), func(b *testing.B) { // GET, less the protocol
			comparePairs(b, func() (sealed, named func(int)) {
				s := n.NewHandler(resp.ConnInfo{}).(*session)
				read := func(arg []byte) {
					loan, err := s.read(b.Context(), parseTarget(arg))
					if err != nil {
						b.Error(err)
						return
					}
					loan.Release()
				}
				return func(i int) { read(args[i%count]) }, func(i int) { read(names[i%count]) }
			})
		})
		b.Run(fmt.Sprintf("mget/vram=%v", tiers.vram > 0), func(b *testing.B) { // MGET of 16, less the protocol
			comparePairs(b, func() (sealed, named func(int)) {
				s := n.NewHandler(resp.ConnInfo{}).(*session)
				const most = 16
				read := func(args [][]byte, i int) {
					if i%most != 0 {
						return
					}
					loans, errs := s.readWindow(b.Context(), args[i%count:][:most])
					for i, l := range loans {
						if errs[i] != nil {
							b.Error(errs[i])
							return
						}
						l.Release()
					}
				}
				return func(i int) { read(args, i) }, func(i int) { read(names, i) }
			})
		})
		b.Run(fmt.Sprintf("resp/vram=%v", tiers.vram > 0), func(b *testing.B) { // GET over a connection
			comparePairs(b, func() (sealed, named func(int)) {
				c, err := resp.Dial(b.Context(), "tcp", addr, resp.ClientConfig{})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { c.Close() })
				buf := make([]byte, benchValue)
				read := func(arg []byte) {
					c.Append("GET", arg)
					if _, err := c.ReadBulkInto(buf); err != nil {
						b.Error(err)
					}
				}
				return func(i int) { read(args[i%count]) }, func(i int) { read(names[i%count]) }
			})
		})
	}
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

// What a name costs in memory: 180 bytes are allowed, with a name of 16.
func TestMemoryOfANameTable(t *testing.T) {
	const names = 100_000
	var before, after runtime.MemStats
	runtime.GC() // of what tests before this one have left
	runtime.GC() // and what pools give up only then
	runtime.ReadMemStats(&before)
	table := newNameTable()
	for i := range names {
		name := fmt.Appendf(nil, "user:%011d", i)
		table.Store(ledger.Pointer{Key: block.NamedKey(space, name, 0), Namespace: space, Name: name, Version: 1,
			Value: ledger.Value{Object: block.NamedKey(space, name, 1)}})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / names
	t.Logf("%.0f bytes a name", each)
	if each > 180 {
		t.Errorf("a name costs %.0f bytes", each)
	}
	runtime.KeepAlive(table)
}
