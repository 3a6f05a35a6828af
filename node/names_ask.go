package node

import (
	"context"
	"fmt"
	"sync"

	"cairn/block"
	"cairn/resp"
)

// nameAnswer is what a node knows of a name.
type nameAnswer struct {
	sequence uint64 // of the newest state applied there; 0: none, or no answer
	held     bool   // the node has the bytes of that state
	failed   bool   // the node is a member but gave no answer
	behind   bool   // the node has not applied the state that it is asked about
}

// askWriters asks, for each state, the node that wrote it, one request a node. A
// writer that is this node, or has left, gives the zero answer.
func (n *Node) askWriters(ctx context.Context, states []Name) []nameAnswer {
	answers := make([]nameAnswer, len(states))
	byAddr := map[string][]int{}
	for i, s := range states {
		if h, ok := n.peers.Peer(s.Writer); ok {
			byAddr[h.Addr] = append(byAddr[h.Addr], i)
		}
	}
	if len(byAddr) == 0 {
		return answers
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.FetchTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for addr, list := range byAddr {
		wg.Go(func() {
			keys := make([]block.Key, len(list))
			for j, i := range list {
				keys[j] = states[i].Key
			}
			got, err := n.dialer.names(ctx, addr, keys)
			for j, i := range list {
				if err != nil {
					answers[i].failed = true
				} else {
					answers[i] = got[j]
					answers[i].behind = got[j].sequence < states[i].Sequence
				}
			}
			if err != nil {
				n.counters.peerErrors.Add(1)
				n.log.Debug("ask a peer about names", "peer", addr, "names", len(list), "err", err)
			}
		})
	}
	wg.Wait()
	return answers
}

// names asks the node at addr about names, given by their keys.
func (d *dialer) names(ctx context.Context, addr string, keys []block.Key) ([]nameAnswer, error) {
	pool, err := d.pool(addr)
	if err != nil {
		return nil, err
	}
	conn, err := pool.Get(ctx)
	if err != nil {
		return nil, err
	}
	defer pool.Put(conn)
	conn.AppendHeader(1 + len(keys))
	conn.AppendString("CAIRN.NAMES")
	for i := range keys {
		conn.AppendArg(keys[i][:])
	}
	size, err := conn.ReadArrayLen()
	if err == nil && size != 2*len(keys) {
		err = fmt.Errorf("%w: %d numbers about %d names", ErrPeer, size, len(keys))
	}
	if err != nil {
		return nil, err
	}
	answers := make([]nameAnswer, len(keys))
	for i := range answers {
		sequence, err := conn.ReadInt()
		if err != nil {
			return nil, err
		}
		held, err := conn.ReadInt()
		if err != nil {
			return nil, err
		}
		answers[i] = nameAnswer{sequence: uint64(sequence), held: held == 1}
	}
	return answers, nil
}

// cairnNames is CAIRN.NAMES key…, by which peers ask about names by their keys. It
// answers two numbers a name: the sequence of the newest state applied here, and
// 1 if a tier of this node holds its bytes.
func (s *session) cairnNames(_ context.Context, w *resp.Writer, args [][]byte) {
	keys, err := parseKeys(args[1:])
	if err != nil {
		fail(w, err)
		return
	}
	w.Array(2 * len(keys))
	for _, key := range keys {
		state, _ := s.n.names.table.lookup(key)
		var held int64
		if !state.Deleted() && s.n.Holds(state.Object) {
			held = 1
		}
		w.Int(int64(state.Sequence))
		w.Int(held)
	}
}
