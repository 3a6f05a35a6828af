package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/client"
	"cairn/wire"
)

// pair is two servers of one cluster, and a client that asks a first.
func pair(t *testing.T, cfg client.Config) (a, b *server, c *client.Client) {
	t.Helper()
	a, b = newServer("a"), newServer("b")
	b.log = a.log
	a.start(t, "tcp", "")
	b.start(t, "tcp", "")
	return a, b, open(t, cfg, a, b)
}

func nodeOf(t *testing.T, c *client.Client, s *server) *client.Node {
	t.Helper()
	n, err := c.Node(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNames(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	other := open(t, client.Config{Namespace: "other"}, s)
	if err := c.PutName(t.Context(), "k", []byte("v"), client.WithTTL(1500*time.Millisecond), client.WithPolicy(client.WriteAll)); err != nil {
		t.Fatal(err)
	}
	if call := s.last("SET"); !slices.Equal(call, []string{"SET", "k", "v", "POLICY", "write-all", "PX", "1500"}) {
		t.Errorf("sent %q", call)
	}
	if err := c.PutName(t.Context(), "k", []byte("w"), client.IfAbsent()); !errors.Is(err, client.ErrExists) {
		t.Errorf("if absent: %v", err)
	}
	if err := other.PutName(t.Context(), "k", []byte("w"), client.IfPresent()); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("if present: %v", err)
	}
	if err := other.PutName(t.Context(), "k", []byte("theirs"), client.IfAbsent()); err != nil {
		t.Errorf("in another namespace: %v", err)
	}
	for _, tc := range []struct {
		c    *client.Client
		want string
	}{{c, "v"}, {other, "theirs"}} {
		got, err := tc.c.GetName(t.Context(), "k", nil)
		if string(got.Value) != tc.want || got.Version == 0 || got.Age != 5*time.Millisecond || err != nil {
			t.Errorf("got %+v, %v, want %q", got, err, tc.want)
		}
	}
	if was, err := other.DeleteName(t.Context(), "k"); !was || err != nil {
		t.Errorf("delete: %v, %v", was, err)
	}
	if was, err := other.DeleteName(t.Context(), "k"); was || err != nil {
		t.Errorf("delete again: %v, %v", was, err)
	}
	if _, err := other.GetName(t.Context(), "k", nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("get a deleted name: %v", err)
	}
	if got, err := c.GetName(t.Context(), "k", nil); string(got.Value) != "v" || err != nil {
		t.Errorf("the other namespace's: %q, %v", got.Value, err)
	}
	if epoch, err := c.Barrier(t.Context()); epoch != 7 || err != nil {
		t.Errorf("barrier: %d, %v", epoch, err)
	}
	if epoch, err := other.Barrier(t.Context()); epoch != 7 || err != nil {
		t.Errorf("barrier where a namespace is configured: %d, %v", epoch, err)
	}
	if _, err := open(t, client.Config{Namespace: "bogus"}, s).Barrier(t.Context()); !errors.Is(err, client.ErrNamespace) {
		t.Errorf("barrier where an unknown namespace is configured: %v", err)
	}
	if err := c.Clear(t.Context(), ""); !errors.Is(err, client.ErrNamespace) || s.count("CAIRN.CLEAR") != 0 {
		t.Errorf("clear of no namespace in particular: %v", err)
	}
	if err := other.Clear(t.Context(), ""); err != nil || s.last("CAIRN.CLEAR")[1] != "other" {
		t.Errorf("clear: %v, %q", err, s.last("CAIRN.CLEAR"))
	}
}

func TestPutNameConditions(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	v1, err := c.CompareAndSet(t.Context(), "k", 0, []byte("1"), client.WithTTL(2*time.Second), client.WithPolicy(client.WriteBack))
	if err != nil || v1 == 0 {
		t.Fatal(v1, err)
	}
	if call := s.last("CAIRN.CAS"); !slices.Equal(call, []string{"CAIRN.CAS", "k", "0", "1", "POLICY", "write-back", "EX", "2"}) {
		t.Errorf("sent %q", call)
	}
	if err := c.PutName(t.Context(), "k", []byte("2"), client.ExpectVersion(v1)); err != nil {
		t.Error(err)
	}
	now, err := c.GetName(t.Context(), "k", nil)
	if err != nil || now.Version <= v1 {
		t.Fatalf("%+v, %v", now, err)
	}
	for _, expect := range []client.Version{0, v1} {
		err := c.PutName(t.Context(), "k", []byte("3"), client.ExpectVersion(expect))
		var conflict *client.ConflictError
		if !errors.Is(err, client.ErrConflict) || !errors.As(err, &conflict) || conflict.Version != now.Version ||
			!strings.Contains(err.Error(), now.Version.String()) {
			t.Errorf("expecting %s: %v, want a conflict with %s", expect, err, now.Version)
		}
	}
	sets := s.count("SET") + s.count("CAIRN.CAS")
	if err := c.PutName(t.Context(), "k", nil, client.IfAbsent(), client.ExpectVersion(v1)); err == nil || errors.Is(err, client.ErrUnavailable) {
		t.Errorf("two conditions: %v", err)
	}
	if s.count("SET")+s.count("CAIRN.CAS") != sets {
		t.Error("two conditions were sent")
	}
}

func TestReadLevels(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	if err := c.PutName(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		opts []client.GetOption
		want []string
	}{
		{nil, nil},
		{[]client.GetOption{client.Strict()}, []string{"STRICT"}},
		{[]client.GetOption{client.Session()}, []string{"SESSION", "1"}},
		{[]client.GetOption{client.Bounded(50 * time.Millisecond)}, []string{"BOUNDED", "50"}},
		{[]client.GetOption{client.Bounded(time.Nanosecond)}, []string{"BOUNDED", "1"}},
		{[]client.GetOption{client.Bounded(-1)}, []string{"BOUNDED", "0"}},
		{[]client.GetOption{client.Local()}, []string{"LOCAL"}},
	} {
		if v, err := c.GetName(t.Context(), "k", nil, tc.opts...); err != nil || string(v.Value) != "v" {
			t.Errorf("%q, %v", v.Value, err)
		}
		if call := s.last("CAIRN.GET"); !slices.Equal(call[2:], tc.want) {
			t.Errorf("sent %q, want %q", call[2:], tc.want)
		}
	}
	if v, err := c.GetName(t.Context(), "k", nil); err != nil || v.Value == nil {
		t.Errorf("%v, %v", v, err)
	}
	if err := c.PutName(t.Context(), "empty", nil); err != nil {
		t.Fatal(err)
	}
	if v, err := c.GetName(t.Context(), "empty", nil); err != nil || v.Value == nil || len(v.Value) != 0 {
		t.Errorf("an empty value is %v, %v", v.Value, err)
	}
}

// What is unavailable at one node is done by another, whatever it is.
func TestNamesFailOver(t *testing.T) {
	a, b, c := pair(t, client.Config{Cooldown: time.Nanosecond})
	a.setFault(func(call []string) fault {
		if call[0] == "PING" || call[0] == "CAIRN.SESSION" {
			return none
		}
		return refuse
	})
	if _, err := c.CompareAndSet(t.Context(), "k", 0, []byte("v")); err != nil {
		t.Errorf("compare and set: %v", err)
	}
	if err := c.PutName(t.Context(), "k", []byte("w")); err != nil {
		t.Errorf("put: %v", err)
	}
	if err := c.PutName(t.Context(), "k", []byte("x"), client.IfAbsent()); !errors.Is(err, client.ErrExists) {
		t.Errorf("put if absent: %v", err)
	}
	if v, err := c.GetName(t.Context(), "k", nil); err != nil || string(v.Value) != "w" {
		t.Errorf("get: %q, %v", v.Value, err)
	}
	if was, err := c.DeleteName(t.Context(), "k"); err != nil || !was {
		t.Errorf("delete: %v", err)
	}
	if _, err := c.Barrier(t.Context()); err != nil {
		t.Errorf("barrier: %v", err)
	}
	for _, command := range []string{"CAIRN.CAS", "SET", "CAIRN.GET", "DEL", "CAIRN.BARRIER"} {
		if a.count(command) == 0 || a.count(command) != b.count(command) {
			t.Errorf("%s: asked %d and %d times", command, a.count(command), b.count(command))
		}
	}
	b.on("CAIRN.GET", refuse)
	if _, err := c.GetName(t.Context(), "k", nil); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("nobody can: %v", err)
	}
}

// A change of which nobody knows whether it was made is not made again.
func TestUnknownOutcome(t *testing.T) {
	for name, change := range map[string]func(context.Context, *client.Client) error{
		"put": func(ctx context.Context, c *client.Client) error { return c.PutName(ctx, "k", []byte("v")) },
		"put if absent": func(ctx context.Context, c *client.Client) error {
			return c.PutName(ctx, "k", nil, client.IfAbsent(), client.Resend())
		},
		"compare and set": func(ctx context.Context, c *client.Client) error {
			_, err := c.CompareAndSet(ctx, "k", 0, nil)
			return err
		},
		"delete": func(ctx context.Context, c *client.Client) error { _, err := c.DeleteName(ctx, "k"); return err },
		"clear":  func(ctx context.Context, c *client.Client) error { return c.Clear(ctx, "other") },
		"update": func(ctx context.Context, c *client.Client) error {
			return c.Update(ctx, "", "k", func([]byte) ([]byte, error) { return nil, nil })
		},
	} {
		for how, f := range map[string]fault{"hang up": hangUp, "lost": lost, "doubt": doubt, "hang": hang} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				a, b, c := pair(t, client.Config{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				changes := map[string]bool{"SET": true, "CAIRN.CAS": true, "DEL": true, "CAIRN.CLEAR": true}
				sent := 0
				strike := func(call []string) fault {
					if !changes[call[0]] {
						return none
					}
					if sent++; f == hang {
						cancel() // a time limit would do the same, but when?
					}
					return f
				}
				a.setFault(strike)
				b.setFault(strike)
				err := change(ctx, c)
				if !errors.Is(err, client.ErrUnknownOutcome) || errors.Is(err, client.ErrUnavailable) {
					t.Errorf("got %v, want ErrUnknownOutcome", err)
				}
				a.mu.Lock()
				defer a.mu.Unlock()
				b.mu.Lock()
				defer b.mu.Unlock()
				if sent != 1 {
					t.Errorf("sent %d times", sent)
				}
			})
		}
	}
}

func TestResend(t *testing.T) {
	a, b, c := pair(t, client.Config{})
	a.setFault(func(call []string) fault {
		if call[0] == "SET" || call[0] == "DEL" {
			return hangUp
		}
		return none
	})
	if err := c.PutName(t.Context(), "k", []byte("v"), client.Resend()); err != nil || b.count("SET") != 1 {
		t.Errorf("put: %v, sent to the other node %d times", err, b.count("SET"))
	}
	if was, err := c.DeleteName(t.Context(), "k", client.Resend()); err != nil || !was {
		t.Errorf("delete: %v, %v", was, err)
	}
}

// A node that cannot be reached has done nothing, so the next may.
func TestNodeThatIsGoneIsNoUnknownOutcome(t *testing.T) {
	a, b, c := pair(t, client.Config{})
	if err := c.PutName(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	a.stop()
	defer a.serve("tcp", a.addr) // for the tests' end
	if err := c.PutName(t.Context(), "k", []byte("w")); err != nil || b.count("SET") != 1 {
		t.Errorf("%v, sent to the other node %d times", err, b.count("SET"))
	}
}

// A Client is one session: what it has seen at one node it tells another.
func TestSessionFollowsTheClient(t *testing.T) {
	a, b, c := pair(t, client.Config{})
	at, bt := nodeOf(t, c, a), nodeOf(t, c, b)
	asked := func() string {
		t.Helper()
		if _, err := bt.GetName(t.Context(), "k", nil, client.Session()); err != nil && !errors.Is(err, client.ErrNotFound) {
			t.Error(err)
		}
		return strings.Join(b.last("CAIRN.GET")[2:], " ")
	}
	if got := asked(); got != "SESSION 0" {
		t.Errorf("a new session: %s", got)
	}
	if err := at.PutName(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if got := asked(); got != "SESSION 1" || c.Session() != 1 {
		t.Errorf("after a put: %s, %d", got, c.Session())
	}
	a.log.set("default\x00other", nil, true) // somebody else
	if _, err := at.GetName(t.Context(), "nothing", nil, client.Local()); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
	if got := asked(); got != "SESSION 2" {
		t.Errorf("after a read of what is not there: %s", got)
	}
	c.Resume(40)
	c.Resume(30)
	if got := asked(); got != "SESSION 40" {
		t.Errorf("resumed: %s", got)
	}
	if n := a.count("CAIRN.SESSION"); n != 2 {
		t.Errorf("asked for the session %d times, want once for each call", n)
	}
	if _, err := bt.GetName(t.Context(), "k", nil); err != nil { // as the namespace is configured
		t.Error(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if calls := b.calls[len(b.calls)-3:]; !slices.EqualFunc(calls, []string{"CAIRN.SESSION 40", "CAIRN.GET k", "CAIRN.SESSION"},
		func(call []string, want string) bool { return strings.Join(call, " ") == want }) {
		t.Errorf("sent %q", calls)
	}
}

// When an answer came, but not the sequence behind it, session reads are strict until
// one has made up for it.
func TestSessionThatMissedASequence(t *testing.T) {
	b := newServer("b").start(t, "tcp", "")
	b.log.set("default\x00k", nil, true)
	c := open(t, client.Config{}, &server{addr: newScripted(t, "+OK\r\n?\r\n")}, b)
	if err := c.PutName(t.Context(), "k", []byte("v")); err != nil {
		t.Fatalf("the put itself was acknowledged: %v", err)
	}
	bt := nodeOf(t, c, b)
	for i, want := range []string{"STRICT", "SESSION"} {
		if _, err := bt.GetName(t.Context(), "k", nil, client.Session()); err != nil || b.last("CAIRN.GET")[2] != want {
			t.Errorf("read %d: %v, sent %q, want %s", i, err, b.last("CAIRN.GET"), want)
		}
	}
}

// A question in a namespace of its own leaves nothing behind on a connection.
func TestNamespaceOfOneCall(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{MaxConnections: 1}, s)
	set := func(text string) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) { return []byte(text), nil }
	}
	if err := c.Update(t.Context(), "other", "k", set("theirs")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetName(t.Context(), "k", nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("in the first namespace: %v", err)
	}
	if err := c.Update(t.Context(), "bogus", "k", set("x")); !errors.Is(err, client.ErrNamespace) {
		t.Errorf("in one that is not: %v", err)
	}
	if err := c.PutName(t.Context(), "k", []byte("ours")); err != nil {
		t.Errorf("after it: %v", err)
	}
	for ns, want := range map[string]string{"default": "ours", "other": "theirs"} {
		if n, _, _ := s.log.get(ns + "\x00k"); string(n.value) != want {
			t.Errorf("%s: %q, want %q", ns, n.value, want)
		}
	}
	if n, _, _ := s.log.get("bogus\x00k"); n.exists {
		t.Error("written to a namespace that is not")
	}
}

func TestUpdateLosesNothing(t *testing.T) {
	_, _, c := pair(t, client.Config{})
	const workers, times = 8, 25
	calls := make([]int, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range times {
				err := c.Update(t.Context(), "", "counter", func(old []byte) ([]byte, error) {
					calls[w]++
					n, _ := strconv.Atoi(string(old))
					clear(old) // it is the function's own
					return strconv.AppendInt(nil, int64(n+1), 10), nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	v, err := c.GetName(t.Context(), "counter", nil)
	if string(v.Value) != fmt.Sprint(workers*times) || err != nil {
		t.Errorf("%s, %v after %d updates", v.Value, err, workers*times)
	}
	t.Logf("called %v times", calls)
}

func TestUpdateEnds(t *testing.T) {
	cfg := client.Config{Cooldown: time.Nanosecond, MaxBackoff: 5 * time.Millisecond}
	a, b, c := pair(t, cfg)
	cfg.Timeout, cfg.Nodes = 100*time.Millisecond, []string{a.addr, b.addr}
	hasty := openHasty(t, cfg)
	mine := errors.New("mine")
	err := c.Update(t.Context(), "", "k", func(old []byte) ([]byte, error) {
		if old != nil {
			t.Errorf("a name that does not exist was %q", old)
		}
		return nil, mine
	})
	if err != mine || a.count("CAIRN.CAS")+b.count("CAIRN.CAS") != 0 {
		t.Errorf("the function's own error: %v", err)
	}
	same := func(old []byte) ([]byte, error) { return old, nil }
	if err := c.PutName(t.Context(), "k", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(t.Context(), "", "k", func(old []byte) ([]byte, error) {
		if old == nil {
			t.Error("an empty value was nil, like none")
		}
		return old, nil
	}); err != nil {
		t.Error(err)
	}
	a.on("CAIRN.CAS", refuse)
	b.on("CAIRN.CAS", refuse)
	for began := time.Now(); ; {
		err = hasty.Update(t.Context(), "", "k", same)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody can, no deadline: %v", err)
		}
		if errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrUnknownOutcome) { // the time may be up in the middle of a try
			break
		}
		if time.Since(began) > time.Minute { // or, on a busy machine, before the first try has come to its end
			t.Fatalf("what the last try said is missing: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tries := 0
	a.setFault(func(call []string) fault {
		if tries++; call[0] != "CAIRN.CAS" || tries > 20 {
			return none
		}
		return refuse
	})
	b.on("CAIRN.CAS", refuse)
	if err := c.Update(ctx, "", "k", same); err != nil {
		t.Errorf("after a while: %v", err)
	}
}

// What a broken node answers to questions about names is an error, and no change that
// it may have made is reported as not made.
func TestNonsenseAboutNames(t *testing.T) {
	for _, answer := range []string{"hello\r\n", "*1\r\n:1\r\n:1\r\n", "*3\r\n:1\r\n+a\r\n", "*3\r\n:1\r\n:1\r\n$-1\r\n:1\r\n", "$99999999999999\r\n", "\x00\x00", ">1\r\n"} {
		addr := newScripted(t, answer)
		c := openHasty(t, client.Config{Nodes: []string{addr}, Timeout: 50 * time.Millisecond, WatchPoll: time.Millisecond})
		if _, err := c.GetName(t.Context(), "k", nil); err == nil {
			t.Errorf("%q: get succeeds", answer)
		}
		if err := c.PutName(t.Context(), "k", nil); !errors.Is(err, client.ErrUnknownOutcome) {
			t.Errorf("%q: put: %v", answer, err)
		}
		if _, err := c.CompareAndSet(t.Context(), "k", 1, nil); !errors.Is(err, client.ErrUnknownOutcome) {
			t.Errorf("%q: compare and set: %v", answer, err)
		}
		if _, err := c.Barrier(t.Context()); err == nil {
			t.Errorf("%q: barrier succeeds", answer)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		for ev, err := range c.Watch(ctx, "", "k") {
			t.Errorf("%q: watch: %v, %v", answer, ev, err)
		}
		cancel()
		c.Close()
	}
}

func TestVersionIsTheWires(t *testing.T) {
	v, err := client.ParseVersion("7.3")
	if err != nil || v != wire.Version(7<<wire.VersionBits|3) {
		t.Errorf("%d, %v", v, err)
	}
}
