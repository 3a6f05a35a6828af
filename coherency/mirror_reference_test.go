package coherency

import (
	"errors"
	"fmt"
)

// mirrorReference is what the reference does with a buffer in host and device
// memory, restated: a state set by hand, a handle, a version. Beside it stands
// what is really in the two memories, which the reference does not know.
type mirrorReference struct {
	state  MirrorState
	handle bool

	hostOwn, deviceOwn     bool // a write that the other side never got
	hostWrong, deviceWrong wrong
	fit                    int8 // sign of host's length minus the size of the allocation
}

// wrong says that a memory holds bytes that are part of no version.
type wrong uint8

const (
	right    wrong = iota
	unfilled       // nobody ever wrote them
	oldTail        // the end of an older version behind a shorter one
)

// mirrorEffect is what an operation did besides.
type mirrorEffect struct {
	failed bool
	lost   bool // a write that is nowhere any more
	bump   int  // by how much the version grew
}

func newMirrorReference() mirrorReference { return mirrorReference{state: HostOnly} }

func (r mirrorReference) String() string {
	s := r.state.String()
	if r.handle {
		s += ", handle"
	}
	if r.hostWrong != right || r.deviceWrong != right {
		s += fmt.Sprintf(", wrong bytes (host %d, device %d)", r.hostWrong, r.deviceWrong)
	}
	return s + fmt.Sprintf(", own %v/%v, fit %d", r.hostOwn, r.deviceOwn, r.fit)
}

// mirrorOperations are those that the reference knows. Where bytes are
// moved, "failing" says that the move fails.
var mirrorOperations = []string{
	"look", "read host", "host write", "host grow", "host shrink",
	"device write", "unmarked device write",
	"upload", "failing upload", "download", "failing download",
	"sync", "failing sync", "release", "failing release",
}

func (r *mirrorReference) apply(op string) (e mirrorEffect) {
	switch op {
	case "look": // host_data_mut, and nothing is changed
		r.hostDataMut()
		e.bump = 1
	case "read host":
	case "host write", "host grow", "host shrink":
		r.hostDataMut()
		e.bump = 1
		r.hostWrong = right
		if r.handle {
			r.hostOwn = true
			r.fit = map[string]int8{"host write": r.fit, "host grow": 1, "host shrink": -1}[op]
		}
	case "device write", "unmarked device write":
		if !r.handle {
			break
		}
		r.deviceOwn = true
		if op == "device write" { // mark_device_dirty
			r.state = DeviceDirty
			e.bump = 1
		}
	case "upload", "failing upload":
		return r.upload(op != "upload")
	case "download", "failing download":
		return r.download(op != "download")
	case "sync", "failing sync":
		return r.sync(op != "sync")
	case "release", "failing release":
		return r.release(op != "release")
	default:
		panic(op)
	}
	return e
}

func (r *mirrorReference) hostDataMut() {
	if r.state != HostOnly {
		r.state = HostDirty
	}
}

func (r *mirrorReference) upload(failing bool) (e mirrorEffect) {
	if !r.handle {
		r.handle, r.deviceWrong, r.fit = true, unfilled, 0
	}
	if failing || r.fit > 0 {
		return mirrorEffect{failed: true}
	}
	e.lost = r.deviceOwn
	r.hostOwn, r.deviceOwn = false, false
	r.deviceWrong = r.hostWrong
	if r.fit < 0 {
		r.deviceWrong = oldTail
	}
	r.state = Synced
	return e
}

func (r *mirrorReference) download(failing bool) (e mirrorEffect) {
	if !r.handle || failing {
		return mirrorEffect{failed: true}
	}
	e = mirrorEffect{lost: r.hostOwn, bump: 1}
	r.hostOwn, r.deviceOwn = false, false
	r.hostWrong, r.fit = r.deviceWrong, 0
	r.state = Synced
	return e
}

func (r *mirrorReference) sync(failing bool) (e mirrorEffect) {
	switch {
	case r.state == HostDirty && r.handle:
		return r.upload(failing)
	case r.state == HostDirty:
		r.state = HostOnly
	case r.state == DeviceDirty:
		return r.download(failing)
	}
	return e
}

func (r *mirrorReference) release(failing bool) (e mirrorEffect) {
	if !r.handle {
		return e
	}
	r.handle = false // the handle is taken first
	switch {
	case r.state == DeviceDirty && failing:
		e.failed = true
		e.lost = r.deviceOwn
	case r.state == DeviceDirty:
		e.lost = r.hostOwn
		r.hostWrong = r.deviceWrong
		r.state = HostOnly
	default:
		e.lost = r.deviceOwn
		r.state = HostOnly
	}
	r.hostOwn, r.deviceOwn, r.deviceWrong, r.fit = false, false, right, 0
	return e
}

// mirrorRun applies ops to a new reference and says in a few words what is left.
func mirrorRun(ops ...string) string {
	r, lost, version := newMirrorReference(), 0, 0
	for _, op := range ops {
		e := r.apply(op)
		version += e.bump
		if e.lost {
			lost++
		}
	}
	s := r.state.String()
	if r.handle {
		s += " on device"
	}
	if r.hostWrong != right {
		s += ", host wrong"
	}
	if r.deviceWrong != right {
		s += ", device wrong"
	}
	if lost > 0 {
		s += ", lost without a word"
	}
	return s + fmt.Sprintf(", %d bumps", version)
}

// mirrorPerform runs the operation on ours as a user of it would, and commits each
// copy that does not fail.
func mirrorPerform(m *Mirror, op string) error {
	switch op {
	case "look", "read host":
		_, err := m.Read(HostSide)
		return err
	case "host write":
		return mirrorWrite(m, HostSide, 4)
	case "host grow":
		return mirrorWrite(m, HostSide, 8)
	case "host shrink":
		return mirrorWrite(m, HostSide, 2)
	case "device write", "unmarked device write": // there are none that are not marked
		return mirrorWrite(m, DeviceSide, 4)
	case "upload", "failing upload":
		c, err := m.Begin(DeviceSide)
		return mirrorFinish(m, c, err, op != "upload")
	case "download", "failing download":
		c, err := m.Begin(HostSide)
		return mirrorFinish(m, c, err, op != "download")
	case "sync", "failing sync":
		c, err := m.Sync()
		return mirrorFinish(m, c, err, op != "sync")
	case "release", "failing release":
		if m.State() == DeviceDirty {
			c, err := m.Begin(HostSide)
			if err := mirrorFinish(m, c, err, op != "release"); err != nil {
				return err
			}
		}
		return m.Drop(DeviceSide)
	}
	panic(op)
}

func mirrorWrite(m *Mirror, s Side, length int) error {
	w, err := m.BeginWrite(s, m.Version())
	if err != nil {
		return err
	}
	p := make([]byte, length)
	p[0] = byte(m.Version() + 1)
	_, err = m.CommitWrite(w, ContentOf(p))
	return err
}

// errMove is a copy that has failed.
var errMove = errors.New("the copy has failed")

func mirrorFinish(m *Mirror, c MirrorCopy, err error, failing bool) error {
	switch {
	case err != nil:
		return err
	case failing:
		m.Abort(c)
		return errMove
	}
	return m.Commit(c, c.Content)
}
