package replay

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"cairn/block"
)

var errDown = errors.New("node is down")

// fakeCluster keeps blocks in memory and routes by longest prefix, but for the
// first block, which all requests may share; ties go to the emptiest node. Hooks, where set, may fail or change what a node answers.
type fakeCluster struct {
	names    []string
	capacity int // blocks a node; 0 is no limit

	onOp   func(ctx context.Context, node, op string) error
	onPut  func(key block.Key)
	onRead func(node string, key block.Key, p []byte) []byte
	// stale makes Match claim what has been evicted.
	stale bool

	mu     sync.Mutex
	nodes  map[string]*fakeNode
	puts   map[block.Key]int
	sizes  map[block.Key]bool // every key ever put
	orphan []string           // puts whose parent the cluster lacked
	routed int
	done   int
}

type fakeNode struct {
	c        *fakeCluster
	name     string
	blocks   map[block.Key]*list.Element
	recency  *list.List // newest first
	hits     int64
	peerHits int64
}

type fakeBlock struct {
	key    block.Key
	parent block.Key
	data   []byte
}

func newFake(nodes, capacity int) *fakeCluster {
	c := &fakeCluster{capacity: capacity, nodes: map[string]*fakeNode{}, puts: map[block.Key]int{}, sizes: map[block.Key]bool{}}
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i+1)
		c.names = append(c.names, name)
		c.nodes[name] = &fakeNode{c: c, name: name, blocks: map[block.Key]*list.Element{}, recency: list.New()}
	}
	return c
}

func (c *fakeCluster) hook(ctx context.Context, node, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.onOp == nil {
		return nil
	}
	return c.onOp(ctx, node, op)
}

func (c *fakeCluster) Route(ctx context.Context, keys []block.Key, _ int, avoid []string) (string, func(), error) {
	if err := c.hook(ctx, "", "route"); err != nil {
		return "", nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	best, bestPrefix := "", -1
	for _, name := range c.names {
		if slices.Contains(avoid, name) {
			continue
		}
		prefix := max(1, c.nodes[name].prefixLocked(keys))
		if prefix > bestPrefix || prefix == bestPrefix && len(c.nodes[name].blocks) < len(c.nodes[best].blocks) {
			best, bestPrefix = name, prefix
		}
	}
	if best == "" {
		return "", nil, errors.New("no node left")
	}
	c.routed++
	return best, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.done++
	}, nil
}

func (c *fakeCluster) Node(name string) (Node, error) {
	n, ok := c.nodes[name]
	if !ok {
		return nil, fmt.Errorf("no node %q", name)
	}
	return n, nil
}

func (n *fakeNode) prefixLocked(keys []block.Key) int {
	for i, k := range keys {
		if n.blocks[k] == nil {
			return i
		}
	}
	return len(keys)
}

func (c *fakeCluster) holderLocked(first *fakeNode, k block.Key) *fakeNode {
	if first.blocks[k] != nil {
		return first
	}
	for _, name := range c.names {
		if c.nodes[name].blocks[k] != nil {
			return c.nodes[name]
		}
	}
	return nil
}

func (n *fakeNode) Match(ctx context.Context, keys []block.Key) (prefix, local int, err error) {
	if err := n.c.hook(ctx, n.name, "match"); err != nil {
		return 0, 0, err
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	local = n.prefixLocked(keys)
	for prefix = local; prefix < len(keys); prefix++ {
		if n.c.holderLocked(n, keys[prefix]) == nil && !(n.c.stale && n.c.sizes[keys[prefix]]) {
			break
		}
	}
	return prefix, local, nil
}

func (n *fakeNode) Read(ctx context.Context, keys []block.Key, place func(int, block.Descriptor) []byte) ([]bool, error) {
	if err := n.c.hook(ctx, n.name, "read"); err != nil {
		return nil, err
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	found := make([]bool, len(keys))
	for i, k := range slices.Backward(keys) { // deepest first: parents stay longest
		h := n.c.holderLocked(n, k)
		if h == nil {
			continue
		}
		h.recency.MoveToFront(h.blocks[k])
		h.hits++
		if h != n {
			n.peerHits++
		}
		b := h.blocks[k].Value.(*fakeBlock)
		data := b.data
		if n.c.onRead != nil {
			data = n.c.onRead(n.name, k, slices.Clone(data))
		}
		if dst := place(i, block.Describe(k, b.parent, data)); dst != nil {
			copy(dst, data)
			found[i] = true
		}
	}
	return found, nil
}

func (n *fakeNode) Put(ctx context.Context, key, parent block.Key, data []byte) (bool, error) {
	if err := n.c.hook(ctx, n.name, "put"); err != nil {
		return false, err
	}
	if n.c.onPut != nil {
		n.c.onPut(key)
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if key.Position() > 0 && !n.c.sizes[parent] || key.Position() == 0 && !parent.IsZero() {
		n.c.orphan = append(n.c.orphan, key.String())
	}
	n.c.sizes[key] = true
	if n.c.holderLocked(n, key) != nil {
		return false, nil
	}
	n.c.puts[key]++
	n.blocks[key] = n.recency.PushFront(&fakeBlock{key: key, parent: parent, data: slices.Clone(data)})
	for n.c.capacity > 0 && n.recency.Len() > n.c.capacity {
		oldest := n.recency.Back()
		n.recency.Remove(oldest)
		delete(n.blocks, oldest.Value.(*fakeBlock).key)
	}
	return true, nil
}

func (c *fakeCluster) status(context.Context) ([]NodeStatus, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []NodeStatus
	for _, name := range c.names {
		n := c.nodes[name]
		all = append(all, NodeStatus{Node: name, PeerHits: n.peerHits, Tiers: []TierStatus{
			{Tier: block.Host, Objects: int64(len(n.blocks)), Bytes: int64(len(n.blocks)) * 64, Capacity: int64(c.capacity) * 64, Hits: n.hits},
		}})
	}
	return all, nil
}
