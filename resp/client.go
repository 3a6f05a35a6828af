package resp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

var (
	// ErrNil: the reply is null: there is no such value.
	ErrNil = errors.New("resp: nil reply")
	// ErrShort: the value is longer than the memory for it. It was read and
	// thrown away; the connection is usable.
	ErrShort = errors.New("resp: value longer than the buffer")
	// ErrBroken: an I/O or protocol error has ended the use of the connection.
	ErrBroken = errors.New("resp: connection is broken")
	// ErrProtocol: the peer sent something else than the reply that was asked
	// for, or exceeded a limit of ClientConfig.
	ErrProtocol = errors.New("resp: protocol error")
	// ErrNotDue: a reply was asked for that no command is going to have.
	ErrNotDue = errors.New("resp: no reply is due")
)

// ClientConfig is what a Conn can be told. The zero value means the defaults.
type ClientConfig struct {
	// Dial makes the network connection; tls.Dialer.DialContext encrypts it.
	// Default: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// DialTimeout bounds dialling and the greeting. Default 5 s.
	DialTimeout time.Duration
	// Timeout bounds a chain, from Begin, whose context has no deadline.
	// Default 30 s. Negative: unbounded.
	Timeout time.Duration
	// Username and Password are sent with AUTH when a password is set.
	Username, Password string
	// RESP3 asks for RESP3 with HELLO 3. Push messages are thrown away.
	RESP3 bool
	// MaxReply bounds the memory, in bytes, of what ReadReply returns.
	// Default 64 MiB.
	MaxReply int
	// ReadBuffer is the size of the input buffer. Default 16 KiB.
	ReadBuffer int
	// SocketBuffer is as in ServerConfig. Default 1 MiB.
	SocketBuffer int
}

func (c ClientConfig) withDefaults() ClientConfig {
	setDefault(&c.DialTimeout, 5*time.Second)
	setDefault(&c.Timeout, 30*time.Second)
	setDefault(&c.MaxReply, 64<<20)
	setDefault(&c.ReadBuffer, 16<<10)
	setDefault(&c.SocketBuffer, 1<<20)
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	return c
}

// Validate reports everything that is wrong with the configuration.
func (c ClientConfig) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.DialTimeout < 0 {
		errs = append(errs, fmt.Errorf("DialTimeout is %v, must be positive", c.DialTimeout))
	}
	if c.MaxReply < 0 {
		errs = append(errs, fmt.Errorf("MaxReply is %d, must be positive", c.MaxReply))
	}
	if c.ReadBuffer < 64 {
		errs = append(errs, fmt.Errorf("ReadBuffer is %d, must be at least 64", c.ReadBuffer))
	}
	if c.Username != "" && c.Password == "" {
		errs = append(errs, errors.New("field Username is set without Password"))
	}
	if len(errs) > 0 {
		return fmt.Errorf("resp: client configuration: %w", errors.Join(errs...))
	}
	return nil
}

// Conn is a client's connection. One goroutine uses it at a time, for a chain:
//
//	c.Begin(ctx)
//	c.Append("GET", key1)
//	c.Append("GET", key2)
//	n1, err1 := c.ReadBulkInto(slot1) // sends both, reads the first reply
//	n2, err2 := c.ReadBulkInto(slot2)
//	c.End()
//
// Every reply must be read, or the connection closed. A chain sends all its
// commands before it reads: one that both sends and fetches many MiB may
// stall, when neither side reads, until the deadline; put them in two chains.
//
// Errors of the server (ServerError), ErrNil and ErrShort leave the connection
// usable. Any other error breaks it, and everything after gives ErrBroken.
type Conn struct {
	cfg       ClientConfig
	nc        net.Conn
	addr      string
	in        input
	queue     queue
	interrupt func()      // ends I/O under way
	peek      func() bool // whether the idle connection is still open and silent

	due  int64 // frames to be read before the chain is complete
	body int   // bytes of a bulk string whose header has been read, or -1
	err  error // why the connection is broken

	// Of the chain under way, from Begin to End. It is kept here so that each
	// read of a chain need not be given it again.
	ctx  context.Context
	stop func() bool
}

// Dial connects to addr (network tcp or unix) and greets the server as the
// configuration says. ctx is for dialling only.
func Dial(ctx context.Context, network, addr string, cfg ClientConfig) (*Conn, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
	defer cancel()
	nc, err := cfg.Dial(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("resp: dial %s: %w", addr, err)
	}
	tuneSocket(nc, cfg.SocketBuffer, socketBufferGranted(cfg.SocketBuffer))
	c := &Conn{cfg: cfg, nc: nc, addr: addr, body: -1}
	c.in = newInput(nc, cfg.ReadBuffer)
	c.interrupt = func() { nc.SetDeadline(time.Unix(1, 0)) }
	c.peek = silent(nc)
	c.Begin(ctx)
	err = c.greet()
	c.End()
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("resp: greet %s: %w", addr, err)
	}
	return c, nil
}

func (c *Conn) greet() error {
	switch {
	case c.cfg.RESP3 && c.cfg.Password != "":
		user := c.cfg.Username
		if user == "" {
			user = "default"
		}
		c.Append("HELLO", []byte("3"), []byte("AUTH"), []byte(user), []byte(c.cfg.Password))
	case c.cfg.RESP3:
		c.Append("HELLO", []byte("3"))
	case c.cfg.Username != "":
		c.Append("AUTH", []byte(c.cfg.Username), []byte(c.cfg.Password))
	case c.cfg.Password != "":
		c.Append("AUTH", []byte(c.cfg.Password))
	default:
		return nil
	}
	_, err := c.ReadReply()
	return err
}

// Begin begins a chain, whose reading and writing ends when ctx does.
func (c *Conn) Begin(ctx context.Context) {
	deadline, ok := ctx.Deadline()
	if !ok && c.cfg.Timeout > 0 {
		deadline = time.Now().Add(c.cfg.Timeout)
	}
	c.nc.SetDeadline(deadline)
	c.ctx, c.stop = ctx, nil
	if ctx.Done() != nil {
		c.stop = context.AfterFunc(ctx, c.interrupt)
	}
}

// End ends the chain. If ctx has ended by now the connection counts as broken.
func (c *Conn) End() {
	if c.stop != nil && !c.stop() && c.err == nil {
		c.err = context.Cause(c.ctx) // its deadline is or will be interrupted
	}
	c.ctx, c.stop = nil, nil
}

// Usable tells whether another chain can begin: no error has broken the
// connection, and every reply has been read.
func (c *Conn) Usable() bool {
	return c.err == nil && c.due == 0 && c.body < 0 && c.queue.empty() && c.in.buffered() == 0
}

// Close closes the connection. It may be called while it is in use, which
// breaks it.
func (c *Conn) Close() error { return c.nc.Close() }

// Append queues a command. Long arguments are sent from where they are and must
// not change until they have been sent: when Flush or the first read returns.
func (c *Conn) Append(name string, args ...[]byte) {
	c.AppendHeader(1 + len(args))
	c.AppendString(name)
	for _, a := range args {
		c.AppendArg(a)
	}
}

// AppendHeader begins a command that is queued argument by argument: exactly n
// of them follow, its name included.
func (c *Conn) AppendHeader(n int) {
	c.queue.header(typeArray, int64(n))
	c.due++
}

// AppendArg queues an argument; see Append for whose p is.
func (c *Conn) AppendArg(p []byte) {
	if len(p) < copyBelow {
		c.queue.bulk(p)
	} else {
		c.queue.bulkRef(p, nil)
	}
}

// AppendString queues an argument, copied.
func (c *Conn) AppendString(s string) { c.queue.bulkString(s) }

// AppendInt queues a number as an argument.
func (c *Conn) AppendInt(n int64) {
	var text [20]byte
	c.queue.bulk(strconv.AppendInt(text[:0], n, 10))
}

// Flush sends what is queued. Reading does it too.
func (c *Conn) Flush() error {
	if c.err != nil {
		c.queue.reset()
		return c.broken()
	}
	if c.queue.empty() {
		return nil
	}
	_, err := c.queue.writeTo(c.nc)
	c.queue.reset()
	if err != nil {
		return c.fail("write", err)
	}
	return nil
}

// fail breaks the connection.
func (c *Conn) fail(what string, err error) error {
	switch {
	case c.ctx != nil && c.ctx.Err() != nil:
		err = c.ctx.Err() // the cause of the interrupted I/O
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = context.DeadlineExceeded // the socket's timer was ahead of ctx's
	}
	c.err = fmt.Errorf("resp: %s %s: %w", what, c.addr, err)
	return c.err
}

func (c *Conn) broken() error { return fmt.Errorf("%w: %w", ErrBroken, c.err) }
