package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/cluster"
	"cairn/internal/replay"
	"cairn/internal/testseed"
	"cairn/router"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// caughtUp is when a router that has just started must answer like one that has
// been there all the time, on a busy machine. How long it took is logged.
const caughtUp = 20 * time.Second

// prompts are sequences of blocks of which the nodes hold different prefixes.
type prompts struct {
	keys   [][]block.Key
	blocks int // in all
}

const (
	promptBlocks = 12
	promptBytes  = 4 << 10
)

// putPrompts makes prompts whose prefixes overlap, and puts a prefix of each at
// one or two nodes.
func putPrompts(s *system, count int) prompts {
	s.t.Helper()
	rng := rand.New(rand.NewPCG(uint64(count), testseed.Of(s.t)))
	seed := rng.Uint64()
	var nodes []*client.Node
	for _, n := range s.nodes {
		nodes = append(nodes, s.dial(n, client.Config{}))
	}
	var p prompts
	buf := make([]byte, promptBytes)
	for i := range count {
		keys := make([]block.Key, promptBlocks)
		shared := rng.IntN(promptBlocks) // blocks from the prompt before
		for j := range keys {
			if i > 0 && j < shared {
				keys[j] = p.keys[i-1][j]
				continue
			}
			keys[j] = benchKey(seed+uint64(i), j)
		}
		p.keys = append(p.keys, keys)
		for range 1 + rng.IntN(2) {
			at, parent := nodes[rng.IntN(len(nodes))], block.Key{}
			for _, k := range keys[:1+rng.IntN(promptBlocks)] {
				replay.Fill(buf, k)
				if _, err := at.Put(s.t.Context(), k, parent, buf); err != nil {
					s.t.Fatal(err)
				}
				parent = k
				p.blocks++
			}
		}
	}
	return p
}

// held are the blocks by tier that a router believes a node to hold.
type held struct {
	Node   string
	Blocks router.TierBlocks
}

// picture is everything that a router says of some prompts and of the nodes, but
// for the queues, which each router keeps for itself.
type picture struct {
	Nodes     []held
	Decisions []cluster.RouteAnswer
}

// look asks for every prompt, for a part of it, and for each node alone.
func (r *server) look(p prompts) (picture, error) {
	ctx := r.t.Context()
	var pic picture
	var st cluster.RouterStatus
	if err := getJSON(ctx, "http://"+r.addr+"/v1/status", &st); err != nil {
		return pic, err
	}
	if !st.View.Ready || st.View.Behind > 0 {
		return pic, fmt.Errorf("not ready: %+v", st.View)
	}
	for _, n := range st.Nodes {
		pic.Nodes = append(pic.Nodes, held{n.ID, n.Blocks})
	}
	for i, keys := range p.keys {
		requests := []router.Request{{Keys: keys}, {Keys: keys[:1+i%len(keys)]}}
		for _, n := range st.Nodes {
			requests = append(requests, router.Request{Keys: keys, Only: []string{n.ID}})
		}
		for _, q := range requests {
			q.DryRun, q.Tokens = true, len(keys)*16+7
			var a cluster.RouteAnswer
			if err := postJSON(ctx, "http://"+r.addr+"/v1/route", q, &a); err != nil {
				return pic, err
			}
			pic.Decisions = append(pic.Decisions, a)
		}
	}
	return pic, nil
}

// withoutQueues leaves out what a router only estimates for itself.
var withoutQueues = cmp.Options{
	cmpopts.IgnoreFields(router.Candidate{}, "Assigned", "QueueTokens"),
	cmpopts.IgnoreFields(router.Terms{}, "Queue"),
}

// awaitSame waits until both routers paint the same picture, and returns it.
func awaitSame(t testing.TB, within time.Duration, p prompts, a, b *server) (same picture, took time.Duration) {
	t.Helper()
	took = await(t, within, "both routers say the same", func() error {
		one, err1 := a.look(p)
		other, err2 := b.look(p)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		same = one
		if d := cmp.Diff(one, other, withoutQueues); d != "" {
			return errors.New(d)
		}
		return nil
	})
	return same, took
}

// awaitTrue waits until the router says of every node what the node says itself.
func (s *system) awaitTrue(within time.Duration, r *server) time.Duration {
	s.t.Helper()
	return await(s.t, within, "the router says what the nodes say", func() error {
		pic, err := r.look(prompts{})
		if err != nil {
			return err
		}
		if len(pic.Nodes) != len(s.nodes) {
			return fmt.Errorf("%d nodes of %d", len(pic.Nodes), len(s.nodes))
		}
		for i, n := range s.nodes {
			want := router.TierBlocks{}
			st := s.status(n)
			for _, ts := range st.Tiers {
				want[ts.Tier] = int(ts.Sealed)
			}
			if d := cmp.Diff(held{n.id, want}, pic.Nodes[i]); d != "" {
				return errors.New(d)
			}
		}
		return nil
	})
}

// overlapping tells how many decisions have a cached prefix: a comparison of empty
// answers would prove nothing.
func (p picture) overlapping() (n int) {
	for _, d := range p.Decisions {
		if d.ClusterBlocks > 0 {
			n++
		}
	}
	return n
}

// TestRouterRestart kills a router and starts it again under load: it must soon
// say what one says that has been there all the time.
func TestRouterRestart(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 3, flags: roomy()})
	first, second := s.router(), s.router()
	first.ready(patience)
	second.ready(patience)
	first.awaitMembers(3)
	p := putPrompts(s, 24)
	l := startLoad(s, 4)
	ops := func(more int64) {
		from := l.ops.Load()
		await(t, patience, "load", func() error {
			if now := l.ops.Load(); now < from+more {
				return fmt.Errorf("%d operations", now-from)
			}
			return nil
		})
	}
	ops(500)
	second.kill()
	ops(300)
	started := time.Now()
	second.start()
	ops(100)
	var same picture
	var took time.Duration
	l.quiet(func() {
		same, _ = awaitSame(t, caughtUp, p, first, second)
		took = time.Since(started)
	})
	l.finish()
	if took > caughtUp {
		t.Errorf("the restarted router was right %v after its start, want %v at most", took, caughtUp)
	}
	if n := same.overlapping(); n < len(same.Decisions)/2 {
		t.Errorf("only %d of %d decisions found cached blocks: the comparison proves little", n, len(same.Decisions))
	}
	s.awaitTrue(patience, second)
	second.stop()
	t.Logf("restarted router: same answers as the other %v after its start, %d decisions, %d with cached blocks; wrong bytes %d",
		took.Round(time.Millisecond), len(same.Decisions), same.overlapping(), l.wrong.Load())
}

// TestLateRouter starts a router after a node with a full disk has been started
// again: its blocks were announced before the router was there.
func TestLateRouter(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 2, flags: smallNode("--disk", "16MiB", "--segment", "1MiB", "--host", "4MiB")})
	first := s.router()
	first.ready(patience)
	first.awaitMembers(2)
	l := startLoad(s, 1)
	await(t, patience, "the load has read and written", func() error {
		if l.gets.Load() == 0 || l.puts.Load() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	l.quiet(func() {
		buf := make([]byte, maxLoadBlock)
		for range 1600 { // 26 MiB for the first node, which has 16
			if l.putBlock(0, buf); len(l.outside) > 0 {
				t.Fatal(l.outside)
			}
		}
	})
	l.finish()
	p := putPrompts(s, 16)
	n := s.nodes[0]
	if err := l.nodes[0].client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := s.status(n)
	if e := tierStatus(before, block.Disk).Evictions; e == 0 {
		t.Fatalf("the disk is not full: %+v", before.Tiers)
	}
	n.kill()
	n.start()
	if after := s.status(n); after.Recovered < tierStatus(before, block.Disk).Objects/2 {
		t.Errorf("recovered %d blocks of %d", after.Recovered, tierStatus(before, block.Disk).Objects)
	}
	late := s.router()
	_, took := awaitSame(t, caughtUp, p, first, late)
	s.awaitTrue(patience, late)
	s.awaitTrue(patience, first)
	lost, err := l.missing(t.Context(), 1, l.putThrough(0))
	if err != nil {
		t.Error(err)
	}
	t.Logf("late router: right after %v; node came back with %d blocks; through its peer %d of %d blocks were found, wrong bytes %d",
		took.Round(time.Millisecond), s.status(n).Recovered, len(l.putThrough(0))-len(lost), len(l.putThrough(0)), l.wrong.Load())
}

// TestNATSRestart kills NATS under load, for longer than the leases. The data plane
// must go on meanwhile, and all be right when NATS is back.
func TestNATSRestart(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 3, flags: roomy()})
	r := s.router()
	r.ready(patience)
	r.awaitMembers(3)
	p := putPrompts(s, 12)
	l := startLoad(s, 4)
	await(t, patience, "load", func() error {
		if n := l.puts.Load(); n < 150 {
			return fmt.Errorf("%d puts", n)
		}
		return nil
	})
	for at := range s.nodes {
		if err := l.nodes[at].client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := r.present(s)
	l.namesMayFail.Store(true)
	s.nats.kill()
	outage := time.Now()
	served := 0
	for time.Since(outage) < testLease+time.Second { // all leases lapse
		for at := range s.nodes {
			blocks := l.putThrough(at)
			lost, err := l.missing(t.Context(), at, blocks)
			if err != nil || len(lost) > 0 {
				t.Fatalf("without NATS, %s misses %d of its own %d blocks: %v", s.nodes[at].id, len(lost), len(blocks), err)
			}
			served += len(blocks)
		}
	}
	s.nats.start()
	back := time.Now()
	r.ready(patience)
	await(t, patience, "all are members again", func() error {
		now, err := r.members()
		for id, m := range before {
			err = errors.Join(err, returned(m, now[id]))
		}
		return err
	})
	members := time.Since(back)
	await(t, patience, "names are written again", func() error {
		return l.nodes[0].client.PutName(t.Context(), "after", []byte("the outage"))
	})
	l.namesMayFail.Store(false)
	fresh := putPrompts(s, 8)
	var right, late time.Duration
	l.quiet(func() {
		s.awaitTrue(patience, r)
		right = time.Since(back)
		p.keys = slices.Concat(p.keys, fresh.keys)
		began := time.Now()
		awaitSame(t, caughtUp, p, r, s.router())
		late = time.Since(began)
	})
	l.finish()
	for at, n := range l.nodes {
		await(t, patience, "the name at "+n.id, func() error {
			v, err := n.client.GetName(t.Context(), "after", nil)
			if err == nil && string(v.Value) != "the outage" {
				err = fmt.Errorf("%q", v.Value)
			}
			return err
		})
		await(t, patience, "the blocks of a peer through "+n.id, func() error {
			lost, err := l.missing(t.Context(), at, l.putThrough((at+1)%len(l.nodes)))
			if err == nil && len(lost) > 0 {
				err = fmt.Errorf("%d are missing", len(lost))
			}
			return err
		})
	}
	s.stop()
	failed, longest := l.failuresWhileUp(failBound)
	t.Logf("NATS away for %v: %d blocks served meanwhile from their nodes; members again after %v, router right after %v, a late one %v after its start; "+
		"%d operations, failed %d (longest %v), wrong bytes %d, p99 %v", back.Sub(outage).Round(time.Millisecond), served,
		members.Round(time.Millisecond), right.Round(time.Millisecond), late.Round(time.Millisecond), l.ops.Load(), failed, longest, l.wrong.Load(), l.quantile(99))
}
