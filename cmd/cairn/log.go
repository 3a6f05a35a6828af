package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/cluster"
	"cairn/coherency/ledger"
	"cairn/wire"
)

type logCmd struct {
	natsClient
	Name      string `arg:"" help:"Name of the block."`
	Namespace string `help:"Namespace of the name." default:"default"`
	Follow    bool   `short:"f" help:"Go on with what comes."`
	Last      int    `help:"Begin with the last so many entries; 0 begins with the first that the log still has."`
}

// Run reads the log twice: for the times and for what a snapshot has summed up since,
// and then as a node does, to find what became of each record.
func (c *logCmd) Run(a *app) error {
	if _, sealed := asKey(c.Name); sealed {
		return usage("%s is the key of a block, which is never changed: log is for names", c.Name)
	}
	if c.Last < 0 {
		return usage("--last %d: want 0 or more", c.Last)
	}
	conn, err := c.dial(a, "cairn log")
	if err != nil {
		return err
	}
	defer conn.Close()
	coh, err := cluster.NewCoherence(conn, cluster.CoherenceConfig{Logger: a.log})
	if err != nil {
		return err
	}
	l := &blockLog{a: a, namespace: c.Namespace, key: block.NamedKey(c.Namespace, []byte(c.Name), 0), last: c.Last}
	if err := l.history(a.ctx, coh); err != nil {
		return fmt.Errorf("%w; does a cairn node use this NATS?", err)
	}
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	if !c.Follow {
		l.done = cancel
	}
	l.ledger = ledger.New(ledger.NewMapTable(), 0)
	err = coh.Run(ctx, l)
	switch {
	case l.err != nil:
		return l.err
	case a.ctx.Err() == nil && !errors.Is(err, context.Canceled):
		return err
	case !l.any && !c.Follow && a.ctx.Err() == nil:
		return fmt.Errorf("%w: the log has no change of %q in namespace %s", client.ErrNotFound, c.Name, c.Namespace)
	}
	return nil
}

// blockLog shows what the log says about one block. It is a cluster.Handler.
type blockLog struct {
	a         *app
	namespace string
	key       block.Key
	last      int
	done      func() // ends the reading at its end; nil: it goes on

	ledger *ledger.Ledger
	logged map[uint64]cluster.Logged // by sequence: what is about the block
	order  []uint64                  // its keys
	early  []logEntry                // what waits for the end of the log, if only the last are wanted
	caught bool
	any    bool
	err    error // of writing
}

// logEntry is one record about the block.
type logEntry struct {
	Place   string        `json:"place"`
	Time    time.Time     `json:"time"`
	Node    string        `json:"node"`
	Verdict string        `json:"verdict"`
	Version wire.Version  `json:"version,omitempty"` // after it
	What    string        `json:"what"`
	Record  ledger.Record `json:"record"`
}

// about tells whether a record is about the block.
func (l *blockLog) about(r *ledger.Record) bool {
	return r.Key == l.key || r.Kind == ledger.Clear && r.Namespace == l.namespace
}

// history keeps the messages about the block that the log still has.
func (l *blockLog) history(ctx context.Context, coh *cluster.Coherence) error {
	l.logged = map[uint64]cluster.Logged{}
	match := func(m *ledger.Message) bool {
		for i := range m.Records {
			if l.about(&m.Records[i]) {
				return true
			}
		}
		return false
	}
	for m, err := range coh.History(ctx, match, 0) {
		if err != nil {
			return err
		}
		if m.Message != nil {
			l.logged[m.Sequence] = m
			l.order = append(l.order, m.Sequence)
		}
	}
	return nil
}

// unknownVerdict is that of a record which a snapshot has summed up.
const unknownVerdict = "?"

// Restore implements cluster.Handler. What became of the records before the
// snapshot cannot be told any more.
func (l *blockLog) Restore(sequence uint64, snapshot io.Reader) error {
	led, err := ledger.LoadSnapshot(snapshot, ledger.NewMapTable(), 0)
	if err != nil {
		return err
	}
	l.ledger, l.early, l.any = led, nil, false
	if len(l.order) > 0 && l.order[0] <= sequence {
		fmt.Fprintf(l.a.err, "entries up to %d are summed up in a snapshot; what became of each is not known any more\n", sequence)
	}
	for _, s := range l.order {
		if s > sequence {
			break
		}
		m := l.logged[s].Message
		for i := range m.Records {
			if r := &m.Records[i]; l.about(r) {
				l.add(m.Node, r, &ledger.Outcome{Place: ledger.At(s, i)}, unknownVerdict)
			}
		}
	}
	return nil
}

// Message implements cluster.Handler.
func (l *blockLog) Message(sequence uint64, m *ledger.Message, sum uint64) {
	l.ledger.Apply(sequence, m, sum, func(r *ledger.Record, o *ledger.Outcome) {
		if l.about(r) {
			l.add(m.Node, r, o, o.Verdict.String())
		}
	})
}

// Bad implements cluster.Handler.
func (l *blockLog) Bad(sequence, sum uint64) { l.ledger.Skip(sequence, sum) }

// CaughtUp implements cluster.Handler.
func (l *blockLog) CaughtUp() {
	l.caught = true
	if l.last > 0 && len(l.early) > l.last {
		l.early = l.early[len(l.early)-l.last:]
	}
	for _, e := range l.early {
		if l.any {
			l.print(e)
		}
	}
	l.early, l.logged, l.order = nil, nil, nil
	if l.done != nil {
		l.done()
	}
}

// Regressed implements cluster.Handler.
func (l *blockLog) Regressed(error) {}

func (l *blockLog) add(author string, r *ledger.Record, o *ledger.Outcome, verdict string) {
	l.any = l.any || r.Key == l.key // a Clear alone says nothing about this block
	e := logEntry{Place: wire.Version(o.Place).String(), Time: time.Now(), Node: author, Verdict: verdict, Version: wire.Version(o.After.Version),
		Record: *r, What: l.what(r, o)}
	if m, ok := l.logged[o.Place.Sequence()]; ok {
		e.Time = m.Time
	}
	if r.Kind == ledger.Clear && verdict == ledger.Effective.String() {
		e.Version = wire.Version(o.Place)
	}
	if l.caught {
		l.print(e)
		return
	}
	l.early = append(l.early, e)
}

func (l *blockLog) print(e logEntry) {
	var err error
	if l.a.json {
		err = l.a.printLine(e)
	} else {
		_, err = fmt.Fprintf(l.a.out, "%-10s %s  %-10s %-9s %s\n", e.Place, e.Time.Local().Format(timeFormat), e.Node, e.Verdict, e.What)
	}
	l.err = errors.Join(l.err, err)
}
