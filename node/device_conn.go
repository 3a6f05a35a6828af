package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cairn/block"
	"cairn/tier"
)

// deviceConn is what one connection of an engine holds of GPU memory, under numbers that
// the engine was given. Its methods are called between begin and end.
type deviceConn struct {
	d       *devices
	process *process

	// mu is held from begin to end, and while the idle time ends.
	mu      sync.Mutex
	idle    *time.Timer
	used    time.Time // when the last command ended
	ended   bool
	slots   map[uint64]tier.DeviceSlot
	pins    map[uint64]tier.Placed
	regions map[uint64]tier.Region
	mapped  int64 // bytes of regions
}

// device is the connection's hold on GPU memory, which begins with its first use.
func (s *session) device() (*deviceConn, error) {
	d := s.n.devices
	if err := d.ready(); err != nil {
		return nil, err
	}
	if s.deviceConn == nil {
		p, err := peerProcess(s.conn.Conn)
		if err != nil {
			return nil, err
		}
		c := &deviceConn{d: d, process: p, slots: map[uint64]tier.DeviceSlot{}, pins: map[uint64]tier.Placed{}, regions: map[uint64]tier.Region{}}
		c.idle = time.AfterFunc(d.n.cfg.DeviceIdle, c.expire)
		s.deviceConn = c
	}
	return s.deviceConn, nil
}

// closeDevice ends what the connection holds.
func (s *session) closeDevice() {
	if c := s.deviceConn; c != nil {
		s.deviceConn = nil
		c.close()
	}
}

func (c *deviceConn) begin() {
	c.mu.Lock()
	c.idle.Stop()
}

func (c *deviceConn) end() {
	c.used = time.Now()
	c.mu.Unlock() // first: expire gives way to who holds it
	c.idle.Reset(c.d.n.cfg.DeviceIdle)
}

// expire takes from an engine what it has not used for long. The next use finds nothing
// under the old numbers.
func (c *deviceConn) expire() {
	if !c.mu.TryLock() {
		return // a command is under way, and sets the timer again
	}
	defer c.mu.Unlock()
	if time.Since(c.used) < c.d.n.cfg.DeviceIdle {
		return // a command has come and gone while this was on its way, and set the timer
	}
	if c.ended || len(c.slots)+len(c.pins)+len(c.regions) == 0 {
		return
	}
	c.d.n.log.Info("an engine lost its hold on GPU memory: nothing came from it", "process", c.process.pid, "for", c.d.n.cfg.DeviceIdle,
		"pins", len(c.pins), "slots", len(c.slots))
	p, err := openProcess(c.process.pid)
	if err != nil { // it has ended
		p = c.process
	}
	c.dropLocked(p)
	if err != nil {
		c.ended = true
	}
}

func (c *deviceConn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle.Stop()
	if !c.ended {
		c.ended = true
		c.dropLocked(c.process)
	}
}

// dropLocked lets go of everything. Slots go into quarantine with the process p, which it
// takes over.
func (c *deviceConn) dropLocked(p *process) {
	for _, at := range c.pins {
		c.d.letGo(at)
	}
	for _, r := range c.regions {
		c.closeRegion(r)
	}
	slots := make([]tier.DeviceSlot, 0, len(c.slots))
	for _, s := range c.slots {
		slots = append(slots, s)
	}
	clear(c.pins)
	clear(c.regions)
	clear(c.slots)
	c.d.isolate(p, slots)
}

// mayHold checks that the connection may hold so many slots and pins more.
func (c *deviceConn) mayHold(more int) error {
	if has, most := len(c.slots)+len(c.pins), c.d.n.cfg.DeviceHolds; has+more > most {
		return fmt.Errorf("%w: this connection holds %d slots and pins, max-device-holds is %d: let go of some", ErrDeviceLimit, has, most)
	}
	return nil
}

// errEnded: the process behind the connection was found dead.
var errEnded = fmt.Errorf("%w: the process that connected has ended", ErrNoDevice)

func (c *deviceConn) usable() error {
	if c.ended {
		return errEnded
	}
	return nil
}

// reserve takes slots, all or none.
func (c *deviceConn) reserve(ctx context.Context, lengths []int) (numbers []uint64, slots []tier.DeviceSlot, err error) {
	if err := errors.Join(c.usable(), c.mayHold(len(lengths))); err != nil {
		return nil, nil, err
	}
	for _, length := range lengths {
		s, err := c.d.reserve(ctx, length)
		if err != nil {
			c.d.abort(slots...)
			return nil, nil, err
		}
		slots = append(slots, s)
	}
	for _, s := range slots {
		number := c.d.number()
		c.slots[number] = s
		numbers = append(numbers, number)
	}
	return numbers, slots, nil
}

// slot is the connection's slot of that number.
func (c *deviceConn) slot(number uint64) (tier.DeviceSlot, error) {
	if s, ok := c.slots[number]; ok {
		return s, nil
	}
	return nil, fmt.Errorf("%w on this connection: slot %d: it was committed, aborted, or taken away after %v without a command", ErrSlot, number, c.d.n.cfg.DeviceIdle)
}

func (c *deviceConn) region(number uint64) (tier.Region, error) {
	if r, ok := c.regions[number]; ok {
		return r, nil
	}
	return nil, fmt.Errorf("%w on this connection: region %d", ErrSlot, number)
}

// keep makes a pin the connection's, under a number.
func (c *deviceConn) keep(at tier.Placed) (uint64, error) {
	if err := errors.Join(c.usable(), c.mayHold(1)); err != nil {
		at.Release()
		return 0, err
	}
	if err := c.d.hold(at); err != nil {
		return 0, err
	}
	number := c.d.number()
	c.pins[number] = at
	return number, nil
}

// pin pins blocks where they lie; 0 is one that is not in GPU memory. On error nothing is
// pinned.
func (c *deviceConn) pin(keys []block.Key) (numbers []uint64, at []tier.Placed, err error) {
	for _, key := range keys {
		p, err := c.d.find(key)
		number := uint64(0)
		if err == nil {
			number, err = c.keep(p)
		}
		if err != nil && !errors.Is(err, tier.ErrNotFound) {
			c.unpin(numbers)
			return nil, nil, err
		}
		numbers, at = append(numbers, number), append(at, p)
		if number != 0 {
			c.d.n.counters.hits[FromVRAM].Add(1)
			c.d.n.counters.hitBytes[FromVRAM].Add(int64(p.Length))
		}
	}
	return numbers, at, nil
}

// unpin returns how many of the pins were there still.
func (c *deviceConn) unpin(numbers []uint64) (there int) {
	for _, number := range numbers {
		if at, ok := c.pins[number]; ok {
			delete(c.pins, number)
			c.d.letGo(at)
			there++
		}
	}
	return there
}

// abort returns how many of the slots were there still.
func (c *deviceConn) abort(numbers []uint64) (there int) {
	for _, number := range numbers {
		if s, ok := c.slots[number]; ok {
			delete(c.slots, number)
			c.d.abort(s)
			there++
		}
	}
	return there
}

// importRegion maps memory of the engine.
func (c *deviceConn) importRegion(handle []byte) (number uint64, size int64, err error) {
	if err := c.usable(); err != nil {
		return 0, 0, err
	}
	cfg := &c.d.n.cfg
	if len(c.regions) >= cfg.DeviceRegions {
		return 0, 0, fmt.Errorf("%w: this connection has %d regions, max-device-regions is %d: unimport some", ErrDeviceLimit, len(c.regions), cfg.DeviceRegions)
	}
	r, err := c.d.store.Import(slices.Clone(handle))
	if err != nil {
		return 0, 0, c.d.noted(err)
	}
	c.mapped += r.Size()
	c.d.mu.Lock()
	c.d.regions++
	c.d.mu.Unlock()
	if c.mapped > cfg.DeviceRegionBytes {
		err := fmt.Errorf("%w: %d bytes of this connection's regions, max-device-region-bytes is %d: unimport some", ErrDeviceLimit, c.mapped, cfg.DeviceRegionBytes)
		c.closeRegion(r)
		return 0, 0, err
	}
	number = c.d.number()
	c.regions[number] = r
	return number, r.Size(), nil
}

func (c *deviceConn) closeRegion(r tier.Region) {
	c.mapped -= r.Size()
	c.d.mu.Lock()
	c.d.regions--
	c.d.mu.Unlock()
	if err := r.Close(); err != nil {
		c.d.n.log.Warn("memory of an engine stays mapped", "process", c.process.pid, "err", err)
	}
}
