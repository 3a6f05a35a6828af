package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"cairn/block"
	"cairn/coherency"
	"cairn/tier"
	"cairn/wire"
)

// Taken says what became of a Take.
type Taken struct {
	// Held is how many of the leading blocks this node's home tier holds now.
	Held int
	// Refused says why it is not all of them; empty when it is.
	Refused TakeRefusal
	// Free and Capacity are those of the home tier, in bytes.
	Free, Capacity int64
	// Token is the place of the newest block in this node's stream of changes.
	Token wire.Token
}

// TakeRefusal is why a node has not taken over a block.
type TakeRefusal string

// The refusals.
const (
	// TakeFull: the home tier has no room without evicting other blocks, or what it has
	// cannot leave.
	TakeFull TakeRefusal = "full"
	// TakeCut: this node does not hold the block before it.
	TakeCut TakeRefusal = "cut"
	// TakeAbsent: the peer does not have the block any more, or sent other bytes.
	TakeAbsent TakeRefusal = "absent"
	// TakePeer: the peer could not be reached.
	TakePeer TakeRefusal = "unreachable"
	// TakeDraining: this node drains itself.
	TakeDraining TakeRefusal = "draining"
	// TakeFailed: the home tier has failed.
	TakeFailed TakeRefusal = "failed"
)

// Take makes blocks of a peer that is about to leave blocks of this node, durable in its
// home tier as if they had been put here: it answers when they are. Keys come in the order
// of their sequence. A block is taken only if this node holds its parent, so that what it
// announces stays prefix-closed; the first that is not ends the take. Unless evict is set,
// blocks end where the free room of the home tier does. On a node with a disk they do not
// pass through the host tier, which keeps what is in use there.
func (n *Node) Take(ctx context.Context, from string, keys []block.Key, evict bool) (Taken, error) {
	peer, ok := n.peers.Peer(from)
	if !ok {
		return Taken{}, fmt.Errorf("%w: no member is called %q", ErrPeer, from)
	}
	if n.drains() {
		return Taken{Refused: TakeDraining, Token: n.token(n.announced.Load())}, nil
	}
	select { // each has memory for a block
	case n.takes.slots <- struct{}{}:
		defer func() { <-n.takes.slots }()
	case <-ctx.Done():
		return Taken{}, ctx.Err()
	}
	t := take{n: n, evict: evict}
	t.run(ctx, peer.Addr, keys)
	home := n.stores[n.home]
	taken := Taken{Free: tier.Room(home), Capacity: home.Stats().Capacity, Token: n.token(n.announced.Load())}
	for taken.Held < len(keys) && n.durable(keys[taken.Held]) {
		taken.Held++
	}
	if taken.Held < len(keys) {
		taken.Refused = t.refused
		if taken.Refused == "" {
			taken.Refused = TakeAbsent
		}
	}
	return taken, nil
}

// durable tells whether the home tier holds the block.
func (n *Node) durable(key block.Key) bool {
	e, ok := n.dir.get(key)
	return ok && e.state.Durable()
}

// takes are the Takes under way.
type takes struct {
	slots   chan struct{} // an element each
	pending atomic.Int64  // bytes for which room was found, and that are not stored yet
}

// recordOverhead is what a store may need for a block beyond its bytes.
const recordOverhead = 4 << 10

// take is one Take under way. One goroutine uses it.
type take struct {
	n       *Node
	evict   bool
	refused TakeRefusal // why the first block that was not taken was not

	buf    []byte           // of a node with a disk: the block that arrives, or arrived last
	slot   tier.Reservation // of one without
	coming block.Descriptor
	kept   int64              // of takes.pending
	landed []block.Descriptor // in the home tier, not flushed and not in the directory yet
}

func (t *take) refuse(why TakeRefusal) {
	if t.refused == "" {
		t.refused = why
	}
}

func (t *take) run(ctx context.Context, addr string, keys []block.Key) {
	n := t.n
	missing, stopped := t.missing(ctx, keys)
	if len(missing) > 0 {
		fetch, cancel := context.WithTimeout(ctx, n.cfg.FetchTimeout)
		err := n.dialer.fetch(fetch, addr, missing,
			func(_ int, d block.Descriptor) ([]byte, error) { return t.place(fetch, d) },
			func(int) { t.arrived(fetch) })
		cancel()
		if err != nil {
			n.counters.peerErrors.Add(1)
			n.log.Debug("take over from peer", "peer", addr, "blocks", len(missing), "err", err)
			t.refuse(TakePeer)
		}
		t.settle(ctx)
	}
	if stopped != "" {
		t.refuse(stopped)
	}
}

// missing are the keys of blocks that no tier of this node holds. Those that lie in another
// tier than its home it makes durable; stopped says why the keys end at one that could
// not be.
func (t *take) missing(ctx context.Context, keys []block.Key) (missing []block.Key, stopped TakeRefusal) {
	for _, key := range keys {
		e, ok := t.n.dir.get(key)
		if ok && e.state.Durable() {
			continue
		}
		if ok {
			fits := t.room(int64(e.length))
			secured := fits && t.n.secure(ctx, key) == nil
			t.drop()
			if !fits {
				return missing, TakeFull
			}
			if secured {
				continue
			}
		}
		missing = append(missing, key)
	}
	return missing, ""
}

var errRefused = errors.New("block is not taken over")

// place gives memory for a block that is about to arrive, if it may be taken.
func (t *take) place(ctx context.Context, d block.Descriptor) ([]byte, error) {
	t.drop()
	switch {
	case t.refused != "":
	case int(d.Length) > t.n.cfg.MaxBlock:
		t.refuse(TakeFull)
	case !t.held(d.Parent):
		t.refuse(TakeCut)
	case !t.room(int64(d.Length)):
		t.refuse(TakeFull)
	}
	if t.refused != "" {
		return nil, errRefused
	}
	t.coming = d
	if t.n.home != block.Host {
		if cap(t.buf) < int(d.Length) {
			t.buf = make([]byte, d.Length)
		}
		t.buf = t.buf[:d.Length]
		return t.buf, nil
	}
	r, evicted, err := t.n.host.Reserve(ctx, int(d.Length))
	t.evicted(evicted)
	if err != nil {
		t.refuse(TakeFull)
		return nil, err
	}
	t.slot = r
	return r.Bytes(), nil
}

// held tells whether a block may follow parent here.
func (t *take) held(parent block.Key) bool {
	if parent.IsZero() || t.n.Holds(parent) {
		return true
	}
	for i := len(t.landed) - 1; i >= 0; i-- {
		if t.landed[i].Key == parent {
			return true
		}
	}
	return false
}

// room tells whether the home tier takes length more bytes without evicting, or may evict.
// They are kept for this take until drop.
func (t *take) room(length int64) bool {
	t.kept = length + recordOverhead
	pending := t.n.takes.pending.Add(t.kept)
	return t.evict || pending <= tier.Room(t.n.stores[t.n.home])
}

// evicted is told what the home tier has thrown out for a block. A tier with free room may
// have to all the same, where the room is of another size; then it is full.
func (t *take) evicted(keys []block.Key) {
	t.n.evicted(t.n.home, keys)
	if len(keys) > 0 && !t.evict {
		t.refuse(TakeFull)
	}
}

// drop gives back what is kept for a block that has landed, or will not.
func (t *take) drop() {
	t.n.takes.pending.Add(-t.kept)
	t.kept = 0
	if t.slot != nil {
		t.slot.Abort()
		t.slot = nil
		t.n.room.notify()
	}
}

// arrived puts a block whose bytes are there into the home tier.
func (t *take) arrived(ctx context.Context) {
	defer t.drop()
	n, d, p := t.n, t.coming, t.buf
	if t.slot != nil {
		p = t.slot.Bytes()
	}
	if !d.Matches(p) {
		n.log.Warn("peer sent bytes that do not match their checksum", "key", d.Key)
		t.refuse(TakeAbsent)
		return
	}
	var err error
	if t.slot != nil {
		err = t.slot.Commit(d, 1) // until the whole take has landed
		t.slot = nil
		if errors.Is(err, tier.ErrExists) {
			err = n.host.Pin(d.Key)
		}
	} else {
		var evicted []block.Key
		evicted, err = n.stores[n.home].Put(ctx, d, p)
		t.evicted(evicted)
		if errors.Is(err, tier.ErrExists) {
			err = nil
		}
	}
	switch {
	case err == nil:
		t.landed = append(t.landed, d)
	case errors.Is(err, tier.ErrFull), errors.Is(err, tier.ErrNoSpace), errors.Is(err, tier.ErrTooLarge):
		t.refuse(TakeFull)
	default:
		n.offloadFailed(d.Key, err)
		t.refuse(TakeFailed)
	}
}

// settle makes what has landed durable, and then known, parents first.
func (t *take) settle(ctx context.Context) {
	t.drop()
	n := t.n
	if len(t.landed) == 0 {
		return
	}
	err := n.syncHome(ctx)
	for _, d := range t.landed {
		if err == nil {
			err = n.enterCopy(d, n.home)
		}
		if err != nil {
			t.takeBack(d, err) // and those after it, which would be cut off
			continue
		}
		n.counters.taken.Add(1)
		n.counters.takenBytes.Add(int64(d.Length))
	}
	if err != nil {
		n.offloadFailed(t.landed[0].Key, err)
		t.refuse(TakeFailed)
	}
	if n.home != block.Host {
		return
	}
	for i := len(t.landed) - 1; i >= 0; i-- { // the last block first, so that it is the first to be evicted
		key := t.landed[i].Key
		if v, err := n.host.View(key); err == nil {
			v.Release()
		}
		n.host.Unpin(key)
	}
	n.room.notify()
}

// takeBack takes a block out of the home tier again that could not become known there,
// unless it has got there by another way meanwhile, or is about to.
func (t *take) takeBack(d block.Descriptor, why error) {
	n := t.n
	n.dir.change(d.Key, func(e *entry, known bool) {
		if !known || !e.state.Has(n.home) && !errors.Is(why, coherency.ErrInFlight) {
			n.stores[n.home].Delete(d.Key)
		}
	})
}

// secure makes a block durable that this node has in another tier only, such as a copy
// that an engine's sequence has brought here.
func (n *Node) secure(ctx context.Context, key block.Key) error {
	loan, err := n.readLocal(ctx, key)
	if err != nil {
		return err
	}
	defer loan.Release()
	if n.durable(key) {
		return nil
	}
	object, err := n.host.PinExact(key)
	if err != nil {
		return fmt.Errorf("node: make durable %s: %w", key, err)
	}
	if n.home == block.Host {
		defer n.host.UnpinExact(key, object)
		return n.enterCopy(loan.Descriptor, block.Host)
	}
	if err := n.flushNow(ctx, loan.Descriptor, object); err != nil {
		n.host.UnpinExact(key, object)
		return err
	}
	return nil
}
