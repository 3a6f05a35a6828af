package node

import (
	"context"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/coherency"
	"cairn/sequence"
	"cairn/tier"
	"cairn/wire"
)

// CommittedBlocks says what became of a Commit.
type CommittedBlocks struct {
	// Stored blocks are new to this node; Existed it had already.
	Stored, Existed int
	// Token is the place of the last appearance in this node's stream of changes.
	Token wire.Token
}

// Commit stores blocks that the engine has computed, from position on, as Incoming.Commit
// does, with their keys and parents from the sequence, and pins them in the host tier. It
// takes over all of blocks, also on error: then those before the one that failed are
// stored and pinned.
func (s *Sequence) Commit(ctx context.Context, position int, blocks []*Incoming, p coherency.WritePolicy) (CommittedBlocks, error) {
	var c CommittedBlocks
	defer func() {
		for _, in := range blocks[c.Stored+c.Existed:] {
			in.Abort()
		}
	}()
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return c, err
	}
	defer done()
	keys := s.keys()
	if position < 0 || position+len(blocks) > len(keys) {
		return c, fmt.Errorf("%w: extend it first", outside(sequence.Range{Start: position, End: position + len(blocks)}, len(keys)))
	}
	for _, in := range blocks {
		placed, err := s.commitOne(ctx, keys[:position+1], in, p)
		if err != nil {
			err = fmt.Errorf("block %d of the sequence: %w", position, err)
		}
		if placed.Token.Node == "" {
			return c, err // not stored
		}
		if placed.Existed {
			c.Existed++
		} else {
			c.Stored++
		}
		c.Token = placed.Token
		if err != nil {
			return c, err
		}
		position++
	}
	return c, nil
}

// commitOne stores the block with the last key.
func (s *Sequence) commitOne(ctx context.Context, keys []block.Key, in *Incoming, p coherency.WritePolicy) (Placed, error) {
	position := len(keys) - 1
	var parent block.Key
	if position > 0 {
		parent = keys[position-1]
	}
	q, key, length := s.n.sequences, keys[position], uint32(len(in.Bytes()))
	s.mu.Lock()
	there := len(s.tiers[block.Host].gaps(sequence.Range{Start: position, End: position + 1})) == 0
	s.mu.Unlock()
	if there {
		return in.Commit(ctx, key, parent, p)
	}
	if err := q.take(block.Host, key, length); err != nil {
		in.Abort()
		return Placed{}, err
	}
	h := hold{q: q, tier: block.Host, key: key}
	placed, err := in.Commit(ctx, key, parent, p)
	if err == nil {
		if h.object, err = s.n.host.PinExact(key); errors.Is(err, tier.ErrNotFound) {
			h.object, err = s.n.recall(ctx, key) // it was evicted, or lay in another tier all the time
		}
		if err != nil {
			err = fmt.Errorf("the block is stored, but cannot be pinned in host memory: %w", err)
		}
	}
	if err != nil {
		q.give(block.Host, key, false)
		return placed, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runAt(block.Host, position, 1)
	_, err = r.StagePending(keys)
	if err == nil {
		_, err = r.CommitPinned([]hold{h})
	}
	if err != nil {
		panic(err) // keys are checked when they join the sequence
	}
	return placed, nil
}

// recall brings a block of this node into the host tier and pins it there, exactly.
func (n *Node) recall(ctx context.Context, key block.Key) (object uint64, err error) {
	loan, err := n.readLocal(ctx, key)
	if err != nil {
		return 0, err
	}
	defer loan.Release()
	return n.host.PinExact(key)
}
