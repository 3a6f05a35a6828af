package resp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// subscribable is a memory whose command SUB hands the connection's Pusher to the
// test.
func subscribable() (*memory, chan *Pusher) {
	m, pushers := newMemory(), make(chan *Pusher, 1)
	m.do = func(_ context.Context, w *Writer, cmd *Command) bool {
		switch string(cmd.Args[0]) {
		case "SUB":
			pushers <- w.Pusher()
			w.Push(1)
			w.BulkString("subscribed")
		case "BOTH":
			w.Pusher().Push("before")
			w.TakePushed()
			w.Pusher().Push("after")
			w.Status("DONE")
		case "SWITCH":
			w.Pusher().Push("old")
			w.SetRESP3(!w.RESP3())
			w.Pusher().Push("new")
			w.Status("DONE")
		default:
			return false
		}
		return true
	}
	return m, pushers
}

func subscribe(t *testing.T, nc net.Conn, r *bufio.Reader, pushers chan *Pusher, kind string) *Pusher {
	t.Helper()
	exchange(t, nc, r, "SUB\n", kind+"1\r\n$10\r\nsubscribed\r\n", false)
	return <-pushers
}

// A message reaches a connection that waits for a command, in both protocols, and
// commands go on being answered.
func TestPushWhileIdle(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		m, pushers := subscribable()
		s, addr := serve(t, network, ServerConfig{}, m)
		nc, r := dialRaw(t, network, addr)
		p := subscribe(t, nc, r, pushers, "*")
		if !p.Push("event", "a\r\n") {
			t.Fatal("not taken")
		}
		exchange(t, nc, r, "", "*2\r\n$5\r\nevent\r\n$3\r\na\r\n\r\n", false)
		exchange(t, nc, r, "HELLO 3\n", "%2\r\n$6\r\nserver\r\n$4\r\ntest\r\n$5\r\nproto\r\n:3\r\n", false)
		p.Push("event", "b")
		exchange(t, nc, r, "", ">2\r\n$5\r\nevent\r\n$1\r\nb\r\n", false)
		exchange(t, nc, r, "PING\n", "+PONG\r\n", false)
		if n := s.Stats().Pushes; n != 2 {
			t.Errorf("%d pushes, want 2", n)
		}
		nc.Close()
		m.await(t, "closed")
		if p.Push("event") {
			t.Error("taken for a connection that has ended")
		}
	}
}

// Also one that is about to receive the rest of a command.
func TestPushWithinCommandReceived(t *testing.T) {
	m, pushers := subscribable()
	_, addr := serve(t, "unix", ServerConfig{}, m)
	nc, r := dialRaw(t, "unix", addr)
	p := subscribe(t, nc, r, pushers, "*")
	nc.Write([]byte("PING\n" + halfSet))
	exchange(t, nc, r, "", "+PONG\r\n", false)
	p.Push("event")
	exchange(t, nc, r, "", "*1\r\n$5\r\nevent\r\n", false)
	exchange(t, nc, r, strings.Repeat("d", 100000-3)+"\r\n", "+OK\r\n", false)
}

// readFrame reads a reply of the commands below: its first line, and what it holds.
func readFrame(r *bufio.Reader) (string, []string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	n, _ := strconv.Atoi(line[1:])
	var elems []string
	switch line[0] {
	case '$':
		p := make([]byte, n+2)
		if _, err := io.ReadFull(r, p); err != nil {
			return "", nil, err
		}
		return line, []string{string(p[:n])}, nil
	case '*', '>', '%':
		if line[0] == '%' {
			n *= 2
		}
		for range n {
			_, e, err := readFrame(r)
			if err != nil {
				return "", nil, err
			}
			elems = append(elems, e...)
		}
	}
	return line, elems, nil
}

// Several goroutines push while a chain of commands is answered, each reply in
// several writes: no message is inside a reply, lost, doubled or out of order.
func TestPushBetweenReplies(t *testing.T) {
	const publishers, rounds, messages = 3, 200, 500
	m, pushers := subscribable()
	big := pattern(5000)
	m.values["big"], m.values["tiny"] = big, []byte("x")
	_, addr := serve(t, "unix", ServerConfig{FlushBytes: 1, SocketBuffer: -1}, m)
	nc, r := dialRaw(t, "unix", addr)
	exchange(t, nc, r, "HELLO 3\n", "%2\r\n$6\r\nserver\r\n$4\r\ntest\r\n$5\r\nproto\r\n:3\r\n", false)
	p := subscribe(t, nc, r, pushers, ">")
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range publishers {
		wg.Go(func() {
			for n := range messages {
				if !p.Push("event", strconv.Itoa(i), strconv.Itoa(n)) {
					t.Error("not taken")
				}
			}
		})
	}
	wg.Go(func() {
		for range rounds {
			fmt.Fprint(nc, "MGET big tiny big\nPING\n")
		}
	})
	var next [publishers]int
	for replies, pushed := 0, 0; replies < 2*rounds || pushed < publishers*messages; {
		line, elems, err := readFrame(r)
		switch {
		case err != nil:
			t.Fatal(err)
		case line == ">3":
			i, _ := strconv.Atoi(elems[1])
			if want := strconv.Itoa(next[i]); elems[0] != "event" || elems[2] != want {
				t.Fatalf("message %q, want number %s", elems, want)
			}
			next[i]++
			pushed++
		case line == "*3" && replies%2 == 0:
			if elems[0] != string(big) || elems[1] != "x" || elems[2] != string(big) {
				t.Fatal("a reply is mixed up")
			}
			replies++
		case line == "+PONG" && replies%2 == 1:
			replies++
		default:
			t.Fatalf("%q after %d replies", line, replies)
		}
	}
}

// Every message before the reply to HELLO has the old form, every later one the new.
func TestPushAcrossHello(t *testing.T) {
	m, pushers := subscribable()
	_, addr := serve(t, "unix", ServerConfig{}, m)
	nc, r := dialRaw(t, "unix", addr)
	p := subscribe(t, nc, r, pushers, "*")
	exchange(t, nc, r, "SWITCH\n", "*1\r\n$3\r\nold\r\n+DONE\r\n>1\r\n$3\r\nnew\r\n", false)
	exchange(t, nc, r, "SWITCH\n", ">1\r\n$3\r\nold\r\n+DONE\r\n*1\r\n$3\r\nnew\r\n", false)
	ctx, cancel := context.WithCancel(t.Context())
	ahead := make(chan struct{}, 1000) // what is not read yet: far less than MaxPushBytes
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case ahead <- struct{}{}:
			case <-ctx.Done():
				return
			}
			if !p.Push("event") {
				t.Error("not taken")
				return
			}
		}
	})
	defer wg.Wait()
	defer cancel()
	go func() {
		for i := range 100 {
			fmt.Fprintf(nc, "HELLO %d\n", 3-i%2)
		}
		fmt.Fprint(nc, "PING\n")
	}()
	want := "*1"
	for done := false; !done; {
		line, elems, err := readFrame(r)
		switch {
		case err != nil:
			t.Fatal(err)
		case line == "%2":
			want = ">1"
		case line == "*4":
			want = "*1"
		case line == "+PONG":
			done = true
		case line != want || elems[0] != "event":
			t.Fatalf("message %q %q, want %q", line, elems, want)
		default:
			<-ahead
		}
	}
}

// What is pushed during a command comes after its reply, and what was pushed
// before TakePushed comes before it.
func TestTakePushed(t *testing.T) {
	m, pushers := subscribable()
	_, addr := serve(t, "unix", ServerConfig{}, m)
	nc, r := dialRaw(t, "unix", addr)
	subscribe(t, nc, r, pushers, "*")
	exchange(t, nc, r, "BOTH\n", "*1\r\n$6\r\nbefore\r\n+DONE\r\n*1\r\n$5\r\nafter\r\n", false)
	exchange(t, nc, r, "PING\n", "+PONG\r\n", false)
}

// A subscriber that does not read is disconnected; nobody waits for it.
func TestSlowSubscriber(t *testing.T) {
	m, pushers := subscribable()
	s, addr := serve(t, "unix", ServerConfig{MaxPushBytes: 10_000, SocketBuffer: -1}, m)
	nc, r := dialRaw(t, "unix", addr)
	p := subscribe(t, nc, r, pushers, "*")
	text := strings.Repeat("x", 1000)
	start := time.Now()
	pushed := 0
	for p.Push("event", text) { // ends because the socket's buffers do
		pushed++
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the publisher was held up for %v", d)
	}
	if pushed < 9 {
		t.Errorf("%d messages of 1000 bytes taken, 10,000 bytes may wait", pushed)
	}
	m.await(t, "closed")
	waitStats(t, s, func(st Stats) bool { return st.Open == 0 })
	if st := s.Stats(); st.SlowSubscribers != 1 || st.Timeouts != 0 || st.Pushes != uint64(pushed) {
		t.Errorf("%+v", st)
	}
	if _, err := io.Copy(io.Discard, r); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Logf("the client sees %v", err)
	}
}

// What waits is counted until the peer's socket has it, so a subscriber that
// keeps up is never too slow, however much is pushed in all.
func TestFastSubscriber(t *testing.T) {
	m, pushers := subscribable()
	s, addr := serve(t, "unix", ServerConfig{MaxPushBytes: 2000}, m)
	nc, r := dialRaw(t, "unix", addr)
	p := subscribe(t, nc, r, pushers, "*")
	text := strings.Repeat("x", 1000)
	for range 1000 {
		if !p.Push(text) {
			t.Fatal("not taken")
		}
		if _, elems, err := readFrame(r); err != nil || elems[0] != text {
			t.Fatal(err)
		}
		exchange(t, nc, r, "PING\n", "+PONG\r\n", false) // the write has been accounted for
	}
	if n := s.Stats().SlowSubscribers; n != 0 {
		t.Errorf("%d slow subscribers", n)
	}
}

// The flusher's write ends by WriteTimeout, and the connection with it.
func TestPushWriteTimeout(t *testing.T) {
	m, pushers := subscribable()
	s, addr := serve(t, "unix", ServerConfig{SocketBuffer: -1}, m)
	nc, r := dialRaw(t, "unix", addr)
	p := subscribe(t, nc, r, pushers, "*")
	p.turn.Lock()
	p.w.timeout = time.Millisecond // not before: a busy machine may need longer for the reply
	p.turn.Unlock()
	text := strings.Repeat("x", 150<<10)
	for range 4 { // more than the socket takes, less than MaxPushBytes
		p.Push(text)
	}
	m.await(t, "closed")
	waitStats(t, s, func(st Stats) bool { return st.Open == 0 })
	if st := s.Stats(); st.Timeouts != 1 || st.SlowSubscribers != 0 {
		t.Errorf("%+v", st)
	}
}

// waitStats waits for what a connection counts after its handler has been closed.
func waitStats(t *testing.T, s *Server, ok func(Stats) bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(s.Stats()); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%+v", s.Stats())
		}
	}
}

// However the connection ends, its flusher does too.
func TestPusherEnds(t *testing.T) {
	for _, end := range []string{"QUIT\n", "PANIC\n", "*1\r\n$x\r\n", ""} {
		m, pushers := subscribable()
		s, addr := serve(t, "unix", ServerConfig{Linger: time.Millisecond}, m)
		nc, r := dialRaw(t, "unix", addr)
		p := subscribe(t, nc, r, pushers, "*")
		if end == "" {
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
		nc.Write([]byte(end))
		m.await(t, "closed")
		<-p.ended
	}
}

// IdleTimeout is not for subscribers.
func TestPusherIdleTimeout(t *testing.T) {
	m, pushers := subscribable()
	const idle = 300 * time.Millisecond
	_, addr := serve(t, "tcp", ServerConfig{IdleTimeout: idle}, m)
	var nc net.Conn
	var r *bufio.Reader
	for subscribed := false; !subscribed; { // a busy machine may need longer for that than idle
		nc, r = dialRaw(t, "tcp", addr)
		_, err := fmt.Fprint(nc, "SUB\n")
		if err == nil {
			_, _, err = readFrame(r)
		}
		subscribed = err == nil
	}
	p := <-pushers
	time.Sleep(idle + 50*time.Millisecond) // what is measured: silence is allowed
	p.Push("event")
	exchange(t, nc, r, "", "*1\r\n$5\r\nevent\r\n", false)
	exchange(t, nc, r, "PING\n", "+PONG\r\n", false)
}
