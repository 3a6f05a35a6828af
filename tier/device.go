package tier

import (
	"context"
	"errors"

	"cairn/block"
)

// ErrNotShared: the store's memory cannot be used by other processes.
var ErrNotShared = errors.New("memory cannot be shared with other processes")

// ErrHandle: no memory that this store's device can use has the handle.
var ErrHandle = errors.New("no memory with this handle")

// Device is a Store in the memory of an accelerator, which other processes of the machine
// map, to read and write blocks in place. Offsets count bytes from the beginning of the
// arena, which is the same memory to everyone who has mapped it.
type Device interface {
	Pinner

	// Arena describes that memory. ErrNotShared: there is no way to map it.
	Arena() (Arena, error)

	// Place pins the object in place, as a use of it, and says where it is. The caller
	// must Release it; until then neither eviction nor Delete lets the bytes change.
	Place(key block.Key) (Placed, error)

	// Reserve takes a slot of n bytes, evicting other objects to make room. The caller
	// must end the reservation with Commit or Abort. evicted is as of Store.Put.
	Reserve(ctx context.Context, n int) (s DeviceSlot, evicted []block.Key, err error)

	// Import maps memory that another process has exported. ErrHandle: there is none.
	Import(handle []byte) (Region, error)
}

// Arena says what an engine needs to know to work in a Device's memory.
type Arena struct {
	// Name is the device for people. Kind and ID are for programs: two processes that see
	// the same kind and id see the same device. ID is empty where that does not matter.
	Name, Kind, ID string
	// Handle names the memory to other processes; what it is made of depends on the kind.
	Handle []byte
	// Bytes is its size, Alignment what every slot's offset is a multiple of.
	Bytes, Alignment int64
	// Classes are the sizes of slots, ascending; an object takes the smallest that it fits.
	Classes []int
}

// DeviceSlot is a slot that somebody outside this process fills. It is invisible to
// everyone else until Commit. It is used by one goroutine.
type DeviceSlot interface {
	// Offset is where it begins, Len the length reserved.
	Offset() int64
	Len() int
	// CopyOut copies the slot, of which dst has the length, to host memory.
	CopyOut(dst []byte) error
	// Commit makes the slot the object d, whose length is the slot's, pinned as by Place.
	// When the object exists already the slot is given back, and the error is ErrExists or
	// ErrConflict. After any error the reservation has ended.
	Commit(d block.Descriptor) (Placed, error)
	// Abort gives the slot back. After Commit it does nothing.
	Abort()
}

// Region is memory of another process. Offsets count from its beginning; a copy that would
// not lie inside it is refused. It is used by one goroutine.
type Region interface {
	// Size is in bytes.
	Size() int64
	// Store copies as many bytes as the slot has, from an offset of the region, into it.
	Store(s DeviceSlot, from int64) error
	// Load copies the object to an offset of the region.
	Load(p Placed, to int64) error
	// Close unmaps it. A second Close does nothing.
	Close() error
}

// Placed is an object pinned in a Device's memory. The zero Placed is empty and Release on
// it does nothing.
type Placed struct {
	block.Descriptor
	// Offset is where its Length bytes begin in the arena.
	Offset int64

	release func()
}

// NewPlaced is for implementations of Device.
func NewPlaced(d block.Descriptor, offset int64, release func()) Placed {
	return Placed{Descriptor: d, Offset: offset, release: release}
}

// Release ends the pin. It must be called exactly once for each Placed returned.
func (p Placed) Release() {
	if p.release != nil {
		p.release()
	}
}
