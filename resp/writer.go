package resp

import (
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// Writer queues the replies of one connection. Handler.Do uses it, and only
// during the call; messages from outside a command go through a Pusher. Small replies are copied, so their slices are the caller's
// again at once.
//
// Types that only RESP3 has degrade to RESP2 while the connection speaks it: a
// map becomes an array of twice the length, a set or push an array, a double
// or verbatim string a bulk string, a bool 1 or 0.
//
// Errors of the connection are kept: after one, what is queued is dropped and
// released, and the connection ends when Do returns.
type Writer struct {
	owner   *serverConn
	conn    net.Conn
	done    <-chan struct{} // the connection's end
	timeout time.Duration
	limit   int64 // FlushBytes
	budget  *budget
	stats   *counters

	queue   queue
	held    int64 // bytes of budget held for queued references
	owes    bool  // the command under way holds budget for what it received
	resp3   bool
	closing bool
	err     error

	push   *Pusher // nil until a handler asks for it
	pushed int     // bytes of the queue that came from push
}

// RESP3 tells whether the connection has switched to RESP3.
func (w *Writer) RESP3() bool { return w.resp3 }

// SetRESP3 switches the protocol of the replies from here on; HELLO does this
// before it replies.
func (w *Writer) SetRESP3(on bool) {
	w.resp3 = on
	if w.push != nil {
		w.push.switchTo(on)
	}
}

// Status replies with a simple string, such as OK.
func (w *Writer) Status(s string) { w.line(typeStatus, s) }

// Error replies with an error. text begins with a code in capitals, such as
// "ERR syntax error"; line ends in it become spaces.
func (w *Writer) Error(text string) {
	w.stats.errors.Add(1)
	w.line(typeError, text)
}

// Fail replies with err: its text if it is a ServerError, else behind "ERR ".
func (w *Writer) Fail(err error) { w.Error(errorText(err)) }

// Int replies with an integer.
func (w *Writer) Int(n int64) {
	w.queue.header(typeInt, n)
	w.queued()
}

// Bulk replies with a bulk string, copied.
func (w *Writer) Bulk(p []byte) {
	w.queue.bulk(p)
	w.queued()
}

// BulkString is Bulk for a string.
func (w *Writer) BulkString(s string) {
	w.queue.bulkString(s)
	w.queued()
}

// BulkRef replies with a bulk string that is sent from p itself, which must not
// change until r is released: when the kernel has the bytes, when the
// connection is broken, or at once if p is so short that it is copied. r may
// be nil.
//
// It waits when MaxInFlightBytes are in flight; when that takes too long the
// reply is a BUSY error in the place of the bulk string.
func (w *Writer) BulkRef(p []byte, r Releaser) {
	if w.err != nil || len(p) < copyBelow {
		if w.err == nil {
			w.Bulk(p)
		}
		if r != nil {
			r.Release()
		}
		return
	}
	if err := w.reserve(int64(len(p))); err != nil {
		if r != nil {
			r.Release()
		}
		w.Fail(err)
		return
	}
	w.queue.bulkRef(p, r)
	w.queued()
}

// reserve takes n bytes of the budget. Before it waits it gives back what the
// connection holds for queued replies, by sending them; a command that still
// holds bytes for what it received does not wait (see MaxInFlightBytes).
func (w *Writer) reserve(n int64) error {
	if !w.budget.try(n, w.owes) {
		if err := w.Flush(); err != nil {
			return err
		}
		if err := w.budget.take(w.done, n); err != nil {
			return err
		}
	}
	w.held += n
	return nil
}

// Null replies with null.
func (w *Writer) Null() {
	if w.resp3 {
		w.raw("_\r\n")
	} else {
		w.raw("$-1\r\n")
	}
}

// NullArray replies with null where an array was asked for.
func (w *Writer) NullArray() {
	if w.resp3 {
		w.raw("_\r\n")
	} else {
		w.raw("*-1\r\n")
	}
}

// Array begins an array: n replies follow.
func (w *Writer) Array(n int) { w.aggregate(typeArray, n) }

// Map begins a map: n pairs, 2n replies, follow.
func (w *Writer) Map(n int) {
	if w.resp3 {
		w.aggregate(typeMap, n)
	} else {
		w.aggregate(typeArray, 2*n)
	}
}

// Set begins a set: n replies follow.
func (w *Writer) Set(n int) { w.aggregate3(typeSet, n) }

// Push begins a push message: n replies follow, the first being its kind.
func (w *Writer) Push(n int) { w.aggregate3(typePush, n) }

// Bool replies with a truth value.
func (w *Writer) Bool(v bool) {
	switch {
	case w.resp3 && v:
		w.raw("#t\r\n")
	case w.resp3:
		w.raw("#f\r\n")
	case v:
		w.Int(1)
	default:
		w.Int(0)
	}
}

// Double replies with a floating-point number.
func (w *Writer) Double(v float64) {
	var text [32]byte
	number := strconv.AppendFloat(text[:0], v, 'g', -1, 64)
	switch {
	case math.IsInf(v, 1):
		number = append(text[:0], "inf"...)
	case math.IsInf(v, -1):
		number = append(text[:0], "-inf"...)
	case math.IsNaN(v):
		number = append(text[:0], "nan"...)
	}
	if !w.resp3 {
		w.Bulk(number)
		return
	}
	q := &w.queue
	q.buf = append(q.buf, typeDouble)
	q.buf = append(q.buf, number...)
	w.raw("\r\n")
}

// Verbatim replies with text for a person; format is three letters, txt or mkd.
func (w *Writer) Verbatim(format, text string) {
	if !w.resp3 {
		w.BulkString(text)
		return
	}
	if len(format) != 3 {
		format = "txt"
	}
	w.queue.header(typeVerbatim, int64(len(text)+4))
	w.raw(format)
	w.raw(":")
	w.raw(text)
	w.raw("\r\n")
}

// CloseAfterReply ends the connection once the queued replies are sent.
func (w *Writer) CloseAfterReply() { w.closing = true }

// Flush sends what is queued and releases it. Replies are flushed without it;
// it is for a reply that must not wait.
func (w *Writer) Flush() error {
	if w.err == nil && !w.queue.empty() {
		n := w.queue.size()
		w.conn.SetWriteDeadline(time.Now().Add(w.timeout + transferTime(n)))
		w.err = w.send()
	}
	w.drop()
	return w.err
}

func (w *Writer) send() error {
	n, err := w.queue.writeTo(w.conn)
	w.stats.bytesOut.Add(uint64(n))
	return err
}

// drop empties the queue and gives back what it held.
func (w *Writer) drop() {
	w.queue.reset()
	w.budget.give(w.held)
	w.held = 0
	if w.pushed > 0 {
		w.push.sent(w.pushed)
		w.pushed = 0
	}
}

func (w *Writer) aggregate3(kind byte, n int) {
	if !w.resp3 {
		kind = typeArray
	}
	w.aggregate(kind, n)
}

func (w *Writer) aggregate(kind byte, n int) {
	w.queue.header(kind, int64(n))
	w.queued()
}

func (w *Writer) raw(s string) {
	w.queue.buf = append(w.queue.buf, s...)
	w.queued()
}

func (w *Writer) line(kind byte, s string) {
	if strings.ContainsAny(s, "\r\n") {
		s = strings.NewReplacer("\r", " ", "\n", " ").Replace(s)
	}
	w.queue.buf = append(w.queue.buf, kind)
	w.queue.buf = append(w.queue.buf, s...)
	w.raw("\r\n")
}

// queued keeps the queue within its limit.
func (w *Writer) queued() {
	if w.err != nil || w.queue.size() >= w.limit {
		w.Flush()
	}
}

// transferTime is how long n bytes may take.
func transferTime(n int64) time.Duration {
	return time.Duration(n) * time.Second / minRate
}
