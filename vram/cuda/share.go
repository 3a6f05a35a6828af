//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/cuda/driver"
)

// handleSize is the size of a handle in bytes: CU_IPC_HANDLE_SIZE.
const handleSize = 64

// Export implements [vram.Sharer]. The handle is the driver's. ErrNotShared of package tier: the driver shares no
// memory here, as in some virtual machines.
func (d *Device) Export(a vram.Addr) (vram.Handle, error) {
	var h [handleSize]byte
	err := d.do("export", func() (err error) {
		d.mu.Lock()
		ok := d.allocs.begin(uint64(a)) >= 0
		d.mu.Unlock()
		if !ok {
			return fmt.Errorf("%#x: %w", uint64(a), vram.ErrInvalidAddress)
		}
		if h, err = driver.IpcGetMemHandle(uint64(a)); is(err, resultNotSupported) {
			return fmt.Errorf("%w: %w", plain(err), tier.ErrNotShared)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return h[:], nil
}

// Import implements [vram.Sharer]. A handle that was imported before gives the same address; each
// Import needs an Unimport. A process cannot import what it has exported itself.
func (d *Device) Import(h vram.Handle) (a vram.Addr, size int64, err error) {
	err = d.do("import", func() error {
		if len(h) != handleSize {
			return fmt.Errorf("%d bytes, want %d: %w", len(h), handleSize, vram.ErrInvalidHandle)
		}
		p, err := driver.IpcOpenMemHandle([handleSize]byte(h))
		if err != nil {
			return badHandle(err)
		}
		base, length, err := driver.AddressRange(p)
		if err != nil {
			return errors.Join(plain(err), d.giveBack("unimport", func() error { return driver.IpcCloseMemHandle(p) }))
		}
		a, size = vram.Addr(p), int64(base)+length-int64(p)
		d.mu.Lock()
		defer d.mu.Unlock()
		if i := d.imports.begin(p); i >= 0 {
			d.imports[i].uses++
		} else {
			d.imports.insert(extent{from: p, to: p + uint64(size), uses: 1})
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	return a, size, nil
}

// badHandle tells the answers to a handle that is of no use here from the others. A handle comes from
// another process, so it must not be able to end this device: only what is said of the device's own work
// counts as final. An invalid context is what the driver says to the process that a handle is from.
func badHandle(err error) error {
	r, ok := result(err)
	switch {
	case !ok, r == resultOutOfMemory:
		return err
	case final[r] && r != resultInvalidContext && r != resultInvalidDevice && r != resultUnknown:
		return err
	}
	return fmt.Errorf("%w: %w", r, vram.ErrInvalidHandle)
}

// Unimport implements [vram.Sharer].
func (d *Device) Unimport(a vram.Addr) error {
	return d.do("unimport", func() error {
		d.mu.Lock()
		i := d.imports.begin(uint64(a))
		if i >= 0 {
			if d.imports[i].uses--; d.imports[i].uses == 0 {
				d.imports.remove(uint64(a))
			}
		}
		d.mu.Unlock()
		if i < 0 {
			return fmt.Errorf("%#x was not imported: %w", uint64(a), vram.ErrInvalidAddress)
		}
		return d.giveBack("unimport", func() error { return driver.IpcCloseMemHandle(uint64(a)) })
	})
}

func (d *Device) closeShared() error {
	var errs []error
	for _, e := range d.imports {
		for range e.uses {
			errs = append(errs, d.giveBack("unimport", func() error { return driver.IpcCloseMemHandle(e.from) }))
		}
	}
	return errors.Join(errs...)
}
