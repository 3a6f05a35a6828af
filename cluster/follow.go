package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// A consumer that hears nothing for two heartbeats is made anew. With the
	// defaults of nats.go a frozen server would go unnoticed for 10 s.
	pullExpiry    = 2 * time.Second
	pullHeartbeat = 500 * time.Millisecond
	// consumerIdle is when the server forgets the consumer of a reader that is gone.
	consumerIdle = 30 * time.Second
	// followPoll is how often a reader without messages looks around.
	followPoll = time.Second
	// followCheck is how often a reader verifies that the stream is still the one
	// that it has been reading; it does so at once after a reconnect.
	followCheck = 5 * time.Second
)

// follow reads a stream in order, for ever: through reconnects, lost consumers
// and failovers. run is its only goroutine and calls the functions below.
type follow struct {
	conn   *Conn
	stream string
	filter string
	// begin is called before the first message, and again when the stream
	// has turned out to be another one (again is true): it lost its history, or was
	// deleted and created. It says where to start reading, or ends run by an error.
	begin func(info *jetstream.StreamInfo, again bool) (jetstream.OrderedConsumerConfig, error)
	// message is called for each message.
	message func(msg jetstream.Msg, meta *jetstream.MsgMetadata)
	// caughtUp is called once all that was in the stream when reading began has
	// been handed out; again after each begin.
	caughtUp func()
	// lost makes the stream when it is not there.
	lost func(ctx context.Context) error
	// check, if set, is called whenever the stream has been found to be there.
	check func(at time.Time) error
	// verify, if set, is called with the state of the stream whenever that was asked
	// for, and it is asked for when sequences are missing. Its error ends run.
	verify func(info *jetstream.StreamInfo) error
	// live, if set, is where the stream's leader repeats what it stores, and
	// liveMessage is called instead of message for what was read there; acked is a
	// sequence that is known to be in the stream.
	live        string
	liveMessage func(subject string, data []byte, sequence uint64)
	acked       func() uint64

	created time.Time
	last    uint64 // sequence of the newest message handed out
	behind  bool   // caughtUp has not been called since begin
}

// run returns ctx's error, or that of begin, check or verify.
func (f *follow) run(ctx context.Context) error {
	pause := retryPause
	for {
		err := f.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var stop *followStop
		if errors.As(err, &stop) {
			return stop.err
		}
		if err == nil {
			pause = retryPause
			continue
		}
		f.conn.Log.Debug("reading a stream was interrupted", "stream", f.stream, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, maxRetryPause)
		}
	}
}

// followStop carries an error of begin, check or verify through session.
type followStop struct{ err error }

func (e *followStop) Error() string { return e.err.Error() }

// session reads through one consumer until it fails or the stream changes.
func (f *follow) session(ctx context.Context) error {
	info, err := f.look(ctx)
	if err != nil {
		return err
	}
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: f.last + 1}
	if f.created.IsZero() || !f.same(info) {
		again := !f.created.IsZero()
		f.created, f.last, f.behind = info.Created, 0, true
		if cfg, err = f.begin(info, again); err != nil {
			return &followStop{err}
		}
	}
	cfg.FilterSubjects = []string{f.filter}
	cfg.InactiveThreshold = consumerIdle
	cfg.MaxResetAttempts = 1 // this loop tries again, and looks at the stream before
	try, cancel := context.WithTimeout(ctx, ensureTry)
	defer cancel()
	cons, err := f.conn.JS.OrderedConsumer(try, f.stream, cfg)
	if err != nil {
		return fmt.Errorf("cluster: consumer of %s: %w", f.stream, err)
	}
	var live *followLive
	defer func() { live.close() }()
	if ci := cons.CachedInfo(); ci == nil || ci.NumPending == 0 {
		if live, err = f.listen(); err != nil {
			return err
		}
		f.arrived()
	}
	it, err := cons.Messages(jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat), jetstream.PullMaxBytes(followBytes))
	if err != nil {
		return fmt.Errorf("cluster: consumer of %s: %w", f.stream, err)
	}
	stop := context.AfterFunc(ctx, it.Stop)
	reached, err := f.read(ctx, it, &live)
	if stop() {
		it.Stop()
	}
	if reached {
		return live.read(ctx)
	}
	return err
}

// read hands out messages until the consumer fails, the stream is another one, or live,
// which it makes when there is nothing more to catch up, has been reached.
func (f *follow) read(ctx context.Context, it jetstream.MessagesContext, live **followLive) (reached bool, err error) {
	checked, reconnects := time.Now(), f.conn.NC.Stats().Reconnects
	for {
		msg, err := it.Next(jetstream.NextMaxWait(followPoll))
		if err == nil {
			meta, merr := msg.Metadata()
			if merr != nil {
				return false, fmt.Errorf("cluster: message of %s: %w", f.stream, merr)
			}
			if f.verify != nil && meta.Sequence.Stream > f.last+1 {
				if _, err := f.look(ctx); err != nil {
					return false, err
				}
			}
			if meta.Sequence.Stream > f.last {
				f.last = meta.Sequence.Stream
				f.message(msg, meta)
			}
			if meta.NumPending == 0 {
				if *live == nil {
					if *live, err = f.listen(); err != nil {
						return false, err
					}
				}
				f.arrived()
			}
			if (*live).reach() {
				return true, nil
			}
		} else if !errors.Is(err, nats.ErrTimeout) {
			return false, fmt.Errorf("cluster: read %s: %w", f.stream, err)
		}
		if r := f.conn.NC.Stats().Reconnects; r != reconnects || time.Since(checked) > followCheck {
			checked, reconnects = time.Now(), r
			info, err := f.look(ctx)
			if err != nil {
				return false, err
			}
			if !f.same(info) {
				return false, nil
			}
		}
	}
}

func (f *follow) arrived() {
	if f.behind {
		f.behind = false
		f.caughtUp()
	}
}

// same tells whether the stream still is the one that was read so far.
func (f *follow) same(info *jetstream.StreamInfo) bool {
	return info.Created.Equal(f.created) && info.State.LastSeq >= f.last
}

// look asks the stream for its state, and makes it when it is not there.
func (f *follow) look(ctx context.Context) (*jetstream.StreamInfo, error) {
	try, cancel := context.WithTimeout(ctx, ensureTry)
	defer cancel()
	s, err := f.conn.JS.Stream(try, f.stream)
	if err != nil {
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			err = errors.Join(err, f.lost(ctx))
		}
		return nil, fmt.Errorf("cluster: look at %s: %w", f.stream, err)
	}
	if f.check != nil {
		if err := f.check(time.Now()); err != nil {
			return nil, &followStop{err}
		}
	}
	if f.verify != nil {
		if err := f.verify(s.CachedInfo()); err != nil {
			return nil, &followStop{err}
		}
	}
	return s.CachedInfo(), nil
}
