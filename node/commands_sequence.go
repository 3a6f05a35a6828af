package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cairn/block"
	"cairn/resp"
	"cairn/sequence"
)

// sequenceCommands are those of sequences, which belong to the connection that opened
// them, and of what is fetched ahead of them.
func sequenceCommands(every func(step, from int) func(int) bool) commandTable {
	return commandTable{
		"CAIRN.SEQ.OPEN":     {arity: -2, do: (*session).seqOpen},
		"CAIRN.SEQ.MATCH":    {arity: -2, do: (*session).seqMatch},
		"CAIRN.SEQ.ONBOARD":  {arity: -3, do: (*session).seqOnboard},
		"CAIRN.SEQ.EXTEND":   {arity: -4, do: (*session).seqExtend},
		"CAIRN.SEQ.COMMIT":   {arity: -5, payload: every(1, 4), do: (*session).seqCommit},
		"CAIRN.SEQ.READ":     {arity: 4, do: (*session).seqRead},
		"CAIRN.SEQ.TRUNCATE": {arity: 3, do: seqCut((*Sequence).Truncate)},
		"CAIRN.SEQ.UNWIND":   {arity: 3, do: seqCut((*Sequence).Unwind)},
		"CAIRN.SEQ.STAT":     {arity: 2, do: (*session).seqStat},
		"CAIRN.SEQ.CANCEL":   {arity: 2, do: (*session).seqCancel},
		"CAIRN.SEQ.CLOSE":    {arity: 2, do: (*session).seqClose},
		"CAIRN.PREFETCH":     {arity: -3, do: (*session).prefetch},
	}
}

// sequenceOf is the connection's sequence that an argument names.
func (s *session) sequenceOf(arg []byte) (*Sequence, error) {
	id, err := strconv.ParseUint(string(arg), 10, 64)
	q := s.sequences[id]
	if err != nil || q == nil {
		return nil, fmt.Errorf("%w on this connection: %q: CAIRN.SEQ.OPEN gives the number of one", ErrSequence, printable(arg))
	}
	return q, nil
}

// onSequence runs f with the sequence that the first argument names.
func (s *session) onSequence(w *resp.Writer, args [][]byte, f func(*Sequence) error) {
	q, err := s.sequenceOf(args[1])
	if err == nil && q.isDone() {
		err = q.gone()
	}
	if err == nil {
		err = f(q)
	}
	if errors.Is(err, ErrSequence) && q != nil {
		delete(s.sequences, q.ID())
	}
	if err != nil {
		fail(w, err)
	}
}

func parseCount(arg []byte) (int, error) {
	v, err := strconv.Atoi(string(arg))
	if err != nil {
		return 0, fmt.Errorf("%q: want a number", printable(arg))
	}
	return v, nil
}

func (s *session) seqMatch(ctx context.Context, w *resp.Writer, args [][]byte) {
	s.onSequence(w, args, func(q *Sequence) error {
		rest, err := s.await(ctx, args[2:])
		if err != nil {
			return err
		}
		if len(rest) > 0 {
			return errors.New("CAIRN.SEQ.MATCH: want a sequence, then [AFTER token]…")
		}
		if _, err := q.Match(ctx); err != nil {
			return err
		}
		writeSequence(w, q.Status())
		return nil
	})
}

// seqOnboard is CAIRN.SEQ.ONBOARD sequence tier [from [to]].
func (s *session) seqOnboard(ctx context.Context, w *resp.Writer, args [][]byte) {
	s.onSequence(w, args, func(q *Sequence) error {
		t, err := block.ParseTier(string(args[2]))
		if err != nil {
			return err
		}
		if len(args) > 5 {
			return errors.New("CAIRN.SEQ.ONBOARD: want a sequence, vram or host, and the first block and the one behind the last, or nothing for all")
		}
		var want sequence.Range
		for i, bound := range args[3:] {
			v, err := parseCount(bound)
			if err != nil {
				return err
			}
			if i == 0 {
				want.Start = v
			} else {
				want.End = v
			}
		}
		if err := w.Flush(); err != nil { // what was asked before must not wait for this
			return err
		}
		ctx, done := s.whileConnected(ctx)
		defer done()
		got, err := q.Onboard(ctx, t, want)
		if err != nil {
			return err
		}
		var bytes int64
		w.Map(6 + origins)
		text(w, "tier", t.String())
		number(w, "from", int64(got.Range.Start))
		number(w, "to", int64(got.Range.End))
		text(w, "missing", got.Missing)
		for o := range Origin(origins) {
			number(w, o.String(), int64(got.Blocks[o]))
			bytes += got.Bytes[o]
		}
		number(w, "bytes", bytes)
		number(w, "microseconds", got.Elapsed.Microseconds())
		return nil
	})
}

// goneEvery is how often a command that takes long looks whether its client is there.
const goneEvery = 50 * time.Millisecond

// whileConnected is a context that ends when the client has gone, until done is called.
func (s *session) whileConnected(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(goneEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if s.conn.Gone() {
					cancel()
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(); <-ended }
}

// seqExtend is CAIRN.SEQ.EXTEND sequence (KEYS key… | TOKENS token… | PACKED bytes).
func (s *session) seqExtend(ctx context.Context, w *resp.Writer, args [][]byte) {
	s.onSequence(w, args, func(q *Sequence) error {
		var r sequence.Range
		var err error
		switch how := strings.ToUpper(string(args[2])); {
		case how == "KEYS":
			var keys []block.Key
			if keys, err = parseKeys(args[3:]); err == nil {
				r, err = q.ExtendKeys(ctx, keys)
			}
		case how == "TOKENS", how == "PACKED" && len(args) == 4:
			var tokens []uint32
			if tokens, err = parseTokens(how, args[3:]); err == nil {
				r, err = q.Extend(ctx, tokens)
			}
		default:
			err = errors.New("CAIRN.SEQ.EXTEND: want a sequence, then KEYS key…, TOKENS token…, or PACKED bytes")
		}
		if err != nil {
			return err
		}
		w.Map(2)
		number(w, "from", int64(r.Start))
		number(w, "to", int64(r.End))
		return nil
	})
}

// seqCommit is CAIRN.SEQ.COMMIT sequence position policy payload….
func (s *session) seqCommit(ctx context.Context, w *resp.Writer, args [][]byte) {
	s.onSequence(w, args, func(q *Sequence) error {
		position, err := parseCount(args[2])
		if err != nil {
			return err
		}
		policy, err := s.policy(args[3])
		if err != nil {
			return err
		}
		var blocks []*Incoming
		for arg := range args[4:] {
			in, err := s.take(ctx, args, 4+arg)
			if err != nil {
				for _, in := range blocks {
					in.Abort()
				}
				return err
			}
			blocks = append(blocks, in)
		}
		done, err := q.Commit(ctx, position, blocks, policy)
		if err != nil {
			return err
		}
		w.Map(3)
		number(w, "stored", int64(done.Stored))
		number(w, "existed", int64(done.Existed))
		text(w, "token", done.Token.String())
		return nil
	})
}

// seqRead is CAIRN.SEQ.READ sequence position count; it answers as CAIRN.MGET ANY does.
func (s *session) seqRead(ctx context.Context, w *resp.Writer, args [][]byte) {
	s.onSequence(w, args, func(q *Sequence) error {
		position, err := parseCount(args[2])
		if err != nil {
			return err
		}
		count, err := parseCount(args[3])
		if err != nil {
			return err
		}
		if count > s.n.cfg.MaxBatch {
			return fmt.Errorf("%d blocks, max-batch is %d", count, s.n.cfg.MaxBatch)
		}
		keys, err := q.KeysOf(sequence.Range{Start: position, End: position + count})
		if err != nil {
			return err
		}
		s.writeBatch(ctx, w, keys, Cluster)
		return nil
	})
}

func seqCut(cut func(*Sequence, context.Context, int) error) func(*session, context.Context, *resp.Writer, [][]byte) {
	return func(s *session, ctx context.Context, w *resp.Writer, args [][]byte) {
		s.onSequence(w, args, func(q *Sequence) error {
			length, err := parseCount(args[2])
			if err != nil {
				return err
			}
			if err := cut(q, ctx, length); err != nil {
				return err
			}
			writeSequence(w, q.Status())
			return nil
		})
	}
}

func (s *session) seqStat(_ context.Context, w *resp.Writer, args [][]byte) {
	s.onSequence(w, args, func(q *Sequence) error {
		writeSequence(w, q.Status())
		return nil
	})
}

// seqCancel is CAIRN.SEQ.CANCEL sequence, from another connection than the one that waits
// for the onboard.
func (s *session) seqCancel(_ context.Context, w *resp.Writer, args [][]byte) {
	id, err := strconv.ParseUint(string(args[1]), 10, 64)
	q, ok := s.n.sequences.find(id)
	if err != nil || !ok {
		fail(w, fmt.Errorf("%w: %q", ErrSequence, printable(args[1])))
		return
	}
	if q.Cancel() {
		w.Int(1)
	} else {
		w.Int(0)
	}
}

func (s *session) seqClose(_ context.Context, w *resp.Writer, args [][]byte) {
	s.onSequence(w, args, func(q *Sequence) error {
		q.Close()
		delete(s.sequences, q.ID())
		w.Status("OK")
		return nil
	})
}

// closeSequences ends every sequence of the connection.
func (s *session) closeSequences() {
	for id, q := range s.sequences {
		q.Close()
		delete(s.sequences, id)
	}
}

// writeSequence replies with the state of a sequence.
func writeSequence(w *resp.Writer, st SequenceStatus) {
	w.Map(9)
	number(w, "sequence", int64(st.ID))
	number(w, "tokens", int64(st.Tokens))
	number(w, "blocks", int64(st.Blocks))
	number(w, "matched", int64(st.Matched.Prefix))
	number(w, "local", int64(st.Matched.Local))
	text(w, "vram", rangesText(st.Held[block.VRAM]))
	text(w, "host", rangesText(st.Held[block.Host]))
	number(w, "pending", int64(st.Pending[block.Host]))
	number(w, "busy", map[bool]int64{true: 1}[st.Busy])
}

// rangesText is ranges of blocks as people write them: [0,4) [8,9).
func rangesText(ranges []sequence.Range) string {
	words := make([]string, len(ranges))
	for i, r := range ranges {
		words[i] = r.String()
	}
	return strings.Join(words, " ")
}

func number(w *resp.Writer, name string, v int64) {
	w.BulkString(name)
	w.Int(v)
}

func text(w *resp.Writer, name, v string) {
	w.BulkString(name)
	w.BulkString(v)
}
