package client

import (
	"context"
	"strconv"
	"time"

	"cairn/block"
	"cairn/resp"
)

// Prefetch tells the node to bring blocks into tier t, GPU or host memory, ahead of a request
// for them. keys are those of a sequence, from position 0 on; as many are brought, from the
// first on, as can be had. With wait 0 it returns how many the node has taken on, which is
// all or, when too many prefetches wait there, none. Otherwise it returns when nothing more
// is to be had, or after wait in milliseconds, how many of them, from the first on, the node
// itself has then, in whatever tier.
func (n *Node) Prefetch(ctx context.Context, t block.Tier, keys []block.Key, wait time.Duration) (blocks int, err error) {
	err = n.chain(ctx, "prefetch", func(conn *resp.Conn) error {
		words := 2
		if wait > 0 {
			words += 2
		}
		conn.AppendHeader(words + len(keys))
		conn.AppendString("CAIRN.PREFETCH")
		conn.AppendString(t.String())
		if wait > 0 {
			conn.AppendString("WAIT")
			conn.AppendString(strconv.FormatInt(wait.Milliseconds(), 10))
		}
		for i := range keys {
			conn.AppendArg(keys[i][:])
		}
		v, err := conn.ReadInt()
		blocks = int(v)
		return err
	})
	return blocks, err
}
