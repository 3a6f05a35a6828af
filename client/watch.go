package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"cairn/resp"
)

// Event says that a named block has another version.
type Event struct {
	Version Version
	Exists  bool // false: it was deleted, has ended, or was cleared with its namespace
}

// Watch yields an event for the present state of a named block, if it was ever
// written, and then whenever that has changed. ns is the namespace, "" for the configured
// one. The newest state is never missed; of several changes that come close together
// only the last may be told. It follows one node, by a connection of its own, and goes
// on to another when that one fails; it can be late by what the node is behind the log.
//
// It ends when the caller stops it or ctx ends, without an error, and with one when
// the client is closed or a node says that the question is wrong.
func (c *Client) Watch(ctx context.Context, ns, name string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := &watcher{c: c, ns: cmp.Or(ns, c.cfg.Namespace), name: name, yield: yield, pause: backoff{most: c.cfg.MaxBackoff}}
		watching, done, err := c.watch(ctx, w)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer done()
		for {
			err := w.follow(watching)
			switch {
			case w.stopped || ctx.Err() != nil:
				return
			case watching.Err() != nil:
				yield(Event{}, context.Cause(watching))
				return
			case !retryable(err) && !errors.Is(err, ErrUnknownOutcome):
				yield(Event{}, err)
				return
			}
			_ = w.pause.wait(watching) // its end is seen by what follows
		}
	}
}

// watch makes a context that ends with the client.
func (c *Client) watch(ctx context.Context, w *watcher) (watching context.Context, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, ErrClosed
	}
	watching, end := context.WithCancelCause(ctx)
	c.watching[w] = end
	return watching, func() {
		end(nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watching, w)
	}, nil
}

// watcher is one Watch.
type watcher struct {
	c        *Client
	ns, name string
	yield    func(Event, error) bool
	since    Version
	failures int
	pause    backoff
	stopped  bool // the caller has had enough
}

// follow asks one node for news until that fails.
func (w *watcher) follow(ctx context.Context) error {
	nodes := w.c.inOrder()
	if len(nodes) == 0 {
		return ErrClosed
	}
	n := nodes[0]
	if n.resting(time.Now()) {
		n = nodes[w.failures%len(nodes)] // all have failed: each in turn
	}
	conn, err := resp.Dial(ctx, n.network, n.target, w.c.cfg.conn())
	for first := true; err == nil && !w.stopped; first = false {
		if err = w.ask(ctx, conn, first); err == nil {
			w.pause.reset()
		}
	}
	if conn != nil {
		conn.Close()
	}
	if ctx.Err() == nil && err != nil {
		n.failed() // so that the next node is asked
		w.failures++
	}
	return translate(ctx, "watch", n.addr, err, false)
}

// ask waits for one event, at most for Config.WatchPoll, and hands it on.
func (w *watcher) ask(ctx context.Context, conn *resp.Conn, first bool) error {
	limited, cancel := context.WithTimeout(ctx, w.c.cfg.WatchPoll+w.c.cfg.Timeout)
	defer cancel()
	conn.Begin(limited)
	defer conn.End()
	enter := first && w.ns != ""
	if enter {
		conn.Append("CAIRN.NAMESPACE", []byte(w.ns))
	}
	conn.AppendHeader(4)
	conn.AppendString("CAIRN.WATCH")
	conn.AppendString(w.name)
	conn.AppendInt(int64(w.since))
	conn.AppendInt(milliseconds(w.c.cfg.WatchPoll))
	if enter {
		if _, err := conn.ReadStatus(); err != nil {
			return err
		}
	}
	elements, err := conn.ReadArrayLen()
	if errors.Is(err, resp.ErrNil) {
		return nil
	}
	if err != nil {
		return err
	}
	if elements != 2 {
		return fmt.Errorf("%w: %d elements for an event", resp.ErrProtocol, elements)
	}
	version, err := conn.ReadInt()
	if err != nil {
		return err
	}
	exists, err := conn.ReadInt()
	if err != nil {
		return err
	}
	v := Version(version)
	if v <= w.since {
		return fmt.Errorf("%w: version %s is no news after %s", resp.ErrProtocol, v, w.since)
	}
	w.since = v
	w.stopped = !w.yield(Event{Version: v, Exists: exists == 1}, nil)
	return nil
}
