package tiertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"cairn/block"
	"cairn/tier"
)

// The stores below each break one promise of package tier. The suite must
// refuse every one of them, or it proves nothing about the others.

type silentEviction struct{ tier.Memory }

func (b silentEviction) Put(ctx context.Context, d block.Descriptor, src []byte) ([]block.Key, error) {
	_, err := b.Memory.Put(ctx, d, src)
	return nil, err
}

type falseEviction struct{ tier.Memory }

func (b falseEviction) Put(ctx context.Context, d block.Descriptor, src []byte) ([]block.Key, error) {
	evicted, err := b.Memory.Put(ctx, d, src)
	if len(evicted) > 0 {
		b.Memory.All(func(other block.Descriptor) bool {
			evicted = append(evicted, other.Key)
			return false
		})
	}
	return evicted, err
}

// reserveEvictsSilently reports what Put evicts, not what Reserve does.
type reserveEvictsSilently struct{ tier.Memory }

func (b reserveEvictsSilently) Reserve(ctx context.Context, n int) (tier.Reservation, []block.Key, error) {
	r, _, err := b.Memory.Reserve(ctx, n)
	return r, nil, err
}

type wrongBytes struct{ tier.Memory }

func (b wrongBytes) Get(ctx context.Context, key block.Key, dst []byte) (block.Descriptor, error) {
	d, err := b.Memory.Get(ctx, key, dst)
	if err == nil && d.Length > 64<<10 {
		dst[64<<10] ^= 1
	}
	return d, err
}

type writesBeyond struct{ tier.Memory }

func (b writesBeyond) Get(ctx context.Context, key block.Key, dst []byte) (block.Descriptor, error) {
	d, err := b.Memory.Get(ctx, key, dst)
	if err == nil {
		clear(dst[d.Length:])
	}
	return d, err
}

type noConflict struct{ tier.Memory }

func (b noConflict) Put(ctx context.Context, d block.Descriptor, src []byte) ([]block.Key, error) {
	evicted, err := b.Memory.Put(ctx, d, src)
	if errors.Is(err, tier.ErrConflict) {
		err = tier.ErrExists
	}
	return evicted, err
}

type ignoresPins struct{ tier.Memory }

func (b ignoresPins) Pin(key block.Key) error {
	if _, ok := b.Stat(key); !ok {
		return tier.ErrNotFound
	}
	return nil
}

// leaksOnExists forgets the slot of a Commit that meets ErrExists.
type leaksOnExists struct{ tier.Memory }

func (b leaksOnExists) Reserve(ctx context.Context, n int) (tier.Reservation, []block.Key, error) {
	r, evicted, err := b.Memory.Reserve(ctx, n)
	return leakingReservation{r, b}, evicted, err
}

type leakingReservation struct {
	tier.Reservation
	store tier.Memory
}

func (r leakingReservation) Commit(d block.Descriptor, pins int) error {
	if held, ok := r.store.Stat(d.Key); ok {
		if held.Sum == d.Sum {
			return tier.ErrExists
		}
		return tier.ErrConflict
	}
	return r.Reservation.Commit(d, pins)
}

type commitForgetsPins struct{ tier.Memory }

func (b commitForgetsPins) Reserve(ctx context.Context, n int) (tier.Reservation, []block.Key, error) {
	r, evicted, err := b.Memory.Reserve(ctx, n)
	return pinlessReservation{r}, evicted, err
}

type pinlessReservation struct{ tier.Reservation }

func (r pinlessReservation) Commit(d block.Descriptor, _ int) error {
	return r.Reservation.Commit(d, 0)
}

// reusesViewed overwrites the bytes of an object on Delete, view or not.
type reusesViewed struct{ tier.Memory }

func (b reusesViewed) Delete(key block.Key) bool {
	v, err := b.View(key)
	if err == nil {
		clear(v.Bytes)
		v.Release()
	}
	return b.Memory.Delete(key)
}

type openAfterClose struct{ tier.Memory }

func (b openAfterClose) Get(ctx context.Context, key block.Key, dst []byte) (block.Descriptor, error) {
	d, err := b.Memory.Get(ctx, key, dst)
	if errors.Is(err, tier.ErrClosed) {
		err = tier.ErrNotFound
	}
	return d, err
}

type miscounts struct{ tier.Memory }

func (b miscounts) Stats() tier.Stats {
	s := b.Memory.Stats()
	s.Hits += s.Misses
	return s
}

// racy reports an eviction twice when two calls evict in a row.
type racy struct {
	tier.Memory
	mu   *sync.Mutex
	last *[]block.Key
}

func (b racy) Put(ctx context.Context, d block.Descriptor, src []byte) ([]block.Key, error) {
	evicted, err := b.Memory.Put(ctx, d, src)
	b.mu.Lock()
	defer b.mu.Unlock()
	evicted = append(evicted, *b.last...)
	if len(*b.last) == 0 {
		*b.last = slices.Clone(evicted)
	} else {
		*b.last = nil
	}
	return evicted, err
}

func TestSuiteRefuses(t *testing.T) {
	for _, wrap := range []func(tier.Memory) tier.Store{
		func(m tier.Memory) tier.Store { return silentEviction{m} },
		func(m tier.Memory) tier.Store { return falseEviction{m} },
		func(m tier.Memory) tier.Store { return reserveEvictsSilently{m} },
		func(m tier.Memory) tier.Store { return wrongBytes{m} },
		func(m tier.Memory) tier.Store { return writesBeyond{m} },
		func(m tier.Memory) tier.Store { return noConflict{m} },
		func(m tier.Memory) tier.Store { return ignoresPins{m} },
		func(m tier.Memory) tier.Store { return leaksOnExists{m} },
		func(m tier.Memory) tier.Store { return commitForgetsPins{m} },
		func(m tier.Memory) tier.Store { return reusesViewed{m} },
		func(m tier.Memory) tier.Store { return openAfterClose{m} },
		func(m tier.Memory) tier.Store { return miscounts{m} },
		func(m tier.Memory) tier.Store { return racy{m, &sync.Mutex{}, new([]block.Key)} },
	} {
		t.Run(fmt.Sprintf("%T", wrap(nil)), func(t *testing.T) {
			cfg := Config{Open: func(_ testing.TB, o Options) tier.Store { return wrap(openReference(o)) }}
			for _, c := range cases {
				if runFake(t, cfg, c) {
					t.Logf("refused by %s", c.name)
					return
				}
			}
			t.Error("every case passed")
		})
	}
	if runFake(t, Config{Open: func(_ testing.TB, o Options) tier.Store { return openReference(o) }}, cases[0]) {
		t.Error("a store without faults was refused")
	}
}

// runFake runs one case and tells whether it failed, without failing t.
func runFake(t *testing.T, cfg Config, c testCase) bool {
	f := &fakeTB{TB: t}
	done := make(chan struct{})
	go func() { // of its own, because FailNow ends the goroutine
		defer close(done)
		defer f.cleanup()
		c.run(newSuite(f, cfg))
	}()
	<-done
	return f.Failed()
}

// fakeTB takes what a case reports in place of the real test.
type fakeTB struct {
	testing.TB

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

func (f *fakeTB) Fail() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = true
}

func (f *fakeTB) Failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *fakeTB) FailNow() {
	f.Fail()
	runtime.Goexit()
}

func (f *fakeTB) Error(...any)          { f.Fail() }
func (f *fakeTB) Errorf(string, ...any) { f.Fail() }
func (f *fakeTB) Fatal(...any)          { f.FailNow() }
func (f *fakeTB) Fatalf(string, ...any) { f.FailNow() }
func (f *fakeTB) Log(...any)            {}
func (f *fakeTB) Logf(string, ...any)   {}
func (f *fakeTB) Helper()               {}
func (f *fakeTB) Cleanup(g func())      { f.cleanups = append(f.cleanups, g) }

func (f *fakeTB) cleanup() {
	for _, g := range slices.Backward(f.cleanups) {
		g()
	}
}
