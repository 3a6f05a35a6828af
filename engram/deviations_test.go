package engram

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// TestDeviations runs the sequence of each row E1 to E10 of package coherency on real
// bytes: what is left on both sides, and the first error. E11 is about the manager.
func TestDeviations(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []string
		want string
		err  error
	}{
		{"E1", []string{"upload", "device write", "host write", "sync"}, `synced 2 "card" "card"`, ErrConflict},
		{"E1", []string{"upload", "host write", "device write", "sync"}, `synced 2 "host" "host"`, ErrConflict},
		{"E2", []string{"upload", "device write", "upload"}, `device-dirty 2 "seed" "card"`, ErrConflict},
		{"E3", []string{"upload", "host write", "download"}, `host-dirty 2 "host" "seed"`, ErrConflict},
		{"E4", []string{"failing upload", "download"}, `host-only 1 "seed" "-"`, errBroken},
		{"E5", []string{"upload", "device write", "failing release"}, `device-dirty 2 "seed" "card"`, errBroken},
		{"E5", []string{"upload", "device write", "failing release", "release"}, `host-only 2 "card" "-"`, errBroken},
		{"E6", []string{"upload", "host grow", "sync", "sync"}, `synced 2 "a longer host" "a longer host"`, nil},
		{"E7", []string{"upload", "host shrink", "sync", "device write", "download"}, `synced 3 "c" "c"`, nil},
		{"E8", []string{"look", "upload", "look", "upload", "download", "sync"}, `synced 1 "seed" "seed"`, nil},
		{"E9", []string{"upload", "unmarked device write", "mark", "release"}, `host-only 2 "poke" "-"`, nil},
		{"E9", []string{"upload", "unmarked device write", "check", "release"}, `host-only 2 "poke" "-"`, nil},
		{"E9", []string{"upload", "unmarked device write", "check", "host write", "sync"}, `synced 2 "poke" "poke"`, ErrConflict},
		{"E9", []string{"upload", "unmarked device write", "host write", "check"}, `host-dirty 2 "host" "poke"`, ErrConflict},
		{"E9", []string{"upload", "drop host", "unmarked device write", "download"}, `device-only 1 "-" "poke"`, ErrContent},
		{"E9", []string{"mark"}, `host-only 1 "seed" "-"`, ErrNoCopy},
		{"E9", []string{"device write"}, `host-only 1 "seed" "-"`, ErrNoCopy},
		{"E10", []string{"upload", "device write", "read host"}, `device-dirty 2 "seed" "card"`, ErrStale},
		{"E10", []string{"upload", "drop host", "read host"}, `device-only 1 "-" "seed"`, ErrNoCopy},
		{"E10", []string{"upload", "drop host", "download"}, `synced 1 "seed" "seed"`, nil},
	} {
		t.Run(c.name+" "+strings.Join(c.ops, ", "), func(t *testing.T) {
			b := newBench(t)
			e := b.engram("seed")
			var first error
			for _, op := range c.ops {
				if err := b.do(e, op); first == nil {
					first = err
				}
			}
			b.want(e, c.want)
			if !errors.Is(first, c.err) || c.err == nil && first != nil {
				t.Errorf("the first error is %v, want %v", first, c.err)
			}
			if _, err := e.Discard(Device); err != nil {
				t.Error(err)
			}
			b.empty()
		})
	}
}

// E1: both copies stay until the caller chooses.
func TestDeviationE1CallerChooses(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []string
		keep Side
		want string
		lost bool
	}{
		{"the newer on the device", []string{"upload", "device write"}, Device, `device-dirty 2 "seed" "card"`, false},
		{"the older on host", []string{"upload", "device write"}, Host, `host-only 3 "seed" "-"`, true},
		{"the newer on host", []string{"upload", "host write"}, Host, `host-dirty 2 "host" "seed"`, false},
		{"the older on the device", []string{"upload", "host write"}, Device, `device-only 3 "-" "seed"`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			e := b.engram("seed")
			b.run(e, c.ops...)
			if lost, err := e.Keep(t.Context(), c.keep); lost != c.lost || err != nil {
				t.Errorf("lost %v, %v", lost, err)
			}
			b.want(e, c.want)
			if lost := e.Counts().Lost; (lost == 1) != c.lost {
				t.Errorf("%d losses were counted", lost)
			}
			b.run(e, "release")
			b.empty()
		})
	}
}

// E4: nobody can reach memory that is not filled yet.
func TestDeviationE4NothingBeforeTheUploadIsWhole(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	begun, gate := make(chan struct{}), make(chan struct{})
	b.set(func(c emulated.Call) error {
		if c.Op == emulated.CopyIn && c.Queued {
			close(begun)
			<-gate
		}
		return nil
	})
	done := make(chan error)
	go func() { done <- e.Upload(t.Context()) }()
	<-begun
	b.set(nil)
	if _, err := e.Pin(t.Context()); e.OnDevice() || !errors.Is(err, ErrNoCopy) {
		t.Errorf("on the device before the upload has ended: %v, %v", e.OnDevice(), err)
	}
	if b.used() == 0 {
		t.Error("the upload has no memory")
	}
	if err := e.ReadHost(func(p []byte) error { return nil }); err != nil {
		t.Errorf("a read waits for the upload, or fails: %v", err)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.want(e, `synced 1 "seed" "seed"`)
	b.run(e, "release")
	b.empty()
}

// E5: a release that fails gives up nothing, and one that is repeated frees once.
func TestDeviationE5ReleaseKeepsEverything(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	b.run(e, "upload", "device write")
	before := b.used()
	for range 3 {
		if err := b.do(e, "failing release"); !errors.Is(err, errBroken) || b.used() != before {
			t.Fatalf("%v, %d bytes, want %d", err, b.used(), before)
		}
	}
	b.run(e, "release", "release")
	b.want(e, `host-only 2 "card" "-"`)
	b.empty()
}

// E6, E7: the length is the version's, on every side and way.
func TestDeviationE6E7LengthLivesWithTheVersion(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	b.run(e, "upload", "host grow")
	b.want(e, `host-dirty 2 "a longer host" "seed"`)
	if _, err := e.ReplaceDevice(t.Context(), 2, b.write("xy")); !errors.Is(err, ErrConflict) {
		t.Errorf("a write over a write of host: %v", err)
	}
	b.run(e, "sync")
	if v, err := e.ReplaceDevice(t.Context(), 20, b.write("longer")); v != 3 || err != nil {
		t.Fatal(v, err)
	}
	b.want(e, `device-dirty 3 "a longer host" "longerlongerlongerlo"`)
	b.run(e, "sync")
	if _, err := e.ReplaceDevice(t.Context(), 0, func(a vram.Addr, n int64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	b.run(e, "sync")
	b.want(e, `synced 4 "" ""`)
	if _, err := e.ReplaceHost(t.Context(), 0, []byte("again")); err != nil {
		t.Fatal(err)
	}
	b.run(e, "sync", "release")
	b.want(e, `host-only 5 "again" "-"`)
	b.empty()
}

// E8: an error of a write makes no version, on neither side.
func TestDeviationE8WriteIsACommit(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	if _, err := e.WriteHost(t.Context(), func(p []byte) ([]byte, error) {
		copy(p, "torn")
		return p, errBroken
	}); err != errBroken {
		t.Errorf("%v is not the error of the function", err)
	}
	b.want(e, `host-only 1 "seed" "-"`)
	b.run(e, "upload")
	torn := func(a vram.Addr, n int64) error { return errors.Join(b.write("torn")(a, n), errBroken) }
	if _, err := e.WriteDevice(t.Context(), torn); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	b.want(e, `host-only 1 "seed" "-"`) // in place, so the device's bytes are worth nothing
	b.run(e, "upload", "device write")
	if _, err := e.WriteDevice(t.Context(), torn); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	b.want(e, `device-dirty 2 "seed" "card"`) // the only copy was not touched
	b.run(e, "drop host", "release")
	b.want(e, `host-only 2 "card" "-"`)
	b.empty()
}

// E9: what a pin has marked, was marked too late, or went to other memory.
func TestDeviationE9Pin(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	if _, err := e.Pin(t.Context()); !errors.Is(err, ErrNoCopy) {
		t.Errorf("pin of nothing: %v", err)
	}
	b.run(e, "upload")
	p, err := e.Pin(t.Context())
	if err != nil || p.Size() != 4 || p.Addr() == 0 {
		t.Fatal(err)
	}
	if err := b.write("mine")(p.Addr(), p.Size()); err != nil {
		t.Fatal(err)
	}
	if v, err := p.MarkDirty(t.Context()); v != 2 || err != nil {
		t.Fatal(v, err)
	}
	b.want(e, `device-dirty 2 "seed" "mine"`)
	b.run(e, "device write") // on a copy, because of the pin
	b.want(e, `device-dirty 3 "seed" "card"`)
	got := make([]byte, 4)
	if err := b.mem.CopyOut(t.Context(), got, p.Addr()); err != nil || string(got) != "mine" {
		t.Errorf("what is pinned became %q, %v", got, err)
	}
	if _, err := p.MarkDirty(t.Context()); !errors.Is(err, ErrConflict) {
		t.Errorf("mark of other memory: %v, want ErrConflict", err)
	}
	b.run(e, "release")
	if b.used() == 0 {
		t.Error("what is pinned was freed")
	}
	if err := errors.Join(p.Unpin(), p.Unpin()); err != nil {
		t.Error(err)
	}
	b.empty()
}

// E9: detected, and what is right is left alone.
func TestDeviationE9CheckDevice(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	if _, err := e.CheckDevice(t.Context()); !errors.Is(err, ErrNoCopy) {
		t.Errorf("check of nothing: %v", err)
	}
	check := func(want bool, is string) {
		t.Helper()
		if changed, err := e.CheckDevice(t.Context()); changed != want || err != nil {
			t.Errorf("changed %v, %v, want %v", changed, err, want)
		}
		b.want(e, is)
	}
	b.run(e, "upload")
	check(false, `synced 1 "seed" "seed"`)
	b.run(e, "unmarked device write")
	check(true, `device-dirty 2 "seed" "poke"`)
	check(false, `device-dirty 2 "seed" "poke"`)
	b.run(e, "device write") // its checksum is not known
	check(false, `device-dirty 3 "seed" "card"`)
	b.run(e, "sync", "drop host", "unmarked device write")
	check(true, `device-only 4 "-" "poke"`)
	b.run(e, "sync", "download")
	b.want(e, `synced 4 "poke" "poke"`)
	b.fail(emulated.CopyOut)
	if _, err := e.CheckDevice(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("check that cannot read: %v", err)
	}
	b.set(nil)
	b.run(e, "release")
	b.empty()
}

// E10: the last copy leaves by Discard only, which says so; older bytes return only by
// Keep.
func TestDeviationE10DeviceOnly(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	if err := e.DropHost(t.Context()); !errors.Is(err, ErrLastCopy) {
		t.Errorf("drop of the only copy: %v", err)
	}
	b.run(e, "upload", "device write")
	if err := e.DropHost(t.Context()); err != nil { // the older one
		t.Error(err)
	}
	b.want(e, `device-only 2 "-" "card"`)
	if lost, err := e.Discard(Device); !lost || err != nil || e.State() != Gone || e.Counts().Lost != 1 {
		t.Errorf("lost %v, %v, %s", lost, err, e.State())
	}
	if err := e.Sync(t.Context()); !errors.Is(err, ErrNoCopy) {
		t.Errorf("sync of what is gone: %v", err)
	}
	if _, err := e.Keep(t.Context(), Host); !errors.Is(err, ErrNoCopy) {
		t.Errorf("keep of nothing: %v", err)
	}
	if _, err := e.ReplaceHost(t.Context(), 1, []byte("anew")); !errors.Is(err, ErrConflict) {
		t.Errorf("replace of another version: %v", err)
	}
	if v, err := e.ReplaceHost(t.Context(), 2, []byte("anew")); v != 3 || err != nil {
		t.Error(v, err)
	}
	b.want(e, `host-only 3 "anew" "-"`)
	b.empty()
}

// E11: one that fails keeps no other from being synced, errors come in order, remove
// refuses, ids start at 1.
func TestDeviationE11Manager(t *testing.T) {
	b := newBench(t)
	for _, batch := range []int{0, 1, 2} {
		m, err := NewManager(ManagerConfig{Batch: batch})
		if err != nil {
			t.Fatal(err)
		}
		var all []*Engram
		for i := range 6 {
			e := b.engram(strings.Repeat("seed", i+1))
			all = append(all, e)
			if id := m.Register(e); id != ID(i+1) {
				t.Errorf("id %d, want %d", id, i+1)
			}
		}
		for _, e := range all {
			b.run(e, "upload", "device write")
		}
		for _, e := range all[3:] {
			b.run(e, "sync", "host write")
		}
		lost := New([]byte("nowhere"))
		if _, err := lost.Discard(Host); err != nil {
			t.Fatal(err)
		}
		m.Register(lost)
		b.set(func(c emulated.Call) error {
			if isCopy(c, emulated.CopyOut) && c.Queued {
				return errBroken
			}
			return nil
		})
		err = m.SyncAll(t.Context())
		b.set(nil)
		text := ""
		if err != nil {
			text = err.Error()
		}
		at := func(what string) int { return strings.Index(text, what) }
		if !errors.Is(err, errBroken) || !errors.Is(err, ErrNoCopy) || at("sync 1:") < 0 || at("sync 2:") < at("sync 1:") ||
			at("sync 3:") < at("sync 2:") || at("sync 4:") >= 0 || at("sync 7:") < at("sync 3:") {
			t.Errorf("batches of %d: %v", batch, err)
		}
		for i, e := range all {
			if want := map[bool]State{true: DeviceDirty, false: Synced}[i < 3]; e.State() != want {
				t.Errorf("engram %d is %s, want %s", i+1, e.State(), want)
			}
		}
		if _, err := m.Remove(1); !errors.Is(err, ErrDirty) {
			t.Errorf("remove of a dirty one: %v", err)
		}
		if err := m.SyncAll(t.Context()); !errors.Is(err, ErrNoCopy) || errors.Is(err, errBroken) {
			t.Errorf("the second time: %v", err)
		}
		for i, e := range all {
			if e.State() != Synced {
				t.Errorf("engram %d is %s", i+1, e.State())
			}
			if got, err := m.Remove(ID(i + 1)); got != e || err != nil || e.State() != HostOnly {
				t.Errorf("remove: %v, %s", err, e.State())
			}
		}
		b.empty()
	}
}

// TestDeviceLost: what was only there is lost and said to be, all else goes on.
func TestDeviceLost(t *testing.T) {
	b := newBench(t)
	m, err := NewManager(ManagerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	synced, dirty, only, elsewhere := b.engram("a"), b.engram("b"), b.engram("c"), New([]byte("d"))
	for _, e := range []*Engram{synced, dirty, only, elsewhere} {
		m.Register(e)
	}
	b.run(synced, "upload", "host write")
	b.run(dirty, "upload", "device write")
	b.run(only, "upload", "drop host")
	b.set(func(emulated.Call) error { return tier.ErrDeviceLost })
	if err := m.SyncAll(t.Context()); !errors.Is(err, tier.ErrDeviceLost) {
		t.Errorf("sync: %v", err)
	}
	if s := m.Stats(); s.Dirty != 2 || s.DeviceOnly != 1 || s.HostOnly != 1 || s.Lost != 0 {
		t.Errorf("before anybody has said so: %+v", s)
	}
	if lost := m.DeviceLost(b.mem); len(lost) != 2 || lost[0] != 2 || lost[1] != 3 {
		t.Errorf("lost %v, want 2 and 3", lost)
	}
	if s := m.Stats(); s.Gone != 2 || s.HostOnly != 2 || s.Lost != 2 || s.Total != 4 {
		t.Errorf("after: %+v", s)
	}
	if p, _, err := synced.Snapshot(); string(p) != "host" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	if _, _, err := dirty.Snapshot(); !errors.Is(err, ErrStale) {
		t.Errorf("older bytes after a loss: %v", err)
	}
	if lost, err := dirty.Keep(t.Context(), Host); lost || err != nil {
		t.Errorf("keep the older: %v, %v", lost, err)
	}
	if p, v, err := dirty.Snapshot(); !bytes.Equal(p, []byte("b")) || v != 3 || err != nil {
		t.Errorf("%q version %d, %v", p, v, err)
	}
	if err := synced.Upload(t.Context()); !errors.Is(err, ErrNoDevice) {
		t.Errorf("upload: %v, want ErrNoDevice", err)
	}
}
