package node

import (
	"fmt"
	"testing"
	"time"

	"cairn/coherency"
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
				return len(*n2.coherence.draining.Load()) == 1 && len(*n3.coherence.draining.Load()) == 1
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
