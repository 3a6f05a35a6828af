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

// Client is a connection to a cluster. All methods may be called in parallel.
type Client struct {
	cfg  Config
	http *http.Client

	// mu guards what follows.
	mu     sync.Mutex
	nodes  map[string]*Node // by address
	tokens map[string]wire.Token
	closed bool
}

// Open checks the configuration and that one of the nodes answers.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Client{
		cfg: cfg, http: &http.Client{Timeout: cfg.Timeout},
		nodes: map[string]*Node{}, tokens: map[string]wire.Token{},
	}
	if err := c.any(ctx, func(n *Node) error { return n.Ping(ctx) }); err != nil {
		c.Close()
		return nil, fmt.Errorf("%w (is the node running, and is this its data port?)", err)
	}
	return c, nil
}

// Close closes all connections. Calls under way may fail.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
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
		Client:    resp.ClientConfig{DialTimeout: c.cfg.DialTimeout, Timeout: c.cfg.Timeout},
		MaxActive: c.cfg.MaxConnections, MaxIdle: c.cfg.MaxConnections,
	})
	if err != nil {
		return nil, fmt.Errorf("cairn: %w", err)
	}
	n := &Node{c: c, addr: addr, pool: pool}
	c.nodes[addr] = n
	return n, nil
}

// any calls f with one node after another until one answers. Nodes that have just
// failed come last.
func (c *Client) any(ctx context.Context, f func(*Node) error) error {
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

// each calls f with every configured node and joins the errors.
func (c *Client) each(f func(*Node) error) error {
	var errs []error
	for _, n := range c.inOrder() {
		errs = append(errs, f(n))
	}
	return errors.Join(errs...)
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

// GetName reads a named block; see Get.
func (c *Client) GetName(ctx context.Context, name string, dst []byte) (p []byte, err error) {
	err = c.any(ctx, func(n *Node) error {
		p, err = n.GetName(ctx, name, dst)
		return err
	})
	return p, err
}

// PutName makes p the newest version of a named block; see Node.PutName.
func (c *Client) PutName(ctx context.Context, name string, p []byte, opts ...PutOption) error {
	return c.any(ctx, func(n *Node) error { return n.PutName(ctx, name, p, opts...) })
}

// DeleteName removes a named block and reports whether it was there.
func (c *Client) DeleteName(ctx context.Context, name string) (was bool, err error) {
	err = c.any(ctx, func(n *Node) error {
		was, err = n.DeleteName(ctx, name)
		return err
	})
	return was, err
}

// remember keeps the newest token of each node.
func (c *Client) remember(t wire.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.tokens[t.Node]; !ok || old.Incarnation != t.Incarnation || old.Position < t.Position {
		c.tokens[t.Node] = t
	}
}

func (c *Client) session() []wire.Token {
	c.mu.Lock()
	defer c.mu.Unlock()
	tokens := make([]wire.Token, 0, len(c.tokens))
	for _, t := range c.tokens {
		tokens = append(tokens, t)
	}
	return tokens
}
