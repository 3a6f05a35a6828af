package coherency

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"cairn/block"
)

// brief is the part of a state that the table of deviations is about.
func brief(r reference) string {
	s := fmt.Sprintf("{%s}/{%s}", r.valid, r.dirty)
	if r.owner == noOwner {
		return s + " owner none"
	}
	return s + " owner " + r.owner.String()
}

// script runs steps on a fresh State and tells what it shows and the first error.
func script(t *testing.T, at, home block.Tier, steps ...func(*State) error) (string, error) {
	t.Helper()
	s := made(t, at, home)
	for _, step := range steps {
		if err := step(&s); err != nil {
			return brief(view(s)), err
		}
	}
	return brief(view(s)), nil
}

func doing(kind string, t block.Tier) func(*State) error {
	return func(s *State) error { return perform(s, operation{kind: kind, tier: t}) }
}

func writing(t block.Tier, p WritePolicy) func(*State) error {
	return func(s *State) error { return perform(s, operation{kind: "write", tier: t, policy: p}) }
}

// uncommitted writes and leaves the copies in flight.
func uncommitted(t block.Tier, p WritePolicy) func(*State) error {
	return func(s *State) error { _, _, err := s.Write(t, p, s.Version()); return err }
}

func discarding(t block.Tier) func(*State) error {
	return func(s *State) error { s.Discard(t); return nil }
}

func theirs(at, home block.Tier, ops ...operation) string {
	r := newReference(at, home)
	for _, o := range ops {
		r = r.apply(o)
	}
	return brief(r)
}

// TestDeviations runs the sequence of each row of the package comment that is
// about the state of one block: the reference's answer, and ours.
func TestDeviations(t *testing.T) {
	const v, h, d = block.VRAM, block.Host, block.Disk
	w := func(t block.Tier, p WritePolicy) operation { return operation{"write", t, p} }
	o := func(kind string, t block.Tier) operation { return operation{kind: kind, tier: t} }
	type steps = []func(*State) error
	for _, c := range []struct {
		name      string
		at, home  block.Tier
		theirs    []operation
		reference string
		ours      steps
		want      string
		err       error
	}{
		{"T1", h, h, []operation{w(v, WriteThrough), o("invalidate", v)}, "{host}/{none} owner host",
			steps{uncommitted(v, WriteThrough), doing("invalidate", v)}, "{vram}/{vram} owner vram", ErrLastDirtyCopy},
		{"T1", h, h, []operation{w(v, WriteThrough), o("invalidate", v)}, "{host}/{none} owner host",
			steps{writing(v, WriteThrough), doing("invalidate", v)}, "{host}/{none} owner host", nil}, // new bytes now
		{"T2", h, h, []operation{o("mark_synced", v), w(h, WriteAll)}, "{vram+host}/{none} owner host",
			steps{doing("mark_synced", v), uncommitted(h, WriteAll)}, "{host}/{host} owner host", nil},
		{"T3", v, h, []operation{w(v, WriteAll)}, "{vram}/{none} owner vram",
			steps{writing(v, WriteAll)}, "{vram+host}/{none} owner vram", nil},
		{"T4", h, h, []operation{w(v, WriteBack), w(v, WriteAll)}, "{vram}/{none} owner vram",
			steps{writing(v, WriteBack), writing(v, WriteAll)}, "{vram+host}/{none} owner vram", nil},
		{"T5", h, h, []operation{o("invalidate", h), w(v, WriteAll)}, "{vram}/{none} owner vram",
			steps{discarding(h), writing(v, WriteAll)}, "{none}/{none} owner none", ErrNoCopy},
		{"T6", h, h, []operation{o("invalidate", h)}, "{none}/{none} owner none",
			steps{doing("invalidate", h)}, "{host}/{none} owner host", ErrLastCopy},
		{"T6", h, h, []operation{w(v, WriteBack), o("invalidate", v)}, "{none}/{none} owner none",
			steps{writing(v, WriteBack), doing("invalidate", v)}, "{vram}/{vram} owner vram", ErrLastDirtyCopy},
		{"T7", v, d, []operation{w(v, WriteBack), o("sync_to", h), o("invalidate", v)}, "{host}/{none} owner host",
			steps{writing(v, WriteBack), doing("sync_to", h), doing("invalidate", v)}, "{host}/{host} owner host", nil},
		{"T7", v, d, []operation{w(v, WriteBack), o("sync_to", h), o("invalidate", v), o("invalidate", h)}, "{none}/{none} owner none",
			steps{writing(v, WriteBack), doing("sync_to", h), doing("invalidate", v), doing("invalidate", h)}, "{host}/{host} owner host", ErrLastDirtyCopy},
		{"T8", h, h, []operation{w(v, WriteBack), o("mark_synced", v)}, "{vram}/{none} owner vram",
			steps{writing(v, WriteBack), doing("mark_synced", v)}, "{vram}/{vram} owner vram", ErrCurrent},
		{"T9", h, h, []operation{w(v, WriteBack), o("mark_synced", h)}, "{vram+host}/{vram} owner vram",
			steps{writing(v, WriteBack), doing("mark_synced", h)}, "{vram+host}/{none} owner vram", nil},
		{"T10", h, h, []operation{w(h, WriteBack), o("sync_to", h)}, "{host}/{host} owner host",
			steps{writing(h, WriteBack), doing("sync_to", h)}, "{host}/{none} owner host", nil},
		{"T11", h, h, []operation{o("invalidate", h), o("mark_synced", v)}, "{vram}/{none} owner none",
			steps{discarding(h), doing("mark_synced", v)}, "{none}/{none} owner none", ErrNoCopy},
		{"T12", v, h, nil, "{vram}/{none} owner vram", nil, "{vram}/{vram} owner vram", nil},
		{"T12", h, h, []operation{o("mark_synced", v), o("invalidate", h)}, "{vram}/{none} owner vram",
			steps{doing("mark_synced", v), doing("invalidate", h)}, "{vram}/{vram} owner vram", nil},
		{"T13", h, h, []operation{w(v, WriteThrough), o("invalidate", v)}, "{host}/{none} owner host", // of old bytes
			steps{uncommitted(v, WriteThrough), discarding(v)}, "{none}/{none} owner none", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := script(t, c.at, c.home, c.ours...)
			if r := theirs(c.at, c.home, c.theirs...); r != c.reference {
				t.Errorf("the reference answers %s, the table says %s", r, c.reference)
			}
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("ours answers %s (%v), want %s (%v)", got, err, c.want, c.err)
			}
			t.Logf("new(%s, %s) %v: reference %s; ours %s (%v)", c.at, c.home, c.theirs, c.reference, got, err)
		})
	}
}

func TestDeviationT2FailedCopyLeavesTheSet(t *testing.T) {
	s := made(t, block.Host, block.Host)
	moved(t, &s, block.VRAM)
	copies := written(t, &s, block.Host, WriteAll)
	commit(t, &s, copies[0])
	s.Abort(copies[1])
	shows(t, s, inHost, 0, 0, block.Host)
	if s.Stale() != inVRAM {
		t.Errorf("stale is %s, want vram", s.Stale())
	}
}

func TestDeviationT6DiscardReports(t *testing.T) {
	s := made(t, block.Host, block.Host)
	written(t, &s, block.VRAM, WriteBack)
	if !s.Discard(block.VRAM) {
		t.Error("a lost write was not reported")
	}
	if !s.Gone() || s.Stale() != inHost {
		t.Errorf("gone %v, stale %s: the old bytes must not come back", s.Gone(), s.Stale())
	}
	if _, err := s.Begin(block.Disk); !errors.Is(err, ErrNoCopy) {
		t.Errorf("copy of a lost version: %v, want ErrNoCopy", err)
	}
}

func TestDeviationT14ExpectedVersion(t *testing.T) {
	// Reference: two writers that both read the first content both succeed.
	s := made(t, block.Host, block.Host)
	base := s.Version()
	if _, _, err := s.Write(block.Host, WriteBack, base); err != nil {
		t.Fatal(err)
	}
	before := s
	if _, _, err := s.Write(block.VRAM, WriteBack, base); !errors.Is(err, ErrConflict) || s != before {
		t.Errorf("second writer: %v, want ErrConflict and no change", err)
	}
}

func TestDeviationT15PartialWriteFetchesFirst(t *testing.T) {
	if r := theirs(block.Host, block.Host, operation{"write", block.VRAM, WriteBack}); r != "{vram}/{vram} owner vram" {
		t.Fatalf("reference: %s", r) // valid, whatever part of the block was written
	}
	s := made(t, block.Host, block.Host)
	if s.Has(block.VRAM) {
		t.Fatal("vram must not claim the rest of the block")
	}
	base := s.Version()
	moved(t, &s, block.VRAM)
	if !s.Has(block.VRAM) || s.Version() != base {
		t.Fatal("the rest is not in vram")
	}
	if v, _, err := s.Write(block.VRAM, WriteBack, base); v != base+1 || err != nil {
		t.Errorf("version %d, %v", v, err)
	}
}

func TestDeviationT16FailedCopy(t *testing.T) {
	r := newReference(block.VRAM, block.Host)
	r.write(block.VRAM, WriteBack)
	if !r.syncTo(block.Host) || !r.valid.Has(block.Host) {
		t.Fatal("the reference is valid before the copy") // and stays so when it fails
	}
	s := made(t, block.VRAM, block.Host)
	c, err := s.Begin(block.Host)
	if err != nil || s.Has(block.Host) {
		t.Fatalf("%v, host valid %v", err, s.Has(block.Host))
	}
	if _, err := s.Begin(block.Host); !errors.Is(err, ErrInFlight) {
		t.Errorf("second copy: %v, want ErrInFlight", err)
	}
	s.Abort(c)
	shows(t, s, inVRAM, inVRAM, inHost, block.VRAM)
	if err := s.Commit(c); !errors.Is(err, ErrStale) {
		t.Errorf("commit after abort: %v, want ErrStale", err)
	}
	moved(t, &s, block.Host)
	if _, err := s.Begin(block.Host); !errors.Is(err, ErrCurrent) {
		t.Errorf("needless copy: %v, want ErrCurrent", err)
	}
}

func TestDeviationT17StaleCopies(t *testing.T) {
	for name, disturb := range map[string]func(*State) error{
		"source evicted":      func(s *State) error { s.Evicted(block.VRAM); return nil },
		"source invalidated":  func(s *State) error { return s.Invalidate(block.VRAM) },
		"target invalidated":  func(s *State) error { return s.Invalidate(block.Disk) },
		"written meanwhile":   func(s *State) error { _, _, err := s.Write(block.VRAM, WriteBack, s.Version()); return err },
		"rewritten at target": func(s *State) error { _, _, err := s.Write(block.Disk, WriteBack, s.Version()); return err },
		"begun again": func(s *State) error {
			if err := s.Invalidate(block.Disk); err != nil {
				return err
			}
			_, err := s.Begin(block.Disk)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := made(t, block.Host, block.Host)
			moved(t, &s, block.VRAM)
			c, err := s.Begin(block.Disk)
			if err != nil || c.From != block.VRAM {
				t.Fatalf("copy %+v, %v; want one from vram", c, err)
			}
			if err := disturb(&s); err != nil {
				t.Fatal(err)
			}
			before := s
			if err := s.Commit(c); !errors.Is(err, ErrStale) || s != before {
				t.Errorf("commit: %v, want ErrStale and no change", err)
			}
			s.Abort(c)
			if s != before {
				t.Error("the abort of a stale copy changed the state")
			}
		})
	}
}

func TestDeviationT18Home(t *testing.T) {
	for _, home := range []block.Tier{block.VRAM, block.Tiers} {
		if _, err := New(block.Host, home); !errors.Is(err, ErrHome) {
			t.Errorf("home %s: %v, want ErrHome", home, err)
		}
	}
	if _, err := New(block.Tiers, block.Host); !errors.Is(err, ErrTier) {
		t.Errorf("New in no tier: %v, want ErrTier", err)
	}
}

func TestDeviationT19VersionIsNotEpoch(t *testing.T) {
	if reflect.TypeFor[Version]() == reflect.TypeFor[Epoch]() {
		t.Error("a version can be taken for an epoch")
	}
	s, q := made(t, block.Host, block.Host), NewSyncQueue(WriteBack)
	written(t, &s, block.Host, WriteBack)
	if s.Version() != 2 || q.Epoch() != 0 {
		t.Errorf("after a write: version %d, epoch %d; want 2, 0", s.Version(), q.Epoch())
	}
}

func TestDeviationS1(t *testing.T) {
	var r referenceQueue
	r.queue(7)
	r.queue(7)
	if n := len(r.drain()); n != 2 || len(r.pending) != 0 {
		t.Fatalf("reference: %d handed out, %d remembered", n, len(r.pending))
	}
	if e := r.advance(); e != 0 { // the old epoch, while both copies are still under way
		t.Fatalf("reference: epoch %d", e)
	}
	q, key := NewSyncQueue(WriteBack), block.Key{7}
	q.Add(key, 1, block.VRAM, block.Disk)
	q.Add(key, 2, block.Host, block.Disk)
	out := q.Next(10)
	if len(out) != 1 || out[0].Version != 2 || out[0].From != block.Host || q.InFlight() != 1 {
		t.Fatalf("handed out %v, %d in flight", out, q.InFlight())
	}
	if e, err := q.Advance(); e != 0 || !errors.Is(err, ErrPending) {
		t.Errorf("Advance: %d, %v; want ErrPending", e, err)
	}
	q.Done(out[0])
	if e, err := q.Advance(); e != 1 || err != nil {
		t.Errorf("Advance: %d, %v; want 1", e, err)
	}
}

func TestZeroState(t *testing.T) {
	var s State
	if !s.Gone() || s.Version() != 0 || s.NeedsSync().Any() || s.Dirty().Any() || s.Durable() {
		t.Errorf("the zero State claims something: %+v", s)
	}
	if _, _, err := s.Write(block.Host, WriteBack, 0); !errors.Is(err, ErrHome) {
		t.Errorf("Write: %v, want ErrHome", err)
	}
	if _, err := s.Begin(block.Host); !errors.Is(err, ErrNoCopy) {
		t.Errorf("Begin: %v, want ErrNoCopy", err)
	}
	if err := s.Commit(Copy{}); !errors.Is(err, ErrStale) {
		t.Errorf("Commit: %v, want ErrStale", err)
	}
	if s.Discard(block.Host); s != (State{}) {
		t.Error("Discard changed it")
	}
}

func TestStateIsSmall(t *testing.T) {
	if n := reflect.TypeFor[State]().Size(); n > 48 {
		t.Errorf("a State has %d bytes, at most 48 are documented", n)
	}
}
