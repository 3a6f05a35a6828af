package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"cairn/block"
	"cairn/tier"
)

// fetched is a block that came from a peer, in a slot of the host tier that is
// not part of the cache: fetching does not by itself duplicate a block. Everyone
// who waited for the same fetch shares it.
type fetched struct {
	block.Descriptor
	slot tier.Reservation
	buf  []byte // in place of slot when the host tier had no room

	done chan struct{}
	err  error // set before done is closed

	g *fetches
	// refs counts those who wait or read; g.mu guards it.
	refs int
}

func (f *fetched) bytes() []byte {
	if f.slot != nil {
		return f.slot.Bytes()
	}
	return f.buf
}

func (f *fetched) release() {
	f.g.mu.Lock()
	f.refs--
	last := f.refs == 0
	f.g.mu.Unlock()
	if last && f.slot != nil {
		f.slot.Abort()
		f.g.room.notify()
	}
}

// fetches lets concurrent misses for one key share one fetch.
type fetches struct {
	room *broadcast // who waits for room in the host tier

	// mu guards inFlight and every fetched's refs.
	mu       sync.Mutex
	inFlight map[block.Key]*fetched
}

// join returns the fetch of key that is under way, or a new one that the caller
// must finish. Either way the caller holds a reference.
func (g *fetches) join(key block.Key) (f *fetched, mine bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f, ok := g.inFlight[key]; ok {
		f.refs++
		return f, false
	}
	if g.inFlight == nil {
		g.inFlight = make(map[block.Key]*fetched)
	}
	f = &fetched{Descriptor: block.Descriptor{Key: key}, g: g, refs: 1, done: make(chan struct{})}
	g.inFlight[key] = f
	return f, true
}

// finish ends a fetch; with nil err the bytes are there.
func (g *fetches) finish(f *fetched, err error) {
	g.mu.Lock()
	delete(g.inFlight, f.Key)
	g.mu.Unlock()
	f.err = err
	close(f.done)
}

// fetchMissing fills loans[i] for each i of missing with what peers hold.
func (n *Node) fetchMissing(ctx context.Context, keys []block.Key, missing []int, loans []*Loan) {
	waiting := make(map[int]*fetched, len(missing))
	var mine []*fetched
	for _, i := range missing {
		f, first := n.fetches.join(keys[i])
		waiting[i] = f
		if first {
			mine = append(mine, f)
		}
	}
	if len(mine) > 0 {
		// The fetch serves others as well, so it does not end with this request.
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.cfg.FetchTimeout)
		n.fetchAll(fctx, mine)
		cancel()
	}
	for _, i := range missing {
		f := waiting[i]
		select {
		case <-f.done:
		case <-ctx.Done():
			f.release()
			n.counters.miss(ctx.Err())
			continue
		}
		if f.err != nil {
			f.release()
			n.counters.miss(f.err)
			continue
		}
		loans[i] = &Loan{Descriptor: f.Descriptor, Bytes: f.bytes(), Origin: FromPeer, fetched: f}
	}
}

// fetchAll asks the holders of each block, the best first, until one gives it.
// Blocks with the same next holder travel in one request; different holders are
// asked in parallel.
func (n *Node) fetchAll(ctx context.Context, wanted []*fetched) {
	keys := make([]block.Key, len(wanted))
	for i, f := range wanted {
		keys[i] = f.Key
	}
	holders := n.peers.Locate(keys)
	for i, f := range wanted {
		if len(holders[i]) == 0 {
			if h, ok := n.writerOf(f.Key); ok {
				holders[i] = []Holder{h}
			}
		}
	}
	errs := make([]error, len(wanted))
	for i := range errs {
		errs[i] = tier.ErrNotFound // until a holder gives the block
	}
	for try := 0; ; try++ {
		byHolder := map[string][]int{}
		for i := range wanted {
			if errs[i] != nil && try < len(holders[i]) {
				addr := holders[i][try].Addr
				byHolder[addr] = append(byHolder[addr], i)
			}
		}
		if len(byHolder) == 0 {
			break
		}
		var wg sync.WaitGroup
		for addr, list := range byHolder {
			wg.Go(func() { n.fetchFrom(ctx, addr, wanted, list, errs) })
		}
		wg.Wait()
	}
	for i, f := range wanted {
		n.fetches.finish(f, errs[i])
	}
}

// fetchFrom asks one peer for the blocks wanted[i], i in list, and sets errs[i].
func (n *Node) fetchFrom(ctx context.Context, addr string, wanted []*fetched, list []int, errs []error) {
	keys := make([]block.Key, len(list))
	for j, i := range list {
		keys[j] = wanted[i].Key
		errs[i] = tier.ErrNotFound
	}
	got := make([]bool, len(list))
	err := n.dialer.fetch(ctx, addr, keys, func(j int, d block.Descriptor) ([]byte, error) {
		f := wanted[list[j]]
		f.Descriptor = d
		r, evicted, err := n.host.Reserve(ctx, int(d.Length))
		n.evicted(block.Host, evicted)
		switch {
		case err == nil:
			f.slot = r
		case errors.Is(err, tier.ErrFull), errors.Is(err, tier.ErrTooLarge):
			f.buf = make([]byte, d.Length)
		default:
			return nil, err
		}
		return f.bytes(), nil
	}, func(j int) { got[j] = true })
	for j, i := range list {
		f := wanted[i]
		switch {
		case got[j] && f.Matches(f.bytes()):
			errs[i] = nil
			continue
		case got[j]:
			errs[i] = fmt.Errorf("%w: from peer %s", tier.ErrCorrupt, addr)
			n.log.Warn("peer sent bytes that do not match their checksum", "key", f.Key, "peer", addr)
		case err != nil:
			errs[i] = fmt.Errorf("%w: %s: %w", ErrPeer, addr, err)
		}
		if f.slot != nil {
			f.slot.Abort()
		}
		f.slot, f.buf = nil, nil
	}
	if err != nil {
		n.counters.peerErrors.Add(1)
		n.log.Debug("fetch from peer", "peer", addr, "blocks", len(list), "err", err)
	}
}

// ErrPeer: a peer could not be reached, or broke the protocol.
var ErrPeer = errors.New("peer failed")
