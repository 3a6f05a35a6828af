package node

import (
	"context"
	"slices"
	"time"

	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// watchDraining keeps the machine told which members are about to leave, until ctx ends.
func (c *coherence) watchDraining(ctx context.Context) {
	tick := time.NewTicker(c.n.cfg.glance())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if now := c.n.draining(); !slices.Equal(now, *c.draining.Load()) {
				c.drain(now)
			}
		case <-ctx.Done():
			return
		}
	}
}

// drain has no more homes made of members that are about to leave, and further homes
// found for what only they keep.
func (c *coherence) drain(members []string) {
	c.draining.Store(&members)
	c.event(protocol.Draining{Members: members})
}

// draining are the members that are about to leave, by name.
func (n *Node) draining() []string {
	list := []string{}
	for _, m := range n.peers.Others() {
		if m.Draining {
			list = append(list, m.Node)
		}
	}
	if n.drains() {
		list = append(list, n.cfg.ID)
	}
	slices.Sort(list)
	return list
}

// keeps tells whether a member stays, so that it may be the only home of something.
func (c *coherence) keeps(number uint16) bool {
	m, ok := c.member(number)
	return ok && m.Live && !slices.Contains(*c.draining.Load(), m.ID)
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
