package resp

import (
	"bytes"
	"errors"
	"io"
)

// errLongLine: a line does not end within its limit.
var errLongLine = errors.New("line too long")

// errNoCRLF: a bulk string is not followed by CR LF.
var errNoCRLF = errors.New("expected CRLF after bulk string")

// input is a buffered reader that can also read straight into the caller's
// memory.
type input struct {
	src  io.Reader
	size int // of buf, while no line needs more
	buf  []byte
	r, w int // buf[r:w] has been read from src and not consumed
}

func newInput(src io.Reader, size int) input {
	return input{src: src, size: size, buf: make([]byte, size)}
}

func (in *input) buffered() int { return in.w - in.r }

// fill reads once from src, after making room. The end of the stream is
// io.EOF.
func (in *input) fill() error {
	if in.r == in.w {
		in.r, in.w = 0, 0
		if len(in.buf) > in.size {
			in.buf = make([]byte, in.size)
		}
	} else if in.w == len(in.buf) {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	n, err := in.read(in.buf[in.w:])
	in.w += n
	return err
}

// read reads at least one byte from src into p, which is not empty.
func (in *input) read(p []byte) (int, error) {
	for range 100 {
		n, err := in.src.Read(p)
		if n > 0 {
			return n, nil // an error, if any, comes again
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// line consumes a line of at most limit bytes, LF included, and returns it
// without the LF. The slice is valid until the next call. Inside a line the
// end of the stream is io.ErrUnexpectedEOF.
func (in *input) line(limit int) ([]byte, error) {
	scanned := 0
	for {
		if i := bytes.IndexByte(in.buf[in.r+scanned:in.w], '\n'); i >= 0 {
			end := in.r + scanned + i
			if end+1-in.r > limit {
				return nil, errLongLine
			}
			line := in.buf[in.r:end]
			in.r = end + 1
			return line, nil
		}
		scanned = in.buffered()
		if scanned >= limit {
			return nil, errLongLine
		}
		if scanned == len(in.buf) {
			larger := make([]byte, min(2*len(in.buf), limit))
			copy(larger, in.buf[in.r:in.w])
			in.buf, in.r, in.w = larger, 0, scanned
		}
		if err := in.fill(); err != nil {
			if scanned > 0 {
				err = unexpected(err)
			}
			return nil, err
		}
	}
}

// full fills dst, first with what is buffered, then straight from src. The tail
// that would fit the buffer comes through it, so that one read fetches what
// follows as well.
func (in *input) full(dst []byte) error {
	n := copy(dst, in.buf[in.r:in.w])
	in.r += n
	for n < len(dst) {
		if len(dst)-n >= in.size {
			m, err := in.read(dst[n:])
			n += m
			if err != nil {
				return unexpected(err)
			}
			continue
		}
		if err := in.fill(); err != nil {
			return unexpected(err)
		}
		m := copy(dst[n:], in.buf[in.r:in.w])
		in.r += m
		n += m
	}
	return nil
}

// discard consumes n bytes.
func (in *input) discard(n int64) error {
	for {
		m := min(n, int64(in.buffered()))
		in.r += int(m)
		if n -= m; n == 0 {
			return nil
		}
		if err := in.fill(); err != nil {
			return unexpected(err)
		}
	}
}

// crlf consumes the CR LF behind a bulk string.
func (in *input) crlf() error {
	for in.buffered() < 2 {
		if err := in.fill(); err != nil {
			return unexpected(err)
		}
	}
	if in.buf[in.r] != '\r' || in.buf[in.r+1] != '\n' {
		return errNoCRLF
	}
	in.r += 2
	return nil
}

// header consumes a header line and returns it without its CR LF: at least the
// type byte.
func (in *input) header() ([]byte, error) {
	line, err := in.line(maxHeader)
	if err != nil {
		return nil, err
	}
	if n := len(line); n >= 2 && line[n-1] == '\r' {
		return line[:n-1], nil
	}
	return nil, errNoCRLF
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
