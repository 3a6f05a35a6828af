package coherency

import (
	"fmt"

	"cairn/block"
)

// Epoch counts completed barriers of a [SyncQueue]. It has nothing to do with a
// [Version].
type Epoch uint64

// Intent is one copy owed: bring the newest version of a block, Version or
// later, to the tier To.
type Intent struct {
	Key     block.Key
	Version Version
	// Epoch is the barrier that this intent holds up.
	Epoch Epoch
	// From is the tier that had the bytes when the intent was added; Begin picks
	// the best one at the time of the copy.
	From, To block.Tier
}

// SyncQueue remembers the copies that a node owes, until they are done. It is
// keyed by block and target: a second intent for the same pair takes the place of
// the first, with the newer version. The order is first in, first out, and the
// same calls give the same answers. A SyncQueue does no locking; its
// owner does. Make it with [NewSyncQueue].
type SyncQueue struct {
	policy WritePolicy
	slots  []slot           // entries by index, so that none needs a pointer
	free   []int32          // unused slots
	index  map[target]int32 // entry of each pair
	// Entries that can be handed out form a list through slot.next and slot.prev.
	head, tail int32
	waiting    int // entries with something waiting, in the list or behind a flight
	flying     int // entries with something in flight
	synced     uint64
	epoch      Epoch
	// owed[i] counts intents of epoch+i, waiting or in flight. Its last element
	// is the open epoch, which new intents join; there is always one.
	owed []int
}

type target struct {
	key block.Key
	to  block.Tier
}

// slot is what is owed to one target: at most one intent waits and at most one
// older one is in flight. Version 0 stands for none. It is in the list while
// something waits and nothing is in flight.
type slot struct {
	target
	next, prev int32
	wait, fly  owing
}

type owing struct {
	version Version
	epoch   Epoch
	from    block.Tier
}

const none int32 = -1

// NewSyncQueue is an empty queue in epoch 0. The policy is what [SyncQueue.Policy]
// returns; the queue itself treats all alike.
func NewSyncQueue(policy WritePolicy) *SyncQueue {
	return &SyncQueue{policy: policy, index: map[target]int32{}, head: none, tail: none, owed: []int{0}}
}

// Policy is the write policy that the queue was made with.
func (q *SyncQueue) Policy() WritePolicy { return q.policy }

// Add records that version of the block is owed to the tier to. An intent for the
// same block and tier that waits already keeps its place and its epoch and takes
// the newer version; if that version, or a newer one, waits or is in flight
// already, nothing changes and added is false.
func (q *SyncQueue) Add(key block.Key, version Version, from, to block.Tier) (added bool) {
	i := q.slot(target{key, to})
	e := &q.slots[i]
	switch {
	case version <= e.wait.version || version <= e.fly.version:
		q.release(i)
		return false
	case e.wait.version != 0:
		e.wait.version, e.wait.from = version, from
		return true
	}
	q.park(i, owing{version: version, epoch: q.open(), from: from})
	return true
}

// Next hands out up to n intents, in order. They stay in the queue, in flight,
// until Done, Fail or Drop. A block of which an older version is in flight to the
// same tier gets its turn when that copy ends.
func (q *SyncQueue) Next(n int) []Intent {
	if n <= 0 || q.head == none {
		return nil
	}
	out := make([]Intent, 0, min(n, q.waiting))
	for i := q.head; i != none && len(out) < n; i = q.head {
		e := &q.slots[i]
		o := e.wait
		q.unpark(i)
		e.fly = o
		q.flying++
		q.count(o.epoch, 1)
		out = append(out, Intent{Key: e.key, Version: o.version, Epoch: o.epoch, From: o.from, To: e.to})
	}
	return out
}

// Done removes what is owed to the block's tier up to the version of the intent,
// whether it was handed out or still waits, and tells whether there was anything.
// Only the key, the version and the target of the intent count.
func (q *SyncQueue) Done(in Intent) bool {
	i, ok := q.index[target{in.Key, in.To}]
	if !ok {
		return false
	}
	e := &q.slots[i]
	done := false
	if v := e.wait.version; v != 0 && v <= in.Version {
		q.unpark(i)
		done = true
	}
	if v := e.fly.version; v != 0 && v <= in.Version {
		q.land(i)
		done = true
	}
	if done {
		q.synced++
		q.release(i)
	}
	return done
}

// Fail puts an intent that was handed out back to the end of the queue, so that one
// that keeps failing does not hold up the others. A newer version that has come
// meanwhile takes its place and inherits its epoch. It tells whether the intent
// was in flight.
func (q *SyncQueue) Fail(in Intent) bool {
	i, ok := q.index[target{in.Key, in.To}]
	if !ok || q.slots[i].fly.version != in.Version || in.Version == 0 {
		return false
	}
	e := &q.slots[i]
	back := e.fly
	if e.wait.version != 0 {
		back.version, back.from = e.wait.version, e.wait.from
		q.unpark(i)
	}
	q.land(i)
	q.park(i, back)
	return true
}

// Drop forgets everything owed for the block, because it is gone: nothing can
// be copied any more, and barriers must not wait for it. It tells whether there
// was anything.
func (q *SyncQueue) Drop(key block.Key) bool {
	dropped := false
	for to := range block.Tier(block.Tiers) {
		i, ok := q.index[target{key, to}]
		if !ok {
			continue
		}
		e := &q.slots[i]
		if e.wait.version != 0 {
			q.unpark(i)
		}
		if e.fly.version != 0 {
			q.land(i)
		}
		q.release(i)
		dropped = true
	}
	return dropped
}

// Pending is the number of intents that wait to be handed out.
func (q *SyncQueue) Pending() int { return q.waiting }

// InFlight is the number of intents handed out and not ended yet.
func (q *SyncQueue) InFlight() int { return q.flying }

// Synced is the number of intents done since the queue was made.
func (q *SyncQueue) Synced() uint64 { return q.synced }

// Epoch is the number of barriers completed.
func (q *SyncQueue) Epoch() Epoch { return q.epoch }

// Cut closes the open epoch and returns its number: intents added later belong to
// the next one. Everything added before is done once Epoch is greater than the
// number returned. Without Cut a barrier waits for the queue to be empty, which
// under steady writes may be never.
func (q *SyncQueue) Cut() Epoch {
	e := q.open()
	q.owed = append(q.owed, 0)
	return e
}

// Advance completes the present epoch and returns the new one, if every intent of
// the present one is done; else it changes nothing and gives [ErrPending].
func (q *SyncQueue) Advance() (Epoch, error) {
	if n := q.owed[0]; n > 0 {
		return q.epoch, fmt.Errorf("coherency: epoch %d: %w: %d left", q.epoch, ErrPending, n)
	}
	q.epoch++
	if q.owed = q.owed[1:]; len(q.owed) == 0 {
		q.owed = []int{0}
	}
	return q.epoch, nil
}
