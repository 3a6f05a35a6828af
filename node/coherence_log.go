package node

import (
	"io"

	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// logHandler is what the log calls.
type logHandler struct{ c *coherence }

// LogHandler takes in the coherence log. It is for the one goroutine that reads it.
func (n *Node) LogHandler() LogHandler { return logHandler{n.coherence} }

// Restore implements LogHandler.
func (h logHandler) Restore(sequence uint64, r io.Reader) error { return h.c.restore(sequence, r) }

// Message implements LogHandler. It waits only when the node is far behind.
func (h logHandler) Message(sequence uint64, m *ledger.Message, sum uint64) {
	c := h.c
	for {
		c.mu.Lock()
		full := len(c.queue) >= maxQueue
		c.mu.Unlock()
		if !full {
			break
		}
		select {
		case <-c.room:
		case <-c.ended:
			return
		}
	}
	t := task{event: protocol.Delivered{Sequence: sequence, Message: m, Sum: sum}}
	if c.reading.Load() {
		c.submit(t) // the next is decoded meanwhile
		return
	}
	c.submitHere(t)
}

// Bad implements LogHandler.
func (h logHandler) Bad(sequence, sum uint64) {
	h.c.log.Warn("a message of the coherence log cannot be read", "sequence", sequence)
	h.c.event(protocol.Skipped{Sequence: sequence, Sum: sum})
}

// CaughtUp implements LogHandler.
func (h logHandler) CaughtUp() {
	h.c.reading.Store(false)
	h.c.submit(task{do: func() {
		h.c.homed.announce()
		h.c.current = true
		h.c.step(protocol.CaughtUp{})
	}})
}

// Regressed implements LogHandler.
func (h logHandler) Regressed(err error) { h.c.event(protocol.Stop{Err: err}) }
