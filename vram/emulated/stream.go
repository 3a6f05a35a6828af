package emulated

import (
	"context"
	"fmt"
	"sync"

	"cairn/tier"
	"cairn/vram"
)

// queueLength is how many operations a stream holds before a caller waits.
const queueLength = 1 << 10

// work is one entry of a stream: a copy between two pieces of memory, a batch of
// them, or an event.
type work struct {
	op       Op
	dst, src []byte
	batch    []pair
	event    *event
}

// stream carries out its work in order, on a goroutine of its own.
type stream struct {
	dev   *Device
	queue chan work
	ended chan struct{} // closed by the goroutine when it is done

	mu     sync.Mutex // held to queue; the goroutine never takes it
	closed bool
}

func newStream(d *Device) *stream {
	s := &stream{dev: d, queue: make(chan work, queueLength), ended: make(chan struct{})}
	go s.run()
	return s
}

// run ends when the queue is closed and empty.
func (s *stream) run() {
	defer close(s.ended)
	var first error // since the last event
	for w := range s.queue {
		if err := s.carryOut(w); first == nil {
			first = err
		}
		if w.op == Record {
			w.event.complete(first)
			first = nil
		}
	}
}

func (s *stream) submit(w work) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("emulated: %s: stream is closed: %w", w.op, tier.ErrClosed)
	}
	s.queue <- w
	return nil
}

// CopyIn implements [vram.Stream].
func (s *stream) CopyIn(dst vram.Addr, src []byte) error {
	if err := s.dev.ready(CopyIn); err != nil {
		return err
	}
	to, err := s.dev.bytes(dst, int64(len(src)))
	if err != nil {
		return err
	}
	return s.submit(work{op: CopyIn, dst: to, src: src})
}

// CopyOut implements [vram.Stream].
func (s *stream) CopyOut(dst []byte, src vram.Addr) error {
	if err := s.dev.ready(CopyOut); err != nil {
		return err
	}
	from, err := s.dev.bytes(src, int64(len(dst)))
	if err != nil {
		return err
	}
	return s.submit(work{op: CopyOut, dst: dst, src: from})
}

// CopyDevice implements [vram.Stream].
func (s *stream) CopyDevice(dst, src vram.Addr, n int64) error {
	if err := s.dev.ready(CopyDevice); err != nil {
		return err
	}
	to, err := s.dev.bytes(dst, n)
	if err != nil {
		return err
	}
	from, err := s.dev.bytes(src, n)
	if err != nil {
		return err
	}
	return s.submit(work{op: CopyDevice, dst: to, src: from})
}

// Record implements [vram.Stream].
func (s *stream) Record() (vram.Event, error) {
	if err := s.dev.ready(Record); err != nil {
		return nil, err
	}
	return s.record()
}

func (s *stream) record() (*event, error) {
	e := s.dev.event()
	if err := s.submit(work{op: Record, event: e}); err != nil {
		s.dev.events.Put(e)
		return nil, err
	}
	return e, nil
}

// Synchronize implements [vram.Stream].
func (s *stream) Synchronize() error {
	e, err := s.record()
	if err != nil {
		return err
	}
	defer e.Release()
	return e.Wait(context.Background())
}

// Close implements [vram.Stream].
func (s *stream) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.queue)
	}
	s.mu.Unlock()
	<-s.ended
	s.dev.forget(s)
	return nil
}

// event is used again when the stream and its user have let go of it.
type event struct {
	vram.Completion
	dev *Device
}

func (d *Device) event() *event {
	e, ok := d.events.Get().(*event)
	if !ok {
		e = &event{dev: d}
	}
	e.Begin()
	return e
}

func (e *event) complete(err error) {
	if e.Complete(err) {
		e.dev.events.Put(e)
	}
}

// Release implements [vram.Event].
func (e *event) Release() {
	if e.LetGo() {
		e.dev.events.Put(e)
	}
}
