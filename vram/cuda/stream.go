//go:build cuda && cgo

package cuda

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"cairn/tier"
	"cairn/vram"
)

// stream is a CUDA stream, with a goroutine that waits for its events.
type stream struct {
	dev     *Device
	cu      cu.Stream
	queue   chan *event   // recorded, oldest first
	room    chan struct{} // one for each event in the queue, taken before mu, so that nobody waits with it
	ended   chan struct{} // closed by the goroutine when it is done
	closing sync.Once
	err     error // of Close

	mu        sync.Mutex // held to queue
	closed    bool
	owed      error           // what the next event has to tell
	pins      *runtime.Pinner // memory of copies that no event is behind yet
	pinned    int             // how many copies those are
	transfers []transfer      // of the call that is queuing them
	triples   triples         // likewise
}

var _ vram.BatchStream = (*stream)(nil)

// NewStream implements [vram.Device]. It is a [vram.BatchStream].
func (d *Device) NewStream() (vram.Stream, error) {
	s := &stream{
		dev:   d,
		queue: make(chan *event, queueLength),
		room:  make(chan struct{}, queueLength),
		ended: make(chan struct{}),
		pins:  &runtime.Pinner{},
	}
	err := d.do("open a stream", func() (err error) {
		if s.cu, err = cu.MakeStream(cu.NonBlocking); err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.streams = append(d.streams, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	go s.reap()
	return s, nil
}

// enqueue lets f queue something on the stream.
func (s *stream) enqueue(op string, f func() error) error {
	return s.dev.do(op, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return fmt.Errorf("the stream is closed: %w", tier.ErrClosed)
		}
		return f()
	})
}

// CopyIn implements [vram.Stream].
func (s *stream) CopyIn(dst vram.Addr, src []byte) error {
	return s.enqueue("copy in", func() error {
		return s.copyHost(dst, src, s.in)
	})
}

// CopyOut implements [vram.Stream].
func (s *stream) CopyOut(dst []byte, src vram.Addr) error {
	return s.enqueue("copy out", func() error {
		return s.copyHost(src, dst, s.out)
	})
}

// in and out ask the driver for one copy.
func (s *stream) in(t transfer) error {
	return cu.MemcpyHtoDAsync(cu.DevicePtr(t.device), unsafe.Pointer(&t.host[0]), int64(len(t.host)), s.cu)
}

func (s *stream) out(t transfer) error {
	return cu.MemcpyDtoHAsync(unsafe.Pointer(&t.host[0]), cu.DevicePtr(t.device), int64(len(t.host)), s.cu)
}

func (s *stream) copyHost(a vram.Addr, p []byte, one func(transfer) error) (err error) {
	d := s.dev
	d.mu.Lock()
	s.transfers, err = d.splitLocked(s.transfers[:0], a, p)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	defer s.forget()
	return s.each(s.transfers, one)
}

// forget lets go of the memory that a call was given, but not of the room to note it.
func (s *stream) forget() { clear(s.transfers) }

// each queues the transfers one by one.
func (s *stream) each(list []transfer, one func(transfer) error) error {
	for i, t := range list {
		s.pin(t)
		if err := one(t); err != nil {
			s.undo(i > 0)
			return err
		}
	}
	s.unpinSome()
	return nil
}

// undo keeps the promise that a call that fails has queued nothing: where it has, that is over when
// undo returns.
func (s *stream) undo(queued bool) {
	if queued {
		s.settleLocked()
	}
}

// settleLocked waits until the stream has nothing queued, or the device is lost. What the driver then
// says is about work that no event is behind, so it is the next one's to tell.
func (s *stream) settleLocked() {
	for try := 1; ; try++ {
		err := s.dev.call(s.cu.Synchronize)
		if err == nil {
			return
		}
		s.owed = s.dev.fail("synchronize a stream", err)
		if try == attempts && !s.dev.lost.Load() {
			// Nobody can say whether the device still copies, and the memory of these copies
			// must not be used before they are over: so everything there ends. A device that is
			// in use by others of this process is lost to them, too.
			s.dev.resetContext()
			s.dev.lost.Store(true)
		}
		if s.dev.lost.Load() {
			return
		}
	}
}

// pin keeps memory of the Go heap where it is until the event behind the copy.
func (s *stream) pin(t transfer) {
	if !t.locked {
		s.pins.Pin(&t.host[0])
		s.pinned++
	}
}

// unpinSome records an event of the stream's own when nobody else does. Where that does not work,
// the next copy tries again.
func (s *stream) unpinSome() {
	if s.pinned < pinLimit {
		return
	}
	select {
	case s.room <- struct{}{}:
	default:
		return
	}
	e, err := s.recordLocked()
	if err != nil {
		<-s.room
		return
	}
	e.own = true
	e.Release()
	s.queue <- e
}

// CopyDevice implements [vram.Stream].
func (s *stream) CopyDevice(dst, src vram.Addr, n int64) error {
	return s.enqueue("copy on the device", func() error {
		d := s.dev
		d.mu.Lock()
		err := errors.Join(d.withinLocked(dst, n), d.withinLocked(src, n))
		d.mu.Unlock()
		if err != nil || n == 0 {
			return err
		}
		return cu.MemcpyDtoDAsync(cu.DevicePtr(dst), cu.DevicePtr(src), n, s.cu)
	})
}

// Record implements [vram.Stream].
func (s *stream) Record() (vram.Event, error) {
	e, err := s.record()
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (s *stream) record() (e *event, err error) {
	s.room <- struct{}{} // may wait until an event is over
	err = s.enqueue("record an event", func() error {
		if e, err = s.recordLocked(); err != nil {
			return err
		}
		e.owed, s.owed = s.owed, nil
		s.queue <- e
		return nil
	})
	if err != nil {
		<-s.room
	}
	return e, err
}

// recordLocked records an event, which takes over what is pinned. It is not in the queue yet.
func (s *stream) recordLocked() (*event, error) {
	e, err := s.dev.event()
	if err != nil {
		return nil, err
	}
	if err := e.cu.Record(s.cu); err != nil {
		e.unused()
		return nil, err
	}
	e.pins, s.pins = s.pins, e.pins
	s.pinned = 0
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
	s.closing.Do(func() { s.err = s.close() })
	return s.err
}

func (s *stream) close() error {
	d := s.dev
	s.mu.Lock()
	s.closed = true
	s.settleLocked() // what no event is behind, too; and on a lost device, see await
	s.mu.Unlock()
	close(s.queue)
	<-s.ended
	s.pins.Unpin()
	handle := s.cu // Destroy forgets it, also when it fails
	err := d.giveBack("destroy a stream", func() error { s.cu = handle; return s.cu.Destroy() })
	if err != nil {
		s.cu = handle
		return err // Device.Close tries once more
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.streams = slices.DeleteFunc(d.streams, func(o *stream) bool { return o == s })
	return nil
}
