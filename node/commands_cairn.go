package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"cairn/block"
	"cairn/resp"
	"cairn/wire"
)

// awaitTimeout bounds how long CAIRN.MATCH waits for what its tokens name; after
// it the node answers from what it knows.
const awaitTimeout = time.Second

func (s *session) cairnMGet(ctx context.Context, w *resp.Writer, args [][]byte) {
	scope := Cluster
	switch strings.ToUpper(string(args[1])) {
	case string(wire.Any):
	case string(wire.Local):
		scope = Local
	default:
		w.Error("ERR CAIRN.MGET: want LOCAL or ANY before the keys")
		return
	}
	if len(args)-2 > s.n.cfg.MaxBatch {
		w.Error(fmt.Sprintf("ERR CAIRN.MGET: %d keys, max-batch is %d", len(args)-2, s.n.cfg.MaxBatch))
		return
	}
	keys, err := parseKeys(args[2:])
	if err != nil {
		fail(w, err)
		return
	}
	s.writeBatch(ctx, w, keys, scope)
}

// writeBatch answers with blocks as wire.ReadBatch reads them.
func (s *session) writeBatch(ctx context.Context, w *resp.Writer, keys []block.Key, scope Scope) {
	loans, done := s.n.Read(ctx, keys, scope)
	header := wire.NewBatchHeader(len(keys))
	found := 0
	for i := range keys {
		switch {
		case i >= done:
			header.Deferred()
		case loans[i] == nil:
			header.Absent()
		default:
			header.Found(loans[i].Descriptor)
			found++
		}
	}
	w.Array(1 + found)
	w.Bulk(header)
	for _, l := range loans {
		if l != nil {
			w.BulkRef(l.Bytes, l)
		}
	}
}

// cairnPut is CAIRN.PUT key parent policy payload; "-" stands for no parent and
// for the namespace's policy. It answers whether the block was stored (1) or
// there already (0), and a token for CAIRN.MATCH.
func (s *session) cairnPut(ctx context.Context, w *resp.Writer, args [][]byte) {
	key, err := parseKey(args[1])
	var parent block.Key
	if err == nil && string(args[2]) != "-" {
		parent, err = parseKey(args[2])
	}
	if err != nil {
		fail(w, err)
		return
	}
	policy, err := s.policy(args[3])
	if err != nil {
		fail(w, err)
		return
	}
	in, err := s.take(ctx, args, 4)
	if err != nil {
		fail(w, err)
		return
	}
	placed, err := in.Commit(ctx, key, parent, policy)
	if err != nil {
		fail(w, err)
		return
	}
	w.Array(2)
	if placed.Existed {
		w.Int(0)
	} else {
		w.Int(1)
	}
	w.BulkString(placed.Token.String())
}

// cairnMatch is CAIRN.MATCH [AFTER token]… KEYS key…; it answers with the number
// of leading blocks that the cluster holds, and that this node holds.
func (s *session) cairnMatch(ctx context.Context, w *resp.Writer, args [][]byte) {
	args, err := s.await(ctx, args[1:])
	if err != nil {
		fail(w, err)
		return
	}
	if len(args) == 0 || !strings.EqualFold(string(args[0]), "KEYS") {
		w.Error("ERR CAIRN.MATCH: want [AFTER token]… KEYS key…")
		return
	}
	keys, err := parseKeys(args[1:])
	if err != nil {
		fail(w, err)
		return
	}
	m := s.n.Match(keys)
	w.Array(2)
	w.Int(int64(m.Prefix))
	w.Int(int64(m.Local))
}

func (s *session) cairnStat(_ context.Context, w *resp.Writer, _ [][]byte) {
	st := s.n.Status()
	sum := s.n.Coherency()
	st.Coherency = &sum
	coh := s.n.Coherence()
	st.Coherence = &coh
	writeJSON(w, st)
}

// cairnExplain is CAIRN.EXPLAIN with a block's key, "block:" and its key, or a name.
func (s *session) cairnExplain(_ context.Context, w *resp.Writer, args [][]byte) {
	t := parseTarget(args[1])
	if key, err := parseKey(args[1]); !t.sealed && err == nil && len(args[1]) > block.KeySize {
		t = target{key: key, sealed: true}
	}
	if t.sealed {
		writeJSON(w, s.n.Explain(t.key))
		return
	}
	name, ok := s.n.ExplainName(s.namespace.Name, t.name)
	if !ok {
		w.Error(fmt.Sprintf(wire.CodeNotFound+" no block is named %q in namespace %s", printable(t.name), s.namespace.Name))
		return
	}
	writeJSON(w, name)
}

// cairnRoute is CAIRN.ROUTE request; request and answer are JSON (docs/protocol.md).
func (s *session) cairnRoute(ctx context.Context, w *resp.Writer, args [][]byte) {
	answer, err := s.n.router.RouteJSON(ctx, args[1])
	if err != nil {
		fail(w, err)
		return
	}
	w.Bulk(answer)
}

// cairnDone is CAIRN.DONE id [DECODING]: the routed request of that id has ended, or its
// prefill has.
func (s *session) cairnDone(_ context.Context, w *resp.Writer, args [][]byte) {
	decoding := len(args) == 3 && strings.EqualFold(string(args[2]), "DECODING")
	switch {
	case len(args[1]) == 0, len(args) > 2 && !decoding:
		w.Error("ERR CAIRN.DONE: want the id of a routed request, then DECODING if only its prefill is over")
		return
	case decoding:
		s.n.router.Prefilled(string(args[1]))
	default:
		s.n.router.Done(string(args[1]))
	}
	w.Status("OK")
}

// cairnDrop is CAIRN.DROP key…: the blocks leave this node.
func (s *session) cairnDrop(_ context.Context, w *resp.Writer, args [][]byte) {
	keys, err := parseKeys(args[1:])
	if err != nil {
		fail(w, err)
		return
	}
	w.Int(int64(s.n.Remove(keys...)))
}

// cairnFlush waits until what this node has been given is durable.
func (s *session) cairnFlush(ctx context.Context, w *resp.Writer, _ [][]byte) {
	ctx, cancel := context.WithTimeout(ctx, s.n.cfg.CloseWait)
	defer cancel()
	err := s.n.Flush(ctx)
	if err == nil && s.n.coherence.overlay.count.Load() > 0 {
		_, err = s.n.Barrier(ctx)
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Status("OK")
}

// cairnNamespace is CAIRN.NAMESPACE name: the connection's later commands use it.
// When it fails they are refused, until one succeeds.
func (s *session) cairnNamespace(_ context.Context, w *resp.Writer, args [][]byte) {
	for _, ns := range s.n.cfg.Namespaces {
		if ns.Name == string(args[1]) {
			s.namespace, s.nowhere = ns, false
			w.Status("OK")
			return
		}
	}
	s.nowhere = true
	fail(w, s.n.noNamespace(args[1]))
}

// noNamespace says which namespaces there are instead.
func (n *Node) noNamespace(name []byte) error {
	var have []string
	for _, ns := range n.cfg.Namespaces {
		have = append(have, ns.Name)
	}
	return fmt.Errorf("%w %q: this node serves %s", ErrNamespace, printable(name), strings.Join(have, ", "))
}

func writeJSON(w *resp.Writer, v any) {
	p, err := json.Marshal(v)
	if err != nil {
		fail(w, errors.New("answer cannot be encoded"))
		return
	}
	w.Bulk(p)
}
