package vram_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"testing"

	"cairn/block"
	"cairn/eviction"
	"cairn/tier"
	"cairn/tier/tiertest"
	"cairn/vram"
	"cairn/vram/emulated"
)

const kib = 1 << 10

// open opens a pool on a device of its own, which lives as long as the test.
func open(t testing.TB, cfg vram.Config, hook func(emulated.Call) error) *vram.Pool {
	t.Helper()
	dev, err := emulated.New(emulated.Config{Memory: cfg.Capacity, Hook: hook})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close the device: %v", err)
		}
	})
	p, err := vram.Open(dev, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the pool: %v", err)
		}
	})
	return p
}

func TestConformance(t *testing.T) {
	for name, cfg := range map[string]vram.Config{
		"one class":     {Classes: []int{64 * kib}},
		"three classes": {Classes: []int{256 * kib, 16 * kib, 64 * kib}},
		"one stream":    {Classes: []int{16 * kib, 128 * kib}, Streams: 1},
		"by value":      {Classes: []int{16 * kib, 64 * kib}, Eviction: eviction.KindHazard},
	} {
		t.Run(name, func(t *testing.T) {
			suite := tiertest.Config{MaxObject: slices.Max(cfg.Classes)}
			suite.Open = func(t testing.TB, o tiertest.Options) tier.Store {
				cfg.Capacity = o.Capacity
				return open(t, cfg, nil)
			}
			tiertest.Run(t, suite)
		})
	}
}

func object(i, n int) (block.Descriptor, []byte) {
	p := make([]byte, n)
	for j := range p {
		p[j] = byte(i*31 + j*7 + j>>8)
	}
	return block.Describe(key(i), block.Key{}, p), p
}

func key(i int) block.Key { return block.Key{byte(i >> 16), byte(i >> 8), byte(i), 15: 1} }

func put(t testing.TB, p *vram.Pool, i, n int) []block.Key {
	t.Helper()
	d, src := object(i, n)
	evicted, err := p.Put(context.Background(), d, src)
	if err != nil {
		t.Fatalf("Put of object %d: %v", i, err)
	}
	return evicted
}

func TestValidate(t *testing.T) {
	for name, cfg := range map[string]vram.Config{
		"no classes":         {Classes: []int{}},
		"odd class":          {Classes: []int{1000}},
		"negative class":     {Classes: []int{-4096}},
		"huge class":         {Classes: []int{block.MaxLength + 4096}},
		"class twice":        {Classes: []int{4096, 4096}},
		"negative capacity":  {Capacity: -1},
		"small capacity":     {Capacity: 4096},
		"capacity under run": {Capacity: 1 << 20, Classes: []int{4096}, RunSize: 2 << 20},
		"fraction":           {Fraction: 1.5},
		"negative fraction":  {Fraction: -0.5},
		"no number":          {Fraction: math.NaN()},
		"run under class":    {RunSize: 1 << 20},
		"odd run":            {Classes: []int{4096}, RunSize: 5000},
		"streams":            {Streams: -1},
		"many streams":       {Streams: vram.MaxStreams + 1},
	} {
		if cfg.Validate() == nil {
			t.Errorf("%s: %+v is valid", name, cfg)
		}
	}
	err := vram.Config{Fraction: 2, Streams: -1}.Validate()
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 2 {
		t.Errorf("two problems were reported as %v", err)
	}
	if err := (vram.Config{}).Validate(); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
}

func TestOpenDefaults(t *testing.T) {
	dev, err := emulated.New(emulated.Config{Memory: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	p, err := vram.Open(dev, vram.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Stats().Capacity; got > 9<<30/10 || got < 8<<30/10 {
		t.Errorf("the pool takes %d bytes of 1 GiB, want a little under 0.9", got)
	}
	if _, err := vram.Open(dev, vram.Config{Capacity: 512 << 20}); !errors.Is(err, vram.ErrOutOfMemory) {
		t.Errorf("a second pool of half the device gave %v, want ErrOutOfMemory", err)
	}
	small, err := vram.Open(dev, vram.Config{Classes: []int{64 * kib}})
	if err != nil {
		t.Fatalf("a pool in the rest of the device: %v", err)
	}
	if err := errors.Join(small.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if free, total, err := dev.Memory(); err != nil || free != total {
		t.Errorf("after Close %d of %d bytes are free, %v", free, total, err)
	}
}

func TestOpenOnTooSmallDevice(t *testing.T) {
	dev, err := emulated.New(emulated.Config{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if _, err := vram.Open(dev, vram.Config{}); err == nil {
		t.Error("a pool opened on a device that is smaller than its largest slot")
	}
}

// TestLeastRecentlyUsed: a Get and a Map are uses, a Stat is none.
func TestLeastRecentlyUsed(t *testing.T) {
	p := open(t, vram.Config{Capacity: 4 * 64 * kib, Classes: []int{64 * kib}}, nil)
	for i := range 4 {
		put(t, p, i, 64*kib)
	}
	if _, err := p.Get(context.Background(), key(0), make([]byte, 64*kib)); err != nil {
		t.Fatal(err)
	}
	v, err := p.Map(key(1))
	if err != nil {
		t.Fatal(err)
	}
	v.Release()
	p.Stat(key(2))
	for i, want := range []int{2, 3, 0, 1} {
		if evicted := put(t, p, 10+i, 64*kib); len(evicted) != 1 || evicted[0] != key(want) {
			t.Errorf("Put %d evicted %v, want object %d", i, evicted, want)
		}
	}
}

// putChild puts object i as the child of object parent.
func putChild(t testing.TB, p *vram.Pool, i, parent int) []block.Key {
	t.Helper()
	d, src := object(i, 100)
	d.Parent = key(parent)
	evicted, err := p.Put(context.Background(), d, src)
	if err != nil {
		t.Fatalf("Put of object %d: %v", i, err)
	}
	return evicted
}

// TestLeavesBeforeParents: a sequence goes from its end to its beginning, though
// its beginning was used first.
func TestLeavesBeforeParents(t *testing.T) {
	const n = 2000
	p := open(t, vram.Config{Capacity: n * 4 * kib, Classes: []int{4 * kib}}, nil)
	put(t, p, 1, 100)
	for i := 2; i <= n; i++ {
		putChild(t, p, i, i-1)
	}
	for i := range n - 1 {
		evicted := put(t, p, 10_000+i, 100)
		if want := key(n - i); len(evicted) != 1 || evicted[0] != want {
			t.Fatalf("Put %d evicted %v, want %v, the end of the sequence", i, evicted, want)
		}
	}
}

// TestUsedParentStays: a beginning that is in use itself outlives its last child.
func TestUsedParentStays(t *testing.T) {
	p := open(t, vram.Config{Capacity: 4 * 64 * kib, Classes: []int{64 * kib}}, nil)
	put(t, p, 1, 100)
	putChild(t, p, 2, 1)
	put(t, p, 3, 100)
	put(t, p, 4, 100)
	for i, want := range []int{2, 3, 4} {
		if _, err := p.Get(context.Background(), key(1), make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if evicted := put(t, p, 10+i, 100); len(evicted) != 1 || evicted[0] != key(want) {
			t.Errorf("Put %d evicted %v, want object %d", i, evicted, want)
		}
	}
}

// TestHintsDecide: of objects used nearly as long ago one that has a copy goes, and one
// that is needed stays.
func TestHintsDecide(t *testing.T) {
	p := open(t, vram.Config{Capacity: 4 * 64 * kib, Classes: []int{64 * kib}}, nil)
	said := map[block.Key]tier.Hint{key(0): tier.Needed, key(2): tier.Copied}
	p.Advise(func(k block.Key) tier.Hint { return said[k] })
	for i := range 4 {
		put(t, p, i, 100)
	}
	for i, want := range []int{2, 1, 3} {
		if evicted := put(t, p, 10+i, 100); len(evicted) != 1 || evicted[0] != key(want) {
			t.Errorf("Put %d evicted %v, want object %d", i, evicted, want)
		}
	}
}

func TestParentGoesWhenLeafIsPinned(t *testing.T) {
	p := open(t, vram.Config{Capacity: 2 * 64 * kib, Classes: []int{64 * kib}}, nil)
	put(t, p, 0, 1)
	d, src := object(1, 1)
	d.Parent = key(0)
	if _, err := p.Put(context.Background(), d, src); err != nil {
		t.Fatal(err)
	}
	if err := p.Pin(key(1)); err != nil {
		t.Fatal(err)
	}
	if evicted := put(t, p, 2, 1); len(evicted) != 1 || evicted[0] != key(0) {
		t.Errorf("evicted %v, want the parent", evicted)
	}
}

// TestRoomFollowsUse: the arena goes over from one size to another and back, and
// what is hot stays.
func TestRoomFollowsUse(t *testing.T) {
	const run = 256 * kib
	p := open(t, vram.Config{Capacity: 8 * run, Classes: []int{64 * kib, run}, RunSize: run}, nil)
	for i := range 32 {
		put(t, p, i, 64*kib)
	}
	hot := func() {
		t.Helper()
		for i := range 4 { // one run of small objects
			if _, err := p.Get(context.Background(), key(i), make([]byte, 64*kib)); err != nil {
				t.Fatalf("a hot object: %v", err)
			}
		}
	}
	for i := range 30 {
		hot()
		put(t, p, 100+i, run)
	}
	hot()
	if s := p.Stats(); s.Objects != 4+7 || s.Used != s.Capacity {
		t.Errorf("%d objects use %d of %d bytes, want four small and seven large", s.Objects, s.Used, s.Capacity)
	}
	for i := range 80 {
		put(t, p, 200+i, 64*kib)
	}
	if s := p.Stats(); s.Objects != 32 {
		t.Errorf("%d objects, want 32 small ones", s.Objects)
	}
}

// TestHotObjectsDoNotHoldRuns: a class whose runs each hold one object in use
// and else what nobody wants makes room for the class that is in use.
func TestHotObjectsDoNotHoldRuns(t *testing.T) {
	const run = 256 * kib
	p := open(t, vram.Config{Capacity: 8 * run, Classes: []int{64 * kib, run}, RunSize: run}, nil)
	for i := range 32 {
		put(t, p, i, 64*kib)
	}
	for round := range 50 {
		for i := 0; i < 32; i += 4 {
			if _, err := p.Get(context.Background(), key(i), make([]byte, 64*kib)); err != nil {
				put(t, p, i, 64*kib)
			}
		}
		put(t, p, 100+round, run)
	}
	large := 0
	p.All(func(d block.Descriptor) bool {
		if d.Length == run {
			large++
		}
		return true
	})
	if large < 5 {
		t.Errorf("%d large objects fit, want most of the arena", large)
	}
}

// TestMap: the address is where the bytes are, and they stay while the object is
// deleted and the pool is full.
func TestMap(t *testing.T) {
	dev, err := emulated.New(emulated.Config{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	p, err := vram.Open(dev, vram.Config{Capacity: 4 * 64 * kib, Classes: []int{64 * kib}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := dev.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	d, _ := object(1, 5000)
	put(t, p, 1, 5000)
	v, err := p.Map(d.Key)
	if err != nil || v.Descriptor != d {
		t.Fatalf("Map = %+v, %v", v, err)
	}
	if s := p.Stats(); s.Pinned != 1 || s.Hits != 1 {
		t.Errorf("a view is not counted: %+v", s)
	}
	if !p.Delete(d.Key) {
		t.Fatal("Delete found nothing")
	}
	for i := range 12 {
		put(t, p, 10+i, 64*kib)
	}
	if s := p.Stats(); s.Objects != 3 {
		t.Errorf("%d objects beside the view of a deleted one, want 3", s.Objects)
	}
	got := make([]byte, v.Length)
	if err := errors.Join(s.CopyOut(got, v.Addr), s.Synchronize()); err != nil || !d.Matches(got) {
		t.Errorf("the bytes at the view's address changed: %v", err)
	}

	closed := make(chan error)
	go func() { closed <- p.Close() }()
	for !errors.Is(p.Pin(key(0)), tier.ErrClosed) {
		runtime.Gosched()
	}
	select {
	case <-closed:
		t.Error("Close did not wait for the view")
	default:
	}
	if err := errors.Join(s.CopyOut(got, v.Addr), s.Synchronize()); err != nil || !d.Matches(got) {
		t.Errorf("the bytes of a view changed in Close: %v", err)
	}
	v.Release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	vram.DeviceView{}.Release()
	if _, err := p.Map(d.Key); !errors.Is(err, tier.ErrClosed) {
		t.Errorf("Map after Close gave %v", err)
	}
}

// TestInvisibleUntilCopied: nobody finds an object before the event behind its
// copy has completed.
func TestInvisibleUntilCopied(t *testing.T) {
	for _, op := range []emulated.Op{emulated.CopyIn, emulated.Record} {
		reached, gate := make(chan struct{}), make(chan struct{})
		p := open(t, vram.Config{Capacity: 1 << 20, Classes: []int{64 * kib}}, func(c emulated.Call) error {
			if c.Op == op && c.Queued {
				reached <- struct{}{}
				<-gate
			}
			return nil
		})
		done := make(chan error)
		d, src := object(1, 64*kib)
		go func() {
			_, err := p.Put(context.Background(), d, src)
			done <- err
		}()
		<-reached
		if _, ok := p.Stat(d.Key); ok {
			t.Error("Stat finds an object whose copy is under way")
		}
		if _, err := p.Get(context.Background(), d.Key, src); !errors.Is(err, tier.ErrNotFound) {
			t.Errorf("Get of an object whose copy is under way gave %v", err)
		}
		close(gate)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, ok := p.Stat(d.Key); !ok {
			t.Error("the object is not there after its copy")
		}
		p.Delete(d.Key)
		go func() { // let later events pass
			for range reached {
			}
		}()
		t.Cleanup(func() { close(reached) })
	}
}
