package node

import (
	"container/heap"
	"context"
	"maps"
	"slices"
	"sync"

	"cairn/block"
	"cairn/wire"
)

// takeBatch is the most blocks in one request to a receiver, takeBytes the bytes after
// which it is full.
const (
	takeBatch = 32
	takeBytes = 64 << 20
)

// pass carries the chains of one look to receivers, several at a time. A chain is begun
// after the one that it hangs on has ended.
type pass struct {
	h         *handover
	n         *Node
	staying   map[string]*receiver
	receivers []*receiver // the same, by name

	// mu guards what follows. h.mu may be taken with it held.
	mu     sync.Mutex
	placed map[block.Key][]*receiver // who has taken a block in this pass
	tokens map[*receiver]wire.Token  // of the last that each has taken
	handed int64                     // sole blocks
	queue  chainQueue
	busy   int        // chains that are being carried
	change *sync.Cond // of queue and busy
}

func newPass(h *handover, staying map[string]*receiver) *pass {
	p := &pass{h: h, n: h.n, staying: staying, placed: map[block.Key][]*receiver{}, tokens: map[*receiver]wire.Token{}}
	p.change = sync.NewCond(&p.mu)
	for _, id := range slices.Sorted(maps.Keys(staying)) {
		p.receivers = append(p.receivers, staying[id])
	}
	return p
}

// chainQueue is a heap of the chains that may begin, the worthiest first.
type chainQueue []*chain

func (q chainQueue) Len() int           { return len(q) }
func (q chainQueue) Less(i, j int) bool { return q[i].worth > q[j].worth }
func (q chainQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *chainQueue) Push(x any)        { *q = append(*q, x.(*chain)) }
func (q *chainQueue) Pop() any {
	last := len(*q) - 1
	c := (*q)[last]
	*q = (*q)[:last]
	return c
}

// run hands over the chains, and returns how many blocks were taken. The index knows of
// them then.
func (p *pass) run(ctx context.Context, chains []*chain) int64 {
	p.queue = chains
	heap.Init(&p.queue)
	var workers sync.WaitGroup
	for range p.n.cfg.HandoverChains {
		workers.Go(func() { p.work(ctx) })
	}
	workers.Wait()
	ctx, cancel := context.WithTimeout(ctx, p.n.cfg.FetchTimeout)
	defer cancel()
	for _, token := range p.tokens {
		_ = p.n.peers.Await(ctx, token) // who has died meanwhile is found out by the next look
	}
	return p.handed
}

// work carries chains until there are no more.
func (p *pass) work(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for len(p.queue) == 0 && p.busy > 0 {
			p.change.Wait()
		}
		if len(p.queue) == 0 || ctx.Err() != nil {
			p.change.Broadcast()
			return
		}
		c := heap.Pop(&p.queue).(*chain)
		p.busy++
		p.mu.Unlock()
		p.carry(ctx, c)
		p.mu.Lock()
		p.busy--
		for _, b := range c.branches {
			heap.Push(&p.queue, b)
		}
		p.change.Broadcast()
	}
}

// carry gives a chain to the receiver that bids best, and, where that one takes no more,
// the rest to the next.
func (p *pass) carry(ctx context.Context, c *chain) {
	rest := c.blocks
	for len(rest) > 0 && ctx.Err() == nil {
		r, before, why := p.choose(rest)
		if r != nil {
			var given int
			given, why = p.give(ctx, r, before, rest)
			rest = rest[given:]
			if why == "" || given > 0 || r.refuses(p.h) {
				continue
			}
		}
		p.h.set(ctx, func(s *HandoverStatus) { s.Refused[why] += int64(len(rest)) })
		return
	}
}

// refuses tells whether the receiver takes no more for now.
func (r *receiver) refuses(h *handover) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return r.refused != ""
}

// choose finds the receiver for a chain, and what it has to be given before it; nil, and
// why, if there is none.
func (p *pass) choose(blocks []soleBlock) (r *receiver, before []block.Descriptor, why TakeRefusal) {
	bids := p.bids(blocks[0].Descriptor)
	var bytes int64
	for _, b := range blocks {
		bytes += int64(b.Length)
	}
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	b, ok := best(bids, int64(blocks[0].Length), bytes)
	switch {
	case ok:
		return b.r, b.before, ""
	case len(p.staying) == 0:
		return nil, nil, TakeNobody
	case len(bids) == 0:
		return nil, nil, TakeCut
	}
	for _, b := range bids {
		if b.r.refused != "" && b.r.refused != TakeFull {
			why = b.r.refused
		}
	}
	if why == "" {
		why = TakeFull
	}
	return nil, nil, why
}

// bids are the receivers that can hold the block without a hole before it: those that
// hold its parent, or can be given all that they lack of what is before it, as far as this
// node holds that.
func (p *pass) bids(d block.Descriptor) []bid {
	var bids []bid
	var before []block.Descriptor
	var bytes int64
	met := map[*receiver]bool{}
	for !d.Parent.IsZero() {
		for _, r := range p.holders(d.Parent) {
			if !met[r] {
				met[r] = true
				bids = append(bids, bid{r, slices.Clip(before), bytes})
			}
		}
		e, ok := p.n.dir.get(d.Parent)
		if len(met) == len(p.receivers) || !ok || d.Parent.Position() >= d.Key.Position() {
			return bids
		}
		d = e.descriptor(d.Parent)
		before = append(before, d)
		bytes += int64(d.Length)
	}
	for _, r := range p.receivers {
		if !met[r] {
			bids = append(bids, bid{r, before, bytes})
		}
	}
	return bids
}

// holders are the receivers that keep a block.
func (p *pass) holders(key block.Key) []*receiver {
	p.mu.Lock()
	list := slices.Clone(p.placed[key])
	p.mu.Unlock()
	for _, h := range p.n.peers.Locate([]block.Key{key})[0] {
		if r := p.staying[h.Node]; r.keeps(h.Tiers) {
			list = append(list, r)
		}
	}
	return list
}

// give hands r what it lacks before a chain, and of the chain as much as it takes. It
// returns how many blocks of the chain r has then, and why not all; empty also means that
// its grant ends there.
func (p *pass) give(ctx context.Context, r *receiver, before []block.Descriptor, blocks []soleBlock) (given int, why TakeRefusal) {
	list := make([]block.Descriptor, 0, len(before)+len(blocks))
	for _, d := range slices.Backward(before) {
		list = append(list, d)
	}
	for _, b := range blocks {
		list = append(list, b.Descriptor)
	}
	at := 0
	for at < len(list) {
		count, bytes := p.reserve(r, list[at:])
		if count == 0 || !p.h.pace.wait(ctx, bytes) {
			p.unreserve(r, bytes)
			break
		}
		var held int
		held, why = p.offer(ctx, r, list[at:at+count], bytes)
		p.took(ctx, r, list[at:at+held], max(held-max(len(before)-at, 0), 0))
		at += held
		if held < count {
			break
		}
	}
	return max(at-len(before), 0), why
}

// reserve takes the next blocks out of what r may be given, and returns how many and
// their bytes.
func (p *pass) reserve(r *receiver, list []block.Descriptor) (count int, bytes int64) {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	for count < min(len(list), takeBatch, p.n.cfg.MaxBatch) && bytes < takeBytes {
		length := int64(list[count].Length)
		if r.given+length > r.grant {
			break
		}
		r.given += length
		bytes += length
		count++
	}
	return count, bytes
}

func (p *pass) unreserve(r *receiver, bytes int64) {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	r.given -= bytes
}

// offer has r take over blocks, for which bytes are reserved, and returns how many of the
// leading ones it holds then.
func (p *pass) offer(ctx context.Context, r *receiver, list []block.Descriptor, bytes int64) (held int, why TakeRefusal) {
	keys := make([]block.Key, len(list))
	for i, d := range list {
		keys[i] = d.Key
	}
	t, err := p.h.ask(ctx, r.Addr, keys)
	if err != nil {
		p.n.log.Debug("hand over", "member", r.Node, "blocks", len(list), "err", err)
		t = Taken{Refused: TakePeer}
	}
	held = min(t.Held, len(list))
	for _, d := range list[:held] {
		bytes -= int64(d.Length)
	}
	p.unreserve(r, bytes)
	if err == nil {
		p.mu.Lock()
		p.tokens[r] = t.Token
		p.mu.Unlock()
	}
	if held == len(list) {
		return held, ""
	}
	if t.Refused != TakeCut && t.Refused != TakeAbsent { // these are of one chain
		p.h.mu.Lock()
		r.refused = t.Refused
		p.h.mu.Unlock()
	}
	return held, t.Refused
}

// took counts blocks that r holds now, the last sole of which were sole copies.
func (p *pass) took(ctx context.Context, r *receiver, list []block.Descriptor, sole int) {
	var bytes int64
	for _, d := range list[len(list)-sole:] {
		bytes += int64(d.Length)
	}
	p.mu.Lock()
	for _, d := range list {
		p.placed[d.Key] = append(p.placed[d.Key], r)
	}
	p.handed += int64(sole)
	p.mu.Unlock()
	p.h.set(ctx, func(s *HandoverStatus) {
		t := p.h.tally[r.Node]
		if t == nil {
			t = new(tally)
			p.h.tally[r.Node] = t
		}
		t.blocks += int64(sole)
		t.bytes += bytes
		s.Blocks += int64(sole)
		s.Bytes += bytes
		s.LeftBlocks -= int64(sole)
		s.LeftBytes -= bytes
	})
}
