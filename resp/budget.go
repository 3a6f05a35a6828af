package resp

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// budget is a server's allowance of bytes in flight. Waiters are served in the
// order in which they came.
type budget struct {
	limit int64
	wait  time.Duration

	mu      sync.Mutex // guards what follows
	used    int64
	waiters []*waiter
}

type waiter struct {
	n     int64
	ready chan struct{} // closed when n has been taken for the waiter
}

// try takes n bytes if they are free and nobody is waiting for them. With force
// it takes them in any case.
func (b *budget) try(n int64, force bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !force && (len(b.waiters) > 0 || b.used+n > b.limit) {
		return false
	}
	b.used += n
	return true
}

// take waits for n bytes, at most for b.wait and until done is closed.
func (b *budget) take(done <-chan struct{}, n int64) error {
	if n > b.limit {
		return fmt.Errorf("%d bytes in one command exceed MaxInFlightBytes (%d)", n, b.limit)
	}
	b.mu.Lock()
	if len(b.waiters) == 0 && b.used+n <= b.limit {
		b.used += n
		b.mu.Unlock()
		return nil
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()

	timer := time.NewTimer(b.wait)
	defer timer.Stop()
	var err error
	select {
	case <-w.ready:
		return nil
	case <-done:
		err = net.ErrClosed
	case <-timer.C:
		err = ServerError(fmt.Sprintf(
			"BUSY no room within MaxInFlightBytes (%d) for %d more bytes of payload after %v, try again", b.limit, n, b.wait))
	}
	if !b.leave(w) {
		return nil // served at the last moment
	}
	return err
}

// leave removes w from the queue; false means that w had been served.
func (b *budget) leave(w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.waiters {
		if other == w {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.serveLocked()
			return true
		}
	}
	return false
}

// give returns n bytes.
func (b *budget) give(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.serveLocked()
}

func (b *budget) serveLocked() {
	for len(b.waiters) > 0 && b.used+b.waiters[0].n <= b.limit {
		w := b.waiters[0]
		b.waiters = b.waiters[1:]
		b.used += w.n
		close(w.ready)
	}
}
