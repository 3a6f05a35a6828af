package node

import (
	"cairn/block"
	"cairn/sequence"
	"cairn/tier"
)

// source is where blocks come from: a tier of this node, or a peer.
type source struct {
	tier block.Tier
	peer string // address; "" for a tier
}

// transfer is blocks of one part that come from one source, by ascending position.
type transfer struct {
	part  *part
	from  source
	pairs []sequence.Pair
}

// plan gives the missing blocks slots in the tier, and finds for each block where it
// comes from. Blocks that follow each other and have the same source travel together, at
// most Config.SequenceBatch of them; transfers come in the order of the sequence.
func (o *onboarding) plan() []transfer {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	load := map[string]int{} // transfers from each peer
	var transfers []transfer
	for _, p := range o.parts {
		if p.Start >= o.end {
			break
		}
		p.dst = o.s.runAt(o.to, p.Start, p.Len())
		froms := o.sources(p, load)
		for at := 0; at < len(froms); {
			from, n := froms[at], 1
			for at+n < len(froms) && froms[at+n] == from && n < o.n.cfg.SequenceBatch {
				n++
			}
			if from != nil {
				pairs := sequence.ZipAssignedPending(o.assigned(p.Start+at, n), p.dst)
				transfers = append(transfers, transfer{part: p, from: *from, pairs: pairs})
			}
			at += n
		}
		if _, err := p.dst.StagePending(o.keys[:p.End]); err != nil {
			panic(err) // keys are checked when they join the sequence
		}
	}
	return transfers
}

// assigned is n blocks of the sequence, from position on, as a source holds them: slots
// are numbered by position there.
func (o *onboarding) assigned(position, n int) *sequence.Assignments[sequence.Bare] {
	a, err := sequence.NewAssignments[sequence.Bare](position)
	if err == nil {
		blocks := make([]sequence.Block[sequence.Bare], n)
		for i := range blocks {
			blocks[i] = sequence.Block[sequence.Bare]{ID: sequence.BlockID(position + i), Key: o.keys[position+i]}
		}
		_, err = a.ExtendAssigned(blocks)
	}
	if err != nil {
		panic(err) // keys are checked when they join the sequence
	}
	return a
}

// sources is where each block of p comes from: nil is nowhere, because it is there or
// because nobody has it. Equal sources of neighbours are the same pointer. load counts the
// blocks that each peer is to give; batches of blocks that several have are spread.
func (o *onboarding) sources(p *part, load map[string]int) []*source {
	froms := make([]*source, p.Len())
	var last *source
	alike := 0 // blocks in turn with that source
	use := func(i int, f source) {
		if last == nil || *last != f {
			last, alike = &f, 0
		}
		froms[i] = last
		load[f.peer]++
		if alike++; alike == o.n.cfg.SequenceBatch {
			last = nil // the next batch may have another
		}
	}
	keys := o.keys[p.Start:p.End]
	holders := o.n.peers.Locate(keys)
	for i, key := range keys {
		position := p.Start + i
		if o.has(p, position) {
			continue
		}
		if t, ok := o.nearest(key); ok {
			use(i, source{tier: t})
			continue
		}
		if peer := choose(holders[i], last, load); peer != "" {
			use(i, source{peer: peer})
			continue
		}
		o.missed(position, tier.ErrNotFound)
		return froms[:i]
	}
	return froms
}

// nearest is the tier of this node, other than the destination, that gives the block
// fastest.
func (o *onboarding) nearest(key block.Key) (block.Tier, bool) {
	e, ok := o.n.dir.get(key)
	if !ok {
		return 0, false
	}
	held := e.state.Valid().Without(o.to)
	if held.Has(block.Host) {
		return block.Host, true
	}
	return held.Fastest()
}

// choose takes the peer that gave the block before, so that batches are long, or else the
// one with the least to do, the best of equals.
func choose(holders []Holder, last *source, load map[string]int) string {
	best := ""
	for _, h := range holders {
		if last != nil && h.Addr == last.peer {
			return h.Addr
		}
		if best == "" || load[h.Addr] < load[best] {
			best = h.Addr
		}
	}
	return best
}
