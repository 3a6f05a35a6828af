package resp

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

const (
	// maxLine bounds a line of a reply: a simple string, an error, or a number.
	maxLine = 64 << 10
	// maxDepth bounds the nesting of a reply.
	maxDepth = 32
	// maxLength bounds a declared length, so that sums of them cannot overflow.
	maxLength = 1 << 48
)

// frame is the header of one reply, or of one element of one.
type frame struct {
	kind byte
	text []byte // what is behind the type byte; valid until the next read
	n    int64  // the number, for lengths; -1 is null
}

// next sends what is queued and reads the next frame that is due. Push
// messages and attributes, which nobody asked for, are passed over.
func (c *Conn) next() (frame, error) {
	if c.err != nil {
		return frame{}, c.broken()
	}
	if c.due == 0 {
		return frame{}, ErrNotDue
	}
	if c.body >= 0 {
		return frame{}, c.bad("the bytes of a bulk string were not read")
	}
	if err := c.Flush(); err != nil {
		return frame{}, err
	}
	for {
		f, err := c.frame()
		if err != nil {
			return f, err
		}
		switch f.kind {
		case typePush:
			err = c.skip(f.n)
		case typeAttribute:
			err = c.skip(2 * f.n)
		default:
			c.due--
			return f, nil
		}
		if err != nil {
			return f, err
		}
	}
}

// frame reads a header.
func (c *Conn) frame() (frame, error) {
	line, err := c.in.line(maxLine)
	switch {
	case err == errLongLine:
		return frame{}, c.bad("line too long")
	case err != nil:
		return frame{}, c.fail("read", unexpected(err))
	case len(line) < 2 || line[len(line)-1] != '\r':
		return frame{}, c.bad("line does not end in CRLF")
	}
	f := frame{kind: line[0], text: line[1 : len(line)-1]}
	switch f.kind {
	case typeStatus, typeError, typeNull, typeBool, typeDouble, typeBigNumber:
		return f, nil
	case typeInt, typeBulk, typeArray, typeBlobError, typeVerbatim, typeMap, typeSet, typePush, typeAttribute:
	default:
		return f, c.bad(fmt.Sprintf("unknown type %q", f.kind))
	}
	var ok bool
	if f.n, ok = parseInt(f.text); !ok {
		return f, c.bad(fmt.Sprintf("invalid number %q", clip(f.text)))
	}
	if f.kind != typeInt && (f.n < -1 || f.n > maxLength || f.n == -1 && f.kind != typeBulk && f.kind != typeArray) {
		return f, c.bad(fmt.Sprintf("invalid length %d", f.n))
	}
	return f, nil
}

// skip reads n values and throws them away.
func (c *Conn) skip(n int64) error {
	for ; n > 0; n-- {
		f, err := c.frame()
		if err != nil {
			return err
		}
		switch f.kind {
		case typeBulk, typeBlobError, typeVerbatim:
			if f.n >= 0 {
				c.body = int(f.n)
				err = c.DiscardBody()
			}
		case typeArray, typeSet, typePush:
			n += max(f.n, 0)
		case typeMap, typeAttribute:
			n += 2 * f.n
			if f.kind == typeAttribute {
				n++ // the value that it is about
			}
		}
		if err != nil {
			return err
		}
		if n > maxLength {
			return c.bad("too many elements")
		}
	}
	return nil
}

// ReadBulkHeader reads the header of a bulk string and returns its length; its
// bytes must be read next, with ReadBody or DiscardBody. A null reply is
// ErrNil.
func (c *Conn) ReadBulkHeader() (int, error) {
	f, err := c.next()
	if err != nil {
		return 0, err
	}
	if f.kind == typeBulk && f.n >= 0 {
		c.body = int(f.n)
		return c.body, nil
	}
	return 0, c.other(f, "bulk string")
}

// ReadBody reads the bytes of a bulk string into dst, which must have the length
// that ReadBulkHeader returned.
func (c *Conn) ReadBody(dst []byte) error {
	if c.err != nil {
		return c.broken()
	}
	if c.body < 0 {
		return ErrNotDue
	}
	if len(dst) != c.body {
		return fmt.Errorf("%w: the value has %d bytes, the buffer %d", ErrShort, c.body, len(dst))
	}
	if err := c.in.full(dst); err != nil {
		return c.fail("read", err)
	}
	return c.endBody()
}

// DiscardBody reads the bytes of a bulk string and throws them away.
func (c *Conn) DiscardBody() error {
	if c.err != nil {
		return c.broken()
	}
	if c.body < 0 {
		return ErrNotDue
	}
	if err := c.in.discard(int64(c.body)); err != nil {
		return c.fail("read", err)
	}
	return c.endBody()
}

func (c *Conn) endBody() error {
	c.body = -1
	err := c.in.crlf()
	if err == errNoCRLF {
		return c.bad(err.Error())
	}
	if err != nil {
		return c.fail("read", err)
	}
	return nil
}

// ReadBulkInto reads a bulk string into dst and returns its length. A null reply
// is ErrNil. A value that is longer than dst is thrown away: its length is
// returned with ErrShort.
func (c *Conn) ReadBulkInto(dst []byte) (int, error) {
	n, err := c.ReadBulkHeader()
	if err != nil {
		return 0, err
	}
	if n > len(dst) {
		if err := c.DiscardBody(); err != nil {
			return 0, err
		}
		return n, ErrShort
	}
	return n, c.ReadBody(dst[:n])
}

// ReadArrayLen reads the header of an array, a set, or a map as the array of its
// keys and values, and returns the number of elements, which must be read
// next. A null reply is ErrNil.
func (c *Conn) ReadArrayLen() (int, error) {
	f, err := c.next()
	if err != nil {
		return 0, err
	}
	n := f.n
	switch {
	case f.kind == typeMap:
		n *= 2
	case f.kind != typeArray && f.kind != typeSet || n < 0:
		return 0, c.other(f, "array")
	}
	c.due += n
	return int(n), nil
}

// ReadInt reads an integer.
func (c *Conn) ReadInt() (int64, error) {
	f, err := c.next()
	if err != nil {
		return 0, err
	}
	if f.kind != typeInt {
		return 0, c.other(f, "integer")
	}
	return f.n, nil
}

// ReadStatus reads a simple string, such as OK.
func (c *Conn) ReadStatus() (string, error) {
	f, err := c.next()
	if err != nil {
		return "", err
	}
	if f.kind != typeStatus {
		return "", c.other(f, "simple string")
	}
	if string(f.text) == "OK" {
		return "OK", nil // spares the allocation
	}
	return string(f.text), nil
}

// other is the error for a frame that is not what was asked for: an error reply
// or null, or else a violation of the protocol.
func (c *Conn) other(f frame, want string) error {
	switch {
	case f.kind == typeError:
		return ServerError(f.text)
	case f.kind == typeBlobError:
		limit := maxLine
		text, err := c.bytes(f.n, &limit)
		if err != nil {
			return err
		}
		return ServerError(text)
	case f.kind == typeNull, f.n == -1 && (f.kind == typeBulk || f.kind == typeArray):
		return ErrNil
	}
	return c.bad(fmt.Sprintf("reply of type %q instead of %s", f.kind, want))
}

// bad breaks the connection for a violation of the protocol.
func (c *Conn) bad(what string) error {
	return c.fail("read", fmt.Errorf("%w: %s", ErrProtocol, what))
}

// bytes reads n bytes of a bulk string and their CRLF into new memory, which
// grows as they arrive, and takes them off limit.
func (c *Conn) bytes(n int64, limit *int) ([]byte, error) {
	if n < 0 || n > int64(*limit) {
		return nil, c.bad(fmt.Sprintf("reply has more than the %d bytes that MaxReply leaves", *limit))
	}
	*limit -= int(n)
	out := []byte{}
	for left := int(n); left > 0; {
		step := min(left, growStep)
		out = slices.Grow(out, step)
		at := len(out)
		out = out[:at+step]
		if err := c.in.full(out[at:]); err != nil {
			return nil, c.fail("read", err)
		}
		left -= step
	}
	return out, c.endBody()
}

func clip(b []byte) []byte { return b[:min(len(b), 40)] }

// Kind says what a Value is.
type Kind byte

// The kinds of values.
const (
	Null   Kind = iota
	String      // simple, bulk, verbatim, or a big number's digits: Bytes
	Int         // Int
	Double      // Float
	Bool        // Int is 1 or 0
	Array       // Elems; also a set
	Map         // Elems: key, value, key, value …
	Error       // Bytes; only inside an array or map
)

// Value is a reply of any type, in memory of its own.
type Value struct {
	Kind  Kind
	Int   int64
	Float float64
	Bytes []byte
	Elems []Value
}

// Text returns a string's, an integer's or an error's text.
func (v Value) Text() string {
	if v.Kind == Int {
		return strconv.FormatInt(v.Int, 10)
	}
	return string(v.Bytes)
}

// ReadReply reads a reply of any type, at most MaxReply bytes of memory. An
// error reply is returned as ServerError; null is a Value.
func (c *Conn) ReadReply() (Value, error) {
	limit := c.cfg.MaxReply
	v, err := c.value(&limit, maxDepth)
	if err == nil && v.Kind == Error {
		return Value{}, ServerError(v.Bytes)
	}
	return v, err
}

// valueSize is what an element costs against MaxReply besides its bytes.
const valueSize = 96

func (c *Conn) value(limit *int, depth int) (Value, error) {
	f, err := c.next()
	if err != nil {
		return Value{}, err
	}
	if *limit -= valueSize + len(f.text); *limit < 0 {
		return Value{}, c.bad("reply has more bytes than MaxReply")
	}
	switch f.kind {
	case typeStatus, typeBigNumber:
		return Value{Kind: String, Bytes: slices.Clone(f.text)}, nil
	case typeError:
		return Value{Kind: Error, Bytes: slices.Clone(f.text)}, nil
	case typeInt:
		return Value{Kind: Int, Int: f.n}, nil
	case typeNull:
		return Value{}, nil
	case typeBool:
		return c.boolean(f)
	case typeDouble:
		v, err := strconv.ParseFloat(string(f.text), 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return Value{}, c.bad(fmt.Sprintf("invalid number %q", clip(f.text)))
		}
		return Value{Kind: Double, Float: v}, nil
	}
	if f.n < 0 {
		return Value{}, nil
	}
	switch f.kind {
	case typeBulk, typeVerbatim, typeBlobError:
		return c.blob(f, limit)
	}
	return c.elements(f, limit, depth)
}

func (c *Conn) boolean(f frame) (Value, error) {
	switch string(f.text) {
	case "t":
		return Value{Kind: Bool, Int: 1}, nil
	case "f":
		return Value{Kind: Bool}, nil
	}
	return Value{}, c.bad(fmt.Sprintf("invalid boolean %q", clip(f.text)))
}

func (c *Conn) blob(f frame, limit *int) (Value, error) {
	b, err := c.bytes(f.n, limit)
	if err != nil {
		return Value{}, err
	}
	switch {
	case f.kind == typeBlobError:
		return Value{Kind: Error, Bytes: b}, nil
	case f.kind == typeVerbatim && (len(b) < 4 || b[3] != ':'):
		return Value{}, c.bad("verbatim string without a format")
	case f.kind == typeVerbatim:
		b = b[4:]
	}
	return Value{Kind: String, Bytes: b}, nil
}

func (c *Conn) elements(f frame, limit *int, depth int) (Value, error) {
	if depth == 0 {
		return Value{}, c.bad("reply nested too deeply")
	}
	v := Value{Kind: Array, Elems: []Value{}}
	n := f.n
	if f.kind == typeMap {
		v.Kind = Map
		n *= 2
	}
	if n > int64(*limit/valueSize) {
		return Value{}, c.bad(fmt.Sprintf("reply of %d elements exceeds MaxReply", n))
	}
	c.due += n
	for range n {
		e, err := c.value(limit, depth-1)
		if err != nil {
			return Value{}, err
		}
		v.Elems = append(v.Elems, e)
	}
	return v, nil
}
