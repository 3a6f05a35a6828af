package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// snapshotEvery is the least time between two snapshots of the log's state.
const snapshotEvery = time.Minute

var errRestored = errors.New("a snapshot came after the first message of the log")

// restore begins with a state of the log that was kept.
func (c *coherence) restore(sequence uint64, r io.Reader) error {
	err := ErrClosed
	c.call(func(m *protocol.Machine) {
		if m.Ledger().Sequence() != 0 {
			err = errRestored
			return
		}
		var led *ledger.Ledger
		if led, err = ledger.LoadSnapshot(r, c.table, historyOf(c.cfg)); err == nil && led.Sequence() != sequence {
			err = fmt.Errorf("the snapshot is of sequence %d, not %d", led.Sequence(), sequence)
		}
		if err == nil {
			err = c.restart(led)
		}
		if err != nil {
			c.table.reset()
			return
		}
		for _, sp := range *c.table.spaces.Load() {
			c.table.clear(sp.name, led.Cleared(sp.name), nil)
		}
		for ns := range c.spaces {
			c.table.clear(ns, led.Cleared(ns), nil)
		}
		c.unsaved = 0
	})
	if err != nil {
		return fmt.Errorf("node: restore: %w", err)
	}
	return nil
}

// considerSnapshot keeps the state of the log now and then, so that others start fast
// and the log may forget. One node does it for all.
func (c *coherence) considerSnapshot(now time.Time) {
	led := c.machine.Ledger()
	if c.unsaved < c.n.cfg.SnapshotRecords || now.Sub(c.lastSave) < snapshotEvery ||
		!c.machine.Serving(c.now()) || !c.first() || !c.saving.CompareAndSwap(false, true) {
		return
	}
	c.lastSave, c.unsaved = now, 0
	var b bytes.Buffer
	if err := led.Snapshot(&b); err != nil {
		c.saving.Store(false)
		return
	}
	sequence := led.Sequence()
	c.beside(func(ctx context.Context) {
		defer c.saving.Store(false)
		if err := c.ports.SaveSnapshot(ctx, sequence, b.Bytes()); err != nil && ctx.Err() == nil {
			c.log.Warn("the state of the coherence log could not be kept", "sequence", sequence, "err", err)
		}
	})
}

// first tells whether this node has the lowest number of the live members.
func (c *coherence) first() bool {
	for _, m := range *c.members.Load() {
		if m.Live {
			return m.ID == c.cfg.Node
		}
	}
	return false
}
