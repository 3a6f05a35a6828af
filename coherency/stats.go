package coherency

import "cairn/block"

// Stats sums up the states and queues of a node. The zero Stats is the sum of
// nothing; add to it in any order.
type Stats struct {
	Blocks int64              `json:"blocks"` // states added
	Copies [block.Tiers]int64 `json:"copies"` // newest versions held, by tier
	Stale  [block.Tiers]int64 `json:"stale"`  // older versions held, by tier
	Dirty  int64              `json:"dirty"`  // blocks that home does not hold durably
	Gone   int64              `json:"gone"`   // blocks whose newest version no tier holds
	// Pending and InFlight count intents to copy, Synced those done since start.
	Pending  int64  `json:"pending"`
	InFlight int64  `json:"in_flight"`
	Synced   uint64 `json:"synced"`
	// Epoch is the lowest among the queues added: the barriers that all have
	// completed.
	Epoch Epoch `json:"epoch"`

	queues int64
}

// Add counts one block.
func (c *Stats) Add(s State) {
	c.Blocks++
	for t := range s.Valid().All() {
		c.Copies[t]++
	}
	for t := range s.Stale().All() {
		c.Stale[t]++
	}
	if s.Dirty().Any() {
		c.Dirty++
	}
	if s.Gone() {
		c.Gone++
	}
}

// AddQueue counts what one queue owes and has done.
func (c *Stats) AddQueue(q *SyncQueue) {
	c.Pending += int64(q.Pending())
	c.InFlight += int64(q.InFlight())
	c.Synced += q.Synced()
	if e := q.Epoch(); c.queues == 0 || e < c.Epoch {
		c.Epoch = e
	}
	c.queues++
}

// MirrorStats counts mirrors by state; Total is the sum of the others. The zero value is
// the sum of nothing.
type MirrorStats struct {
	Total      int64 `json:"total"`
	HostOnly   int64 `json:"host_only"`
	DeviceOnly int64 `json:"device_only"`
	Synced     int64 `json:"synced"`
	Dirty      int64 `json:"dirty"` // host-dirty and device-dirty
	Gone       int64 `json:"gone"`
}

// Add counts one mirror.
func (c *MirrorStats) Add(m Mirror) {
	c.Total++
	switch m.State() {
	case HostOnly:
		c.HostOnly++
	case DeviceOnly:
		c.DeviceOnly++
	case Synced:
		c.Synced++
	case HostDirty, DeviceDirty:
		c.Dirty++
	default:
		c.Gone++
	}
}
