package cluster

import (
	"context"
	"fmt"
	"iter"
	"time"

	"cairn/coherency/ledger"

	"github.com/nats-io/nats.go/jetstream"
)

// Logged is one message of the coherence log, for people.
type Logged struct {
	Sequence uint64
	Time     time.Time // when the server took it
	Node     string    // the author's lane
	// Message is nil if it cannot be read; Bad says why.
	Message *ledger.Message
	Bad     error
}

// History reads the log from its first message to what is its last now, apart from
// Run. It yields what match accepts (nil: everything) and what cannot be read, up to most
// (0: no limit), and at last an error if it could not read to the end.
func (c *Coherence) History(ctx context.Context, match func(*ledger.Message) bool, most int) iter.Seq2[Logged, error] {
	return func(yield func(Logged, error) bool) {
		n := 0
		err := c.scan(ctx, func(l Logged) bool {
			if l.Message != nil && match != nil && !match(l.Message) {
				return true
			}
			n++
			return yield(l, nil) && n != most
		})
		if err != nil {
			yield(Logged{}, fmt.Errorf("cluster: read %s: %w", c.stream, err))
		}
	}
}

func (c *Coherence) scan(ctx context.Context, each func(Logged) bool) error {
	s, err := c.conn.JS.Stream(ctx, c.stream)
	if err != nil {
		return err
	}
	state := s.CachedInfo().State
	if state.Msgs == 0 {
		return nil
	}
	cons, err := c.conn.JS.OrderedConsumer(ctx, c.stream, jetstream.OrderedConsumerConfig{InactiveThreshold: consumerIdle})
	if err != nil {
		return err
	}
	it, err := cons.Messages(jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat), jetstream.PullMaxBytes(followBytes))
	if err != nil {
		return err
	}
	defer it.Stop()
	for {
		msg, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		l := Logged{Sequence: meta.Sequence.Stream, Time: meta.Timestamp}
		_, l.Node, _ = CoherenceNode(msg.Subject())
		l.Message, l.Bad = c.decode(msg.Subject(), msg.Data())
		if !each(l) || l.Sequence >= state.LastSeq {
			return nil
		}
	}
}
