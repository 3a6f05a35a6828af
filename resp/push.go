package resp

import (
	"net"
	"sync"
)

// Pusher sends messages that no command asked for: an event to a connection
// that waits for one. Writer.Pusher makes it.
//
// Messages queue up in the Pusher and leave between replies, never inside one.
// Two goroutines can send them. The connection's own does so before each
// command and before each read; while it is blocked in a read, the flusher does.
// turn says whose turn it is: the connection's goroutine holds it always except
// during that read, so while it is free no reply is under way or unsent.
//
//	Push ──► buf ──┬── connection's goroutine, between commands ──┬──► Writer's queue ──► socket
//	               └── flusher, while that one reads ─────────────┘
type Pusher struct {
	w     *Writer
	limit int           // MaxPushBytes
	wake  chan struct{} // holds a token when buf is not empty; closed at the end
	ended chan struct{} // closed when the flusher has ended

	// turn guards the Writer once there is a Pusher. It is taken before mu.
	turn sync.Mutex

	// mu guards what follows, and is never held during I/O.
	mu     sync.Mutex
	buf    []byte // messages as they go on the wire
	size   int    // bytes in buf and those taken from it that are not sent yet
	resp3  bool
	closed bool // the connection has ended, or was too slow
}

// Pusher returns the connection's Pusher; only Handler.Do may call it, the
// Pusher's own methods are for anyone. The first call starts a goroutine, which
// ends with the connection, and from then on IdleTimeout no longer holds: a
// subscriber may listen in silence.
//
// RESP2 has no push messages, and a client expects arrays that it did not ask
// for only after SUBSCRIBE. It is the handler's business not to push before.
func (w *Writer) Pusher() *Pusher {
	if w.push == nil {
		p := &Pusher{
			w: w, limit: w.owner.srv.cfg.MaxPushBytes, resp3: w.resp3,
			wake: make(chan struct{}, 1), ended: make(chan struct{}),
		}
		p.turn.Lock()
		w.push = p
		go p.run()
	}
	return w.push
}

// Push queues a message of bulk strings, the first being its kind, and reports
// whether the connection still takes messages. It copies elems, never blocks on
// the network, and may be called by several goroutines at once. A connection for
// which more than MaxPushBytes would wait is closed: to leave out a message
// without a word would be worse.
func (p *Pusher) Push(elems ...string) bool {
	queued, overflow := p.add(elems)
	if overflow > 0 {
		p.w.owner.tooSlow(overflow)
	}
	return queued
}

// add queues a message. When that is too much, overflow is how many bytes would
// wait.
func (p *Pusher) add(elems []string) (queued bool, overflow int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false, 0
	}
	before := len(p.buf)
	p.encodeLocked(elems)
	p.size += len(p.buf) - before
	if p.size > p.limit {
		p.closed, p.buf = true, nil
		return false, p.size
	}
	if before == 0 {
		select {
		case p.wake <- struct{}{}:
		default: // a token is there; what it is for may have been sent meanwhile
		}
	}
	p.w.stats.pushes.Add(1)
	return true, 0
}

func (p *Pusher) encodeLocked(elems []string) {
	kind := byte(typePush)
	if !p.resp3 {
		kind = typeArray
	}
	q := queue{buf: p.buf}
	q.header(kind, int64(len(elems)))
	for _, e := range elems {
		q.bulkString(e)
	}
	p.buf = q.buf
}

// run is the flusher.
func (p *Pusher) run() {
	defer close(p.ended)
	for range p.wake {
		p.turn.Lock()
		p.w.takePushed()
		err := p.w.Flush()
		p.turn.Unlock()
		if err != nil {
			p.w.owner.kill() // its goroutine waits for the peer to say something
			return
		}
	}
}

// stop ends the flusher and waits for it. The connection's goroutine calls it,
// last, when the socket is closed.
func (p *Pusher) stop() {
	p.mu.Lock()
	p.closed, p.buf = true, nil
	close(p.wake)
	p.mu.Unlock()
	p.turn.Unlock()
	<-p.ended
	p.turn.Lock()
}

// read reads from nc; meanwhile the flusher has its turn.
func (p *Pusher) read(nc net.Conn, into []byte) (int, error) {
	p.turn.Unlock()
	defer p.turn.Lock()
	return nc.Read(into)
}

// TakePushed queues the messages that wait, as if they had been written here. A
// handler calls it before a reply after which some of them may not come any
// more, such as that of UNSUBSCRIBE.
func (w *Writer) TakePushed() {
	if w.push != nil {
		w.takePushed()
	}
}

func (w *Writer) takePushed() {
	p := w.push
	p.mu.Lock()
	p.takeLocked()
	p.mu.Unlock()
	w.queued()
}

// takeLocked moves what waits behind the replies that are queued.
func (p *Pusher) takeLocked() {
	p.w.queue.buf = append(p.w.queue.buf, p.buf...)
	p.w.pushed += len(p.buf)
	if p.buf = p.buf[:0]; cap(p.buf) > keepBuffer {
		p.buf = nil
	}
}

// switchTo changes the protocol of messages, between two of them.
func (p *Pusher) switchTo(resp3 bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takeLocked()
	p.resp3 = resp3
}

// sent forgets n bytes that the peer's socket has accepted, or never will.
func (p *Pusher) sent(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size -= n
}

// tooSlow ends the connection because it did not read what was pushed to it.
func (c *serverConn) tooSlow(waiting int) {
	c.srv.stats.slowSubscribers.Add(1)
	c.srv.cfg.Logger.Warn("subscriber too slow, closing the connection",
		"remote", c.nc.RemoteAddr(), "waiting_bytes", waiting, "MaxPushBytes", c.srv.cfg.MaxPushBytes)
	c.kill()
}
