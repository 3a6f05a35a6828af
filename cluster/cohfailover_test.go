package cluster_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"cairn/cluster"
	"cairn/coherency/ledger"
	"cairn/internal/natstest"
)

// chatter is a writer with three messages on their way, as a node: what was overtaken it
// sends again under another number.
type chatter struct {
	*reader
	node string

	mu      sync.Mutex
	payload int         // the newest
	ending  bool        // no new ones
	again   []int       // payloads that were overtaken
	flights map[int]int // number → payload
	number  int
	landed  map[int]int // payload → how often it counted
}

func newChatter(r *reader, node string) *chatter {
	c := &chatter{reader: r, node: node, flights: map[int]int{}, landed: map[int]int{}}
	r.hook = c.delivered
	return c
}

func (c *chatter) delivered(_ uint64, m *ledger.Message) {
	if m.Node != c.node {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.flights[int(m.Number)]; ok {
		c.landed[p]++
	}
	for n, p := range c.flights {
		if n < int(m.Number) {
			c.again = append(c.again, p)
		}
		if n <= int(m.Number) {
			delete(c.flights, n)
		}
	}
	c.sendLocked()
}

func (c *chatter) sendLocked() {
	for len(c.flights) < 3 {
		switch {
		case len(c.again) > 0:
			c.flights[c.number+1], c.again = c.again[0], c.again[1:]
		case !c.ending:
			c.payload++
			c.flights[c.number+1] = c.payload
		default:
			return
		}
		c.number++
		c.say(c.node, uint64(c.number))
	}
}

// begin sends the first messages, or with end no new ones from here on.
func (c *chatter) begin(end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = end
	c.sendLocked()
}

func (c *chatter) done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.landed) == c.payload
}

func (c *chatter) landedMore(than int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.landed) > than
}

// TestCoherenceFailover: nodes publish while the stream changes its leader and a server
// stops: everything counts exactly once, at every node.
func TestCoherenceFailover(t *testing.T) {
	c := natstest.RunCluster(t, 3)
	cfg := cluster.CoherenceConfig{AckTimeout: 300 * time.Millisecond}
	var nodes []*chatter
	for i := range 3 {
		n := newChatter(newReader(t, c.Connect(i), cfg), fmt.Sprint("n", i))
		nodes = append(nodes, n)
		n.run().ready()
		n.begin(false)
	}
	conn := c.Connect(0)
	faults := []func(){
		func() { stepDown(t, conn) },
		func() { stepDown(t, conn) },
		func() { c.Stop(2) },
		func() { c.Start(2) },
		func() { stepDown(t, conn) },
	}
	for _, fault := range faults {
		fault()
		for _, n := range nodes { // the cluster works again
			n.mu.Lock()
			before := len(n.landed)
			n.mu.Unlock()
			n.until("more payloads", func() bool { return n.landedMore(before + 10) })
		}
	}
	for _, n := range nodes {
		n.begin(true)
		n.until("all payloads", n.done)
	}
	last := coherenceStream(t, conn).CachedInfo().State.LastSeq
	for _, n := range nodes {
		n.reach(last)
		n.same(nodes[0].reader)
		for p, times := range n.landed {
			if times != 1 {
				t.Errorf("%s: payload %d counted %d times", n.node, p, times)
			}
		}
		t.Logf("%s: %d payloads in %d numbers, %d stale; %+v", n.node, n.payload, n.number, n.stale, n.log.Stats())
	}
}

// stepDown makes the stream elect another leader.
func stepDown(t *testing.T, conn *cluster.Conn) {
	t.Helper()
	err := conn.Retry(ctxFor(t, patience), 2*time.Second, func(ctx context.Context) error {
		_, err := conn.NC.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+cluster.CoherenceStream(0), nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
