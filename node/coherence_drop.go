package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
)

// Objects that names have left stay for retiredFor, so that a reader who has just found
// the pointer still finds the bytes, however fast the name is overwritten; but at most
// mostRetired of them.
const (
	retiredFor  = 100 * time.Millisecond
	mostRetired = 1024
)

// dropper takes objects that nobody needs any more out of the tiers, beside the
// coherence goroutine.
type dropper struct {
	c    *coherence
	wake chan struct{} // holds a token when there is something new

	removals atomic.Uint64 // how often objects were taken out

	// removing is held while objects are taken out. It is locked before mu.
	removing sync.Mutex
	// mu guards the rest.
	mu      sync.Mutex
	keys    []block.Key
	labels  []block.Key
	retired []retired // the oldest first
}

// retired is an object that goes at a time of the machine's clock.
type retired struct {
	object block.Key
	until  time.Duration
}

// drop takes an object out at once.
func (d *dropper) drop(object block.Key) {
	d.mu.Lock()
	d.keys = append(d.keys, object)
	first := len(d.keys) == 1
	d.mu.Unlock()
	if first {
		d.notify()
	}
}

// dropLabel drops a label of the home tier, which no directory knows.
func (d *dropper) dropLabel(label block.Key) {
	d.mu.Lock()
	d.labels = append(d.labels, label)
	d.mu.Unlock()
	d.notify()
}

// retire takes objects out after a moment.
func (d *dropper) retire(objects []block.Key) {
	if len(objects) == 0 {
		return
	}
	until := d.c.now() + retiredFor
	d.mu.Lock()
	first := len(d.retired) == 0
	for _, object := range objects {
		d.retired = append(d.retired, retired{object, until})
	}
	early := len(d.retired) > mostRetired
	d.mu.Unlock()
	if first || early {
		d.notify()
	}
}

func (d *dropper) notify() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// pending are the labels that wait to be dropped.
func (d *dropper) pending() []block.Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.labels
}

// take gives what is to be dropped now, in the place of two slices that are not needed
// any more, and how long it is until the next retired object goes; 0: there is none.
func (d *dropper) take(keys, labels []block.Key) (_, _ []block.Key, next time.Duration) {
	now := d.c.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	keys, d.keys = d.keys, keys[:0]
	labels, d.labels = d.labels, labels[:0]
	due := max(len(d.retired)-mostRetired, 0)
	for due < len(d.retired) && d.retired[due].until <= now {
		due++
	}
	for _, r := range d.retired[:due] {
		keys = append(keys, r.object)
	}
	d.retired = append(d.retired[:0], d.retired[due:]...)
	if len(d.retired) > 0 {
		next = d.retired[0].until - now
	}
	return keys, labels, next
}

// hurry takes out at once what may go, retired objects too, because room is needed. It
// returns removals: who read them before he found that there is no room knows by that whether
// some has been made since, be it by somebody else.
func (d *dropper) hurry() uint64 {
	d.removing.Lock()
	defer d.removing.Unlock()
	d.mu.Lock()
	keys := d.keys
	d.keys = nil
	for _, r := range d.retired {
		keys = append(keys, r.object)
	}
	d.retired = d.retired[:0]
	d.mu.Unlock()
	d.remove(keys, nil)
	return d.removals.Load()
}

// remove takes objects, and labels of the home tier, out of the tiers.
func (d *dropper) remove(keys, labels []block.Key) {
	n := d.c.n
	if len(keys) > 0 {
		defer d.removals.Add(1)
	}
	if gone := n.Remove(keys...); gone > 0 {
		n.counters.invalidated.Add(int64(gone))
		n.room.notify()
	}
	if n.home == block.Host && len(keys) > 0 {
		d.c.homed.removed(keys)
	}
	for _, label := range labels {
		n.stores[n.home].Delete(label)
	}
}

func (d *dropper) run(ctx context.Context) {
	var keys, labels []block.Key
	for {
		var next time.Duration
		d.removing.Lock()
		keys, labels, next = d.take(keys, labels)
		d.remove(keys, labels)
		d.removing.Unlock()
		if len(keys)+len(labels) > 0 {
			continue
		}
		var due <-chan time.Time
		if next > 0 {
			due = time.After(next)
		}
		select {
		case <-d.wake:
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}
