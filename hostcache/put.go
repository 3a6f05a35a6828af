package hostcache

import (
	"context"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/tier"
)

// Put implements tier.Store.
func (c *Cache) Put(ctx context.Context, d block.Descriptor, src []byte) (evicted []block.Key, err error) {
	if len(src) != int(d.Length) {
		return nil, fmt.Errorf("hostcache: put %s: %d bytes given for a length of %d", d.Key, len(src), d.Length)
	}
	id, dst, evicted, err := c.startPut(ctx, d)
	if err != nil {
		return evicted, &opError{"put", d.Key, err}
	}
	copy(dst, src)

	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.commitLocked(id, d, 0)
	c.endCallLocked()
	if err != nil {
		return evicted, &opError{"put", d.Key, err}
	}
	return evicted, nil
}

func (c *Cache) startPut(ctx context.Context, d block.Descriptor) (id uint32, dst []byte, evicted []block.Key, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.closedOrDone(ctx); err != nil {
		return 0, nil, nil, err
	}
	if err := c.existsLocked(d); err != nil {
		return 0, nil, nil, err
	}
	id, evicted, err = c.takeLocked(int(d.Length))
	if err != nil {
		return 0, nil, evicted, err
	}
	c.calls++
	return id, c.bytesLocked(c.entries.at(id)), evicted, nil
}

// existsLocked is nil when nothing is stored under d.Key.
func (c *Cache) existsLocked(d block.Descriptor) error {
	id, ok := c.index[d.Key]
	if !ok {
		return nil
	}
	if e := c.entries.at(id); e.Length != d.Length || e.Sum != d.Sum {
		return tier.ErrConflict
	}
	return tier.ErrExists
}

// commitLocked makes the reserved entry id the object d, or frees it.
func (c *Cache) commitLocked(id uint32, d block.Descriptor, pins int) error {
	c.slots--
	e := c.entries.at(id)
	c.slabs.spans[e.span].held--
	err := c.commitErrorLocked(e, d, pins)
	if err != nil {
		c.vacateLocked(id)
		return err
	}
	e.Descriptor, e.state, e.pins = d, present, uint32(pins)
	c.index[d.Key] = id
	c.stats.Objects++
	c.stats.Bytes += int64(d.Length)
	c.stats.Puts++
	if pins > 0 {
		c.holdLocked(e)
	}
	cl := c.tickLocked(e)
	cl.present++
	cl.order.insert(id)
	return nil
}

func (c *Cache) commitErrorLocked(e *entry, d block.Descriptor, pins int) error {
	switch {
	case c.closed:
		return tier.ErrClosed
	case d.Length != e.Length:
		return fmt.Errorf("length %d of a reservation of %d bytes", d.Length, e.Length)
	case pins < 0:
		return fmt.Errorf("%d pins", pins)
	case pins > c.maxPins:
		return ErrPins
	}
	return c.existsLocked(d)
}

// Reserve implements tier.Memory.
func (c *Cache) Reserve(ctx context.Context, n int) (tier.Reservation, []block.Key, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.closedOrDone(ctx)
	if n < 0 && err == nil {
		err = errors.New("negative length")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("hostcache: reserve %d bytes: %w", n, err)
	}
	id, evicted, err := c.takeLocked(n)
	if err != nil {
		return nil, evicted, fmt.Errorf("hostcache: reserve %d bytes: %w", n, err)
	}
	e := c.entries.at(id)
	return &reservation{cache: c, id: id, object: e.token(id), bytes: c.bytesLocked(e)}, evicted, nil
}

// reservation is a slot that its owner fills.
type reservation struct {
	cache  *Cache
	id     uint32
	object uint64
	ended  bool
	bytes  []byte
}

// Bytes implements tier.Reservation.
func (r *reservation) Bytes() []byte { return r.bytes }

// Object implements tier.Reservation.
func (r *reservation) Object() uint64 { return r.object }

// Commit implements tier.Reservation. Any error gives the slot back.
func (r *reservation) Commit(d block.Descriptor, pins int) error {
	if r.ended {
		return fmt.Errorf("hostcache: commit %s: the reservation has ended", d.Key)
	}
	r.ended, r.bytes = true, nil
	c := r.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.commitLocked(r.id, d, pins); err != nil {
		return errors.Join(&opError{"commit", d.Key, err}, c.unmapLocked())
	}
	return nil
}

// Abort implements tier.Reservation.
func (r *reservation) Abort() {
	if r.ended {
		return
	}
	r.ended, r.bytes = true, nil
	c := r.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots--
	c.slabs.spans[c.entries.at(r.id).span].held--
	c.vacateLocked(r.id)
	_ = c.unmapLocked() // Abort has nobody to tell
}
