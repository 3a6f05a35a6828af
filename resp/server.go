package resp

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("resp: server closed")

// Server accepts connections and runs a Handler for each. Its methods may be
// called in parallel.
type Server struct {
	cfg     ServerConfig
	tuneTCP bool
	budget  budget
	stats   counters
	closing atomic.Bool

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	conns     map[*serverConn]struct{}
	lastID    uint64
	empty     chan struct{} // made by Shutdown, closed when conns is empty
}

// NewServer returns a server with the configuration, which must be valid.
func NewServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Server{
		cfg:       cfg,
		tuneTCP:   socketBufferGranted(cfg.SocketBuffer),
		budget:    budget{limit: cfg.MaxInFlightBytes, wait: cfg.InFlightWait},
		listeners: map[net.Listener]struct{}{},
		conns:     map[*serverConn]struct{}{},
	}, nil
}

// Serve accepts connections from l until ctx ends, Shutdown is called or l fails,
// and closes l. When ctx ends, the connections that came from l are closed at
// once and Serve returns ctx's error; after Shutdown it returns ErrServerClosed
// while connections may still be finishing. Several listeners may be served.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	if !s.addListener(l) {
		return ErrServerClosed
	}
	defer s.removeListener(l)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()

	var running sync.WaitGroup
	err := s.accept(ctx, l, &running)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case s.closing.Load():
		// Shutdown waits for the connections and closes them; the context of
		// their commands must live until then.
		go func() {
			running.Wait()
			cancel()
		}()
		return ErrServerClosed
	}
	cancel()
	running.Wait()
	return err
}

// accept runs until the listener is closed or fails for good.
func (s *Server) accept(ctx context.Context, l net.Listener, running *sync.WaitGroup) error {
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || s.closing.Load() || errors.Is(err, net.ErrClosed) || !temporary(err) {
				return err
			}
			// Out of file descriptors or the like: it passes.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Logger.Warn("accept", "err", err, "retry_in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		connCtx, cancel := context.WithCancel(ctx)
		c := s.newConn(connCtx, cancel, nc)
		if c == nil {
			cancel()
			continue
		}
		running.Go(func() { c.run(connCtx) })
	}
}

// newConn registers a connection, or turns it away and returns nil.
func (s *Server) newConn(ctx context.Context, cancel context.CancelFunc, nc net.Conn) *serverConn {
	s.tune(nc)
	s.mu.Lock()
	full := len(s.conns) >= s.cfg.MaxConnections
	if full || s.closing.Load() {
		s.mu.Unlock()
		if full {
			s.stats.rejected.Add(1)
			s.cfg.Logger.Warn("connection rejected", "remote", nc.RemoteAddr(), "MaxConnections", s.cfg.MaxConnections)
			// A few bytes into an empty socket buffer do not block.
			nc.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = nc.Write([]byte("-ERR max number of clients reached\r\n"))
		}
		nc.Close()
		return nil
	}
	s.lastID++
	c := newServerConn(ctx, cancel, s, nc, s.lastID)
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.stats.connections.Add(1)
	return c
}

func (s *Server) removeConn(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// Shutdown stops accepting, lets each connection finish and answer the commands
// that it has received or begun to receive, closes it, and returns when all
// are closed. When ctx ends first it closes what is left at once and returns
// ctx's error without waiting for handlers. It may be called more than once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing.Store(true)
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.wake()
	}
	if s.empty == nil && len(s.conns) > 0 {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.mu.Unlock()
	if empty == nil {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.kill()
	}
	return ctx.Err()
}

// temporary tells whether accepting may work again: the errors of a connection
// that was reset early and of resources that ran out.
func temporary(err error) bool {
	var ne interface{ Temporary() bool }
	return errors.As(err, &ne) && ne.Temporary()
}
