package cluster

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The stream's leader can repeat each message, as soon as it is stored, to whoever
// listens. That is once for all readers, and needs neither the way through a consumer nor
// the work of one for each: it comes hardly later than the confirmation. But who does not
// listen at that moment does not get it. So a reader begins with a consumer, goes over to
// what is repeated once that reaches back to what it has read, and returns to a
// consumer when a sequence is missing.

const (
	// liveBuffer is how many repeated messages may wait here; beyond, some are
	// missing.
	liveBuffer = 4096
	// livePoll is how often a reader looks whether it has missed the last message.
	livePoll = 250 * time.Millisecond
)

// followLive is a reader's subscription to what a stream repeats.
type followLive struct {
	f   *follow
	sub *nats.Subscription
	ch  chan *nats.Msg
}

// listen subscribes; if the stream repeats nothing that has no effect. It is nil for a
// reader who does not want to.
func (f *follow) listen() (*followLive, error) {
	if f.live == "" {
		return nil, nil
	}
	l := &followLive{f: f, ch: make(chan *nats.Msg, liveBuffer)}
	var err error
	if l.sub, err = f.conn.NC.ChanSubscribe(f.live, l.ch); err != nil {
		return nil, fmt.Errorf("cluster: listen to %s: %w", f.live, err)
	}
	return l, nil
}

// close may be called of nil.
func (l *followLive) close() {
	if l != nil {
		_ = l.sub.Unsubscribe() // it fails with the connection only
	}
}

// liveSequence is the sequence of a repeated message, 0 if it is none.
func liveSequence(m *nats.Msg) uint64 {
	n, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// reach tells whether what is repeated reaches back to what was read through the
// consumer. It may be called of nil.
func (l *followLive) reach() bool {
	for l != nil {
		select {
		case m := <-l.ch:
			switch n := liveSequence(m); {
			case n == l.f.last+1:
				l.hand(n, m)
				return true
			case n != 0 && n <= l.f.last:
				return true
			}
		default:
			return false
		}
	}
	return false
}

func (l *followLive) hand(sequence uint64, m *nats.Msg) {
	l.f.last = sequence
	l.f.liveMessage(m.Header.Get(jetstream.SubjectHeader), m.Data, sequence)
}

// read hands out messages until one is missing, or the stream is another one.
func (l *followLive) read(ctx context.Context) error {
	f := l.f
	tick := time.NewTicker(livePoll)
	defer tick.Stop()
	checked, heard, reconnects := time.Now(), time.Now(), f.conn.NC.Stats().Reconnects
	last := f.last
	missed := false // at the last tick a message was in the log that had not come
	for {
		silent := false
		select {
		case m := <-l.ch:
			switch n := liveSequence(m); {
			case n == f.last+1:
				l.hand(n, m)
				continue
			case n > f.last:
				return nil
			}
			// One that is repeated twice, or of a stream that has begun anew.
		case <-tick.C:
			before := missed
			if missed = f.acked() > f.last; missed && before || f.conn.NC.Stats().Reconnects != reconnects {
				return nil
			}
			if f.last != last {
				heard, last = time.Now(), f.last
			}
			if silent = time.Since(heard) > followPoll; !silent && time.Since(checked) < followCheck {
				continue
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		checked, heard = time.Now(), time.Now()
		info, err := f.look(ctx)
		if err != nil {
			return err
		}
		if !f.same(info) || silent && info.State.LastSeq > f.last {
			return nil
		}
	}
}
