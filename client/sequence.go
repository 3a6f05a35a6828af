package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"cairn/block"
	"cairn/resp"
	"cairn/sequence"
	"cairn/wire"
)

// Sequence is one request of an inference engine at one node: its blocks, and which of
// them the node keeps in place for it. It has a connection of its own, and ends with it;
// Close it in any case. All methods may be called in parallel, and run one after another.
//
// An engine opens it with the prompt, onboards what is cached, computes and commits the
// rest, extends it by what it generates, and closes it in the end. Positions count whole
// blocks from the start of the sequence, 0 being the first.
type Sequence struct {
	n    *Node
	conn *resp.Conn
	id   string

	// turn has an element while a method runs; its holder uses conn, tokens and keys.
	turn   chan struct{}
	tokens *sequence.TokenSequence // nil: opened with keys
	keys   []block.Key             // when opened with keys
	ended  error
}

// OpenSequence begins a sequence of tokens at the node, which need not be whole blocks, and
// says how much of it is cached. The Sequence takes tokens over: the caller must not use
// it any more. It sees everything that this Client has put before, at whichever node.
func (n *Node) OpenSequence(ctx context.Context, tokens *sequence.TokenSequence) (*Sequence, Match, error) {
	return n.openSequence(ctx, &Sequence{tokens: tokens})
}

// OpenSequenceKeys is OpenSequence for who makes keys himself: keys, which are copied, are
// of all whole blocks from the first on, and lengths count blocks.
func (n *Node) OpenSequenceKeys(ctx context.Context, keys []block.Key) (*Sequence, Match, error) {
	return n.openSequence(ctx, &Sequence{keys: append([]block.Key{}, keys...)})
}

func (n *Node) openSequence(ctx context.Context, s *Sequence) (*Sequence, Match, error) {
	conn, err := resp.Dial(ctx, n.network, n.target, n.c.cfg.conn())
	if err != nil {
		return nil, Match{}, translate(ctx, "open a sequence", n.addr, err, false)
	}
	s.n, s.conn, s.turn = n, conn, make(chan struct{}, 1)
	var m Match
	after := n.c.newest()
	err = s.chain(ctx, "open", func() error {
		conn.AppendHeader(2 + 2*len(after) + len(s.Keys()))
		conn.AppendString("CAIRN.SEQ.OPEN")
		s.appendAfter(after)
		s.appendKeys(s.Keys())
		f, err := wire.ReadFields(conn)
		if err != nil {
			return err
		}
		s.id = strconv.FormatInt(f.Int("sequence"), 10)
		m = Match{Prefix: int(f.Int("matched")), Local: int(f.Int("local"))}
		return nil
	})
	if err != nil {
		conn.Close()
		return nil, Match{}, err
	}
	return s, m, nil
}

// OpenSequence begins a sequence at the first node that answers; see Node.OpenSequence.
// Where Route sends a request, Node.OpenSequence should open it.
func (c *Client) OpenSequence(ctx context.Context, tokens *sequence.TokenSequence) (s *Sequence, m Match, err error) {
	err = c.any(ctx, func(n *Node) error {
		s, m, err = n.OpenSequence(ctx, tokens)
		return err
	})
	return s, m, err
}

func (s *Sequence) appendAfter(tokens []wire.Token) {
	for _, t := range tokens {
		s.conn.AppendString("AFTER")
		s.conn.AppendString(t.String())
	}
}

func (s *Sequence) appendKeys(keys []block.Key) {
	s.conn.AppendString("KEYS")
	for i := range keys {
		s.conn.AppendArg(keys[i][:])
	}
}

// ask begins a command about the sequence, with n arguments more.
func (s *Sequence) ask(command string, n int) {
	s.conn.AppendHeader(2 + n)
	s.conn.AppendString(command)
	s.conn.AppendString(s.id)
}

// Node is the node that the sequence is at.
func (s *Sequence) Node() *Node { return s.n }

// chain runs f, which uses the connection, as one method of the sequence.
func (s *Sequence) chain(ctx context.Context, op string, f func() error) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return translate(ctx, op, s.n.addr, ctx.Err(), false)
	}
	defer func() { <-s.turn }()
	if s.ended != nil {
		return fmt.Errorf("cairn: %s at %s: %w", op, s.n.addr, s.ended)
	}
	return s.use(ctx, op, f)
}

// use is chain for the holder of turn. An error that is not an answer of the node ends
// the sequence: its connection is broken, so the node has closed it or will.
func (s *Sequence) use(ctx context.Context, op string, f func() error) error {
	s.conn.Begin(ctx)
	err := f()
	s.conn.End()
	if !s.conn.Usable() {
		s.end(fmt.Errorf("%w: its connection broke: %w", ErrSequence, errors.Join(err, context.Cause(ctx))))
	}
	var reply resp.ServerError
	if s.ended == nil && err != nil && !errors.As(err, &reply) {
		return fmt.Errorf("cairn: %s at %s: %w", op, s.n.addr, err) // the caller's mistake
	}
	err = translate(ctx, op, s.n.addr, err, false)
	if errors.Is(err, ErrSequence) {
		s.end(ErrSequence)
	}
	return err
}

// end is for the holder of turn.
func (s *Sequence) end(why error) {
	if s.ended == nil {
		s.ended = why
		s.conn.Close()
	}
}

// Close ends the sequence: what it has onboarded and committed may be evicted from now on.
// It waits for a method that runs, and needs no answer of the node. A second Close does
// nothing.
func (s *Sequence) Close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if s.ended != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.n.c.cfg.Timeout)
	defer cancel()
	err := s.use(ctx, "close", func() error {
		s.ask("CAIRN.SEQ.CLOSE", 0)
		_, err := s.conn.ReadStatus()
		return err
	})
	s.end(fmt.Errorf("%w: it is closed", ErrSequence))
	if errors.Is(err, ErrSequence) {
		return nil // the node has closed it before
	}
	return err
}

// Keys is the keys of the whole blocks. The slice belongs to the sequence: read it only,
// and neither during nor after the next call that changes the sequence.
func (s *Sequence) Keys() []block.Key {
	if s.tokens != nil {
		return s.tokens.Keys()
	}
	return s.keys
}

// Match looks anew for how much is cached.
func (s *Sequence) Match(ctx context.Context) (m Match, err error) {
	after := s.n.c.newest()
	err = s.chain(ctx, "match", func() error {
		s.ask("CAIRN.SEQ.MATCH", 2*len(after))
		s.appendAfter(after)
		f, err := wire.ReadFields(s.conn)
		m = Match{Prefix: int(f.Int("matched")), Local: int(f.Int("local"))}
		return err
	})
	return m, err
}

// Extend appends tokens, which it copies, and returns the range of blocks that became
// whole by it. The node is asked only if there are any. ErrLimit says that the node takes no
// longer sequence; then it is as before.
func (s *Sequence) Extend(ctx context.Context, tokens []uint32) (r sequence.Range, err error) {
	err = s.chain(ctx, "extend", func() error {
		if s.tokens == nil {
			return errKeysOnly
		}
		length := s.tokens.Len()
		if r, err = s.tokens.Extend(tokens); err != nil || r.Empty() {
			return err
		}
		if err = s.extendNode(s.tokens.Keys()[r.Start:]); err != nil {
			r.End = r.Start
			return errors.Join(err, s.tokens.Truncate(length))
		}
		return nil
	})
	return r, err
}

// ExtendKeys is Extend for a sequence that was opened with keys.
func (s *Sequence) ExtendKeys(ctx context.Context, keys []block.Key) (r sequence.Range, err error) {
	err = s.chain(ctx, "extend", func() error {
		if s.tokens != nil {
			return errTokensOnly
		}
		r = sequence.Range{Start: len(s.keys), End: len(s.keys)}
		if len(keys) == 0 {
			return nil
		}
		if err := s.extendNode(keys); err != nil {
			return err
		}
		s.keys = append(s.keys, keys...)
		r.End = len(s.keys)
		return nil
	})
	return r, err
}

var (
	errKeysOnly   = errors.New("the sequence was opened with keys: extend it by keys")
	errTokensOnly = errors.New("the sequence was opened with tokens: extend it by tokens")
)

func (s *Sequence) extendNode(keys []block.Key) error {
	s.ask("CAIRN.SEQ.EXTEND", 1+len(keys))
	s.appendKeys(keys)
	_, err := wire.ReadFields(s.conn)
	return err
}

// Commit stores blocks that the engine has computed, from position on, and keeps them in
// host memory until the sequence is truncated or closed. blocks are only read, and not
// after it returns. stored is how many of them the node did not have yet. On error, those
// before the one that failed are stored. Of the options, WithPolicy counts.
func (s *Sequence) Commit(ctx context.Context, position int, blocks [][]byte, opts ...PutOption) (stored int, err error) {
	o := options(opts)
	err = s.chain(ctx, "commit", func() error {
		if len(blocks) == 0 {
			return nil
		}
		s.ask("CAIRN.SEQ.COMMIT", 2+len(blocks))
		s.conn.AppendInt(int64(position))
		s.conn.AppendString(orDash(o.policy))
		for _, p := range blocks {
			s.conn.AppendArg(p)
		}
		f, err := wire.ReadFields(s.conn)
		if err != nil {
			return err
		}
		token, err := wire.ParseToken(f.Text("token"))
		if err != nil {
			return err
		}
		s.n.c.remember(token)
		stored = int(f.Int("stored"))
		return nil
	})
	return stored, err
}

// Read reads the blocks of a range, wherever they are; see Node.GetBatch, whose indexes
// count from r.Start here.
func (s *Sequence) Read(ctx context.Context, r sequence.Range, place func(i int, d block.Descriptor) []byte) (found []bool, err error) {
	var corrupt error
	err = s.chain(ctx, "read", func() error {
		keys := s.Keys()
		if r.Start < 0 || r.Start > r.End || r.End > len(keys) {
			return fmt.Errorf("blocks %s, the sequence has %d", r, len(keys))
		}
		found, corrupt, err = readBatch(s.conn, s.n, keys[r.Start:r.End], place)
		return err
	})
	if err == nil {
		err = corrupt
	}
	return found, err
}

// Truncate keeps the first length tokens, or blocks where the sequence was opened with
// keys. Blocks that are not whole any more need not stay in place. Beyond the end it does
// nothing.
func (s *Sequence) Truncate(ctx context.Context, length int) error {
	return s.chain(ctx, "truncate", func() error { return s.cutTo(length) })
}

// Unwind removes the last length tokens, or blocks where the sequence was opened with
// keys, such as a speculation that was wrong. More than there are is a
// *sequence.LengthError.
func (s *Sequence) Unwind(ctx context.Context, length int) error {
	return s.chain(ctx, "unwind", func() error {
		have := s.length()
		if length < 0 || length > have {
			return &sequence.LengthError{Tokens: length, Length: have}
		}
		return s.cutTo(have - length)
	})
}

// length is in tokens, or blocks where the sequence was opened with keys.
func (s *Sequence) length() int {
	if s.tokens != nil {
		return s.tokens.Len()
	}
	return len(s.keys)
}

func (s *Sequence) cutTo(length int) error {
	blocks := length
	if s.tokens != nil {
		blocks = length / s.tokens.BlockSize()
	}
	if length < 0 {
		return &sequence.LengthError{Tokens: length, Length: s.length()}
	}
	if blocks < len(s.Keys()) {
		s.ask("CAIRN.SEQ.TRUNCATE", 1)
		s.conn.AppendInt(int64(blocks))
		if _, err := wire.ReadFields(s.conn); err != nil {
			return err
		}
	}
	if s.tokens != nil {
		return s.tokens.Truncate(length)
	}
	s.keys = s.keys[:min(blocks, len(s.keys))]
	return nil
}

// SequenceStatus is what the node says of a sequence.
type SequenceStatus struct {
	Blocks int
	// Matched is what the last Match found.
	Matched Match
	// VRAM and Host are the ranges of blocks that are kept in place, as text: "[0,40)".
	VRAM, Host string
	// Pending is how many blocks are kept in place nowhere: they wait for Onboard or Commit.
	Pending int
}

// Status asks the node. It does not count as a use.
func (s *Sequence) Status(ctx context.Context) (st SequenceStatus, err error) {
	err = s.chain(ctx, "status", func() error {
		s.ask("CAIRN.SEQ.STAT", 0)
		f, err := wire.ReadFields(s.conn)
		st = SequenceStatus{
			Blocks: int(f.Int("blocks")), Matched: Match{Prefix: int(f.Int("matched")), Local: int(f.Int("local"))},
			VRAM: f.Text("vram"), Host: f.Text("host"), Pending: int(f.Int("pending")),
		}
		return err
	})
	return st, err
}
