package router

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"cairn/block"
)

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
