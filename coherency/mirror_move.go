package coherency

import "fmt"

// MirrorCopy is a planned upload or download of the newest version. It is in
// flight from the transition that returned it until Commit or Abort, one of which
// must follow.
type MirrorCopy struct {
	From, To Side
	// Version is what From holds and To will hold. Its content says how long the
	// new buffer at To must be.
	Version Version
	Content Content

	seq uint64
}

// MirrorWrite is a write under way on one side, from BeginWrite until CommitWrite
// or AbortWrite.
type MirrorWrite struct {
	Side Side
	// Base is the version that the write builds upon.
	Base Version
	// Whole tells that the side does not hold Base: the write must fill all bytes of
	// a new buffer. Else it may change the bytes in place.
	Whole bool

	seq uint64
}

// Begin plans a copy of the newest version to the side to: DeviceSide is an
// upload, HostSide a download. It gives [ErrCurrent] when to holds it already,
// [ErrNoCopy] when no side does or the other holds nothing,
// [ErrMirrorConflict] when the copy would go from the older to the newer
// side, and [ErrInFlight] when something is under way.
//
// The bytes go to a new buffer, which replaces the old one at Commit.
func (m *Mirror) Begin(to Side) (MirrorCopy, error) {
	from := to.other()
	switch {
	case !to.Valid():
		return MirrorCopy{}, fmt.Errorf("coherency: mirror: %w: %s", ErrSide, to)
	case m.State() == Synced:
		return MirrorCopy{}, fmt.Errorf("coherency: mirror to %s: %w", to, ErrCurrent)
	case m.Has(to) && m.held[from].version != 0:
		return MirrorCopy{}, fmt.Errorf("coherency: mirror to %s: %w", to, ErrMirrorConflict)
	case !m.Has(from):
		return MirrorCopy{}, fmt.Errorf("coherency: mirror to %s: %w on %s", to, ErrNoCopy, from)
	case m.op != mirrorIdle:
		return MirrorCopy{}, fmt.Errorf("coherency: mirror to %s: %w", to, ErrInFlight)
	}
	m.begin(mirrorCopying, to)
	return MirrorCopy{From: from, To: to, Version: m.cur, Content: m.held[from].content, seq: m.seq}, nil
}

// Sync plans the copy that a dirty mirror needs. [ErrCurrent] means that it is not
// dirty, [ErrNoCopy] that it is gone.
func (m *Mirror) Sync() (MirrorCopy, error) {
	switch m.State() {
	case HostDirty:
		return m.Begin(DeviceSide)
	case DeviceDirty:
		return m.Begin(HostSide)
	case MirrorGone:
		return MirrorCopy{}, fmt.Errorf("coherency: sync mirror: %w", ErrNoCopy)
	}
	return MirrorCopy{}, fmt.Errorf("coherency: sync mirror: %w", ErrCurrent)
}

func (m *Mirror) begin(op mirrorOp, at Side) {
	m.seq++
	m.op, m.at = op, at
}

func (m *Mirror) doing(op mirrorOp, at Side, seq uint64) bool {
	return m.op == op && m.at == at && m.seq == seq
}

// current compares the version too, although seq implies it: a wrong answer here
// would give out wrong bytes.
func (m *Mirror) current(c MirrorCopy) bool {
	return m.doing(mirrorCopying, c.To, c.seq) && c.Version == m.cur && m.Has(c.From)
}

// Commit records that the copy has arrived in full: arrived describes the
// bytes at the target. [ErrContent] means that they are not those of the version;
// the copy is then still to be aborted. A device need not tell a checksum; host
// must. [ErrStale] means that the copy was overtaken by a write, a choice or
// a loss. Neither changes anything: the new buffer is to be freed.
func (m *Mirror) Commit(c MirrorCopy, arrived Content) error {
	if !m.current(c) {
		return fmt.Errorf("coherency: commit to %s: %w: version %d, the newest is %d", c.To, ErrStale, c.Version, m.cur)
	}
	content := m.held[c.From].content
	if err := content.accepts(arrived, c.To); err != nil {
		return fmt.Errorf("coherency: commit to %s: version %d: %w", c.To, c.Version, err)
	}
	if !content.Summed {
		content = arrived
		m.held[c.From].content = arrived
	}
	m.held[c.To] = holding{version: m.cur, content: content}
	m.end()
	return nil
}

// Abort records that the copy has failed: both sides stay as they were. A copy
// that is stale changes nothing.
func (m *Mirror) Abort(c MirrorCopy) {
	if m.current(c) {
		m.end()
	}
}

// BeginWrite asks to write on side s. expect is the version that the writer builds
// upon; when the newest is another the error is [ErrConflict]. When the other side
// has a write that s lacks it is [ErrMirrorConflict]; both copies stay as they
// are. [ErrInFlight] means that another write is under way, or a copy to s.
//
// Until the write ends nobody reads s; a copy from s is stale from here on. The
// version grows at CommitWrite only.
func (m *Mirror) BeginWrite(s Side, expect Version) (MirrorWrite, error) {
	switch {
	case !s.Valid():
		return MirrorWrite{}, fmt.Errorf("coherency: write: %w: %s", ErrSide, s)
	case expect != m.cur:
		return MirrorWrite{}, fmt.Errorf("coherency: write %s: %w: expected version %d, the newest is %d", s, ErrConflict, expect, m.cur)
	case m.State().NeedsSync() && !m.Has(s):
		return MirrorWrite{}, fmt.Errorf("coherency: write %s: %w", s, ErrMirrorConflict)
	case m.op == mirrorWriting, m.op == mirrorCopying && m.at == s:
		return MirrorWrite{}, fmt.Errorf("coherency: write %s: %w", s, ErrInFlight)
	}
	m.begin(mirrorWriting, s)
	return MirrorWrite{Side: s, Base: m.cur, Whole: !m.Has(s), seq: m.seq}, nil
}

// CommitWrite records that the write is complete and c describes all bytes of
// the buffer now, and returns the new version. [ErrStale] means that the side was
// lost or discarded meanwhile, [ErrContent] that c lacks a checksum that host
// must give; neither changes anything.
func (m *Mirror) CommitWrite(w MirrorWrite, c Content) (Version, error) {
	if !m.doing(mirrorWriting, w.Side, w.seq) {
		return 0, fmt.Errorf("coherency: write %s: %w: built on version %d, the newest is %d", w.Side, ErrStale, w.Base, m.cur)
	}
	if err := c.fit(w.Side); err != nil {
		return 0, fmt.Errorf("coherency: write %s: %w", w.Side, err)
	}
	m.cur++
	m.held[w.Side] = holding{version: m.cur, content: c}
	m.end()
	return m.cur, nil
}

// AbortWrite records that the write has failed. torn tells that it may have
// changed bytes of the buffer already: the side then loses its copy, and lost
// is as with [Mirror.Discard]. A write that is stale changes nothing.
func (m *Mirror) AbortWrite(w MirrorWrite, torn bool) (lost bool) {
	if !m.doing(mirrorWriting, w.Side, w.seq) {
		return false
	}
	if torn {
		return m.drop(w.Side)
	}
	m.end()
	return false
}
