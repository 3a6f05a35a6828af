package hostcache

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	"cairn/block"
	"cairn/tier"
)

// ErrPins: the block has Config.MaxPins pins and views already; someone does not
// give them back.
var ErrPins = errors.New("too many pins on one block")

// opError says what was done to which block when err happened. Misses are
// frequent, so the text is made only when someone reads it.
type opError struct {
	op  string
	key block.Key
	err error
}

func (e *opError) Error() string { return fmt.Sprintf("hostcache: %s %s: %v", e.op, e.key, e.err) }
func (e *opError) Unwrap() error { return e.err }

// Cache is the host-memory tier. All methods may be called in parallel; bytes are
// copied outside its lock.
type Cache struct {
	maxPins  int
	classes  []*class // by size
	capacity int64

	mu      sync.Mutex // guards everything below
	idle    sync.Cond  // calls is zero; on mu
	arena   *arena
	slabs   *slabs
	entries *table
	index   map[block.Key]uint32
	tick    uint64 // clock of uses
	calls   int    // Put and Get that are copying
	slots   int    // views and reservations not given back
	closed  bool
	stats   tier.Stats
	ask     func(block.Key) tier.Hint // nil until somebody advises
}

var (
	_ tier.Memory  = (*Cache)(nil)
	_ tier.Slotted = (*Cache)(nil)
	_ tier.Advised = (*Cache)(nil)
)

// Open makes an empty cache. The caller must Close it.
func Open(cfg Config) (*Cache, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	n := int(cfg.Capacity / int64(cfg.SlabSize))
	c := &Cache{
		maxPins:  cfg.MaxPins,
		capacity: int64(n) * int64(cfg.SlabSize),
		slabs:    newSlabs(n, cfg.SlabSize),
		entries:  &table{free: noEntry},
		index:    make(map[block.Key]uint32),
	}
	c.idle.L = &c.mu
	orders, err := c.newOrders(cfg)
	if err != nil {
		return nil, fmt.Errorf("hostcache: open: %w", err)
	}
	for i, size := range cfg.Classes {
		c.classes = append(c.classes, c.slabs.newClass(size, orders[i]))
	}
	a, err := openArena(c.capacity, cfg.Prefault, cfg.Logger)
	if err != nil {
		return nil, err
	}
	if err := a.lock(cfg.Lock); err != nil {
		return nil, errors.Join(err, a.close())
	}
	c.arena = a
	return c, nil
}

// Close waits for Put and Get calls under way and forgets every block. Views and
// reservations not given back stay readable and writable; the memory is
// unmapped with the last of them. Later calls give tier.ErrClosed, another Close
// nothing.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.index = nil
	for c.calls > 0 {
		c.idle.Wait()
	}
	return c.unmapLocked()
}

// unmapLocked releases the memory of a closed cache that nobody uses any more.
func (c *Cache) unmapLocked() error {
	if !c.closed || c.calls > 0 || c.slots > 0 || c.arena == nil {
		return nil
	}
	err := c.arena.close()
	c.arena, c.slabs, c.classes, c.entries = nil, nil, nil, nil
	if err != nil {
		return fmt.Errorf("hostcache: close: %w", err)
	}
	return nil
}

// endCallLocked ends a call that copied outside the lock.
func (c *Cache) endCallLocked() {
	if c.calls--; c.calls == 0 && c.closed {
		c.idle.Broadcast()
	}
}

// Stat implements tier.Store.
func (c *Cache) Stat(key block.Key) (block.Descriptor, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.index[key]
	if !ok {
		return block.Descriptor{}, false
	}
	return c.entries.at(id).Descriptor, true
}

// All implements tier.Store. It holds the lock for a thousand objects at a time,
// and not during yield.
func (c *Cache) All(yield func(block.Descriptor) bool) {
	batch := make([]block.Descriptor, 0, chunkLen)
	for chunk := 0; ; chunk++ {
		c.mu.Lock()
		if c.closed || chunk >= len(c.entries.chunks) {
			c.mu.Unlock()
			return
		}
		batch = batch[:0]
		for i := range c.entries.chunks[chunk] {
			if e := &c.entries.chunks[chunk][i]; e.state == present {
				batch = append(batch, e.Descriptor)
			}
		}
		c.mu.Unlock()
		for _, d := range batch {
			if !yield(d) {
				return
			}
		}
	}
}

// Stats implements tier.Store. Used counts whole slots, reserved ones and those of
// deleted blocks that are still viewed among them.
func (c *Cache) Stats() tier.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Capacity = c.capacity
	if c.closed {
		s.Objects, s.Bytes, s.Used, s.Pinned = 0, 0, 0, 0
	}
	return s
}

// Delete implements tier.Store. It overrides pins; the slot of a block that is
// viewed is reused after the last Release.
func (c *Cache) Delete(key block.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.index[key]
	if !ok {
		return false
	}
	c.stats.Deletes++
	c.orderLocked(id).remove(id)
	c.removeLocked(id)
	return true
}

// Evict implements tier.Evictor.
func (c *Cache) Evict(key block.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.index[key]
	if !ok || c.entries.at(id).held() || c.entries.at(id).children > 0 {
		return false
	}
	c.evictLocked(id, nil)
	return true
}

// classOf is the smallest class for n bytes.
func (c *Cache) classOf(n int) (*class, error) {
	i := sort.Search(len(c.classes), func(i int) bool { return c.classes[i].size >= n })
	if i == len(c.classes) {
		return nil, tier.ErrTooLarge
	}
	return c.classes[i], nil
}

// bytesLocked are the bytes of an entry in the arena. They cannot be extended
// into the next slot.
func (c *Cache) bytesLocked(e *entry) []byte {
	from := c.slabs.offset(e.span, e.slot)
	to := from + int(e.Length)
	return c.arena.mem[from:to:to]
}

// useLocked is a use of an entry present.
func (c *Cache) useLocked(id uint32, e *entry) { c.tickLocked(e).order.touch(id) }

// tickLocked notes the time of a use, and returns the entry's class.
func (c *Cache) tickLocked(e *entry) *class {
	c.tick++
	sp := &c.slabs.spans[e.span]
	sp.tickSum += c.tick - e.tick
	sp.class.tickSum += c.tick - e.tick
	e.tick = c.tick
	return sp.class
}

// orderLocked is the order that an entry is in.
func (c *Cache) orderLocked(id uint32) order {
	return c.slabs.spans[c.entries.at(id).span].class.order
}

// holdLocked and unholdLocked note that an entry present got its first pin or
// view, or lost its last.
func (c *Cache) holdLocked(e *entry) {
	c.slabs.spans[e.span].held++
	c.stats.Pinned++
}

func (c *Cache) unholdLocked(id uint32, e *entry) {
	c.slabs.spans[e.span].held--
	c.stats.Pinned--
	if e.run == 0 { // eviction met it
		c.tickLocked(e).order.unpark(id)
	}
}

// removeLocked takes an entry present, which its order has let go, out of the index,
// and frees its slot unless it is viewed.
func (c *Cache) removeLocked(id uint32) {
	e := c.entries.at(id)
	sp := &c.slabs.spans[e.span]
	delete(c.index, e.Key)
	sp.tickSum -= e.tick
	sp.class.tickSum -= e.tick
	sp.class.present--
	c.stats.Objects--
	c.stats.Bytes -= int64(e.Length)
	if e.held() {
		c.stats.Pinned--
	}
	if e.views > 0 {
		e.pins, e.state = 0, deleted
		return
	}
	if e.pins > 0 {
		sp.held--
	}
	c.vacateLocked(id)
}

// vacateLocked frees the slot of an entry that is neither present nor viewed.
func (c *Cache) vacateLocked(id uint32) {
	e := c.entries.at(id)
	c.stats.Used -= int64(c.slabs.spans[e.span].class.size)
	c.slabs.giveSlot(e.span, e.slot)
	c.entries.give(id)
}

// evictLocked removes an entry to make room.
func (c *Cache) evictLocked(id uint32, evicted []block.Key) []block.Key {
	evicted = append(evicted, c.entries.at(id).Key)
	c.stats.Evictions++
	c.orderLocked(id).evict(id)
	c.removeLocked(id)
	return evicted
}

// closedOrDone is the error of a call that must not start.
func (c *Cache) closedOrDone(ctx context.Context) error {
	if c.closed {
		return tier.ErrClosed
	}
	return ctx.Err()
}
