package router

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cairn/block"
)

// addEvents is count random blocks in events of 16, from nodes in turn.
func addEvents(seed uint64, nodes, count int) []Event {
	rng := rand.New(rand.NewPCG(seed, 3))
	events := make([]Event, count/16)
	positions := make([]uint64, nodes)
	for i := range events {
		n := i % nodes
		changes := make([]Change, 16)
		for j, k := range chain(rng, 16) {
			changes[j] = Change{Key: k, Tier: block.Host, Stored: true}
		}
		events[i] = Event{Node: nodeName(n), Incarnation: 1, First: positions[n] + 1, Changes: changes}
		positions[n] += 16
	}
	return events
}

// BenchmarkMatchBesideWriter looks a prompt of 512 blocks up while another goroutine
// adds up to 10 million blocks a second, and takes them out again. Its 99th percentile is
// that of the matches that had their core to themselves: see quiet.
func BenchmarkMatchBesideWriter(b *testing.B) {
	const nodes, pace = 64, 10e6
	for _, mode := range []Mode{Exact, Bisect} {
		b.Run(modeName(mode), func(b *testing.B) {
			ix, chains := chainsOfOne(b, mode, nodes, 512)
			if err := ix.SetNode(NodeInfo{ID: nodeName(nodes), Incarnation: 1}); err != nil {
				b.Fatal(err)
			}
			var written atomic.Int64
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				writeAtPace(b, ix, nodeName(nodes), pace, &written, stop)
			}()
			var m Match
			request := make([]block.Key, 512)
			i, before := 0, written.Load()
			var q quiet
			q.start()
			for b.Loop() {
				copy(request, chains[i*7919%len(chains)])
				began := time.Now()
				ix.Match(request, &m)
				q.took(time.Since(began))
				i++
				if m.Blocks != 512 {
					b.Fatalf("%d blocks", m.Blocks)
				}
			}
			wrote := float64(written.Load()-before) / b.Elapsed().Seconds() / 1e6
			close(stop)
			<-done
			q.report(b)
			b.ReportMetric(wrote, "Mblocks/s")
		})
	}
}

// quiet takes the times of what is short, and tells those apart in which the kernel gave the
// core to somebody else: in the run or just before it, so that the processor's caches are
// somebody else's as well. On a busy machine they say nothing about the code.
type quiet struct {
	all, alone []time.Duration
	switches   int64
	gcs        uint32
}

// start locks the goroutine to its thread until report.
func (q *quiet) start() {
	runtime.LockOSThread()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	q.gcs, q.switches = stats.NumGC, switches()
}

// took takes one time.
func (q *quiet) took(took time.Duration) {
	now := switches()
	q.all = append(q.all, took)
	if now == q.switches {
		q.alone = append(q.alone, took)
	}
	q.switches = now
}

func (q *quiet) report(b *testing.B) {
	defer runtime.UnlockOSThread()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	slices.Sort(q.all)
	b.ReportMetric(float64(q.all[len(q.all)*99/100])/1e3, "p99-of-all-µs")
	b.ReportMetric(100*float64(len(q.all)-len(q.alone))/float64(len(q.all)), "%-disturbed")
	b.ReportMetric(float64(stats.NumGC-q.gcs), "collections")
	if len(q.alone) > 0 {
		reportTimes(b, q.alone)
	}
}

// switches is how often the calling thread has lost its core, or given it up.
func switches() int64 {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if syscall.Getrusage(thread, &u) != nil {
		return 0
	}
	return u.Nvcsw + u.Nivcsw
}

// writeAtPace adds blocks of one node and removes them again, at most pace a second.
func writeAtPace(b *testing.B, ix *Index, node string, pace float64, written *atomic.Int64, stop <-chan struct{}) {
	events := addEvents(5, 1, 1<<18)
	began, position := time.Now(), uint64(0)
	for stored := true; ; stored = !stored {
		for i := range events {
			for j := range events[i].Changes {
				events[i].Changes[j].Stored = stored
			}
		}
		for i := range events {
			select {
			case <-stop:
				return
			default:
			}
			e := Event{Node: node, Incarnation: 1, First: position + 1, Changes: events[i].Changes}
			if err := ix.Apply(e); err != nil {
				b.Error(err)
				return
			}
			position = e.Last()
			written.Store(int64(position))
			for float64(position) > time.Since(began).Seconds()*pace {
			}
		}
	}
}

// BenchmarkHolders says what further holders of a block cost.
func BenchmarkHolders(b *testing.B) {
	const blocks = 1 << 16
	keys := chain(rand.New(rand.NewPCG(4, 4)), blocks)
	for _, holders := range []int{1, 2, 4, 8, 64} {
		b.Run(fmt.Sprint(holders), func(b *testing.B) {
			var stats Stats
			for b.Loop() {
				ix := newIndex(b, Exact, holders)
				all := make([]int, holders)
				for i := range all {
					all[i] = i
				}
				feed(b, ix, holders, [][]block.Key{keys}, func(int) []int { return all })
				stats = ix.Stats()
			}
			b.ReportMetric(float64(stats.Bytes)/blocks, "bytes/block")
			b.ReportMetric(float64(stats.Bytes)/blocks/float64(holders), "bytes/holder")
			b.ReportMetric(float64(b.N)*blocks*float64(holders)/b.Elapsed().Seconds()/1e6, "Mholders/s")
		})
	}
}

// BenchmarkLarge is an index of ten million blocks on a thousand nodes: look-ups, and
// the expiry of a node, which takes effect at once and is swept up afterwards.
func BenchmarkLarge(b *testing.B) {
	if testing.Short() {
		b.Skip("takes 2 GiB of memory")
	}
	const nodes, length = 1000, 512
	rng := rand.New(rand.NewPCG(6, 6))
	chains := make([][]block.Key, 10_000_000/length)
	for i := range chains {
		chains[i] = chain(rng, length)
	}
	for _, mode := range []Mode{Exact, Bisect} {
		ix := newIndex(b, mode, nodes)
		runtime.LockOSThread()
		began := cpuTime()
		feed(b, ix, nodes, chains, func(i int) []int { return []int{i % nodes} })
		adding := cpuTime() - began
		runtime.UnlockOSThread()
		stats := ix.Stats()
		b.Run(modeName(mode), func(b *testing.B) {
			benchMatch(b, ix, chains, length)
			b.ReportMetric(float64(stats.Bytes)/float64(stats.Blocks), "bytes/block")
			b.ReportMetric(float64(stats.Blocks)/adding.Seconds()/1e6, "added-Mblocks/cpu-s")
		})
		if mode == Exact {
			continue
		}
		b.Run("expiry", func(b *testing.B) { benchExpiry(b, ix, nodes) })
	}
}

// benchExpiry takes nodes out, one after the other; the sweep that follows is timed on
// its own, and its longest step, in which the index cannot change.
func benchExpiry(b *testing.B, ix *Index, nodes int) {
	var remove, sweep, longest time.Duration
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	i := 0
	for b.Loop() {
		began := cpuTime()
		ix.RemoveNode(nodeName(i%nodes), uint64(1+i/nodes))
		remove += cpuTime() - began
		for more := true; more; {
			began := cpuTime()
			more = ix.Sweep()
			step := cpuTime() - began
			sweep, longest = sweep+step, max(longest, step)
		}
		if err := ix.SetNode(NodeInfo{ID: nodeName(i % nodes), Incarnation: uint64(2 + i/nodes)}); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(remove.Nanoseconds())/1e3/float64(b.N), "gone-after-cpu-µs")
	b.ReportMetric(float64(sweep.Microseconds())/1e3/float64(b.N), "sweep-cpu-ms")
	b.ReportMetric(float64(longest.Microseconds()), "longest-step-cpu-µs")
}
