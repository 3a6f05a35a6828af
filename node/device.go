package node

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"cairn/block"
	"cairn/tier"
)

// Errors of engines that work in the node's GPU memory. What a caller can do about each is
// in its text.
var (
	// ErrNoDevice: there is no GPU memory to work in, or not over this connection.
	ErrNoDevice = errors.New("no GPU memory for engines")
	// ErrSlot: the connection has no such slot, pin or region.
	ErrSlot = errors.New("no such slot, pin or region")
	// ErrDevicePins: engines hold as much of GPU memory as they may.
	ErrDevicePins = errors.New("too much of GPU memory held by engines")
	// ErrDeviceLimit: a limit of the configuration on one connection.
	ErrDeviceLimit = errors.New("limit of engines in GPU memory")
)

// devices is what engines on this machine hold of the node's GPU memory.
//
// # Whom the node trusts, and with what
//
// An engine that has mapped the arena can write anywhere in it, at any time, and the node
// cannot prevent it: that is why only processes of the node's own user are let in. What
// the node does see to is that an engine which keeps to the rules (it writes to slots that
// it has reserved and not yet committed, and reads what it has pinned) never harms a
// block, whatever happens to the engine or its connection:
//
//   - A slot is invisible until it is committed, and its checksum is that of the copy
//     which the node has made of it then. Bytes that leave GPU memory for anybody but an
//     engine in place are compared with it, so a write to a block that is committed makes
//     the copy in GPU memory useless, and no other.
//   - A slot whose connection has gone is not used again while its process lives, which
//     may still be writing (a kernel that was launched before goes on). It is in quarantine
//     until the process has ended, or says on another connection that nothing of it writes
//     any more (CAIRN.DEVICE.RECLAIM).
//   - A pin ends with its connection. Who reads on without it may read other bytes, and
//     learns so when it lets go of the pin, which is not there any more.
type devices struct {
	n     *Node
	store tier.Device // nil: there is none, because of why
	why   error
	arena tier.Arena
	limit int64 // bytes that engines may hold

	commits  [2]atomic.Int64 // of sealed blocks, of names
	stored   atomic.Int64    // bytes
	released atomic.Int64    // slots whose process ended, or disowned them

	waiting sync.WaitGroup // for processes to end

	// mu guards what follows.
	mu         sync.Mutex
	closed     bool
	last       uint64 // number given
	held       int64  // bytes of pinned blocks, reserved slots and those in quarantine
	pins       map[block.Key]devicePin
	slots      int
	regions    int
	quarantine map[*quarantined]struct{}
}

// devicePin is a block that engines have pinned in place. It counts once.
type devicePin struct {
	refs  int
	bytes int64
}

// quarantined is the slots that a process has not given back.
type quarantined struct {
	process *process
	slots   []tier.DeviceSlot
}

func newDevices(n *Node) *devices {
	d := &devices{n: n, pins: map[block.Key]devicePin{}, quarantine: map[*quarantined]struct{}{}}
	store, ok := n.stores[block.VRAM].(tier.Device)
	if !ok {
		d.why = fmt.Errorf("%w: this node has none", ErrNoDevice)
		return d
	}
	var err error
	if d.arena, err = store.Arena(); err != nil {
		d.why = fmt.Errorf("%w: %w", ErrNoDevice, err)
		return d
	}
	d.store = store
	d.limit = int64(n.cfg.DevicePins * float64(d.arena.Bytes))
	return d
}

// ready is nil while engines can work in GPU memory.
func (d *devices) ready() error {
	if d.why == nil && d.n.lost[block.VRAM].Load() {
		return fmt.Errorf("%w: %w", ErrNoDevice, tier.ErrDeviceLost)
	}
	return d.why
}

// room is what an object of so many bytes takes.
func (d *devices) room(n int) int64 {
	i, _ := slices.BinarySearch(d.arena.Classes, n)
	if i == len(d.arena.Classes) {
		return int64(n)
	}
	return int64(d.arena.Classes[i])
}

// takeLocked lets engines hold more.
func (d *devices) takeLocked(bytes int64) error {
	switch {
	case d.closed:
		return ErrClosed
	case d.held+bytes > d.limit:
		return fmt.Errorf("%w: %d of at most %d bytes, and %d more are needed: let go of some, or raise device-pins", ErrDevicePins, d.held, d.limit, bytes)
	}
	d.held += bytes
	return nil
}

// number is one that nothing of this node has had since it started.
func (d *devices) number() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	return d.last
}

// hold counts a pinned object for an engine, and takes the pin over. On error the pin has
// ended.
func (d *devices) hold(p tier.Placed) error {
	d.mu.Lock()
	pin := d.pins[p.Key]
	var err error
	if pin.refs == 0 {
		pin.bytes = d.room(int(p.Length))
		err = d.takeLocked(pin.bytes)
	}
	if err == nil {
		pin.refs++
		d.pins[p.Key] = pin
	}
	d.mu.Unlock()
	if err != nil {
		p.Release()
	}
	return err
}

// letGo undoes hold.
func (d *devices) letGo(p tier.Placed) {
	p.Release()
	d.mu.Lock()
	pin := d.pins[p.Key]
	if pin.refs--; pin.refs == 0 {
		delete(d.pins, p.Key)
		d.held -= pin.bytes
	} else {
		d.pins[p.Key] = pin
	}
	d.mu.Unlock()
	d.n.room.notify()
}

// counted is what a slot counts for.
func (d *devices) counted(slots ...tier.DeviceSlot) (bytes int64) {
	for _, s := range slots {
		bytes += d.room(s.Len())
	}
	return bytes
}

// uncount ends the counting of slots that have become blocks, or were given back.
func (d *devices) uncount(slots ...tier.DeviceSlot) {
	bytes := d.counted(slots...)
	d.mu.Lock()
	d.held -= bytes
	d.slots -= len(slots)
	d.mu.Unlock()
	d.n.room.notify()
}

// abort gives slots back.
func (d *devices) abort(slots ...tier.DeviceSlot) {
	for _, s := range slots {
		s.Abort()
	}
	d.uncount(slots...)
}

// isolate puts the slots of a connection that has gone into quarantine, until their process
// has ended. It takes the process over.
func (d *devices) isolate(p *process, slots []tier.DeviceSlot) {
	d.mu.Lock()
	if d.closed || len(slots) == 0 {
		d.mu.Unlock()
		d.abort(slots...)
		p.close()
		return
	}
	q := &quarantined{process: p, slots: slots}
	d.quarantine[q] = struct{}{}
	d.waiting.Add(1)
	d.mu.Unlock()
	go func() {
		defer d.waiting.Done()
		if !p.wait() {
			return // they were given free otherwise
		}
		d.mu.Lock()
		_, there := d.quarantine[q]
		delete(d.quarantine, q)
		d.mu.Unlock()
		if there {
			d.free(q)
		}
	}()
}

// free ends a quarantine that has been taken out of the list.
func (d *devices) free(q *quarantined) {
	d.released.Add(int64(len(q.slots)))
	d.abort(q.slots...)
	q.process.close()
}

// reclaim frees what earlier connections of a process have left in quarantine, because it
// says that nothing of them writes any more. It returns how many slots that were.
func (d *devices) reclaim(pid int) (slots int) {
	return d.release(func(q *quarantined) bool { return q.process.pid == pid })
}

func (d *devices) release(which func(*quarantined) bool) (slots int) {
	d.mu.Lock()
	var list []*quarantined
	for q := range d.quarantine {
		if which(q) {
			list = append(list, q)
			delete(d.quarantine, q)
		}
	}
	d.mu.Unlock()
	for _, q := range list {
		slots += len(q.slots)
		d.free(q)
	}
	return slots
}

// close gives everything in quarantine free: the arena goes as a whole. Connections have
// ended, or find it closed.
func (d *devices) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.release(func(*quarantined) bool { return true })
	d.waiting.Wait()
}

// DevicesStatus sums up what engines hold of GPU memory in place. Counters count since the
// node started.
type DevicesStatus struct {
	// Held and Limit are bytes: what engines hold now, in any of the ways below, and the
	// most that they may.
	Held  int64 `json:"held"`
	Limit int64 `json:"limit"`
	// Pinned is blocks that engines read in place, Slots what they have reserved,
	// Quarantined the slots among these whose connection has gone while its process lives;
	// Regions is the pieces of engines' memory that the node has mapped.
	Pinned      int `json:"pinned"`
	Slots       int `json:"slots"`
	Quarantined int `json:"quarantined"`
	Regions     int `json:"regions"`
	// Sealed and Names are blocks that engines have committed from slots, of Bytes bytes.
	Sealed int64 `json:"sealed"`
	Names  int64 `json:"names"`
	Bytes  int64 `json:"bytes"`
	// Released is slots that came back because their process had ended or disowned them.
	Released int64 `json:"released"`
}

func (d *devices) status() DevicesStatus {
	st := DevicesStatus{Sealed: d.commits[0].Load(), Names: d.commits[1].Load(), Bytes: d.stored.Load(), Released: d.released.Load()}
	d.mu.Lock()
	defer d.mu.Unlock()
	st.Held, st.Limit, st.Pinned, st.Slots, st.Regions = d.held, d.limit, len(d.pins), d.slots, d.regions
	for q := range d.quarantine {
		st.Quarantined += len(q.slots)
	}
	return st
}
