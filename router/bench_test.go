package router

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

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

// BenchmarkMatch looks prompts up among a million blocks on 64 nodes.
func BenchmarkMatch(b *testing.B) {
	const nodes = 64
	for _, mode := range []Mode{Exact, Bisect} {
		for _, length := range []int{64, 512, 4096} {
			rng := rand.New(rand.NewPCG(1, uint64(length)))
			chains := make([][]block.Key, benchBlocks/length)
			for i := range chains {
				chains[i] = chain(rng, length)
			}
			ix := newIndex(b, mode, nodes)
			feed(b, ix, nodes, chains, func(i int) []int { return []int{i % nodes} })
			benchMatch(b, fmt.Sprintf("%s/one-holder/%d", modeName(mode), length), ix, chains, length)
		}
		for _, pods := range []int{8, 64, 512} {
			rng := rand.New(rand.NewPCG(2, uint64(pods)))
			shared := chain(rng, 16)
			chains := make([][]block.Key, benchBlocks/512)
			for i := range chains {
				chains[i] = append(shared[:16:16], chain(rng, 512)[16:]...)
			}
			ix := newIndex(b, mode, pods)
			seed := make([][]block.Key, 0, len(chains)+1)
			feed(b, ix, pods, append(append(seed, shared), chains...), func(i int) []int {
				if i > 0 {
					return []int{i % pods, (i + 1) % pods}
				}
				all := make([]int, pods)
				for j := range all {
					all[j] = j
				}
				return all
			})
			benchMatch(b, fmt.Sprintf("%s/shared-16/%d-nodes", modeName(mode), pods), ix, chains, 512)
		}
	}
}

func modeName(m Mode) string { return [...]string{"exact", "bisect"}[m] }

func benchMatch(b *testing.B, name string, ix *Index, chains [][]block.Key, want int) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		var m Match
		i := 0
		for b.Loop() {
			// Chains in an order that the cache does not know.
			ix.Match(chains[i*7919%len(chains)], &m)
			i++
			if m.Blocks != want {
				b.Fatalf("%d blocks", m.Blocks)
			}
		}
	})
}

// BenchmarkApply adds blocks in events of 16 to an index that grows to a million.
func BenchmarkApply(b *testing.B) {
	const nodes = 64
	rng := rand.New(rand.NewPCG(3, 3))
	events := make([]Event, benchBlocks/16)
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
	var stats Stats
	for b.Loop() {
		ix := newIndex(b, Exact, nodes)
		for _, e := range events {
			if err := ix.Apply(e); err != nil {
				b.Fatal(err)
			}
		}
		stats = ix.Stats()
	}
	b.ReportMetric(float64(b.N)*benchBlocks/b.Elapsed().Seconds()/1e6, "Mblocks/s")
	b.ReportMetric(float64(stats.Bytes)/float64(stats.Blocks), "bytes/block")
}
