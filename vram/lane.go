package vram

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// lane is a stream whose copies and events are queued in pairs, so that each
// event tells of one copy.
type lane struct {
	mu     sync.Mutex // held to queue, and to drain in the rare case below
	stream Stream
}

// lanes are the streams of one direction, used in turn.
type lanes struct {
	turn atomic.Uint64
	list []*lane
}

func (l *lanes) open(dev Device, n int) error {
	for range n {
		s, err := dev.NewStream()
		if err != nil {
			return err
		}
		l.list = append(l.list, &lane{stream: s})
	}
	return nil
}

func (l *lanes) close() error {
	var errs []error
	for _, lane := range l.list {
		errs = append(errs, lane.stream.Close())
	}
	return errors.Join(errs...)
}

func (l *lanes) next() *lane { return l.list[l.turn.Add(1)%uint64(len(l.list))] }

// copyIn copies src to dst and returns when the device is done with both.
func (l *lanes) copyIn(dst Addr, src []byte) error {
	return l.next().run(func(s Stream) error { return s.CopyIn(dst, src) })
}

// copyOut copies src to dst and returns when the device is done with both.
func (l *lanes) copyOut(dst []byte, src Addr) error {
	return l.next().run(func(s Stream) error { return s.CopyOut(dst, src) })
}

// run queues one copy and waits for it. When it returns, the copy is over,
// whatever the error, or the device is lost.
func (l *lane) run(queue func(Stream) error) error {
	e, err := l.queue(queue)
	if err != nil {
		return err
	}
	defer e.Release()
	return e.Wait(context.Background())
}

func (l *lane) queue(queue func(Stream) error) (Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := queue(l.stream); err != nil {
		return nil, err
	}
	e, err := l.stream.Record()
	if err != nil {
		// The copy is queued, but nothing will tell when it ends: wait for the
		// stream, so that its slot and the caller's bytes are not used too early.
		return nil, errors.Join(err, l.stream.Synchronize())
	}
	return e, nil
}
