package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// regressionPoll is how often a stream that looks shorter than before is looked at.
	regressionPoll = 100 * time.Millisecond
	// logGone is how long the stream may be missing before it counts as lost.
	logGone = 15 * time.Second
)

// Handler takes in the log. The goroutine of [Coherence.Run] calls it; nothing
// more is read until it returns.
type Handler interface {
	// Restore takes the state at sequence, as SaveSnapshot was given it. It comes at
	// most before the first message. After an error it may come again with an
	// older state; then, or at the first message, what it had read is to be forgotten.
	Restore(sequence uint64, snapshot io.Reader) error
	// Message is the next message; sum is the checksum of its encoded form. The
	// message is the handler's to keep.
	Message(sequence uint64, m *ledger.Message, sum uint64)
	// Bad is the next message, which cannot be read: every node finds it so.
	Bad(sequence, sum uint64)
	// CaughtUp: all that was in the log when reading began has been handed out. It
	// comes once.
	CaughtUp()
	// Regressed is the last call: err is what Run returns, and wraps [ErrLogRegressed]
	// or [ErrLogGap]. Of what was read, something may no longer be true.
	Regressed(err error)
}

// cohReader is one run of a Handler.
type cohReader struct {
	*Coherence
	h      Handler
	follow *follow
	last   uint64 // sequence of the newest message, or of the snapshot
	caught sync.Once
	// missing is since when the stream is not there; zero: it is.
	missing time.Time
}

// Run reads the log, and sends what is published meanwhile: from the newest good snapshot
// on, or from the beginning, all there is and all that comes. It goes on through
// reconnects and failovers, and returns only ctx's error, or one that wraps
// [ErrLogRegressed] or [ErrLogGap]. It reads the whole log only once: for another
// Handler make another Coherence.
func (c *Coherence) Run(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	var sender sync.WaitGroup
	sender.Go(func() { c.sendLoop(ctx) })
	c.running.Store(true)
	defer func() {
		c.running.Store(false)
		cancel()
		sender.Wait()
		c.js.CleanupPublisher()
	}()
	r := &cohReader{Coherence: c, h: h}
	r.follow = &follow{
		conn: c.conn, stream: c.stream, filter: CoherenceFilter(c.cfg.Partition),
		begin: func(info *jetstream.StreamInfo, again bool) (jetstream.OrderedConsumerConfig, error) {
			begin := r.start
			if again {
				begin = r.resume
			}
			err := begin(ctx, info)
			r.follow.last = r.last
			return jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.last + 1}, err
		},
		message: func(m jetstream.Msg, meta *jetstream.MsgMetadata) {
			r.message(m.Subject(), m.Data(), meta.Sequence.Stream, meta.NumPending)
		},
		live:        CoherenceLive(c.cfg.Partition, "*"),
		liveMessage: r.liveMessage,
		acked:       c.inLog.Load,
		caughtUp:    func() { r.caught.Do(h.CaughtUp) },
		lost:        r.lost,
		verify:      r.verify,
	}
	err := r.follow.run(ctx)
	if errors.Is(err, ErrLogRegressed) || errors.Is(err, ErrLogGap) {
		h.Regressed(err)
	}
	return err
}

// start finds where to begin in a stream that was not read yet.
func (r *cohReader) start(ctx context.Context, info *jetstream.StreamInfo) error {
	sequence, err := r.restore(ctx, info)
	if err != nil {
		return err
	}
	r.last = sequence
	r.sequence.Store(sequence)
	r.mu.Lock()
	r.created = info.Created
	r.mu.Unlock()
	return nil
}

// resume decides whether a stream that looks shorter than before, or made anew, really is.
func (r *cohReader) resume(ctx context.Context, info *jetstream.StreamInfo) error {
	if info.Created.Equal(r.created) {
		var err error
		if info, err = r.reach(ctx, info, r.last); err != nil {
			return err
		}
	}
	if !info.Created.Equal(r.created) {
		return fmt.Errorf("cluster: %w: stream %s was made anew at %v, and %d messages of the old one were read",
			ErrLogRegressed, r.stream, info.Created, r.last)
	}
	return nil
}

// reach waits until the stream has the sequence, or has said too often that it has not.
func (r *cohReader) reach(ctx context.Context, info *jetstream.StreamInfo, sequence uint64) (*jetstream.StreamInfo, error) {
	for began := time.Now(); info.State.LastSeq < sequence; {
		if time.Since(began) > r.cfg.RegressionGrace {
			return nil, fmt.Errorf("cluster: %w: stream %s ends at sequence %d, and it went to %d before",
				ErrLogRegressed, r.stream, info.State.LastSeq, sequence)
		}
		asked := time.Now()
		var err error
		if info, err = r.again(ctx); err != nil {
			return nil, err
		}
		if quiet := time.Since(asked) - 2*regressionPoll; quiet > 0 {
			began = began.Add(quiet) // only answers count: silence says nothing about the log
		}
	}
	return info, nil
}

// again asks for the state of the stream after a while, until there is an answer.
func (r *cohReader) again(ctx context.Context) (*jetstream.StreamInfo, error) {
	for {
		if err := pauseFor(ctx, regressionPoll); err != nil {
			return nil, err
		}
		info, err := r.follow.look(ctx)
		var stop *followStop
		if errors.As(err, &stop) {
			return nil, stop.err
		}
		if err == nil {
			return info, nil
		}
	}
}

// verify finds out whether messages that were not read are gone.
func (r *cohReader) verify(info *jetstream.StreamInfo) error {
	r.missing = time.Time{}
	if info.Created.Equal(r.created) && info.State.FirstSeq > r.last+1 {
		return fmt.Errorf("cluster: %w: stream %s begins at sequence %d, and only %d was read", ErrLogGap, r.stream, info.State.FirstSeq, r.last)
	}
	return nil
}

// lost makes the stream at the very start, and later waits for it to come back.
func (r *cohReader) lost(ctx context.Context) error {
	if r.created.IsZero() {
		return makeLost(ctx, r.conn, r.cfg.Layout, r.stream)
	}
	if r.missing.IsZero() {
		r.missing = time.Now()
	}
	if time.Since(r.missing) > logGone {
		return &followStop{fmt.Errorf("cluster: %w: stream %s is gone", ErrLogRegressed, r.stream)}
	}
	return nil
}

// liveMessage hands out a message that was repeated.
func (r *cohReader) liveMessage(subject string, data []byte, sequence uint64) {
	r.live.Add(1)
	r.message(subject, data, sequence, 0)
}

// message hands out a message; pending are those behind it.
func (r *cohReader) message(subject string, data []byte, sequence, pending uint64) {
	r.last = sequence
	sum := ledger.Sum(data)
	m, err := r.decode(subject, data)
	r.sequence.Store(sequence)
	r.lag.Store(pending)
	r.delivered.Add(1)
	if err != nil {
		r.bad.Add(1)
		r.cfg.Logger.Error("a message of the coherence log cannot be read", "subject", subject, "sequence", sequence, "error", err)
		r.h.Bad(sequence, sum)
		return
	}
	r.seen(m.Node, m.Incarnation, m.Number)
	r.h.Message(sequence, m, sum)
}

// decode reads a message. One that names another author than its lane is as
// unreadable as any: permissions of NATS then say who may write in whose name.
func (c *Coherence) decode(subject string, data []byte) (*ledger.Message, error) {
	m := new(ledger.Message)
	if err := ledger.Decode(data, m); err != nil {
		return nil, err
	}
	if _, node, ok := CoherenceNode(subject); !ok || node != m.Node {
		return nil, fmt.Errorf("cluster: a message of node %.80q", m.Node)
	}
	return m, nil
}

// pauseFor returns ctx's error if that ends before d has passed.
func pauseFor(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// checksum is that of a snapshot in the object store.
func checksum(data []byte) string { return fmt.Sprintf("%016x", block.Checksum(data)) }
