package engram

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"cairn/coherency"
)

// WriteHost calls write once with a copy of the newest bytes and makes what it returns,
// which is the engram's from then on, the next version. An error of write changes nothing and
// is returned as it is. ErrConflict: the device has a write that host lacks, or was
// written meanwhile; ErrNoCopy: host has nothing. Writes on host wait for each other.
func (e *Engram) WriteHost(ctx context.Context, write func(p []byte) ([]byte, error)) (Version, error) {
	if err := e.lockHost(ctx); err != nil {
		return 0, err
	}
	defer e.unlockHost()
	p, base, err := e.forWrite()
	if err != nil {
		return 0, err
	}
	if p, err = write(slices.Clone(p)); err != nil {
		return 0, err
	}
	return e.commitHost(ctx, base, p)
}

// forWrite is Snapshot, but where the device has the newer version the error is that of
// the write that would follow.
func (e *Engram) forWrite() ([]byte, Version, error) {
	e.mu.Lock()
	m := e.mirror
	e.mu.Unlock()
	if m.State() == DeviceDirty {
		_, err := m.BeginWrite(Host, m.Version())
		return nil, 0, fmt.Errorf("engram: write host: %w", err)
	}
	return e.Snapshot()
}

// UpdateVector is WriteHost for vectors.
func (e *Engram) UpdateVector(ctx context.Context, change func(SparseVec) (SparseVec, error)) (Version, error) {
	return e.WriteHost(ctx, func(p []byte) ([]byte, error) {
		v, err := Decode(p)
		if err != nil {
			return nil, err
		}
		if v, err = change(v); err != nil {
			return nil, err
		}
		return v.Marshal()
	})
}

// ReplaceHost makes a copy of p the next version, whatever host held. expect is the
// version that it replaces, 0 whichever there is. ErrConflict: it is another, or the device
// has a write that host lacks.
func (e *Engram) ReplaceHost(ctx context.Context, expect Version, p []byte) (Version, error) {
	if err := e.lockHost(ctx); err != nil {
		return 0, err
	}
	defer e.unlockHost()
	return e.commitHost(ctx, cmp.Or(expect, e.Version()), slices.Clone(p))
}

func (e *Engram) lockHost(ctx context.Context) error {
	select {
	case <-e.writing:
		return nil
	default:
	}
	select {
	case <-e.writing:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("engram: write host: %w", ctx.Err())
	}
}

func (e *Engram) unlockHost() { e.writing <- struct{}{} }

// commitHost begins and commits at once: whoever reads sees the bytes before or after.
func (e *Engram) commitHost(ctx context.Context, base Version, p []byte) (v Version, err error) {
	content := coherency.ContentOf(p)
	err = e.when(ctx, func() error {
		w, err := e.mirror.BeginWrite(Host, base)
		if err != nil {
			return err
		}
		if v, err = e.mirror.CommitWrite(w, content); err != nil {
			return err
		}
		e.host = p
		e.wakeLocked() // a copy of what was there is over
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("engram: write host: %w", err)
	}
	return v, nil
}
