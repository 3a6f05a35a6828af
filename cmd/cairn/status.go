package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/cluster"
	"cairn/node"
)

// routerTimeout bounds one question to a router.
const routerTimeout = 5 * time.Second

const defaultRouter = "http://127.0.0.1:7080"

type statusCmd struct {
	connection
}

// nodeReport is what status shows of a node.
type nodeReport struct {
	Addr   string       `json:"addr"`
	Status *node.Status `json:"status,omitempty"`
	Error  string       `json:"error,omitempty"`
}

// members are the nodes to show: those that are named, or else all that the router knows.
func (c *statusCmd) members(a *app) ([]string, error) {
	if c.RouterURL == "" && len(c.Nodes) > 0 {
		return c.Nodes, nil
	}
	addrs, err := memberAddrs(a.ctx, cmp.Or(c.RouterURL, defaultRouter))
	if err == nil || c.RouterURL != "" {
		return addrs, err
	}
	if err := c.find(a.ctx); err != nil {
		return nil, err
	}
	fmt.Fprintf(a.err, "no router at %s (give one with --router); showing %s only\n", defaultRouter, strings.Join(c.Nodes, ", "))
	return c.Nodes, nil
}

func (c *statusCmd) Run(a *app) error {
	addrs, err := c.members(a)
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return fmt.Errorf("%w: the router knows no live node", client.ErrUnavailable)
	}
	reports := nodeReports(a.ctx, addrs, c.Timeout)
	if a.json {
		return a.printJSON(reports)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tADDRESS\tUP\tBLOCKS\tNAMES\tDIRTY\tVRAM\tHOST\tDISK\tHITS v/h/d/peer\tMISSES\tSEQUENCES\tAHEAD\tTROUBLE")
	down := 0
	for _, r := range reports {
		if r.Status == nil {
			down++
			fmt.Fprintf(w, "?\t%s\tdown\t\t\t\t\t\t\t\t\t\t\t%s\n", r.Addr, r.Error)
			continue
		}
		s := r.Status
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%d/%d/%d/%d\t%d\t%s\t%s\t%s\n", s.Node, r.Addr,
			(time.Duration(s.UptimeSeconds) * time.Second).String(), s.Blocks, s.Names, s.Dirty,
			fill(*s, block.VRAM), fill(*s, block.Host), fill(*s, block.Disk),
			tierStatus(*s, block.VRAM).Hits, tierStatus(*s, block.Host).Hits, tierStatus(*s, block.Disk).Hits, s.PeerHits, s.Misses, pinnedText(s.Sequences), aheadText(s.Prefetch), troubleText(*s))
	}
	if err := errors.Join(w.Flush(), printGPUs(a.out, reports)); err != nil {
		return err
	}
	if down == len(reports) {
		return fmt.Errorf("%w: no node answers", client.ErrUnavailable)
	}
	return nil
}

func tierStatus(s node.Status, t block.Tier) node.TierStatus {
	for _, ts := range s.Tiers {
		if ts.Tier == t {
			return ts
		}
	}
	return node.TierStatus{Tier: t}
}

// troubleText is what an operator should know of a node: that it drains, and how far that is,
// what an engine that lost its connection keeps, and the last failure of its home tier.
func troubleText(s node.Status) string {
	var words []string
	if h := s.Handover; h.Draining {
		text := "drains"
		switch {
		case h.Safe:
			text += ", may be stopped"
		case h.Left():
			text += fmt.Sprintf(", %d blocks and %d names still only here", h.LeftBlocks, h.LeftNames)
		}
		words = append(words, text)
	}
	if tierStatus(s, block.VRAM).Lost {
		words = append(words, fmt.Sprintf("vram lost, and %d blocks with it that nobody else is known to have: start the node again once the GPU works", s.Lost))
	}
	if n := s.Devices.Quarantined; n > 0 {
		words = append(words, fmt.Sprintf("%d slots of GPU memory wait for an engine's process to end", n))
	}
	if s.Trouble != "" {
		words = append(words, s.Trouble)
	}
	return strings.Join(words, "; ")
}

// aheadText is how many blocks were fetched ahead of requests, and used by them while they
// were held: "1200, 980 used"; with what was dropped, if anything was.
func aheadText(p node.PrefetchStatus) string {
	var fetched int64
	for _, n := range p.Blocks {
		fetched += n
	}
	text := fmt.Sprintf("%d, %d used", fetched, p.Used)
	if p.Dropped > 0 {
		text += fmt.Sprintf(", %d prefetches dropped", p.Dropped)
	}
	return text
}

// pinnedText is how many sequences are open, and what they pin: "3, vram 40 MiB".
func pinnedText(q node.SequencesStatus) string {
	words := []string{strconv.Itoa(q.Open)}
	for _, p := range q.Pinned {
		if p.Blocks > 0 {
			words = append(words, fmt.Sprintf("%s %s", p.Tier, bytesText(p.Bytes)))
		}
	}
	return strings.Join(words, ", ")
}

func fill(s node.Status, t block.Tier) string {
	ts := tierStatus(s, t)
	if ts.Capacity == 0 {
		return "-"
	}
	if ts.Lost {
		return lostText
	}
	text := fmt.Sprintf("%s of %s", bytesText(ts.Used), bytesText(ts.Capacity))
	if t == block.VRAM && s.Devices.Held > 0 {
		text += fmt.Sprintf(" (engines %s)", bytesText(s.Devices.Held))
	}
	if ts.Kept > 0 {
		text += fmt.Sprintf(" (names %s of %s)", bytesText(ts.Kept), bytesText(ts.KeptLimit))
	}
	return text
}

// memberAddrs asks a router for the live nodes.
func memberAddrs(ctx context.Context, router string) ([]string, error) {
	if err := (client.Config{Nodes: []string{defaultNode}, Router: router}).Validate(); err != nil {
		return nil, usageError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, routerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(router, "/")+"/v1/members", nil)
	if err != nil {
		return nil, usage("--router: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: router: %w", client.ErrUnavailable, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: router %s answers %s", client.ErrUnavailable, router, res.Status)
	}
	var members []cluster.Member
	if err := json.NewDecoder(res.Body).Decode(&members); err != nil {
		return nil, fmt.Errorf("router %s: %w", router, err)
	}
	var addrs []string
	for _, m := range members {
		addrs = append(addrs, m.Addr)
	}
	return addrs, nil
}

// nodeReports asks each node for its status.
func nodeReports(ctx context.Context, addrs []string, timeout time.Duration) []nodeReport {
	reports := make([]nodeReport, len(addrs))
	for i, addr := range addrs {
		reports[i].Addr = addr
		st, err := nodeStatus(ctx, addr, timeout)
		if err != nil {
			reports[i].Error = err.Error()
			continue
		}
		reports[i].Status = &st
	}
	return reports
}

func nodeStatus(ctx context.Context, addr string, timeout time.Duration) (st node.Status, err error) {
	cl, err := client.Open(ctx, client.Config{Nodes: []string{addr}, Timeout: timeout})
	if err != nil {
		return st, err
	}
	defer cl.Close()
	n, err := cl.Node(addr)
	if err != nil {
		return st, err
	}
	text, err := n.Status(ctx)
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(text, &st)
}

type routeCmd struct {
	connection
	Request string   `arg:"" optional:"" help:"File with the request as JSON (docs/protocol.md), - for standard input." type:"path"`
	Keys    []string `help:"Keys of the prompt's blocks, in place of a file." placeholder:"KEY"`
	Tokens  int      `help:"Length of the prompt in tokens, with --keys."`
	Explain bool     `help:"Say why."`
}

func (c *routeCmd) Run(a *app) error {
	request, err := c.request()
	if err != nil {
		return err
	}
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	answer, err := cl.RouteJSON(a.ctx, request)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(answer)
	}
	var r cluster.RouteAnswer
	if err := json.Unmarshal(answer, &r); err != nil {
		return err
	}
	if r.Explanation != "" {
		_, err = fmt.Fprintln(a.out, strings.TrimRight(r.Explanation, "\n"))
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s\t%s\n", r.Node, r.Addr)
	return err
}

// request is the JSON to send. Asking from the command line is a dry run: it must
// not weigh on a node.
func (c *routeCmd) request() ([]byte, error) {
	q := map[string]any{}
	switch {
	case c.Request != "" && len(c.Keys) > 0:
		return nil, usage("give a file or --keys, not both")
	case c.Request != "":
		text, err := readFileOrStdin(c.Request)
		if err != nil {
			return nil, usageError{err}
		}
		if err := json.Unmarshal(text, &q); err != nil {
			return nil, usage("%s: %w", c.Request, err)
		}
	case len(c.Keys) > 0:
		for _, k := range c.Keys {
			if _, err := block.ParseKey(k); err != nil {
				return nil, usage("--keys: %w", err)
			}
		}
		q["keys"], q["tokens"] = c.Keys, c.Tokens
	default:
		return nil, usage("give a file with the request, or --keys")
	}
	q["dry_run"], q["explain"] = true, c.Explain
	text, err := json.Marshal(q)
	return text, errors.Join(err)
}
