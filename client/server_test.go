package client_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/block"
	"cairn/resp"
	"cairn/wire"
)

// server is a node for tests: maps behind the protocol, on the same server of the
// protocol as a node's.
type server struct {
	id   string
	addr string // as client.Config.Nodes takes it

	// mu guards what follows.
	mu       sync.Mutex
	blocks   map[block.Key]stored
	log      *nameLog
	memory   *fakeMemory // nil: none
	position uint64
	quiet    bool // under a benchmark: CAIRN.MGET is answered and nothing else done
	room     int  // bytes that one CAIRN.MGET answers; 0: no limit
	calls    [][]string
	called   chan struct{}             // closed by the next call
	fault    func(call []string) fault // what to do in place of a command
	srv      *resp.Server
	served   chan error
}

type stored struct {
	block.Descriptor
	bytes []byte
}

// fault is how a command goes wrong.
type fault int

const (
	none    fault = iota
	refuse        // an error reply: unavailable
	doubt         // an error reply: outcome unknown
	lost          // the command is carried out, and the connection closed without a reply
	hang          // no reply until the connection ends
	hangUp        // the connection is closed without a reply
	corrupt       // a bit of each payload is flipped
)

func newServer(id string) *server {
	return &server{id: id, blocks: map[block.Key]stored{}, log: newNameLog(), called: make(chan struct{})}
}

// start begins to serve on addr; "" is a free port of the loopback.
func (s *server) start(tb testing.TB, network, addr string) *server {
	tb.Helper()
	if err := s.serve(network, addr); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.stop)
	return s
}

func (s *server) serve(network, addr string) error {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	srv, err := resp.NewServer(resp.ServerConfig{NewHandler: func(info resp.ConnInfo) resp.Handler {
		return &session{s: s, conn: info.Conn, namespace: "default"}
	}})
	if err != nil {
		return err
	}
	s.srv, s.served = srv, make(chan error, 1)
	s.addr = l.Addr().String()
	if network == "unix" {
		s.addr = "unix:" + addr
	}
	go func(served chan error) { served <- srv.Serve(context.Background(), l) }(s.served)
	return nil
}

// stop ends the server at once: commands under way are cut off.
func (s *server) stop() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.srv.Shutdown(ctx)
	<-s.served
}

// restart stops the server and starts it again on the same port.
func (s *server) restart(tb testing.TB) {
	tb.Helper()
	s.stop()
	if err := s.serve("tcp", s.addr); err != nil {
		tb.Fatal(err)
	}
}

func (s *server) setFault(f func(call []string) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// on makes a fault of one command.
func (s *server) on(command string, f fault) {
	s.setFault(func(call []string) fault {
		if call[0] == command {
			return f
		}
		return none
	})
}

// count tells how often a command was called.
func (s *server) count(command string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		if c[0] == command {
			n++
		}
	}
	return n
}

// awaitCalls waits until a command was called n times.
func (s *server) awaitCalls(tb testing.TB, command string, n int) {
	tb.Helper()
	deadline := time.After(time.Minute)
	for {
		s.mu.Lock()
		called := s.called
		s.mu.Unlock()
		if s.count(command) >= n {
			return
		}
		select {
		case <-called:
		case <-deadline:
			tb.Fatalf("%s was called %d times, want %d", command, s.count(command), n)
		}
	}
}

// last is the newest call of a command.
func (s *server) last(command string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range slices.Backward(s.calls) {
		if c[0] == command {
			return c
		}
	}
	return nil
}

// session is one connection of a server.
type session struct {
	s         *server
	conn      net.Conn
	namespace string
	nowhere   bool             // the choice of a namespace was refused
	header    wire.BatchHeader // used again for each batch
	found     []stored
	opened    []*fakeSequence // by id - 1; nil: closed
}

func (c *session) Payload(_ [][]byte, _, n int) ([]byte, error) { return make([]byte, n), nil }
func (c *session) Dropped(*resp.Command)                        {}
func (c *session) Close()                                       {}

func (c *session) Do(ctx context.Context, w *resp.Writer, cmd *resp.Command) {
	s := c.s
	if s.quiet && string(cmd.Args[0]) == "CAIRN.MGET" {
		c.mget(w, cmd.Args[2:], false)
		return
	}
	call := make([]string, len(cmd.Args))
	for i, a := range cmd.Args {
		call[i] = string(a[:min(len(a), 64)])
	}
	s.mu.Lock()
	s.calls = append(s.calls, call)
	close(s.called)
	s.called = make(chan struct{})
	f := none
	if s.fault != nil {
		f = s.fault(call)
	}
	s.mu.Unlock()
	if c.nowhere && call[0] != "PING" && call[0] != "RESET" && call[0] != "CAIRN.NAMESPACE" {
		w.Error(wire.CodeNamespace + " refused before")
		return
	}
	if f == none && call[0] == "CAIRN.WATCH" {
		c.watch(ctx, w, call)
		return
	}
	switch f {
	case refuse:
		w.Error(wire.CodeUnavailable + " not now")
	case doubt:
		w.Error(wire.CodeUnknown + " who knows")
	case lost:
		s.mu.Lock()
		defer s.mu.Unlock()
		c.do(w, call, cmd.Args, false)
		c.conn.Close()
	case hang:
		<-ctx.Done()
		w.Status("OK")
	case hangUp:
		c.conn.Close()
		w.Status("OK")
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		c.do(w, call, cmd.Args, f == corrupt)
	}
}

func (c *session) do(w *resp.Writer, call []string, args [][]byte, flip bool) {
	s := c.s
	switch call[0] {
	case "PING", "CAIRN.FLUSH", "CAIRN.DONE":
		w.Status("OK")
	case "CAIRN.NAMESPACE":
		if call[1] != "default" && call[1] != "other" {
			c.nowhere = true
			w.Error(wire.CodeNamespace + " unknown namespace")
			return
		}
		c.namespace, c.nowhere = call[1], false
		w.Status("OK")
	case "CAIRN.STAT":
		w.BulkString(fmt.Sprintf(`{"node":%q}`, s.id))
	case "CAIRN.EXPLAIN":
		w.BulkString(fmt.Sprintf(`{"key":%q}`, call[1]))
	case "CAIRN.ROUTE":
		w.BulkString(fmt.Sprintf(`{"node":%q,"addr":%q,"blocks":2,"cluster_blocks":1,"candidates":[{"node":%q,"addr":%q,"cost_seconds":0.5}]}`,
			s.id, s.addr, s.id, s.addr))
	case "CAIRN.PUT":
		c.put(w, call, args)
	case "CAIRN.MGET":
		c.mget(w, args[2:], flip)
	case "CAIRN.MATCH":
		c.match(w, call, args)
	case "SCAN":
		c.scan(w, call)
	case "RESET":
		c.namespace, c.nowhere = "default", false
		w.Status("RESET")
	default:
		if !c.doDevice(w, call, args) && !c.doNamed(w, call, args) && !c.doSequence(w, call, args) {
			w.Error("ERR unknown command '" + call[0] + "'")
		}
	}
}

func (c *session) put(w *resp.Writer, call []string, args [][]byte) {
	s := c.s
	var parent block.Key
	if call[2] != "-" {
		parent = block.Key(args[2])
	}
	d := block.Describe(block.Key(args[1]), parent, args[4])
	switch have, ok := s.blocks[d.Key]; {
	case ok && have.Sum != d.Sum:
		w.Error(wire.CodeConflict + " other bytes")
		return
	case len(args[4]) > 16<<20:
		w.Error(wire.CodeTooLarge + " too large")
		return
	case ok:
		w.Array(2)
		w.Int(0)
	default:
		s.position++
		s.blocks[d.Key] = stored{d, slices.Clone(args[4])}
		w.Array(2)
		w.Int(1)
	}
	w.BulkString(wire.Token{Node: s.id, Incarnation: 1, Position: s.position}.String())
}

func (c *session) mget(w *resp.Writer, args [][]byte, flip bool) {
	s := c.s
	c.header, c.found = c.header[:0], c.found[:0]
	header, found := &c.header, &c.found
	total := 0
	for _, a := range args {
		b, ok := s.blocks[block.Key(a)]
		switch {
		case s.room > 0 && total >= s.room:
			header.Deferred()
		case !ok:
			header.Absent()
		default:
			header.Found(b.Descriptor)
			*found = append(*found, b)
			total += len(b.bytes)
		}
	}
	w.Array(1 + len(*found))
	w.Bulk(*header)
	for _, b := range *found {
		p := b.bytes
		if flip {
			p = slices.Clone(p)
			p[len(p)/2] ^= 4
		}
		w.BulkRef(p, nil)
	}
}

func (c *session) match(w *resp.Writer, call []string, args [][]byte) {
	prefix := 0
	for _, a := range args[slices.Index(call, "KEYS")+1:] {
		if _, ok := c.s.blocks[block.Key(a)]; !ok {
			break
		}
		prefix++
	}
	w.Array(2)
	w.Int(int64(prefix))
	w.Int(int64(prefix / 2))
}

// scan answers two names a page.
func (c *session) scan(w *resp.Writer, call []string) {
	var all []string
	prefix := strings.TrimSuffix(call[3], "*")
	for _, name := range c.s.log.present() {
		if rest, ok := strings.CutPrefix(name, c.namespace+"\x00"); ok && strings.HasPrefix(rest, prefix) {
			all = append(all, rest)
		}
	}
	slices.Sort(all)
	at, _ := strconv.Atoi(call[1])
	page, next := all[min(at, len(all)):], 0
	if len(page) > 2 {
		page, next = page[:2], at+2
	}
	w.Array(2)
	w.BulkString(strconv.Itoa(next))
	w.Array(len(page))
	for _, name := range page {
		w.BulkString(name)
	}
}
