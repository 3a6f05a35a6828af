package cluster

import (
	"context"
	"time"

	"cairn/node"

	"github.com/nats-io/nats.go/jetstream"
)

// markerReason is the header of a message by which the server itself marks that
// a subject has lost its messages, by age or by a purge.
const markerReason = "Nats-Marker-Reason"

// Run reads the log and calls apply for each state, in the order of the log, from
// this goroutine: first the newest state of every name, then changes as they
// come. It goes on through reconnects and returns only ctx's error, [ErrNamesLost] or
// [ErrNamesAway]; after these the node must not serve names any more.
func (l *Names) Run(ctx context.Context, apply func(node.Name)) error {
	f := &follow{
		conn: l.conn, stream: StreamNames, filter: NameFilter(),
		begin: func(_ *jetstream.StreamInfo, again bool) (jetstream.OrderedConsumerConfig, error) {
			if again {
				return jetstream.OrderedConsumerConfig{}, ErrNamesLost
			}
			return jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy}, nil
		},
		message: func(msg jetstream.Msg, meta *jetstream.MsgMetadata) {
			l.seen.Store(time.Now().UnixNano())
			l.apply(msg, meta, apply)
		},
		caughtUp: func() { l.once.Do(func() { close(l.ready) }) },
		lost: func(ctx context.Context) error {
			if seen := l.seen.Load(); seen != 0 { // whoever starts again makes a new one
				if time.Since(time.Unix(0, seen)) > namesGone {
					return &followStop{ErrNamesLost}
				}
				return nil
			}
			return makeLost(ctx, l.conn, l.cfg.Layout, StreamNames)
		},
		check: func(at time.Time) error {
			was := l.seen.Swap(at.UnixNano())
			if was != 0 && at.Sub(time.Unix(0, was)) > l.cfg.DeletedTTL*nameAwayNum/nameAwayOf {
				return ErrNamesAway
			}
			return nil
		},
	}
	return f.run(ctx)
}

func (l *Names) apply(msg jetstream.Msg, meta *jetstream.MsgMetadata, apply func(node.Name)) {
	l.sequence.Store(meta.Sequence.Stream)
	if msg.Headers().Get(markerReason) != "" {
		key, err := NameKey(msg.Subject())
		if err != nil {
			l.bad.Add(1)
			return
		}
		l.applied.Add(1)
		apply(node.Name{Key: key, Expires: meta.Timestamp.UnixMilli(), Sequence: meta.Sequence.Stream})
		return
	}
	n, err := DecodeName(msg.Subject(), msg.Data())
	if err != nil {
		l.bad.Add(1)
		l.cfg.Logger.Warn("a name's state in the log cannot be read", "subject", msg.Subject(), "sequence", meta.Sequence.Stream, "error", err)
		return
	}
	n.Sequence = meta.Sequence.Stream
	l.applied.Add(1)
	apply(n)
}

// Ready returns when Run has applied all that was in the log when it began; else
// with ctx's error.
func (l *Names) Ready(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ready:
		return nil
	}
}
