package router

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"cairn/block"
)

// chain is count random keys at positions 0…count-1.
func chain(rng *rand.Rand, count int) []block.Key {
	keys := make([]block.Key, count)
	for i := range keys {
		var hash [block.HashSize]byte
		binary.LittleEndian.PutUint64(hash[:], rng.Uint64())
		binary.LittleEndian.PutUint32(hash[8:], rng.Uint32())
		keys[i], _ = block.NewKey(i, hash)
	}
	return keys
}

func nodeName(i int) string { return "node-" + strconv.Itoa(i) }

func newIndex(tb testing.TB, mode Mode, nodes int) *Index {
	tb.Helper()
	ix, err := NewIndex(IndexConfig{Mode: mode})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range nodes {
		if err := ix.SetNode(NodeInfo{ID: nodeName(i), Incarnation: 1, Addr: nodeName(i) + ":7000"}); err != nil {
			tb.Fatal(err)
		}
	}
	return ix
}

// feed applies chains, one to a node in turn, in events of 16 blocks.
func feed(tb testing.TB, ix *Index, nodes int, chains [][]block.Key, to func(chain int) []int) {
	tb.Helper()
	position := make([]uint64, nodes)
	var changes []Change
	for i, keys := range chains {
		for _, n := range to(i) {
			for at := 0; at < len(keys); at += 16 {
				changes = changes[:0]
				for _, k := range keys[at:min(at+16, len(keys))] {
					changes = append(changes, Change{Key: k, Tier: block.Host, Stored: true})
				}
				e := Event{Node: nodeName(n), Incarnation: 1, First: position[n] + 1, Changes: changes}
				if err := ix.Apply(e); err != nil {
					tb.Fatal(err)
				}
				position[n] = e.Last()
			}
		}
	}
}

const benchBlocks = 1 << 20

// BenchmarkMatch looks prompts up among a million blocks on 64 nodes, and takes the
// best node.
func BenchmarkMatch(b *testing.B) {
	const nodes = 64
	for _, mode := range []Mode{Exact, Bisect} {
		for _, length := range []int{64, 512, 4096} {
			b.Run(fmt.Sprintf("%s/one-holder/%d", modeName(mode), length), func(b *testing.B) {
				ix, chains := chainsOfOne(b, mode, nodes, length)
				benchMatch(b, ix, chains, length)
			})
		}
		for _, nodes := range []int{8, 64, 512} {
			b.Run(fmt.Sprintf("%s/shared-16/%d-nodes", modeName(mode), nodes), func(b *testing.B) {
				ix, chains := chainsWithSharedPrompt(b, mode, nodes)
				benchMatch(b, ix, chains, 512)
			})
		}
	}
}

// chainsOfOne is a million blocks, every chain on one node.
func chainsOfOne(b *testing.B, mode Mode, nodes, length int) (*Index, [][]block.Key) {
	rng := rand.New(rand.NewPCG(1, uint64(length)))
	chains := make([][]block.Key, benchBlocks/length)
	for i := range chains {
		chains[i] = chain(rng, length)
	}
	ix := newIndex(b, mode, nodes)
	feed(b, ix, nodes, chains, func(i int) []int { return []int{i % nodes} })
	return ix, chains
}

// chainsWithSharedPrompt is a million blocks in chains of 512, of which all nodes hold
// the first 16, the same in every chain, and two nodes the rest.
func chainsWithSharedPrompt(b *testing.B, mode Mode, nodes int) (*Index, [][]block.Key) {
	rng := rand.New(rand.NewPCG(2, uint64(nodes)))
	shared := chain(rng, 16)
	chains := make([][]block.Key, benchBlocks/512)
	for i := range chains {
		chains[i] = append(shared[:16:16], chain(rng, 512)[16:]...)
	}
	ix := newIndex(b, mode, nodes)
	seed := make([][]block.Key, 0, len(chains)+1)
	feed(b, ix, nodes, append(append(seed, shared), chains...), func(i int) []int {
		if i > 0 {
			return []int{i % nodes, (i + 1) % nodes}
		}
		all := make([]int, nodes)
		for j := range all {
			all[j] = j
		}
		return all
	})
	return ix, chains
}

func modeName(m Mode) string { return [...]string{"exact", "bisect"}[m] }

// benchMatch reports the median beside the mean, which other load on the machine
// spoils. The clock starts when the keys of the prompt have been written to a request, as
// after it was decoded: they are in the processor's cache, and the index is not.
func benchMatch(b *testing.B, ix *Index, chains [][]block.Key, want int) {
	b.ReportAllocs()
	var m Match
	took := make([]time.Duration, 0, 1<<20)
	request := make([]block.Key, want)
	i := 0
	for b.Loop() {
		// Chains in an order that the cache does not know.
		copy(request, chains[i*7919%len(chains)])
		began := time.Now()
		ix.Match(request, &m)
		best := longest(&m)
		took = append(took[:len(took)%cap(took)], time.Since(began))
		i++
		if best == nil || best.Prefix != want {
			b.Fatalf("%d blocks of %d", m.Blocks, want)
		}
	}
	reportTimes(b, took)
}

// longest is the node with the longest prefix; nil when nobody holds anything.
func longest(m *Match) (best *Overlap) {
	for i := range m.Nodes {
		if o := &m.Nodes[i]; best == nil || o.Prefix > best.Prefix {
			best = o
		}
	}
	return best
}

func reportTimes(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
}

// cpuTime is the processor time of the calling thread, which has to be locked to its
// goroutine: what other load on the machine takes from it does not count.
func cpuTime() time.Duration {
	const threadClock = 3 // CLOCK_THREAD_CPUTIME_ID
	var t syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadClock, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0
	}
	return time.Duration(t.Nano())
}

// BenchmarkApply adds blocks in events of 16 to an index that grows from nothing.
func BenchmarkApply(b *testing.B) {
	for _, c := range []struct {
		name          string
		blocks, nodes int
	}{{"1M", benchBlocks, 64}, {"10M", 10 * benchBlocks, 1000}} {
		b.Run(c.name, func(b *testing.B) {
			if testing.Short() && c.blocks > benchBlocks {
				b.Skip("takes 2 GiB of memory")
			}
			benchApply(b, c.nodes, c.blocks)
		})
	}
}

func benchApply(b *testing.B, nodes, blocks int) {
	events := addEvents(3, nodes, blocks)
	var stats Stats
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var cpu, best time.Duration
	for b.Loop() {
		ix := newIndex(b, Exact, nodes)
		began := cpuTime()
		for _, e := range events {
			if err := ix.Apply(e); err != nil {
				b.Fatal(err)
			}
		}
		took := cpuTime() - began
		if cpu += took; best == 0 || took < best {
			best = took
		}
		stats = ix.Stats()
	}
	b.ReportMetric(float64(b.N)*float64(blocks)/cpu.Seconds()/1e6, "Mblocks/cpu-s")
	b.ReportMetric(float64(blocks)/best.Seconds()/1e6, "best-Mblocks/cpu-s")
	b.ReportMetric(float64(b.N)*float64(blocks)/b.Elapsed().Seconds()/1e6, "Mblocks/s")
	b.ReportMetric(float64(stats.Bytes)/float64(stats.Blocks), "bytes/block")
}

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
