package replay

import (
	"context"
	"sync"

	"cairn/block"
	"cairn/internal/trace"
)

// job is one request on its way.
type job struct {
	request trace.Request
	keys    []block.Key
	// bound is how many leading blocks an infinite cache would have.
	bound int
	// index is the place in the trace.
	index int
	// after are the earlier requests that are about to put blocks of this one.
	after []*job
	// done is closed when the request is over, whatever came of it.
	done chan struct{}
	// claimed are the keys that order.claims has this job under; only order touches it.
	claimed []block.Key
	// mine tells which blocks an earlier attempt of this request has put.
	mine []bool
}

// order says which unfinished request is going to put which block. A request may
// wait only for requests before it in the trace, and all of these are with a
// worker already: so somebody can always go on.
type order struct {
	mu     sync.Mutex
	claims map[block.Key]*job
	stored map[block.Key]struct{}
}

func newOrder() *order {
	return &order{claims: map[block.Key]*job{}, stored: map[block.Key]struct{}{}}
}

// register enters the next request of the trace: it claims the blocks that no
// request before it had, and waits for those that another has claimed.
func (o *order) register(j *job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, k := range j.keys {
		switch other := o.claims[k]; {
		case other == j: // the same block twice in one request
		case other != nil:
			j.wait(other)
		case i >= j.bound:
			o.claimLocked(j, k)
		}
	}
}

func (j *job) wait(other *job) {
	if n := len(j.after); n == 0 || j.after[n-1] != other {
		j.after = append(j.after, other)
	}
}

// claim takes the blocks that j has found missing. If an earlier request is about
// to put one of them it takes none and returns the requests to wait for, after
// which j matches again. A later request's claim is ignored, since waiting for it
// might be for ever: the block may then be put twice.
func (o *order) claim(j *job, missing []block.Key) (wait []*job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	j.after = j.after[:0]
	for _, k := range missing {
		if other := o.claims[k]; other != nil && other.index < j.index {
			j.wait(other)
		}
	}
	if len(j.after) > 0 {
		return j.after
	}
	for _, k := range missing {
		if o.claims[k] == nil {
			o.claimLocked(j, k)
		}
	}
	return nil
}

func (o *order) claimLocked(j *job, k block.Key) {
	o.claims[k] = j
	j.claimed = append(j.claimed, k)
}

// finish lets go of j's claims and of those who wait for it.
func (o *order) finish(j *job) {
	o.mu.Lock()
	for _, k := range j.claimed {
		delete(o.claims, k)
	}
	o.mu.Unlock()
	close(j.done)
}

// put notes that k was stored, and tells whether for the first time.
func (o *order) put(k block.Key) (first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, had := o.stored[k]
	o.stored[k] = struct{}{}
	return !had
}

// await waits until every job of wait is over.
func await(ctx context.Context, wait []*job) error {
	for _, other := range wait {
		select {
		case <-other.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
