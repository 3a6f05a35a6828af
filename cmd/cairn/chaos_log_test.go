package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"cairn/client"
	"cairn/cluster"
	"cairn/coherency/ledger"
)

const (
	// cohStream has the coherence log.
	cohStream = "CAIRN_COH_0"
	// logPoll is how often its new messages are fetched, logFetches how many at a time.
	logPoll    = 100 * time.Millisecond
	logFetches = 4
	// clockSlack is by how much the time of a message may be ahead of the clock of
	// the history: both are of this machine, but one can be set.
	clockSlack = 100 * time.Millisecond
)

// cohEntry is a message of the coherence log as it was found there.
type cohEntry struct {
	sequence uint64
	at       time.Duration // no later than its place in the log
	data     []byte
}

// logTail copies the coherence log while a round runs: what nodes have taken a
// snapshot of may be gone at its end.
type logTail struct {
	conn    *cluster.Conn
	began   time.Time
	next    uint64
	entries []cohEntry
	stop    context.CancelFunc
	done    chan struct{}
}

func startTail(conn *cluster.Conn, began time.Time) *logTail {
	ctx, stop := context.WithCancel(context.Background())
	t := &logTail{conn: conn, began: began, next: 1, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		tick := time.NewTicker(logPoll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = t.advance(ctx) // NATS may be away; the last one counts
			}
		}
	}()
	return t
}

// finish copies what is still missing.
func (t *logTail) finish(ctx context.Context) error {
	t.stop()
	<-t.done
	_, err := awaitErr(ctx, patience, func() error { return t.advance(ctx) })
	return err
}

// advance copies up to the present end.
func (t *logTail) advance(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, oneCall)
	defer cancel()
	s, err := t.conn.JS.Stream(ctx, cohStream)
	if err != nil {
		return err
	}
	state := s.CachedInfo().State
	if state.FirstSeq > t.next {
		return fmt.Errorf("the log begins at %d, and has been copied up to %d", state.FirstSeq, t.next)
	}
	for t.next <= state.LastSeq {
		n := min(state.LastSeq-t.next+1, 1024)
		batch := make([]cohEntry, n)
		errs := make([]error, logFetches)
		var work sync.WaitGroup
		for w := range uint64(logFetches) {
			work.Go(func() {
				for i := w; i < n && errs[w] == nil; i += logFetches {
					m, err := s.GetMsg(ctx, t.next+i)
					if err != nil {
						errs[w] = fmt.Errorf("message %d: %w", t.next+i, err)
						return
					}
					batch[i] = cohEntry{m.Sequence, m.Time.Sub(t.began) - clockSlack, m.Data}
				}
			})
		}
		work.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		t.entries = append(t.entries, batch...)
		t.next += n
	}
	return nil
}

// logFacts is what the coherence log says about a round.
type logFacts struct {
	losses   []chaosLoss
	spans    []chaosSpan
	verdicts map[string]int // by kind and verdict
	declared uint64
	states   map[uint64]logState // by sequence
	// wrong is what the log itself shows to be wrong.
	wrong []string
}

// logState is what nodes say of the log as well.
type logState struct {
	digest string
	losses uint64
}

// replayLog applies the log to a ledger of its own.
func replayLog(entries []cohEntry, keys []chaosKey) *logFacts {
	f := &logFacts{verdicts: map[string]int{}, states: map[uint64]logState{}}
	number := map[chaosKey]int{}
	for i, k := range keys {
		number[k] = i
	}
	led := ledger.New(ledger.NewMapTable(), 1<<16)
	open := map[string]int{} // spans that have not ended
	end := func(node string, e cohEntry) {
		if i, ok := open[node]; ok {
			f.spans[i].Until, f.spans[i].last = e.at, e.sequence
			delete(open, node)
		}
	}
	for _, e := range entries {
		var m ledger.Message
		if err := ledger.Decode(e.data, &m); err != nil {
			f.wrong = append(f.wrong, fmt.Sprintf("message %d of the log: %v", e.sequence, err))
			led.Skip(e.sequence, ledger.Sum(e.data))
			continue
		}
		applied := led.Apply(e.sequence, &m, ledger.Sum(e.data), func(r *ledger.Record, o *ledger.Outcome) {
			f.verdicts[r.Kind.String()+" "+o.Verdict.String()]++
			if o.Verdict != ledger.Effective {
				return
			}
			switch r.Kind {
			case ledger.Join:
				end(m.Node, e)
				open[m.Node] = len(f.spans)
				f.spans = append(f.spans, chaosSpan{Node: m.Node, From: e.at, Until: forever, first: e.sequence})
			case ledger.Leave:
				end(m.Node, e)
			case ledger.Expire:
				end(r.Member, e)
			case ledger.Revoke:
				key, known := number[chaosKey{o.After.Namespace, string(o.After.Name)}]
				if !r.Flags.Has(ledger.Lost) || !known {
					return
				}
				f.losses = append(f.losses, chaosLoss{
					Key: key, Call: e.at, Return: forever, Version: client.Version(o.After.Version), Base: client.Version(o.Before.Version),
					Present:  !o.After.Value.Object.IsZero(),
					Replaced: o.After.Value.Object != o.Before.Value.Object,
				})
			}
		})
		f.states[e.sequence] = logState{fmt.Sprintf("%016x", led.Digest()), led.Losses()}
		if applied.Diverged {
			f.wrong = append(f.wrong, fmt.Sprintf("message %d: %s has read another log up to %d", e.sequence, m.Node, m.Applied))
		}
	}
	f.declared = led.Losses()
	return f
}

// writeLog renders the log for people.
func writeLog(w io.Writer, entries []cohEntry) error {
	for _, e := range entries {
		var m ledger.Message
		text := []byte(`"unreadable"`)
		if ledger.Decode(e.data, &m) == nil {
			var err error
			if text, err = json.Marshal(m); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "%d %v %s\n", e.sequence, e.at, strings.TrimSpace(string(text))); err != nil {
			return err
		}
	}
	return nil
}
