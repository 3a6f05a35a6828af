package vram

import (
	"context"
	"errors"
)

// Errors of every device, besides tier.ErrDeviceLost and tier.ErrClosed.
var (
	// ErrOutOfMemory: the device has no contiguous room of that size.
	ErrOutOfMemory = errors.New("device out of memory")
	// ErrInvalidAddress: the bytes do not lie inside one allocation.
	ErrInvalidAddress = errors.New("address outside the device's allocations")
	// ErrInvalidHandle: no allocation that this device can map has the handle.
	ErrInvalidHandle = errors.New("no allocation with this handle")
)

// Addr is an address in device memory. It is a number to everyone but the
// device: the processor must not dereference it, and Addr plus n is the address
// n bytes further inside the same allocation. 0 is no address.
type Addr uint64

// Alignment is what every allocation of a device is aligned to, in bytes.
const Alignment = 256

// Device is one accelerator and its memory. All methods may be called in
// parallel, from any goroutine.
//
// Once a call has given tier.ErrDeviceLost every later call gives it too, except
// that Close works. After Close every call gives tier.ErrClosed.
type Device interface {
	// Name says what the device is, for people: "NVIDIA H200, GPU 0", "emulated".
	Name() string
	// Memory is the device's free and total memory in bytes.
	Memory() (free, total int64, err error)
	// Alloc gives n contiguous bytes, aligned to Alignment, with undefined
	// contents, or ErrOutOfMemory. n is positive.
	Alloc(n int64) (Addr, error)
	// Free gives back what Alloc returned. No copy may be using it any more.
	Free(a Addr) error
	// NewStream opens a queue of its own.
	NewStream() (Stream, error)
	// Close finishes what is queued, closes the streams and frees everything.
	// A second Close does nothing.
	Close() error
}

// Stream is a queue of copies that the device carries out one after another;
// different streams run side by side. Copies are asynchronous: they return when
// the copy is queued, and the slices given belong to the device until an event
// recorded behind them has completed. An error from a copy or from Record means
// that this call queued nothing.
//
// Methods may be called in parallel, but an event covers everything queued
// before it, so whoever wants to know which copy failed queues the copy and its
// event together.
type Stream interface {
	// CopyIn copies src to dst on the device.
	CopyIn(dst Addr, src []byte) error
	// CopyOut copies len(dst) bytes at src on the device to dst.
	CopyOut(dst []byte, src Addr) error
	// CopyDevice copies n bytes inside the device. The ranges must not overlap.
	CopyDevice(dst, src Addr, n int64) error
	// Record queues an event. It completes when everything queued before it is
	// over, with the first error since the event recorded before it.
	Record() (Event, error)
	// Synchronize blocks until everything queued before it is over and returns
	// what an event in its place would.
	Synchronize() error
	// Close waits for what is queued. A second Close does nothing.
	Close() error
}

// Event is a point in a stream. Its methods may be called in parallel, except
// Release.
type Event interface {
	// Done tells without waiting whether the event has completed, with or
	// without an error.
	Done() bool
	// Wait blocks until the event completes and returns the error of the work
	// before it; or until ctx ends, with ctx's error, while the device goes on. Any
	// other error means that the work is over: the device no longer touches
	// the slices and addresses that were given to it.
	Wait(ctx context.Context) error
	// Release ends the use of the event, which may then be used again for another.
	// It must be called once, after the last use, completed or not.
	Release()
}

// What follows are abilities that some devices and streams have besides.

// BatchStream is a Stream that queues many copies with one call of the driver, which
// costs a fraction of as many calls. The copies of a batch are carried out in any order;
// their ranges must not overlap. An error means that none is queued.
type BatchStream interface {
	Stream
	// CopyInBatch copies src[i] to dst[i] on the device.
	CopyInBatch(dst []Addr, src [][]byte) error
	// CopyOutBatch copies len(dst[i]) bytes at src[i] on the device to dst[i].
	CopyOutBatch(dst [][]byte, src []Addr) error
}

// Registrar is a Device that moves bytes faster, and truly in the background, from and
// to host memory that it has been shown beforehand: page-locked memory.
type Registrar interface {
	Device
	// Register page-locks p, which is not Go heap memory and must stay mapped
	// until Unregister with the same p, or Close.
	Register(p []byte) error
	// Unregister ends that. No copy may be using p any more.
	Unregister(p []byte) error
}

// Handle names an allocation to other processes of the same machine. It is opaque: 64
// bytes for a GPU, and a path for an emulated device.
type Handle []byte

// Sharer is a Device whose allocations other processes can use in place, and which can
// use theirs.
type Sharer interface {
	Device
	// Export names the allocation a, which Alloc has returned, for as long as it is not freed.
	Export(a Addr) (Handle, error)
	// Import maps the allocation that another process has exported and returns its
	// address here and its size in bytes. That process must not free it before Unimport.
	// ErrInvalidHandle: there is no such allocation, or not for this device.
	Import(h Handle) (a Addr, size int64, err error)
	// Unimport undoes Import. No copy may be using the memory any more.
	Unimport(a Addr) error
}
