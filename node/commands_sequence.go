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
		"CAIRN.SEQ.OPEN":     {arity: -2, usage: "[AFTER token]… (KEYS key… | TOKENS namespace token… | PACKED namespace bytes)", do: (*session).seqOpen},
		"CAIRN.SEQ.MATCH":    {arity: -2, usage: "sequence [AFTER token]…", do: (*session).seqMatch},
		"CAIRN.SEQ.ONBOARD":  {arity: -3, usage: "sequence vram|host [from [to]]", do: (*session).seqOnboard},
		"CAIRN.SEQ.EXTEND":   {arity: -4, usage: "sequence (KEYS key… | TOKENS token… | PACKED bytes)", do: (*session).seqExtend},
		"CAIRN.SEQ.COMMIT":   {arity: -5, usage: "sequence position policy payload…", payload: every(1, 4), do: (*session).seqCommit},
		"CAIRN.SEQ.READ":     {arity: 4, usage: "sequence position count", do: (*session).seqRead},
		"CAIRN.SEQ.TRUNCATE": {arity: 3, usage: "sequence length", do: seqCut((*Sequence).Truncate)},
		"CAIRN.SEQ.UNWIND":   {arity: 3, usage: "sequence length", do: seqCut((*Sequence).Unwind)},
		"CAIRN.SEQ.STAT":     {arity: 2, usage: "sequence", do: (*session).seqStat},
		"CAIRN.SEQ.CANCEL":   {arity: 2, usage: "sequence", do: (*session).seqCancel},
		"CAIRN.SEQ.CLOSE":    {arity: 2, usage: "sequence", do: (*session).seqClose},
		"CAIRN.PREFETCH":     {arity: -3, do: (*session).prefetch},
	}
}

// sequenceOf is the connection's sequence that an argument names.
func (s *session) sequenceOf(arg []byte) (*Sequence, error) {
	id, err := strconv.ParseUint(string(arg), 10, 64)
	if q := s.sequences[id]; q != nil {
		return q, nil
	}
	hint := "CAIRN.SEQ.OPEN gives the number of one, which is good until it or its connection is closed"
	if _, ok := s.n.sequences.find(id); err == nil && ok {
		hint = "it belongs to another connection: use that one, or open one here"
	}
	return nil, fmt.Errorf("%w on this connection: %q: %s", ErrSequence, printable(arg), hint)
}

// onSequence runs f with the sequence that the first argument names.
func (s *session) onSequence(w *resp.Writer, args [][]byte, f func(*Sequence) error) {
	q, err := s.sequenceOf(args[1])
	if err == nil && q.isClosed() {
		err = q.gone()
	}
	if err == nil {
		err = f(q)
	}
	if errors.Is(err, ErrSequence) && q != nil {
		delete(s.sequences, q.ID())
	}
	if err != nil {
		s.refuse(w, args, err)
	}
}

// errArguments says that a command has arguments that mean nothing together.
var errArguments = errors.New("arguments")

// refuse replies with an error; to errArguments belongs what the command takes.
func (s *session) refuse(w *resp.Writer, args [][]byte, err error) {
	if errors.Is(err, errArguments) {
		c, _ := s.n.commands.lookup(args[0])
		err = fmt.Errorf("wrong arguments: want %s %s", strings.ToUpper(string(args[0])), c.usage)
	}
	fail(w, err)
}

// parseCount reads a number; what says which one it is.
func parseCount(what string, arg []byte) (int, error) {
	v, err := strconv.Atoi(string(arg))
	if err != nil {
		return 0, fmt.Errorf("%s %q: want a number", what, printable(arg))
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
			return errArguments
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
		if len(args) > 5 {
			return errArguments
		}
		t, want, err := onboardArguments(args[2:])
		if err != nil {
			return err
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

// onboardArguments reads tier [from [to]].
func onboardArguments(args [][]byte) (t block.Tier, want sequence.Range, err error) {
	if t, err = block.ParseTier(string(args[0])); err != nil {
		return t, want, fmt.Errorf("%w: %q: want vram or host", ErrNoTier, printable(args[0]))
	}
	if len(args) > 1 {
		want.Start, err = parseCount("from", args[1])
	}
	if err == nil && len(args) > 2 {
		want.End, err = parseCount("to", args[2])
	}
	return t, want, err
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
			err = errArguments
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
		position, err := parseCount("position", args[2])
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
		position, err := parseCount("position", args[2])
		if err != nil {
			return err
		}
		count, err := parseCount("count", args[3])
		if err != nil {
			return err
		}
		if count > s.n.cfg.MaxBatch {
			return fmt.Errorf("%d blocks, max-batch is %d: read fewer at a time", count, s.n.cfg.MaxBatch)
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
			length, err := parseCount("length", args[2])
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
		fail(w, fmt.Errorf("%w: %q: it is closed, or was never opened at this node", ErrSequence, printable(args[1])))
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
	number(w, "pending", int64(st.Pending))
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
