//go:build cuda && cgo

package cuda

import (
	"errors"
	"runtime"

	"gorgonia.org/cu"

	"cairn/tier"
	"cairn/vram"
)

// event is used again when the stream's goroutine and its user have let go of it.
type event struct {
	vram.Completion
	dev  *Device
	cu   cu.Event
	pins *runtime.Pinner // memory of the copies before it
	own  bool            // recorded by the stream itself; nobody waits for it
	owed error           // what it has to tell besides
}

// event is one that is not in use. It is called with the context set.
func (d *Device) event() (*event, error) {
	d.mu.Lock()
	var e *event
	if last := len(d.free) - 1; last >= 0 {
		e, d.free = d.free[last], d.free[:last]
	}
	d.mu.Unlock()
	if e == nil {
		ev, err := cu.MakeEvent(cu.DisableTiming | cu.BlockingSyncEvent)
		if err != nil {
			return nil, err
		}
		e = &event{dev: d, cu: ev, pins: &runtime.Pinner{}}
		d.mu.Lock()
		d.events = append(d.events, e)
		d.mu.Unlock()
	}
	e.Begin()
	return e, nil
}

// unused gives back an event that was not recorded.
func (e *event) unused() {
	e.dev.mu.Lock()
	defer e.dev.mu.Unlock()
	e.dev.free = append(e.dev.free, e)
}

// complete ends what the event stands for.
func (e *event) complete(err error) {
	if e.Complete(err) {
		e.reuse()
	}
}

// Release implements [vram.Event].
func (e *event) Release() {
	if e.LetGo() {
		e.reuse()
	}
}

func (e *event) reuse() {
	e.owed, e.own = nil, false
	e.unused()
}

// reap waits for the stream's events in turn and completes each. It ends when the queue is
// closed and empty.
func (s *stream) reap() {
	defer close(s.ended)
	var first error // since the last event that somebody waits for
	for e := range s.queue {
		err := s.await(e)
		if first == nil {
			first = errors.Join(e.owed, err)
		}
		e.pins.Unpin()
		<-s.room
		if e.own {
			e.complete(nil)
			continue
		}
		e.complete(first)
		first = nil
	}
}

// await blocks until the event is over and returns what the driver says. CUDA's own asynchronous errors
// are final; any other leaves open whether the event is over, so the whole stream is waited for. A
// device that is lost is asked as well, since it is lost by what one call said, and may yet be copying.
func (s *stream) await(e *event) error {
	const op = "wait for an event"
	d := s.dev
	err := d.call(func() error {
		if err := e.cu.Query(); !notReady(err) {
			return err
		}
		return e.cu.Synchronize()
	})
	if err != nil {
		err = d.fail(op, err)
		if !d.lost.Load() {
			s.mu.Lock()
			s.settleLocked()
			s.mu.Unlock()
		}
	}
	if gone := d.gone(op); gone != nil && !errors.Is(err, tier.ErrDeviceLost) {
		err = errors.Join(gone, err)
	}
	return err
}
