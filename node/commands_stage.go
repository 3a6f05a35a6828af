package node

import (
	"context"
	"encoding/binary"
	"fmt"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/resp"
	"cairn/tier"
)

// reserveStaged takes memory for an object that a peer stages here. It does not wait for a
// slot of the host tier: what fills the tier may itself wait for a home, this one
// or one that waits for this one. Without a slot the object goes straight to the disk.
func (n *Node) reserveStaged(ctx context.Context, length int) (*Incoming, error) {
	if n.home == block.Host {
		return n.Reserve(ctx, length)
	}
	if length > n.cfg.MaxBlock {
		return nil, fmt.Errorf("%w: %d bytes, max-block-bytes is %d", tier.ErrTooLarge, length, n.cfg.MaxBlock)
	}
	if in, err := n.tryReserve(ctx, length); err == nil {
		return in, nil
	}
	return &Incoming{n: n, buf: make([]byte, length)}, nil
}

// receive takes in the bytes of a staged object. Those that lie in a slot become an object
// of the host tier, pinned once; others are returned.
func (in *Incoming) receive(v ledger.Value) (aside []byte, err error) {
	d := block.Descriptor{Key: v.Object, Length: v.Length, Sum: v.Sum}
	if !d.Matches(in.Bytes()) {
		in.Abort()
		return nil, fmt.Errorf("%w: object %s", tier.ErrCorrupt, d.Key)
	}
	if in.r == nil {
		return in.buf, nil
	}
	return nil, in.keep(d)
}

// takeStaged is take for an object that a peer stages here.
func (s *session) takeStaged(ctx context.Context, args [][]byte, arg int) (*Incoming, error) {
	for i, a := range s.incoming {
		if a.arg == arg && a.in != nil {
			s.incoming[i].in = nil
			return a.in, nil
		}
	}
	in, err := s.n.reserveStaged(ctx, len(args[arg]))
	if err == nil {
		copy(in.Bytes(), args[arg])
	}
	return in, err
}

// cairnStage is CAIRN.STAGE member incarnation {write object}…, by which a node
// gives its objects to their homes. It answers, for each object, 1 when it is
// durable here, 2 when there is no room for it and 0 when it is not durable for
// another reason.
func (s *session) cairnStage(ctx context.Context, w *resp.Writer, args [][]byte) {
	if len(args[2]) != 8 || len(args)%2 != 1 || len(args[1]) > maxID {
		wrongArity(w, args[0])
		return
	}
	author := stageAuthor{node: string(args[1]), incarnation: binary.BigEndian.Uint64(args[2])}
	n := (len(args) - 3) / 2
	items, asides := make([]stagedWrite, 0, n), make([][]byte, 0, n)
	answers := make([]int64, n) // stageRefused
	var at []int
	writes := make([]stagedWrite, n)
	for i := range n {
		var err error
		if writes[i], err = parseStaged(args[3+2*i]); err != nil {
			fail(w, err)
			return
		}
	}
	for i, item := range writes {
		in, err := s.takeStaged(ctx, args, 4+2*i)
		var aside []byte
		if err == nil {
			aside, err = in.receive(item.Value)
		}
		if err != nil {
			s.n.log.Warn("an object could not be staged here", "from", author.node, "object", item.Value.Object, "err", err)
			continue
		}
		items, asides, at = append(items, item), append(asides, aside), append(at, i)
	}
	for j, err := range s.n.coherence.homed.store(ctx, author, items, asides) {
		answers[at[j]] = stageAnswer(err)
		if err != nil {
			s.n.log.Warn("an object could not be staged here", "from", author.node, "object", items[j].Value.Object, "err", err)
		}
		if asides[j] == nil {
			s.n.host.Unpin(items[j].Value.Object)
		}
	}
	s.n.room.notify()
	w.Array(n)
	for _, a := range answers {
		w.Int(a)
	}
}
