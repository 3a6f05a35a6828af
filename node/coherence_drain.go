package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// leavers are the members that are about to leave, as this node sees it: others by their
// records (watchDraining), itself by its hand-over.
type leavers struct {
	// mu is held while the machine is told, so that it is told in order. It guards self.
	mu   sync.Mutex
	self bool

	members atomic.Pointer[[]string] // by name; read without mu
}

func (l *leavers) has(id string) bool { return slices.Contains(*l.members.Load(), id) }

// watchDraining keeps the machine told which members are about to leave, until ctx ends.
func (c *coherence) watchDraining(ctx context.Context) {
	tick := time.NewTicker(c.n.cfg.glance())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.tellDraining()
		case <-ctx.Done():
			return
		}
	}
}

// tellDraining tells the machine who is about to leave if others than before are. When the drain of
// this node was undone, that is from now on.
func (c *coherence) tellDraining() {
	l := &c.leavers
	l.mu.Lock()
	defer l.mu.Unlock()
	l.self = l.self && c.n.drains()
	if now := c.draining(); !slices.Equal(now, *l.members.Load()) {
		l.members.Store(&now)
		c.event(protocol.Draining{Members: now})
	}
}

// drain has no more homes made of this node and other members that are about to leave, and
// further homes found for what only they keep. It returns for how many names that is so,
// before the search begins. ctx is the hand-over's; once it has ended, this node stays.
func (c *coherence) drain(ctx context.Context) (names int64) {
	l := &c.leavers
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return 0
	}
	l.self = true
	now := c.draining()
	l.members.Store(&now)
	names = c.soleHomes()
	c.event(protocol.Draining{Members: now})
	return names
}

// draining are the members that are about to leave, by name. The caller holds leavers.mu.
func (c *coherence) draining() []string {
	list := []string{}
	for _, m := range c.n.peers.Others() {
		if m.Draining {
			list = append(list, m.Node)
		}
	}
	if c.leavers.self {
		list = append(list, c.n.cfg.ID)
	}
	slices.Sort(list)
	return list
}

// keeps tells whether a member stays, so that it may be the only home of something.
func (c *coherence) keeps(number uint16) bool {
	m, ok := c.member(number)
	return ok && m.Live && !c.leavers.has(m.ID)
}

// soleHomes counts the names of which this node is a home and no member that stays.
func (c *coherence) soleHomes() (names int64) {
	self := uint16(c.number.Load())
	c.table.Range(func(p ledger.Pointer) bool {
		c.table.mask(&p)
		if !p.Value.Object.IsZero() && p.Value.Homes.Has(self) && !slices.ContainsFunc(p.Value.Homes[:], c.keeps) {
			names++
		}
		return true
	})
	return names
}
