package node

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/resp"

	"github.com/google/go-cmp/cmp"
)

func TestNameEvents(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	one, two := block.Key{1}, block.Key{2}
	for _, tc := range []struct {
		what          string
		before, after nameState
		want          []string
	}{
		{"new", nameState{}, nameState{one, 0}, []string{"set"}},
		{"new with an end", nameState{}, nameState{one, 2_000_000}, []string{"set", "expire"}},
		{"after a deletion", nameState{expires: 500_000}, nameState{one, 0}, []string{"set"}},
		{"overwritten", nameState{one, 0}, nameState{two, 0}, []string{"set"}},
		{"overwritten, end lost", nameState{one, 2_000_000}, nameState{two, 0}, []string{"set"}},
		{"overwritten, end kept", nameState{one, 2_000_000}, nameState{two, 2_000_000}, []string{"set"}},
		{"overwritten, end moved", nameState{one, 2_000_000}, nameState{two, 3_000_000}, []string{"set", "expire"}},
		{"end set", nameState{one, 0}, nameState{one, 2_000_000}, []string{"expire"}},
		{"end moved", nameState{one, 2_000_000}, nameState{one, 3_000_000}, []string{"expire"}},
		{"end removed", nameState{one, 2_000_000}, nameState{one, 0}, []string{"persist"}},
		{"nothing", nameState{one, 0}, nameState{one, 0}, nil},
		{"nothing, with an end", nameState{one, 2_000_000}, nameState{one, 2_000_000}, nil},
		{"deleted", nameState{one, 0}, nameState{expires: 1_000_000}, []string{"del"}},
		{"deleted before its end", nameState{one, 2_000_000}, nameState{expires: 1_000_000}, []string{"del"}},
		{"deleted again", nameState{expires: 500_000}, nameState{expires: 1_000_000}, nil},
		{"deleted, never there", nameState{}, nameState{expires: 1_000_000}, nil},
		{"swept", nameState{one, 999_000}, nameState{expires: 1_000_000}, []string{"expired"}},
		{"new before the sweep", nameState{one, 999_000}, nameState{two, 0}, []string{"expired", "set"}},
	} {
		if d := cmp.Diff(tc.want, nameEvents(tc.before, tc.after, now)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.what, d)
		}
	}
}

// joinSpaces is a node with several namespaces.
func joinSpaces(t *testing.T, names ...string) (*Node, string) {
	return newMemCluster().join(t, "n1", testTiers{host: 16 << 20}.open(t), func(c *Config) {
		for _, name := range names {
			c.Namespaces = append(c.Namespaces, Namespace{Name: name})
		}
	})
}

// expect compares the next replies with what is wanted, as fmt prints them.
func (c *rawConn) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := fmt.Sprint(c.reply(t)); got != w {
			t.Fatalf("got %s, want %s", got, w)
		}
	}
}

// What each event is called, by channel, by pattern and under the first
// namespace's number.
func TestPublishEvent(t *testing.T) {
	n, addr := joinSpaces(t, "first", "second")
	c := dialRaw(t, addr)
	c.send("HELLO", "3")
	c.reply(t)
	c.send("SUBSCRIBE", "__keyspace@0__:k", "__keyspace@first__:k", "__keyevent@second__:lost", "__keyevent@0__:evicted")
	c.send("PSUBSCRIBE", "__key*@*__:*", "__keyevent@0__:*")
	for range 6 {
		c.reply(t)
	}
	n.publishEvent("first", []byte("other"), eventExpired)
	c.expect(t, "[>4 $pmessage $__key*@*__:* $__keyspace@first__:other $expired]")
	got := map[string]int{fmt.Sprint(c.reply(t)): 1, fmt.Sprint(c.reply(t)): 1} // of two patterns, in any order
	if d := cmp.Diff(map[string]int{
		"[>4 $pmessage $__key*@*__:* $__keyevent@first__:expired $other]": 1,
		"[>4 $pmessage $__keyevent@0__:* $__keyevent@0__:expired $other]": 1,
	}, got); d != "" {
		t.Error(d)
	}
	c.send("PUNSUBSCRIBE")
	c.reply(t)
	c.reply(t)
	n.publishEvent("first", []byte("k"), eventEvicted)
	c.expect(t,
		"[>3 $message $__keyspace@first__:k $evicted]",
		"[>3 $message $__keyspace@0__:k $evicted]",
		"[>3 $message $__keyevent@0__:evicted $k]")
	n.publishEvent("second", []byte("k"), eventEvicted)
	n.publishEvent("second", []byte("\x00\r\n"), eventLost)
	c.expect(t, "[>3 $message $__keyevent@second__:lost $\x00\r\n]")
}

// A namespace that is itself called 0 is not mistaken for the first.
func TestNamespaceZero(t *testing.T) {
	n, addr := joinSpaces(t, "first", "0")
	c := dialRaw(t, addr)
	c.send("SUBSCRIBE", "__keyevent@0__:set")
	c.reply(t)
	n.publishEvent("first", []byte("a"), eventSet)
	n.publishEvent("0", []byte("b"), eventSet)
	c.expect(t, "[*3 $message $__keyevent@0__:set $b]")
}

// Every node tells of every change, once, in the order of the log. (Of write-back writes
// the others learn what is flushed.)
func TestEventsAtEveryNode(t *testing.T) {
	cluster := newMemCluster()
	var conns []*rawConn
	var addrs []string
	for _, id := range []string{"n1", "n2"} {
		_, addr := cluster.join(t, id, testTiers{host: 16 << 20}.open(t), func(c *Config) {
			c.Namespaces = []Namespace{{Name: "default", Policy: coherency.WriteThrough}}
		})
		c := dialRaw(t, addr)
		c.send("PSUBSCRIBE", "__keyspace@0__:*")
		c.reply(t)
		conns, addrs = append(conns, c), append(addrs, addr)
	}
	w := dialRaw(t, addrs[0])
	var want []string
	event := func(name, what string) {
		want = append(want, fmt.Sprintf("[*4 $pmessage $__keyspace@0__:* $__keyspace@0__:%s $%s]", name, what))
	}
	for i := range 50 {
		name := fmt.Sprint("k", i%3)
		for _, step := range []struct {
			args   []string
			events []string
		}{
			{[]string{"SET", name, "v"}, []string{"set"}},
			{[]string{"SET", name, "w", "EX", "100"}, []string{"set", "expire"}},
			{[]string{"PERSIST", name}, []string{"persist"}},
			{[]string{"DEL", name}, []string{"del"}},
			{[]string{"DEL", name}, nil},
		} {
			w.send(step.args...)
			w.reply(t)
			for _, e := range step.events {
				event(name, e)
			}
		}
	}
	for _, c := range conns {
		c.expect(t, want...)
		c.send("PING")
		c.expect(t, "[*2 $pong $]") // and nothing more
	}
}

// A connection that ends leaves nothing behind, whatever it had subscribed to.
func TestSubscriptionsEnd(t *testing.T) {
	n, addr := joinSpaces(t, "first")
	sub := dialRaw(t, addr)
	sub.send("SUBSCRIBE", "a", "b", "a")
	sub.send("PSUBSCRIBE", "a*", "a*")
	for range 5 {
		sub.reply(t)
	}
	if got := n.pubsub.count.Load(); got != 3 {
		t.Errorf("%d subscriptions, want 3", got)
	}
	sub.send("QUIT")
	sub.reply(t)
	if _, err := sub.r.ReadByte(); err == nil {
		t.Error("the connection is open")
	}
	// The handler is closed after the connection.
	until(t, "the end of the handler", func() bool { return n.pubsub.count.Load() == 0 })
	n.pubsub.mu.RLock()
	defer n.pubsub.mu.RUnlock()
	if count := n.pubsub.count.Load(); count != 0 || len(n.pubsub.by[byChannel]) != 0 || len(n.pubsub.by[byPattern]) != 0 {
		t.Errorf("%d subscriptions are left: %v", count, n.pubsub.by)
	}
}

// BenchmarkPublishEvent is the cost of an event to its publisher.
func BenchmarkPublishEvent(b *testing.B) {
	name := []byte("user:17:cache")
	for _, patterns := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("%dpatterns", patterns), func(b *testing.B) {
			n := &Node{pubsub: newPubsub([]Namespace{{Name: "default"}})}
			pusher := benchPusher(b)
			s := &subscriber{push: pusher}
			for i := range patterns {
				n.pubsub.add(byPattern, fmt.Sprintf("__keyspace@0__:other:%d:*", i), s)
			}
			b.ReportAllocs()
			for b.Loop() {
				n.publishEvent("default", name, eventSet)
			}
		})
	}
}

// benchPusher is a connection's pusher.
func benchPusher(b *testing.B) *resp.Pusher {
	pushers := make(chan *resp.Pusher, 1)
	server, err := resp.NewServer(resp.ServerConfig{NewHandler: func(resp.ConnInfo) resp.Handler { return pushOnly(pushers) }})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- server.Serve(ctx, l) }()
	b.Cleanup(func() { cancel(); <-ended })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	fmt.Fprint(c, "PUSHER\n")
	return <-pushers
}

// pushOnly hands out its connection's pusher.
type pushOnly chan *resp.Pusher

func (p pushOnly) Payload([][]byte, int, int) ([]byte, error)            { return nil, nil }
func (p pushOnly) Do(_ context.Context, w *resp.Writer, _ *resp.Command) { p <- w.Pusher() }
func (p pushOnly) Dropped(*resp.Command)                                 {}
func (p pushOnly) Close()                                                {}
