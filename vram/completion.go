package vram

import (
	"context"
	"sync/atomic"
)

// Completion is the part of an [Event] that is the same on every device: it is completed
// once, waited for by any number, and then used again for another. It is for
// implementations of Device. The zero value is ready for Begin.
//
// The stream holds one reference and the user of the event the other, so that a user who
// stops waiting does not hand an event that is still queued to someone else.
type Completion struct {
	refs atomic.Int32
	done atomic.Bool
	// fired holds one token from completion on; whoever takes it puts it back.
	fired chan struct{}
	err   error // set before the token
}

// Begin prepares for one use, with both references. Nobody may hold one.
func (c *Completion) Begin() {
	if c.fired == nil {
		c.fired = make(chan struct{}, 1)
	}
	c.refs.Store(2)
}

// Complete says that the work is over, with err, and lets go of the stream's reference;
// see LetGo.
func (c *Completion) Complete(err error) (idle bool) {
	c.err = err
	c.done.Store(true)
	c.fired <- struct{}{}
	return c.LetGo()
}

// Done is that of [Event].
func (c *Completion) Done() bool { return c.done.Load() }

// Wait is that of [Event].
func (c *Completion) Wait(ctx context.Context) error {
	select {
	case <-c.fired:
	default:
		select {
		case <-c.fired:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.fired <- struct{}{}
	return c.err
}

// LetGo gives up one reference. idle tells that it was the last, and that the Completion may
// be begun again.
func (c *Completion) LetGo() (idle bool) {
	if c.refs.Add(-1) > 0 {
		return false
	}
	<-c.fired
	c.err = nil
	c.done.Store(false)
	return true
}
