//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"cairn/vram"
	"cairn/vram/cuda/driver"
)

// portable makes memory page-locked for every context of the process, not just this one:
// CU_MEMHOSTREGISTER_PORTABLE.
const portable = 1

// registration is the memory of one Register, and the pieces that are page-locked of it.
type registration struct {
	p      []byte
	pieces []piece
}

// piece is what is page-locked by one call. A foreign one was so by another device of the process, which may
// let go of it at any time.
type piece struct {
	p       []byte
	foreign bool
}

func address(p []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) }

// Register implements [vram.Registrar]. p is page-locked in pieces of Config.RegisterChunk. Several
// devices may be shown the same memory.
func (d *Device) Register(p []byte) error {
	if len(p) == 0 {
		return errors.New("cuda: register host memory: want at least one byte")
	}
	return d.do("register host memory", func() error {
		if err := d.show(p); err != nil {
			return err
		}
		r := registration{p: p}
		for part := range slices.Chunk(p, d.chunk) {
			switch err := driver.HostRegister(unsafe.Pointer(&part[0]), uintptr(len(part)), portable); {
			case err == nil:
				r.pieces = append(r.pieces, piece{p: part})
			case is(err, resultAlreadyRegistered):
				// By another device, for all of them. Should that one let go of it first,
				// copies get slower and stay right.
				r.pieces = append(r.pieces, piece{p: part, foreign: true})
			default:
				d.mu.Lock()
				delete(d.shown, address(p))
				d.mu.Unlock()
				return errors.Join(refused(err), d.unlock(r))
			}
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.shown[address(p)] = r
		for _, e := range r.pieces {
			d.host.insert(extent{from: address(e.p), to: address(e.p) + uint64(len(e.p)), foreign: e.foreign})
		}
		return nil
	})
}

// show takes note of memory that is being registered, unless some of it is already.
func (d *Device) show(p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, r := range d.shown {
		if address(p) < at+uint64(len(r.p)) && at < address(p)+uint64(len(p)) {
			return fmt.Errorf("%d bytes at %#x are registered already", len(r.p), at)
		}
	}
	d.shown[address(p)] = registration{p: p}
	return nil
}

// refused says what the system lacks when it does not page-lock memory. That is not the
// device's memory, so it must not read like it; nor is an unknown error the end of the
// device here, where the driver has asked nothing of it. One that is lost says so again.
func refused(err error) error {
	switch {
	case is(err, resultOutOfMemory):
		return fmt.Errorf("the system does not page-lock that much (lower the arena, or raise the container's limits): %v", plain(err))
	case is(err, resultUnknown):
		return fmt.Errorf("the system does not page-lock this memory: %v", plain(err))
	}
	return err
}

// Unregister implements [vram.Registrar].
func (d *Device) Unregister(p []byte) error {
	return d.do("unregister host memory", func() error {
		d.mu.Lock()
		r, ok := d.shown[address(p)]
		if ok = ok && len(r.p) == len(p); ok {
			delete(d.shown, address(p))
			for _, e := range r.pieces {
				d.host.remove(address(e.p))
			}
		}
		d.mu.Unlock()
		if !ok {
			return fmt.Errorf("%d bytes at %#x were not registered", len(p), address(p))
		}
		return d.unlock(r)
	})
}

// unlock undoes what Register did for r, all of it even if some fails.
func (d *Device) unlock(r registration) error {
	var errs []error
	for _, e := range r.pieces {
		if e.foreign {
			continue
		}
		errs = append(errs, d.giveBack("unregister host memory", func() error {
			return driver.HostUnregister(unsafe.Pointer(&e.p[0]))
		}))
	}
	return errors.Join(errs...)
}

func (d *Device) closeHost() error {
	var errs []error
	for _, r := range d.shown {
		errs = append(errs, d.unlock(r))
	}
	return errors.Join(errs...)
}

// transfer is one copy that was found to be right, as the driver is to be given it.
type transfer struct {
	device uint64
	host   []byte
	locked bool // host is page-locked, by this device
}

// splitLocked appends the transfers between the device's memory at a and p to list. They are split
// where page-locked memory begins and ends: the driver refuses a range that is locked in part, and
// nothing says that it takes one that is in two parts. Foreign memory counts as such, but not as
// locked, for it need not stay so until the copy is over.
func (d *Device) splitLocked(list []transfer, a vram.Addr, p []byte) ([]transfer, error) {
	if err := d.withinLocked(a, int64(len(p))); err != nil {
		return list, err
	}
	device := uint64(a)
	for len(p) > 0 {
		n, locked := len(p), false
		if i := d.host.find(address(p), 1); i >= 0 {
			n, locked = int(min(uint64(n), d.host[i].to-address(p))), !d.host[i].foreign
		} else if i := d.host.next(address(p)); i < len(d.host) {
			n = int(min(uint64(n), d.host[i].from-address(p)))
		}
		list = append(list, transfer{device, p[:n:n], locked})
		device, p = device+uint64(n), p[n:]
	}
	return list, nil
}
