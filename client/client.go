package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"cairn/block"
	"cairn/resp"
	"cairn/wire"
)

// Client is a connection to a cluster, and one session of reads and changes of names,
// through whichever node. All methods may be called in parallel.
type Client struct {
	cfg     Config
	http    *http.Client
	session session

	// mu guards what follows.
	mu       sync.Mutex
	nodes    map[string]*Node // by address
	tokens   map[string]wire.Token
	watching map[*watcher]context.CancelCauseFunc
	closed   bool
}

// Open checks the configuration and that one of the nodes answers.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Client{
		cfg: cfg, http: &http.Client{Timeout: cfg.Timeout},
		nodes: map[string]*Node{}, tokens: map[string]wire.Token{}, watching: map[*watcher]context.CancelCauseFunc{},
	}
	if err := c.any(ctx, func(n *Node) error { return n.Ping(ctx) }); err != nil {
		c.Close()
		return nil, fmt.Errorf("%w (is the node running, and is this its data port?)", err)
	}
	return c, nil
}

// Close closes all connections and ends what watches. Calls under way may fail.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, end := range c.watching {
		end(ErrClosed)
	}
	for _, n := range c.nodes {
		n.pool.Close()
	}
	c.http.CloseIdleConnections()
	return nil
}

// Node is the node at the given address, which need not be in Config.Nodes.
// Nothing is sent until it is used.
func (c *Client) Node(addr string) (*Node, error) {
	network, target, err := split(addr)
	if err != nil {
		return nil, fmt.Errorf("cairn: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if n, ok := c.nodes[addr]; ok {
		return n, nil
	}
	pool, err := resp.NewPool(network, target, resp.PoolConfig{
		Client: c.cfg.conn(), MaxActive: c.cfg.MaxConnections, MaxIdle: c.cfg.MaxConnections,
	})
	if err != nil {
		return nil, fmt.Errorf("cairn: %w", err)
	}
	n := &Node{c: c, addr: addr, network: network, target: target, pool: pool}
	c.nodes[addr] = n
	return n, nil
}

// any calls f with one node after another until one answers. Nodes that have just
// failed come last.
func (c *Client) any(ctx context.Context, f func(*Node) error) error {
	return c.until(ctx, final, f)
}

// until is any for errors of which the function final tells that no other node is
// to be asked.
func (c *Client) until(ctx context.Context, final func(error) bool, f func(*Node) error) error {
	var errs []error
	for _, n := range c.inOrder() {
		err := f(n)
		if err == nil || final(err) {
			return err
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return err
		}
		n.failed() // so that the next call does not wait for this node as well
		if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) && expired(ctx) {
			return err // no time is left to try another, which would pass for failed too
		}
		errs = append(errs, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(errs...))
}

// expired tells whether the deadline of ctx has passed, even if ctx itself does
// not say so yet: the socket's timer may be ahead of it.
func expired(ctx context.Context) bool {
	at, ok := ctx.Deadline()
	return ok && !time.Now().Before(at)
}

func (c *Client) inOrder() []*Node {
	var nodes []*Node
	for _, addr := range c.cfg.Nodes {
		if n, err := c.Node(addr); err == nil {
			nodes = append(nodes, n)
		}
	}
	now := time.Now()
	slices.SortStableFunc(nodes, func(a, b *Node) int {
		switch x, y := a.resting(now), b.resting(now); {
		case x == y:
			return 0
		case x:
			return 1
		default:
			return -1
		}
	})
	return nodes
}

// Get reads a block into dst, which grows if it is too short, and returns the
// block's bytes.
func (c *Client) Get(ctx context.Context, key block.Key, dst []byte) (p []byte, err error) {
	err = c.any(ctx, func(n *Node) error {
		p, err = n.Get(ctx, key, dst)
		return err
	})
	return p, err
}

// Put stores a block; see Node.Put.
func (c *Client) Put(ctx context.Context, key, parent block.Key, p []byte, opts ...PutOption) (stored bool, err error) {
	err = c.any(ctx, func(n *Node) error {
		stored, err = n.Put(ctx, key, parent, p, opts...)
		return err
	})
	return stored, err
}

// Exists tells whether the cluster has the block, as far as the node asked knows.
func (c *Client) Exists(ctx context.Context, key block.Key) (bool, error) {
	m, err := c.Match(ctx, []block.Key{key})
	return m.Prefix == 1, err
}

// Match returns the longest prefix of keys that the cluster has; see Node.Match.
func (c *Client) Match(ctx context.Context, keys []block.Key) (m Match, err error) {
	err = c.any(ctx, func(n *Node) error {
		m, err = n.Match(ctx, keys)
		return err
	})
	return m, err
}

// remember keeps the newest token of each node.
func (c *Client) remember(t wire.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.tokens[t.Node]; !ok || old.Incarnation != t.Incarnation || old.Position < t.Position {
		c.tokens[t.Node] = t
	}
}

func (c *Client) newest() []wire.Token {
	c.mu.Lock()
	defer c.mu.Unlock()
	tokens := make([]wire.Token, 0, len(c.tokens))
	for _, t := range c.tokens {
		tokens = append(tokens, t)
	}
	return tokens
}
