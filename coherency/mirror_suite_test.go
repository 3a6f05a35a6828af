package coherency

import (
	"errors"
	"testing"
)

// The reference's own tests of the host–device protocol, one for one, except that
// of the bytes of a sparse vector, which belongs to the package of those vectors.
// A comment names the deviation where ours answers differently.

func TestMirrorStateChecks(t *testing.T) {
	for s, want := range map[MirrorState][3]bool{ // host current, device current, needs sync
		MirrorGone:  {false, false, false}, // not a state of the reference
		HostOnly:    {true, false, false},
		DeviceOnly:  {false, true, false},
		Synced:      {true, true, false},
		HostDirty:   {true, false, true},
		DeviceDirty: {false, true, true},
	} {
		if got := [3]bool{s.HostIsCurrent(), s.DeviceIsCurrent(), s.NeedsSync()}; got != want {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
	}
}

func TestMirrorNew(t *testing.T) {
	content := ContentOf([]byte{1, 2, 3, 4})
	m, err := NewMirror(HostSide, content)
	if err != nil || m.State() != HostOnly {
		t.Fatalf("%s, %v", m.State(), err)
	}
	if got, err := m.Read(HostSide); got != content || err != nil {
		t.Errorf("host holds %+v, %v", got, err)
	}
	if v, _ := m.Holds(DeviceSide); v != 0 {
		t.Errorf("the device holds version %d", v)
	}
	if m.Version() != 1 { // E8: 0 is "never written" here, so the first content is 1
		t.Errorf("version %d, want 1", m.Version())
	}
}

func TestMirrorModifyMarksDirty(t *testing.T) {
	m := mirrorMade(t)
	if m.State() != HostOnly {
		t.Fatal(m.State())
	}
	// The reference's test sets the state by hand. Here it follows from an upload.
	if err := mirrorPerform(&m, "upload"); err != nil || m.State() != Synced {
		t.Fatalf("%v, %s", err, m.State())
	}
	if err := mirrorPerform(&m, "look"); err != nil || m.State() != Synced { // E8: a look is no write
		t.Fatalf("%v, %s", err, m.State())
	}
	if err := mirrorPerform(&m, "host write"); err != nil || m.State() != HostDirty {
		t.Errorf("%v, %s", err, m.State())
	}
}

// TestMirrorLifecycle is the example at the head of the reference: upload, modify
// on the device, sync back.
func TestMirrorLifecycle(t *testing.T) {
	m := mirrorMade(t)
	for _, step := range []struct {
		op   string
		want MirrorState
	}{{"upload", Synced}, {"device write", DeviceDirty}, {"sync", Synced}, {"release", HostOnly}} {
		if err := mirrorPerform(&m, step.op); err != nil || m.State() != step.want {
			t.Fatalf("%s: %v, %s; want %s", step.op, err, m.State(), step.want)
		}
	}
	if m.Version() != 2 { // E8: one write, one version
		t.Errorf("version %d, want 2", m.Version())
	}
}

func TestMirrorArguments(t *testing.T) {
	const bad = Side(sides)
	if _, err := NewMirror(bad, Content{}); !errors.Is(err, ErrSide) {
		t.Errorf("NewMirror: %v", err)
	}
	if _, err := NewMirror(HostSide, Content{Length: 1}); !errors.Is(err, ErrContent) {
		t.Errorf("NewMirror without checksum: %v, want ErrContent", err)
	}
	m := mirrorMade(t)
	before := m
	_, begin := m.Begin(bad)
	_, write := m.BeginWrite(bad, 1)
	_, read := m.Read(bad)
	_, keep := m.Keep(bad)
	for what, err := range map[string]error{"Begin": begin, "BeginWrite": write, "Read": read, "Keep": keep, "Drop": m.Drop(bad)} {
		if !errors.Is(err, ErrSide) {
			t.Errorf("%s: %v, want ErrSide", what, err)
		}
	}
	if v, _ := m.Holds(bad); v != 0 || m.Has(bad) || m.Discard(bad) || m != before {
		t.Error("a side that is none holds or changes something")
	}
	if s := bad.String() + " " + MirrorState(mirrorStates).String(); s != "side(2) state(6)" {
		t.Error(s)
	}
}

func TestMirrorZero(t *testing.T) {
	var m Mirror
	if m.State() != MirrorGone || m.Has(HostSide) || m.Discard(HostSide) || m.DeviceLost() {
		t.Errorf("the zero Mirror claims something: %+v", m)
	}
	for _, op := range []string{"read host", "upload", "download", "sync", "release"} {
		if err := mirrorPerform(&m, op); !errors.Is(err, ErrNoCopy) || m != (Mirror{}) {
			t.Errorf("%s: %v, want ErrNoCopy", op, err)
		}
	}
	w, err := m.BeginWrite(HostSide, 0)
	if err != nil || !w.Whole {
		t.Fatalf("%+v, %v", w, err)
	}
	if _, err := m.CommitWrite(w, Content{}); !errors.Is(err, ErrContent) || !m.InFlight() {
		t.Errorf("host bytes without checksum: %v, want ErrContent, and the write goes on", err)
	}
	if v, err := m.CommitWrite(w, ContentOf(nil)); v != 1 || err != nil || m.State() != HostOnly {
		t.Errorf("version %d, %v, %s", v, err, m.State())
	}
}
