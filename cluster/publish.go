package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/router"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// event is a batch of changes on its way.
type event struct {
	id      string // for the stream to recognize a repetition
	data    []byte
	changes int
	ack     jetstream.PubAckFuture
}

// publishLoop is the one goroutine that publishes, which keeps events in order.
func (p *Publisher) publishLoop(ctx context.Context) {
	var flight []*event // oldest first
	beat := time.NewTicker(p.cfg.Heartbeat)
	defer beat.Stop()
	idle := true // nothing was sent since the last beat
	p.heartbeat()
	for ctx.Err() == nil {
		var ok <-chan *jetstream.PubAck
		var failed <-chan error
		if len(flight) > 0 {
			ok, failed = flight[0].ack.Ok(), flight[0].ack.Err()
		}
		select {
		case <-ctx.Done():
		case ack := <-ok:
			p.count(flight[0], ack)
			flight = flight[1:]
		case err := <-failed:
			p.resend(ctx, flight, err)
			flight = nil
		case <-beat.C:
			if idle {
				p.heartbeat()
			}
			idle = true
		case <-p.wake:
			p.pause(ctx)
			flight = p.send(ctx, flight)
			idle = false
			if p.beat.Swap(false) {
				p.heartbeat()
			}
		}
		if len(flight) == 0 {
			p.reopen()
		}
	}
}

// pause gives other changes BatchDelay to come, unless an event is full already.
func (p *Publisher) pause(ctx context.Context) {
	p.mu.Lock()
	n := len(p.queue)
	p.mu.Unlock()
	if n >= p.cfg.BatchChanges {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(p.cfg.BatchDelay):
	}
}

// send publishes all that is queued, waits only as InFlight demands, and
// returns the events in flight.
func (p *Publisher) send(ctx context.Context, flight []*event) []*event {
	p.mu.Lock()
	changes := p.queue
	e := router.Event{Node: p.cfg.Node, Incarnation: p.incarnation, First: p.position - uint64(len(changes)) + 1}
	p.queue, p.spare, p.taken = p.spare, nil, len(changes)
	p.mu.Unlock()
	for rest := changes; len(rest) > 0 && ctx.Err() == nil; {
		for len(flight) >= p.cfg.InFlight {
			flight = p.collect(ctx, flight)
		}
		n := min(len(rest), p.cfg.BatchChanges)
		e.Changes = rest[:n]
		flight = p.publish(ctx, flight, e)
		rest, e.First = rest[n:], e.First+uint64(n)
		p.mu.Lock()
		p.taken -= n
		p.mu.Unlock()
	}
	p.mu.Lock()
	p.spare, p.taken = changes[:0], 0
	p.mu.Unlock()
	return flight
}

// publish sends one event and returns what is in flight then.
func (p *Publisher) publish(ctx context.Context, flight []*event, e router.Event) []*event {
	v := &event{
		id:      fmt.Sprintf("%s.%d.%d", e.Node, e.Incarnation, e.First),
		data:    AppendPlacement(make([]byte, 0, 256+36*len(e.Changes)), e),
		changes: len(e.Changes),
	}
	flight = append(flight, v)
	var err error
	if v.ack, err = p.js.PublishMsgAsync(p.message(v), jetstream.WithRetryAttempts(0)); err != nil {
		p.resend(ctx, flight, err)
		return nil
	}
	return flight
}

// collect waits for the oldest event in flight.
func (p *Publisher) collect(ctx context.Context, flight []*event) []*event {
	select {
	case <-ctx.Done():
		return nil
	case ack := <-flight[0].ack.Ok():
		p.count(flight[0], ack)
		return flight[1:]
	case err := <-flight[0].ack.Err():
		p.resend(ctx, flight, err)
		return nil
	}
}

func (p *Publisher) message(v *event) *nats.Msg {
	return &nats.Msg{Subject: p.subject, Data: v.data, Header: nats.Header{jetstream.MsgIDHeader: {v.id}}}
}

func (p *Publisher) count(v *event, ack *jetstream.PubAck) {
	p.events.Add(1)
	p.changes.Add(uint64(v.changes))
}

// resend publishes the events in flight again, oldest first and one at a time,
// until the stream has them all or ctx ends. The oldest has failed; of the
// younger ones some may be in the stream already, ahead of it: the stream drops
// their repetition, and readers put the events in order by their numbers.
func (p *Publisher) resend(ctx context.Context, flight []*event, cause error) {
	p.cfg.Logger.Warn("placement events are not acknowledged; sending again", "events", len(flight), "error", cause)
	for _, v := range flight {
		for pause := retryPause; ; pause = min(2*pause, maxRetryPause) {
			try, cancel := context.WithTimeout(ctx, p.cfg.AckTimeout)
			ack, err := p.js.PublishMsg(try, p.message(v), jetstream.WithRetryAttempts(0))
			cancel()
			if err == nil {
				p.resent.Add(1)
				p.count(v, ack)
				break
			}
			if errors.Is(err, jetstream.ErrNoStreamResponse) {
				err = errors.Join(err, p.makeStream(ctx))
			}
			p.cfg.Logger.Debug("placement event refused", "error", err, "again in", pause)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}
}

// makeStream makes the stream again when it is gone: NATS keeps it in memory, so
// that the restart of a single server loses it.
func (p *Publisher) makeStream(ctx context.Context) error {
	return makeLost(ctx, p.conn, p.cfg.Layout, StreamPlace)
}

// makeLost calls Ensure if the stream does not exist.
func makeLost(ctx context.Context, conn *Conn, layout Layout, stream string) error {
	try, cancel := context.WithTimeout(ctx, ensureTry)
	defer cancel()
	if _, err := conn.JS.Stream(try, stream); !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	try, cancel = context.WithTimeout(ctx, DefaultConnectTimeout)
	defer cancel()
	return Ensure(try, conn, layout)
}

// heartbeat tells readers the next position. It is not acknowledged: the next
// one makes up for a lost one.
func (p *Publisher) heartbeat() {
	p.mu.Lock()
	e := router.Event{Node: p.cfg.Node, Incarnation: p.incarnation, First: p.position - uint64(len(p.queue)) + 1}
	if p.collapsed {
		e.First = 0
	}
	p.mu.Unlock()
	if e.First == 0 {
		return
	}
	if err := p.conn.NC.Publish(p.subject, AppendPlacement(nil, e)); err != nil {
		p.cfg.Logger.Debug("placement heartbeat was not sent", "error", err)
	}
}

// reopen ends a collapse: from here on changes are queued again, and a snapshot
// stands for the ones that were dropped. Readers see the gap in the numbers.
func (p *Publisher) reopen() {
	p.mu.Lock()
	was := p.collapsed
	p.collapsed = false
	p.mu.Unlock()
	if was {
		p.cfg.Logger.Warn("placement changes were dropped while NATS was away; writing a snapshot")
		p.snaps.ask()
		p.heartbeat()
	}
}
