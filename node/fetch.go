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
// not part of the cache: the first fetch does not duplicate a block (keep.go). Everyone
// who waited for the same fetch shares it.
type fetched struct {
	block.Descriptor
	slot tier.Reservation
	buf  []byte // in place of slot when the host tier had no room
	kept *Loan  // in place of slot for what becomes a cached copy

	holders []Holder // whom to ask; nil: those that the index knows

	done chan struct{}
	err  error // set before done is closed

	g *fetches
	// refs counts those who wait or read; g.mu guards it.
	refs int
}

func (f *fetched) bytes() []byte {
	switch {
	case f.slot != nil:
		return f.slot.Bytes()
	case f.kept != nil:
		return f.kept.Bytes
	}
	return f.buf
}

func (f *fetched) release() {
	f.g.mu.Lock()
	f.refs--
	last := f.refs == 0
	f.g.mu.Unlock()
	switch {
	case !last:
	case f.slot != nil:
		f.slot.Abort()
		f.g.room.notify()
	case f.kept != nil:
		f.kept.Release()
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

// fetchMissing fills loans[i] for each i of missing with what peers hold, or errs[i]
// if errs is not nil. holders says whom to ask; nil: whom the index knows.
func (n *Node) fetchMissing(ctx context.Context, keys []block.Key, missing []int, loans []*Loan, errs []error, holders func(i int) []Holder) {
	failed := func(i int, err error) {
		n.counters.miss(err)
		if errs != nil {
			errs[i] = err
		}
	}
	waiting := make(map[int]*fetched, len(missing))
	var mine []*fetched
	for _, i := range missing {
		f, first := n.fetches.join(keys[i])
		waiting[i] = f
		if first {
			if holders != nil {
				f.holders = holders(i)
			}
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
			failed(i, ctx.Err())
			continue
		}
		if f.err != nil {
			err := f.err
			f.release()
			failed(i, err)
			continue
		}
		loans[i] = &Loan{Descriptor: f.Descriptor, Bytes: f.bytes(), Origin: FromPeer, fetched: f}
	}
}

// fetchAll asks the holders of each block, the best first, until one gives it.
// Blocks with the same next holder travel in one request; different holders are
// asked in parallel.
func (n *Node) fetchAll(ctx context.Context, wanted []*fetched) {
	holders := n.holdersOf(wanted)
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

// holdersOf are the peers to ask for each block: of a named object its homes, which
// come with it, of a sealed block those that the index knows.
func (n *Node) holdersOf(wanted []*fetched) [][]Holder {
	holders := make([][]Holder, len(wanted))
	var keys []block.Key
	var at []int
	for i, f := range wanted {
		if holders[i] = f.holders; !f.Key.Named() {
			keys, at = append(keys, f.Key), append(at, i)
		}
	}
	if len(keys) > 0 {
		for j, list := range n.peers.Locate(keys) {
			holders[at[j]] = list
		}
	}
	return holders
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
			if errs[i] = n.keepFetched(f); errs[i] == nil {
				continue
			}
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

// keepFetched makes the object of a name a cached copy: its version stays the newest
// until the log says otherwise. For a sealed block that depends; see keep.go.
func (n *Node) keepFetched(f *fetched) error {
	switch {
	case f.slot == nil:
		return nil
	case !f.Key.Named():
		return n.keepAgain(f)
	}
	loan, err := n.cacheNamed(f.Descriptor, f.slot)
	f.slot, f.kept = nil, loan
	return err
}

// ErrPeer: a peer could not be reached, or broke the protocol.
var ErrPeer = errors.New("peer failed")
