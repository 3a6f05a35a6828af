//go:build cuda && cgo

package cuda_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"cairn/block"
	"cairn/internal/testseed"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/cuda"
)

// Operations of TestRandomMoves in all.
const (
	randomOps     = 10_000
	randomOpsRace = 2_000
)

// mover promotes, demotes and evicts blocks of its own, so that it knows what the pool may hold of
// them. Its host memory is registered.
type mover struct {
	t     testing.TB
	rng   *rand.Rand
	pool  *vram.Pool
	first int         // of its blocks
	arena []byte      // host memory, some slots
	up    map[int]int // length of the blocks in the pool, by number, unless they were evicted
	// moves by kind
	promoted, demoted, deleted, batches, missed int
}

const (
	moverBlocks = 64
	largest     = 256 * kib
)

// content writes the bytes of a block of p's length to p.
func content(p []byte, number int) {
	state := uint64(number)*0x9e3779b97f4a7c15 + uint64(len(p))
	for len(p) > 0 {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], state)
		p = p[copy(p, word[:]):]
	}
}

func (m *mover) step() {
	number := m.first + m.rng.IntN(moverBlocks)
	n, up := m.up[number]
	switch op := m.rng.IntN(10); {
	case op == 0 && up:
		m.deleted++
		m.pool.Delete(key(number))
		delete(m.up, number)
	case op <= 1:
		m.batch()
	case up:
		m.demote(number, n)
	default:
		m.promote(number)
	}
}

// promote copies a block from host memory, or from the Go heap, to the device.
func (m *mover) promote(number int) {
	src := m.arena[:1+m.rng.IntN(largest)]
	if m.rng.IntN(4) == 0 {
		src = make([]byte, len(src))
	}
	content(src, number)
	_, err := m.pool.Put(context.Background(), block.Describe(key(number), block.Key{}, src), src)
	if err != nil {
		m.t.Errorf("promote: %v", err)
		return
	}
	m.promoted++
	m.up[number] = len(src)
	clear(src)
}

// demote copies a block back, compares every byte, and drops it from the device.
func (m *mover) demote(number, n int) {
	dst, want := m.arena[largest:][:largest], make([]byte, n)
	clear(dst)
	d, err := m.pool.Get(context.Background(), key(number), dst)
	delete(m.up, number)
	if errors.Is(err, tier.ErrNotFound) { // evicted
		m.missed++
		return
	}
	if err != nil {
		m.t.Errorf("demote: %v", err)
		return
	}
	content(want, number)
	if !bytes.Equal(dst[:d.Length], want) {
		m.t.Errorf("block %d came back with other bytes", number)
	}
	m.demoted++
	m.pool.Delete(key(number))
}

// batch promotes several blocks with one operation and reads them back with another.
func (m *mover) batch() {
	var items []tier.Item
	for i := range 4 {
		number := m.first + m.rng.IntN(moverBlocks)
		if _, up := m.up[number]; up {
			continue
		}
		src := m.arena[i*largest:][:1+m.rng.IntN(largest)]
		content(src, number)
		m.up[number] = len(src)
		items = append(items, tier.Item{Descriptor: block.Describe(key(number), block.Key{}, src), Bytes: src})
	}
	_, errs := m.pool.PutMany(context.Background(), items)
	for i, err := range errs {
		if err != nil {
			m.t.Errorf("promote item %d of %d: %v", i, len(errs), err)
		}
	}
	for i := range items {
		clear(items[i].Bytes)
	}
	for i, err := range m.pool.GetMany(context.Background(), items) {
		if errors.Is(err, tier.ErrNotFound) {
			m.missed++
		} else if err != nil || !items[i].Matches(items[i].Bytes) {
			m.t.Errorf("item %d of %d came back with other bytes, %v", i, len(items), err)
		}
	}
	m.batches++
	m.promoted += len(items)
}

// TestRandomMoves promotes, demotes and evicts blocks of random sizes at random, several at once, in a pool
// that has room for a part of them; every byte that comes back is compared.
func TestRandomMoves(t *testing.T) {
	const movers = 4
	ops := randomOps
	if raceEnabled {
		ops = randomOpsRace
	}
	seed := testseed.Of(t)
	arena := mapped(t, movers*4*largest)
	dev := open(t, cuda.Config{RegisterChunk: largest + 4096}) // so that some copies cross the border of two pieces
	if err := dev.Register(arena); err != nil {
		t.Fatal(err)
	}
	p := openPool(t, dev, vram.Config{Capacity: 16 << 20, Classes: []int{16 * kib, 64 * kib, largest}, RunSize: largest})
	var wg sync.WaitGroup
	list := make([]*mover, movers)
	for i := range list {
		m := &mover{t: t, rng: rand.New(rand.NewPCG(seed, uint64(i))), pool: p, first: i * moverBlocks, arena: arena[i*4*largest:][:4*largest], up: map[int]int{}}
		list[i] = m
		wg.Go(func() {
			for range ops / movers {
				m.step()
			}
		})
	}
	wg.Wait()
	var sum mover
	for _, m := range list {
		sum.promoted, sum.demoted = sum.promoted+m.promoted, sum.demoted+m.demoted
		sum.deleted, sum.batches, sum.missed = sum.deleted+m.deleted, sum.batches+m.batches, sum.missed+m.missed
	}
	s := p.Stats()
	t.Logf("%s: %d operations: %d blocks promoted, %d demoted, %d evicted (%d found so), %d deleted, %d batches",
		dev.Name(), ops, sum.promoted, sum.demoted, s.Evictions, sum.missed, sum.deleted, sum.batches)
	if s.Errors != 0 || s.Pinned != 0 || s.Evictions == 0 || sum.demoted == 0 || sum.missed == 0 {
		t.Errorf("at the end: %+v", s)
	}
}
