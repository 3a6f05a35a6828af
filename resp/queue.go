package resp

import (
	"net"
	"strconv"
)

const (
	// copyBelow: shorter payloads are copied into the buffer, because an element
	// of writev costs as much.
	copyBelow = 2 << 10
	// keepBuffer is the most, in bytes, that a buffer keeps for the next command.
	keepBuffer = 64 << 10
)

// queue holds bytes that wait to be written: small ones in buf, large ones by
// reference, in one list for writev.
type queue struct {
	buf      []byte
	mark     int         // buf[mark:] is not in vec yet
	vec      net.Buffers // the list so far; parts of buf and references
	out      net.Buffers // what WriteTo consumes
	refs     []Releaser
	refBytes int64
}

func (q *queue) empty() bool { return len(q.buf) == 0 && len(q.vec) == 0 }

// size is the number of bytes queued.
func (q *queue) size() int64 { return int64(len(q.buf)) + q.refBytes }

// header appends a type byte and a number on a line.
func (q *queue) header(kind byte, n int64) {
	q.buf = append(q.buf, kind)
	q.buf = strconv.AppendInt(q.buf, n, 10)
	q.buf = append(q.buf, '\r', '\n')
}

func (q *queue) bulk(p []byte) {
	q.header(typeBulk, int64(len(p)))
	q.buf = append(q.buf, p...)
	q.buf = append(q.buf, '\r', '\n')
}

func (q *queue) bulkString(s string) {
	q.header(typeBulk, int64(len(s)))
	q.buf = append(q.buf, s...)
	q.buf = append(q.buf, '\r', '\n')
}

// bulkRef appends a bulk string whose bytes stay where they are. When buf moves
// to grow, the parts of it in vec stay behind, unchanged.
func (q *queue) bulkRef(p []byte, r Releaser) {
	q.header(typeBulk, int64(len(p)))
	q.vec = append(q.vec, q.buf[q.mark:], p)
	q.mark = len(q.buf)
	q.buf = append(q.buf, '\r', '\n')
	q.refBytes += int64(len(p))
	if r != nil {
		q.refs = append(q.refs, r)
	}
}

// writeTo writes everything to c, with writev where there are references. It
// leaves the queue as it is, for reset.
func (q *queue) writeTo(c net.Conn) (int64, error) {
	if len(q.vec) == 0 {
		n, err := c.Write(q.buf)
		return int64(n), err
	}
	if q.mark < len(q.buf) {
		q.vec = append(q.vec, q.buf[q.mark:])
		q.mark = len(q.buf)
	}
	q.out = q.vec
	return q.out.WriteTo(c)
}

// reset empties the queue and releases the references.
func (q *queue) reset() {
	for i, r := range q.refs {
		q.refs[i] = nil
		r.Release()
	}
	clear(q.vec)
	q.refs, q.vec, q.out = q.refs[:0], q.vec[:0], nil
	q.buf, q.mark, q.refBytes = q.buf[:0], 0, 0
	if cap(q.buf) > keepBuffer {
		q.buf = nil
	}
	if cap(q.vec) > 4096 {
		q.vec, q.refs = nil, nil
	}
}
