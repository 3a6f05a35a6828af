package resp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrPoolClosed is what Get returns after Close.
var ErrPoolClosed = errors.New("resp: pool is closed")

// PoolConfig is what a Pool can be told. The zero value means the defaults.
type PoolConfig struct {
	// Client configures the connections.
	Client ClientConfig
	// MaxActive bounds the connections in use; Get waits for one.
	// Default 64.
	MaxActive int
	// MaxIdle bounds the idle connections that are kept. Default 16.
	MaxIdle int
	// IdleTimeout is how long an idle connection is used again; it is looked at
	// when connections are taken and put back. Default 5 minutes.
	IdleTimeout time.Duration
}

func (c PoolConfig) withDefaults() PoolConfig {
	setDefault(&c.MaxActive, 64)
	setDefault(&c.MaxIdle, 16)
	setDefault(&c.IdleTimeout, 5*time.Minute)
	return c
}

// Validate reports everything that is wrong with the configuration.
func (c PoolConfig) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.MaxActive < 1 {
		errs = append(errs, fmt.Errorf("resp: pool configuration: MaxActive is %d, must be at least 1", c.MaxActive))
	}
	if c.MaxIdle < 1 {
		errs = append(errs, fmt.Errorf("resp: pool configuration: MaxIdle is %d, must be at least 1", c.MaxIdle))
	}
	if c.IdleTimeout < 0 {
		errs = append(errs, fmt.Errorf("resp: pool configuration: IdleTimeout is %v, must be positive", c.IdleTimeout))
	}
	return errors.Join(append(errs, c.Client.Validate())...)
}

// Pool keeps connections to one address. Its methods may be called in parallel.
type Pool struct {
	network, addr string
	cfg           PoolConfig
	slots         chan struct{} // one element a connection in use or being dialled
	closed        chan struct{}

	mu   sync.Mutex // guards what follows
	idle []idleConn // oldest first
	done bool
}

type idleConn struct {
	*Conn
	since time.Time
}

// NewPool returns a pool, which dials nothing until Get is called.
func NewPool(network, addr string, cfg PoolConfig) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Pool{
		network: network, addr: addr, cfg: cfg,
		slots: make(chan struct{}, cfg.MaxActive), closed: make(chan struct{}),
	}, nil
}

// Get returns a connection with a chain begun with ctx: an idle one that the
// peer has not closed, or a new one. It waits while MaxActive are in use. Put
// must be called with it, whatever happens.
func (p *Pool) Get(ctx context.Context) (*Conn, error) {
	select {
	case p.slots <- struct{}{}:
	default:
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("resp: wait for a connection to %s: %w", p.addr, ctx.Err())
		case <-p.closed:
			return nil, ErrPoolClosed
		}
	}
	for {
		c, err := p.take()
		if err != nil {
			<-p.slots
			return nil, err
		}
		if c == nil {
			break
		}
		if c.peek() {
			c.Begin(ctx)
			return c, nil
		}
		c.Close()
	}
	c, err := Dial(ctx, p.network, p.addr, p.cfg.Client)
	if err != nil {
		<-p.slots
		return nil, err
	}
	c.Begin(ctx)
	return c, nil
}

// take returns the idle connection that was used last, or nil.
func (p *Pool) take() (*Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return nil, ErrPoolClosed
	}
	p.expireLocked(time.Now())
	if len(p.idle) == 0 {
		return nil, nil
	}
	last := len(p.idle) - 1
	c := p.idle[last].Conn
	p.idle[last] = idleConn{}
	p.idle = p.idle[:last]
	return c, nil
}

// Put ends the chain of a connection from Get and keeps the connection, or
// closes it: if it is broken or replies were not read, or MaxIdle are kept.
func (p *Pool) Put(c *Conn) {
	c.End()
	if !c.Usable() || !p.keep(c) {
		c.Close()
	}
	<-p.slots
}

func (p *Pool) keep(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.expireLocked(now)
	if p.done || len(p.idle) == p.cfg.MaxIdle {
		return false
	}
	p.idle = append(p.idle, idleConn{c, now})
	return true
}

func (p *Pool) expireLocked(now time.Time) {
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].since) > p.cfg.IdleTimeout {
		p.idle[n].Close()
		n++
	}
	p.idle = slices.Delete(p.idle, 0, n)
}

// Close closes the idle connections, and those in use when they are put back.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	p.done = true
	close(p.closed)
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
}
