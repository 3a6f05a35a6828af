package node

import (
	"context"
	"errors"
	"strings"
	"time"

	"cairn/block"
	"cairn/resp"
)

// longestPrefetchWait bounds the WAIT of CAIRN.PREFETCH.
const longestPrefetchWait = time.Hour

// prefetch is CAIRN.PREFETCH tier [WAIT ms] key…. It answers how many blocks it has taken
// on, none when too many prefetches wait; with WAIT, how many of them, from the first on,
// the node has at the end.
func (s *session) prefetch(ctx context.Context, w *resp.Writer, args [][]byte) {
	t, err := block.ParseTier(string(args[1]))
	if err != nil {
		fail(w, err)
		return
	}
	args = args[2:]
	var wait time.Duration
	waits := false
	if len(args) >= 2 && strings.EqualFold(string(args[0]), "WAIT") {
		millis, ok := parseNumber(args[1])
		if !ok {
			fail(w, errNotInteger)
			return
		}
		wait = time.Duration(min(millis, uint64(longestPrefetchWait.Milliseconds()))) * time.Millisecond
		args, waits = args[2:], true
	}
	spec := PrefetchSpec{Tier: t}
	spec.Keys, err = parseKeys(args)
	if err == nil && len(spec.Keys) == 0 {
		err = errors.New("CAIRN.PREFETCH: want vram or host, then [WAIT milliseconds], then keys")
	}
	if err != nil {
		fail(w, err)
		return
	}
	here := len(spec.Keys)
	if !waits {
		if _, err = s.n.Prefetch(spec); errors.Is(err, ErrPrefetchQueue) {
			here, err = 0, nil
		}
	} else {
		if err := w.Flush(); err != nil { // what was asked before must not wait for this
			return
		}
		ctx, done := s.whileConnected(ctx)
		defer done()
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		here, err = s.n.PrefetchWait(ctx, spec)
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Int(int64(here))
}
