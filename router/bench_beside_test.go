package router

import (
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cairn/block"
)

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
