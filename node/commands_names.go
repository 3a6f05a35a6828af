package node

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"cairn/coherency/ledger"
	"cairn/resp"
	"cairn/tier"
	"cairn/wire"
)

// parseNumber reads a version, a token or a sequence.
func parseNumber(arg []byte) (uint64, bool) {
	v, err := strconv.ParseUint(string(arg), 10, 63)
	return v, err == nil
}

// cairnGet is CAIRN.GET key [STRICT | SESSION [sequence] | BOUNDED ms | LOCAL]. It
// answers version, value, and between them for how many milliseconds at most that may
// have been out of date; null when there is none.
func (s *session) cairnGet(ctx context.Context, w *resp.Writer, args [][]byte) {
	o, err := s.parseReads(args[2:])
	if err == nil {
		err = checkName(args[1])
	}
	if err != nil {
		fail(w, err)
		return
	}
	loan, state, err := s.n.ReadName(ctx, s.namespace.Name, args[1], o)
	s.saw(state.Sequence)
	switch {
	case errors.Is(err, tier.ErrNotFound):
		w.NullArray()
	case err != nil:
		fail(w, err)
	default:
		w.Array(3)
		w.Int(int64(state.Version))
		w.Int(s.ageMillis(state, o))
		w.BulkRef(loan.Bytes, loan)
	}
}

// ageMillis is for how long an answer may have been out of date.
func (s *session) ageMillis(state NameState, o ReadOptions) int64 {
	switch o.Level {
	case ReadStrict:
		return 0
	case ReadBounded:
		return min(state.Age, o.Bound).Milliseconds()
	}
	return s.n.coherence.age().Milliseconds()
}

func (s *session) parseReads(args [][]byte) (ReadOptions, error) {
	o := s.reads()
	if len(args) == 0 {
		return o, nil
	}
	number, ok := uint64(0), len(args) == 1
	if len(args) == 2 {
		number, ok = parseNumber(args[1])
	}
	word := strings.ToUpper(string(args[0]))
	switch {
	case !ok:
		return o, errSyntax
	case word == "STRICT" && len(args) == 1:
		o.Level = ReadStrict
	case word == "LOCAL" && len(args) == 1:
		o.Level = ReadLocal
	case word == "SESSION":
		o.Level, o.Session = ReadSession, max(o.Session, number)
	case word == "BOUNDED" && len(args) == 2 && number <= 1<<40:
		o.Level, o.Bound = ReadBounded, time.Duration(number)*time.Millisecond
	default:
		return o, errSyntax
	}
	return o, nil
}

// cairnVersion is CAIRN.VERSION key: the version that a read would find, also of a
// deletion; 0 of a name that was never written.
func (s *session) cairnVersion(ctx context.Context, w *resp.Writer, args [][]byte) {
	if err := checkName(args[1]); err != nil {
		fail(w, err)
		return
	}
	state, err := s.n.StateOf(ctx, s.namespace.Name, args[1], s.reads())
	if err != nil {
		fail(w, err)
		return
	}
	s.saw(state.Sequence)
	w.Int(int64(state.Version))
}

// cairnCAS is CAIRN.CAS key version value [options of SET]: the value becomes the newest
// if the name has that version now; 0 expects it to be absent. It answers the new version,
// or an error that begins with CONFLICT and ends with the present version.
func (s *session) cairnCAS(ctx context.Context, w *resp.Writer, args [][]byte) {
	o, err := s.parseSet(args[4:])
	expect, ok := parseNumber(args[2])
	switch {
	case err == nil && !ok:
		err = errNotInteger
	case err == nil && (o.If != ledger.Always || o.Old):
		err = errSyntax
	case err == nil:
		err = checkName(args[1])
	}
	if err != nil {
		fail(w, err)
		return
	}
	in, err := s.take(ctx, args, 3)
	if err != nil {
		fail(w, err)
		return
	}
	o.If, o.Expect = ledger.Exactly, ledger.Version(expect)
	c, err := s.n.SetName(ctx, s.namespace.Name, args[1], in, o)
	s.saw(c.Sequence)
	switch {
	case errors.Is(err, ErrCondition):
		w.Error(wire.Conflict(wire.Version(c.After.Version), "the name has another version than expected"))
	case err != nil:
		fail(w, err)
	default:
		w.Int(int64(c.After.Version))
	}
}

// cairnSession is CAIRN.SESSION [sequence]: it makes the connection's reads not older
// than what another connection has seen, and answers what this one has.
func (s *session) cairnSession(_ context.Context, w *resp.Writer, args [][]byte) {
	if len(args) > 2 {
		wrongArity(w, args[0])
		return
	}
	if len(args) == 2 {
		sequence, ok := parseNumber(args[1])
		if !ok {
			fail(w, errNotInteger)
			return
		}
		s.saw(sequence)
	}
	w.Int(int64(s.sequence.Load()))
}

// cairnBarrier is CAIRN.BARRIER: it answers with the number of the epoch that begins when
// all that was acknowledged before, by any node, is durable at its homes, or declared
// lost.
func (s *session) cairnBarrier(ctx context.Context, w *resp.Writer, _ [][]byte) {
	ctx, cancel := context.WithTimeout(ctx, s.n.cfg.CloseWait)
	defer cancel()
	epoch, err := s.n.Barrier(ctx)
	if err != nil {
		fail(w, err)
		return
	}
	w.Int(int64(epoch))
}

// cairnClear is CAIRN.CLEAR namespace: every name of it becomes absent.
func (s *session) cairnClear(ctx context.Context, w *resp.Writer, args [][]byte) {
	if _, ok := s.n.coherence.spaces[string(args[1])]; !ok {
		fail(w, s.n.noNamespace(args[1]))
		return
	}
	s.clear(ctx, w, string(args[1]))
}

// flushDB is FLUSHDB [ASYNC | SYNC]: CAIRN.CLEAR of the connection's namespace. Sealed
// blocks stay.
func (s *session) flushDB(ctx context.Context, w *resp.Writer, args [][]byte) {
	if len(args) > 2 || len(args) == 2 && !strings.EqualFold(string(args[1]), "ASYNC") && !strings.EqualFold(string(args[1]), "SYNC") {
		fail(w, errSyntax)
		return
	}
	s.clear(ctx, w, s.namespace.Name)
}

func (s *session) clear(ctx context.Context, w *resp.Writer, namespace string) {
	ctx, cancel := context.WithTimeout(ctx, s.n.cfg.NameWait)
	defer cancel()
	sequence, err := s.n.Clear(ctx, namespace)
	if err != nil {
		fail(w, err)
		return
	}
	s.saw(sequence)
	w.Status("OK")
}

// maxWatch is how long a watch may last.
const maxWatch = 10 * time.Minute

// cairnWatch is CAIRN.WATCH key version milliseconds: it answers the name's version at
// this node, as soon as that is newer than the one given, and 1 if there is such a name
// or 0; or null when the time is over.
// Of a name that another node owns it learns with the owner's next flush.
func (s *session) cairnWatch(ctx context.Context, w *resp.Writer, args [][]byte) {
	since, ok := parseNumber(args[2])
	millis, ok2 := parseNumber(args[3])
	if !ok || !ok2 {
		fail(w, errNotInteger)
		return
	}
	if err := checkName(args[1]); err != nil {
		fail(w, err)
		return
	}
	if err := w.Flush(); err != nil { // what was asked before must not wait for this
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(min(millis, 1<<40))*time.Millisecond, maxWatch))
	defer cancel()
	c := s.n.coherence
	key := c.keyOf(s.namespace.Name, args[1])
	watch := c.watches.add(key)
	defer c.watches.remove(key)
	for {
		changed := watch.wait()
		var state NameState
		c.glanceKey(key, c.spaces[s.namespace.Name], ReadOptions{Level: ReadLocal}, &state)
		if uint64(state.Version) > since {
			s.saw(state.Sequence)
			w.Array(2)
			w.Int(int64(state.Version))
			if alive(state.Value) {
				w.Int(1)
			} else {
				w.Int(0)
			}
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			w.NullArray()
			return
		case <-c.ended:
			fail(w, ErrClosed)
			return
		}
	}
}
