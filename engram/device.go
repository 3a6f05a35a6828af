package engram

import (
	"context"
	"errors"
	"fmt"

	"cairn/coherency"
	"cairn/vram"
)

// WriteDevice calls write with the address and size of the newest bytes on the device,
// to change them, and makes the next version of them. What write has queued must be over when it
// returns. An error of write is returned as it is, and no version is made: host's copy, or
// the device's own of before, stays the newest.
//
// ErrNoCopy: the device holds nothing: Upload first, or use ReplaceDevice. ErrConflict: host
// has a write that the device lacks. Unless host has the same version and nobody reads
// the device's, write works on a copy, at another address.
func (e *Engram) WriteDevice(ctx context.Context, write func(a vram.Addr, size int64) error) (Version, error) {
	v, err := e.writeDevice(ctx, -1, write)
	return v, wrapWrite(err)
}

// ReplaceDevice is WriteDevice for new memory of size bytes, all of which write must
// fill. The device need not hold anything.
func (e *Engram) ReplaceDevice(ctx context.Context, size int64, write func(a vram.Addr, size int64) error) (Version, error) {
	if size < 0 {
		return 0, fmt.Errorf("engram: write device: %d bytes: want 0 or more", size)
	}
	v, err := e.writeDevice(ctx, size, write)
	return v, wrapWrite(err)
}

// userError is what a caller's function has returned.
type userError struct{ error }

func (u userError) Unwrap() error { return u.error }

// wrapWrite returns an error of the caller's function as it is.
func wrapWrite(err error) error {
	if u, ok := err.(userError); ok { //nolint:errorlint // joined with another it must not be taken for the only one
		return u.error
	}
	if err != nil {
		return fmt.Errorf("engram: write device: %w", err)
	}
	return nil
}

// writeDevice writes to size bytes of new memory, or if size is below 0 to what the
// device holds.
func (e *Engram) writeDevice(ctx context.Context, size int64, write func(a vram.Addr, size int64) error) (Version, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var w coherency.MirrorWrite
	var old *buffer // held
	var mem *Memory
	var inPlace bool
	err := e.when(ctx, func() (err error) {
		if mem = e.mem; mem == nil {
			return ErrNoDevice
		}
		m := e.mirror
		if w, err = m.BeginWrite(Device, m.Version()); err != nil {
			return err
		}
		if size < 0 && w.Whole {
			return fmt.Errorf("%w on the device: Upload first, or ReplaceDevice", coherency.ErrNoCopy)
		}
		inPlace = size < 0 && e.mirror.Has(Host) && !e.device.shared()
		e.mirror = m
		if size < 0 {
			old = e.device.hold()
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	target := old
	if !inPlace {
		target, err = mem.shadow(ctx, old, size)
		err = errors.Join(err, old.drop())
	}
	ended := false
	defer func() {
		if !ended { // write has panicked, and somebody may recover
			_, _ = e.endWrite(w, target, inPlace, errPanicked)
		}
	}()
	if err == nil {
		if werr := write(target.addr, target.size); werr != nil {
			err = userError{werr}
		}
	}
	ended = true
	return e.endWrite(w, target, inPlace, err)
}

var errPanicked = errors.New("the function has panicked")

// shadow is a copy of old, or new memory of size bytes.
func (m *Memory) shadow(ctx context.Context, old *buffer, size int64) (*buffer, error) {
	if old != nil {
		size = old.size
	}
	b, err := m.allocate(size)
	if err != nil || old == nil {
		return b, err
	}
	return b, b.copyFrom(ctx, old)
}

// endWrite commits a write to target, which it has a hold on and drops, or aborts it.
func (e *Engram) endWrite(w coherency.MirrorWrite, target *buffer, inPlace bool, err error) (v Version, _ error) {
	e.mu.Lock()
	unused := []*buffer{target}
	if err == nil {
		v, err = e.mirror.CommitWrite(w, coherency.Content{Length: uint64(target.size)})
	}
	switch {
	case err != nil:
		// What was written in place is torn, and host's copy is all that is left.
		before := e.device
		held, _ := e.mirror.Holds(Device)
		if e.mirror.AbortWrite(w, inPlace) {
			e.counts.Lost++
			err = errors.Join(err, ErrLost)
		}
		if now, _ := e.mirror.Holds(Device); held != 0 && now == 0 {
			e.device = nil
			unused = append(unused, before)
		}
	case !inPlace:
		unused[0], e.device = e.device, target
	}
	e.wakeLocked()
	e.mu.Unlock()
	for _, b := range unused {
		if ferr := b.drop(); ferr != nil {
			err = errors.Join(err, ferr)
		}
	}
	return v, err
}

// MarkDeviceDirty says that what the device holds was changed by somebody who knows its
// address, and makes a version of it. ErrNoCopy: it holds nothing. ErrConflict: host
// has a write that the device lacks; both are kept. Pin.MarkDirty is safer: it tells when
// the memory is not the engram's any more.
func (e *Engram) MarkDeviceDirty(ctx context.Context) (Version, error) { return e.mark(ctx, nil) }

// mark makes a version of what was written to b, nil for whatever the device holds.
func (e *Engram) mark(ctx context.Context, b *buffer) (v Version, err error) {
	err = e.when(ctx, func() error {
		switch {
		case e.device == nil && b == nil:
			return coherency.ErrNoCopy
		case b != nil && e.device != b:
			return fmt.Errorf("%w: other memory has taken the place of what was written to", ErrConflict)
		}
		return e.markLocked(coherency.Content{Length: uint64(e.device.size)}, &v)
	})
	if err != nil {
		return 0, fmt.Errorf("engram: mark device dirty: %w", err)
	}
	return v, nil
}

func (e *Engram) markLocked(c coherency.Content, v *Version) error {
	m := e.mirror
	w, err := m.BeginWrite(Device, m.Version())
	if err != nil {
		return err
	}
	if *v, err = m.CommitWrite(w, c); err != nil {
		return err
	}
	e.mirror = m
	e.wakeLocked() // a copy of what was there is over
	return nil
}

// CheckDevice compares what the device holds with the checksum of its version, and
// makes the next version of it if it was written without a word: changed says so.
// ErrConflict: it was, and host has another write; both are kept. A version that the device
// itself has written has no checksum before it is downloaded, and is always right.
// ErrNoCopy: the device holds nothing.
//
// It reads all of the bytes. Call it before Release, Sync or WriteHost where
// somebody may have written to the device who does not say so.
func (e *Engram) CheckDevice(ctx context.Context) (changed bool, err error) {
	for {
		changed, err = e.checkDevice(ctx)
		if errors.Is(err, coherency.ErrStale) && ctx.Err() == nil {
			continue // it was replaced while it was read
		}
		if err != nil {
			return false, fmt.Errorf("engram: check device: %w", err)
		}
		return changed, nil
	}
}

func (e *Engram) checkDevice(ctx context.Context) (changed bool, err error) {
	var held Version
	var want coherency.Content
	var b *buffer
	err = e.when(ctx, func() error {
		switch held, want = e.mirror.Holds(Device); {
		case e.mirror.InFlight():
			return coherency.ErrInFlight
		case held == 0:
			return coherency.ErrNoCopy
		}
		b = e.device.hold()
		return nil
	})
	if err != nil {
		return false, err
	}
	p := make([]byte, b.size)
	if want.Summed {
		err = b.copyOut(ctx, p)
	}
	if err = errors.Join(err, b.drop()); err != nil || !want.Summed {
		return false, err
	}
	arrived := coherency.ContentOf(p)
	var v Version
	err = e.when(ctx, func() error {
		now, _ := e.mirror.Holds(Device)
		switch {
		case e.mirror.InFlight():
			return coherency.ErrInFlight
		case now != held || e.device != b:
			return coherency.ErrStale
		case arrived == want:
			return nil
		}
		changed = true
		return e.markLocked(arrived, &v)
	})
	return changed, err
}
