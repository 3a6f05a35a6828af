// Package tier is the contract between a node and the stores that hold its
// blocks: one small [Store] interface that GPU memory, host memory and disk all
// implement, the optional abilities that some of them add, and the errors that
// they share.
//
// A store holds immutable objects and nothing else: it knows neither versions
// nor write policies nor other nodes. What is valid where is the business of
// package coherency; a store only promises that what it returns for a key is
// what was put under that key, or an error.
//
// A tier is made of one store, so a store does not know which [block.Tier] it
// serves as.
package tier

import (
	"context"
	"errors"

	"cairn/block"
)

// Errors of every store. Callers test for them with errors.Is; each store wraps
// them once, with its name and the key.
var (
	// ErrNotFound: the store does not hold the object.
	ErrNotFound = errors.New("block not found")
	// ErrExists: the object is there already; nothing was changed.
	ErrExists = errors.New("block exists")
	// ErrConflict: the store holds other bytes under this key.
	ErrConflict = errors.New("block exists with other bytes")
	// ErrTooLarge: the object is larger than the store's largest slot or its
	// capacity. Trying again does not help.
	ErrTooLarge = errors.New("block too large")
	// ErrFull: everything that could be evicted is pinned. Trying again later
	// may help.
	ErrFull = errors.New("store full: every block is pinned")
	// ErrCorrupt: the bytes read do not match the object's checksum. The store
	// has dropped the object.
	ErrCorrupt = errors.New("block corrupt")
	// ErrShortBuffer: the buffer given is smaller than the object.
	ErrShortBuffer = errors.New("buffer shorter than the block")
	// ErrNoSpace: there is no room left on the disk: its file system is full, or
	// what must be kept on it is as much as it can be.
	ErrNoSpace = errors.New("no space left on the disk")
	// ErrDeviceLost: the device is gone and its blocks with it.
	ErrDeviceLost = errors.New("device lost")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store closed")
)

// Store holds objects. All methods may be called in parallel.
type Store interface {
	// Put stores a copy of src under d.Key, evicting other objects to make
	// room. src must have d.Length bytes and is only read during the call; the
	// caller answers for d.Sum being its checksum. evicted lists every object that
	// left the store during the call, also when err is not nil; the caller owns
	// the slice. What another object names as its parent is evicted after that, as
	// far as there is a choice. An object that is already there gives ErrExists, or
	// ErrConflict when its length or checksum is another.
	Put(ctx context.Context, d block.Descriptor, src []byte) (evicted []block.Key, err error)

	// Get copies the object into dst, which the caller owns, and returns its
	// descriptor. The bytes are verified where the medium can corrupt them
	// (disk); memory stores return them as they are. ErrShortBuffer comes with
	// the descriptor, so that the caller can try again.
	Get(ctx context.Context, key block.Key, dst []byte) (block.Descriptor, error)

	// Stat returns the descriptor without touching the bytes or their recency.
	Stat(key block.Key) (block.Descriptor, bool)

	// Delete removes the object; readers that hold a view of it keep it
	// until they let go. It reports whether the object was there.
	Delete(key block.Key) bool

	// All calls yield for every object until it returns false, in no
	// particular order. Objects put or removed meanwhile may or may not appear.
	// yield must not call the store.
	All(yield func(block.Descriptor) bool)

	// Stats is a snapshot of the counters.
	Stats() Stats

	// Close waits for calls under way and releases everything. Later calls
	// give ErrClosed.
	Close() error
}

// Pinner is a Store that can protect an object from eviction. Pins count;
// Delete overrides them.
type Pinner interface {
	Store
	// Pin gives ErrNotFound when the object is not there.
	Pin(key block.Key) error
	// Unpin undoes one Pin; an object that is gone meanwhile is no error. Where another
	// with the same key has been put since, it takes a pin from that one.
	Unpin(key block.Key)
	// PinExact is Pin for pins that may outlive their object: it says which object it has
	// pinned, by a number that no other object with this key has.
	PinExact(key block.Key) (object uint64, err error)
	// UnpinExact undoes one PinExact. It never takes a pin from another object.
	UnpinExact(key block.Key, object uint64)
}

// Evictor is a Store that evicts what it is told.
type Evictor interface {
	Pinner
	// Evict removes the object and reports whether it did. It does not where the object is
	// pinned or viewed, nor where the store knows of others that follow it in a sequence.
	Evict(key block.Key) bool
}

// Memory is a Store whose bytes the processor addresses in place, so that they
// can be received into it and sent from it without a copy.
type Memory interface {
	Pinner

	// Reserve takes a slot of n bytes, evicting other objects to make room. The
	// caller must end the reservation with Commit or Abort.
	Reserve(ctx context.Context, n int) (r Reservation, evicted []block.Key, err error)

	// View pins the object in place and counts as a use of it. The caller must
	// Release the view, and must not write to its bytes.
	View(key block.Key) (View, error)
}

// Reservation is a slot that is being filled. It is invisible to everyone else
// until Commit. It is used by one goroutine.
type Reservation interface {
	// Bytes is the slot, of exactly the length reserved. It is the caller's
	// until Commit or Abort.
	Bytes() []byte
	// Object is what PinExact will say of the object that Commit makes.
	Object() uint64
	// Commit makes the slot the object d, born with the given number of pins.
	// d.Length must be len(Bytes()). When the object exists already the slot is
	// given back, nothing is pinned, and the error is ErrExists or ErrConflict.
	Commit(d block.Descriptor, pins int) error
	// Abort gives the slot back. After Commit it does nothing.
	Abort()
}

// View is an object pinned in place. The zero View is empty and Release on it
// does nothing.
type View struct {
	block.Descriptor
	// Bytes are read-only and valid until Release.
	Bytes []byte

	owner Releaser
	slot  uint64
}

// Releaser is what a Memory hands to NewView to learn when a view ends.
type Releaser interface{ ReleaseView(slot uint64) }

// NewView is for implementations of Memory.
func NewView(d block.Descriptor, p []byte, owner Releaser, slot uint64) View {
	return View{Descriptor: d, Bytes: p, owner: owner, slot: slot}
}

// Slot says where the object lies: what a Slotted store can view without looking for it.
func (v View) Slot() uint64 { return v.slot }

// Release ends the view. It must be called exactly once for each View returned.
func (v View) Release() {
	if v.owner != nil {
		v.owner.ReleaseView(v.slot)
	}
}

// Slotted is a Memory that finds an object again by the Slot of an earlier View.
type Slotted interface {
	// ViewSlot is View of the object, if it still lies in slot. False: it may be elsewhere,
	// or gone; any number may be asked for.
	ViewSlot(slot uint64, key block.Key) (View, bool)
}

// Syncer is a Store that outlives the process. After Sync returns nil, every Put
// that returned before Sync was called survives a power loss. Concurrent calls
// share one flush.
type Syncer interface {
	Sync(ctx context.Context) error
}

// Roomy is a Store that knows better than by its Stats how much it takes before it evicts.
type Roomy interface {
	// Room is how many bytes of objects the store takes before it evicts any, or less.
	Room() int64
}

// Room is how many bytes of objects s takes before it evicts any, as far as it knows.
func Room(s Store) int64 {
	if r, ok := s.(Roomy); ok {
		return r.Room()
	}
	st := s.Stats()
	return max(st.Capacity-st.Used, 0)
}

// Stats are counters of a store since it was opened, and its present size.
type Stats struct {
	Objects   int64 // objects held
	Bytes     int64 // bytes of these objects
	Used      int64 // bytes that they occupy, with rounding and overhead
	Capacity  int64 // bytes that the store may occupy
	Pinned    int64 // objects pinned at present
	Kept      int64 // bytes that objects occupy which are never evicted
	KeptLimit int64 // bytes that these may occupy at most
	Hits      int64 // Get and View that found the object
	Misses    int64 // Get and View that did not
	Puts      int64 // objects stored
	Evictions int64 // objects evicted
	Deletes   int64 // objects deleted by request
	Corrupt   int64 // objects dropped because their bytes did not match
	Errors    int64 // input/output errors
}
