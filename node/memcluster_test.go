package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/diskstore"
	"cairn/hostcache"
	"cairn/resp"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
	"cairn/wire"
)

// memCluster is the cluster around nodes under test, in memory: placement events take
// effect at once, messages of the coherence log when their readers get to them.
type memCluster struct {
	log *memLog

	mu       sync.Mutex
	nodes    map[string]*member
	holdings map[block.Key]map[string]block.TierMask
	blind    map[string]bool              // nodes whose index, being bounded, does not show what others have
	watch    func(node string, ch Change) // if set, is told every change as it happens
	unseen   map[string]int               // for how many questions more a node is not shown to its peers
	told     []string                     // to the router, of requests
}

type member struct {
	node     *Node
	addr     string
	position uint64
	reader   *logReader
	crash    func()
}

func newMemCluster() *memCluster {
	return &memCluster{
		nodes:    map[string]*member{},
		holdings: map[block.Key]map[string]block.TierMask{},
		unseen:   map[string]int{},
		log:      newMemLog(),
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
	if m == nil {
		return 0 // it has crashed; nobody hears what it was about to say
	}
	for _, ch := range changes {
		m.position++
		if p.c.watch != nil {
			p.c.watch(p.id, ch)
		}
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
			if p.c.blind[p.id] {
				break
			}
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
	if p.c.unseen[id] > 0 {
		p.c.unseen[id]--
		return Holder{}, false
	}
	return Holder{Node: id, Addr: m.addr}, true
}

func (p port) Others() []Neighbour {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	var list []Neighbour
	for id, m := range p.c.nodes {
		if id != p.id && m.node != nil {
			list = append(list, Neighbour{Node: id, Addr: m.addr, Draining: m.node.drains(), Disk: m.node.home == block.Disk})
		}
	}
	return list
}

func (p port) Await(context.Context, wire.Token) error { return nil }

func (p port) Publish(m *ledger.Message) { p.c.log.publish(p.id, m) }

func (p port) SaveSnapshot(_ context.Context, sequence uint64, data []byte) error {
	p.c.log.save(sequence, data)
	return nil
}

func (p port) RouteJSON(_ context.Context, request []byte) ([]byte, error) {
	return json.Marshal(map[string]any{"asked": json.RawMessage(request)})
}

func (p port) Prefilled(id string) { p.c.tell("prefilled " + id) }
func (p port) Done(id string)      { p.c.tell("done " + id) }

// tell keeps what the router was told.
func (c *memCluster) tell(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, what)
}

// testTiers describes the tiers of a node under test, in bytes; 0 leaves out.
type testTiers struct {
	vram, host, disk int64
	dir              string       // of the disk tier; "" is a new one
	noSpace          *atomic.Bool // the disk tier refuses writes while true
}

const testBlock = 64 << 10

func (tt testTiers) open(t testing.TB) Tiers {
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

// fullDisk is a disk tier whose file system is full while full is true.
type fullDisk struct {
	*diskstore.Store
	full *atomic.Bool
}

func (d fullDisk) Put(ctx context.Context, desc block.Descriptor, src []byte) ([]block.Key, error) {
	if d.full.Load() {
		return nil, tier.ErrNoSpace
	}
	return d.Store.Put(ctx, desc, src)
}

// join starts a node with a RESP server on a free port of the loopback, and returns
// when it is a member.
func (c *memCluster) join(t testing.TB, id string, tiers Tiers, change func(*Config)) (*Node, string) {
	t.Helper()
	n, addr := c.start(t, id, tiers, change)
	for {
		news := n.coherence.news.wait()
		if n.Coherence().Serving {
			return n, addr
		}
		select {
		case <-news:
		case <-t.Context().Done():
			t.Fatal("the test ended before the node was a member")
		}
	}
}

// start is join without waiting.
func (c *memCluster) start(t testing.TB, id string, tiers Tiers, change func(*Config)) (*Node, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	m := &member{addr: l.Addr().String()}
	c.nodes[id] = m
	c.mu.Unlock()
	p := port{c, id}
	cfg := Config{ID: id, PromoteAfter: 2, FlushAfter: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg, tiers, Ports{Announcer: p, Peers: p, Coherence: p, Router: p})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	m.node = n
	m.reader = c.log.read(id, n.LogHandler())
	c.mu.Unlock()
	t.Cleanup(m.reader.stop)
	m.crash = serve(t, n, l)
	return n, l.Addr().String()
}

// serve answers for the node on l until the test ends, and closes the node then. What
// it returns ends the node before that as if its process had died.
func serve(t testing.TB, n *Node, l net.Listener) (crash func()) {
	t.Helper()
	server, err := resp.NewServer(resp.ServerConfig{NewHandler: n.NewHandler})
	if err != nil {
		t.Fatal(err)
	}
	ctx, kill := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	crashed := false
	crash = func() {
		crashed = true
		n.coherence.stop()
		kill()
		<-served
		n.stop()
		n.working.Wait()
		n.dialer.close()
	}
	t.Cleanup(func() {
		if crashed {
			return
		}
		server.Shutdown(context.Background())
		<-served
		kill()
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", n.ID(), err)
		}
	})
	return crash
}

// crash ends a node as if its process had died. Its tiers stay as they are.
func (c *memCluster) crash(id string) {
	c.mu.Lock()
	m := c.nodes[id]
	c.mu.Unlock()
	c.leave(id)
	m.crash()
	m.reader.stop()
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
