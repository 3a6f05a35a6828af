package node

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/diskstore"
)

// The names of which a drained node is the only home get another one, those that are written
// meanwhile too, and others make it a home no more; then its death loses nothing.
func TestDrainMovesTheOnlyHomesOfNames(t *testing.T) {
	for name, tiers := range map[string]testTiers{"disk": {host: 8 << 20, disk: 64 << 20}, "no disk": {host: 16 << 20}} {
		t.Run(name, func(t *testing.T) {
			c := newMemCluster()
			n1, _ := c.join(t, "n1", tiers.open(t), quickLooks)
			n2, _ := c.join(t, "n2", tiers.open(t), slowRehome)
			n3, _ := c.join(t, "n3", tiers.open(t), slowRehome)
			through := NameOptions{Policy: coherency.WriteThrough}
			set := func(from, to int) {
				for i := from; i < to; i++ {
					if _, err := setName(t.Context(), []*Node{n1, n2, n3}[i%3], fmt.Sprint("name", i), fmt.Sprint("value", i), through); err != nil {
						t.Fatal(err)
					}
				}
			}
			set(0, 60)
			drain(t, n1, DrainOptions{})
			set(60, 90)
			s := awaitHandover(t, n1, "all names have a home that stays", func(s HandoverStatus) bool { return s.Safe && s.Names > 0 })
			awaitHandover(t, n1, "the others know that it drains", func(HandoverStatus) bool {
				return len(*n2.coherence.leavers.members.Load()) == 1 && len(*n3.coherence.leavers.members.Load()) == 1
			})
			before := n1.coherence.counters.arrived.Load()
			set(90, 120)
			if now := n1.coherence.counters.arrived.Load(); now != before {
				t.Errorf("it was made a home of %d names although it drains", now-before)
			}
			awaitHandover(t, n1, "nothing is left", safe)
			if s.LeftNames != 0 || n1.coherence.soleHomes() != 0 {
				t.Errorf("%+v, sole home of %d names", s, n1.coherence.soleHomes())
			}
			if err := n1.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.crash("n1")
			for i := range 120 {
				wantName(t, n2, fmt.Sprint("name", i), fmt.Sprint("value", i))
				wantName(t, n3, fmt.Sprint("name", i), fmt.Sprint("value", i))
			}
		})
	}
}

// slowRehome keeps the ordinary search for homes, after a death, out of a test.
func slowRehome(c *Config) {
	quickLooks(c)
	c.RehomeAfter = time.Hour
}

func TestDrainOfTheOnlyHomeWithNobodyToTakeOver(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20, disk: 64 << 20}.open(t), quickLooks)
	if _, err := setName(t.Context(), n1, "name", "value", NameOptions{Policy: coherency.WriteThrough}); err != nil {
		t.Fatal(err)
	}
	drain(t, n1, DrainOptions{})
	s := awaitHandover(t, n1, "it has looked", waiting)
	if s.Safe || s.LeftNames != 1 || s.Trouble != "there is no other node" {
		t.Errorf("%+v", s)
	}
	n1.Undrain()
	drain(t, n1, DrainOptions{})
	c.join(t, "n2", testTiers{host: 8 << 20, disk: 64 << 20}.open(t), nil)
	awaitHandover(t, n1, "the other is the home now", safe)
}

// Names that get another home are counted however long the look at the members takes: the
// node seeks homes as soon as it drains, and not before it has counted.
func TestDrainCountsNamesWhileAMemberIsSilent(t *testing.T) {
	c := newMemCluster()
	often := func(c *Config) {
		quickLooks(c)
		c.FetchTimeout = 100 * time.Millisecond // twice that is waited for a member's room
	}
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20, disk: 64 << 20}.open(t), often)
	for i := range 20 {
		if _, err := setName(t.Context(), n1, fmt.Sprint("name", i), "value", NameOptions{Policy: coherency.WriteThrough}); err != nil {
			t.Fatal(err)
		}
	}
	c.join(t, "n2", testTiers{host: 8 << 20, disk: 64 << 20}.open(t), nil)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes no connection
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c.mu.Lock()
	c.nodes["silent"] = &member{node: new(Node), addr: silent.Addr().String()}
	c.mu.Unlock()
	drain(t, n1, DrainOptions{})
	if s := awaitHandover(t, n1, "all names have a home that stays", safe); s.Names != 20 {
		t.Errorf("%d names were counted, of 20", s.Names)
	}
}

// A look does not call names left while a slow disk takes them in.
func TestDrainWaitsForASlowHome(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 8 << 20, disk: 64 << 20}
	n1, _ := c.join(t, "n1", tiers.open(t), func(c *Config) { quickLooks(c); c.NameWait = time.Minute })
	if _, err := setName(t.Context(), n1, "name", "value", NameOptions{Policy: coherency.WriteThrough}); err != nil {
		t.Fatal(err)
	}
	gate, joined := make(chan struct{}), make(chan struct{})
	slow := tiers.open(t)
	slow.Disk = watchedDisk{slow.Disk.(*diskstore.Store), func(block.Key) {}, func() { <-gate }, joined}
	n2, _ := c.join(t, "n2", slow, nil)
	<-joined
	drain(t, n1, DrainOptions{})
	for begin := time.Now(); time.Since(begin) < rehomePatience+rehomePoll; time.Sleep(rehomePoll) {
		if s := n1.Handover(); waiting(s) || s.Safe {
			t.Errorf("the copy is on its way: %+v", s)
			break
		}
	}
	close(gate)
	if s := awaitHandover(t, n1, "the name has another home", safe); s.Names != 1 {
		t.Errorf("%+v", s)
	}
	wantName(t, n2, "name", "value")
}

// A node that others still make a home is not called safe before it knows of what name the object
// is that came: neither right after it came, nor by a look that found it here.
func TestDrainIsNotSafeBeforeItHearsOfAName(t *testing.T) {
	c := newMemCluster()
	tiers := testTiers{host: 8 << 20, disk: 64 << 20}
	n1, _ := c.join(t, "n1", tiers.open(t), quickLooks)
	n2, _ := c.join(t, "n2", tiers.open(t), func(c *Config) { c.HandoverEvery = time.Hour }) // does not see that n1 drains
	drain(t, n1, DrainOptions{})
	awaitHandover(t, n1, "a node without names may go", safe)
	reader := c.nodes["n1"].reader
	reader.hold()
	release := sync.OnceFunc(reader.release)
	defer release()
	name := ""
	for i := 0; n1.coherence.counters.arrived.Load() == 0; i++ {
		name = fmt.Sprint("name", i)
		if _, err := setName(t.Context(), n2, name, "value", NameOptions{Policy: coherency.WriteThrough}); err != nil {
			t.Fatal(err)
		}
	}
	if s := n1.Handover(); s.Safe {
		t.Errorf("safe right after %s has come: %+v", name, s)
	}
	s := awaitHandover(t, n1, "it has looked since", func(s HandoverStatus) bool {
		h := &n1.handover
		h.mu.Lock()
		defer h.mu.Unlock()
		return waiting(s) && h.gained == n1.gained()
	})
	if s.Safe || s.Left() {
		t.Errorf("it cannot know of %s: %+v", name, s)
	}
	release()
	awaitHandover(t, n1, "the name has another home", safe)
	if err := n1.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.crash("n1")
	wantName(t, n2, name, "value")
}

// A node that takes requests again becomes a home again at once.
func TestUndrainHoldsAtOnce(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20, disk: 64 << 20}.open(t), func(c *Config) { c.HandoverEvery = time.Hour })
	for range 3 {
		drain(t, n1, DrainOptions{})
		awaitHandover(t, n1, "it has looked", waiting)
		if !n1.coherence.leavers.has("n1") {
			t.Error("it drains, and its names are not told")
		}
		n1.Undrain()
		if n1.coherence.leavers.has("n1") {
			t.Error("it drains no more, and its names are not told")
		}
	}
}
