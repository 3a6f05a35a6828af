package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"cairn/coherency/protocol"
)

// task is something for the goroutine to do: an event, whose answer goes to w if
// that is not nil, or a function.
type task struct {
	event protocol.Event
	w     *waiter
	do    func()
}

// waiter is someone who waits for the end of an operation.
type waiter struct {
	op     protocol.Op
	answer protocol.Effect
	done   chan struct{} // gets one token
}

var waiters = sync.Pool{New: func() any { return &waiter{done: make(chan struct{}, 1)} }}

// maxQueue is how many tasks may wait before the log's reader has to.
const maxQueue = 1 << 16

// submit gives the goroutine something to do, in order. It reports whether the
// node still takes it.
func (c *coherence) submit(t task) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.queue = append(c.queue, t)
	first := len(c.queue) == 1 && !c.busy
	c.queued.Store(int64(len(c.queue)))
	c.mu.Unlock()
	if first {
		c.rouse()
	}
	return true
}

// submitHere is submit for who holds no lock: if nobody runs the machine the caller does,
// which saves two changes of goroutine.
func (c *coherence) submitHere(t task) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.queue = append(c.queue, t)
	c.queued.Store(int64(len(c.queue)))
	free := !c.busy
	c.mu.Unlock()
	if free {
		c.work(mostHere)
	}
	return true
}

// rouse wakes the goroutine.
func (c *coherence) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// event submits an event that nobody waits for.
func (c *coherence) event(e protocol.Event) { c.submit(task{event: e}) }

// enter takes the machine for the caller, if it is free.
func (c *coherence) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		return false
	}
	c.busy = true
	return true
}

// exit gives the machine back, unless there is more to do and the caller may go on.
func (c *coherence) exit(enough bool) bool {
	c.mu.Lock()
	more := len(c.queue) > 0
	if more && !enough && !c.closed {
		c.mu.Unlock()
		return false
	}
	c.busy = false
	more = more || c.closed
	c.mu.Unlock()
	if more {
		c.rouse()
	}
	return true
}

// take returns what has been submitted since the last take, until the next.
func (c *coherence) take() []task {
	clear(c.batch)
	c.mu.Lock()
	c.batch, c.queue = c.queue, c.batch[:0]
	c.queued.Store(0)
	c.mu.Unlock()
	if len(c.batch) >= maxQueue {
		select {
		case c.room <- struct{}{}:
		default:
		}
	}
	return c.batch
}

// ask submits an event that ends with an answer, and waits for it. make is given
// the operation's number. When ctx ends first the outcome is open.
func (c *coherence) ask(ctx context.Context, make func(protocol.Op) protocol.Event) (protocol.Effect, error) {
	w, err := c.begin(make)
	if err != nil {
		return nil, err
	}
	return c.await(ctx, w)
}

// age is how old what this node knows of the log may be at most.
func (c *coherence) age() time.Duration { return c.now() - time.Duration(c.fresh.Load()) }

// begin submits an event whose answer await returns.
func (c *coherence) begin(make func(protocol.Op) protocol.Event) (*waiter, error) {
	w := waiters.Get().(*waiter)
	w.op = protocol.Op(c.ops.Add(1))
	if !c.submitHere(task{event: make(w.op), w: w}) {
		waiters.Put(w)
		return nil, ErrClosed
	}
	return w, nil
}

// await waits for the answer, about Config.NameWait at most.
func (c *coherence) await(ctx context.Context, w *waiter) (protocol.Effect, error) {
	var err error
	select {
	case <-w.done:
		answer := w.answer
		w.answer = nil
		waiters.Put(w)
		if answer == nil {
			return nil, ErrClosed
		}
		return answer, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.limit():
		err = context.DeadlineExceeded
	}
	c.event(protocol.Cancel{Op: w.op}) // who is late must not be woken: w is not used again
	return nil, fmt.Errorf("%w: %w", protocol.ErrUnavailable, err)
}

// limitGrain is for how long those who begin to wait share one timer: a timer for each
// would cost as much as all else that it does.
const limitGrain = 100 * time.Millisecond

// waitLimit is the end of waiting for those who began within limitGrain of from.
type waitLimit struct {
	from time.Duration // on the machine's clock
	over chan struct{} // closed when the time is over
}

// limit is closed Config.NameWait from now, or up to limitGrain later.
func (c *coherence) limit() <-chan struct{} {
	now := c.now()
	old := c.waitLimit.Load()
	if old != nil && now-old.from < limitGrain {
		return old.over
	}
	l := &waitLimit{from: now, over: make(chan struct{})}
	if c.waitLimit.CompareAndSwap(old, l) { // else another one is as good, and this one has no timer
		time.AfterFunc(c.n.cfg.NameWait+limitGrain, func() { close(l.over) })
		return l.over
	}
	return c.limit()
}

// answer wakes who waits for an operation.
func (c *coherence) answer(op protocol.Op, e protocol.Effect) {
	w, ok := c.waiters[op]
	if !ok {
		return
	}
	delete(c.waiters, op)
	c.answered++
	w.answer = e
	w.done <- struct{}{}
}

// call runs f in the goroutine and waits for its end. It reports whether it ran.
func (c *coherence) call(f func(*protocol.Machine)) bool {
	done := make(chan struct{})
	if !c.submit(task{do: func() { defer close(done); f(c.machine) }}) {
		return false
	}
	select {
	case <-done:
		return true
	case <-c.ended:
		return false
	}
}
