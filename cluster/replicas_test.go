package cluster_test

import (
	"testing"

	"cairn/block"
	"cairn/cluster"
	"cairn/internal/natstest"
)

func TestThreeReplicas(t *testing.T) {
	c := natstest.RunCluster(t, 3)
	t.Run("placement", func(t *testing.T) { placementAtThreeReplicas(t, c) })
}

// placementAtThreeReplicas: what a node announces while a server stops reaches
// everyone, and in the right order.
func placementAtThreeReplicas(t *testing.T, c *natstest.Cluster) {
	conns := []*cluster.Conn{c.Connect(0), c.Connect(1), c.Connect(2)}
	lease := mustJoin(t, conns[2], cluster.Member{ID: "a", Addr: "a:1"}, cluster.LeaseConfig{})
	h := runHolder(t, conns[2], lease, cluster.PublisherConfig{BatchChanges: 4}, keys(1, 20)...)
	early := openView(t, conns[0], cluster.ViewConfig{})
	await(t, early, h.token())
	stopped := make(chan struct{})
	go func() { // the server that the node is connected to
		defer close(stopped)
		c.Stop(2)
	}()
	for i := range 2000 {
		h.change(i%3 != 0, block.Host, key(1, i%40))
		if i%100 == 0 {
			conns[0].NC.Flush() // spreads the changes over the time that the stop takes
		}
	}
	<-stopped
	await(t, early, h.token())
	late := openView(t, conns[1], cluster.ViewConfig{})
	await(t, late, h.token())
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, k := range keys(1, 40) {
		for name, v := range map[string]*cluster.View{"early": early, "late": late} {
			var got block.TierMask
			for _, holder := range v.Locate([]block.Key{k})[0] {
				got = holder.Tiers
			}
			if got != h.held[k] {
				t.Errorf("%s view: block %d is in %v, want %v", name, i, got, h.held[k])
			}
		}
	}
	t.Logf("publisher %+v; late view repaired %d", h.pub.Stats(), late.Stats().Repairs)
	c.Start(2)
}
