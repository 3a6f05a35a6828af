package cluster_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/hostcache"
	"cairn/internal/natstest"
	"cairn/internal/testseed"
	"cairn/node"
	"cairn/router"
	"cairn/wire"
)

// noLog is a coherence log that nobody keeps: names are not served, sealed blocks are.
type noLog struct{}

func (noLog) Publish(*ledger.Message)                            {}
func (noLog) SaveSnapshot(context.Context, uint64, []byte) error { return nil }

type noRouter struct{}

func (noRouter) RouteJSON(context.Context, []byte) ([]byte, error) {
	return nil, errors.New("not here")
}
func (noRouter) Prefilled(string) {}
func (noRouter) Done(string)      {}

const liveBlock = 4 << 10

// liveNode is a real node with a small host tier, whose announcements the view follows.
func liveNode(t *testing.T, conn *cluster.Conn, v *cluster.View, id string, blocks int) (*node.Node, *cluster.Publisher) {
	t.Helper()
	lease := mustJoin(t, conn, cluster.Member{ID: id, Addr: id + ":1"}, cluster.LeaseConfig{TTL: time.Minute})
	pub, err := cluster.NewPublisher(conn, cluster.PublisherConfig{Node: id, Incarnation: lease.Member().Incarnation, Heartbeat: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostcache.Open(hostcache.Config{Capacity: int64(blocks) * liveBlock, Classes: []int{liveBlock}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	cfg := node.Config{ID: id, Incarnation: lease.Member().Incarnation, CloseWait: time.Millisecond}
	n, err := node.New(cfg, node.Tiers{Host: host}, node.Ports{Announcer: pub, Peers: v, Coherence: noLog{}, Router: noRouter{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() }) // it cannot leave a log that nobody keeps
	runPublisher(t, conn, pub, id, n.Holdings)
	return n, pub
}

// A view that bisects and audits every match follows a real node whose tier is far too
// small, with blocks removed from the middle of sequences: it never finds a hole. Then the
// node is made to announce one; it is counted, and repaired from the node's snapshot.
func TestLiveNodeHoldsWholePrefixes(t *testing.T) {
	conn := natstest.Run(t)
	v := openView(t, conn, cluster.ViewConfig{
		GapPatience: time.Millisecond,
		Index:       router.IndexConfig{Mode: router.Bisect, AuditEvery: 1},
	})
	n, pub := liveNode(t, conn, v, "a", 200)
	seed := testseed.Of(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	const length = 30
	var token wire.Token
	var m router.Match
	for range 600 {
		s := byte(1 + rng.IntN(30)) // not 0, or the first key would be zero
		chain := keys(s, 1+rng.IntN(length))
		if rng.IntN(10) == 0 {
			n.Remove(chain[len(chain)/2])
			continue
		}
		parent := block.Key{}
		for i, k := range chain {
			p := make([]byte, 64)
			p[0], p[1] = s, byte(i)
			placed, err := n.Put(t.Context(), k, parent, p, coherency.WriteBack)
			if err != nil {
				t.Fatal(err)
			}
			parent, token = k, placed.Token
			v.Index().Match(chain, &m)
		}
		v.Index().Match(keys(byte(1+rng.IntN(30)), length), &m)
	}
	await(t, v, token)
	for s := range byte(31) {
		v.Index().Match(keys(s, length), &m)
	}
	if st := v.Stats().Index; st.Violations != 0 || st.Audits < 600 {
		t.Errorf("%d violations in %d audits", st.Violations, st.Audits)
	}

	whole := keys(200, 40) // of which a bisection does not look at the tenth
	var parent block.Key
	for _, k := range whole {
		if _, err := n.Put(t.Context(), k, parent, []byte{1}, coherency.WriteBack); err != nil {
			t.Fatal(err)
		}
		parent = k
	}
	pub.Announce([]node.Change{{Key: whole[10], Tier: block.Host}}) // which it holds
	placed, err := n.Put(t.Context(), key(201, 0), block.Key{}, []byte{1}, coherency.WriteBack)
	if err != nil {
		t.Fatal(err)
	}
	await(t, v, placed.Token)
	v.Index().Match(whole, &m)
	if st := v.Stats().Index; m.Blocks != 10 || st.Violations != 1 || st.Retracted != 29 {
		t.Errorf("%d blocks, %d violations, %d blocks retracted", m.Blocks, st.Violations, st.Retracted)
	}
	until(t, "the snapshot is loaded", func() bool {
		v.Index().Match(whole, &m)
		return m.Blocks == len(whole)
	})
	if st := v.Stats().Index; st.Violations != 1 || st.Doubts != 1 {
		t.Errorf("%d violations, %d doubts", st.Violations, st.Doubts)
	}
}
