package engram

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"cairn/coherency"
)

// Version counts the contents that one Engram has had, from 1. It is not the version
// of a block of the cluster.
type Version = coherency.Version

// State says which side of an Engram holds the newest version.
type State = coherency.MirrorState

// The states; see the package comment.
const (
	Gone        = coherency.MirrorGone
	HostOnly    = coherency.HostOnly
	DeviceOnly  = coherency.DeviceOnly
	Synced      = coherency.Synced
	HostDirty   = coherency.HostDirty
	DeviceDirty = coherency.DeviceDirty
)

// Side is one of the two memories.
type Side = coherency.Side

// The two sides.
const (
	Host   = coherency.HostSide
	Device = coherency.DeviceSide
)

// Errors of engrams, besides those of vectors and of the device. They are those of
// package coherency, for errors.Is.
var (
	// ErrConflict: both sides were written, or the newest version is another than the
	// caller knew. Both copies are kept: Sync first, or say with Keep which one stays.
	ErrConflict = coherency.ErrConflict
	// ErrStale: this side holds an older version. Sync, or read the other one.
	ErrStale = coherency.ErrStale
	// ErrNoCopy: this side holds nothing.
	ErrNoCopy = coherency.ErrNoCopy
	// ErrLastCopy: nothing else holds the newest version. Only Discard removes it.
	ErrLastCopy = coherency.ErrLastCopy
	// ErrDirty is the ErrLastCopy of a write that the other side has not got yet.
	ErrDirty = coherency.ErrMirrorDirty
	// ErrContent: the bytes on the device are not those of the version. If it was a write
	// that nobody marked, mark it; else Keep the host's.
	ErrContent = coherency.ErrContent
	// ErrInFlight: a copy or a write is under way; wait for its end.
	ErrInFlight = coherency.ErrInFlight
	// ErrNoDevice: the engram has no device memory. Attach gives it one.
	ErrNoDevice = errors.New("no device memory attached: Attach some")
	// ErrAttached: the engram has bytes on another device. Release it there first.
	ErrAttached = errors.New("on another device")
)

// Engram is a buffer that is mirrored between host and device memory: a vector's
// encoding, or any bytes. Its state is a coherency.Mirror's. All methods may be called in
// parallel; none holds a lock while bytes move. A function that is given to one
// must not call methods that write or move the same engram.
//
// Bytes that were once committed on host are never changed in place: every write there
// is new memory.
type Engram struct {
	writing chan struct{} // holds one token, which a writer on host takes

	// mu guards what follows.
	mu     sync.Mutex
	mirror coherency.Mirror
	host   []byte  // what the mirror says that host holds
	device *buffer // what the mirror says that the device holds, held
	mem    *Memory
	ended  chan struct{} // closed when what is in flight ends
	counts Counts
}

// Counts is what an engram has done since it was made.
type Counts struct {
	Uploads, Downloads             int64 // that were committed
	BytesUploaded, BytesDownloaded int64
	Failed                         int64 // copies
	Lost                           int64 // versions that were declared lost
}

func (c *Counts) add(o Counts) {
	c.Uploads += o.Uploads
	c.Downloads += o.Downloads
	c.BytesUploaded += o.BytesUploaded
	c.BytesDownloaded += o.BytesDownloaded
	c.Failed += o.Failed
	c.Lost += o.Lost
}

// New is an engram with a copy of data on host, version 1.
func New(data []byte) *Engram {
	data = slices.Clone(data)
	m, _ := coherency.NewMirror(Host, coherency.ContentOf(data)) // a side that there is, and a checksum: no error
	e := &Engram{writing: make(chan struct{}, 1), mirror: m, host: data, ended: make(chan struct{})}
	e.writing <- struct{}{}
	return e
}

// FromVector is an engram with v's encoding on host. The error is that of
// SparseVec.Validate.
func FromVector(v SparseVec) (*Engram, error) {
	p, err := v.Marshal()
	if err != nil {
		return nil, err
	}
	return New(p), nil
}

// Attach gives the engram device memory for what comes; nil takes it away.
// ErrAttached: it has bytes in another.
func (e *Engram) Attach(mem *Memory) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.mem == mem:
		return nil
	case e.device != nil:
		return fmt.Errorf("engram: attach: %w: release it there first", ErrAttached)
	case e.mirror.InFlight():
		return fmt.Errorf("engram: attach: %w", ErrInFlight)
	}
	e.mem = mem
	return nil
}

// State says which side holds the newest version.
func (e *Engram) State() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mirror.State()
}

// Version is the newest version, wherever it is. Only a write makes a new one, or a
// Keep that chooses the older side.
func (e *Engram) Version() Version {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mirror.Version()
}

// Counts is what has been done.
func (e *Engram) Counts() Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.counts
}

// OnDevice tells whether the device holds something, be it old.
func (e *Engram) OnDevice() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.device != nil
}

// Snapshot is the newest bytes if host has them, and their version; else it is ErrStale
// or ErrNoCopy. The caller must not change them; nobody else does.
func (e *Engram) Snapshot() ([]byte, Version, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.mirror.Read(Host); err != nil {
		advice := "Download what the device has"
		if e.mirror.State() == Gone {
			advice = "it was lost, so Keep what is left or write anew"
		}
		return nil, 0, fmt.Errorf("engram: %w: %s", err, advice)
	}
	return e.host, e.mirror.Version(), nil
}

// ReadHost calls read with the newest bytes, which it must neither change nor keep, and
// returns its error. ErrStale: the device has a newer version; ErrNoCopy: host has
// nothing. A write meanwhile does not change the bytes.
func (e *Engram) ReadHost(read func(p []byte) error) error {
	p, _, err := e.Snapshot()
	if err != nil {
		return err
	}
	return read(p)
}

// Vector decodes the newest bytes on host; see ReadHost and Decode.
func (e *Engram) Vector() (SparseVec, error) {
	p, _, err := e.Snapshot()
	if err != nil {
		return SparseVec{}, err
	}
	return Decode(p)
}

// when calls f under the lock, again whenever something has ended, for as long as f
// says ErrInFlight.
func (e *Engram) when(ctx context.Context, f func() error) error {
	for {
		e.mu.Lock()
		err := f()
		ended := e.ended
		e.mu.Unlock()
		if !errors.Is(err, coherency.ErrInFlight) {
			return err
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (e *Engram) wakeLocked() {
	close(e.ended)
	e.ended = make(chan struct{})
}
