package hostcache

import (
	"time"

	"cairn/block"
	"cairn/eviction"
	"cairn/tier"
)

// order says which entry of a class to evict next. An entry that is in it has a run
// other than 0; held entries that eviction meets are parked, with run 0.
type order interface {
	// insert adds an entry that has become present; touch is another use.
	insert(id uint32)
	touch(id uint32)
	// victim is the entry to evict next, which may be held.
	victim() (id uint32, ok bool)
	// park takes an entry out of the choice, unpark puts it back.
	park(id uint32)
	unpark(id uint32)
	// evict and remove end an entry, parked or not: to make room, or on request.
	evict(id uint32)
	remove(id uint32)
}

// valueOrder evicts what is worth least. The classes share one policy, in which each
// is a group.
type valueOrder struct {
	entries *table
	policy  *eviction.Hazard
	group   int
	now     func() time.Duration
}

// inOrder is the run of an entry that a valueOrder may choose.
const inOrder = 1

// kindNamed tells the policy that a block is named by a string: it is read and
// replaced in other ways than blocks of sequences.
const kindNamed = 1

func (o valueOrder) insert(id uint32) {
	e := o.entries.at(id)
	e.run = inOrder
	b := eviction.Block{Key: e.Key, Parent: e.Parent, Group: o.group}
	if e.Key.Named() {
		b.Kind = kindNamed
	}
	o.policy.Insert(id, b, o.now())
}

func (o valueOrder) touch(id uint32) {
	o.entries.at(id).run = inOrder
	o.policy.Touch(id, o.now())
}

func (o valueOrder) victim() (uint32, bool) { return o.policy.Victim(o.group, o.now()) }

func (o valueOrder) park(id uint32) {
	o.entries.at(id).run = 0
	o.policy.Park(id)
}

func (o valueOrder) unpark(id uint32) {
	o.entries.at(id).run = inOrder
	o.policy.Unpark(id)
}

func (o valueOrder) evict(id uint32) {
	o.entries.at(id).run = 0
	o.policy.Evict(id, o.now())
}

func (o valueOrder) remove(id uint32) {
	o.entries.at(id).run = 0
	o.policy.Remove(id)
}

// newOrders makes the order of each class.
func (c *Cache) newOrders(cfg Config) ([]order, error) {
	var list []order
	if cfg.Eviction == EvictLRU {
		l := &leaves{entries: c.entries, index: c.index, waiting: map[block.Key]uint32{}, orderOf: c.orderLocked, hint: c.hintLocked}
		for range cfg.Classes {
			o, err := newExactOrder(c.entries, l)
			if err != nil {
				return nil, err
			}
			list = append(list, o)
		}
		return list, nil
	}
	policy, err := eviction.NewHazard(eviction.Config{Seed: cfg.Seed, Hint: c.hintLocked})
	if err != nil {
		return nil, err
	}
	start := time.Now()
	for i := range cfg.Classes {
		list = append(list, valueOrder{c.entries, policy, i, func() time.Duration { return time.Since(start) }})
	}
	return list, nil
}

// Advise implements tier.Advised.
func (c *Cache) Advise(ask func(block.Key) tier.Hint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ask = ask
}

// hintLocked asks the owner of the cache about an entry.
func (c *Cache) hintLocked(id uint32) tier.Hint {
	if c.ask == nil {
		return 0
	}
	return c.ask(c.entries.at(id).Key)
}
