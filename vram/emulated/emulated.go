package emulated

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"cairn/tier"
	"cairn/vram"
)

// DefaultMemory is the default of [Config].Memory, in bytes.
const DefaultMemory = 1 << 30

// base is the address of the first byte of device memory: high enough that
// nobody takes an address for an offset or a length.
const base vram.Addr = 1 << 44

// Config describes the device. The zero value is usable.
type Config struct {
	// Memory is the size of the device's memory in bytes, a positive multiple of
	// vram.Alignment; 0 is DefaultMemory.
	Memory int64
	// Hook, when it is not nil, is called before everything that the device
	// does, to let it fail or wait: a fault at the nth copy, a delay, the loss of
	// the device. An error from Hook is the error of the call; one that is
	// tier.ErrDeviceLost is also the device's end. Hook is called in parallel, and
	// must not call the device.
	Hook func(Call) error
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	if c.Memory < 0 || c.Memory%vram.Alignment != 0 {
		return fmt.Errorf("emulated: memory of %d bytes: want a positive multiple of %d", c.Memory, vram.Alignment)
	}
	return nil
}

// Op is something that a device does.
type Op uint8

// What a device does.
const (
	Alloc Op = iota
	NewStream
	CopyIn
	CopyOut
	CopyDevice
	Record
	CopyInBatch
	CopyOutBatch
)

// String names the operation.
func (o Op) String() string {
	return [...]string{"alloc", "new stream", "copy in", "copy out", "copy device", "record", "copy in batch", "copy out batch"}[o]
}

// Call is what a [Config].Hook is asked about.
type Call struct {
	Op Op
	// Queued is false when the caller asks for the operation, so that an error is
	// the result of that call, and true when a stream comes to carry it out, so
	// that the error arrives with the next event.
	Queued bool
}

// Device is an emulated device.
type Device struct {
	hook    func(Call) error
	fd      int    // of the memory
	memory  []byte // all of it; the slice is never changed
	lost    atomic.Bool
	events  sync.Pool // of *event, for reuse
	closing sync.Once
	err     error // of Close

	mu       sync.Mutex
	closed   bool
	used     []extent   // by address
	imported []imported // by address
	streams  []*stream
}

// extent is one allocation, as offsets into memory.
type extent struct{ from, to int64 }

var _ vram.Device = (*Device)(nil)

// New makes a device. The caller closes it.
func New(cfg Config) (*Device, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	fd, memory, err := openMemory(cfg.Memory)
	if err != nil {
		return nil, err
	}
	return &Device{hook: cfg.Hook, fd: fd, memory: memory}, nil
}

// Name is "emulated".
func (d *Device) Name() string { return "emulated" }

// ask lets the hook decide on a call.
func (d *Device) ask(c Call) error {
	if d.lost.Load() {
		return fmt.Errorf("emulated: %s: %w", c.Op, tier.ErrDeviceLost)
	}
	if d.hook == nil {
		return nil
	}
	err := d.hook(c)
	if err == nil {
		return nil
	}
	if errors.Is(err, tier.ErrDeviceLost) {
		d.lost.Store(true)
	}
	return fmt.Errorf("emulated: %s: %w", c.Op, err)
}

// openLocked is nil while the device works.
func (d *Device) openLocked() error {
	switch {
	case d.closed:
		return fmt.Errorf("emulated: %w", tier.ErrClosed)
	case d.lost.Load():
		return fmt.Errorf("emulated: %w", tier.ErrDeviceLost)
	}
	return nil
}

// Memory implements [vram.Device].
func (d *Device) Memory() (free, total int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openLocked(); err != nil {
		return 0, 0, err
	}
	total = int64(len(d.memory))
	free = total
	for _, e := range d.used {
		free -= e.to - e.from
	}
	return free, total, nil
}

// Alloc implements [vram.Device]: first fit.
func (d *Device) Alloc(n int64) (vram.Addr, error) {
	if n <= 0 {
		return 0, fmt.Errorf("emulated: allocate %d bytes: want a positive number", n)
	}
	if err := d.ready(Alloc); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openLocked(); err != nil {
		return 0, err
	}
	if n > int64(len(d.memory)) { // before rounding, which could overflow
		return 0, fmt.Errorf("emulated: allocate %d bytes: %w", n, vram.ErrOutOfMemory)
	}
	size := (n + vram.Alignment - 1) / vram.Alignment * vram.Alignment
	var from int64
	at := 0
	for ; at < len(d.used) && d.used[at].from-from < size; at++ {
		from = d.used[at].to
	}
	if from+size > int64(len(d.memory)) {
		return 0, fmt.Errorf("emulated: allocate %d bytes: %w", n, vram.ErrOutOfMemory)
	}
	d.used = slices.Insert(d.used, at, extent{from, from + size})
	return base + vram.Addr(from), nil
}

// Free implements [vram.Device].
func (d *Device) Free(a vram.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openLocked(); err != nil {
		return err
	}
	i := slices.IndexFunc(d.used, func(e extent) bool { return base+vram.Addr(e.from) == a })
	if i < 0 {
		return fmt.Errorf("emulated: free %#x: %w", uint64(a), vram.ErrInvalidAddress)
	}
	d.used = slices.Delete(d.used, i, i+1)
	return nil
}

// bytes are the n bytes at a, if they lie inside one allocation.
func (d *Device) bytes(a vram.Addr, n int64) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openLocked(); err != nil {
		return nil, err
	}
	if p, ok := d.importedLocked(a, n); ok {
		return p, nil
	}
	if a >= base && n >= 0 {
		from := int64(a - base)
		for _, e := range d.used {
			if from >= e.from && from <= e.to && n <= e.to-from {
				return d.memory[from : from+n : from+n], nil
			}
		}
	}
	return nil, fmt.Errorf("emulated: %d bytes at %#x: %w", n, uint64(a), vram.ErrInvalidAddress)
}

// ready refuses a call on a device that is closed or lost, and lets the hook
// decide otherwise.
func (d *Device) ready(op Op) error {
	d.mu.Lock()
	err := d.openLocked()
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return d.ask(Call{Op: op})
}

// NewStream implements [vram.Device].
func (d *Device) NewStream() (vram.Stream, error) {
	if err := d.ready(NewStream); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openLocked(); err != nil {
		return nil, err
	}
	s := newStream(d)
	d.streams = append(d.streams, s)
	return s, nil
}

// forget takes a stream that is closed off the list.
func (d *Device) forget(s *stream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.streams = slices.DeleteFunc(d.streams, func(o *stream) bool { return o == s })
}

// Close implements [vram.Device].
func (d *Device) Close() error {
	d.closing.Do(func() {
		d.mu.Lock()
		d.closed = true
		streams := slices.Clone(d.streams)
		d.mu.Unlock()
		for _, s := range streams {
			s.Close()
		}
		d.err = d.closeMemory()
	})
	return d.err
}
