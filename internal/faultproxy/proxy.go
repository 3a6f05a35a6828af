// Package faultproxy is a TCP proxy that fails on demand, for tests of processes
// that talk to each other: it stands where a network would, and can be cut, hung and
// slowed down while connections are open.
package faultproxy

import (
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// chunk is the most bytes that are moved at once.
	chunk = 32 << 10
	// waiting is how many chunks of one direction may be on their way: what comes
	// beyond that waits in the sender, as with a real network.
	waiting = 64
	// dialTimeout bounds how long the target may take to accept.
	dialTimeout = 2 * time.Second
)

// Proxy forwards connections to one target. All methods may run in parallel.
type Proxy struct {
	listener net.Listener
	mask     []byte
	work     sync.WaitGroup

	// mu guards what follows.
	mu      sync.Mutex
	target  string
	mode    mode
	delay   time.Duration
	closed  bool
	changed chan struct{} // closed, and replaced, when the mode changes
	links   map[*link]struct{}
}

type mode uint8

const (
	healthy mode = iota
	cut
	hung
)

// link is one connection and its continuation to the target.
type link struct {
	near, far *net.TCPConn
	done      chan struct{} // closed at its end
	once      sync.Once
}

// Listen makes a proxy on a free port of 127.0.0.1. An empty target, as long as
// SetTarget has not given one, refuses connections.
func Listen(target string) (*Proxy, error) { return ListenMasked(target, "") }

// ListenMasked is Listen for a protocol whose servers tell clients of ways around the
// proxy: in what the target sends, the last byte of every occurrence of word becomes
// 'X', so that the client does not know the word.
func ListenMasked(target, word string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("faultproxy: %w", err)
	}
	p := &Proxy{listener: l, mask: []byte(word), target: target, changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.work.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens: host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetTarget says where new connections go.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Cut resets all connections, and new ones at once, until Heal.
func (p *Proxy) Cut() { p.set(cut) }

// Hang lets connections stand, and be made, without a byte passing, until Heal: then
// what was sent meanwhile arrives, as after the repetitions of TCP.
func (p *Proxy) Hang() { p.set(hung) }

// Heal ends Cut, Hang and Delay.
func (p *Proxy) Heal() {
	p.Delay(0)
	p.set(healthy)
}

// Delay makes every byte take d longer, in each direction; the rate stays what it was.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Open is how many connections pass through the proxy.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Close ends everything and waits for it.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.set(cut)
	err := p.listener.Close()
	p.work.Wait()
	return err
}

func (p *Proxy) set(m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		m = cut
	}
	p.mode = m
	close(p.changed)
	p.changed = make(chan struct{})
	if m == cut {
		for l := range p.links {
			l.end(reset)
		}
	}
}

func (p *Proxy) look() (m mode, delay time.Duration, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode, p.delay, p.changed
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

// serve carries one connection from its beginning to its end.
func (p *Proxy) serve(near *net.TCPConn) {
	l := &link{near: near, done: make(chan struct{})}
	if !p.connect(l) {
		l.end(reset)
		return
	}
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	var both sync.WaitGroup
	both.Go(func() { p.move(l, l.far, l.near, nil) })
	both.Go(func() { p.move(l, l.near, l.far, p.mask) })
	both.Wait()
	l.end(orderly)
}

// connect reaches the target, and counts the link among those that can be cut.
func (p *Proxy) connect(l *link) bool {
	p.mu.Lock()
	target, m := p.target, p.mode
	p.mu.Unlock()
	if target == "" || m == cut {
		return false
	}
	far, err := net.DialTimeout("tcp", target, dialTimeout)
	if err != nil {
		return false
	}
	l.far = far.(*net.TCPConn)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == cut {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

// The ways in which a link ends. Orderly, what was written before arrives.
const (
	orderly = -1
	reset   = 0
)

// end closes both sides; linger is one of the two ways.
func (l *link) end(linger int) {
	l.once.Do(func() {
		close(l.done)
		for _, c := range []*net.TCPConn{l.near, l.far} {
			if c != nil {
				_ = c.SetLinger(linger) // it is closed next; an error here means it is gone
				_ = c.Close()
			}
		}
	})
}

// parcel is bytes and when they may arrive.
type parcel struct {
	data []byte
	due  time.Time
}

// move carries bytes in one direction until its source ends.
func (p *Proxy) move(l *link, dst, src *net.TCPConn, mask []byte) {
	parcels := make(chan parcel, waiting)
	p.work.Go(func() {
		defer close(parcels)
		m := masker{word: mask}
		for {
			buf := make([]byte, chunk)
			n, err := src.Read(buf)
			if n > 0 {
				m.apply(buf[:n])
				_, delay, _ := p.look()
				select {
				case parcels <- parcel{buf[:n], time.Now().Add(delay)}:
				case <-l.done:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range parcels {
		if !p.pass(l, c.due) {
			break
		}
		if _, err := dst.Write(c.data); err != nil {
			break
		}
	}
	select {
	case <-l.done:
	default:
		if dst.CloseWrite() != nil {
			l.end(reset)
		}
	}
	for range parcels { // the reader ends with the link, or with its source
	}
}

// pass waits until bytes that were due may go on; false: the link has ended.
func (p *Proxy) pass(l *link, due time.Time) bool {
	if wait := time.Until(due); wait > 0 {
		select {
		case <-time.After(wait):
		case <-l.done:
			return false
		}
	}
	for {
		m, _, changed := p.look()
		if m == healthy {
			return true
		}
		select {
		case <-changed:
		case <-l.done:
			return false
		}
	}
}

// masker changes the last byte of a word wherever it occurs, also across chunks. The
// word must not begin again inside itself.
type masker struct {
	word []byte
	at   int // how much of the word has been seen
}

func (m *masker) apply(p []byte) {
	if len(m.word) == 0 {
		return
	}
	for i, c := range p {
		switch {
		case c != m.word[m.at]:
			m.at = 0
			if c == m.word[0] {
				m.at = 1
			}
		case m.at == len(m.word)-1:
			p[i], m.at = 'X', 0
		default:
			m.at++
		}
	}
}
