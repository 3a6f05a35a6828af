package hostcache

import (
	"context"

	"cairn/block"
	"cairn/tier"
)

// Get implements tier.Store.
func (c *Cache) Get(ctx context.Context, key block.Key, dst []byte) (block.Descriptor, error) {
	id, d, src, err := c.startGet(ctx, key, len(dst))
	if err != nil {
		return d, &opError{"get", key, err}
	}
	copy(dst, src)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.releaseLocked(id)
	c.endCallLocked()
	return d, nil
}

func (c *Cache) startGet(ctx context.Context, key block.Key, room int) (id uint32, d block.Descriptor, src []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.closedOrDone(ctx); err != nil {
		return 0, d, nil, err
	}
	id, e, err := c.viewLocked(key, room)
	if err == tier.ErrShortBuffer {
		return 0, e.Descriptor, nil, err
	}
	if err != nil {
		return 0, d, nil, err
	}
	c.calls++
	return id, e.Descriptor, c.bytesLocked(e), nil
}

// View implements tier.Memory.
func (c *Cache) View(key block.Key) (tier.View, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, e, err := c.viewLocked(key, block.MaxLength)
	if err != nil {
		return tier.View{}, &opError{"view", key, err}
	}
	return tier.NewView(e.Descriptor, c.bytesLocked(e), c, e.token(id)), nil
}

// ViewSlot implements tier.Slotted.
func (c *Cache) ViewSlot(slot uint64, key block.Key) (tier.View, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, gen := uint32(slot), uint32(slot>>32)
	if c.closed || int(id/chunkLen) >= len(c.entries.chunks) {
		return tier.View{}, false
	}
	e := c.entries.at(id)
	if e.gen != gen || e.state != present || e.Key != key || int(e.views)+int(e.pins) >= c.maxPins {
		return tier.View{}, false
	}
	c.lendLocked(id, e)
	return tier.NewView(e.Descriptor, c.bytesLocked(e), c, slot), true
}

// viewLocked adds a view to an object of at most room bytes, as a use of it. With
// ErrShortBuffer comes the entry, unchanged.
func (c *Cache) viewLocked(key block.Key, room int) (id uint32, e *entry, err error) {
	if c.closed {
		return 0, nil, tier.ErrClosed
	}
	id, ok := c.index[key]
	if !ok {
		c.stats.Misses++
		return 0, nil, tier.ErrNotFound
	}
	e = c.entries.at(id)
	if int(e.Length) > room {
		return id, e, tier.ErrShortBuffer
	}
	if int(e.views)+int(e.pins) >= c.maxPins {
		return 0, nil, ErrPins
	}
	c.lendLocked(id, e)
	return id, e, nil
}

func (c *Cache) lendLocked(id uint32, e *entry) {
	c.stats.Hits++
	c.slots++
	if !e.held() {
		c.holdLocked(e)
	}
	e.views++
	c.useLocked(id, e)
}

// ReleaseView ends a view; it is for tier.View. A view of a slot that has gone to
// another block meanwhile, which only a second Release can be, is ignored.
func (c *Cache) ReleaseView(token uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, gen := uint32(token), uint32(token>>32)
	if c.entries == nil { // unmapped
		return
	}
	if e := c.entries.at(id); e.gen != gen || e.views == 0 {
		return
	}
	c.releaseLocked(id)
	_ = c.unmapLocked() // a release has nobody to tell
}

func (c *Cache) releaseLocked(id uint32) {
	c.slots--
	e := c.entries.at(id)
	e.views--
	switch {
	case e.held():
	case e.state == present:
		c.unholdLocked(id, e)
	default:
		c.slabs.spans[e.span].held--
		c.vacateLocked(id)
	}
}

// Pin implements tier.Pinner.
func (c *Cache) Pin(key block.Key) error {
	_, err := c.PinExact(key)
	return err
}

// PinExact implements tier.Pinner.
func (c *Cache) PinExact(key block.Key) (object uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err = tier.ErrClosed
	if !c.closed {
		object, err = c.pinLocked(key)
	}
	if err != nil {
		return 0, &opError{"pin", key, err}
	}
	return object, nil
}

func (c *Cache) pinLocked(key block.Key) (object uint64, err error) {
	id, ok := c.index[key]
	if !ok {
		return 0, tier.ErrNotFound
	}
	e := c.entries.at(id)
	if int(e.views)+int(e.pins) >= c.maxPins {
		return 0, ErrPins
	}
	if !e.held() {
		c.holdLocked(e)
	}
	e.pins++
	return e.token(id), nil
}

// Unpin implements tier.Pinner. Without a pin it does nothing.
func (c *Cache) Unpin(key block.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.index[key]; ok {
		c.unpinLocked(id)
	}
}

// UnpinExact implements tier.Pinner. Without a pin it does nothing.
func (c *Cache) UnpinExact(key block.Key, object uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.index[key]; ok && c.entries.at(id).token(id) == object {
		c.unpinLocked(id)
	}
}

func (c *Cache) unpinLocked(id uint32) {
	e := c.entries.at(id)
	if e.pins == 0 {
		return
	}
	if e.pins--; !e.held() {
		c.unholdLocked(id, e)
	}
}
