package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// sendLoop sends what Publish does not send itself: what has to be sent again, and what
// is so large that a server which does not read would make Publish wait.
func (c *Coherence) sendLoop(ctx context.Context) {
	connected := c.conn.NC.StatusChanged(nats.CONNECTED)
	defer c.conn.NC.RemoveStatusListener(connected)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := c.sendDue(time.Now())
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.wake:
		case _, ok := <-connected:
			if !ok { // the connection is closed for good
				connected = nil
			}
			c.sendAll()
		}
	}
}

// sendDue sends the messages whose time has come, and returns how long until the next
// look: Publish does not say when it has sent one.
func (c *Coherence) sendDue(now time.Time) time.Duration {
	c.mu.Lock()
	var due []*cohFlight
	next := c.cfg.AckTimeout
	for _, f := range c.flights {
		if wait := f.due.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		due = append(due, f)
		c.tried(f, now)
	}
	c.mu.Unlock()
	for _, f := range due {
		c.send(f)
	}
	return next
}

// launch adds a flight. It tells whether the caller is to send it.
func (c *Coherence) launch(f *cohFlight) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	direct := c.running.Load() && len(f.msg.Data) <= cohDirect && c.conn.NC.IsConnected() &&
		!slices.ContainsFunc(c.flights, func(f *cohFlight) bool { return f.tries == 0 }) // they are to keep their order
	c.flights = append(c.flights, f)
	if direct {
		c.tried(f, time.Now())
	}
	return direct
}

// tried notes that a flight is being sent.
func (c *Coherence) tried(f *cohFlight, now time.Time) {
	f.tries++
	// Whether it is refused, acknowledged or delivered is heard long before.
	f.due = now.Add(2 * c.cfg.AckTimeout)
	if f.tries > 1 {
		c.resent.Add(1)
	}
}

func (c *Coherence) send(f *cohFlight) {
	if _, err := c.js.PublishMsgAsync(f.msg, jetstream.WithRetryAttempts(0)); err != nil {
		c.refused(f.msg, err)
	}
}

// sendAll makes everything due: the server is there again.
func (c *Coherence) sendAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.flights {
		f.due, f.pause = time.Time{}, retryPause
	}
}

// refused makes a message due again after a pause: it was not sent, not taken, or
// nothing was heard of it.
func (c *Coherence) refused(m *nats.Msg, err error) {
	c.mu.Lock()
	f := c.flightLocked(m)
	var tries int
	if f != nil {
		tries = f.tries
		f.due = time.Now().Add(f.pause)
		f.pause = min(2*f.pause, cohMaxPause)
	}
	c.mu.Unlock()
	if f == nil {
		return
	}
	if Transient(err) || errors.Is(err, jetstream.ErrAsyncPublishTimeout) {
		c.cfg.Logger.Debug("a message to the coherence log was not taken", "id", m.Header.Get(jetstream.MsgIDHeader), "tries", tries, "error", err)
	} else {
		c.cfg.Logger.Warn("a message to the coherence log was refused; trying again", "id", m.Header.Get(jetstream.MsgIDHeader), "tries", tries, "error", err)
	}
	c.rouse()
}

// acked gives a message that is in the log time to be delivered. It is kept even so: a
// log can lose what it has acknowledged, and then it is worth sending again.
func (c *Coherence) acked(m *nats.Msg, sequence uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inLog.Store(max(c.inLog.Load(), sequence))
	if f := c.flightLocked(m); f != nil {
		f.due, f.pause = time.Now().Add(cohUnseen*c.cfg.AckTimeout), retryPause
	}
}

func (c *Coherence) flightLocked(m *nats.Msg) *cohFlight {
	for _, f := range c.flights {
		if f.msg == m {
			return f
		}
	}
	return nil
}

// seen ends the flight of a message that came back in the log, and of those that it
// has overtaken: they count no more, wherever they are.
func (c *Coherence) seen(node string, incarnation, number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.flights) == 0 {
		return
	}
	c.flights = slices.DeleteFunc(c.flights, func(f *cohFlight) bool {
		return f.node == node && (f.incarnation < incarnation || f.incarnation == incarnation && f.number <= number)
	})
}
