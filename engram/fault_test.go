package engram

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// TestFaultAtEveryCall runs a workload again and again, with a fault at the first call
// of the device, then at the second, and so on to the last: what was committed stays,
// and nothing is left on the device. At each place the call fails once, from there on, or
// the device is lost.
func TestFaultAtEveryCall(t *testing.T) {
	for _, kind := range []string{"once", "from there on", "lost"} {
		t.Run(kind, func(t *testing.T) {
			calls, faults := 0, 0
			for at := 1; ; at++ {
				n, hit := faultRun(t, kind, at)
				if !hit {
					calls = n
					break
				}
				if faults++; t.Failed() || faults > 1000 {
					t.Fatalf("fault at call %d", at)
				}
			}
			t.Logf("%d calls of the device, a fault at each of them", calls)
			if faults < 40 {
				t.Errorf("only %d faults", faults)
			}
		})
	}
}

// model is what an engram must hold: the bytes of the newest committed version.
type model struct {
	e      *Engram
	newest string
	lost   bool // by the device, and it was declared
}

func faultRun(t *testing.T, kind string, at int) (calls int, hit bool) {
	b := newBench(t)
	var mu sync.Mutex
	b.set(func(c emulated.Call) error {
		mu.Lock()
		defer mu.Unlock()
		calls++
		switch {
		case calls < at, kind == "once" && calls > at:
			return nil
		case kind == "lost":
			hit = true
			return tier.ErrDeviceLost
		}
		hit = true
		return errBroken
	})
	m, err := NewManager(ManagerConfig{Batch: 2})
	if err != nil {
		t.Fatal(err)
	}
	var models []*model
	for i := range 3 {
		e := b.engram(fmt.Sprintf("seed %d", i))
		m.Register(e)
		models = append(models, &model{e: e, newest: fmt.Sprintf("seed %d", i)})
	}
	for round := range 2 {
		for _, x := range models {
			x.work(t, b, round)
			x.check(t, b, at)
		}
		_ = m.SyncAll(t.Context())
		for _, x := range models {
			x.check(t, b, at)
		}
	}
	b.set(nil)
	if _, _, err := b.dev.Memory(); errors.Is(err, tier.ErrDeviceLost) {
		lost := m.DeviceLost(nil)
		for i, x := range models {
			x.lost = strings.Contains(fmt.Sprint(lost), fmt.Sprint(i+1))
			if x.lost != (x.e.State() == Gone) {
				t.Errorf("fault at %d: engram %d: lost %v, %s", at, i+1, lost, x.e.State())
			}
			if !x.lost {
				x.check(t, b, at)
			}
		}
		return calls, hit
	}
	// The device works again: everything can be brought to host.
	for _, x := range models {
		if err := x.e.Release(t.Context()); err != nil {
			t.Errorf("fault at %d: release: %v", at, err)
		}
		x.check(t, b, at)
		if x.e.State() != HostOnly {
			t.Errorf("fault at %d: %s", at, x.e.State())
		}
	}
	b.empty()
	return calls, hit
}

// work is a little of everything. A write that is acknowledged is the newest from
// then on; all other errors must have changed nothing.
func (x *model) work(t *testing.T, b *bench, round int) {
	ctx, e := t.Context(), x.e
	put := func(s string, v Version, err error) {
		if err == nil {
			x.newest = s
		} else if v != 0 {
			t.Errorf("version %d with %v", v, err)
		}
	}
	host := func(s string) {
		v, err := e.WriteHost(ctx, func([]byte) ([]byte, error) { return []byte(s), nil })
		put(s, v, err)
	}
	device := func(s string) {
		v, err := e.ReplaceDevice(ctx, int64(len(s)), b.write(s))
		put(s, v, err)
	}
	_ = e.Upload(ctx)
	host(fmt.Sprintf("host %d", round))
	_ = e.Sync(ctx)
	device(fmt.Sprintf("a longer device %d", round))
	v, err := e.WriteDevice(ctx, b.write(fmt.Sprintf("in place %d    ", round))) // on a copy, then in place
	if err == nil {
		p := strings.Repeat(fmt.Sprintf("in place %d    ", round), 9)[:len(x.newest)]
		put(p, v, err)
	}
	_ = e.Sync(ctx)
	if s := e.State(); s == Synced {
		v, err := e.WriteDevice(ctx, b.write("synced"))
		if err == nil {
			put(strings.Repeat("synced", 9)[:len(x.newest)], v, err)
		}
	}
	_, _ = e.CheckDevice(ctx)
	if round == 0 {
		_ = e.Release(ctx)
	}
	host(fmt.Sprintf("after %d", round))
}

// check reads the newest version from wherever it is; the hook does not see it.
func (x *model) check(t *testing.T, b *bench, at int) {
	t.Helper()
	got := "nowhere"
	switch x.e.State() {
	case HostOnly, Synced, HostDirty:
		p, _, err := x.e.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		got = string(p)
	case DeviceOnly, DeviceDirty:
		b.mu.Lock()
		hook := b.hook
		b.hook = nil
		b.mu.Unlock()
		defer b.set(hook)
		x.e.mu.Lock()
		held := x.e.device
		x.e.mu.Unlock()
		p := make([]byte, held.size)
		if err := b.mem.CopyOut(t.Context(), p, held.addr); errors.Is(err, tier.ErrDeviceLost) {
			return // nobody can look any more, and it will be declared lost
		} else if err != nil {
			t.Fatal(err)
		}
		got = string(p)
	}
	if got != x.newest {
		t.Errorf("fault at call %d: the newest is %q, want %q (%s)", at, got, x.newest, x.e.State())
	}
}

// TestContextEnds: who gives up on a copy gets ctx's error at once; the copy goes on, is
// not committed, and its memory is freed when it is over.
func TestContextEnds(t *testing.T) {
	for _, c := range []struct {
		op    emulated.Op
		setup []string
		run   func(context.Context, *bench, *Engram) error
		want  string
	}{
		{emulated.CopyIn, nil, func(ctx context.Context, _ *bench, e *Engram) error { return e.Upload(ctx) }, `host-only 1 "seed" "-"`},
		{emulated.CopyIn, []string{"upload", "host grow"}, func(ctx context.Context, _ *bench, e *Engram) error { return e.Sync(ctx) },
			`host-dirty 2 "a longer host" "seed"`},
		{emulated.CopyOut, []string{"upload", "device write"}, func(ctx context.Context, _ *bench, e *Engram) error { return e.Download(ctx) },
			`device-dirty 2 "seed" "card"`},
		{emulated.CopyOut, []string{"upload", "device write"}, func(ctx context.Context, _ *bench, e *Engram) error { return e.Release(ctx) },
			`device-dirty 2 "seed" "card"`},
		{emulated.CopyDevice, []string{"upload", "device write"}, func(ctx context.Context, b *bench, e *Engram) error {
			_, err := e.WriteDevice(ctx, b.write("never"))
			return err
		}, `device-dirty 2 "seed" "card"`},
		{emulated.CopyOut, []string{"upload"}, func(ctx context.Context, _ *bench, e *Engram) error {
			_, err := e.CheckDevice(ctx)
			return err
		}, `synced 1 "seed" "seed"`},
		{emulated.CopyIn, []string{"upload", "host write"}, func(ctx context.Context, _ *bench, e *Engram) error {
			m, err := NewManager(ManagerConfig{})
			m.Register(e)
			return errors.Join(err, m.SyncAll(ctx))
		}, `host-dirty 2 "host" "seed"`},
	} {
		t.Run(fmt.Sprint(c.op, c.setup), func(t *testing.T) {
			b := newBench(t)
			e := b.engram("seed")
			b.run(e, c.setup...)
			before := b.used()
			ctx, cancel := context.WithCancel(t.Context())
			gate := make(chan struct{})
			b.set(func(call emulated.Call) error {
				if isCopy(call, c.op) && call.Queued {
					cancel()
					<-gate
				}
				return nil
			})
			if err := c.run(ctx, b, e); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want context.Canceled", err)
			}
			b.set(nil)
			if e.mirror.InFlight() {
				t.Error("something is in flight")
			}
			close(gate)
			// The memory is freed when the copy is over, which Close waits for.
			if err := b.mem.Close(); err != nil {
				t.Error(err)
			}
			if used := b.used(); used != before {
				t.Errorf("%d bytes are allocated, before it were %d", used, before)
			}
			var err error
			if b.mem, err = NewMemory(b.dev); err != nil {
				t.Fatal(err)
			}
			b.want(e, c.want)
			if _, err := e.Discard(Device); err != nil {
				t.Error(err)
			}
			b.empty()
		})
	}
}

func TestContextEndedBefore(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"upload": e.Upload(ctx), "copy in": b.mem.CopyIn(ctx, 1, nil), "copy out": b.mem.CopyOut(ctx, nil, 1),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := e.WriteDevice(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("write: %v", err)
	}
	b.want(e, `host-only 1 "seed" "-"`)
	b.empty()
}

func TestMemoryClosed(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	if err := errors.Join(b.mem.Close(), b.mem.Close()); err != nil {
		t.Error(err)
	}
	if err := e.Upload(t.Context()); !errors.Is(err, tier.ErrClosed) {
		t.Errorf("upload: %v, want ErrClosed", err)
	}
	b.empty()
	for _, n := range []int{1, 2} { // the first or the second stream
		at := 0
		b.set(func(c emulated.Call) error {
			if c.Op == emulated.NewStream {
				if at++; at == n {
					return errBroken
				}
			}
			return nil
		})
		if _, err := NewMemory(b.dev); !errors.Is(err, errBroken) {
			t.Errorf("stream %d cannot be opened: %v", n, err)
		}
	}
}

// TestOutOfMemory: nothing changes, and what is there stays.
func TestOutOfMemory(t *testing.T) {
	b := newBench(t)
	e := b.engram(strings.Repeat("x", deviceMemory/2+1))
	b.run(e, "upload")
	if _, err := e.WriteHost(t.Context(), func(p []byte) ([]byte, error) { p[0] = 'y'; return p, nil }); err != nil {
		t.Fatal(err)
	}
	if err := e.Sync(t.Context()); !errors.Is(err, vram.ErrOutOfMemory) || e.State() != HostDirty {
		t.Errorf("%v, %s", err, e.State())
	}
	b.run(e, "release")
	b.run(e, "upload")
	p, err := e.Pin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.WriteDevice(t.Context(), b.write("z")); !errors.Is(err, vram.ErrOutOfMemory) || e.State() != Synced {
		t.Errorf("%v, %s", err, e.State())
	}
	if err := p.Unpin(); err != nil {
		t.Error(err)
	}
	b.run(e, "release")
	b.empty()
}

// TestWriteThatPanics: the panic is the caller's, and the engram goes on.
func TestWriteThatPanics(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	b.run(e, "upload", "device write", "sync", "device write")
	panics := func(write func()) (p any) {
		defer func() { p = recover() }()
		write()
		return nil
	}
	if p := panics(func() {
		_, _ = e.WriteDevice(t.Context(), func(vram.Addr, int64) error { panic("in a kernel") })
	}); p != "in a kernel" {
		t.Errorf("the panic became %v", p)
	}
	b.want(e, `device-dirty 3 "card" "card"`)
	b.run(e, "sync")
	if p := panics(func() {
		_, _ = e.WriteHost(t.Context(), func([]byte) ([]byte, error) { panic("on host") })
	}); p != "on host" {
		t.Errorf("the panic became %v", p)
	}
	b.want(e, `synced 3 "card" "card"`)
	b.run(e, "host write", "sync", "device write", "release")
	b.want(e, `host-only 5 "card" "-"`)
	b.empty()
}

// TestParallel: many goroutines do everything to a few engrams. What a write has
// returned as its version is checked at the end, and every read sees one version whole.
func TestParallel(t *testing.T) {
	b := newBench(t)
	m, err := NewManager(ManagerConfig{Batch: 3})
	if err != nil {
		t.Fatal(err)
	}
	var all []*Engram
	for range 4 {
		e := b.engram(strings.Repeat("a", 300))
		all = append(all, e)
		m.Register(e)
	}
	whole := func(p []byte) error {
		for _, c := range p {
			if c != p[0] {
				t.Errorf("a torn read: %q", p)
				break
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 60 {
				e := all[(g+i)%len(all)]
				letter := string(rune('a' + (g*7+i)%26))
				var err error
				switch (g + i) % 9 {
				case 0:
					err = e.Upload(t.Context())
				case 1:
					err = e.Sync(t.Context())
				case 2:
					_, err = e.WriteHost(t.Context(), func(p []byte) ([]byte, error) {
						return []byte(strings.Repeat(letter, 200+i)), nil
					})
				case 3:
					_, err = e.WriteDevice(t.Context(), b.write(letter))
				case 4:
					err = e.ReadHost(whole)
				case 5:
					var p *Pin
					if p, err = e.Pin(t.Context()); err == nil {
						got := make([]byte, p.Size())
						err = errors.Join(b.mem.CopyOut(t.Context(), got, p.Addr()), whole(got), p.Unpin())
					}
				case 6:
					_, err = e.CheckDevice(t.Context())
				case 7:
					err = m.SyncAll(t.Context())
				case 8:
					err = e.Release(t.Context())
				}
				for _, ok := range []error{nil, ErrConflict, ErrStale, ErrNoCopy} {
					if err == nil || ok != nil && errors.Is(err, ok) {
						err = nil
					}
				}
				if err != nil {
					t.Errorf("operation %d: %v", (g+i)%9, err)
				}
			}
		})
	}
	wg.Wait()
	for _, e := range all {
		if err := e.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if err := e.ReadHost(whole); err != nil {
			t.Error(err)
		}
	}
	b.empty()
}
