package coherency

import (
	"errors"
	"maps"
	"slices"
	"testing"
)

// mirrorBuild makes a Mirror that shows as r. When none can, why names the deviation that makes r a lie.
func mirrorBuild(r mirrorReference) (m Mirror, why string) {
	switch {
	case r.hostWrong == unfilled || r.deviceWrong == unfilled:
		return Mirror{}, "E4"
	case r.hostWrong == oldTail || r.deviceWrong == oldTail:
		return Mirror{}, "E7"
	case !r.handle && r.state != HostOnly:
		return Mirror{}, "E5"
	case r.state == Synced && r.deviceOwn, r.state == HostDirty && r.deviceOwn && !r.hostOwn:
		return Mirror{}, "E9"
	case r.hostOwn && r.deviceOwn:
		return Mirror{}, "E1"
	case r.state == HostDirty && !r.hostOwn:
		return Mirror{}, "E8"
	}
	content := func(length int, first byte) Content {
		p := make([]byte, length)
		p[0] = first
		return ContentOf(p)
	}
	allocated := map[int8]int{-1: 8, 0: 4, 1: 2}[r.fit]
	newest, older := holding{5, content(4, 5)}, holding{3, content(allocated, 3)}
	m.cur = 5
	switch r.state {
	case HostOnly:
		m.held = [sides]holding{HostSide: newest}
	case Synced:
		m.held = [sides]holding{newest, newest}
	case HostDirty:
		m.held = [sides]holding{HostSide: newest, DeviceSide: older}
	case DeviceDirty:
		m.held = [sides]holding{HostSide: older, DeviceSide: newest}
	}
	return m, ""
}

// mirrorShown is what is compared after an operation.
type mirrorShown struct {
	state       MirrorState
	device      bool // holds memory
	wrong, lost bool
	bump        int
}

// mirrorDeviation says whether ours must differ after op, under which name, in
// which state it must be then, by how much the version must have grown, and with
// which error.
func mirrorDeviation(r mirrorReference, op string) (name string, state MirrorState, bump int, err error) {
	state = r.state
	switch {
	case op == "look" && state == DeviceDirty:
		return "E8", state, 0, ErrStale
	case op == "look":
		return "E8", state, 0, nil
	case op == "read host" && state == DeviceDirty:
		return "E10", state, 0, ErrStale
	case (op == "host write" || op == "host grow" || op == "host shrink") && state == DeviceDirty,
		op == "device write" && state == HostDirty:
		return "E1", state, 0, ErrMirrorConflict
	case op == "unmarked device write" && state == HostDirty:
		return "E9", state, 0, ErrMirrorConflict
	case op == "unmarked device write", op == "device write" && state == HostOnly:
		return "E9", DeviceDirty, 1, nil
	case op == "upload" && state == DeviceDirty:
		return "E2", state, 0, ErrMirrorConflict
	case op == "download" && state == HostDirty:
		return "E3", state, 0, ErrMirrorConflict
	case op == "failing upload" && state == HostOnly:
		return "E4", state, 0, errMove
	case op == "failing release" && state == DeviceDirty:
		return "E5", state, 0, errMove
	case (op == "upload" || op == "sync") && state == HostDirty && r.fit > 0:
		return "E6", Synced, 0, nil
	case (op == "upload" || op == "sync") && state == HostDirty && r.fit < 0:
		return "E7", Synced, 0, nil
	case op == "download" && state == Synced:
		return "E8", state, 0, ErrCurrent
	case (op == "download" || op == "sync") && state == DeviceDirty:
		return "E8", Synced, 0, nil
	}
	return "", 0, 0, nil
}

func mirrorReachable() []mirrorReference {
	first := newMirrorReference()
	seen, queue := map[mirrorReference]bool{first: true}, []mirrorReference{first}
	for i := 0; i < len(queue); i++ {
		for _, op := range mirrorOperations {
			r := queue[i]
			r.apply(op)
			if !seen[r] {
				seen[r] = true
				queue = append(queue, r)
			}
		}
	}
	return queue
}

// mirrorAnswers is the reference's answer to op in r, and ours.
func mirrorAnswers(t *testing.T, r mirrorReference, m Mirror, op string) (theirs, ours mirrorShown, after Mirror, err error) {
	t.Helper()
	if m.State() != r.state {
		t.Fatalf("built %s, want %s", m.State(), r)
	}
	before := m.Version()
	next := r
	e := next.apply(op)
	theirs = mirrorShown{next.state, next.handle, next.hostWrong != right || next.deviceWrong != right, e.lost, e.bump}
	if op == "read host" {
		theirs.wrong = r.state == DeviceDirty // stale bytes, without a word
	}
	err = mirrorPerform(&m, op)
	held, content := m.Holds(DeviceSide)
	ours = mirrorShown{state: m.State(), device: held != 0, bump: int(m.Version() - before)}
	if _, host := m.Holds(HostSide); m.State() == Synced && host != content {
		t.Errorf("%s: %s: synced with different content", r, op)
	}
	return theirs, ours, m, err
}

// TestMirrorEveryStateAndOperation takes every state that the reference's
// host–device machine can reach through every operation. Ours equals it once all
// copies are committed, or differs as the named deviation says.
func TestMirrorEveryStateAndOperation(t *testing.T) {
	states := mirrorReachable()
	counts := map[string]int{}
	for _, r := range states {
		if r.state == DeviceOnly {
			t.Errorf("E10: the reference reaches %s", r)
		}
		for _, op := range mirrorOperations {
			before, why := mirrorBuild(r)
			if why != "" {
				counts["state is "+why]++
				continue
			}
			theirs, ours, after, err := mirrorAnswers(t, r, before, op)
			name, state, bump, wantErr := mirrorDeviation(r, op)
			if name == "" {
				counts["equal"]++
				if ours != theirs {
					t.Errorf("%s: %s:\n ours %+v (%v)\n reference %+v", r, op, ours, err, theirs)
				}
				continue
			}
			counts[name]++
			want := mirrorShown{state: state, device: state != HostOnly, bump: bump}
			if ours != want || !errors.Is(err, wantErr) {
				t.Errorf("%s: %s: %s:\n got  %+v (%v)\n want %+v (%v)", name, r, op, ours, err, want, wantErr)
			}
			// An unmarked device write that ours refuses shows nowhere in the reference.
			if ours == theirs && (name != "E9" || err == nil) {
				t.Errorf("%s: %s: %s: ours does not deviate", name, r, op)
			}
			if after.seq = before.seq; err != nil && after != before {
				t.Errorf("%s: %s: %s: failed and changed the mirror", name, r, op)
			}
		}
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		total += counts[name]
		t.Logf("%5d %s", counts[name], name)
	}
	t.Logf("%5d cases: %d states × %d operations", total, len(states), len(mirrorOperations))
	want := map[string]int{
		"state is E1": 90, "state is E4": 570, "state is E5": 30, "state is E7": 330, "state is E8": 15,
		"state is E9": 30, "equal": 57, "E1": 6, "E2": 1, "E3": 3, "E4": 1, "E5": 1, "E6": 2, "E7": 2,
		"E8": 9, "E9": 7, "E10": 1,
	}
	if len(states) != 77 || total != 1155 || !maps.Equal(counts, want) {
		t.Errorf("%d states, %d cases: %v, want %v", len(states), total, counts, want)
	}
}

// TestMirrorReachableStates walks ours from NewMirror through every transition.
// It reaches every state, DeviceOnly and MirrorGone among them (E10).
func TestMirrorReachableStates(t *testing.T) {
	seen := map[Mirror]bool{}
	states := map[MirrorState]int{}
	var queue []Mirror
	visit := func(m Mirror) {
		for s := range m.held { // lags instead of versions keep the walk finite
			switch v := m.held[s].version; v {
			case 0:
			case m.cur:
				m.held[s] = holding{version: 5}
			default:
				m.held[s] = holding{version: 3}
			}
		}
		m.cur, m.seq = 5, 0
		if !seen[m] {
			seen[m] = true
			states[m.State()]++
			queue = append(queue, m)
		}
	}
	for _, at := range []Side{HostSide, DeviceSide} {
		m, err := NewMirror(at, ContentOf(nil))
		if err != nil {
			t.Fatal(err)
		}
		visit(m)
	}
	for i := 0; i < len(queue); i++ {
		for _, s := range []Side{HostSide, DeviceSide} {
			for _, change := range mirrorTransitions(s) {
				m := queue[i]
				change(&m)
				visit(m)
			}
		}
	}
	for s := range MirrorState(mirrorStates) {
		t.Logf("%3d mirrors %s", states[s], s)
		if states[s] == 0 {
			t.Errorf("%s is never reached", s)
		}
	}
}

func mirrorTransitions(s Side) []func(*Mirror) {
	// What is in flight ends through its handle, which the walk forges.
	c := func(m *Mirror) MirrorCopy {
		return MirrorCopy{From: m.at.other(), To: m.at, Version: m.cur, seq: m.seq}
	}
	w := func(m *Mirror) MirrorWrite { return MirrorWrite{Side: m.at, Base: m.cur, seq: m.seq} }
	return []func(*Mirror){
		func(m *Mirror) { _, _ = m.Begin(s) },
		func(m *Mirror) { _, _ = m.Sync() },
		func(m *Mirror) { _ = m.Commit(c(m), Content{Summed: true}) },
		func(m *Mirror) { m.Abort(c(m)) },
		func(m *Mirror) { _, _ = m.BeginWrite(s, m.cur) },
		func(m *Mirror) { _, _ = m.CommitWrite(w(m), Content{Summed: true}) },
		func(m *Mirror) { m.AbortWrite(w(m), s == DeviceSide) },
		func(m *Mirror) { _ = m.Drop(s) },
		func(m *Mirror) { m.Discard(s) },
		func(m *Mirror) { _, _ = m.Keep(s) },
		func(m *Mirror) { m.DeviceLost() },
	}
}
