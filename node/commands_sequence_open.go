package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"cairn/resp"
	"cairn/sequence"
	"cairn/wire"
)

// seqOpen is CAIRN.SEQ.OPEN [AFTER token]… (KEYS key… | TOKENS namespace token… | PACKED
// namespace bytes).
func (s *session) seqOpen(ctx context.Context, w *resp.Writer, args [][]byte) {
	maps.DeleteFunc(s.sequences, func(_ uint64, q *Sequence) bool { return q.isClosed() })
	if most := s.n.cfg.SequencesPerConnection; len(s.sequences) >= most {
		fail(w, fmt.Errorf("%w: this connection has %d open, max-connection-sequences is %d: close some, or use another connection", ErrSequenceLimit, len(s.sequences), most))
		return
	}
	rest, err := s.await(ctx, args[1:])
	var spec SequenceSpec
	if err == nil {
		spec, err = sequenceSpec(rest)
	}
	var q *Sequence
	if err == nil {
		q, err = s.n.OpenSequence(spec)
	}
	if err != nil {
		s.refuse(w, args, err)
		return
	}
	if s.sequences == nil {
		s.sequences = map[uint64]*Sequence{}
	}
	s.sequences[q.ID()] = q
	writeSequence(w, q.Status())
}

// sequenceSpec reads what CAIRN.SEQ.OPEN is given.
func sequenceSpec(args [][]byte) (spec SequenceSpec, err error) {
	what := ""
	if len(args) > 0 {
		what = strings.ToUpper(string(args[0]))
	}
	switch {
	case what == "KEYS":
		spec.Keys, err = parseKeys(args[1:])
		return spec, err
	case what == "TOKENS" && len(args) > 1, what == "PACKED" && len(args) == 3:
		k, err := sequence.ParseNamespace(args[1])
		if err != nil {
			return spec, err
		}
		spec.BlockSize, spec.Salt, spec.Hasher = k.BlockSize, k.Salt, k.Hasher
		spec.Tokens, err = parseTokens(what, args[2:])
		return spec, err
	}
	return spec, errArguments
}

// parseTokens reads tokens: decimal numbers, or packed as little-endian uint32.
func parseTokens(how string, args [][]byte) ([]uint32, error) {
	if how == "PACKED" {
		p := args[0]
		if len(p)%4 != 0 {
			return nil, fmt.Errorf("packed tokens have %d bytes: want 4 for each token", len(p))
		}
		tokens := make([]uint32, len(p)/4)
		for i := range tokens {
			tokens[i] = binary.LittleEndian.Uint32(p[4*i:])
		}
		return tokens, nil
	}
	tokens := make([]uint32, len(args))
	for i, arg := range args {
		v, err := strconv.ParseUint(string(arg), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("token %q: want a number from 0 to 4294967295: tokens are ids, not text", printable(arg))
		}
		tokens[i] = uint32(v)
	}
	return tokens, nil
}

// await waits for what the tokens in front of args name, at most awaitTimeout, and returns
// the other arguments.
func (s *session) await(ctx context.Context, args [][]byte) ([][]byte, error) {
	wait, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	for len(args) >= 2 && strings.EqualFold(string(args[0]), "AFTER") {
		t, err := wire.ParseToken(string(args[1]))
		if err != nil {
			return nil, err
		}
		if err := s.n.Await(wait, t); err != nil {
			s.n.counters.awaitTimeouts.Add(1)
		}
		args = args[2:]
	}
	return args, nil
}
