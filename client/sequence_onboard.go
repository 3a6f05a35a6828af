package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/block"
	"cairn/resp"
	"cairn/sequence"
	"cairn/wire"
)

// Onboarded says what an Onboard has brought.
type Onboarded struct {
	// Range is which blocks are in the tier now, in place until the sequence is truncated
	// or closed, and without a gap.
	Range sequence.Range
	// Missing is why the block behind Range is not there; "" when all are that were asked
	// for, "absent" when nobody has it, else corrupt, peer, full, timeout or other.
	Missing string
	// From is how many blocks this call has put in place, by where they came from: vram,
	// host, disk or peer; of Bytes bytes.
	From  map[string]int
	Bytes int64
	// Elapsed is how long it took at the node.
	Elapsed time.Duration
}

// cancelGrace is how long the node may take to end an onboard that was cancelled.
const cancelGrace = 5 * time.Second

// Onboard brings blocks into GPU memory or host memory of the node and keeps them there.
// want is which ones; an End of 0 is all. A block that cannot be had ends the range and is
// no error. ErrPinned says that sequences keep too much of the tier in place already;
// Status tells what this one has. When ctx ends, the node stops, and what this call has
// brought is not kept in place; the sequence lives on.
func (s *Sequence) Onboard(ctx context.Context, t block.Tier, want sequence.Range) (got Onboarded, err error) {
	if _, ok := ctx.Deadline(); !ok {
		limited, cancel := context.WithTimeout(ctx, s.n.c.cfg.Timeout)
		defer cancel()
		ctx = limited
	}
	deadline, _ := ctx.Deadline()
	patient, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(cancelGrace))
	defer cancel()
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return got, translate(ctx, "onboard", s.n.addr, ctx.Err(), false)
	}
	defer func() { <-s.turn }()
	if s.ended != nil {
		return got, fmt.Errorf("cairn: onboard at %s: %w", s.n.addr, s.ended)
	}
	asked, answered := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(asked); s.cancel(answered) })
	err = s.use(patient, "onboard", func() error {
		s.ask("CAIRN.SEQ.ONBOARD", 3)
		s.conn.AppendString(t.String())
		s.conn.AppendInt(int64(want.Start))
		s.conn.AppendInt(int64(want.End))
		f, err := wire.ReadFields(s.conn)
		if err != nil {
			return err
		}
		got = Onboarded{
			Range:   sequence.Range{Start: int(f.Int("from")), End: int(f.Int("to"))},
			Missing: f.Text("missing"), From: map[string]int{}, Bytes: f.Int("bytes"),
			Elapsed: time.Duration(f.Int("microseconds")) * time.Microsecond,
		}
		for _, from := range []string{"vram", "host", "disk", "peer"} {
			got.From[from] = int(f.Int(from))
		}
		return nil
	})
	close(answered)
	if !stop() {
		<-asked // it must not hit the next onboard
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("cairn: onboard at %s: %w", s.n.addr, ctx.Err())
	}
	return got, err
}

// cancelPause is the time between two requests to end an onboard that has not begun yet.
const cancelPause = 5 * time.Millisecond

// cancel ends the onboard that is under way, by another connection. It may come before what
// it is to end, so it asks until it has ended something, or answered is closed.
func (s *Sequence) cancel(answered <-chan struct{}) {
	ctx, done := context.WithTimeout(context.Background(), cancelGrace)
	defer done()
	for {
		var ended int64
		err, _ := s.n.try(ctx, func(conn *resp.Conn) (err error) {
			conn.Append("CAIRN.SEQ.CANCEL", []byte(s.id))
			ended, err = conn.ReadInt()
			return err
		})
		var reply resp.ServerError
		switch {
		case err != nil && !errors.As(err, &reply):
			s.conn.Close() // the node sees that nobody waits any more
			return
		case err != nil, ended > 0:
			return
		}
		select {
		case <-answered:
			return
		case <-time.After(cancelPause): // when ctx has ended the next try fails
		}
	}
}
