package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/wire"
)

// key is the i-th key of a test, and content its bytes: both follow from i.
func key(i int) block.Key {
	k, err := block.NewKey(i, [block.HashSize]byte{byte(i), byte(i >> 8), 0xca, 0x12})
	if err != nil {
		panic(err)
	}
	return k
}

func content(i, length int) []byte {
	p := make([]byte, length)
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(p)
	return p
}

func open(tb testing.TB, cfg client.Config, servers ...*server) *client.Client {
	tb.Helper()
	for _, s := range servers {
		cfg.Nodes = append(cfg.Nodes, s.addr)
	}
	c, err := client.Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// openHasty is open for a Timeout so short that a ping may run out of it on a busy machine:
// such a ping is sent again.
func openHasty(tb testing.TB, cfg client.Config) *client.Client {
	tb.Helper()
	for began := time.Now(); ; {
		c, err := client.Open(tb.Context(), cfg)
		if err == nil {
			tb.Cleanup(func() { c.Close() })
			return c
		}
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Minute {
			tb.Fatal(err)
		}
	}
}

func mustPut(tb testing.TB, c *client.Client, i, length int) {
	tb.Helper()
	if _, err := c.Put(tb.Context(), key(i), block.Key{}, content(i, length)); err != nil {
		tb.Fatal(err)
	}
}

func TestPutAndGet(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			addr := ""
			if network == "unix" {
				addr = filepath.Join(t.TempDir(), "s")
			}
			s := newServer("n1").start(t, network, addr)
			c := open(t, client.Config{}, s)
			for i, length := range []int{0, 1, 2 << 10, 16 << 10, 1 << 20} {
				want := content(i, length)
				stored, err := c.Put(t.Context(), key(i), key(i+1), want, client.WithPolicy(client.WriteThrough))
				if !stored || err != nil {
					t.Fatalf("put %d bytes: %v, %v", length, stored, err)
				}
				if stored, err := c.Put(t.Context(), key(i), key(i+1), want); stored || err != nil {
					t.Errorf("put again: %v, %v", stored, err)
				}
				got, err := c.Get(t.Context(), key(i), nil)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("get %d bytes: %d, %v", length, len(got), err)
				}
			}
			if call := s.last("CAIRN.PUT"); call[3] != "-" {
				t.Errorf("policy %q, want the namespace's", call[3])
			}
			if _, err := c.Get(t.Context(), key(99), nil); !errors.Is(err, client.ErrNotFound) {
				t.Errorf("a block that nobody has: %v", err)
			}
			if ok, err := c.Exists(t.Context(), key(1)); !ok || err != nil {
				t.Errorf("exists: %v, %v", ok, err)
			}
			if ok, err := c.Exists(t.Context(), key(99)); ok || err != nil {
				t.Errorf("exists: %v, %v", ok, err)
			}
		})
	}
}

func TestGetUsesTheCallersMemory(t *testing.T) {
	c := open(t, client.Config{}, newServer("n1").start(t, "tcp", ""))
	mustPut(t, c, 1, 64<<10)
	if err := c.PutName(t.Context(), "name", content(1, 64<<10)); err != nil {
		t.Fatal(err)
	}
	for name, get := range map[string]func(dst []byte) ([]byte, error){
		"block": func(dst []byte) ([]byte, error) { return c.Get(t.Context(), key(1), dst) },
		"name": func(dst []byte) ([]byte, error) {
			v, err := c.GetName(t.Context(), "name", dst)
			return v.Value, err
		},
	} {
		buf := make([]byte, 10, 100<<10)
		got, err := get(buf)
		if err != nil || &got[0] != &buf[0] || len(got) != 64<<10 {
			t.Errorf("%s: a buffer that is large enough was not used: %v", name, err)
		}
		got, err = get(make([]byte, 0, 100))
		if err != nil || !bytes.Equal(got, content(1, 64<<10)) {
			t.Errorf("%s: a short buffer: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestGetBatch(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{Window: 8}, s)
	const blocks, length = 40, 10 << 10
	var keys []block.Key
	for i := range blocks {
		if i%3 != 0 {
			mustPut(t, c, i, length)
		}
		keys = append(keys, key(i))
	}
	s.mu.Lock()
	s.room = 3 * length // some of every request are deferred
	s.mu.Unlock()
	n, err := c.Node(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	got := map[int][]byte{}
	found, err := n.GetBatch(t.Context(), keys, func(i int, d block.Descriptor) []byte {
		if d.Key != keys[i] || d.Length != length {
			t.Errorf("block %d: %+v", i, d)
		}
		if i%5 == 0 {
			return nil // not wanted
		}
		got[i] = make([]byte, d.Length)
		return got[i]
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, ok := range found {
		want := i%3 != 0 && i%5 != 0
		if ok != want || ok && !bytes.Equal(got[i], content(i, length)) {
			t.Errorf("block %d: found %v, want %v, or wrong bytes", i, ok, want)
		}
	}
	if call := s.last("CAIRN.MGET"); len(call) > 2+8 {
		t.Errorf("a request of %d keys, the window is 8", len(call)-2)
	}
	if found, err := n.GetBatch(t.Context(), nil, nil); len(found) != 0 || err != nil {
		t.Errorf("an empty batch: %v, %v", found, err)
	}
}

func TestWrongBytesAreRefused(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	mustPut(t, c, 1, 64<<10)
	s.on("CAIRN.MGET", corrupt)
	if _, err := c.Get(t.Context(), key(1), nil); !errors.Is(err, client.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
	s.setFault(nil)
	if _, err := c.Get(t.Context(), key(1), nil); err != nil {
		t.Errorf("the connection is no longer usable: %v", err)
	}
}

// A first attempt that ended half-way leaves nothing behind in the answer of the
// second.
func TestRetryAfterWrongBytesAndABrokenConnection(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{Window: 1}, s)
	mustPut(t, c, 1, 4<<10)
	mustPut(t, c, 2, 4<<10)
	calls := 0
	s.setFault(func(call []string) fault {
		if call[0] != "CAIRN.MGET" {
			return none
		}
		switch calls++; calls {
		case 1:
			return corrupt
		case 2:
			return hangUp
		}
		return none
	})
	n, _ := c.Node(s.addr)
	found, err := n.GetBatch(t.Context(), []block.Key{key(1), key(2)}, func(_ int, d block.Descriptor) []byte { return make([]byte, d.Length) })
	if err != nil || !slices.Equal(found, []bool{true, true}) {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestErrorsHaveTheirKind(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	for code, want := range map[string]error{
		wire.CodeFull: client.ErrFull, wire.CodeTooLarge: client.ErrTooLarge, wire.CodeNoSpace: client.ErrNoSpace,
		wire.CodeConflict: client.ErrConflict, wire.CodeNamespace: client.ErrNamespace, wire.CodeNotFound: client.ErrNotFound,
		wire.CodeUnavailable: client.ErrUnavailable, "BUSY": client.ErrFull, wire.CodeUnknown: client.ErrUnknownOutcome,
		wire.CodeNoHome: client.ErrNoHome, wire.CodeUnreachable: client.ErrUnreachable,
	} {
		answering := newScripted(t, "-"+code+" because\r\n")
		c, err := client.Open(t.Context(), client.Config{Nodes: []string{answering}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Put(t.Context(), key(1), block.Key{}, []byte("x"))
		if !errors.Is(err, want) || !strings.Contains(err.Error(), answering) || !strings.Contains(err.Error(), "because") {
			t.Errorf("%s: %v", code, err)
		}
		c.Close()
	}
	mustPut(t, c, 1, 10)
	if _, err := c.Put(t.Context(), key(1), block.Key{}, []byte("other")); !errors.Is(err, client.ErrConflict) {
		t.Errorf("other bytes: %v", err)
	}
	if _, err := c.Put(t.Context(), key(2), block.Key{}, make([]byte, 17<<20)); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	bad := open(t, client.Config{Namespace: "bogus"}, s)
	if err := bad.PutName(t.Context(), "k", []byte("v")); !errors.Is(err, client.ErrNamespace) {
		t.Errorf("namespace: %v", err)
	}
}

// newScripted is a node that answers PING, and everything else with the text given.
func newScripted(t *testing.T, answer string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() { l.Close(); running.Wait() })
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					if bytes.Contains(buf[:n], []byte("PING")) {
						conn.Write([]byte("+PONG\r\n"))
					} else {
						conn.Write([]byte(answer))
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// Whatever a broken node answers is an error, not a crash and not an endless wait.
func TestNonsenseIsAnError(t *testing.T) {
	for _, answer := range []string{
		"hello\r\n", "+OK\r\n", ":1\r\n", "$-1\r\n", "*0\r\n", "*1\r\n$3\r\nabc\r\n", "*2\r\n:1\r\n$5\r\ntoken\r\n", "*2\r\n:1\r\n*-1\r\n",
		"$99999999999999\r\n", "*99999999999\r\n", "\x00\x00",
	} {
		addr := newScripted(t, answer)
		c := openHasty(t, client.Config{Nodes: []string{addr}, Timeout: 100 * time.Millisecond})
		if _, err := c.Get(t.Context(), key(1), nil); err == nil {
			t.Errorf("%q: get succeeds", answer)
		}
		if _, err := c.Put(t.Context(), key(1), block.Key{}, []byte("x")); err == nil {
			t.Errorf("%q: put succeeds", answer)
		}
		if _, err := c.Match(t.Context(), []block.Key{key(1)}); err == nil {
			t.Errorf("%q: match succeeds", answer)
		}
		if _, err := c.Route(t.Context(), client.RouteRequest{}); err == nil {
			t.Errorf("%q: route succeeds", answer)
		}
		c.Close()
	}
}

func TestServerRestartsBetweenCalls(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	mustPut(t, c, 1, 10)
	for range 3 {
		s.restart(t)
		if _, err := c.Get(t.Context(), key(1), nil); err != nil {
			t.Error(err)
		}
	}
	// Also when the connection breaks only as it is used.
	broke := false
	s.setFault(func(call []string) fault {
		if call[0] == "CAIRN.MGET" && !broke {
			broke = true
			return hangUp
		}
		return none
	})
	if _, err := c.Get(t.Context(), key(1), nil); err != nil || !broke {
		t.Error(err)
	}
}

func TestFailover(t *testing.T) {
	a, b := newServer("a").start(t, "tcp", ""), newServer("b").start(t, "tcp", "")
	c := open(t, client.Config{Cooldown: time.Hour}, a, b)
	mustPut(t, c, 1, 10)
	b.mu.Lock()
	a.mu.Lock()
	b.blocks = maps.Clone(a.blocks)
	a.mu.Unlock()
	b.mu.Unlock()
	a.stop()
	for range 5 {
		if _, err := c.Get(t.Context(), key(1), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.count("CAIRN.MGET"); got != 5 {
		t.Errorf("%d reads at the other node, want 5", got)
	}
	b.stop()
	_, err := c.Get(t.Context(), key(1), nil)
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), a.addr) || !strings.Contains(err.Error(), b.addr) {
		t.Errorf("with both gone: %v", err)
	}
	if _, err := client.Open(t.Context(), client.Config{Nodes: []string{a.addr}}); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("open with no node up: %v", err)
	}
	for _, s := range []*server{a, b} { // for the tests' end
		if err := s.serve("tcp", s.addr); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneNodeThatIsGoneIsUnavailable(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	n, err := c.Node("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Get(t.Context(), key(1), nil); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestTimeLimits(t *testing.T) {
	a, b := newServer("a").start(t, "tcp", ""), newServer("b").start(t, "tcp", "")
	c := openHasty(t, client.Config{Nodes: []string{a.addr, b.addr}, Timeout: time.Second, Cooldown: time.Hour})
	a.on("CAIRN.MGET", hang)
	n, _ := c.Node(a.addr)
	if _, err := n.Get(t.Context(), key(1), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one node: %v", err)
	}
	if got := a.count("CAIRN.MGET"); got > 1 {
		t.Errorf("asked %d times: what has timed out must not be asked again", got)
	}
	for began := time.Now(); ; {
		_, err := c.Get(t.Context(), key(1), nil)
		if errors.Is(err, client.ErrUnavailable) && time.Since(began) < time.Minute {
			continue // on a busy machine the other node may need longer as well
		}
		if !errors.Is(err, client.ErrNotFound) {
			t.Errorf("the other node should have answered: %v", err)
		}
		break
	}
}

// A node that hangs costs a caller with a deadline one call, not every call.
func TestNodeThatHangsComesLast(t *testing.T) {
	a, b := newServer("a").start(t, "tcp", ""), newServer("b").start(t, "tcp", "")
	c := open(t, client.Config{Cooldown: time.Hour}, a, b)
	a.on("CAIRN.MGET", hang)
	get := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := c.Get(ctx, key(1), nil)
		return err
	}
	if err := get(200 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("first: %v", err)
	}
	// Long enough for the other node on a busy machine, shorter than the first hangs.
	if err := get(20 * time.Second); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("second: %v", err)
	}
}

func TestCancel(t *testing.T) {
	a, b := newServer("a").start(t, "tcp", ""), newServer("b").start(t, "tcp", "")
	c := open(t, client.Config{}, a, b)
	ctx, cancel := context.WithCancel(t.Context())
	a.setFault(func(call []string) fault {
		if call[0] != "CAIRN.MGET" {
			return none
		}
		cancel()
		return hang
	})
	if _, err := c.Get(ctx, key(1), nil); !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v, want Canceled", err)
	}
	if b.count("CAIRN.MGET") != 0 {
		t.Error("a cancelled call went on at the next node")
	}
	a.setFault(nil)
	if _, err := c.Get(t.Context(), key(1), nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("after it: %v", err)
	}
	if a.count("CAIRN.MGET") != 2 {
		t.Error("a cancelled call made its node come last")
	}
}

// What a client has put, a later match knows of, at whichever node.
func TestMatchCarriesTokens(t *testing.T) {
	a, b := newServer("a").start(t, "tcp", ""), newServer("b").start(t, "tcp", "")
	c := open(t, client.Config{}, a, b)
	nodes := map[string]*client.Node{}
	for _, s := range []*server{a, b} {
		n, err := c.Node(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		nodes[s.id] = n
	}
	if _, err := c.Match(t.Context(), []block.Key{key(1)}); err != nil {
		t.Fatal(err)
	}
	if call := a.last("CAIRN.MATCH"); len(call) != 3 {
		t.Errorf("tokens of nothing: %q", call)
	}
	for i, id := range []string{"a", "b", "a"} {
		if _, err := nodes[id].Put(t.Context(), key(i), block.Key{}, content(i, 10)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := nodes["a"].Match(t.Context(), []block.Key{key(0), key(2), key(5)})
	if err != nil || m.Prefix != 2 || m.Local != 1 {
		t.Errorf("match: %+v, %v", m, err)
	}
	call := a.last("CAIRN.MATCH")
	after := []string{call[2], call[4]}
	slices.Sort(after)
	if call[1] != "AFTER" || call[3] != "AFTER" || !slices.Equal(after, []string{"a/1/2", "b/1/1"}) {
		t.Errorf("sent %q, want the newest token of each node", call[:5])
	}
}

func TestScan(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{Namespace: "other"}, s)
	want := []string{}
	for i := range 9 {
		name := fmt.Sprint("k", i)
		want = append(want, name)
		if err := c.PutName(t.Context(), name, []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.PutName(t.Context(), "x", []byte("v")); err != nil {
		t.Fatal(err)
	}
	n, _ := c.Node(s.addr)
	var got []string
	for name, err := range n.Scan(t.Context(), "k*") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	pages := s.count("SCAN")
	for range n.Scan(t.Context(), "k*") {
		break
	}
	if asked := s.count("SCAN") - pages; asked != 1 {
		t.Errorf("%d pages after the caller had enough", asked)
	}
	s.on("SCAN", refuse)
	errs := 0
	for _, err := range n.Scan(t.Context(), "*") {
		if errs++; !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	}
	if errs != 1 {
		t.Errorf("%d errors, want one", errs)
	}
}

func TestStatusAndExplain(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	n, _ := c.Node(s.addr)
	if got, err := n.Status(t.Context()); string(got) != `{"node":"n1"}` || err != nil {
		t.Errorf("status %s, %v", got, err)
	}
	if got, err := n.Explain(t.Context(), "name"); string(got) != `{"key":"name"}` || err != nil {
		t.Errorf("explain %s, %v", got, err)
	}
	if err := n.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestClosedClient(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	n, _ := c.Node(s.addr)
	c.Close()
	c.Close()
	if _, err := c.Get(t.Context(), key(1), nil); !errors.Is(err, client.ErrClosed) {
		t.Errorf("client: %v", err)
	}
	if _, err := n.Get(t.Context(), key(1), nil); !errors.Is(err, client.ErrClosed) {
		t.Errorf("node: %v", err)
	}
	if _, err := c.Node(s.addr); !errors.Is(err, client.ErrClosed) {
		t.Errorf("another node: %v", err)
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	_, err := client.Open(t.Context(), client.Config{
		Nodes: []string{"nohost", "unix:", "host:"}, Router: "router:7080", Window: -1,
	})
	if err == nil {
		t.Fatal("opened")
	}
	for _, part := range []string{`node "nohost": want host:port or unix:/path`, `"unix:": the path is missing`, `node "host:"`, `router "router:7080": want http://host:port`, "negative"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %s: %v", part, err)
		}
	}
	if _, err := client.Open(t.Context(), client.Config{}); err == nil || !strings.Contains(err.Error(), "no node given") {
		t.Errorf("no nodes: %v", err)
	}
}

// Many goroutines share a client, with fewer connections than there are of them.
func TestConcurrentUse(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{MaxConnections: 3}, s)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			var buf []byte
			for i := range 20 {
				k := w*100 + i
				if _, err := c.Put(t.Context(), key(k), block.Key{}, content(k, 5000)); err != nil {
					t.Error(err)
				}
				got, err := c.Get(t.Context(), key(k), buf)
				if err != nil || !bytes.Equal(got, content(k, 5000)) {
					t.Errorf("block %d: %v", k, err)
				}
				buf = got
			}
		})
	}
	wg.Wait()
}

// The node goes away in the middle of a block that the caller does not want.
func TestConnectionBreaksInASkippedBlock(t *testing.T) {
	header := wire.NewBatchHeader(1)
	header.Found(block.Describe(key(1), block.Key{}, content(1, 1000)))
	addr := newScripted(t, fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$1000\r\nxx", len(header), header))
	c := openHasty(t, client.Config{Nodes: []string{addr}, Timeout: 50 * time.Millisecond})
	n, _ := c.Node(addr)
	_, err := n.GetBatch(t.Context(), []block.Key{key(1)}, func(int, block.Descriptor) []byte { return nil })
	if !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}
