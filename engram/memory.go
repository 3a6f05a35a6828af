package engram

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"cairn/tier"
	"cairn/vram"
)

// Memory is the memory of a device as engrams use it: allocations, and copies of which
// each has its own end. It opens two streams, one a direction. All methods may be called
// in parallel.
type Memory struct {
	dev     vram.Device
	in, out lane

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup // what the device may still be touching; Add under mu
}

// lane is a stream whose copies and events are queued together, so that an event
// tells of one caller's copies.
type lane struct {
	mu     sync.Mutex // held to queue, and to drain in the rare case below
	stream vram.Stream
}

// NewMemory uses dev, which the caller closes after the Memory.
func NewMemory(dev vram.Device) (*Memory, error) {
	in, err := dev.NewStream()
	if err != nil {
		return nil, fmt.Errorf("engram: open %s: %w", dev.Name(), err)
	}
	out, err := dev.NewStream()
	if err != nil {
		return nil, fmt.Errorf("engram: open %s: %w", dev.Name(), errors.Join(err, in.Close()))
	}
	return &Memory{dev: dev, in: lane{stream: in}, out: lane{stream: out}}, nil
}

// Close waits for all copies, also those that nobody waits for any more, and closes
// the streams. What is allocated stays: release engrams first. A second Close does
// nothing.
func (m *Memory) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	m.running.Wait()
	if err := errors.Join(m.in.stream.Close(), m.out.stream.Close()); err != nil {
		return fmt.Errorf("engram: close memory: %w", err)
	}
	return nil
}

// CopyIn copies p to a, and returns when the device is done with both. When ctx has
// ended nothing is begun, but what has begun is waited for.
func (m *Memory) CopyIn(ctx context.Context, a vram.Addr, p []byte) error {
	return m.whole(ctx, &m.in, one(func(s vram.Stream) error { return s.CopyIn(a, p) }))
}

// CopyOut copies len(p) bytes at a to p, as CopyIn does.
func (m *Memory) CopyOut(ctx context.Context, p []byte, a vram.Addr) error {
	return m.whole(ctx, &m.out, one(func(s vram.Stream) error { return s.CopyOut(p, a) }))
}

// queueing queues copies and tells how many, also when one of them was refused.
type queueing func(vram.Stream) (queued int, err error)

func one(queue func(vram.Stream) error) queueing {
	return func(s vram.Stream) (int, error) { return 0, queue(s) }
}

func (m *Memory) whole(ctx context.Context, l *lane, queue queueing) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("engram: copy: %w", err)
	}
	if err := m.run(context.WithoutCancel(ctx), l, queue, func() {}); err != nil {
		return fmt.Errorf("engram: copy: %w", err)
	}
	return nil
}

// run queues copies and waits until they are over, or until ctx ends: then they go on
// without it. over is called once, when the device no longer touches any
// memory that queue has named to it: before run returns, or later from elsewhere.
func (m *Memory) run(ctx context.Context, l *lane, queue queueing, over func()) error {
	err := ctx.Err()
	if err == nil {
		err = m.begin()
	}
	if err != nil {
		over()
		return err
	}
	end := func() { over(); m.running.Done() }
	e, err := l.queue(queue)
	if err != nil {
		end()
		return err
	}
	err = e.Wait(ctx)
	if err == nil || e.Done() {
		e.Release()
		end()
		return err
	}
	go func() {
		_ = e.Wait(context.WithoutCancel(ctx)) // nobody asks any more how it went
		e.Release()
		end()
	}()
	return err
}

func (m *Memory) begin() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return tier.ErrClosed
	}
	m.running.Add(1)
	return nil
}

func (l *lane) queue(queue queueing) (vram.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	queued, err := queue(l.stream)
	if err != nil && queued == 0 {
		return nil, err
	}
	var e vram.Event
	if err == nil {
		e, err = l.stream.Record()
	}
	if err != nil {
		// Copies are queued, but nothing will tell when they end: wait for the stream, so
		// that their memory is not used too early.
		return nil, errors.Join(err, l.stream.Synchronize())
	}
	return e, nil
}

// buffer is an allocation. It is freed when nobody holds it any more: neither an
// engram nor a copy nor a pin.
type buffer struct {
	mem  *Memory
	addr vram.Addr
	size int64 // in bytes, as asked for
	refs atomic.Int32
}

// allocate gives a buffer of n bytes that the caller holds.
func (m *Memory) allocate(n int64) (*buffer, error) {
	addr, err := m.dev.Alloc(max(n, 1)) // an empty engram needs an address as well
	if err != nil {
		return nil, err
	}
	b := &buffer{mem: m, addr: addr, size: n}
	b.refs.Store(1)
	return b, nil
}

// hold needs that somebody holds b already.
func (b *buffer) hold() *buffer {
	b.refs.Add(1)
	return b
}

// drop ends a hold; b may be nil. A device that is lost or closed has nothing to free.
func (b *buffer) drop() error {
	if b == nil || b.refs.Add(-1) > 0 {
		return nil
	}
	err := b.mem.dev.Free(b.addr)
	if errors.Is(err, tier.ErrDeviceLost) || errors.Is(err, tier.ErrClosed) {
		return nil
	}
	return err
}

// shared tells whether others than the caller hold b.
func (b *buffer) shared() bool { return b.refs.Load() > 1 }

// copyIn fills b with p. Both stay untouched until the copy is over, whatever
// becomes of ctx.
func (b *buffer) copyIn(ctx context.Context, p []byte) error {
	if len(p) == 0 {
		return ctx.Err()
	}
	b.hold()
	return b.mem.run(ctx, &b.mem.in, one(func(s vram.Stream) error { return s.CopyIn(b.addr, p) }),
		func() { runtime.KeepAlive(p); _ = b.drop() })
}

// copyOut fills p, which must not be used after an error, with b's bytes.
func (b *buffer) copyOut(ctx context.Context, p []byte) error {
	if len(p) == 0 {
		return ctx.Err()
	}
	b.hold()
	return b.mem.run(ctx, &b.mem.out, one(func(s vram.Stream) error { return s.CopyOut(p, b.addr) }),
		func() { runtime.KeepAlive(p); _ = b.drop() })
}

// copyFrom fills b with the bytes of o, which is as large.
func (b *buffer) copyFrom(ctx context.Context, o *buffer) error {
	if b.size == 0 {
		return ctx.Err()
	}
	b.hold()
	o.hold()
	return b.mem.run(ctx, &b.mem.in, one(func(s vram.Stream) error { return s.CopyDevice(b.addr, o.addr, b.size) }),
		func() { _ = b.drop(); _ = o.drop() })
}
