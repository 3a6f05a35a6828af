package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cairn/block"
	"cairn/sequence"
)

// SequenceSpec says which blocks a sequence has: by tokens, or by keys.
type SequenceSpec struct {
	// Tokens are cut into blocks of BlockSize tokens, whose keys Hasher makes with
	// Salt; a nil Hasher is sequence.SHA256.
	Tokens    []uint32
	BlockSize int
	Salt      sequence.Salt
	Hasher    sequence.Hasher
	// Keys are those of all whole blocks, from the first on, in place of everything
	// above.
	Keys []block.Key
}

// Sequence is what one request of an inference engine has to do with the cache: its
// blocks, which of them are in which tier of this node, and the pins that keep those
// there. Methods that change it run one after another; all may be called in parallel.
// It must be closed.
type Sequence struct {
	n        *Node
	id       uint64
	idle     *time.Timer
	ended    chan struct{} // closed when Close begins
	released chan struct{} // closed when it holds nothing any more
	ahead    bool          // a prefetch's: in no list, without idle, closed by drop
	// op has an element while a method runs that changes the sequence.
	op chan struct{}

	// mu guards what follows. Only the holder of op changes it, except closed.
	mu       sync.Mutex
	closed   bool
	stop     context.CancelCauseFunc // ends what the holder of op does
	tokens   *sequence.TokenSequence // nil: opened with keys
	given    []block.Key             // when opened with keys
	matched  Matched
	tiers    [block.Tiers]runs
	lastSlot sequence.BlockID
	now      *onboarding // under way
	first    []int       // of a prefetch: positions that came from a peer for the first time
}

// errCancelled is the cause of an onboard's end that Cancel has asked for.
var errCancelled = fmt.Errorf("%w: cancelled", context.Canceled)

// OpenSequence begins a sequence and matches it; see Sequence.Match. Nothing is moved
// or pinned yet. It fails with ErrSequenceLimit, or with the errors of package sequence
// for tokens, block size and keys.
func (n *Node) OpenSequence(spec SequenceSpec) (*Sequence, error) {
	s := n.newSequence()
	if spec.Keys == nil {
		var err error
		if s.tokens, err = sequence.New(spec.BlockSize, spec.Salt, spec.Hasher); err != nil {
			return nil, err
		}
		if err := s.roomFor(len(spec.Tokens) / spec.BlockSize); err != nil {
			return nil, err
		}
		if _, err := s.tokens.Extend(spec.Tokens); err != nil {
			return nil, err
		}
	} else if err := s.addKeys(spec.Keys); err != nil {
		return nil, err
	}
	s.matched = n.Match(s.keys())
	s.mu.Lock() // the timer may fire, and the node close, as soon as they know of it
	defer s.mu.Unlock()
	s.idle = time.AfterFunc(n.cfg.SequenceIdle, s.expire)
	if err := n.sequences.enter(s); err != nil {
		s.closed = true // for the timer, if it has fired
		s.idle.Stop()
		return nil, err
	}
	return s, nil
}

func (n *Node) newSequence() *Sequence {
	return &Sequence{n: n, ended: make(chan struct{}), released: make(chan struct{}), op: make(chan struct{}, 1)}
}

// ID is a number that no other sequence of this node has had since it started.
func (s *Sequence) ID() uint64 { return s.id }

// Done is closed when the sequence is closed and holds nothing any more.
func (s *Sequence) Done() <-chan struct{} { return s.released }

// isClosed tells whether Close has begun.
func (s *Sequence) isClosed() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// begin lets one method change the sequence, until done is called. The context ends with
// the one given, and when the sequence is closed or cancelled.
func (s *Sequence) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	select {
	case s.op <- struct{}{}:
	case <-s.ended:
		return nil, nil, s.gone()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		<-s.op
		return nil, nil, s.gone()
	}
	ctx, s.stop = context.WithCancelCause(ctx)
	if s.idle != nil {
		s.idle.Stop()
	}
	return ctx, func() {
		s.mu.Lock()
		s.stop(nil)
		s.stop = nil
		if !s.closed && s.idle != nil {
			s.idle.Reset(s.n.cfg.SequenceIdle)
		}
		s.mu.Unlock()
		<-s.op
	}, nil
}

func (s *Sequence) gone() error {
	return fmt.Errorf("%w: %d: it was closed, or not used for %v: open another", ErrSequence, s.id, s.n.cfg.SequenceIdle)
}

// expire closes a sequence that nobody has used for long.
func (s *Sequence) expire() {
	s.mu.Lock()
	if s.stop != nil || s.closed { // whoever uses it sets the timer again
		s.mu.Unlock()
		return
	}
	s.endLocked()
	s.mu.Unlock()
	s.n.sequences.expired.Add(1)
	s.n.log.Info("sequence closed: nobody used it", "sequence", s.id, "for", s.n.cfg.SequenceIdle)
	s.release()
}

// Close ends the sequence: an onboard that is under way ends, and every block loses its
// pin. It returns when that is done. A second Close only waits.
func (s *Sequence) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.released
		return
	}
	s.endLocked()
	s.mu.Unlock()
	s.release()
}

// endLocked begins the end: no method begins any more, and one that is under way ends. Once.
func (s *Sequence) endLocked() {
	s.closed = true
	close(s.ended)
	if s.stop != nil {
		s.stop(s.gone())
	}
}

// release lets go of everything, after endLocked.
func (s *Sequence) release() {
	s.op <- struct{}{} // for ever
	s.idle.Stop()
	s.mu.Lock()
	for t := range s.tiers {
		s.tiers[t].clear()
	}
	s.mu.Unlock()
	s.n.sequences.leave(s)
	close(s.released)
}

// fromPeer takes note of a block that a peer has given.
func (s *Sequence) fromPeer(key block.Key) {
	again := s.n.lately.note(key, time.Now())
	if s.ahead && !again {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.first = append(s.first, key.Position())
	}
}

// firstFetched is where blocks are that came from a peer for the first time, for a prefetch,
// in ascending order.
func (s *Sequence) firstFetched() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.first)
	return s.first
}

// drop lets go of every block at once. An onboard that is under way pins nothing more; who
// calls drop ends it.
func (s *Sequence) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil {
		s.now.abandon()
	}
	for t := range s.tiers {
		s.tiers[t].clear()
	}
}

// lose lets go of every block in one tier, as drop does.
func (s *Sequence) lose(t block.Tier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil && s.now.to == t {
		s.now.abandon()
	}
	s.tiers[t].clear()
}

// Cancel ends an onboard that is under way, which returns what it has then; see Onboard.
// It reports whether something was under way.
func (s *Sequence) Cancel() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop == nil {
		return false
	}
	s.stop(errCancelled)
	return true
}

// keys are those of all blocks. They are only read, and not after the sequence is
// truncated.
func (s *Sequence) keys() []block.Key {
	if s.tokens != nil {
		return s.tokens.Keys()
	}
	return slices.Clip(s.given)
}

// KeysOf is the keys of some blocks. The caller owns the result.
func (s *Sequence) KeysOf(r sequence.Range) ([]block.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.keys()
	if s.closed {
		return nil, s.gone()
	}
	if r.Start < 0 || r.Start > r.End || r.End > len(keys) {
		return nil, outside(r, len(keys))
	}
	return slices.Clone(keys[r.Start:r.End]), nil
}

// outside says that blocks are asked for that a sequence of so many does not have.
func outside(r sequence.Range, blocks int) error {
	return fmt.Errorf("%w: blocks %s, its whole ones are %s", ErrPosition, r, sequence.Range{End: blocks})
}

// roomFor checks that the sequence may have so many blocks.
func (s *Sequence) roomFor(blocks int) error {
	if most := s.n.cfg.SequenceBlocks; blocks > most {
		return fmt.Errorf("%w: %d blocks, max-sequence-blocks is %d", ErrSequenceLimit, blocks, most)
	}
	return nil
}

// Match looks anew for the longest prefix that the cluster has, as far as this node
// knows.
func (s *Sequence) Match(ctx context.Context) (Matched, error) {
	_, done, err := s.begin(ctx)
	if err != nil {
		return Matched{}, err
	}
	defer done()
	return s.match(), nil
}

func (s *Sequence) match() Matched {
	m := s.n.Match(s.keys())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.matched = m
	return m
}

// Extend appends tokens and returns the range of blocks that became whole by it, which
// wait for Onboard or Commit. On error the sequence is as before.
func (s *Sequence) Extend(ctx context.Context, tokens []uint32) (sequence.Range, error) {
	return s.extend(ctx, func() error {
		if s.tokens == nil {
			return errKeysOnly
		}
		if err := s.roomFor((s.tokens.Len() + len(tokens)) / s.tokens.BlockSize()); err != nil {
			return err
		}
		_, err := s.tokens.Extend(tokens)
		return err
	})
}

// ExtendKeys is Extend for a sequence that was opened with keys: the next ones.
func (s *Sequence) ExtendKeys(ctx context.Context, keys []block.Key) (sequence.Range, error) {
	return s.extend(ctx, func() error {
		if s.tokens != nil {
			return errTokensOnly
		}
		return s.addKeys(keys)
	})
}

var (
	errKeysOnly   = errors.New("the sequence was opened with keys: extend it by keys")
	errTokensOnly = errors.New("the sequence was opened with tokens: extend it by tokens")
)

func (s *Sequence) extend(ctx context.Context, add func() error) (sequence.Range, error) {
	_, done, err := s.begin(ctx)
	if err != nil {
		return sequence.Range{}, err
	}
	defer done()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := sequence.Range{Start: len(s.keys()), End: len(s.keys())}
	if err := add(); err != nil {
		return r, err
	}
	r.End = len(s.keys())
	return r, nil
}

// addKeys appends keys of blocks, which must be of the next positions.
func (s *Sequence) addKeys(keys []block.Key) error {
	if err := s.roomFor(len(s.given) + len(keys)); err != nil {
		return err
	}
	for i, k := range keys {
		if want := len(s.given) + i; k.Position() != want {
			return fmt.Errorf("%w: key %s is of position %d, the next block is %d: give the keys of all blocks in order, from position 0 on",
				ErrPosition, k, k.Position(), want)
		}
	}
	s.given = append(s.given, keys...)
	return nil
}

// Truncate keeps the first length tokens, or blocks where the sequence was opened with
// keys. What is not whole any more loses its pins; it stays in the cache. Beyond the end it
// does nothing; a negative length is a *sequence.LengthError.
func (s *Sequence) Truncate(ctx context.Context, length int) error {
	return s.cut(ctx, func() error {
		switch {
		case s.tokens != nil:
			return s.tokens.Truncate(length)
		case length < 0:
			return &sequence.LengthError{Tokens: length, Length: len(s.given)}
		}
		s.given = s.given[:min(length, len(s.given))]
		return nil
	})
}

// Unwind removes the last length tokens, or blocks where the sequence was opened with
// keys; see Truncate. More than there are is a *sequence.LengthError.
func (s *Sequence) Unwind(ctx context.Context, length int) error {
	return s.cut(ctx, func() error {
		switch {
		case s.tokens != nil:
			return s.tokens.Unwind(length)
		case length < 0 || length > len(s.given):
			return &sequence.LengthError{Tokens: length, Length: len(s.given)}
		}
		s.given = s.given[:len(s.given)-length]
		return nil
	})
}

func (s *Sequence) cut(ctx context.Context, shorten func() error) error {
	_, done, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := shorten(); err != nil {
		return err
	}
	end := len(s.keys())
	for t := range s.tiers {
		s.tiers[t].truncate(end)
	}
	s.matched.Prefix, s.matched.Local = min(s.matched.Prefix, end), min(s.matched.Local, end)
	return nil
}

// SequenceStatus is a snapshot of a sequence.
type SequenceStatus struct {
	ID uint64
	// Tokens is 0 for a sequence that was opened with keys; Blocks are whole.
	Tokens, Blocks int
	// Matched is what the last Match found.
	Matched Matched
	// Held is which blocks are pinned in each tier, by ascending position, and Pending
	// how many are pinned in none: they wait for Onboard or Commit.
	Held    [block.Tiers][]sequence.Range
	Pending int
	// Busy: something that changes the sequence is under way.
	Busy bool
}

// Status takes the snapshot. It does not count as a use.
func (s *Sequence) Status() SequenceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SequenceStatus{ID: s.id, Blocks: len(s.keys()), Matched: s.matched, Busy: s.stop != nil}
	if s.tokens != nil {
		st.Tokens = s.tokens.Len()
	}
	for t := range s.tiers {
		st.Held[t] = s.tiers[t].held()
	}
	for _, gap := range s.tiers[block.Host].gaps(sequence.Range{End: st.Blocks}) {
		for _, r := range s.tiers[block.VRAM].gaps(gap) {
			st.Pending += r.Len()
		}
	}
	return st
}
