package coherency

import (
	"errors"
	"fmt"

	"cairn/block"
)

// Errors of mirrors, beside those of the tiers: [ErrConflict] for a write that
// expects another version, [ErrNoCopy] for a side that holds nothing, [ErrStale]
// for one that holds an older version and for a copy or write that was overtaken,
// [ErrCurrent] when there is nothing to copy, [ErrInFlight], and [ErrLastCopy].
var (
	// ErrMirrorConflict is an ErrConflict: the other side has a write that this
	// side lacks. Both copies are kept. Sync first, or say with Keep which one stays.
	ErrMirrorConflict = fmt.Errorf("%w: the other side has a write that this side lacks", ErrConflict)
	// ErrMirrorDirty is the ErrLastCopy of a write that the other side has not got:
	// sync first, or Discard it and declare the write lost.
	ErrMirrorDirty = fmt.Errorf("%w, not yet synced", ErrLastCopy)
	// ErrContent: the length or the checksum is not the one of the version, or host
	// bytes came without a checksum.
	ErrContent = errors.New("content does not match")
	// ErrSide: the argument is neither host nor device.
	ErrSide = errors.New("no such side")
)

// Side is one of the two memories of a [Mirror].
type Side uint8

// The two sides.
const (
	HostSide Side = iota
	DeviceSide

	sides = 2
)

// Valid tells whether s is one of the two.
func (s Side) Valid() bool { return s < sides }

func (s Side) other() Side { return s ^ 1 }

// String is "host" or "device".
func (s Side) String() string {
	switch s {
	case HostSide:
		return "host"
	case DeviceSide:
		return "device"
	}
	return fmt.Sprintf("side(%d)", uint8(s))
}

// MirrorState says which side of a mirror holds the newest version.
type MirrorState uint8

// The states of a mirror. A side that is not current either holds nothing, or an
// older version that no read returns.
const (
	MirrorGone  MirrorState = iota // neither side holds it: lost, or never written
	HostOnly                       // host holds it, the device holds nothing
	DeviceOnly                     // the device holds it, host holds nothing
	Synced                         // both hold it
	HostDirty                      // host holds it, the device an older version
	DeviceDirty                    // the device holds it, host an older version

	mirrorStates = iota
)

// HostIsCurrent tells whether host holds the newest version.
func (s MirrorState) HostIsCurrent() bool {
	return s == HostOnly || s == Synced || s == HostDirty
}

// DeviceIsCurrent tells whether the device holds the newest version.
func (s MirrorState) DeviceIsCurrent() bool {
	return s == DeviceOnly || s == Synced || s == DeviceDirty
}

// NeedsSync tells whether one side holds an older version than the other.
func (s MirrorState) NeedsSync() bool { return s == HostDirty || s == DeviceDirty }

// String is the name in lower case, such as "host-only".
func (s MirrorState) String() string {
	names := [mirrorStates]string{"gone", "host-only", "device-only", "synced", "host-dirty", "device-dirty"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Content is what is known of the bytes of one version.
type Content struct {
	Length uint64
	Sum    uint64 // their [block.Checksum]
	// Summed tells that Sum is known. A device that writes may not be able to tell;
	// the first download fills it in. Host bytes are always summed.
	Summed bool
}

// ContentOf describes p, which it only reads.
func ContentOf(p []byte) Content {
	return Content{Length: uint64(len(p)), Sum: block.Checksum(p), Summed: true}
}

// accepts tells whether the bytes that arrived at side can be those of c.
func (c Content) accepts(arrived Content, at Side) error {
	switch {
	case c.Length != arrived.Length:
		return fmt.Errorf("%w: %d bytes, not %d", ErrContent, arrived.Length, c.Length)
	case c.Summed && arrived.Summed && c.Sum != arrived.Sum:
		return fmt.Errorf("%w: checksum %016x, not %016x", ErrContent, arrived.Sum, c.Sum)
	}
	return arrived.fit(at)
}

// fit refuses host bytes without a checksum: host can always compute it, and
// nothing else would tell later that an upload or a read was wrong.
func (c Content) fit(at Side) error {
	if at == HostSide && !c.Summed {
		return fmt.Errorf("%w: host bytes without checksum", ErrContent)
	}
	return nil
}

// holding is what one side holds; version 0 is nothing.
type holding struct {
	version Version
	content Content
}

// Mirror is the guarded state of one buffer that is mirrored between host and
// device memory: which side holds which version, its length and its checksum. It
// is a comparable value; its methods do no I/O and no locking. Its state is never
// set: it follows from the versions.
//
// The zero Mirror is gone: it holds nothing, and only a write of the whole to
// version 0 fills it. Make Mirrors with [NewMirror].
type Mirror struct {
	cur  Version // newest version
	held [sides]holding
	// What is in flight: at most one copy or write, at the side that it changes. seq
	// counts what was begun, so that a late end is never taken for a newer one.
	seq uint64
	op  mirrorOp
	at  Side
}

type mirrorOp uint8

const (
	mirrorIdle mirrorOp = iota
	mirrorCopying
	mirrorWriting
)

// NewMirror is the state of a buffer whose first content, version 1, is on side at.
func NewMirror(at Side, c Content) (Mirror, error) {
	if !at.Valid() {
		return Mirror{}, fmt.Errorf("coherency: new mirror: %w: %s", ErrSide, at)
	}
	if err := c.fit(at); err != nil {
		return Mirror{}, fmt.Errorf("coherency: new mirror: %w", err)
	}
	m := Mirror{cur: 1}
	m.held[at] = holding{version: 1, content: c}
	return m, nil
}

// State says which side holds the newest version.
func (m Mirror) State() MirrorState {
	h, d := m.held[HostSide].version, m.held[DeviceSide].version
	switch {
	case m.Has(HostSide) && m.Has(DeviceSide):
		return Synced
	case m.Has(HostSide) && d == 0:
		return HostOnly
	case m.Has(HostSide):
		return HostDirty
	case m.Has(DeviceSide) && h == 0:
		return DeviceOnly
	case m.Has(DeviceSide):
		return DeviceDirty
	}
	return MirrorGone
}

// Version is the newest version known, also when it is gone.
func (m Mirror) Version() Version { return m.cur }

// Has tells whether side s holds the newest version.
func (m Mirror) Has(s Side) bool {
	return s.Valid() && m.cur != 0 && m.held[s].version == m.cur
}

// Holds is what side s holds, of whatever version; version 0 is nothing. It is for
// whoever keeps the buffers: a side that holds something has one. To use the
// bytes, ask Read.
func (m Mirror) Holds(s Side) (Version, Content) {
	if !s.Valid() {
		return 0, Content{}
	}
	return m.held[s].version, m.held[s].content
}

// InFlight tells whether a copy or a write has begun and not ended.
func (m Mirror) InFlight() bool { return m.op != mirrorIdle }

// Read says what the bytes on side s are, if they are the newest. It gives
// [ErrStale] when they are older, [ErrNoCopy] when there are none, and
// [ErrInFlight] while a write may be changing them.
func (m Mirror) Read(s Side) (Content, error) {
	switch {
	case !s.Valid():
		return Content{}, fmt.Errorf("coherency: read: %w: %s", ErrSide, s)
	case m.held[s].version == 0:
		return Content{}, fmt.Errorf("coherency: read %s: %w", s, ErrNoCopy)
	case !m.Has(s):
		return Content{}, fmt.Errorf("coherency: read %s: %w: version %d, the newest is %d", s, ErrStale, m.held[s].version, m.cur)
	case m.op == mirrorWriting && m.at == s:
		return Content{}, fmt.Errorf("coherency: read %s: write: %w", s, ErrInFlight)
	}
	return m.held[s].content, nil
}

// Drop gives up the copy of side s, and makes a copy in flight stale: to drop the
// device's is to release its memory, to drop host's makes the mirror DeviceOnly.
// It refuses the only copy of the newest version: [ErrMirrorDirty] when the other
// side is older, [ErrLastCopy] when it is empty. Sync or copy first; nothing is
// given up before that has been committed.
func (m *Mirror) Drop(s Side) error {
	switch {
	case !s.Valid():
		return fmt.Errorf("coherency: drop: %w: %s", ErrSide, s)
	case m.op == mirrorWriting:
		return fmt.Errorf("coherency: drop %s: write: %w", s, ErrInFlight)
	case m.held[s].version == 0 && (m.op != mirrorCopying || m.at != s):
		return fmt.Errorf("coherency: drop: %w on %s", ErrNoCopy, s)
	case m.Has(s) && m.State().NeedsSync():
		return fmt.Errorf("coherency: drop %s: %w", s, ErrMirrorDirty)
	case m.Has(s) && !m.Has(s.other()):
		return fmt.Errorf("coherency: drop %s: %w", s, ErrLastCopy)
	}
	m.drop(s)
	return nil
}

// Discard gives up the copy of side s whatever it is, and makes what is in flight
// from or to it stale. lost tells that it was the only copy of the newest version:
// the caller counts and reports it. The mirror is gone then until Keep brings the
// older copy of the other side back, or a write the whole.
func (m *Mirror) Discard(s Side) (lost bool) {
	return s.Valid() && m.drop(s)
}

// DeviceLost records that the device memory is gone, with what was in flight from
// and to it. lost is as with [Mirror.Discard].
func (m *Mirror) DeviceLost() (lost bool) { return m.drop(DeviceSide) }

// drop is the one place where a copy leaves. A write in flight on the other side
// touches nothing here and goes on.
func (m *Mirror) drop(s Side) (lost bool) {
	lost = m.Has(s) && !m.Has(s.other())
	m.held[s] = holding{}
	if m.op == mirrorCopying || m.at == s {
		m.end()
	}
	return lost
}

func (m *Mirror) end() { m.op, m.at = mirrorIdle, HostSide }

// Keep makes what side s holds the newest content: the choice after a conflict, or
// after a loss. If s holds it already nothing changes. Else its older copy gets a
// new version and the other side is given up, for what is declared lost must not
// come back; lost tells that a write went with it. [ErrNoCopy] means that
// s holds nothing, [ErrInFlight] that a write is under way.
func (m *Mirror) Keep(s Side) (lost bool, err error) {
	switch {
	case !s.Valid():
		return false, fmt.Errorf("coherency: keep: %w: %s", ErrSide, s)
	case m.op == mirrorWriting:
		return false, fmt.Errorf("coherency: keep %s: write: %w", s, ErrInFlight)
	case m.held[s].version == 0:
		return false, fmt.Errorf("coherency: keep: %w on %s", ErrNoCopy, s)
	case m.Has(s):
		return false, nil
	}
	lost = m.drop(s.other())
	m.cur++
	m.held[s].version = m.cur
	return lost, nil
}
