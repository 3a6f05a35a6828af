package vram

import (
	"context"
	"sync"

	"cairn/tier"
)

// flow bounds the batches that are under way, and their bytes. Who comes first goes first.
type flow struct {
	batches int   // at most
	bytes   int64 // at most, except that one batch may always go

	// mu guards what follows.
	mu    sync.Mutex
	now   tier.Flights
	queue []*turn // who waits
}

// turn is one batch that waits.
type turn struct {
	bytes int64
	come  chan struct{} // closed when it may go
}

// enter returns when a batch of so many bytes may go, or with ctx's error. leave undoes it.
func (f *flow) enter(ctx context.Context, bytes int64) error {
	f.mu.Lock()
	if len(f.queue) == 0 && f.fitsLocked(bytes) {
		f.startLocked(bytes)
		f.mu.Unlock()
		return nil
	}
	t := &turn{bytes: bytes, come: make(chan struct{})}
	f.queue = append(f.queue, t)
	f.now.Waits++
	f.mu.Unlock()
	select {
	case <-t.come:
		return nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.queue {
		if other == t {
			f.queue = append(f.queue[:i], f.queue[i+1:]...)
			f.nextLocked() // this one may have been in the way
			return ctx.Err()
		}
	}
	return nil // its turn came at the same time
}

func (f *flow) leave(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now.Batches--
	f.now.Bytes -= bytes
	f.nextLocked()
}

// nextLocked lets those go for whom there is room now.
func (f *flow) nextLocked() {
	for len(f.queue) > 0 && f.fitsLocked(f.queue[0].bytes) {
		f.startLocked(f.queue[0].bytes)
		close(f.queue[0].come)
		f.queue = f.queue[1:]
	}
}

func (f *flow) fitsLocked(bytes int64) bool {
	return f.now.Batches == 0 || f.now.Batches < int64(f.batches) && f.now.Bytes+bytes <= f.bytes
}

func (f *flow) startLocked(bytes int64) {
	f.now.Batches++
	f.now.Bytes += bytes
}

func (f *flow) flights() tier.Flights {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}
