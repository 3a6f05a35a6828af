package client_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/client"
	"cairn/engram"
	"cairn/vram"
	"cairn/vram/emulated"
)

// pos is a vector of which these dimensions are +1.
func pos(dims ...uint32) engram.SparseVec { return engram.SparseVec{Pos: dims} }

func set(v engram.SparseVec) func(engram.SparseVec) (engram.SparseVec, error) {
	return func(engram.SparseVec) (engram.SparseVec, error) { return v, nil }
}

func edit(t *testing.T, e *client.Engram, v engram.SparseVec) {
	t.Helper()
	if err := e.Edit(t.Context(), set(v)); err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, e *client.Engram) client.Version {
	t.Helper()
	v, err := e.Commit(t.Context())
	if err != nil || v == 0 || e.Version() != v || e.Changed() {
		t.Fatalf("commit: %s, %v; version %s, changed %v", v, err, e.Version(), e.Changed())
	}
	return v
}

func holds(t *testing.T, e *client.Engram, want engram.SparseVec) {
	t.Helper()
	if v, err := e.Vector(); err != nil || !v.Equal(want) {
		t.Errorf("the copy is %v, %v, want %v", v, err, want)
	}
}

func TestEngram(t *testing.T) {
	a, b, c := pair(t, client.Config{})
	other := open(t, client.Config{}, b)
	mine, theirs := c.Engram("other", "memory"), other.Engram("other", "memory")
	if err := mine.Load(t.Context()); !errors.Is(err, client.ErrNotFound) || !strings.Contains(err.Error(), "memory") {
		t.Errorf("load of nothing: %v", err)
	}
	if v, err := mine.Commit(t.Context()); v != 0 || err != nil || a.count("CAIRN.CAS") != 0 {
		t.Errorf("commit of nothing new: %s, %v", v, err)
	}
	holds(t, mine, engram.SparseVec{})
	edit(t, mine, pos(1, 2))
	if !mine.Changed() || mine.Version() != 0 {
		t.Errorf("edited: changed %v, version %s", mine.Changed(), mine.Version())
	}
	first, err := mine.Commit(t.Context(), client.WithPolicy(client.WriteBack), client.WithTTL(time.Minute))
	if err != nil || strings.Join(a.last("CAIRN.CAS")[4:], " ") != "POLICY write-back EX 60" {
		t.Fatalf("%v, %q", err, a.last("CAIRN.CAS"))
	}
	// Anybody can read it.
	if got, err := open(t, client.Config{Namespace: "other"}, b).GetName(t.Context(), "memory", nil); err != nil ||
		string(got.Value) != "\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00" || got.Version != first {
		t.Errorf("% x, %v", got.Value, err)
	}
	if err := theirs.Load(t.Context(), client.Strict()); err != nil || theirs.Version() != first || b.last("CAIRN.GET")[2] != "STRICT" {
		t.Errorf("load: %v, %s", err, theirs.Version())
	}
	holds(t, theirs, pos(1, 2))
	before := theirs.Local().Version()
	if err := theirs.Load(t.Context()); err != nil || theirs.Local().Version() != before {
		t.Errorf("the same again: %v, version %d of the copy, was %d", err, theirs.Local().Version(), before)
	}
	edit(t, theirs, pos(3))
	if err := theirs.Load(t.Context()); !errors.Is(err, client.ErrUncommitted) {
		t.Errorf("load over changes: %v", err)
	}
	holds(t, theirs, pos(3))
	second := commit(t, theirs)
	if second <= first {
		t.Errorf("version %s after %s", second, first)
	}
	if err := mine.Load(t.Context()); err != nil || mine.Version() != second {
		t.Errorf("load: %v, %s", err, mine.Version())
	}
	holds(t, mine, pos(3))
}

func TestEngramRefusesWhatIsNone(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	e := c.Engram("", "k")
	edit(t, e, pos(7))
	commit(t, e)
	mine := errors.New("mine")
	if err := e.Edit(t.Context(), func(engram.SparseVec) (engram.SparseVec, error) { return pos(9), mine }); err != mine {
		t.Errorf("the function's own error: %v", err)
	}
	if err := e.Edit(t.Context(), set(pos(2, 1))); !errors.Is(err, engram.ErrUnsorted) {
		t.Errorf("a vector that is none: %v", err)
	}
	if _, err := e.Local().ReplaceHost(t.Context(), 0, []byte("a kernel's rubbish")); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Commit(t.Context()); !errors.Is(err, engram.ErrOverflow) || s.count("CAIRN.CAS") != 1 {
		t.Errorf("commit of rubbish: %v", err)
	}
	if err := c.PutName(t.Context(), "k", []byte{1, 2}); err != nil {
		t.Fatal(err)
	}
	again := c.Engram("", "k")
	if err := again.Load(t.Context()); !errors.Is(err, engram.ErrTruncated) || again.Version() != 0 {
		t.Errorf("load of rubbish: %v", err)
	}
	if err := again.Update(t.Context(), set(pos(1))); !errors.Is(err, engram.ErrTruncated) {
		t.Errorf("update of rubbish: %v", err)
	}
	edit(t, again, pos(1))
	if _, err := again.Commit(t.Context()); !errors.Is(err, client.ErrConflict) || !errors.Is(err, engram.ErrTruncated) {
		t.Errorf("commit over rubbish: %v", err)
	}
	if err := again.Load(t.Context(), client.Strict()); !errors.Is(err, client.ErrUncommitted) {
		t.Errorf("load: %v", err)
	}
	if err := c.Engram("nowhere", "k").Load(t.Context()); !errors.Is(err, client.ErrNamespace) {
		t.Errorf("another namespace: %v", err)
	}
}

// TestEngramEditedWhileItLoads: the edit is not overwritten.
func TestEngramEditedWhileItLoads(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	if err := c.Engram("", "k").Update(t.Context(), set(pos(1))); err != nil {
		t.Fatal(err)
	}
	e := c.Engram("", "k")
	s.setFault(func(call []string) fault {
		if call[0] == "CAIRN.GET" {
			edit(t, e, pos(2))
		}
		return none
	})
	if err := e.Load(t.Context()); !errors.Is(err, client.ErrUncommitted) || e.Version() != 0 {
		t.Errorf("load: %v, version %s", err, e.Version())
	}
	holds(t, e, pos(2))
}

// conflicted is a handle whose commit has found another one's.
func conflicted(t *testing.T) (c *client.Client, e *client.Engram, conflict *client.EngramConflict) {
	t.Helper()
	s := newServer("n1").start(t, "tcp", "")
	c = open(t, client.Config{}, s)
	e = c.Engram("", "k")
	edit(t, e, pos(1, 2))
	base := commit(t, e)
	edit(t, e, pos(1, 2, 3))
	if err := c.Engram("", "k").Update(t.Context(), func(old engram.SparseVec) (engram.SparseVec, error) {
		return engram.Bundle(old, pos(4)), nil
	}); err != nil {
		t.Fatal(err)
	}
	_, err := e.Commit(t.Context())
	var plain *client.ConflictError
	if !errors.As(err, &conflict) || !errors.Is(err, client.ErrConflict) || !errors.As(err, &plain) || plain.Version != conflict.Version {
		t.Fatalf("commit: %v", err)
	}
	if conflict.Base != base || conflict.Version <= base || !conflict.Theirs.Equal(pos(1, 2, 4)) || !e.Changed() || e.Version() != base {
		t.Fatalf("%+v; version %s, changed %v", conflict, e.Version(), e.Changed())
	}
	holds(t, e, pos(1, 2, 3))
	return c, e, conflict
}

func TestEngramConflict(t *testing.T) {
	for _, tc := range []struct {
		name    string
		choose  func(context.Context, *client.Engram, *client.EngramConflict) error
		want    engram.SparseVec
		changed bool
	}{
		{"keep", func(ctx context.Context, e *client.Engram, c *client.EngramConflict) error { return e.Keep(ctx, c) }, pos(1, 2, 3), true},
		{"reload", func(ctx context.Context, e *client.Engram, c *client.EngramConflict) error { return e.Reload(ctx, c) }, pos(1, 2, 4), false},
		{"merge", func(ctx context.Context, e *client.Engram, c *client.EngramConflict) error { return e.Merge(ctx, c) }, pos(1, 2, 3, 4), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, e, conflict := conflicted(t)
			if err := tc.choose(t.Context(), e, conflict); err != nil {
				t.Fatal(err)
			}
			holds(t, e, tc.want)
			if e.Changed() != tc.changed || e.Version() != conflict.Version {
				t.Errorf("changed %v, version %s", e.Changed(), e.Version())
			}
			if err := tc.choose(t.Context(), e, conflict); !errors.Is(err, client.ErrConflict) {
				t.Errorf("a choice about a conflict that is over: %v", err)
			}
			commit(t, e)
			fresh := c.Engram("", "k")
			if err := fresh.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			holds(t, fresh, tc.want)
		})
	}
}

func TestEngramConflictWithADeletion(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	e := c.Engram("", "k")
	edit(t, e, pos(1))
	commit(t, e)
	if _, err := c.DeleteName(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	edit(t, e, pos(2))
	var conflict *client.EngramConflict
	if _, err := e.Commit(t.Context()); !errors.As(err, &conflict) || conflict.Version != 0 || conflict.Theirs.Len() != 0 || !strings.Contains(err.Error(), "deleted") {
		t.Fatalf("%v", err)
	}
	if err := e.Keep(t.Context(), conflict); err != nil {
		t.Fatal(err)
	}
	commit(t, e)
}

// TestEngramUnknownOutcome: a commit whose answer was lost is found out by the next one.
func TestEngramUnknownOutcome(t *testing.T) {
	for _, more := range []bool{false, true} {
		s := newServer("n1").start(t, "tcp", "")
		c := open(t, client.Config{}, s)
		e := c.Engram("", "k")
		edit(t, e, pos(1))
		commit(t, e)
		edit(t, e, pos(2))
		s.on("CAIRN.CAS", lost)
		if _, err := e.Commit(t.Context()); !errors.Is(err, client.ErrUnknownOutcome) || !e.Changed() {
			t.Fatalf("%v", err)
		}
		s.setFault(nil)
		want, calls := pos(2), s.count("CAIRN.CAS")+1
		if more {
			want, calls = pos(3), calls+1
			edit(t, e, want)
		}
		commit(t, e)
		if n := s.count("CAIRN.CAS"); n != calls {
			t.Errorf("%d attempts, want %d", n, calls)
		}
		got := c.Engram("", "k")
		if err := got.Load(t.Context(), client.Strict()); err != nil || got.Version() != e.Version() {
			t.Errorf("%v, %s, want %s", err, got.Version(), e.Version())
		}
		holds(t, got, want)
	}
	// The first of two in doubt was made; the second was not, and nobody said so.
	{
		s := newServer("n1").start(t, "tcp", "")
		e := open(t, client.Config{}, s).Engram("", "k")
		s.on("CAIRN.CAS", lost)
		for _, d := range []uint32{1, 2} {
			edit(t, e, pos(d))
			if _, err := e.Commit(t.Context()); !errors.Is(err, client.ErrUnknownOutcome) {
				t.Fatalf("%v", err)
			}
		}
		s.setFault(nil)
		edit(t, e, pos(3))
		commit(t, e)
		holds(t, e, pos(3))
	}
	// It was not made, and somebody else was first: that is a conflict like any other.
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	e := c.Engram("", "k")
	edit(t, e, pos(1))
	s.on("CAIRN.CAS", doubt)
	if _, err := e.Commit(t.Context()); !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("%v", err)
	}
	s.setFault(nil)
	if err := c.Engram("", "k").Update(t.Context(), set(pos(9))); err != nil {
		t.Fatal(err)
	}
	var conflict *client.EngramConflict
	if _, err := e.Commit(t.Context()); !errors.As(err, &conflict) || !conflict.Theirs.Equal(pos(9)) {
		t.Errorf("%v", err)
	}
}

func TestEngramTurns(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	e := open(t, client.Config{}, s).Engram("", "k")
	edit(t, e, pos(1))
	s.on("CAIRN.CAS", hang)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := e.Commit(ctx)
		done <- err
	}()
	s.awaitCalls(t, "CAIRN.CAS", 1)
	if !e.Changed() || e.Version() != 0 {
		t.Error("looking at the handle waits for the commit, or sees it")
	}
	holds(t, e, pos(1))
	edit(t, e, pos(2))
	short, end := context.WithTimeout(t.Context(), time.Millisecond)
	defer end()
	if err := e.Load(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a load beside it: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("the commit: %v", err)
	}
	s.setFault(nil)
	commit(t, e)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Load(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestEngramUpdateTogether: what many bundle in at the same time is all there.
func TestEngramUpdateTogether(t *testing.T) {
	a, b, c := pair(t, client.Config{MaxBackoff: 2 * time.Millisecond})
	space := engram.Space{Blocks: 128, Length: 64}
	clients := []*client.Client{c, open(t, client.Config{MaxBackoff: 2 * time.Millisecond}, b, a)}
	var wg sync.WaitGroup
	const workers, times = 4, 4
	for w := range workers {
		wg.Go(func() {
			e := clients[w%2].Engram("", "memory")
			for i := range times {
				if err := e.Update(t.Context(), func(old engram.SparseVec) (engram.SparseVec, error) {
					return engram.Bundle(old, space.Code(uint64(w*times+i))), nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	e := c.Engram("", "memory")
	if err := e.Load(t.Context(), client.Strict()); err != nil {
		t.Fatal(err)
	}
	v, err := e.Vector()
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(workers * times) {
		if s := engram.Similarity(v, space.Code(i)); s < 0.15 {
			t.Errorf("code %d: similarity %.3f", i, s)
		}
		if s := engram.Similarity(v, space.Code(1000+i)); math.Abs(s) > 0.08 {
			t.Errorf("a code that is not there: %.3f", s)
		}
	}
}

// TestEngramOnDevice: the cluster's block is edited on a device and committed from there.
func TestEngramOnDevice(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	dev, err := emulated.New(emulated.Config{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	mem, err := engram.NewMemory(dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	e := c.Engram("", "k")
	edit(t, e, pos(1, 2))
	commit(t, e)
	local := e.Local()
	if err := errors.Join(local.Attach(mem), local.Upload(t.Context())); err != nil || local.State() != engram.Synced {
		t.Fatalf("%v, %s", err, local.State())
	}
	kernel := func(v engram.SparseVec) {
		t.Helper()
		p, err := v.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := local.ReplaceDevice(t.Context(), int64(len(p)), func(a vram.Addr, _ int64) error { return mem.CopyIn(t.Context(), a, p) }); err != nil {
			t.Fatal(err)
		}
	}
	kernel(pos(1, 2, 3))
	if _, err := e.Vector(); !errors.Is(err, engram.ErrStale) || !e.Changed() {
		t.Errorf("old bytes are read: %v", err)
	}
	commit(t, e) // downloads
	holds(t, e, pos(1, 2, 3))
	if local.State() != engram.Synced {
		t.Errorf("committed: %s", local.State())
	}
	// Somebody else's version comes, and goes up.
	if err := c.Engram("", "k").Update(t.Context(), set(pos(8))); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(t.Context()); err != nil || local.State() != engram.HostDirty {
		t.Errorf("%v, %s", err, local.State())
	}
	if err := local.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A conflict while the newest is on the device: nothing is lost before the choice.
	kernel(pos(5))
	if err := c.Engram("", "k").Update(t.Context(), set(pos(6))); err != nil {
		t.Fatal(err)
	}
	var conflict *client.EngramConflict
	if _, err := e.Commit(t.Context()); !errors.As(err, &conflict) || !conflict.Theirs.Equal(pos(6)) {
		t.Fatal(err)
	}
	holds(t, e, pos(5))
	kernel(pos(5, 7))
	if err := e.Merge(t.Context(), conflict); err != nil {
		t.Fatal(err)
	}
	holds(t, e, pos(5, 6, 7))
	if err := local.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	kernel(pos(100))
	if err := c.Engram("", "k").Update(t.Context(), set(pos(200))); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Commit(t.Context()); !errors.As(err, &conflict) {
		t.Fatal(err)
	}
	kernel(pos(101))
	if err := e.Reload(t.Context(), conflict); err != nil || e.Changed() {
		t.Fatal(err)
	}
	holds(t, e, pos(200))
	if err := local.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if free, total, err := dev.Memory(); free != total || err != nil {
		t.Errorf("%d of %d bytes are free, %v", free, total, err)
	}
}

// Changes are given up without a conflict, too, and a choice without a conflict is an
// error that says where to find one.
func TestEngramReloadsTheNewest(t *testing.T) {
	c, e, _ := conflicted(t)
	ctx := t.Context()
	for op, choose := range map[string]func(context.Context, *client.EngramConflict) error{"keep": e.Keep, "merge": e.Merge} {
		if err := choose(ctx, nil); err == nil || !strings.Contains(err.Error(), "EngramConflict") {
			t.Errorf("%s of no conflict: %v", op, err)
		}
	}
	if err := e.Load(ctx); !errors.Is(err, client.ErrUncommitted) || !strings.Contains(err.Error(), "Reload") {
		t.Errorf("load: %v", err)
	}
	holds(t, e, pos(1, 2, 3))
	if err := e.Reload(ctx, nil); err != nil || e.Changed() {
		t.Fatalf("reload: %v, changed %v", err, e.Changed())
	}
	holds(t, e, pos(1, 2, 4))
	edit(t, e, pos(5))
	commit(t, e)

	// What was written on a device that is lost is given up in the same way.
	dev := emulatedDevice(t)
	mem, err := engram.NewMemory(dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	local := e.Local()
	write := errors.Join(local.Attach(mem), local.Upload(ctx))
	if write == nil {
		_, write = local.WriteDevice(ctx, func(vram.Addr, int64) error { return nil })
	}
	if write != nil || !local.DeviceLost() || local.State() != engram.Gone {
		t.Fatalf("%v, %s", write, local.State())
	}
	if err := e.Reload(ctx, nil); err != nil || e.Changed() {
		t.Fatalf("reload of a copy that was lost: %v, changed %v", err, e.Changed())
	}
	holds(t, e, pos(5))

	never := c.Engram("", "never")
	edit(t, never, pos(1))
	if err := never.Reload(ctx, nil); err != nil || never.Changed() || never.Version() != 0 {
		t.Errorf("reload where there is no block: %v, changed %v", err, never.Changed())
	}
	holds(t, never, engram.SparseVec{})
}
