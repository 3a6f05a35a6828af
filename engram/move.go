package engram

import (
	"context"
	"errors"
	"fmt"

	"cairn/coherency"
)

// Upload brings the newest bytes to the device, in new memory that nobody sees before
// all of them have arrived; then what was there is freed. If the device has them already
// nothing is done. ErrConflict: the device has a write that host lacks.
//
// When ctx ends Upload returns, and nothing has changed. It begins again when host is
// written meanwhile.
func (e *Engram) Upload(ctx context.Context) error {
	return e.move(ctx, "upload", func(m *coherency.Mirror) (coherency.MirrorCopy, error) { return m.Begin(Device) })
}

// Download brings the newest bytes to host, as Upload does to the device. ErrNoCopy: the
// device has nothing. ErrContent: its bytes are not those of the version: see
// CheckDevice.
func (e *Engram) Download(ctx context.Context) error {
	return e.move(ctx, "download", func(m *coherency.Mirror) (coherency.MirrorCopy, error) { return m.Begin(Host) })
}

// Sync uploads or downloads what one side has and the other has in an older version. If
// that is neither, nothing is done. ErrNoCopy: the newest version was lost.
func (e *Engram) Sync(ctx context.Context) error {
	return e.move(ctx, "sync", (*coherency.Mirror).Sync)
}

// move plans a copy and carries it out, again if it was overtaken.
func (e *Engram) move(ctx context.Context, op string, plan func(*coherency.Mirror) (coherency.MirrorCopy, error)) error {
	for {
		t, err := e.plan(ctx, plan)
		if errors.Is(err, coherency.ErrCurrent) {
			return nil
		}
		if err == nil {
			err = t.end(t.carry(ctx))
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, coherency.ErrStale) || ctx.Err() != nil {
			return fmt.Errorf("engram: %s: %w", op, err)
		}
	}
}

// transfer is a copy that the mirror knows to be in flight. end must follow.
type transfer struct {
	e     *Engram
	mem   *Memory
	copy  coherency.MirrorCopy
	bytes []byte  // on host: the source, or what the copy goes to
	held  *buffer // on the device, likewise; nil before prepare
}

// plan begins a copy, when nothing else is in flight.
func (e *Engram) plan(ctx context.Context, plan func(*coherency.Mirror) (coherency.MirrorCopy, error)) (t *transfer, err error) {
	err = e.when(ctx, func() error {
		t, err = e.planLocked(plan)
		return err
	})
	return t, err
}

func (e *Engram) planLocked(plan func(*coherency.Mirror) (coherency.MirrorCopy, error)) (*transfer, error) {
	m := e.mirror
	c, err := plan(&m)
	switch {
	case err != nil:
		return nil, err
	case e.mem == nil:
		return nil, ErrNoDevice
	}
	e.mirror = m
	t := &transfer{e: e, mem: e.mem, copy: c}
	if c.To == Device {
		t.bytes = e.host
	} else {
		t.held = e.device.hold()
	}
	return t, nil
}

// prepare makes the memory that the copy goes to.
func (t *transfer) prepare() (err error) {
	if t.copy.To == Host {
		t.bytes = make([]byte, t.copy.Content.Length)
		return nil
	}
	t.held, err = t.mem.allocate(int64(t.copy.Content.Length))
	return err
}

func (t *transfer) carry(ctx context.Context) error {
	if err := t.prepare(); err != nil {
		return err
	}
	if t.copy.To == Host {
		return t.held.copyOut(ctx, t.bytes)
	}
	return t.held.copyIn(ctx, t.bytes)
}

// end commits the copy if err is nil, and aborts it otherwise; then both sides are as
// they were.
func (t *transfer) end(err error) error {
	e, n := t.e, int64(t.copy.Content.Length)
	// What has arrived on the device nobody has looked at.
	arrived := coherency.Content{Length: uint64(n)}
	if err == nil && t.copy.To == Host {
		arrived = coherency.ContentOf(t.bytes)
	}
	e.mu.Lock()
	if err == nil {
		err = e.mirror.Commit(t.copy, arrived)
	}
	unused := t.held
	switch {
	case err != nil:
		e.mirror.Abort(t.copy)
		if !errors.Is(err, coherency.ErrStale) { // overtaken, and begun again
			e.counts.Failed++
		}
	case t.copy.To == Device:
		unused, e.device = e.device, t.held
		e.counts.Uploads++
		e.counts.BytesUploaded += n
	default:
		e.host = t.bytes
		e.counts.Downloads++
		e.counts.BytesDownloaded += n
	}
	e.wakeLocked()
	e.mu.Unlock()
	return errors.Join(err, unused.drop())
}

// Release frees the device's memory. What only the device has is downloaded first, and
// nothing is given up before that has been committed.
func (e *Engram) Release(ctx context.Context) error {
	for {
		var unused *buffer
		var t *transfer
		err := e.when(ctx, func() (err error) {
			if e.device == nil && !e.mirror.InFlight() {
				return nil
			}
			unused, err = e.dropLocked(Device)
			if errors.Is(err, coherency.ErrLastCopy) {
				t, err = e.planLocked(func(m *coherency.Mirror) (coherency.MirrorCopy, error) { return m.Begin(Host) })
			}
			return err
		})
		if err == nil && t != nil {
			if err = t.end(t.carry(ctx)); err == nil || errors.Is(err, coherency.ErrStale) && ctx.Err() == nil {
				continue
			}
		}
		if err = errors.Join(err, unused.drop()); err != nil {
			return fmt.Errorf("engram: release: %w", err)
		}
		return nil
	}
}

// dropLocked gives up a side, if the mirror allows, and returns a buffer to drop.
func (e *Engram) dropLocked(s Side) (*buffer, error) {
	if err := e.mirror.Drop(s); err != nil {
		return nil, err
	}
	return e.clearLocked(s), nil
}

// clearLocked forgets the bytes of a side that the mirror has given up.
func (e *Engram) clearLocked(s Side) (unused *buffer) {
	if s == Host {
		e.host = nil
	} else {
		unused, e.device = e.device, nil
	}
	e.wakeLocked()
	return unused
}
