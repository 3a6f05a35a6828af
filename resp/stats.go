package resp

import "sync/atomic"

// Stats are a server's counters since it was made, except Open and InFlight,
// which are of now.
type Stats struct {
	Open           int    // connections
	InFlight       int64  // bytes of payload being received or queued for sending
	Connections    uint64 // accepted
	Rejected       uint64 // over MaxConnections
	Commands       uint64 // executed
	Dropped        uint64 // begun and not executed
	BytesIn        uint64
	BytesOut       uint64
	Errors         uint64 // error replies
	ProtocolErrors uint64 // connections ended for violating the protocol or a limit
	Timeouts       uint64 // connections ended by ReadTimeout, IdleTimeout or WriteTimeout
	Panics         uint64 // of handlers
	Pushes         uint64 // messages that a Pusher took

	// SlowSubscribers counts connections ended by MaxPushBytes.
	SlowSubscribers uint64
}

// counters are the parts of Stats that connections count.
type counters struct {
	connections, rejected, commands, dropped atomic.Uint64
	bytesIn, bytesOut                        atomic.Uint64
	errors, protocolErrors, timeouts, panics atomic.Uint64
	pushes, slowSubscribers                  atomic.Uint64
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	s.budget.mu.Lock()
	inFlight := s.budget.used
	s.budget.mu.Unlock()
	c := &s.stats
	return Stats{
		Open:           open,
		InFlight:       inFlight,
		Connections:    c.connections.Load(),
		Rejected:       c.rejected.Load(),
		Commands:       c.commands.Load(),
		Dropped:        c.dropped.Load(),
		BytesIn:        c.bytesIn.Load(),
		BytesOut:       c.bytesOut.Load(),
		Errors:         c.errors.Load(),
		ProtocolErrors: c.protocolErrors.Load(),
		Timeouts:       c.timeouts.Load(),
		Panics:         c.panics.Load(),
		Pushes:         c.pushes.Load(),

		SlowSubscribers: c.slowSubscribers.Load(),
	}
}
