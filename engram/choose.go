package engram

import (
	"context"
	"errors"
	"fmt"

	"cairn/coherency"
)

// ErrLost: the newest version was only on a side that is gone. Keep the other side's
// older one, or write anew.
var ErrLost = errors.New("newest version lost")

// Keep makes what side s holds the newest version: the choice after ErrConflict, or after
// a loss. If it is that already nothing changes. Else it becomes a new version, and the
// other side's copy is given up; lost tells that a write went with it. ErrNoCopy: s
// holds nothing.
func (e *Engram) Keep(ctx context.Context, s Side) (lost bool, err error) {
	var unused *buffer
	err = e.when(ctx, func() error {
		had := e.mirror.Has(s)
		if lost, err = e.mirror.Keep(s); err != nil || had {
			return err
		}
		e.lostLocked(lost)
		other := Host
		if s == Host {
			other = Device
		}
		unused = e.clearLocked(other)
		return nil
	})
	if err = errors.Join(err, unused.drop()); err != nil {
		return lost, fmt.Errorf("engram: keep %s: %w", s, err)
	}
	return lost, nil
}

// DropHost gives up host's copy, so that the device has the only one. ErrLastCopy or
// ErrDirty: the device does not have the newest version.
func (e *Engram) DropHost(ctx context.Context) error {
	err := e.when(ctx, func() error {
		_, err := e.dropLocked(Host)
		return err
	})
	if err != nil {
		return fmt.Errorf("engram: drop host: %w", err)
	}
	return nil
}

// Discard gives up what side s holds, whatever it is, and with it what is in flight from
// or to it. lost tells that it was the only copy of the newest version: then the state is
// Gone until Keep or a write of the whole. A function of WriteDevice that is running keeps
// its memory until it returns; its write then fails with ErrStale.
func (e *Engram) Discard(s Side) (lost bool, err error) {
	if !s.Valid() {
		return false, fmt.Errorf("engram: discard: %w: %s", coherency.ErrSide, s)
	}
	lost, unused := e.discard(s)
	if err := unused.drop(); err != nil {
		return lost, fmt.Errorf("engram: discard %s: %w", s, err)
	}
	return lost, nil
}

func (e *Engram) discard(s Side) (lost bool, unused *buffer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	lost = e.mirror.Discard(s)
	e.lostLocked(lost)
	return lost, e.clearLocked(s)
}

// DeviceLost says that the device is gone with all that it held. lost tells that the
// newest version was only there.
func (e *Engram) DeviceLost() (lost bool) { return e.deviceLost(nil) }

// deviceLost is DeviceLost if the device is the one that mem is on; nil stands for any.
func (e *Engram) deviceLost(mem *Memory) (lost bool) {
	e.mu.Lock()
	if mem != nil && e.mem != mem {
		e.mu.Unlock()
		return false
	}
	lost = e.mirror.DeviceLost()
	e.lostLocked(lost)
	unused := e.clearLocked(Device)
	e.mem = nil
	e.mu.Unlock()
	_ = unused.drop() // a device that is gone has nothing to free
	return lost
}

func (e *Engram) lostLocked(lost bool) {
	if lost {
		e.counts.Lost++
	}
}
