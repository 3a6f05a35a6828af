package main

import (
	"fmt"

	"cairn/cluster"
)

type drainCmd struct {
	natsClient
	Node string `arg:"" help:"Name of the node."`
	Undo bool   `help:"Let the node take requests again."`
}

// Run asks the node itself: its record says that it drains, for as long as it lives.
func (c *drainCmd) Run(a *app) error {
	if err := cluster.ValidID(c.Node); err != nil {
		return usageError{err}
	}
	if len(c.NATS) == 0 {
		c.NATS = []string{defaultNATS}
	}
	cfg := c.config(a, "cairn drain")
	if err := cfg.Validate(); err != nil {
		return usageError{err}
	}
	conn, err := cluster.Connect(a.ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := cluster.Drain(a.ctx, conn, c.Node, !c.Undo); err != nil {
		return err
	}
	state := "drains: routers send it nothing new"
	if c.Undo {
		state = "takes requests again"
	}
	_, err = fmt.Fprintf(a.out, "node %s %s\n", c.Node, state)
	return err
}
