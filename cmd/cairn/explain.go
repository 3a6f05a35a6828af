package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"cairn/client"
	"cairn/node"
	"cairn/wire"
)

type explainCmd struct {
	connection
	What string `arg:"" help:"Key of a block (32 hexadecimal digits), a name, or a JSON file with a route request (@FILE)."`
}

func (c *explainCmd) Run(a *app) error {
	if file, ok := strings.CutPrefix(c.What, "@"); ok {
		return (&routeCmd{connection: c.connection, Request: file, Explain: true}).Run(a)
	}
	if _, ok := asKey(c.What); ok {
		return c.block(a)
	}
	if err := c.everyone(a); err != nil {
		return err
	}
	views := c.views(a.ctx)
	var errs []error
	unknown := 0
	for _, v := range views {
		if v.err != nil {
			errs = append(errs, v.err)
		}
		if errors.Is(v.err, client.ErrNotFound) {
			unknown++
		}
	}
	switch {
	case unknown > 0 && len(errs) == len(views):
		return fmt.Errorf("%w: no node that answers knows a block named %q", client.ErrNotFound, c.What)
	case len(errs) == len(views):
		return errors.Join(errs...)
	case a.json:
		return a.printJSON(views)
	}
	return printName(a, views)
}

// block explains a block that has a key.
func (c *explainCmd) block(a *app) error {
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	n, err := cl.Node(c.Nodes[0])
	if err != nil {
		return err
	}
	text, err := n.Explain(a.ctx, c.What)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(text)
	}
	var b node.BlockStatus
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}
	return printBlock(a, b)
}

// everyone finds all nodes where none is named: those of the router. A router at the
// usual address need not be named either.
func (c *explainCmd) everyone(a *app) error {
	if len(c.Nodes) > 0 || c.RouterURL != "" {
		return c.find(a.ctx)
	}
	if addrs, err := memberAddrs(a.ctx, defaultRouter); err == nil && len(addrs) > 0 {
		c.Nodes = addrs
		return nil
	}
	fmt.Fprintf(a.err, "no router at %s (give one with --router); asking %s only\n", defaultRouter, defaultNode)
	return c.find(a.ctx)
}

// nameView is what one node knows of a name.
type nameView struct {
	Addr   string           `json:"addr"`
	Status *node.NameStatus `json:"status,omitempty"`
	Error  string           `json:"error,omitempty"`
	err    error
}

// views asks every node, all at once.
func (c *explainCmd) views(ctx context.Context) []nameView {
	views := make([]nameView, len(c.Nodes))
	var asking sync.WaitGroup
	for i, addr := range c.Nodes {
		asking.Go(func() {
			s, err := c.ask(ctx, addr)
			views[i] = nameView{Addr: addr, Status: s, err: err}
			if err != nil {
				views[i].Error = strings.TrimPrefix(err.Error(), "cairn: ")
			}
		})
	}
	asking.Wait()
	return views
}

func (c *explainCmd) ask(ctx context.Context, addr string) (*node.NameStatus, error) {
	one := connection{Nodes: []string{addr}, Namespace: c.Namespace, Timeout: c.Timeout}
	cl, err := one.open(ctx)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	n, err := cl.Node(addr)
	if err != nil {
		return nil, err
	}
	text, err := n.Explain(ctx, c.What)
	if err != nil {
		return nil, err
	}
	s := new(node.NameStatus)
	return s, json.Unmarshal(text, s)
}

// printName says what a name is, as the node knows it that has read most of the log, and
// then what each node has of it.
func printName(a *app, views []nameView) error {
	var best *node.NameStatus
	for _, v := range views {
		if v.Status != nil && (best == nil || newest(v.Status) > newest(best)) {
			best = v.Status
		}
	}
	var out strings.Builder
	describeName(&out, best)
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nNODE\tADDRESS\tVERSION\tUNFLUSHED\tTIERS\tPART")
	for _, v := range views {
		s := v.Status
		if s == nil {
			fmt.Fprintf(w, "?\t%s\t\t\t\t%s\n", v.Addr, v.Error)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Node, v.Addr, wire.Version(s.Version), dash(s.Dirty), tiersText(s), part(s, best))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(a.out, out.String())
	return err
}

// newest is the newest version that a node tells of, its own unflushed one included.
func newest(s *node.NameStatus) uint64 { return max(s.Version, s.Dirty) }

func describeName(out *strings.Builder, s *node.NameStatus) {
	fmt.Fprintf(out, "name %s in namespace %s, version %s\n", s.Name, s.Namespace, wire.Version(newest(s)))
	if s.Absent {
		out.WriteString("  absent     deleted, expired, or not flushed yet by its owner\n")
	} else {
		fmt.Fprintf(out, "  object     %s, %s\n", s.Object, bytesText(int64(s.Length)))
	}
	if len(s.Homes) > 0 {
		fmt.Fprintf(out, "  homes      %s\n", strings.Join(s.Homes, ", "))
	}
	if s.Owner != "" {
		alive := "alive"
		if !s.OwnerAlive {
			alive = "not a member any more"
		}
		fmt.Fprintf(out, "  owner      %s (%s), token %s\n", s.Owner, alive, wire.Version(s.Token))
	}
	if s.Dirty != 0 {
		fmt.Fprintf(out, "  unflushed  version %s on %s; cairn barrier makes it durable\n", wire.Version(s.Dirty), s.Node)
	}
	if s.Expires != 0 {
		fmt.Fprintf(out, "  ends       %s\n", time.UnixMilli(s.Expires).Format(time.RFC3339))
	}
}

func dash(version uint64) string {
	if version == 0 {
		return "-"
	}
	return wire.Version(version).String()
}

func tiersText(s *node.NameStatus) string {
	var tiers []string
	for _, t := range s.Here {
		tiers = append(tiers, t.String())
	}
	if len(tiers) == 0 {
		return "-"
	}
	return strings.Join(tiers, ",")
}

// part is what a node is to the name; best is the status of the node that knows most.
func part(s, best *node.NameStatus) string {
	var parts []string
	if s.Node == best.Owner {
		parts = append(parts, "owner")
	}
	if slices.Contains(best.Homes, s.Node) {
		parts = append(parts, "home")
	}
	if s.Version < best.Version {
		parts = append(parts, "behind")
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// printBlock says where a block is in words.
func printBlock(a *app, b node.BlockStatus) error {
	var out strings.Builder
	fmt.Fprintf(&out, "block %s", b.Key)
	if b.Key.Named() {
		out.WriteString(" (a version of a named block)\n")
	} else {
		fmt.Fprintf(&out, " (position %d of its sequence)\n", b.Key.Position())
	}
	if b.Parent != nil {
		fmt.Fprintf(&out, "  follows    %s\n", b.Parent)
	}
	if len(b.Here) > 0 {
		durable := "not yet durable"
		if b.Durable {
			durable = "durable"
		}
		fmt.Fprintf(&out, "  size       %s, checksum %016x\n  on %-8s %v, %s\n", bytesText(int64(b.Length)), b.Sum, b.Node, b.Here, durable)
	} else {
		fmt.Fprintf(&out, "  on %-8s nowhere\n", b.Node)
	}
	for _, p := range b.Peers {
		fmt.Fprintf(&out, "  on %-8s %v, at %s\n", p.Node, p.Tiers, p.Addr)
	}
	if len(b.Here) == 0 && len(b.Peers) == 0 {
		return fmt.Errorf("%w: %s: no node holds it", client.ErrNotFound, b.Key)
	}
	_, err := fmt.Fprint(a.out, out.String())
	return err
}
