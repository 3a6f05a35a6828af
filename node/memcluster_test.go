package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"

	"cairn/block"
	"cairn/diskstore"
	"cairn/hostcache"
	"cairn/resp"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
	"cairn/wire"
)

// memCluster is the cluster around nodes under test, in memory: events and names
// take effect at once, or when the test lets them.
type memCluster struct {
	mu       sync.Mutex
	nodes    map[string]*member
	holdings map[block.Key]map[string]block.TierMask
	last     map[block.Key]uint64 // sequence of each name
	sequence uint64
	refuse   error // what Append answers, if not nil
}

type member struct {
	node     *Node
	addr     string
	position uint64
}

func newMemCluster() *memCluster {
	return &memCluster{
		nodes:    map[string]*member{},
		holdings: map[block.Key]map[string]block.TierMask{},
		last:     map[block.Key]uint64{},
	}
}

// port is what one node sees of a memCluster.
type port struct {
	c  *memCluster
	id string
}

func (p port) Announce(changes []Change) uint64 {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	m := p.c.nodes[p.id]
	for _, ch := range changes {
		m.position++
		h := p.c.holdings[ch.Key]
		if h == nil {
			h = map[string]block.TierMask{}
			p.c.holdings[ch.Key] = h
		}
		if ch.Stored {
			h[p.id] = h[p.id].With(ch.Tier)
		} else if h[p.id] = h[p.id].Without(ch.Tier); !h[p.id].Any() {
			delete(h, p.id)
		}
	}
	return m.position
}

func (p port) Locate(keys []block.Key) [][]Holder {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	out := make([][]Holder, len(keys))
	for i, k := range keys {
		for id, tiers := range p.c.holdings[k] {
			if m := p.c.nodes[id]; id != p.id && m != nil {
				out[i] = append(out[i], Holder{Node: id, Addr: m.addr, Tiers: tiers})
			}
		}
		slices.SortFunc(out[i], func(a, b Holder) int {
			if a.Node < b.Node {
				return -1
			}
			return 1
		})
	}
	return out
}

func (p port) Peer(id string) (Holder, bool) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	m := p.c.nodes[id]
	if m == nil || id == p.id {
		return Holder{}, false
	}
	return Holder{Node: id, Addr: m.addr}, true
}

func (p port) Await(context.Context, wire.Token) error { return nil }

func (p port) Append(_ context.Context, n Name, expect *uint64) (uint64, error) {
	p.c.mu.Lock()
	if p.c.refuse != nil {
		defer p.c.mu.Unlock()
		return 0, p.c.refuse
	}
	if expect != nil && p.c.last[n.Key] != *expect {
		p.c.mu.Unlock()
		return 0, ErrNameConflict
	}
	p.c.sequence++
	n.Sequence = p.c.sequence
	p.c.last[n.Key] = n.Sequence
	var nodes []*Node
	for _, m := range p.c.nodes {
		nodes = append(nodes, m.node)
	}
	p.c.mu.Unlock()
	for _, node := range nodes {
		n.Name = slices.Clone(n.Name)
		node.ApplyName(n)
	}
	return n.Sequence, nil
}

func (p port) RouteJSON(_ context.Context, request []byte) ([]byte, error) {
	return json.Marshal(map[string]any{"asked": json.RawMessage(request)})
}

func (p port) Done(string) {}

// testTiers describes the tiers of a node under test, in bytes; 0 leaves out.
type testTiers struct {
	vram, host, disk int64
	dir              string // of the disk tier; "" is a new one
	noSpace          *bool  // the disk tier refuses writes while true
}

const testBlock = 64 << 10

func (tt testTiers) open(t *testing.T) Tiers {
	t.Helper()
	var tiers Tiers
	host, err := hostcache.Open(hostcache.Config{Capacity: tt.host, Classes: []int{4 << 10, testBlock, 1 << 20}, SlabSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	tiers.Host = host
	if tt.vram > 0 {
		dev, err := emulated.New(emulated.Config{Memory: 2 * tt.vram})
		if err != nil {
			t.Fatal(err)
		}
		pool, err := vram.Open(dev, vram.Config{Capacity: tt.vram, Classes: []int{testBlock}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pool.Close(); dev.Close() })
		tiers.VRAM = pool
	}
	if tt.disk > 0 {
		if tt.dir == "" {
			tt.dir = t.TempDir()
		}
		disk, err := diskstore.Open(tt.dir, diskstore.Config{Capacity: tt.disk, SegmentSize: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { disk.Close() })
		tiers.Disk = disk
		if tt.noSpace != nil {
			tiers.Disk = fullDisk{disk, tt.noSpace}
		}
	}
	return tiers
}

// fullDisk is a disk tier whose file system is full while *full is true.
type fullDisk struct {
	*diskstore.Store
	full *bool
}

func (d fullDisk) Put(ctx context.Context, desc block.Descriptor, src []byte) ([]block.Key, error) {
	if *d.full {
		return nil, tier.ErrNoSpace
	}
	return d.Store.Put(ctx, desc, src)
}

// join starts a node with a RESP server on a free port of the loopback.
func (c *memCluster) join(t *testing.T, id string, tiers Tiers, change func(*Config)) (*Node, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.nodes[id] = &member{addr: l.Addr().String()}
	c.mu.Unlock()
	p := port{c, id}
	cfg := Config{ID: id, PromoteAfter: 2, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg, tiers, Ports{Announcer: p, Peers: p, Names: p, Router: p})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.nodes[id].node = n
	c.mu.Unlock()
	serve(t, n, l)
	return n, l.Addr().String()
}

// serve answers for the node on l until the test ends, and closes the node then.
func serve(t *testing.T, n *Node, l net.Listener) {
	t.Helper()
	server, err := resp.NewServer(resp.ServerConfig{NewHandler: n.NewHandler})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		server.Shutdown(context.Background())
		<-served
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", n.ID(), err)
		}
	})
}

// leave makes a node invisible to the others, as if it had died.
func (c *memCluster) leave(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nodes, id)
	for _, h := range c.holdings {
		delete(h, id)
	}
}
