package resp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// canned returns a connection whose peer says reply, then closes.
func canned(reply []byte) *Conn {
	cfg := ClientConfig{MaxReply: 4096, ReadBuffer: 64}.withDefaults()
	c := &Conn{cfg: cfg, addr: "canned", body: -1}
	c.in = newInput(bytes.NewReader(reply), cfg.ReadBuffer)
	c.due = 1
	return c
}

func TestReadReply(t *testing.T) {
	for _, test := range []struct {
		in   string
		want Value
		err  string
	}{
		{in: "+OK\r\n", want: Value{Kind: String, Bytes: []byte("OK")}},
		{in: "-ERR no\r\n", err: "ERR no"},
		{in: "!6\r\nERR no\r\n", err: "ERR no"},
		{in: ":-12\r\n", want: Value{Kind: Int, Int: -12}},
		{in: "$3\r\nabc\r\n", want: Value{Kind: String, Bytes: []byte("abc")}},
		{in: "$0\r\n\r\n", want: Value{Kind: String, Bytes: []byte{}}},
		{in: "$-1\r\n", want: Value{}},
		{in: "*-1\r\n", want: Value{}},
		{in: "_\r\n", want: Value{}},
		{in: "#t\r\n", want: Value{Kind: Bool, Int: 1}},
		{in: "#f\r\n", want: Value{Kind: Bool}},
		{in: ",1.5\r\n", want: Value{Kind: Double, Float: 1.5}},
		{in: "(123\r\n", want: Value{Kind: String, Bytes: []byte("123")}},
		{in: "=7\r\ntxt:abc\r\n", want: Value{Kind: String, Bytes: []byte("abc")}},
		{in: "*0\r\n", want: Value{Kind: Array, Elems: []Value{}}},
		{in: "*2\r\n:1\r\n-ERR x\r\n", want: Value{Kind: Array, Elems: []Value{{Kind: Int, Int: 1}, {Kind: Error, Bytes: []byte("ERR x")}}}},
		{in: "~1\r\n:1\r\n", want: Value{Kind: Array, Elems: []Value{{Kind: Int, Int: 1}}}},
		{in: "%1\r\n+a\r\n:1\r\n", want: Value{Kind: Map, Elems: []Value{{Kind: String, Bytes: []byte("a")}, {Kind: Int, Int: 1}}}},
		{in: ">2\r\n+x\r\n*1\r\n%1\r\n$1\r\na\r\n:1\r\n:5\r\n", want: Value{Kind: Int, Int: 5}},
		{in: "|1\r\n+ttl\r\n:5\r\n:6\r\n", want: Value{Kind: Int, Int: 6}},
		{in: "", err: "resp: read canned: unexpected EOF"},
		{in: "$3\r\nab", err: "resp: read canned: unexpected EOF"},
		{in: "$3\r\nabcde\r\n", err: "resp: read canned: resp: protocol error: expected CRLF after bulk string"},
		{in: "$-2\r\n", err: "resp: read canned: resp: protocol error: invalid length -2"},
		{in: "%-1\r\n", err: "resp: read canned: resp: protocol error: invalid length -1"},
		{in: "?1\r\n", err: "resp: read canned: resp: protocol error: unknown type '?'"},
		{in: ":1x\r\n", err: `resp: read canned: resp: protocol error: invalid number "1x"`},
		{in: ":1\n", err: "resp: read canned: resp: protocol error: line does not end in CRLF"},
		{in: "#x\r\n", err: `resp: read canned: resp: protocol error: invalid boolean "x"`},
		{in: "$1073741824\r\n", err: "resp: read canned: resp: protocol error: reply has more than the 3990 bytes that MaxReply leaves"},
		{in: "*1073741824\r\n", err: "resp: read canned: resp: protocol error: reply of 1073741824 elements exceeds MaxReply"},
		{in: strings.Repeat("*1\r\n", 40), err: "resp: read canned: resp: protocol error: reply nested too deeply"},
	} {
		c := canned([]byte(test.in))
		got, err := c.ReadReply()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if d := cmp.Diff(test.want, got); d != "" || text != test.err {
			t.Errorf("%q: error %q, want %q\n%s", test.in, text, test.err, d)
		}
		if broken := strings.HasPrefix(test.err, "resp:"); c.Usable() == broken {
			t.Errorf("%q: usable %v", test.in, !broken)
		}
		if _, err := c.ReadReply(); err == nil {
			t.Errorf("%q: a second reply", test.in)
		}
	}
}

func TestTypedReplies(t *testing.T) {
	buf := make([]byte, 4)
	bulk := func(c *Conn) (int, error) { return c.ReadBulkInto(buf) }
	length := func(c *Conn) (int, error) { return c.ReadArrayLen() }
	integer := func(c *Conn) (int, error) { n, err := c.ReadInt(); return int(n), err }
	status := func(c *Conn) (int, error) { s, err := c.ReadStatus(); return len(s), err }
	for _, test := range []struct {
		in   string
		read func(*Conn) (int, error)
		want int
		err  error
	}{
		{"$4\r\nabcd\r\n", bulk, 4, nil},
		{"$5\r\nabcde\r\n", bulk, 5, ErrShort},
		{"$-1\r\n", bulk, 0, ErrNil},
		{"_\r\n", bulk, 0, ErrNil},
		{"-ERR x\r\n", bulk, 0, ServerError("ERR x")},
		{":1\r\n", bulk, 0, ErrProtocol},
		{"*0\r\n", length, 0, nil},
		{"*-1\r\n", length, 0, ErrNil},
		{":7\r\n", integer, 7, nil},
		{"+7\r\n", integer, 0, ErrProtocol},
		{"+OK\r\n", status, 2, nil},
		{"-LOADING x\r\n", status, 0, ServerError("LOADING x")},
	} {
		c := canned([]byte(test.in))
		n, err := test.read(c)
		if n != test.want || !errors.Is(err, test.err) {
			t.Errorf("%q: %d, %v; want %d, %v", test.in, n, err, test.want, test.err)
		}
		if broken := test.err == ErrProtocol; c.Usable() == broken {
			t.Errorf("%q: usable is %v", test.in, !broken)
		}
	}
	c := canned([]byte("%2\r\n"))
	if n, err := c.ReadArrayLen(); n != 4 || err != nil || c.due != 4 {
		t.Errorf("map: %d, %v, %d due", n, err, c.due)
	}
}

// chainOf dials and begins a chain that the test ends.
func chainOf(t testing.TB, network, addr string, cfg ClientConfig) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), network, addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Begin(context.Background())
	t.Cleanup(func() { c.End(); c.Close() })
	return c
}

func TestChain(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, resp3 := range []bool{false, true} {
			m := newMemory()
			_, addr := serve(t, network, ServerConfig{}, m)
			c := chainOf(t, network, addr, ClientConfig{RESP3: resp3})
			big, small := pattern(3<<20), pattern(100)
			c.Append("SET", []byte("big"), big)
			c.Append("SET", []byte("small"), small)
			for range 2 {
				if s, err := c.ReadStatus(); s != "OK" || err != nil {
					t.Fatal(s, err)
				}
			}
			c.Append("GET", []byte("big"))
			c.Append("GET", []byte("none"))
			c.AppendHeader(4)
			for _, arg := range []string{"MGET", "small", "none", "big"} {
				c.AppendString(arg)
			}
			dst := make([]byte, len(big))
			if n, err := c.ReadBulkInto(dst); err != nil || !bytes.Equal(dst[:n], big) {
				t.Fatal(n, err)
			}
			if _, err := c.ReadBulkInto(dst); err != ErrNil {
				t.Fatal(err)
			}
			if n, err := c.ReadArrayLen(); n != 3 || err != nil {
				t.Fatal(n, err)
			}
			if n, err := c.ReadBulkInto(dst); err != nil || !bytes.Equal(dst[:n], small) {
				t.Fatal(n, err)
			}
			if _, err := c.ReadBulkInto(dst); err != ErrNil {
				t.Fatal(err)
			}
			if c.Usable() {
				t.Error("usable with a reply unread")
			}
			if n, err := c.ReadBulkInto(dst[:10]); n != len(big) || err != ErrShort {
				t.Fatal(n, err)
			}
			if !c.Usable() {
				t.Error("not usable after a whole chain")
			}
			if _, err := c.ReadInt(); err != ErrNotDue {
				t.Errorf("a reply that is not due: %v", err)
			}
		}
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func TestContextEndsChain(t *testing.T) {
	m := newMemory()
	entered := make(chan struct{}, 10)
	m.do = func(ctx context.Context, w *Writer, cmd *Command) bool {
		entered <- struct{}{}
		<-ctx.Done()
		return true
	}
	_, addr := serve(t, "tcp", ServerConfig{}, m)

	c := chainOf(t, "tcp", addr, ClientConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	c.Begin(ctx)
	c.Append("PING")
	go func() { <-entered; cancel() }()
	if _, err := c.ReadReply(); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := c.ReadReply(); !errors.Is(err, ErrBroken) || c.Usable() {
		t.Errorf("after an error: %v", err)
	}

	c = chainOf(t, "tcp", addr, ClientConfig{})
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	c.Begin(ctx)
	c.Append("PING")
	if _, err := c.ReadReply(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
}

func TestPool(t *testing.T) {
	s, addr := serve(t, "tcp", ServerConfig{}, newMemory())
	p, err := NewPool("tcp", addr, PoolConfig{MaxActive: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	get := func() *Conn {
		t.Helper()
		c, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := get()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Get(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("over MaxActive: %v", err)
	}
	p.Put(first)
	second := get()
	if second != first {
		t.Error("an idle connection was not used again")
	}
	second.Append("PING")
	second.Flush()
	p.Put(second) // a reply is due
	third := get()
	if third == first {
		t.Error("a connection with a reply unread was used again")
	}
	third.Append("QUIT")
	if _, err := third.ReadStatus(); err != nil {
		t.Fatal(err)
	}
	// The server has closed this one; its FIN is there once a read says so.
	third.due++
	if _, err := third.ReadReply(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	third.due, third.err = 0, nil
	p.Put(third)
	fourth := get()
	if fourth == third {
		t.Error("a connection that the server closed was used again")
	}
	fourth.Append("PING") // so that the server has counted it
	if _, err := fourth.ReadStatus(); err != nil {
		t.Fatal(err)
	}
	p.Put(fourth)
	if n := s.Stats().Connections; n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
	p.Close()
	if _, err := p.Get(t.Context()); !errors.Is(err, ErrPoolClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestPoolValidate(t *testing.T) {
	err := PoolConfig{MaxActive: -1, MaxIdle: -1, Client: ClientConfig{ReadBuffer: 1, Username: "u"}}.Validate()
	for _, want := range []string{"MaxActive", "MaxIdle", "ReadBuffer", "Username"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestDialFails(t *testing.T) {
	addr := t.TempDir() + "/nobody" // a port could be somebody's by now
	if _, err := Dial(t.Context(), "unix", addr, ClientConfig{}); err == nil || !strings.Contains(err.Error(), addr) {
		t.Error(err)
	}
}

// FuzzReadReply: no reply makes the client panic or keep more than MaxReply,
// and where the stream is cut makes no difference.
func FuzzReadReply(f *testing.F) {
	for _, seed := range []string{
		"+OK\r\n", "$3\r\nabc\r\n", "*2\r\n:1\r\n-ERR x\r\n", "%1\r\n+a\r\n:1\r\n", ">2\r\n+x\r\n*1\r\n:1\r\n:5\r\n",
		"|1\r\n+ttl\r\n:5\r\n:6\r\n", "=7\r\ntxt:abc\r\n", "!6\r\nERR no\r\n", "$1073741824\r\n", "*1073741824\r\n", ",inf\r\n",
	} {
		f.Add([]byte(seed), uint8(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		c := canned(in)
		whole, err1 := c.ReadReply()
		if n := valueBytes(whole); n > c.cfg.MaxReply {
			t.Fatalf("a value of %d bytes", n)
		}
		if c.err == nil && c.due != 0 {
			t.Fatalf("%d frames are due after a whole reply", c.due)
		}
		c = canned(nil)
		c.in.src = &pieces{in: in, n: int(cut%61) + 1}
		parts, err2 := c.ReadReply()
		if (err1 == nil) != (err2 == nil) || err1 != nil && err1.Error() != err2.Error() {
			t.Fatalf("whole %v, in pieces %v", err1, err2)
		}
		if d := cmp.Diff(whole, parts, cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b })); d != "" {
			t.Fatal(d)
		}
	})
}

func valueBytes(v Value) int {
	n := len(v.Bytes)
	for _, e := range v.Elems {
		n += valueSize + valueBytes(e)
	}
	return n
}
