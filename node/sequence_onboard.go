package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"cairn/block"
	"cairn/sequence"
	"cairn/tier"
)

// Onboarded says what an onboard has brought.
type Onboarded struct {
	// Range is which blocks lie in the tier now, pinned and without a gap, from the
	// first one that was asked for on.
	Range sequence.Range
	// Blocks and Bytes are what this call has pinned, and by where it came from. A block
	// that was in the tier already counts as from there.
	Blocks [origins]int
	Bytes  [origins]int64
	// Missing is why the block behind Range is not there: "" when all are, else a reason
	// for a miss: absent, corrupt, peer, full, timeout, other.
	Missing string
	// Elapsed is how long it took.
	Elapsed time.Duration
}

// Onboard brings blocks into tier t, host or vram, and pins them there until they are
// truncated or the sequence is closed. want is which ones; an End of 0 is all that the
// sequence has. What the tier has is pinned at once. The rest comes from the other tiers
// of this node, then from peers; blocks nearest to the start first, since a prefix is of
// use only without gaps; at most Config.SequenceTransfers transfers of
// Config.SequenceBatch blocks at a time.
//
// A block that cannot be had ends the range, and is no error: what comes before it is
// onboarded. Too many pins are an error, a *PinsError, and the range before it is
// onboarded as well. When ctx ends, or the call is cancelled, the error is that, and
// everything that it had pinned is let go.
func (s *Sequence) Onboard(ctx context.Context, t block.Tier, want sequence.Range) (Onboarded, error) {
	began := time.Now()
	store, err := s.n.sequences.pinner(t)
	if err != nil {
		return Onboarded{}, err
	}
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return Onboarded{}, err
	}
	defer done()
	keys := s.keys()
	if want.End == 0 {
		want.End = len(keys)
	}
	if want.Start < 0 || want.Start > want.End || want.End > len(keys) {
		return Onboarded{}, outside(want, len(keys))
	}
	o := &onboarding{s: s, n: s.n, to: t, store: store, keys: keys, end: want.End, taken: map[int]bool{}}
	o.news.L = &o.mu
	s.mu.Lock()
	gaps := s.tiers[t].gaps(want)
	for _, gap := range gaps {
		o.parts = append(o.parts, &part{Range: gap, holds: make([]landing, gap.Len())})
	}
	s.now = o
	s.mu.Unlock()
	err = o.run(ctx)
	var got Onboarded
	o.finish(err, &got)
	s.mu.Lock()
	got.Range = sequence.Range{Start: want.Start, End: min(s.tiers[t].reach(want.Start), want.End)}
	s.mu.Unlock()
	if err == nil && s.n.lost[t].Load() {
		err = fmt.Errorf("%w: onboard into another tier: %w", ErrNoTier, tier.ErrDeviceLost)
	}
	if err == nil && got.Range.End < want.End {
		got.Missing = missNames[reasonOf(o.reason)]
		err = pinsProblem(o.reason)
	}
	got.Elapsed = time.Since(began)
	if s.ahead {
		return got, err // nobody has missed anything
	}
	if got.Missing != "" {
		s.n.counters.miss(o.reason)
	}
	s.n.sequences.count(got, err)
	return got, err
}

// onboarding is one Onboard under way.
type onboarding struct {
	s     *Sequence
	n     *Node
	to    block.Tier
	store tier.Pinner // of that tier
	keys  []block.Key // of the whole sequence; only read
	parts []*part     // by ascending position

	// mu guards what follows, and the holds of the parts.
	mu     sync.Mutex
	news   sync.Cond    // taken has changed; on mu
	end    int          // blocks from here on are not wanted, or not any more
	reason error        // why end is less than what was asked for
	taken  map[int]bool // positions that may be pinned and have not landed yet
}

// part is a range of blocks that the tier lacks in the sequence, and where they go.
type part struct {
	sequence.Range
	dst   *run
	holds []landing // by position from Start on
}

// landing is a block that lies in the tier, pinned. The zero value is one that does not.
type landing struct {
	hold
	length uint32
	from   Origin
}

// run pins what is there, plans and carries out the transfers. Its error is ctx's.
func (o *onboarding) run(ctx context.Context) error {
	for _, p := range o.parts {
		o.pinPresent(p)
	}
	transfers := o.plan()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, o.n.cfg.SequenceTransfers)
	var flying sync.WaitGroup
	defer flying.Wait()
	for _, t := range transfers {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !o.wanted(t.pairs[0].Position) {
			break
		}
		flying.Go(func() {
			defer func() { <-slots }()
			o.carry(ctx, t)
		})
	}
	flying.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// wanted tells whether the block at position is still of use.
func (o *onboarding) wanted(position int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return position < o.end
}

// missed says that the block at position cannot be had: nothing from there on is of use.
func (o *onboarding) missed(position int, why error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if position < o.end {
		o.end, o.reason = position, why
	}
}

// take lets the block at position be pinned. landed or drop must follow. Blocks nearer to
// the start go first: where sequences may not pin more, those behind this one are let go
// for it.
func (o *onboarding) take(position int, d block.Descriptor) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		err := o.pins(d)
		if err == nil {
			o.taken[position] = true
			return nil
		}
		if position >= o.end {
			return errUnwanted
		}
		if o.letGoLocked(position, err) {
			continue
		}
		last := position
		for other := range o.taken {
			last = max(last, other)
		}
		if last == position {
			return err
		}
		if last < o.end {
			o.end, o.reason = last, err
		}
		o.news.Wait()
	}
}

// pins accounts for a pin on a block of the destination.
func (o *onboarding) pins(d block.Descriptor) error {
	if o.s.ahead {
		return o.n.sequences.takeAhead(o.to, d.Key, d.Length)
	}
	return o.n.sequences.take(o.to, d.Key, d.Length)
}

// abandon unpins what has landed, and lets nothing more be pinned. The sequence is locked.
func (o *onboarding) abandon() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.end, o.reason = 0, errUnwanted
	for _, p := range o.parts {
		for i := range p.holds {
			p.holds[i].Release()
			p.holds[i] = landing{}
		}
	}
}

// letGoLocked unpins the last block that has landed behind position, if there is one.
func (o *onboarding) letGoLocked(position int, why error) bool {
	for _, p := range slices.Backward(o.parts) {
		for i := len(p.holds) - 1; i >= 0 && p.Start+i > position; i-- {
			if p.holds[i].q == nil {
				continue
			}
			p.holds[i].Release()
			p.holds[i] = landing{}
			if p.Start+i < o.end {
				o.end, o.reason = p.Start+i, why
			}
			return true
		}
	}
	return false
}

// landed makes a pin of the store on the block at position one of the sequence.
func (o *onboarding) landed(p *part, position int, d block.Descriptor, object uint64, from Origin) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.taken, position)
	o.news.Broadcast()
	h := hold{o.n.sequences, o.to, d.Key, object, o.s.ahead}
	if position >= o.end {
		h.Release()
		return
	}
	p.holds[position-p.Start] = landing{h, d.Length, from}
}

// drop says that the block at position does not land.
func (o *onboarding) drop(position int, d block.Descriptor) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.taken, position)
	o.news.Broadcast()
	o.n.sequences.give(o.to, d.Key, o.s.ahead)
}

func (o *onboarding) has(p *part, position int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return p.holds[position-p.Start].q != nil
}

// pinPresent pins the blocks of p that the tier has, before anything else could evict
// them.
func (o *onboarding) pinPresent(p *part) {
	for position := p.Start; position < p.End && o.wanted(position); position++ {
		if e, ok := o.n.dir.get(o.keys[position]); ok && e.state.Valid().Has(o.to) {
			if err := o.pin(p, position, e.descriptor(o.keys[position])); pinsProblem(err) != nil {
				o.missed(position, err)
			}
		}
	}
}

// pin pins a block that the tier has.
func (o *onboarding) pin(p *part, position int, d block.Descriptor) error {
	if err := o.take(position, d); err != nil {
		return err
	}
	object, err := o.store.PinExact(d.Key)
	if err != nil {
		o.drop(position, d)
		return err
	}
	o.landed(p, position, d, object, Origin(o.to))
	return nil
}

// finish makes what has landed without a gap part of the sequence, and lets go of the
// rest; of everything when failed is not nil. got learns what has come from where.
func (o *onboarding) finish(failed error, got *Onboarded) {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	o.s.now = nil
	whole := failed == nil
	for _, p := range o.parts {
		var pins []hold
		for _, l := range p.holds {
			if whole = whole && l.q != nil; !whole {
				l.Release()
				continue
			}
			pins = append(pins, l.hold)
			got.Blocks[l.from]++
			got.Bytes[l.from] += int64(l.length)
		}
		if p.dst != nil {
			if _, err := p.dst.CommitPinned(pins); err != nil {
				panic(err) // all of them are staged
			}
			p.dst.TakeStaged()
		}
	}
}
