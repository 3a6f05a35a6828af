package client_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"cairn/client"
	"cairn/engram"
	"cairn/vram"
	"cairn/vram/emulated"
)

var errCopy = errors.New("the copy fails")

// handleBench is a handle with the committed vector 1, 2 and device memory, of which
// copies in one direction can be made to fail.
type handleBench struct {
	t    *testing.T
	c    *client.Client
	e    *client.Engram
	mem  *engram.Memory
	fail atomic.Uint32 // the emulated.Op that fails, and 1 above it; 0: none
}

func newHandleBench(t *testing.T) *handleBench {
	b := &handleBench{t: t, c: open(t, client.Config{}, newServer("n1").start(t, "tcp", ""))}
	dev, err := emulated.New(emulated.Config{Memory: 1 << 20, Hook: func(c emulated.Call) error {
		if b.fail.Load() == uint32(c.Op)+1 {
			return errCopy
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	if b.mem, err = engram.NewMemory(dev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.mem.Close() })
	b.e = b.c.Engram("", "k")
	edit(t, b.e, pos(1, 2))
	commit(t, b.e)
	if err := b.e.Local().Attach(b.mem); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *handleBench) do(op string) (err error) {
	ctx, local := b.t.Context(), b.e.Local()
	op, failing := strings.CutPrefix(op, "failing ")
	if failing {
		copies := emulated.CopyOut
		if op == "upload" {
			copies = emulated.CopyIn
		}
		b.fail.Store(uint32(copies) + 1)
		defer b.fail.Store(0)
	}
	bytes := func(v engram.SparseVec) []byte {
		p, err := v.Marshal()
		if err != nil {
			b.t.Fatal(err)
		}
		return p
	}
	switch op {
	case "upload":
		return local.Upload(ctx)
	case "download":
		return local.Download(ctx)
	case "sync":
		return local.Sync(ctx)
	case "release":
		return local.Release(ctx)
	case "drop host":
		return local.DropHost(ctx)
	case "look":
		_, err = b.e.Vector()
		return err
	case "host write":
		return b.e.Edit(ctx, set(pos(7, 8)))
	case "host grow":
		return b.e.Edit(ctx, set(pos(7, 8, 9)))
	case "host shrink":
		return b.e.Edit(ctx, set(pos(7)))
	case "device write":
		_, err = local.WriteDevice(ctx, func(a vram.Addr, _ int64) error { return b.mem.CopyIn(ctx, a, bytes(pos(5, 6))) })
		return err
	case "device grow":
		p := bytes(pos(4, 5, 6))
		_, err = local.ReplaceDevice(ctx, int64(len(p)), func(a vram.Addr, _ int64) error { return b.mem.CopyIn(ctx, a, p) })
		return err
	case "unmarked device write":
		pin, err := local.Pin(ctx)
		if err == nil {
			err = errors.Join(b.mem.CopyIn(ctx, pin.Addr(), bytes(pos(5, 6))), pin.Unpin())
		}
		return err
	case "check":
		_, err = local.CheckDevice(ctx)
		return err
	case "commit":
		_, err = b.e.Commit(ctx)
		return err
	}
	b.t.Fatalf("no such operation: %s", op)
	return nil
}

// TestEngramDeviations runs rows E1 to E10 of package coherency through a handle: what the
// cluster has after a last Commit is the newest write, and never another one's bytes.
func TestEngramDeviations(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []string
		want engram.SparseVec
		made bool  // tells that Commit has made another version
		err  error // the first
	}{
		{"E1", []string{"upload", "device write", "host write"}, pos(5, 6), true, engram.ErrConflict},
		{"E1", []string{"upload", "host write", "device write"}, pos(7, 8), true, engram.ErrConflict},
		{"E2", []string{"upload", "device write", "upload"}, pos(5, 6), true, engram.ErrConflict},
		{"E3", []string{"upload", "host write", "download"}, pos(7, 8), true, engram.ErrConflict},
		{"E4", []string{"failing upload", "device write"}, pos(1, 2), false, errCopy},
		{"E4", []string{"failing upload", "host write"}, pos(7, 8), true, errCopy},
		{"E5", []string{"upload", "device write", "failing release"}, pos(5, 6), true, errCopy},
		{"E5", []string{"upload", "device write", "failing commit"}, pos(5, 6), true, errCopy},
		{"E6", []string{"upload", "host grow", "sync"}, pos(7, 8, 9), true, nil},
		{"E6", []string{"upload", "device grow"}, pos(4, 5, 6), true, nil},
		{"E7", []string{"upload", "host shrink", "sync", "release"}, pos(7), true, nil},
		{"E8", []string{"look", "upload", "look", "commit", "download", "sync", "release"}, pos(1, 2), false, nil},
		{"E9", []string{"upload", "unmarked device write", "check"}, pos(5, 6), true, nil},
		{"E9", []string{"upload", "unmarked device write", "host write", "check"}, pos(7, 8), true, engram.ErrConflict},
		{"E10", []string{"upload", "device write", "look"}, pos(5, 6), true, engram.ErrStale},
		{"E10", []string{"upload", "drop host", "look"}, pos(1, 2), false, engram.ErrNoCopy},
		{"E10", []string{"upload", "drop host", "device write"}, pos(5, 6), true, nil},
	} {
		t.Run(c.name+" "+strings.Join(c.ops, ", "), func(t *testing.T) {
			b := newHandleBench(t)
			before := b.e.Version()
			var first error
			for _, op := range append(c.ops, "commit") {
				if err := b.do(op); first == nil {
					first = err
				}
			}
			if !errors.Is(first, c.err) || c.err == nil && first != nil {
				t.Errorf("the first error is %v, want %v", first, c.err)
			}
			holds(t, b.e, c.want)
			there := b.c.Engram("", "k")
			if err := there.Load(t.Context(), client.Strict()); err != nil {
				t.Fatal(err)
			}
			holds(t, there, c.want)
			if made := there.Version() != before; made != c.made || there.Version() != b.e.Version() || b.e.Changed() {
				t.Errorf("version %s after %s, the handle has %s, changed %v", there.Version(), before, b.e.Version(), b.e.Changed())
			}
			if err := b.e.Local().Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// E9: bytes on the device that nobody spoke of are not committed as another version's, where
// host has nothing to tell by but the checksum.
func TestEngramDeviationE9WithoutHost(t *testing.T) {
	b := newHandleBench(t)
	for _, op := range []string{"upload", "drop host", "unmarked device write"} {
		if err := b.do(op); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.do("commit"); !errors.Is(err, engram.ErrContent) {
		t.Errorf("commit: %v", err)
	}
	if err := errors.Join(b.do("check"), b.do("commit")); err != nil {
		t.Fatal(err)
	}
	holds(t, b.e, pos(5, 6))
}

// E11: a manager goes through the copies of handles, be one of them in conflict.
func TestEngramDeviationE11(t *testing.T) {
	b := newHandleBench(t)
	m, err := engram.NewManager(engram.ManagerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"a", "b", "c"}
	handles := make([]*client.Engram, len(names))
	for i, name := range names {
		h := b.c.Engram("", name)
		edit(t, h, pos(uint32(i)))
		commit(t, h)
		if id := m.Register(h.Local()); id != engram.ID(i+1) {
			t.Errorf("the first ids are %d at %d", id, i)
		}
		if err := errors.Join(h.Local().Attach(b.mem), h.Local().Upload(t.Context())); err != nil {
			t.Fatal(err)
		}
		edit(t, h, pos(uint32(i), 100))
		handles[i] = h
	}
	if _, err := handles[0].Local().Discard(engram.Host); err != nil { // its newest version is lost
		t.Fatal(err)
	}
	if err := m.SyncAll(t.Context()); !errors.Is(err, engram.ErrNoCopy) && !errors.Is(err, engram.ErrStale) {
		t.Errorf("sync all: %v", err)
	}
	for i, h := range handles[1:] {
		if s := h.Local().State(); s != engram.Synced {
			t.Errorf("%s is %s: the failure of another held it up", names[i+1], s)
		}
		commit(t, h)
	}
	// What is lost is never committed as something else.
	if v, err := handles[0].Commit(t.Context()); err == nil {
		t.Errorf("a lost version was committed, as %s", v)
	}
	if err := handles[0].Reload(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	holds(t, handles[0], pos(0))
}
