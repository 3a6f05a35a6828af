package node

import (
	"context"
	"sync"

	"cairn/block"
)

// flights lets concurrent calls for one key share one execution.
type flights struct {
	// mu guards calls.
	mu    sync.Mutex
	calls map[block.Key]*flight
}

type flight struct {
	done chan struct{}
	err  error
}

// do runs f, or waits for a run of it under the same key that is under way and
// returns its error. A waiter whose context ends leaves; the run goes on.
func (g *flights) do(ctx context.Context, key block.Key, f func() error) error {
	g.mu.Lock()
	if c, ok := g.calls[key]; ok {
		g.mu.Unlock()
		select {
		case <-c.done:
			return c.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c := &flight{done: make(chan struct{})}
	if g.calls == nil {
		g.calls = make(map[block.Key]*flight)
	}
	g.calls[key] = c
	g.mu.Unlock()

	defer func() {
		g.mu.Lock()
		delete(g.calls, key)
		g.mu.Unlock()
		close(c.done)
	}()
	c.err = f()
	return c.err
}
