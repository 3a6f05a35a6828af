// Package serving is an inference engine reduced to what it has to do with the cache: copy
// it, and put your model in the place of [Model].
//
// A request goes through [Engine.Serve] in eight steps: route, open, onboard, read, compute
// what is missing, commit, decode, close. The cache is never in the way of an answer: what
// it cannot give is computed, and what it cannot take is computed again some day.
package serving

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/client"
	"cairn/sequence"
)

// Config is an engine's.
type Config struct {
	// Cache reaches the cluster.
	Cache *client.Client
	// Namespace is what must agree before two engines share blocks; its BlockSize is the
	// number of tokens of a block.
	Namespace sequence.Namespace
	Model     Model
	// Tier is where blocks are needed: GPU memory, or host memory on a node without.
	Tier block.Tier
	// Draft is how many tokens are guessed at a time while decoding.
	Draft int
}

// Request is a prompt, and how many tokens are to follow it.
type Request struct {
	ID       string // unique among the requests of the cluster
	Prompt   []uint32
	Generate int
}

// Answer is the tokens that follow, and what they have cost.
type Answer struct {
	Tokens []uint32
	Node   string // that the request was sent to
	// Cached blocks came from the cache, Computed ones had to be computed; Committed of
	// these are in the cache now. Unwound counts guessed tokens that were wrong.
	Cached, Computed, Committed, Unwound int
}

// Engine serves requests. All methods may be called in parallel.
type Engine struct {
	cfg  Config
	salt sequence.Salt
}

// New checks the namespace.
func New(cfg Config) (*Engine, error) {
	salt, err := cfg.Namespace.Salt()
	if err != nil {
		return nil, err
	}
	return &Engine{cfg: cfg, salt: salt}, nil
}

// attempts is how many nodes a request is sent to before it fails.
const attempts = 3

// Serve answers a request. When its node goes away in the middle, it begins again at another
// one, which has the blocks that were committed, as far as peers have copies.
func (e *Engine) Serve(ctx context.Context, q Request) (Answer, error) {
	var gone []string
	for {
		a, err := e.try(ctx, q, gone)
		lost := errors.Is(err, client.ErrSequence) || errors.Is(err, client.ErrUnavailable)
		if !lost || a.Node == "" || ctx.Err() != nil {
			return a, err
		}
		if gone = append(gone, a.Node); len(gone) == attempts {
			return a, fmt.Errorf("%d nodes failed, the last one: %w", attempts, err)
		}
	}
}

// try answers a request at the best node that is not excluded.
func (e *Engine) try(ctx context.Context, q Request, exclude []string) (a Answer, err error) {
	tokens, err := sequence.New(e.cfg.Namespace.BlockSize, e.salt, nil)
	if err != nil {
		return a, err
	}
	if _, err := tokens.Extend(q.Prompt); err != nil {
		return a, err
	}
	// 1. Route: where is the prompt cached, and how long is the queue there?
	route, err := e.cfg.Cache.Route(ctx, client.RouteRequest{
		Keys: tokens.Keys(), Tokens: tokens.Len(), BlockTokens: e.cfg.Namespace.BlockSize,
		BlockBytes: int64(e.cfg.Model.BlockBytes), ID: q.ID, Exclude: exclude,
	})
	if err != nil {
		return a, err
	}
	a.Node = route.Node
	// A router that is not told forgets the request after a while.
	defer func() { _ = e.cfg.Cache.Done(context.WithoutCancel(ctx), q.ID) }()
	node, err := e.cfg.Cache.Node(route.Addr)
	if err != nil {
		return a, err
	}
	// 2. Open: from here on the node knows the blocks of the request. It takes tokens over.
	seq, _, err := node.OpenSequence(ctx, tokens)
	if err != nil {
		return a, err
	}
	defer seq.Close() // 8. Close: the blocks may be evicted again.
	r := &request{e: e, seq: seq, answer: &a, tokens: append([]uint32{}, q.Prompt...)}
	if err := r.prefill(ctx); err != nil {
		return a, err
	}
	// The prompt is computed: it no longer waits, but is being decoded.
	_ = e.cfg.Cache.Prefilled(ctx, q.ID)
	err = r.decode(ctx, q.Generate)
	a.Tokens = r.tokens[len(q.Prompt):]
	return a, err
}

// request is a request at its node.
type request struct {
	e      *Engine
	seq    *client.Sequence
	answer *Answer
	tokens []uint32 // the prompt, and what was accepted of what follows
	done   int      // blocks that are in the cache, or were tried to be put there
}

// prefill brings in what is cached of the prompt, and computes the rest.
func (r *request) prefill(ctx context.Context) error {
	// 3. Onboard: what the cluster has goes into this node's memory and stays there.
	got, err := r.seq.Onboard(ctx, r.e.cfg.Tier, sequence.Range{})
	switch {
	case errors.Is(err, client.ErrPinned), errors.Is(err, client.ErrFull):
		// Other requests need the memory: this one is computed.
	case err != nil:
		return err
	}
	// 4. Read. An engine whose GPU memory the node manages has the blocks in place by now.
	found, err := r.read(ctx, got.Range)
	if err != nil {
		return err
	}
	r.done, r.answer.Cached = found, found
	// 5. and 6. Compute and commit.
	return r.commit(ctx, len(r.seq.Keys()))
}

// read loads blocks from the cache and returns how many of them, from the first on, are
// there. What differs from what the model computes is an error, which an engine would find
// too late: it has no other way to know.
func (r *request) read(ctx context.Context, want sequence.Range) (int, error) {
	blocks := make([][]byte, want.Len())
	found, err := r.seq.Read(ctx, want, func(i int, d block.Descriptor) []byte {
		blocks[i] = make([]byte, d.Length)
		return blocks[i]
	})
	if err != nil && !errors.Is(err, client.ErrCorrupt) { // a damaged block is one that is not there
		return 0, err
	}
	keys := r.seq.Keys()
	for i := range found {
		if !found[i] {
			return i, nil
		}
		if !bytes.Equal(blocks[i], r.e.cfg.Model.Block(keys[want.Start+i])) {
			return i, fmt.Errorf("block %d of the request has other bytes than it should", want.Start+i)
		}
	}
	return len(found), nil
}

// commit computes the blocks up to position end that are not cached yet, and puts them into
// the cache.
func (r *request) commit(ctx context.Context, end int) error {
	if end <= r.done {
		return nil
	}
	var computed [][]byte
	for _, key := range r.seq.Keys()[r.done:end] {
		computed = append(computed, r.e.cfg.Model.Block(key))
	}
	stored, err := r.seq.Commit(ctx, r.done, computed)
	r.answer.Computed += len(computed)
	r.answer.Committed += stored
	r.done = end
	if errors.Is(err, client.ErrPinned) || errors.Is(err, client.ErrFull) {
		return nil // there is no room in the cache now
	}
	return err
}

// decode generates n tokens, several guesses at a time. Only blocks whose tokens were all
// accepted are committed: a wrong guess must not get into the cache.
func (r *request) decode(ctx context.Context, n int) error {
	for want := len(r.tokens) + n; len(r.tokens) < want; {
		// 7. Decode: guess, verify all guesses in one step, and unwind the wrong ones.
		guesses := r.e.cfg.Model.Guess(r.tokens, min(r.e.cfg.Draft, want-len(r.tokens)))
		if _, err := r.seq.Extend(ctx, guesses); err != nil {
			return err
		}
		right, next := r.e.cfg.Model.Verify(r.tokens, guesses)
		r.tokens = append(r.tokens, guesses[:right]...)
		if wrong := len(guesses) - right; wrong > 0 {
			r.answer.Unwound += wrong
			if err := r.seq.Unwind(ctx, wrong); err != nil {
				return err
			}
			if _, err := r.seq.Extend(ctx, []uint32{next}); err != nil {
				return err
			}
			r.tokens = append(r.tokens, next)
		}
		if err := r.commit(ctx, len(r.seq.Keys())); err != nil {
			return err
		}
	}
	return nil
}
