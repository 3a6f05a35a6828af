package node

import (
	"sync"
	"sync/atomic"
)

// broadcast wakes everyone who waits for something to change.
type broadcast struct {
	waited atomic.Bool // ch is not nil: lets notify be cheap when nobody waits
	// mu guards ch.
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that the next notify closes. Take it before looking at
// what may change.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
		b.waited.Store(true)
	}
	return b.ch
}

// notify wakes all who wait.
func (b *broadcast) notify() {
	if !b.waited.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
		b.waited.Store(false)
	}
}
