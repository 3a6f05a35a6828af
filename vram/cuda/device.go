//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"gorgonia.org/cu"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/cuda/driver"
)

// Defaults and limits.
const (
	// DefaultRegisterChunk is the default of Config.RegisterChunk, in bytes. Drivers refuse
	// to page-lock much more in one call.
	DefaultRegisterChunk = 64 << 30

	// block is what the driver cuts device memory into, in bytes. Several small allocations share
	// one, and a handle of any of them opens all of it, at its beginning.
	block = 2 << 20
	// queueLength is how many events of a stream may be outstanding before Record waits.
	queueLength = 1 << 10
	// pinLimit is how many copies with memory that is pinned for them a stream takes
	// without an event; then it records one of its own, to let go of the memory.
	pinLimit = 1 << 10
	// batchLimit is how many copies are given to the driver in one call.
	batchLimit = 1 << 10
	// attempts is how often the driver is asked whether a stream is done, when it gives
	// errors that are not final, until the device counts as lost; and how often it is asked to
	// take back what it gave.
	attempts = 3
)

// Config says which device to open. The zero value is the first.
type Config struct {
	// Ordinal is the number of the device among those that the driver shows.
	Ordinal int
	// RegisterChunk is how many bytes of host memory are page-locked in one call, a
	// positive multiple of 4096; 0 is DefaultRegisterChunk.
	RegisterChunk int64
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	if c.Ordinal < 0 {
		errs = append(errs, fmt.Errorf("cuda: device %d: want 0 or more", c.Ordinal))
	}
	if c.RegisterChunk < 0 || c.RegisterChunk%4096 != 0 {
		errs = append(errs, fmt.Errorf("cuda: host memory in pieces of %d bytes: want a positive multiple of 4096", c.RegisterChunk))
	}
	return errors.Join(errs...)
}

// Device is a GPU. See the package comment.
type Device struct {
	info    Info
	name    string
	cu      cu.Device
	ctx     cu.CUContext
	chunk   int
	batches bool // copies may be given to the driver in batches
	lost    atomic.Bool
	closing sync.Once
	err     error // of Close

	// resetting is held while the context is reset, and looked at before each call.
	resetting sync.RWMutex
	reset     bool // streams, events and memory are no more, and their handles not to be used

	// life is held for reading by every call, and for writing to end them. It is taken
	// before a stream's lock, and that before mu.
	life   sync.RWMutex
	closed bool

	// mu is never held while the driver is called.
	mu      sync.Mutex
	allocs  extents                 // device memory that is ours
	imports extents                 // device memory of other processes
	host    extents                 // page-locked host memory, by pieces
	shown   map[uint64]registration // by address
	streams []*stream
	events  []*event // all that were made
	free    []*event // those that may be used again
}

var (
	_ vram.Registrar  = (*Device)(nil)
	_ vram.Sharer     = (*Device)(nil)
	_ vram.Identified = (*Device)(nil)
)

// Open opens a device. The caller closes it. Load must have succeeded before; else the error is
// ErrNoDriver. Each Open is a Device of its own, also on the same GPU.
func Open(cfg Config) (*Device, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	list, err := Devices()
	if err != nil {
		return nil, err
	}
	if cfg.Ordinal >= len(list) {
		return nil, fmt.Errorf("cuda: open device %d: there are %d", cfg.Ordinal, len(list))
	}
	if cfg.RegisterChunk == 0 {
		cfg.RegisterChunk = DefaultRegisterChunk
	}
	info := list[cfg.Ordinal]
	d := &Device{
		info:  info,
		name:  fmt.Sprintf("%s, GPU %d", info.Name, info.Ordinal),
		chunk: int(cfg.RegisterChunk),
		shown: map[uint64]registration{},
	}
	if d.cu, err = cu.GetDevice(cfg.Ordinal); err != nil {
		return nil, d.fail("open", err)
	}
	if d.batches, err = d.batchable(); err != nil {
		return nil, d.fail("open", err)
	}
	// A thread that waits for the device sleeps rather than spins. The error is that somebody
	// in this process has the context already, with flags of theirs; events carry one of their own.
	_ = d.cu.SetPrimaryCtxFlags(cu.SchedBlockingSync)
	if d.ctx, err = d.cu.RetainPrimaryCtx(); err != nil {
		return nil, d.fail("open", err)
	}
	return d, nil
}

// batchable tells whether batches of copies can be used. They name host memory by the address that it has
// on the device, where copies one by one are given the host's. For memory that was registered
// the two differ with some drivers, WSL's among them, and a batch would be an illegal address there.
func (d *Device) batchable() (bool, error) {
	if !driver.HasBatch() {
		return false, nil
	}
	same, err := d.cu.Attribute(cu.CanUseHostPointerForRegisteredMem)
	return same == 1, err
}

// Name implements [vram.Device].
func (d *Device) Name() string { return d.name }

// Identity implements [vram.Identified]: the UUID.
func (d *Device) Identity() (kind, id string) { return "cuda", d.info.UUID }

// Info describes the device.
func (d *Device) Info() Info { return d.info }

// do makes one call of the driver, or several, unless the device is closed or lost. f must not block
// for longer than a copy takes.
func (d *Device) do(op string, f func() error) error {
	d.life.RLock()
	defer d.life.RUnlock()
	if d.closed {
		return fmt.Errorf("cuda: %s: %w", op, tier.ErrClosed)
	}
	if err := d.gone(op); err != nil {
		return err
	}
	if err := d.call(f); err != nil {
		return d.fail(op, err)
	}
	return nil
}

// gone is the error of every call after the device was lost.
func (d *Device) gone(op string) error {
	if d.lost.Load() {
		return fmt.Errorf("cuda: %s on %s: %w", op, d.name, tier.ErrDeviceLost)
	}
	return nil
}

// call runs f on a thread whose context is the device's, and returns what the driver said.
// Other users of a thread set their own context before they need it, as we do.
func (d *Device) call(f func() error) error {
	d.resetting.RLock()
	gone := d.reset
	d.resetting.RUnlock()
	if gone {
		return resultContextIsDestroyed
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cu.SetCurrentContext(d.ctx); err != nil {
		return err
	}
	return f()
}

// resetContext ends whatever the device does for this process. The handles that are left may be those of something
// else afterwards, so calls that have not begun yet wait for the end and are not made.
func (d *Device) resetContext() {
	d.resetting.Lock()
	defer d.resetting.Unlock()
	d.reset = d.reset || d.cu.ResetPrimaryCtx() == nil // else asking is as much as can be done
}

// giveBack makes a call that returns something to the driver. As nobody could do it later, it is
// tried again when it fails; a lost device has taken everything back.
func (d *Device) giveBack(op string, f func() error) error {
	return d.insist(op, func() error { return d.call(f) })
}

func (d *Device) insist(op string, f func() error) error {
	for try := 1; ; try++ {
		lost := d.lost.Load()
		err := f() // on a lost device, too: some of it may be freed all the same
		if err == nil || lost {
			return nil
		}
		if err = d.fail(op, err); try == attempts {
			return err
		}
	}
}

// Memory implements [vram.Device]. Other processes on the device use its memory too.
func (d *Device) Memory() (free, total int64, err error) {
	err = d.do("read the memory size", func() error {
		free, total, err = cu.MemInfo()
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return free, total, nil
}

// Alloc implements [vram.Device]. It takes whole blocks of 2 MiB, so that a handle of an allocation
// opens this one, from its beginning, and no other.
func (d *Device) Alloc(n int64) (vram.Addr, error) {
	if n <= 0 {
		return 0, fmt.Errorf("cuda: allocate %d bytes: want a positive number", n)
	}
	var p cu.DevicePtr
	err := d.do(fmt.Sprintf("allocate %d bytes", n), func() (err error) {
		if n > d.info.Memory { // some drivers call sizes out of all bounds invalid
			return resultOutOfMemory
		}
		if p, err = cu.MemAlloc((n + block - 1) / block * block); err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.allocs.insert(extent{from: uint64(p), to: uint64(p) + uint64(n)})
		return nil
	})
	if err != nil {
		return 0, err
	}
	return vram.Addr(p), nil
}

// Free implements [vram.Device]. The driver waits for the whole device.
func (d *Device) Free(a vram.Addr) error {
	return d.do("free", func() error {
		d.mu.Lock()
		e, ok := d.allocs.remove(uint64(a))
		d.mu.Unlock()
		if !ok {
			return fmt.Errorf("%#x: %w", uint64(a), vram.ErrInvalidAddress)
		}
		err := cu.MemFree(cu.DevicePtr(a))
		if err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.allocs.insert(e)
		}
		return err
	})
}

// withinLocked gives ErrInvalidAddress unless the n bytes at a lie inside one allocation, ours
// or imported.
func (d *Device) withinLocked(a vram.Addr, n int64) error {
	if d.allocs.find(uint64(a), n) >= 0 || d.imports.find(uint64(a), n) >= 0 {
		return nil
	}
	return fmt.Errorf("%d bytes at %#x: %w", n, uint64(a), vram.ErrInvalidAddress)
}

// Close implements [vram.Device].
func (d *Device) Close() error {
	d.closing.Do(func() { d.err = d.close() })
	return d.err
}

func (d *Device) close() error {
	d.life.Lock() // calls under way end; later ones are refused
	d.closed = true
	d.life.Unlock()
	d.mu.Lock()
	streams := slices.Clone(d.streams)
	d.mu.Unlock()
	var errs []error
	for _, s := range streams {
		errs = append(errs, s.Close())
	}
	// Nobody else calls the driver from here on.
	for _, s := range d.streams { // that could not be destroyed before
		errs = append(errs, d.giveBack("destroy a stream", s.cu.Destroy))
	}
	errs = append(errs, d.closeShared(), d.closeHost())
	for _, e := range d.allocs {
		errs = append(errs, d.giveBack("free", func() error { return cu.MemFree(cu.DevicePtr(e.from)) }))
	}
	for _, e := range d.events {
		errs = append(errs, d.giveBack("destroy an event", func() error {
			ev := e.cu // DestroyEvent forgets it, also when it fails
			return cu.DestroyEvent(&ev)
		}))
	}
	errs = append(errs, d.insist("release the context", d.cu.ReleasePrimaryCtx)) // which needs no current one
	return errors.Join(errs...)
}
