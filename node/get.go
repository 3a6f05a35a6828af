package node

import (
	"context"
	"errors"

	"cairn/block"
	"cairn/tier"
)

// Scope says how far a read may go.
type Scope uint8

const (
	// Cluster asks the local tiers, then the peers.
	Cluster Scope = iota
	// Local asks the tiers of this node only.
	Local
)

// Read lends the bytes of each key in turn; a missing block is a nil loan. It
// stops early when the loans reach Config.MaxBatchBytes: done is the number of
// keys answered, at least 1 unless keys is empty. The caller owns the loans and
// releases each one that is not nil.
//
// Anything that goes wrong with one block (a checksum, a dead peer, a full host
// tier) makes that block a miss, counted with its reason; it never yields wrong
// bytes.
func (n *Node) Read(ctx context.Context, keys []block.Key, scope Scope) (loans []*Loan, done int) {
	return n.readMany(ctx, keys, scope, nil)
}

// readMany is Read for sealed blocks and objects of names; holders says who has the
// objects of names.
func (n *Node) readMany(ctx context.Context, keys []block.Key, scope Scope, holders func(i int) []Holder) (loans []*Loan, done int) {
	loans = make([]*Loan, len(keys))
	var missing []int
	total := 0
	for i, key := range keys {
		if i > 0 && total >= n.cfg.MaxBatchBytes {
			break
		}
		loan, err := n.readLocal(ctx, key)
		switch {
		case err == nil:
			loans[i] = loan
			total += len(loan.Bytes)
		case scope == Cluster:
			missing = append(missing, i)
		default:
			n.counters.miss(err)
		}
		done = i + 1
	}
	if len(missing) > 0 {
		n.fetchMissing(ctx, keys, missing, loans, nil, holders)
	}
	for _, l := range loans[:done] {
		if l != nil {
			n.counters.hit(l)
		}
	}
	return loans[:done], done
}

// readLocal lends a block that a tier of this node holds. Bytes leave a node from
// host memory, so the host's copy is asked first; one that is only in GPU memory
// or on disk is staged into the host tier and lent from there.
func (n *Node) readLocal(ctx context.Context, key block.Key) (*Loan, error) {
	const tries = 3 // a small host tier may evict between staging and viewing
	origin := FromHost
	for range tries {
		e, ok := n.dir.use(key)
		if !ok {
			return nil, tier.ErrNotFound
		}
		valid := e.state.Valid()
		if valid.Has(block.Host) {
			v, err := n.host.View(key)
			if err == nil {
				n.considerPromotion(key, e)
				return &Loan{Descriptor: v.Descriptor, Bytes: v.Bytes, Origin: origin, view: v, room: &n.room}, nil
			}
			n.dropped(block.Host, key)
			continue
		}
		from, ok := valid.Fastest()
		if !ok {
			return nil, tier.ErrNotFound
		}
		err := n.stage(ctx, key, e, from)
		switch {
		case err == nil:
			origin = Origin(from)
		case errors.Is(err, tier.ErrFull), errors.Is(err, tier.ErrTooLarge):
			return n.readAside(ctx, key, e, from)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
	}
	e, ok := n.dir.get(key)
	if !ok {
		return nil, tier.ErrNotFound
	}
	from, ok := e.state.Valid().Without(block.Host).Fastest()
	if !ok {
		return nil, tier.ErrNotFound
	}
	return n.readAside(ctx, key, e, from)
}

// stage copies a block from GPU memory or disk into the host tier. Concurrent
// calls for one block share the copy.
func (n *Node) stage(ctx context.Context, key block.Key, e entry, from block.Tier) error {
	return n.staging.do(ctx, key, func() error {
		if now, ok := n.dir.get(key); !ok || now.state.Valid().Has(block.Host) {
			return nil
		}
		r, evicted, err := n.host.Reserve(ctx, int(e.length))
		n.evicted(block.Host, evicted)
		if err != nil {
			return err
		}
		d := e.descriptor(key)
		if err := n.copyOut(ctx, d, from, r.Bytes()); err != nil {
			r.Abort()
			return err
		}
		if err := r.Commit(d, 0); err != nil {
			return err
		}
		return n.adopt(d, block.Host)
	})
}

// readAside reads a block into memory of its own: the way out when the host tier
// has no room for it. What one tier cannot give is asked of the next.
func (n *Node) readAside(ctx context.Context, key block.Key, e entry, from block.Tier) (*Loan, error) {
	d := e.descriptor(key)
	buf := make([]byte, d.Length)
	err := n.copyOut(ctx, d, from, buf)
	for t := range e.state.Valid().Without(block.Host).Without(from).All() {
		if err == nil || ctx.Err() != nil {
			break
		}
		from, err = t, n.copyOut(ctx, d, t, buf)
	}
	if err != nil {
		return nil, err
	}
	return &Loan{Descriptor: d, Bytes: buf, Origin: Origin(from)}, nil
}

// copyOut reads the block d from a tier other than the host's into dst, and
// verifies it. When the tier has lost the block, or holds other bytes, the
// directory learns it.
func (n *Node) copyOut(ctx context.Context, d block.Descriptor, from block.Tier, dst []byte) error {
	got, err := n.stores[from].Get(ctx, d.Key, dst)
	return n.verified(from, d, got, dst, err)
}

// verified is what a tier other than the host's has answered to a Get of the block d: got
// and the bytes p, or err. See copyOut.
func (n *Node) verified(from block.Tier, d, got block.Descriptor, p []byte, err error) error {
	if err == nil && (got.Length != d.Length || got.Sum != d.Sum || from == block.VRAM && !d.Matches(p)) {
		n.stores[from].Delete(d.Key)
		err = tier.ErrCorrupt
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, tier.ErrCorrupt):
		n.log.Warn("corrupt block dropped", "key", d.Key, "tier", from)
		n.dropped(from, d.Key)
	case errors.Is(err, tier.ErrNotFound):
		n.dropped(from, d.Key)
	case errors.Is(err, tier.ErrDeviceLost):
		n.tierLost(from)
	}
	n.counters.readErrors.Add(1)
	return err
}
