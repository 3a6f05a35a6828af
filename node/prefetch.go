package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/sequence"
)

// ErrPrefetchQueue: too many prefetches wait already.
var ErrPrefetchQueue = errors.New("too many prefetches wait")

// prefetches bring blocks into memory ahead of the requests that will need them. Each is a
// sequence that nobody else sees: a request that comes meanwhile joins its transfers as it
// joins those of other sequences (sequence_claims.go). What has come stays pinned for
// a while, so that it is there when the request comes, and is an ordinary part of the
// cache afterwards.
//
// Nobody waits for a prefetch and nobody is refused for one: they are dropped when too
// many wait, have a share of each tier for themselves, and let go, the oldest first, of what
// they pin as soon as a sequence, or a block that is put, needs the room.
type prefetches struct {
	n     *Node
	queue chan *prefetch

	asked, ended, dropped, gaveWay atomic.Int64
	blocks, bytes                  [origins]atomic.Int64

	over chan struct{} // closed when nothing is brought any more
	// expiring are those whose time is over and that are being let go of.
	expiring sync.WaitGroup

	// mu guards what follows, and the timers.
	mu   sync.Mutex
	held []*prefetch // which run or pin something, the oldest first
}

// prefetch is blocks that somebody has asked to be brought into a tier.
type prefetch struct {
	s  *Sequence
	to block.Tier
	// holdFor is for how long it pins what has come, and passing that it does not stay.
	holdFor time.Duration
	passing bool
	done    chan struct{}      // closed when it brings nothing more
	stop    context.CancelFunc // set before it is held
	timer   *time.Timer        // lets go of it; nil until it has ended
}

func newPrefetches(n *Node) *prefetches {
	return &prefetches{n: n, queue: make(chan *prefetch, n.cfg.PrefetchQueue), over: make(chan struct{})}
}

// PrefetchSpec says what to bring into memory ahead of a request.
type PrefetchSpec struct {
	// Tier is where to: host or vram.
	Tier block.Tier
	// Keys are those of a sequence, from position 0 on. As many are brought, from the
	// first on, as can be had.
	Keys []block.Key
	// Wait is in how long the request is expected; at most longestAhead.
	Wait time.Duration
	// Passing: what comes from peers is only for that request. Unless it was
	// fetched before, within Config.KeepWithin, or is in use, it leaves the tier when it is
	// let go of.
	Passing bool
}

// longestAhead bounds PrefetchSpec.Wait, and so how long a prefetch may hold blocks.
const longestAhead = time.Minute

// Prefetch asks that blocks be brought into memory ahead of a request for them. It
// does not wait; done is closed when nothing more is brought. It
// fails with ErrPrefetchQueue, ErrNoTier, ErrPosition, ErrSequenceLimit and ErrClosed.
func (n *Node) Prefetch(spec PrefetchSpec) (done <-chan struct{}, err error) {
	p, err := n.newPrefetch(spec)
	if err != nil {
		return nil, err
	}
	f := n.prefetches
	f.asked.Add(1)
	if err := f.enqueue(p); err != nil {
		if !errors.Is(err, ErrClosed) {
			f.dropped.Add(1)
		}
		return nil, err
	}
	return p.done, nil
}

// PrefetchWait is Prefetch for who has time: it waits for a place in the queue, and for
// the end, until ctx ends. It returns how many blocks, from the first on, this node has
// then, in whatever tier.
func (n *Node) PrefetchWait(ctx context.Context, spec PrefetchSpec) (here int, err error) {
	p, err := n.newPrefetch(spec)
	if err != nil {
		return 0, err
	}
	f := n.prefetches
	f.asked.Add(1)
	switch err := f.enqueue(p); {
	case errors.Is(err, ErrClosed):
		return 0, err
	case err != nil:
		select {
		case f.queue <- p:
		case <-ctx.Done():
			f.dropped.Add(1)
			return n.leading(spec.Keys), nil
		case <-f.over:
			return 0, ErrClosed
		}
	}
	select {
	case <-p.done:
	case <-ctx.Done():
	case <-f.over:
	}
	return n.leading(spec.Keys), nil
}

// leading is how many of the blocks, from the first on, this node has.
func (n *Node) leading(keys []block.Key) int {
	for i, key := range keys {
		if !n.Holds(key) {
			return i
		}
	}
	return len(keys)
}

func (n *Node) newPrefetch(spec PrefetchSpec) (*prefetch, error) {
	select {
	case <-n.prefetches.over:
		return nil, ErrClosed
	default:
	}
	if _, err := n.sequences.pinner(spec.Tier); err != nil {
		return nil, err
	}
	s := n.newSequence()
	s.ahead = true
	if err := s.addKeys(spec.Keys); err != nil {
		return nil, err
	}
	hold := n.cfg.PrefetchHold + min(max(spec.Wait, 0), longestAhead)
	return &prefetch{s: s, to: spec.Tier, holdFor: hold, passing: spec.Passing, done: make(chan struct{})}, nil
}

func (f *prefetches) enqueue(p *prefetch) error {
	f.mu.Lock() // else it could come when the queue has been emptied for good
	defer f.mu.Unlock()
	select {
	case <-f.over:
		return ErrClosed
	default:
	}
	select {
	case f.queue <- p:
		return nil
	default:
		return fmt.Errorf("%w: %d, prefetch-queue", ErrPrefetchQueue, cap(f.queue))
	}
}

// run brings what is asked for until ctx ends, and then lets go of everything.
func (f *prefetches) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range f.n.cfg.Prefetches {
		workers.Go(func() {
			for {
				select {
				case p := <-f.queue:
					f.carry(ctx, p)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	workers.Wait()
	f.mu.Lock()
	close(f.over)
	held := slices.Clone(f.held)
	f.mu.Unlock()
	for len(f.queue) > 0 {
		close((<-f.queue).done)
	}
	for _, p := range held {
		f.letGo(p)
	}
	f.expiring.Wait()
}

// carry brings the blocks of one prefetch, and keeps them pinned for a while.
func (f *prefetches) carry(ctx context.Context, p *prefetch) {
	defer close(p.done)
	ctx, p.stop = context.WithCancel(ctx)
	f.hold(p)
	var got Onboarded
	for at, all := 0, len(p.s.keys()); at < all && ctx.Err() == nil; at = got.Range.End {
		t, end := p.next(at)
		var err error
		got, err = p.s.Onboard(ctx, t, sequence.Range{Start: at, End: end})
		for o := range Origin(origins) {
			if o != Origin(t) { // those were there
				f.blocks[o].Add(int64(got.Blocks[o]))
				f.bytes[o].Add(got.Bytes[o])
			}
		}
		if err != nil || got.Range.End < end {
			break
		}
	}
	f.ended.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.held, p) {
		p.timer = time.AfterFunc(p.holdFor, func() { f.expire(p) })
	}
}

// next is where the blocks from position at to end belong: the ones that GPU memory has
// stay there when they are asked for in host memory.
func (p *prefetch) next(at int) (t block.Tier, end int) {
	keys := p.s.keys()
	tierOf := func(i int) block.Tier {
		if e, ok := p.s.n.dir.get(keys[i]); ok && e.state.Valid().Has(block.VRAM) && !e.state.Valid().Has(p.to) {
			return block.VRAM
		}
		return p.to
	}
	t = tierOf(at)
	for end = at + 1; end < len(keys) && tierOf(end) == t; end++ {
	}
	return t, end
}

// hold takes note of a prefetch that begins. The oldest is let go of where there are too
// many.
func (f *prefetches) hold(p *prefetch) {
	f.mu.Lock()
	f.held = append(f.held, p)
	var oldest *prefetch
	if len(f.held) > f.n.cfg.PrefetchQueue {
		oldest = f.held[0]
	}
	f.mu.Unlock()
	if oldest != nil {
		f.letGo(oldest)
	}
}

// letGo ends a prefetch: nothing is pinned for it any more.
func (f *prefetches) letGo(p *prefetch) {
	f.mu.Lock()
	f.held = slices.DeleteFunc(f.held, func(other *prefetch) bool { return other == p })
	if p.timer != nil {
		p.timer.Stop()
	}
	f.mu.Unlock()
	p.stop()
	p.s.drop()
}

// expire lets go of a prefetch whose time is over.
func (f *prefetches) expire(p *prefetch) {
	f.mu.Lock()
	select {
	case <-f.over:
		f.mu.Unlock()
		return
	default:
	}
	f.expiring.Add(1)
	f.mu.Unlock()
	defer f.expiring.Done()
	f.letGo(p)
	if p.passing {
		f.n.pass(p.to, p.s.keys(), p.s.firstFetched())
	}
}

// giveWay lets go of prefetches, the oldest first, as long as more says so.
func (f *prefetches) giveWay(more func() bool) {
	f.mu.Lock()
	held := slices.Clone(f.held)
	f.mu.Unlock()
	for _, p := range held {
		if !more() {
			return
		}
		f.gaveWay.Add(1)
		f.letGo(p)
	}
}

// yield gives the room in a tier back that prefetches keep. It reports whether there was
// any, so that what failed for want of it may be tried again.
func (f *prefetches) yield(t block.Tier) bool {
	if f.n.sequences.pinnedAhead(t) == 0 {
		return false
	}
	f.giveWay(func() bool { return f.n.sequences.pinnedAhead(t) > 0 })
	return true
}

// PrefetchStatus sums up the prefetches of a node. Counters count since the node
// started.
type PrefetchStatus struct {
	// Asked counts what was asked for, Dropped what was not begun because too many
	// waited, Ended what was brought as far as it could be had, and GaveWay what lost
	// its pins to somebody else before its time.
	Asked   int64 `json:"asked"`
	Dropped int64 `json:"dropped"`
	Ended   int64 `json:"ended"`
	GaveWay int64 `json:"gave_way"`
	// Waiting have not begun; Held run, or pin blocks.
	Waiting int `json:"waiting"`
	Held    int `json:"held"`
	// Pinned is the bytes of each tier that only prefetches pin.
	Pinned map[string]int64 `json:"pinned_bytes"`
	// Blocks and Bytes are what was brought, by where it came from; Used is how many of
	// these blocks a sequence pinned while they were still held.
	Blocks map[string]int64 `json:"blocks"`
	Bytes  map[string]int64 `json:"bytes"`
	Used   int64            `json:"used"`
}

func (f *prefetches) status() PrefetchStatus {
	st := PrefetchStatus{
		Asked: f.asked.Load(), Dropped: f.dropped.Load(), Ended: f.ended.Load(), GaveWay: f.gaveWay.Load(),
		Waiting: len(f.queue), Used: f.n.sequences.usedAhead.Load(),
		Pinned: map[string]int64{}, Blocks: map[string]int64{}, Bytes: map[string]int64{},
	}
	for o := range Origin(origins) {
		st.Blocks[o.String()] = f.blocks[o].Load()
		st.Bytes[o.String()] = f.bytes[o].Load()
	}
	for _, t := range []block.Tier{block.VRAM, block.Host} {
		st.Pinned[t.String()] = f.n.sequences.pinnedAhead(t)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st.Held = len(f.held)
	return st
}
