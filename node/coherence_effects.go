package node

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// coherenceCounters count since the node started.
type coherenceCounters struct {
	messages  atomic.Int64 // published by this node
	replies   atomic.Int64
	conflicts atomic.Int64 // writes that were refused, or had to try again
	forwards  atomic.Int64 // reads that an owner was asked about
	losses    atomic.Int64 // declared, of any node
	passed    atomic.Int64 // barriers
	staged    atomic.Int64 // objects that this node has staged at homes
	stageFail atomic.Int64
	arrived   atomic.Int64 // objects that were staged at this node
	collected atomic.Int64
	rehomed   atomic.Int64
	expired   atomic.Int64 // names that were ended because their time was over
}

// carryOut does what the machine asks for, or begins it.
func (c *coherence) carryOut(effect protocol.Effect) {
	switch e := effect.(type) {
	case protocol.Publish:
		c.counters.messages.Add(1)
		c.ports.Publish(e.Message)
	case protocol.Reply:
		c.counters.replies.Add(1)
		c.answer(e.Op, effect)
	case protocol.Serve:
		c.answer(e.Op, effect)
	case protocol.Forward:
		c.answer(e.Op, effect)
	case protocol.Stage:
		c.stager.stage(e)
	case *protocol.Moved:
		c.moved(e)
	case protocol.Local:
		c.local(e)
	case protocol.Flushed:
		c.release(e.Key, e.Object)
	case protocol.LocalGone:
		c.localGone(e)
	case protocol.Collect:
		c.counters.collected.Add(1)
		c.homed.decided(e.Object)
		c.discard(e.Object)
	case protocol.Inquire:
		c.about(e.Key, func(ctx context.Context) protocol.Event { return c.inquire(ctx, e) })
	case protocol.Scan:
		c.scan(e)
	case protocol.Replicate:
		c.about(e.Key, func(ctx context.Context) protocol.Event { return c.replicate(ctx, e) })
	case protocol.Declared:
		c.declared(e.Pointer)
	case protocol.Cleared:
		c.cleared(e)
	case protocol.Passed:
		if c.current {
			c.counters.passed.Add(1)
		}
		c.epoch.Store(e.Epoch)
	case protocol.Alarm:
		c.log.Error("the coherence log cannot be trusted: strict service has ended on this node", "reason", e.Reason)
		c.alarm.Store(&e.Reason)
	case protocol.Left:
		c.publishMembers()
		select {
		case <-c.left:
		default:
			close(c.left)
		}
	}
}

// beside runs work that waits for the network or a disk.
func (c *coherence) beside(f func(context.Context)) {
	c.working.Go(func() { f(c.ctx) })
}

// about does something for one name that waits for peers, and gives the machine the event
// in which it ends, if any. Asked again meanwhile, it does nothing.
func (c *coherence) about(key block.Key, f func(context.Context) protocol.Event) {
	if _, busy := c.asking[key]; busy {
		return
	}
	c.asking[key] = struct{}{}
	c.askings.Store(int64(len(c.asking)))
	c.beside(func(ctx context.Context) {
		var end protocol.Event
		select {
		case c.slots <- struct{}{}:
			end = f(ctx)
			<-c.slots
		case <-ctx.Done():
		}
		c.submit(task{do: func() {
			delete(c.asking, key)
			c.askings.Store(int64(len(c.asking)))
			if end != nil {
				c.step(end)
			}
		}})
	})
}

// moved follows a pointer to its new version: what the old one named is not needed any
// more.
func (c *coherence) moved(e *protocol.Moved) {
	before, after := e.Before.Value.Object, e.After.Value.Object
	seen := e.Before.Value // by readers of this node
	own, ok := c.overlay.get(e.After.Key)
	if ok {
		seen = own.value
	}
	if ok && own.version <= e.After.Version {
		c.overlay.remove(e.After.Key)
		ok = false
	}
	c.homed.moved(e.After)
	if before != after {
		c.unpin(after) // an ordinary copy, or none, from now on
	}
	if !ok && e.Before.Version != e.After.Version {
		c.changed(e.After, seen)
	}
}

// local makes a version of this node's own the one that its readers see.
func (c *coherence) local(e protocol.Local) {
	object := e.Value.Object
	if !object.IsZero() && !c.pin(e.Key, object) && e.Value.Homes.Count() == 0 {
		c.log.Warn("the bytes of a write have left the node before it was flushed", "object", object)
		c.event(protocol.Gone{Key: e.Key, Object: object})
	}
	p, _ := c.table.lookup(e.Key)
	seen := p.Value
	if own, ok := c.overlay.get(e.Key); ok {
		seen = own.value
	}
	c.overlay.set(e.Key, localValue{version: e.Version, value: e.Value, namespace: p.Namespace})
	c.discard(e.Drop)
	p.Version, p.Value = e.Version, e.Value
	c.changed(p, seen)
}

// localGone lets go of all that this node has kept for a name.
func (c *coherence) localGone(e protocol.LocalGone) {
	c.overlay.remove(e.Key)
	for _, object := range slices.Clone(c.pinned.objects[e.Key]) {
		c.release(e.Key, object)
	}
	c.discard(e.Drop)
	c.watches.notify(e.Key)
}

// release ends what keeps an object of a name in the host tier. What neither the name
// has, nor is staged here, nobody needs: the name was cleared meanwhile, or taken away.
func (c *coherence) release(name, object block.Key) {
	p, _ := c.table.lookup(name)
	own, _ := c.overlay.get(name)
	if object == p.Value.Object || object == own.value.Object || c.homed.has(object) {
		c.unpin(object)
		return
	}
	c.discard(object)
}

// discard drops an object that nobody needs any more.
func (c *coherence) discard(object block.Key) {
	if object.IsZero() {
		return
	}
	c.pinned.remove(object) // with its object the pin goes
	c.dropper.drop(object)
}

// changed tells whoever watches a name, or listens to its events, that it has another
// version here; before is what its readers saw until now.
func (c *coherence) changed(p ledger.Pointer, before ledger.Value) {
	c.watches.notify(p.Key)
	if !c.current {
		return // it is reading what happened before
	}
	if c.n.pubsub.count.Load() == 0 {
		return
	}
	old, now := nameState{before.Object, before.Expires}, nameState{p.Value.Object, p.Value.Expires}
	for _, event := range nameEvents(old, now, time.Now()) {
		c.n.publishEvent(p.Namespace, p.Name, event)
	}
}

// declared says that writes were acknowledged and are lost.
func (c *coherence) declared(p ledger.Pointer) {
	if !c.current {
		return // it was said when it happened
	}
	c.counters.losses.Add(1)
	c.log.Warn("writes that their owner had acknowledged and not flushed are lost",
		"namespace", p.Namespace, "name", printable(p.Name), "version", uint64(p.Version))
	c.n.publishEvent(p.Namespace, p.Name, eventLost)
}

// cleared drops the objects of a namespace that was cleared.
func (c *coherence) cleared(e protocol.Cleared) {
	c.table.clear(e.Namespace, e.Place, func(name, object block.Key) {
		c.discard(object)
		c.watches.notify(name)
	})
}

const (
	scanOrphans = 1 << iota
	scanHomes
)

const (
	// scanPause is how long a scan of the names rests after each shard.
	scanPause = 200 * time.Microsecond
	// scanAhead is how many names may be asked about, or copied, when a scan goes on, and
	// scanWait how often it looks.
	scanAhead = 16 * besideAtOnce
	scanWait  = 5 * time.Millisecond
)

// scan looks for names that need to be looked after, beside the goroutine.
func (c *coherence) scan(e protocol.Scan) {
	var want int32
	if e.Orphans {
		want |= scanOrphans
	}
	if e.Homes {
		want |= scanHomes
	}
	if before := c.scanning.Or(want); before != 0 {
		return // the scan under way goes round again
	}
	c.beside(func(ctx context.Context) {
		for {
			now := c.scanning.Load()
			c.scanOnce(ctx, now)
			if ctx.Err() != nil || c.scanning.CompareAndSwap(now, 0) {
				return
			}
		}
	})
}

func (c *coherence) scanOnce(ctx context.Context, what int32) {
	var list []ledger.Pointer
	for shard := range shards {
		list = c.table.scan(shard, list[:0])
		for _, p := range list {
			if what&scanOrphans != 0 && c.orphaned(p) || what&scanHomes != 0 && c.homeless(p) {
				c.event(protocol.Check{Key: p.Key, Space: c.spaces[p.Namespace]})
				for c.askings.Load() > scanAhead {
					if !pause(ctx, scanWait) {
						return
					}
				}
			}
		}
		if len(list) > 0 && !pause(ctx, scanPause) {
			return
		}
	}
}

// pause waits; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// orphaned tells whether a dead incarnation owns a block.
func (c *coherence) orphaned(p ledger.Pointer) bool {
	if !p.Owned() {
		return false
	}
	m, ok := c.member(p.Owner)
	return !ok || !m.Live || m.Incarnation != p.OwnerIncarnation
}

// homeless tells whether this node is a home of a block that has fewer live ones than it
// should have. One that is about to leave does not count.
func (c *coherence) homeless(p ledger.Pointer) bool {
	if !p.Value.Homes.Has(uint16(c.number.Load())) {
		return false
	}
	live := 0
	for _, h := range p.Value.Homes {
		if c.keeps(h) {
			live++
		}
	}
	s := c.spaces[p.Namespace]
	return live < max(p.Value.Homes.Count(), s.Homes, s.Copies)
}
