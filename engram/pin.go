package engram

import (
	"context"
	"fmt"
	"sync"

	"cairn/vram"
)

// Pin is device memory that stays allocated while somebody uses it.
type Pin struct {
	e    *Engram
	b    *buffer
	once sync.Once
}

// Pin gives the newest bytes on the device to read, or ErrStale or ErrNoCopy. Unpin must
// follow. While it is pinned the memory is not freed, and WriteDevice and Upload go to
// other memory; who writes to it must say so with MarkDirty.
func (e *Engram) Pin(ctx context.Context) (*Pin, error) {
	p := &Pin{e: e}
	err := e.when(ctx, func() error {
		_, err := e.mirror.Read(Device)
		if err == nil {
			p.b = e.device.hold()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("engram: pin: %w", err)
	}
	return p, nil
}

// Addr is where the bytes are.
func (p *Pin) Addr() vram.Addr { return p.b.addr }

// Size is how many bytes there are.
func (p *Pin) Size() int64 { return p.b.size }

// MarkDirty says that the bytes were changed, and makes a version of them. ErrConflict:
// another version has taken their place meanwhile, or host has a write that the device
// lacks.
func (p *Pin) MarkDirty(ctx context.Context) (Version, error) { return p.e.mark(ctx, p.b) }

// Unpin ends the use. A second Unpin does nothing.
func (p *Pin) Unpin() (err error) {
	p.once.Do(func() { err = p.b.drop() })
	if err != nil {
		return fmt.Errorf("engram: unpin: %w", err)
	}
	return nil
}
