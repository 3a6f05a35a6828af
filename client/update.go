package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Update changes a named block by a function of what it was: it reads the block,
// calls change, and writes the result if nobody has changed the block in between; else
// it begins again, with growing pauses, until ctx ends or, if that has no deadline, for
// Config.Timeout. ns is the namespace, "" for the configured one.
//
// change may be called several times, and must have no effect of its own; the result of
// one call is written, once. old is nil when there is no such block, and change's to keep
// and to write to. An error of change ends the Update and is returned as it is.
//
// It also begins again while no node is available. ErrUnknownOutcome ends it: the
// change may have been made. Of the options only WithPolicy and WithTTL count.
func (c *Client) Update(ctx context.Context, ns, name string, change func(old []byte) ([]byte, error), opts ...PutOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	o := options(opts)
	pause := backoff{most: c.cfg.MaxBackoff}
	var why error // of the last attempt that was cut short by nothing but itself
	for {
		failed, err := c.update(ctx, ns, name, change, o)
		switch {
		case err != nil || failed == nil:
			return err
		case errors.Is(failed, ErrUnknownOutcome):
			return failed
		case ctx.Err() == nil && !expired(ctx) && !retryable(failed):
			return failed
		case ctx.Err() == nil && !expired(ctx), why == nil:
			why = failed
		}
		if err := pause.wait(ctx); err != nil {
			return fmt.Errorf("cairn: update %.64q: %w: the last attempt: %w", name, err, why)
		}
	}
}

// update is one attempt. failed is why it did not succeed; err is what change said.
func (c *Client) update(ctx context.Context, ns, name string, change func([]byte) ([]byte, error), o putOptions) (failed, err error) {
	var old Versioned
	failed = c.named(ctx, func(n *Node) (err error) {
		old, err = n.getName(ctx, ns, name, nil, []GetOption{Strict()})
		return err
	})
	if errors.Is(failed, ErrNotFound) {
		old, failed = Versioned{}, nil
	}
	if failed != nil {
		return failed, nil
	}
	p, err := change(old.Value)
	if err != nil {
		return nil, err
	}
	return c.named(ctx, func(n *Node) error {
		_, err := n.compareAndSet(ctx, ns, name, old.Version, p, o)
		return err
	}), nil
}

// retryable tells whether what has failed was certainly not done and may succeed later.
func retryable(err error) bool {
	if errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrClosed) {
		return false
	}
	for _, e := range []error{ErrConflict, ErrUnavailable, ErrNoHome, ErrUnreachable, ErrFull} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// firstPause is how long the first pause is at most.
const firstPause = time.Millisecond

// backoff makes pauses that double, each of a random length.
type backoff struct {
	most time.Duration
	next time.Duration
}

// wait pauses, and returns ctx's error when that ends.
func (b *backoff) wait(ctx context.Context) error {
	b.next = min(max(2*b.next, firstPause), b.most)
	if expired(ctx) {
		return context.DeadlineExceeded
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t := time.NewTimer(b.next/2 + rand.N(b.next/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reset begins with short pauses again.
func (b *backoff) reset() { b.next = 0 }
