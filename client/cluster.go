package client

import "context"

// This file has what a Client does with names: the methods of Node, at the first node
// that can. One that is cut off from the coherence log says so, and the next is asked; a
// change whose outcome is unknown is not tried again.

// named calls f with one node after another until one can do it.
func (c *Client) named(ctx context.Context, f func(*Node) error) error {
	return c.until(ctx, finalForNames, f)
}

// GetName reads a named block; see Node.GetName.
func (c *Client) GetName(ctx context.Context, name string, dst []byte, opts ...GetOption) (v Versioned, err error) {
	err = c.named(ctx, func(n *Node) error {
		v, err = n.GetName(ctx, name, dst, opts...)
		return err
	})
	return v, err
}

// PutName makes p the newest version of a named block; see Node.PutName.
func (c *Client) PutName(ctx context.Context, name string, p []byte, opts ...PutOption) error {
	return c.named(ctx, func(n *Node) error { return n.PutName(ctx, name, p, opts...) })
}

// CompareAndSet changes a named block that has a certain version; see
// Node.CompareAndSet.
func (c *Client) CompareAndSet(ctx context.Context, name string, expect Version, p []byte, opts ...PutOption) (v Version, err error) {
	err = c.named(ctx, func(n *Node) error {
		v, err = n.CompareAndSet(ctx, name, expect, p, opts...)
		return err
	})
	return v, err
}

// DeleteName removes a named block and reports whether it was there; see
// Node.DeleteName.
func (c *Client) DeleteName(ctx context.Context, name string, opts ...PutOption) (was bool, err error) {
	err = c.named(ctx, func(n *Node) error {
		was, err = n.DeleteName(ctx, name, opts...)
		return err
	})
	return was, err
}

// Barrier returns when all changes of names that were acknowledged before are
// durable at home or declared lost; see Node.Barrier.
func (c *Client) Barrier(ctx context.Context) (epoch uint64, err error) {
	err = c.named(ctx, func(n *Node) error {
		epoch, err = n.Barrier(ctx)
		return err
	})
	return epoch, err
}

// Clear deletes all names of a namespace, "" for the configured one; see Node.Clear.
func (c *Client) Clear(ctx context.Context, ns string) error {
	return c.named(ctx, func(n *Node) error { return n.Clear(ctx, ns) })
}
