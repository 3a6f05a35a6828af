package node

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cairn/resp"
)

// deadline turns EX, PX, EXAT or PXAT and its number, which must be positive, into
// milliseconds since 1970.
func deadline(unit string, arg []byte, command string) (int64, error) {
	v, err := strconv.ParseInt(string(arg), 10, 64)
	if err != nil {
		return 0, errNotInteger
	}
	at, ok := moment(unit, v)
	if v <= 0 || !ok {
		return 0, errExpireTime(command)
	}
	return at, nil
}

func errExpireTime(command string) error {
	return resp.ServerError(fmt.Sprintf("ERR invalid expire time in '%s' command", command))
}

// moment is v, in the given unit, as milliseconds since 1970; ok is false where
// that is too far away.
func moment(unit string, v int64) (at int64, ok bool) {
	const far = 1 << 52 // milliseconds: beyond any clock, below any overflow
	if unit == "EX" || unit == "EXAT" {
		if v > far/1000 || v < -far/1000 {
			return 0, false
		}
		v *= 1000
	}
	if v > far || v < -far {
		return 0, false
	}
	if unit == "EX" || unit == "PX" {
		v += time.Now().UnixMilli()
	}
	return v, true
}

// expire makes EXPIRE, PEXPIRE, EXPIREAT or PEXPIREAT, by their unit:
// key number [NX | XX | GT | LT].
func expire(unit string) func(*session, context.Context, *resp.Writer, [][]byte) {
	return func(s *session, ctx context.Context, w *resp.Writer, args [][]byte) {
		allowed, err := parseExpireFlags(args[3:])
		if err != nil {
			fail(w, err)
			return
		}
		v, err := strconv.ParseInt(string(args[2]), 10, 64)
		if err != nil {
			fail(w, errNotInteger)
			return
		}
		at, ok := moment(unit, v)
		if !ok {
			fail(w, errExpireTime(strings.ToLower(string(args[0]))))
			return
		}
		changed, err := s.expireAt(ctx, parseTarget(args[1]), at, allowed)
		replyChanged(w, changed, err)
	}
}

func replyChanged(w *resp.Writer, changed bool, err error) {
	switch {
	case err != nil:
		fail(w, err)
	case changed:
		w.Int(1)
	default:
		w.Int(0)
	}
}

// expireAt lets a name end at a moment, or now if that has passed, if its present
// end allows it.
func (s *session) expireAt(ctx context.Context, t target, at int64, allowed func(old, at int64) bool) (bool, error) {
	if t.sealed {
		return false, nil // a sealed block lives until it is evicted or deleted
	}
	if at > time.Now().UnixMilli() {
		return s.expireName(ctx, t.name, func(old int64) (int64, bool) { return at, allowed(old, at) })
	}
	state, err := s.n.StateOf(ctx, s.namespace.Name, t.name, s.reads())
	if err != nil || !alive(state.Value) || !allowed(state.Value.Expires, at) {
		return false, err
	}
	return s.remove(ctx, t)
}

// expireName changes when a name ends; see Node.ExpireName.
func (s *session) expireName(ctx context.Context, name []byte, choose func(old int64) (int64, bool)) (bool, error) {
	c, changed, err := s.n.ExpireName(ctx, s.namespace.Name, name, s.namespace.Policy, choose)
	s.saw(c.Sequence)
	return changed, err
}

// parseExpireFlags returns whether a new end may take the place of an old one; 0
// is never.
func parseExpireFlags(args [][]byte) (func(old, at int64) bool, error) {
	var nx, xx, gt, lt bool
	for _, a := range args {
		switch strings.ToUpper(string(a)) {
		case "NX":
			nx = true
		case "XX":
			xx = true
		case "GT":
			gt = true
		case "LT":
			lt = true
		default:
			return nil, resp.ServerError("ERR Unsupported option " + printable(a))
		}
	}
	switch {
	case nx && (xx || gt || lt):
		return nil, resp.ServerError("ERR NX and XX, GT or LT options at the same time are not compatible")
	case gt && lt:
		return nil, resp.ServerError("ERR GT and LT options at the same time are not compatible")
	}
	return func(old, at int64) bool {
		switch {
		case nx && old != 0, xx && old == 0:
			return false
		case gt && (old == 0 || at <= old), lt && old != 0 && at >= old:
			return false
		}
		return true
	}, nil
}

func (s *session) persist(ctx context.Context, w *resp.Writer, args [][]byte) {
	changed, err := s.persistName(ctx, parseTarget(args[1]))
	replyChanged(w, changed, err)
}

func (s *session) persistName(ctx context.Context, t target) (bool, error) {
	if t.sealed {
		return false, nil
	}
	return s.expireName(ctx, t.name, func(old int64) (int64, bool) { return 0, old != 0 })
}

// getEx is GETEX key [EX n | PX n | EXAT n | PXAT n | PERSIST].
func (s *session) getEx(ctx context.Context, w *resp.Writer, args [][]byte) {
	t := parseTarget(args[1])
	change := func() (bool, error) { return false, nil }
	switch {
	case len(args) == 3 && strings.EqualFold(string(args[2]), "PERSIST"):
		change = func() (bool, error) { return s.persistName(ctx, t) }
	case len(args) == 4:
		unit := strings.ToUpper(string(args[2]))
		if unit != "EX" && unit != "PX" && unit != "EXAT" && unit != "PXAT" {
			fail(w, errSyntax)
			return
		}
		at, err := deadline(unit, args[3], "getex")
		if err != nil {
			fail(w, err)
			return
		}
		change = func() (bool, error) {
			return s.expireAt(ctx, t, at, func(int64, int64) bool { return true })
		}
	case len(args) > 2:
		fail(w, errSyntax)
		return
	}
	loan, err := s.read(ctx, t)
	if err == nil {
		if _, err = change(); err != nil {
			loan.Release()
		}
	}
	replyLoan(w, loan, err)
}

// Answers about the end of a name, which is in milliseconds since 1970.
func leftMillis(end int64) int64  { return max(end-time.Now().UnixMilli(), 0) }
func leftSeconds(end int64) int64 { return (leftMillis(end) + 500) / 1000 }
func endMillis(end int64) int64   { return end }
func endSeconds(end int64) int64  { return (end + 500) / 1000 }

// ends makes TTL and its relatives: -2 where there is no such key, -1 where it
// has no end, else what answer makes of the end.
func ends(answer func(end int64) int64) func(*session, context.Context, *resp.Writer, [][]byte) {
	return func(s *session, ctx context.Context, w *resp.Writer, args [][]byte) {
		t := parseTarget(args[1])
		var end int64
		_, present, err := s.has(ctx, args[1])
		if err == nil && !t.sealed && present[0] {
			var state NameState
			state, err = s.n.StateOf(ctx, s.namespace.Name, t.name, s.reads())
			end, present[0] = state.Value.Expires, alive(state.Value)
		}
		switch {
		case err != nil:
			fail(w, err)
		case !present[0]:
			w.Int(-2)
		case end == 0:
			w.Int(-1)
		default:
			w.Int(answer(end))
		}
	}
}
