package resp

import (
	"fmt"
	"slices"
)

// growStep is how much memory is taken at a time for an argument that is
// buffered: a declared length allocates nothing by itself.
const growStep = 64 << 10

// payloads is what a commandReader needs of its connection.
type payloads interface {
	// Payload is Handler.Payload.
	Payload(args [][]byte, arg, n int) ([]byte, error)
	// admit waits until n more bytes may be in flight.
	admit(n int64) error
}

// commandReader cuts a stream of bytes into commands.
type commandReader struct {
	in   input
	cfg  *ServerConfig
	sink payloads

	cmd  Command
	text []byte // what short arguments are slices of; when it grows, earlier ones keep the old array

	// Of the command under way:
	midway    bool  // its first byte has been read
	declared  int64 // bytes that its arguments said to have, for the read timeout
	asked     bool  // Payload has been called
	refused   error // its answer, when an argument could not be taken
	discarded int64
}

func newCommandReader(in input, cfg *ServerConfig, sink payloads) commandReader {
	return commandReader{in: in, cfg: cfg, sink: sink}
}

// next reads a command. With nil the command is in r.cmd, or is to be answered
// with r.refused. A protocolError or a ServerError is to be answered before the
// connection is closed; any other error is the connection's, io.EOF between
// commands.
func (r *commandReader) next() error {
	r.begin()
	for len(r.cmd.Args) == 0 && r.refused == nil {
		r.midway = r.in.buffered() > 0
		if !r.midway {
			if err := r.in.fill(); err != nil {
				return err
			}
			r.midway = true
		}
		var err error
		if r.in.buf[r.in.r] == typeArray {
			err = r.array()
		} else {
			err = r.inline()
		}
		if err != nil {
			return unexpected(err)
		}
	}
	r.midway = false
	return nil
}

// begin forgets the last command, keeping its memory within bounds.
func (r *commandReader) begin() {
	clear(r.cmd.Args)
	r.cmd.Args = r.cmd.Args[:0]
	r.text = r.text[:0]
	if cap(r.cmd.Args) > 4096 {
		r.cmd.Args = nil
	}
	if cap(r.text) > keepBuffer {
		r.text = nil
	}
	r.declared, r.asked, r.refused, r.discarded = 0, false, nil, 0
}

// array reads a command sent as an array of bulk strings. Redis ignores an
// empty or null one.
func (r *commandReader) array() error {
	head, err := r.in.header()
	switch {
	case err == errLongLine:
		return protocolError("too big mbulk count string")
	case err == errNoCRLF:
		return protocolError("invalid multibulk length")
	case err != nil:
		return err
	}
	count, ok := parseInt(head[1:])
	if !ok {
		return protocolError("invalid multibulk length")
	}
	if count > int64(r.cfg.MaxArguments) {
		return protocolError(fmt.Sprintf("invalid multibulk length: %d arguments exceed MaxArguments (%d)",
			count, r.cfg.MaxArguments))
	}
	for i := range int(max(count, 0)) {
		if err := r.argument(i); err != nil {
			return err
		}
	}
	return nil
}

// argument reads argument i.
func (r *commandReader) argument(i int) error {
	n, err := r.length()
	if err != nil {
		return err
	}
	r.declared += n
	dst, err := r.place(i, n)
	if err != nil {
		if r.refused == nil {
			r.refused = err
		}
		if r.discarded += n; r.discarded > r.cfg.MaxDiscard {
			return ServerError(fmt.Sprintf("%s; more than MaxDiscard (%d) bytes would have to be thrown away, closing",
				errorText(r.refused), r.cfg.MaxDiscard))
		}
		if err := r.in.discard(n); err != nil {
			return err
		}
		return r.end()
	}
	if dst != nil {
		err = r.in.full(dst)
	} else {
		dst, err = r.buffer(int(n))
	}
	if err != nil {
		return err
	}
	if err := r.end(); err != nil {
		return err
	}
	if r.refused == nil {
		r.cmd.Args = append(r.cmd.Args, dst)
	}
	return nil
}

// length reads the header of an argument.
func (r *commandReader) length() (int64, error) {
	head, err := r.in.header()
	switch {
	case err == errLongLine:
		return 0, protocolError("too big bulk count string")
	case err != nil && err != errNoCRLF:
		return 0, err
	case err == nil && head[0] != typeBulk:
		return 0, protocolError(fmt.Sprintf("expected '$', got '%c'", printable(head[0])))
	case err == errNoCRLF:
		return 0, protocolError("invalid bulk length")
	}
	n, ok := parseInt(head[1:])
	if !ok || n < 0 || n > 1<<48 {
		return 0, protocolError("invalid bulk length")
	}
	return n, nil
}

// end reads the end of an argument.
func (r *commandReader) end() error {
	err := r.in.crlf()
	if err == errNoCRLF {
		return protocolError("expected CRLF after bulk string")
	}
	return err
}

// place says where argument i of n bytes goes: the handler's memory, or nil for
// the reader's own. An error refuses the argument, and with it the command.
func (r *commandReader) place(i int, n int64) ([]byte, error) {
	if r.refused != nil {
		return nil, r.refused
	}
	if n >= int64(r.cfg.PayloadThreshold) {
		if n > int64(r.cfg.MaxPayload) {
			return nil, ServerError(fmt.Sprintf("%s argument %d has %d bytes, the most is %d", codeTooLarge, i, n, r.cfg.MaxPayload))
		}
		if err := r.sink.admit(n); err != nil {
			return nil, err
		}
		r.asked = true
		dst, err := r.sink.Payload(r.cmd.Args, i, int(n))
		if err != nil {
			return nil, err
		}
		if dst != nil {
			if len(dst) < int(n) {
				return nil, fmt.Errorf("internal error: memory of %d bytes for argument %d of %d", len(dst), i, n)
			}
			return dst[:n:n], nil
		}
		if n > int64(r.cfg.MaxArgument) {
			return nil, ServerError(fmt.Sprintf("%s argument %d has %d bytes, MaxArgument is %d", codeTooLarge, i, n, r.cfg.MaxArgument))
		}
	}
	if int64(len(r.text))+n > int64(r.cfg.MaxCommand) {
		return nil, fmt.Errorf("the arguments have more than MaxCommand (%d) bytes", r.cfg.MaxCommand)
	}
	return nil, nil
}

// buffer reads n bytes into memory of its own, which grows as they arrive.
func (r *commandReader) buffer(n int) ([]byte, error) {
	start := len(r.text)
	for n > 0 {
		step := min(n, growStep)
		r.text = slices.Grow(r.text, step)
		at := len(r.text)
		r.text = r.text[:at+step]
		if err := r.in.full(r.text[at:]); err != nil {
			return nil, err
		}
		n -= step
	}
	return r.text[start:len(r.text):len(r.text)], nil
}

func printable(b byte) byte {
	if b < ' ' || b > '~' {
		return '?'
	}
	return b
}
