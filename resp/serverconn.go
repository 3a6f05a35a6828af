package resp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// errClosing: the server shuts down and the connection has nothing to finish.
var errClosing = errors.New("server is shutting down")

// errTimeout: the peer was silent for too long.
var errTimeout = errors.New("timeout reading from the client")

// serverConn is one connection of a server, run by one goroutine.
type serverConn struct {
	srv     *Server
	nc      net.Conn
	id      uint64
	handler Handler
	reader  commandReader
	w       Writer
	cancel  context.CancelFunc // ends the context of commands
	once    sync.Once          // of kill

	received int64 // bytes of budget held for the command under way

	// Of the read timeout. The kernel's deadline is moved seldom, so it may be
	// earlier than what is allowed; Read then sets it again.
	since    time.Time // when the present wait for a command, or the command, began
	waiting  bool      // which of the two
	deadline time.Time // as set on nc; zero is none
}

func newServerConn(ctx context.Context, cancel context.CancelFunc, s *Server, nc net.Conn, id uint64) *serverConn {
	c := &serverConn{srv: s, nc: nc, id: id, cancel: cancel}
	c.reader = newCommandReader(newInput(c, s.cfg.ReadBuffer), &s.cfg, c)
	c.w = Writer{
		owner: c, conn: nc, done: ctx.Done(), timeout: s.cfg.WriteTimeout, limit: int64(s.cfg.FlushBytes),
		budget: &s.budget, stats: &s.stats,
	}
	return c
}

// wake makes a connection that waits for a command look at Server.closing.
func (c *serverConn) wake() { c.nc.SetReadDeadline(time.Unix(1, 0)) }

// kill ends the connection whatever it is doing. It may be called by anyone.
func (c *serverConn) kill() {
	c.once.Do(func() {
		c.cancel()
		c.nc.Close()
	})
}

// run serves the connection until it ends.
func (c *serverConn) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, c.kill)
	var err error
	defer func() {
		stop()
		c.kill()
		if c.w.push != nil {
			c.w.push.stop()
		}
		c.guard("Release", c.w.drop)
		if c.handler != nil {
			c.guard("Close", c.handler.Close)
		}
		c.ended(err)
		c.srv.removeConn(c) // last: whoever sees it gone finds it counted
	}()
	if !c.guard("NewHandler", func() {
		c.handler = c.srv.cfg.NewHandler(ConnInfo{ID: c.id, Conn: c.nc})
	}) || c.handler == nil {
		return
	}
	c.guard("connection", func() { err = c.serve(ctx) })
	c.giveBack()
}

// guard runs f and turns a panic into a log line and false.
func (c *serverConn) guard(what string, f func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.stats.panics.Add(1)
			c.srv.cfg.Logger.Error("panic in handler, closing the connection",
				"in", what, "remote", c.nc.RemoteAddr(), "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
	return true
}

// serve reads and executes commands until the connection is to end.
func (c *serverConn) serve(ctx context.Context) error {
	defer func() {
		if c.reader.asked { // also when Payload panicked
			c.dropped()
		}
	}()
	for {
		c.since = time.Time{}
		err := c.reader.next()
		if err != nil {
			return c.fatal(err)
		}
		if refusal := c.reader.refused; refusal != nil {
			if c.reader.asked {
				c.dropped()
			}
			c.giveBack()
			c.w.Fail(refusal)
			if errors.Is(refusal, ErrClose) {
				return c.w.Flush()
			}
			continue
		}
		c.reader.asked = false
		if c.w.push != nil {
			c.w.takePushed()
		}
		c.handler.Do(ctx, &c.w, &c.reader.cmd)
		c.srv.stats.commands.Add(1)
		c.giveBack()
		if c.w.closing || c.w.err != nil {
			return c.w.Flush()
		}
	}
}

func (c *serverConn) dropped() {
	c.reader.asked = false
	c.srv.stats.dropped.Add(1)
	c.handler.Dropped(&c.reader.cmd)
}

// giveBack returns the budget that the command held for what it received.
func (c *serverConn) giveBack() {
	c.srv.budget.give(c.received)
	c.received = 0
	c.w.owes = false
}

// fatal answers an error of the reader, if it is one for the client.
func (c *serverConn) fatal(err error) error {
	var bad protocolError
	var refusal ServerError
	if !errors.As(err, &bad) && !errors.As(err, &refusal) {
		return err
	}
	c.srv.stats.protocolErrors.Add(1)
	c.w.Fail(err)
	if c.w.Flush() == nil {
		c.linger()
	}
	return err
}

// linger ends sending and throws away what still comes for a while: closing
// with input unread would reset the connection, and the peer might never see the
// error that was sent.
func (c *serverConn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(c.srv.cfg.Linger))
	for {
		n, err := c.nc.Read(c.reader.in.buf)
		c.srv.stats.bytesIn.Add(uint64(n))
		if err != nil {
			return
		}
	}
}

// Payload passes the reader's question on to the handler.
func (c *serverConn) Payload(args [][]byte, arg, n int) ([]byte, error) {
	return c.handler.Payload(args, arg, n)
}

// admit takes n bytes of the budget for an argument to be received. Replies that
// hold a share of it are sent before it waits.
func (c *serverConn) admit(n int64) error {
	b := &c.srv.budget
	if c.received+n > b.limit {
		return fmt.Errorf("the payloads of one command have more than MaxInFlightBytes (%d)", b.limit)
	}
	if !b.try(n, c.received > 0) {
		if err := c.w.Flush(); err != nil {
			return err
		}
		if err := b.take(c.w.done, n); err != nil {
			c.srv.cfg.Logger.Warn("no room for payload", "remote", c.nc.RemoteAddr(), "bytes", n, "err", err)
			return err
		}
	}
	c.received += n
	c.w.owes = true
	return nil
}

// Read reads from the network for the command reader: replies are sent before
// it may have to wait, and the timeouts hold.
func (c *serverConn) Read(p []byte) (int, error) {
	if c.w.push != nil {
		c.w.takePushed()
	}
	if !c.w.queue.empty() {
		if err := c.w.Flush(); err != nil {
			return 0, err
		}
	}
	if waiting := !c.reader.midway; waiting != c.waiting || c.since.IsZero() || waiting {
		c.waiting, c.since = waiting, time.Now()
	}
	for {
		until := c.arm()
		if c.waiting && c.srv.closing.Load() { // looked at after arming, see wake
			return 0, errClosing
		}
		n, err := c.receive(p)
		c.srv.stats.bytesIn.Add(uint64(n))
		if c.w.err != nil { // of the flusher; it is why the connection is closed
			return 0, c.w.err
		}
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if c.waiting && c.srv.closing.Load() {
			return 0, errClosing
		}
		if !until.IsZero() && !time.Now().Before(until) {
			return 0, errTimeout
		}
		c.deadline = time.Time{} // it fired early, or was for something else
		c.nc.SetReadDeadline(c.deadline)
	}
}

// receive is Read of the connection, during which messages may be pushed.
func (c *serverConn) receive(p []byte) (int, error) {
	if c.w.push == nil {
		return c.nc.Read(p)
	}
	return c.w.push.read(c.nc, p)
}

// arm returns until when the present read may wait, zero for ever, and sets a
// deadline unless the one that is set is close enough before it.
func (c *serverConn) arm() time.Time {
	limit := c.srv.cfg.ReadTimeout
	if c.waiting {
		limit = c.srv.cfg.IdleTimeout
		if limit == 0 || c.w.push != nil {
			return time.Time{}
		}
	} else {
		limit += transferTime(c.reader.declared)
	}
	until := c.since.Add(limit)
	if c.deadline.After(until) || c.deadline.Before(until.Add(-limit/2)) {
		c.deadline = until
		c.nc.SetReadDeadline(until)
	}
	return until
}

// ended logs and counts why the connection ended.
func (c *serverConn) ended(err error) {
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, errClosing), errors.Is(err, net.ErrClosed):
		return
	case errors.Is(err, errTimeout), errors.Is(err, os.ErrDeadlineExceeded):
		c.srv.stats.timeouts.Add(1)
	}
	c.srv.cfg.Logger.Debug("connection ended", "remote", c.nc.RemoteAddr(), "err", err)
}
