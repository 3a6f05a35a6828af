package router

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"cairn/block"
)

func TestLookUpsDoNotAllocate(t *testing.T) {
	ix := newIndex(t, Exact, 20)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 100)
	for n := range 20 {
		mustApply(t, ix, stored(nodeName(n), 1, block.Host, keys[:5*(n+1)]))
	}
	var m Match
	var holders []Holder
	look := func() {
		ix.Match(keys, &m)
		holders = ix.Holders(keys[0], holders[:0])
	}
	look()
	if n := testing.AllocsPerRun(100, look); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Readers beside a writer, on a chain that one node always holds: whatever the
// writer does with others, a reader sees all of it, and nothing that never was.
func TestReadersBesideAWriter(t *testing.T) {
	const nodes = 24
	ix := newIndex(t, Exact, nodes)
	rng := rand.New(rand.NewPCG(9, 9))
	keys := chain(rng, 200)
	never := chain(rng, 200)
	mustApply(t, ix, stored("node-0", 1, block.Disk, keys))

	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			var m Match
			var holders []Holder
			for {
				select {
				case <-stop:
					return
				default:
				}
				ix.Match(keys, &m)
				if o := m.Of("node-0"); m.Blocks != len(keys) || o.Prefix != len(keys) || o.Held.Total() != len(keys) {
					t.Errorf("node-0 holds %d of %d blocks", o.Prefix, m.Blocks)
					return
				}
				for i := 0; i < len(keys); i += 17 {
					seen := map[string]bool{}
					holders = ix.Holders(keys[i], holders[:0])
					for _, h := range holders {
						if seen[h.Node] || h.Tiers == 0 || h.Node == "node-0" && h.Tiers != block.MaskOf(block.Disk) {
							t.Errorf("holders of one block: %v", holders)
							return
						}
						seen[h.Node] = true
					}
					if h := ix.Holders(never[i], nil); len(h) != 0 {
						t.Errorf("a block nobody stored is held by %v", h)
						return
					}
				}
			}
		})
	}
	positions, incarnations := make([]uint64, nodes), make([]uint64, nodes)
	for range 1500 {
		n := 1 + rng.IntN(nodes-1)
		if rng.IntN(30) == 0 {
			ix.RemoveNode(nodeName(n), incarnations[n]+1)
			incarnations[n]++
			positions[n] = 0
			if err := ix.SetNode(NodeInfo{ID: nodeName(n), Incarnation: incarnations[n] + 1}); err != nil {
				t.Fatal(err)
			}
		}
		e := Event{Node: nodeName(n), Incarnation: incarnations[n] + 1, First: positions[n] + 1}
		add := rng.IntN(2) == 0
		for range 40 {
			k := keys[rng.IntN(len(keys))]
			if rng.IntN(4) == 0 {
				k = chain(rng, 1)[0] // others come and go around the chain
			}
			e.Changes = append(e.Changes, Change{Key: k, Tier: block.Tier(rng.IntN(block.Tiers)), Stored: add})
		}
		if rng.IntN(50) == 0 {
			var entries []Entry
			for _, k := range keys {
				entries = append(entries, Entry{Key: k, Tiers: block.MaskOf(block.VRAM)})
			}
			if err := ix.Load(e.Node, e.Incarnation, positions[n], entries); err != nil {
				t.Fatal(err)
			}
		}
		mustApply(t, ix, e)
		positions[n] = e.Last()
	}
	close(stop)
	readers.Wait()
}

// A reader that meets a change half done waits for the rest. The test holds the
// change open and gives the reader every chance to answer too early.
func TestReaderWaitsForAHalfDoneChange(t *testing.T) {
	ix := newIndex(t, Exact, 8)
	key := chain(rand.New(rand.NewPCG(1, 1)), 1)
	for n := range 8 {
		mustApply(t, ix, stored(nodeName(n), 1, block.Host, key))
	}
	fp := fingerprint(&key[0])
	s := ix.shardOf(fp)
	table := s.table.Load()
	word, _ := table.find(fp)
	if !isSet(word) {
		t.Fatal("eight holders must need a set")
	}
	size := &table.arena[setOffset(word)]

	ix.mu.Lock()
	s.begin()
	atomic.StoreUint64(size, 3)
	started, answer := make(chan struct{}), make(chan int, 1)
	go func() {
		close(started)
		answer <- len(ix.Holders(key[0], nil))
	}()
	<-started
	for range 2000 {
		runtime.Gosched()
	}
	atomic.StoreUint64(size, 8)
	s.end()
	ix.mu.Unlock()
	if n := <-answer; n != 8 {
		t.Errorf("the reader saw %d of 8 holders", n)
	}
}
