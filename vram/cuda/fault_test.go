//go:build cuda && cgo

package cuda_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"cairn/block"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/cuda"
	"cairn/vram/cuda/driver"
	"cairn/vram/cuda/fakedriver"
)

// errInjected is an error that leaves the device as it was: CUDA_ERROR_OPERATING_SYSTEM.
const errInjected = driver.Result(304)

const (
	slots    = 4
	slotSize = 64 * kib
)

func object(i, n int) (block.Descriptor, []byte) {
	p := make([]byte, n)
	for j := range p {
		p[j] = byte(i*31 + j*7 + j>>8)
	}
	return block.Describe(key(i), block.Key{}, p), p
}

func key(i int) block.Key { return block.Key{byte(i >> 16), byte(i >> 8), byte(i), 15: 1} }

// mapped is n bytes outside the Go heap, until the test ends.
func mapped(t testing.TB, n int) []byte {
	t.Helper()
	p, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(p); err != nil {
			t.Error(err)
		}
	})
	return p
}

// work is one run of a workload: everything that a node does with a device.
type work struct {
	t     *testing.T
	arena []byte // host memory; registered while the device is open
	held  map[block.Key][]byte
	// broken counts the operations that gave errInjected.
	broken int
	lost   bool
}

// failed sorts an operation's error. It is true when there was one.
func (w *work) failed(what string, err error) bool {
	w.t.Helper()
	switch {
	case err == nil:
		return false
	case errors.Is(err, tier.ErrDeviceLost):
		w.lost = true
	case w.lost:
		w.t.Errorf("%s on a lost device gave %v", what, err)
	case errors.Is(err, errInjected), errors.Is(err, vram.ErrOutOfMemory):
		w.broken++
	default:
		w.t.Errorf("%s gave %v", what, err)
	}
	return true
}

// run opens everything, works, and closes everything. What fails on the way is closed as well.
func (w *work) run() {
	dev, err := cuda.Open(cuda.Config{RegisterChunk: int64(len(w.arena) / 2)})
	if err != nil {
		if !errors.Is(err, errInjected) && !errors.Is(err, tier.ErrDeviceLost) && !errors.Is(err, driver.Result(fakedriver.IllegalAddress)) {
			w.t.Errorf("Open gave %v", err)
		}
		return
	}
	defer func() {
		if err := dev.Close(); err != nil {
			w.t.Errorf("Close: %v", err)
		}
	}()
	registered := !w.failed("Register", dev.Register(w.arena))
	if w.lost {
		return
	}
	p, err := vram.Open(dev, vram.Config{Capacity: slots * slotSize, Classes: []int{slotSize}, Streams: 1})
	if w.failed("Open of the pool", err) {
		return
	}
	defer func() { w.failed("Close of the pool", p.Close()) }()
	w.onDevice(dev)
	for i := 0; i < 6 && !w.lost; i++ {
		w.puts(p, i)
		w.reads(p)
		if i%3 == 2 {
			w.remove(p, key(i))
		}
	}
	if w.lost {
		w.checkLost(dev, p)
		return
	}
	w.checkNoLeak(p)
	if registered {
		w.failed("Unregister", dev.Unregister(w.arena))
	}
}

// onDevice copies bytes around on the device: if no call says otherwise they arrive.
func (w *work) onDevice(dev *cuda.Device) {
	const n = 20_000
	a, err := dev.Alloc(2 * n)
	if w.failed("Alloc", err) {
		return
	}
	s, err := dev.NewStream()
	if w.failed("NewStream", err) {
		return
	}
	_, want := object(99, n)
	got := make([]byte, n)
	queued := errors.Join(s.CopyIn(a, want), s.CopyDevice(a+n, a, n), s.CopyOut(got, a+n))
	if !w.failed("copies", errors.Join(queued, s.Synchronize())) && !bytes.Equal(got, want) {
		w.t.Error("bytes came back changed")
	}
	if err := s.Close(); err != nil {
		w.t.Errorf("Close of a stream: %v", err)
	}
	if !w.lost {
		w.failed("Free", dev.Free(a))
	}
}

// puts puts one object from the Go heap and two in a batch from the arena.
func (w *work) puts(p *vram.Pool, i int) {
	d, src := object(i, 1000+i)
	evicted, err := p.Put(context.Background(), d, src)
	w.after(p, "Put", evicted, []tier.Item{{Descriptor: d, Bytes: src}}, []error{err})
	var items []tier.Item
	for j := range 2 {
		d, src := object(100+2*i+j, 30_000+i)
		place := w.arena[j*slotSize:][:len(src)]
		copy(place, src)
		items = append(items, tier.Item{Descriptor: d, Bytes: place})
	}
	evicted, errs := p.PutMany(context.Background(), items)
	w.after(p, "PutMany", evicted, items, errs)
}

// after brings the model up to date. Items of one call fail together.
func (w *work) after(p *vram.Pool, what string, evicted []block.Key, items []tier.Item, errs []error) {
	w.t.Helper()
	for _, k := range evicted {
		if w.held[k] == nil {
			w.t.Errorf("%s evicted %s, which was not there", what, k)
		}
		delete(w.held, k)
	}
	bad := w.failed(what, errs[0])
	for i, it := range items {
		if (errs[i] != nil) != bad {
			w.t.Errorf("%s gave %v", what, errs)
		}
		if !bad {
			w.held[it.Key] = bytes.Clone(it.Bytes)
		}
		if _, ok := p.Stat(it.Key); ok == bad {
			w.t.Errorf("%s gave %v, and Stat finds the object: %v", what, errs[i], ok)
		}
	}
}

// reads reads what the model holds, one by one to the Go heap, and then all to the arena.
func (w *work) reads(p *vram.Pool) {
	dst := make([]byte, slotSize)
	var items []tier.Item
	for k, want := range w.held {
		if w.lost {
			return
		}
		d, err := p.Get(context.Background(), k, dst)
		if !w.failed("Get", err) && !bytes.Equal(dst[:d.Length], want) {
			w.t.Errorf("wrong bytes for %s", k)
		}
		place := w.arena[len(items)*slotSize:][:slotSize]
		items = append(items, tier.Item{Descriptor: block.Descriptor{Key: k}, Bytes: place})
	}
	if len(items) == 0 || w.lost {
		return
	}
	errs := p.GetMany(context.Background(), items)
	if w.failed("GetMany", errs[0]) {
		return
	}
	for i, it := range items {
		if errs[i] != nil || !bytes.Equal(it.Bytes[:it.Length], w.held[it.Key]) {
			w.t.Errorf("wrong bytes for %s: %v", it.Key, errs[i])
		}
	}
}

func (w *work) remove(p *vram.Pool, k block.Key) {
	if w.lost {
		return
	}
	if p.Delete(k) != (w.held[k] != nil) {
		w.t.Errorf("Delete and the model disagree about %s", k)
	}
	delete(w.held, k)
}

// checkNoLeak empties the pool and fills every slot.
func (w *work) checkNoLeak(p *vram.Pool) {
	if got := p.Stats().Objects; got != int64(len(w.held)) {
		w.t.Errorf("%d objects, want %d", got, len(w.held))
	}
	for k := range w.held {
		w.remove(p, k)
	}
	if s := p.Stats(); s.Used != 0 || s.Bytes != 0 || s.Objects != 0 || s.Pinned != 0 {
		w.t.Errorf("an empty pool says %+v", s)
	}
	for i := 0; i < slots && !w.lost; {
		d, src := object(1000+i, slotSize)
		if _, err := p.Put(context.Background(), d, src); w.failed("Put", err) {
			continue // the error that was due
		}
		if err := p.Pin(d.Key); err != nil {
			w.t.Error(err)
		}
		i++
	}
	if w.lost {
		return
	}
	d, src := object(2000, 1)
	if _, err := p.Put(context.Background(), d, src); !errors.Is(err, tier.ErrFull) {
		w.t.Errorf("one more Put than there are slots gave %v, want ErrFull", err)
	}
}

// checkLost: every call says so, and nothing is there any more.
func (w *work) checkLost(dev *cuda.Device, p *vram.Pool) {
	d, src := object(1, 1000)
	_, put := p.Put(context.Background(), d, src)
	_, alloc := dev.Alloc(1)
	_, _, memory := dev.Memory()
	_, stream := dev.NewStream()
	for what, err := range map[string]error{"Put": put, "Alloc": alloc, "Memory": memory, "NewStream": stream, "Register": dev.Register(src)} {
		if !errors.Is(err, tier.ErrDeviceLost) {
			w.t.Errorf("%s on a lost device gave %v, want ErrDeviceLost", what, err)
		}
	}
	if s := p.Stats(); s.Objects != 0 || s.Bytes != 0 || s.Used != 0 || s.Pinned != 0 {
		// The pool learns of it by its own calls.
		w.t.Errorf("Stats of a lost device: %+v", s)
	}
}

// queuedCalls are those whose work can fail later, on the device.
var queuedCalls = []string{"cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpyDtoDAsync", "cuMemcpyBatchAsync", "cuEventRecord"}

// surfaces are the calls of copies' path: one that fails is one operation that fails.
var surfaces = append([]string{"cuEventCreate", "cuEventQuery", "cuEventSynchronize"}, queuedCalls...)

// TestFaultAtEveryCall lets every call of the driver that a workload makes fail, at every index: when it
// is asked for or when the device comes to it, once or for good. No committed byte is lost
// or wrong, no slot leaks, and nothing is left with the driver.
func TestFaultAtEveryCall(t *testing.T) {
	needFake(t)
	clean(t)
	arena := mapped(t, 8*slotSize)
	fake.Reset()
	released := holdFirstEvent()
	(&work{t: t, arena: arena, held: map[block.Key][]byte{}}).run()
	<-released
	var made []string
	for _, name := range fake.CallNames() {
		if fake.Calls(name) > 0 {
			made = append(made, name)
		}
	}
	for _, want := range append([]string{"cuMemAlloc", "cuStreamCreate", "cuCtxSetCurrent", "cuStreamSynchronize", "cuMemFree"}, surfaces...) {
		if !slices.Contains(made, want) {
			t.Errorf("the workload does not call %s", want)
		}
	}
	for _, name := range made {
		for _, sticky := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s sticky=%v", name, sticky), func(t *testing.T) { faults(t, arena, name, sticky, false) })
			if slices.Contains(queuedCalls, name) {
				t.Run(fmt.Sprintf("%s queued sticky=%v", name, sticky), func(t *testing.T) { faults(t, arena, name, sticky, true) })
			}
		}
	}
}

// holdFirstEvent keeps the workload's first event from being over before the driver has been asked about it, so
// that it is waited for by cuEventSynchronize, however fast the driver is. The channel is closed when that is done.
func holdFirstEvent() (released chan struct{}) {
	fake.Hold("cuEventRecord")
	released = make(chan struct{})
	go func() {
		defer close(released)
		asked(1)
		fake.Release()
	}()
	return released
}

// checkGivenBack: nothing is left with the driver. A lost device takes nothing back, so there it is
// enough that it was asked to release the context with all that is in it.
func checkGivenBack(t *testing.T, lost bool) {
	t.Helper()
	if !lost {
		checkLedger(t)
		return
	}
	if left := fake.Leaks(); left.Contexts > 0 && fake.Calls("cuDevicePrimaryCtxRelease") == 0 {
		t.Errorf("the driver was not asked to release the context, with %+v left", left)
	}
	for _, text := range fake.Misuse() {
		t.Errorf("the fake driver has seen a mistake: %s", text)
	}
	fake.Reset()
}

// faults runs the workload again and again, with the fault at the next index each time, until it does not
// occur any more.
func faults(t *testing.T, arena []byte, name string, sticky, queued bool) {
	code := int(errInjected)
	if sticky {
		code = fakedriver.IllegalAddress
	}
	for at := 1; ; at++ {
		fake.Reset()
		if queued {
			fake.FailQueued(name, at, code, sticky)
		} else {
			fake.Fail(name, at, code, sticky)
		}
		released := make(chan struct{})
		if name == "cuEventSynchronize" { // which is called for events that are not over yet
			released = holdFirstEvent()
			fake.Delay("cuEventRecord", 100*time.Microsecond)
		} else {
			close(released)
		}
		w := &work{t: t, arena: arena, held: map[block.Key][]byte{}}
		w.run()
		<-released
		over := fake.Pending() > 0
		checkGivenBack(t, sticky && !over)
		switch {
		case over && (w.broken != 0 || w.lost):
			t.Errorf("no fault at call %d, and %d errors, lost %v", at, w.broken, w.lost)
		case over:
			t.Logf("%d calls", at-1)
			return
		case !sticky && w.lost:
			t.Errorf("fault at call %d: the device is lost", at)
		case !sticky && slices.Contains(surfaces, name) && w.broken != 1, w.broken > 1:
			t.Errorf("fault at call %d: %d operations gave an error, want 1", at, w.broken)
		}
		if t.Failed() {
			t.Fatalf("fault at call %d", at)
		}
	}
}
