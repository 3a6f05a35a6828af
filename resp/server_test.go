package resp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// memory is a map of values that the handlers of a test server share.
type memory struct {
	mu       sync.Mutex // guards what follows
	values   map[string][]byte
	reserved int // payloads asked for
	dropped  int
	closed   int
	released int
	pinned   int
	args     [][]string // of dropped commands

	payload func(args [][]byte, arg, n int) ([]byte, error) // nil: fresh memory
	do      func(ctx context.Context, w *Writer, cmd *Command) bool
	events  chan string // gets "dropped" and "closed", if made
}

func newMemory() *memory {
	return &memory{values: map[string][]byte{}, events: make(chan string, 100)}
}

// handler executes the few commands that the tests need.
type handler struct{ m *memory }

func (h handler) Payload(args [][]byte, arg, n int) ([]byte, error) {
	h.m.mu.Lock()
	h.m.reserved++
	h.m.mu.Unlock()
	if h.m.payload != nil {
		return h.m.payload(args, arg, n)
	}
	return make([]byte, n), nil
}

func (h handler) Do(ctx context.Context, w *Writer, cmd *Command) {
	if h.m.do != nil && h.m.do(ctx, w, cmd) {
		return
	}
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	switch name := strings.ToUpper(string(cmd.Args[0])); name {
	case "PING":
		w.Status("PONG")
	case "ECHO":
		w.Bulk(cmd.Args[1])
	case "SET":
		h.m.values[string(cmd.Args[1])] = bytes.Clone(cmd.Args[2])
		w.Status("OK")
	case "GET":
		v, ok := h.m.values[string(cmd.Args[1])]
		if !ok {
			w.Null()
			return
		}
		h.m.pinned++
		w.BulkRef(v, releaser(h))
	case "MGET":
		w.Array(len(cmd.Args) - 1)
		for _, key := range cmd.Args[1:] {
			if v, ok := h.m.values[string(key)]; ok {
				h.m.pinned++
				w.BulkRef(v, releaser(h))
			} else {
				w.Null()
			}
		}
	case "HELLO":
		w.SetRESP3(len(cmd.Args) > 1 && string(cmd.Args[1]) == "3")
		w.Map(2)
		w.BulkString("server")
		w.BulkString("test")
		w.BulkString("proto")
		if w.RESP3() {
			w.Int(3)
		} else {
			w.Int(2)
		}
	case "QUIT":
		w.Status("OK")
		w.CloseAfterReply()
	case "PANIC":
		panic("asked to")
	default:
		w.Error("ERR unknown command '" + name + "'")
	}
}

func (h handler) Dropped(cmd *Command) {
	var args []string
	for _, a := range cmd.Args {
		args = append(args, string(a))
	}
	h.m.mu.Lock()
	h.m.dropped++
	h.m.args = append(h.m.args, args)
	h.m.mu.Unlock()
	h.m.events <- "dropped"
}

func (h handler) Close() {
	h.m.mu.Lock()
	h.m.closed++
	h.m.mu.Unlock()
	h.m.events <- "closed"
}

// releaser counts. It is called with m locked by Do, or from the connection's
// end, so it takes no lock of its own kind.
type releaser struct{ m *memory }

var releaseMu sync.Mutex // guards memory.released

func (r releaser) Release() {
	releaseMu.Lock()
	r.m.released++
	releaseMu.Unlock()
}

// await waits for an event of the handler.
func (m *memory) await(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-m.events:
		if got != want {
			t.Fatalf("event %q, want %q", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("no %q", want)
	}
}

// serve starts a server on network tcp or unix and returns it and its address.
func serve(t testing.TB, network string, cfg ServerConfig, m *memory) (*Server, string) {
	t.Helper()
	if cfg.NewHandler == nil {
		cfg.NewHandler = func(ConnInfo) Handler { return handler{m} }
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = t.TempDir() + "/s"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

// dialRaw connects without the client under test.
func dialRaw(t testing.TB, network, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc, bufio.NewReader(nc)
}

func TestPing(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		_, addr := serve(t, network, ServerConfig{}, newMemory())
		nc, r := dialRaw(t, network, addr)
		nc.Write([]byte("*1\r\n$4\r\nPING\r\nping\r\n"))
		for range 2 {
			if line, err := r.ReadString('\n'); line != "+PONG\r\n" {
				t.Fatalf("%s: %q, %v", network, line, err)
			}
		}
	}
}

// exchange sends in and expects want in answer; with closed, then the end.
func exchange(t *testing.T, nc net.Conn, r *bufio.Reader, in, want string, closed bool) {
	t.Helper()
	if _, err := nc.Write([]byte(in)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("%.60q: got %q, want %q (%v)", in, got[:n], want, err)
	}
	if closed {
		if _, err := r.ReadByte(); err != io.EOF {
			t.Fatalf("%.60q: the connection is open: %v", in, err)
		}
	}
}

func TestRepliesInBothProtocols(t *testing.T) {
	m := newMemory()
	m.do = func(_ context.Context, w *Writer, cmd *Command) bool {
		if string(cmd.Args[0]) != "ALL" {
			return false
		}
		w.Array(13)
		w.Status("two\r\nlines")
		w.Error("ERR two\nlines")
		w.Int(-3)
		w.BulkString("s")
		w.Null()
		w.NullArray()
		w.Bool(true)
		w.Bool(false)
		w.Double(1.5)
		w.Double(math.Inf(-1))
		w.Verbatim("txt", "text")
		w.Map(1)
		w.Int(1)
		w.Int(2)
		w.Set(1)
		w.Int(1)
		w.Push(1) // a reply of this type is legal, though unusual
		w.Int(1)
		return true
	}
	_, addr := serve(t, "tcp", ServerConfig{}, m)
	nc, r := dialRaw(t, "tcp", addr)
	exchange(t, nc, r, "ALL\n", "*13\r\n+two  lines\r\n-ERR two lines\r\n:-3\r\n$1\r\ns\r\n$-1\r\n*-1\r\n:1\r\n:0\r\n"+
		"$3\r\n1.5\r\n$4\r\n-inf\r\n$4\r\ntext\r\n*2\r\n:1\r\n:2\r\n*1\r\n:1\r\n*1\r\n:1\r\n", false)
	exchange(t, nc, r, "HELLO 3\n", "%2\r\n$6\r\nserver\r\n$4\r\ntest\r\n$5\r\nproto\r\n:3\r\n", false)
	exchange(t, nc, r, "ALL\n", "*13\r\n+two  lines\r\n-ERR two lines\r\n:-3\r\n$1\r\ns\r\n_\r\n_\r\n#t\r\n#f\r\n"+
		",1.5\r\n,-inf\r\n=8\r\ntxt:text\r\n%1\r\n:1\r\n:2\r\n~1\r\n:1\r\n>1\r\n:1\r\n", false)
	exchange(t, nc, r, "HELLO 2\n", "*4\r\n$6\r\nserver\r\n$4\r\ntest\r\n$5\r\nproto\r\n:2\r\n", false)
	exchange(t, nc, r, "QUIT\nPING\n", "+OK\r\n", true)
}

func TestServerAnswersProtocolErrors(t *testing.T) {
	m := newMemory()
	s, addr := serve(t, "tcp", ServerConfig{MaxPayload: 64 << 10, MaxDiscard: 1 << 20, Linger: 10 * time.Second}, m)
	for in, want := range map[string]string{
		"PING\n*x\r\n":                           "+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n",
		"*1\r\n$-5\r\n":                          "-ERR Protocol error: invalid bulk length\r\n",
		"*2\r\n$3\r\nSET\r\n$1073741824\r\nabcd": "-TOOLARGE argument 1 has 1073741824 bytes, the most is 65536; more than MaxDiscard (1048576) bytes would have to be thrown away, closing\r\n",
	} {
		nc, r := dialRaw(t, "tcp", addr)
		exchange(t, nc, r, in, want, true)
		nc.Close()
		m.await(t, "closed")
	}
	if n := s.Stats().ProtocolErrors; n != 3 {
		t.Errorf("%d protocol errors, want 3", n)
	}
	// A payload over MaxPayload is thrown away and the connection stays usable.
	nc, r := dialRaw(t, "tcp", addr)
	exchange(t, nc, r, "*2\r\n$3\r\nSET\r\n$100000\r\n"+strings.Repeat("a", 100000)+"\r\nPING\r\n",
		"-TOOLARGE argument 1 has 100000 bytes, the most is 65536\r\n+PONG\r\n", false)
	if m.reserved != 0 || m.dropped != 0 {
		t.Errorf("%d reserved, %d dropped", m.reserved, m.dropped)
	}
}

// halfSet is a command whose payload has begun to arrive.
const halfSet = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nabc"

func TestDroppedOnce(t *testing.T) {
	refuse := func(err error) func([][]byte, int, int) ([]byte, error) {
		return func([][]byte, int, int) ([]byte, error) { return nil, err }
	}
	whole := halfSet + strings.Repeat("d", 100000-3) + "\r\n"
	for _, test := range []struct {
		name, in, want string
		payload        func([][]byte, int, int) ([]byte, error)
		closed         bool
	}{
		{name: "client goes away", in: halfSet},
		{name: "bad end", in: strings.TrimSuffix(whole, "\r\n") + "xx", want: "-ERR Protocol error: expected CRLF after bulk string\r\n", closed: true},
		{name: "refused", in: whole + "PING\n", want: "-ERR full\r\n+PONG\r\n", payload: refuse(errors.New("full"))},
		{name: "refused and closed", in: whole, want: "-OOM full\r\n", closed: true, payload: refuse(errors.Join(ServerError("OOM full"), ErrClose))},
		{name: "panic", in: halfSet, payload: func([][]byte, int, int) ([]byte, error) { panic("in Payload") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMemory()
			m.payload = test.payload
			s, addr := serve(t, "unix", ServerConfig{Linger: time.Millisecond}, m)
			nc, r := dialRaw(t, "unix", addr)
			exchange(t, nc, r, test.in, test.want, test.closed)
			nc.Close()
			m.await(t, "dropped")
			m.await(t, "closed")
			if d := cmp.Diff([][]string{{"SET", "k"}}, m.args); d != "" || m.dropped != 1 || m.closed != 1 {
				t.Errorf("%d dropped, %d closed\n%s", m.dropped, m.closed, d)
			}
			if n := s.Stats().InFlight; n != 0 {
				t.Errorf("%d bytes of budget are missing", n)
			}
		})
	}
}

func TestReadTimeout(t *testing.T) {
	m := newMemory()
	s, addr := serve(t, "tcp", ServerConfig{ReadTimeout: 20 * time.Millisecond}, m)
	nc, r := dialRaw(t, "tcp", addr)
	exchange(t, nc, r, "PING\n", "+PONG\r\n", false)
	time.Sleep(60 * time.Millisecond) // what is measured: silence between commands is allowed
	exchange(t, nc, r, "PING\n*1\r\n$4\r\nPI", "+PONG\r\n", true)
	m.await(t, "closed")
	waitStats(t, s, func(st Stats) bool { return st.Open == 0 })
	if n := s.Stats().Timeouts; n != 1 {
		t.Errorf("%d timeouts, want 1", n)
	}

	// A client is not answered for sure that needs longer than this for its first command.
	_, addr = serve(t, "tcp", ServerConfig{IdleTimeout: 20 * time.Millisecond}, m)
	nc, r = dialRaw(t, "tcp", addr)
	exchange(t, nc, r, "", "", true)
}

// A client that asks and does not read: the write times out and what was queued
// is released once.
func TestReleaseAfterWriteError(t *testing.T) {
	m := newMemory()
	m.values["k"] = pattern(100_000)
	s, addr := serve(t, "unix", ServerConfig{WriteTimeout: time.Millisecond, FlushBytes: 1, SocketBuffer: -1}, m)
	m.values["tiny"] = []byte("x")
	nc, _ := dialRaw(t, "unix", addr)
	if _, err := nc.Write([]byte(strings.Repeat("GET tiny\nGET k\n", 50))); err != nil {
		t.Fatal(err)
	}
	m.await(t, "closed")
	waitStats(t, s, func(st Stats) bool { return st.Open == 0 })
	releaseMu.Lock()
	defer releaseMu.Unlock()
	if m.pinned == 0 || m.pinned != m.released {
		t.Errorf("%d pinned, %d released", m.pinned, m.released)
	}
	if st := s.Stats(); st.Timeouts != 1 || st.InFlight != 0 {
		t.Errorf("%+v", st)
	}
}

func TestReleaseOncePerReply(t *testing.T) {
	m := newMemory()
	m.values["k"] = pattern(100_000)
	m.values["tiny"] = []byte("x")
	_, addr := serve(t, "tcp", ServerConfig{FlushBytes: 150_000}, m)
	c := chainOf(t, "tcp", addr, ClientConfig{})
	const rounds = 20
	for range rounds {
		c.Append("MGET", []byte("k"), []byte("tiny"), []byte("k"))
	}
	for range rounds {
		v, err := c.ReadReply()
		if err != nil || !bytes.Equal(v.Elems[2].Bytes, m.values["k"]) {
			t.Fatal(err)
		}
	}
	c.Close()
	m.await(t, "closed")
	releaseMu.Lock()
	defer releaseMu.Unlock()
	if m.pinned != 3*rounds || m.released != m.pinned {
		t.Errorf("%d pinned, %d released", m.pinned, m.released)
	}
}

func TestMaxConnections(t *testing.T) {
	s, addr := serve(t, "tcp", ServerConfig{MaxConnections: 1}, newMemory())
	nc, r := dialRaw(t, "tcp", addr)
	exchange(t, nc, r, "PING\n", "+PONG\r\n", false)
	nc2, r2 := dialRaw(t, "tcp", addr)
	exchange(t, nc2, r2, "", "-ERR max number of clients reached\r\n", true)
	if st := s.Stats(); st.Rejected != 1 || st.Open != 1 {
		t.Errorf("%+v", st)
	}
}

// One connection holds the whole budget with a half-sent payload: others wait,
// are told so, and go on when it is gone.
func TestMaxInFlightBytes(t *testing.T) {
	m := newMemory()
	m.values["big"] = pattern(50_000)
	s, addr := serve(t, "unix", ServerConfig{MaxPayload: 100_000, MaxInFlightBytes: 100_000, InFlightWait: 10 * time.Millisecond}, m)
	got := make(chan struct{})
	m.payload = func(_ [][]byte, _, n int) ([]byte, error) {
		if n == 100_000 {
			close(got)
		}
		return make([]byte, n), nil
	}
	first, _ := dialRaw(t, "unix", addr)
	first.Write([]byte(halfSet))
	<-got
	second, r := dialRaw(t, "unix", addr)
	set := "*3\r\n$3\r\nSET\r\n$1\r\nq\r\n$50000\r\n" + strings.Repeat("a", 50000) + "\r\n"
	exchange(t, second, r, set, "-BUSY no room within MaxInFlightBytes (100000) for 50000 more bytes of payload after 10ms, try again\r\n", false)
	exchange(t, second, r, "GET big\n", "-BUSY no room within MaxInFlightBytes (100000) for 50000 more bytes of payload after 10ms, try again\r\n", false)
	first.Close()
	m.await(t, "dropped")
	m.await(t, "closed")
	exchange(t, second, r, set, "+OK\r\n", false)
	// A command may not hold more than everything; one that holds a part goes on.
	two := "*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$50000\r\n" + strings.Repeat("a", 50000) + "\r\n$1\r\nb\r\n$50001\r\n" + strings.Repeat("a", 50001) + "\r\n"
	exchange(t, second, r, two, "-ERR the payloads of one command have more than MaxInFlightBytes (100000)\r\n", false)
	if st := s.Stats(); st.InFlight != 0 {
		t.Errorf("%+v", st)
	}
}

func TestHandlerPanic(t *testing.T) {
	m := newMemory()
	s, addr := serve(t, "tcp", ServerConfig{}, m)
	nc, r := dialRaw(t, "tcp", addr)
	exchange(t, nc, r, "PANIC\n", "", true)
	m.await(t, "closed")
	nc, r = dialRaw(t, "tcp", addr)
	exchange(t, nc, r, "PING\n", "+PONG\r\n", false)
	if n := s.Stats().Panics; n != 1 {
		t.Errorf("%d panics, want 1", n)
	}
}

func TestShutdown(t *testing.T) {
	m := newMemory()
	entered, proceed := make(chan struct{}), make(chan struct{})
	m.do = func(_ context.Context, w *Writer, cmd *Command) bool {
		if string(cmd.Args[0]) != "SLOW" {
			return false
		}
		entered <- struct{}{}
		<-proceed
		w.Status("DONE")
		return true
	}
	s, addr := serve(t, "unix", ServerConfig{}, m)
	idle, idleR := dialRaw(t, "unix", addr)
	exchange(t, idle, idleR, "PING\n", "+PONG\r\n", false)
	busy, busyR := dialRaw(t, "unix", addr)
	busy.Write([]byte("SLOW\n*1\r\n$4\r\nPI")) // with half of the next one
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(t.Context()) }()
	if _, err := idleR.ReadByte(); err != io.EOF {
		t.Errorf("idle connection: %v", err)
	}
	close(proceed)
	exchange(t, busy, busyR, "NG\r\n", "+DONE\r\n+PONG\r\n", true)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", addr); err == nil {
		t.Error("the listener is open")
	}
}

func TestShutdownImpatient(t *testing.T) {
	m := newMemory()
	entered := make(chan struct{})
	m.do = func(ctx context.Context, _ *Writer, _ *Command) bool {
		close(entered)
		<-ctx.Done()
		return true
	}
	s, addr := serve(t, "unix", ServerConfig{}, m)
	nc, _ := dialRaw(t, "unix", addr)
	nc.Write([]byte("SLOW\n"))
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	m.await(t, "closed")
}

func TestServerConfigValidate(t *testing.T) {
	err := ServerConfig{PayloadThreshold: -1, MaxDiscard: 1, ReadBuffer: 1, MaxInFlightBytes: 1, MaxPushBytes: -1}.Validate()
	for _, want := range []string{"NewHandler", "PayloadThreshold", "MaxDiscard", "ReadBuffer", "MaxInFlightBytes", "MaxPushBytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if _, err := NewServer(ServerConfig{}); err == nil {
		t.Error("a server without handlers")
	}
}
