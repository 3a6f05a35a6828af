package coherency

import (
	"errors"
	"fmt"
	"testing"
)

// mirrorMade is a mirror of four bytes on host.
func mirrorMade(t *testing.T) Mirror {
	t.Helper()
	m, err := NewMirror(HostSide, ContentOf([]byte{1, 2, 3, 4}))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mirrorAfter is a mirror after the operations, none of which may fail.
func mirrorAfter(t *testing.T, ops ...string) Mirror {
	t.Helper()
	m := mirrorMade(t)
	for _, op := range ops {
		if err := mirrorPerform(&m, op); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
	}
	return m
}

// mirrorScript runs the operations on ours, all of them, and says what is left in
// the words of mirrorRun, with the errors that there were.
func mirrorScript(t *testing.T, ops ...string) (string, error) {
	t.Helper()
	m := mirrorMade(t)
	var errs []error
	for _, op := range ops {
		errs = append(errs, mirrorPerform(&m, op))
	}
	s := m.State().String()
	if v, _ := m.Holds(DeviceSide); v != 0 {
		s += " on device"
	}
	return s + fmt.Sprintf(", %d bumps", m.Version()-1), errors.Join(errs...)
}

// TestMirrorDeviations runs the sequence of each row of the package comment that
// is about one mirror: the reference's answer, and ours. A bump is a growth of the
// version.
func TestMirrorDeviations(t *testing.T) {
	for _, c := range []struct {
		name      string
		ops       []string
		reference string
		want      string
		err       error
	}{
		{"E1", []string{"upload", "device write", "host write", "sync"},
			"synced on device, lost without a word, 2 bumps", "synced on device, 1 bumps", ErrMirrorConflict},
		{"E1", []string{"upload", "host write", "device write", "sync"},
			"synced on device, lost without a word, 3 bumps", "synced on device, 1 bumps", ErrMirrorConflict},
		{"E2", []string{"upload", "device write", "upload"},
			"synced on device, lost without a word, 1 bumps", "device-dirty on device, 1 bumps", ErrMirrorConflict},
		{"E3", []string{"upload", "host write", "download"},
			"synced on device, lost without a word, 2 bumps", "host-dirty on device, 1 bumps", ErrMirrorConflict},
		{"E4", []string{"failing upload", "download"},
			"synced on device, host wrong, device wrong, 1 bumps", "host-only, 0 bumps", ErrNoCopy},
		{"E5", []string{"upload", "device write", "failing release"},
			"device-dirty, lost without a word, 1 bumps", "device-dirty on device, 1 bumps", errMove},
		{"E5", []string{"upload", "device write", "failing release", "release"},
			"device-dirty, lost without a word, 1 bumps", "host-only, 1 bumps", errMove},
		{"E6", []string{"upload", "host grow", "sync", "sync"},
			"host-dirty on device, 1 bumps", "synced on device, 1 bumps", ErrCurrent},
		{"E7", []string{"upload", "host shrink", "sync", "device write", "download"},
			"synced on device, host wrong, device wrong, 3 bumps", "synced on device, 2 bumps", nil},
		{"E8", []string{"look", "upload", "download"},
			"synced on device, 2 bumps", "synced on device, 0 bumps", ErrCurrent},
		{"E9", []string{"upload", "unmarked device write", "release"},
			"host-only, lost without a word, 0 bumps", "host-only, 1 bumps", nil},
		{"E9", []string{"upload", "unmarked device write", "host write", "sync"},
			"synced on device, lost without a word, 1 bumps", "synced on device, 1 bumps", ErrMirrorConflict},
		{"E9", []string{"device write"}, "host-only, 0 bumps", "device-dirty on device, 1 bumps", nil},
		{"E10", []string{"upload", "device write", "read host"}, // it reads the old bytes
			"device-dirty on device, 1 bumps", "device-dirty on device, 1 bumps", ErrStale},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := mirrorRun(c.ops...); r != c.reference {
				t.Errorf("the reference answers %s, the table says %s", r, c.reference)
			}
			got, err := mirrorScript(t, c.ops...)
			if got != c.want || !errors.Is(err, c.err) || c.err == nil && err != nil {
				t.Errorf("ours answers %s (%v), want %s (%v)", got, err, c.want, c.err)
			}
			t.Logf("%v: reference %s; ours %s (%v)", c.ops, c.reference, got, err)
		})
	}
}

func TestMirrorDeviationE1CallerChooses(t *testing.T) {
	for _, c := range []struct {
		name  string
		ops   []string
		keep  Side
		state MirrorState
		bump  Version
		lost  bool
	}{
		{"the newer", []string{"upload", "device write"}, DeviceSide, DeviceDirty, 0, false},
		{"the older", []string{"upload", "device write"}, HostSide, HostOnly, 1, true},
		{"the newer", []string{"upload", "host write"}, HostSide, HostDirty, 0, false},
		{"the older", []string{"upload", "host write"}, DeviceSide, DeviceOnly, 1, true},
	} {
		t.Run(c.name+" on "+c.keep.String(), func(t *testing.T) {
			m := mirrorAfter(t, c.ops...)
			before := m
			older := HostSide
			if m.Has(HostSide) {
				older = DeviceSide
			}
			_, err := m.BeginWrite(older, m.Version())
			if !errors.Is(err, ErrMirrorConflict) || !errors.Is(err, ErrConflict) || m != before {
				t.Fatalf("write on %s: %v; want ErrMirrorConflict and both copies as they were", older, err)
			}
			_, content := m.Holds(c.keep)
			lost, err := m.Keep(c.keep)
			if lost != c.lost || err != nil || m.State() != c.state || m.Version() != before.Version()+c.bump {
				t.Fatalf("kept: lost %v, %v, %s, version %d", lost, err, m.State(), m.Version())
			}
			if got, err := m.Read(c.keep); got != content || err != nil {
				t.Errorf("read %+v, %v; want %+v", got, err, content)
			}
			if !c.lost {
				return
			}
			if _, err := m.Keep(c.keep.other()); !errors.Is(err, ErrNoCopy) {
				t.Errorf("what was declared lost came back: %v", err)
			}
		})
	}
}

func TestMirrorDeviationE4NothingBeforeCommit(t *testing.T) {
	m := mirrorMade(t)
	c, err := m.Begin(DeviceSide)
	if err != nil || c.From != HostSide || c.To != DeviceSide || c.Version != 1 || c.Content.Length != 4 {
		t.Fatalf("%+v, %v", c, err)
	}
	if v, _ := m.Holds(DeviceSide); v != 0 || m.State() != HostOnly || !m.InFlight() {
		t.Errorf("version %d on the device while the upload is under way", v)
	}
	if _, err := m.Begin(DeviceSide); !errors.Is(err, ErrInFlight) {
		t.Errorf("second upload: %v, want ErrInFlight", err)
	}
	if _, err := m.BeginWrite(DeviceSide, 1); !errors.Is(err, ErrInFlight) {
		t.Errorf("write to memory that is being filled: %v, want ErrInFlight", err)
	}
	before := m
	for _, bad := range []Content{{Length: 3}, {Length: 4, Sum: 1, Summed: true}} {
		if err := m.Commit(c, bad); !errors.Is(err, ErrContent) || m != before {
			t.Errorf("%+v arrived: %v, want ErrContent and no change", bad, err)
		}
	}
	m.Abort(c)
	if err := m.Commit(c, c.Content); !errors.Is(err, ErrStale) {
		t.Errorf("commit after abort: %v, want ErrStale", err)
	}
}

func TestMirrorDeviationE5Release(t *testing.T) {
	m := mirrorAfter(t, "upload", "device write")
	if err := m.Drop(DeviceSide); !errors.Is(err, ErrMirrorDirty) || !errors.Is(err, ErrLastCopy) {
		t.Fatalf("release of a write: %v, want ErrMirrorDirty", err)
	}
	c, err := m.Sync()
	if err != nil || c.To != HostSide {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := m.Drop(DeviceSide); !errors.Is(err, ErrMirrorDirty) {
		t.Fatalf("release while the download is under way: %v, want ErrMirrorDirty", err)
	}
	if err := m.Commit(c, c.Content); err != nil {
		t.Fatal(err)
	}
	if err := m.Drop(DeviceSide); err != nil || m.State() != HostOnly {
		t.Fatalf("%v, %s", err, m.State())
	}
	if err := m.Drop(DeviceSide); !errors.Is(err, ErrNoCopy) {
		t.Errorf("second release: %v, want ErrNoCopy", err)
	}
}

func TestMirrorDeviationE6E7LengthLivesWithTheVersion(t *testing.T) {
	for _, op := range []string{"host grow", "host shrink"} {
		m := mirrorAfter(t, "upload", op)
		_, host := m.Holds(HostSide)
		if v, device := m.Holds(DeviceSide); v != 1 || device.Length != 4 {
			t.Errorf("%s: the device holds %d bytes of version %d", op, device.Length, v)
		}
		c, err := m.Sync()
		if err != nil || c.Content != host {
			t.Fatalf("%s: copy of %+v, %v; want %+v", op, c.Content, err, host)
		}
		if err := m.Commit(c, c.Content); err != nil {
			t.Fatal(err)
		}
		if _, device := m.Holds(DeviceSide); device != host {
			t.Errorf("%s: the device holds %+v, host %+v", op, device, host)
		}
	}
}

func TestMirrorDeviationE8E9WriteIsACommit(t *testing.T) {
	m := mirrorAfter(t, "upload")
	if _, err := m.BeginWrite(DeviceSide, 0); !errors.Is(err, ErrConflict) || errors.Is(err, ErrMirrorConflict) {
		t.Errorf("write to another version: %v, want ErrConflict", err)
	}
	w, err := m.BeginWrite(DeviceSide, 1)
	if err != nil || w.Whole {
		t.Fatalf("%+v, %v", w, err)
	}
	_, read := m.Read(DeviceSide)
	_, other := m.BeginWrite(HostSide, 1)
	_, again := m.BeginWrite(DeviceSide, 1)
	_, keep := m.Keep(DeviceSide)
	for what, err := range map[string]error{"read": read, "write on host": other, "second write": again, "keep": keep, "drop": m.Drop(HostSide)} {
		if !errors.Is(err, ErrInFlight) {
			t.Errorf("%s while a write is under way: %v, want ErrInFlight", what, err)
		}
	}
	if m.Version() != 1 {
		t.Errorf("the version is %d before the commit", m.Version())
	}
	if m.AbortWrite(w, false) || m.State() != Synced || m.Version() != 1 {
		t.Errorf("after abort: %s, version %d", m.State(), m.Version())
	}
	w, _ = m.BeginWrite(DeviceSide, 1)
	// The device cannot tell the checksum; the download does, for both sides.
	if v, err := m.CommitWrite(w, Content{Length: 6}); v != 2 || err != nil {
		t.Fatalf("version %d, %v", v, err)
	}
	c, err := m.Sync()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Commit(c, Content{Length: 6}); !errors.Is(err, ErrContent) {
		t.Errorf("host bytes without checksum: %v, want ErrContent", err)
	}
	arrived := ContentOf([]byte("kernel"))
	if err := m.Commit(c, arrived); err != nil {
		t.Fatal(err)
	}
	if _, device := m.Holds(DeviceSide); device != arrived || m.Version() != 2 {
		t.Errorf("the device holds %+v of version %d", device, m.Version())
	}
}

func TestMirrorDeviationE10DeviceOnly(t *testing.T) {
	m := mirrorAfter(t, "upload")
	if err := m.Drop(HostSide); err != nil || m.State() != DeviceOnly {
		t.Fatalf("%v, %s", err, m.State())
	}
	if _, err := m.Read(HostSide); !errors.Is(err, ErrNoCopy) {
		t.Errorf("read of what was dropped: %v, want ErrNoCopy", err)
	}
	if err := m.Drop(DeviceSide); !errors.Is(err, ErrLastCopy) || errors.Is(err, ErrMirrorDirty) {
		t.Errorf("release of the only copy: %v, want ErrLastCopy", err)
	}
	if err := mirrorPerform(&m, "download"); err != nil || m.State() != Synced {
		t.Errorf("%v, %s", err, m.State())
	}
}
