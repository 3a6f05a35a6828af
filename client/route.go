package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"cairn/block"
)

// RouteRequest asks where to send a prompt.
type RouteRequest struct {
	// Keys are the prompt's whole blocks, in order.
	Keys []block.Key `json:"keys"`
	// Tokens is the length of the prompt; 0 means exactly the blocks of Keys.
	Tokens int `json:"tokens,omitempty"`
	// BlockTokens and BlockBytes are the size of the blocks; 0 means as the
	// router is configured.
	BlockTokens int   `json:"block_tokens,omitempty"`
	BlockBytes  int64 `json:"block_bytes,omitempty"`
	// ID, when there is one, lets Done end the request's weight on its node.
	ID string `json:"id,omitempty"`
	// Exclude lists nodes that must not be chosen.
	Exclude []string `json:"exclude,omitempty"`
	// Zone and Labels are what the chosen node's labels must say.
	Zone   string            `json:"zone,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Session keeps the requests that share it on one node while that is not much dearer
	// than the cheapest.
	Session string `json:"session,omitempty"`
	// DryRun asks without counting the request as waiting at the chosen node.
	DryRun bool `json:"dry_run,omitempty"`
}

// Route is where to send a request.
type Route struct {
	// Node is the id of the best node, and Addr its data-plane address, which
	// Client.Node takes.
	Node string `json:"node"`
	Addr string `json:"addr"`
	// Blocks is how many blocks the request has, ClusterBlocks how many of these,
	// from the first on, the cluster holds.
	Blocks        int `json:"blocks"`
	ClusterBlocks int `json:"cluster_blocks"`
	// Candidates are the nodes, the best first.
	Candidates []Candidate `json:"candidates"`
	// JSON is the whole answer, with every term of every cost and the plan of
	// transfers (docs/protocol.md).
	JSON json.RawMessage `json:"-"`
}

// Candidate is a node and its cost.
type Candidate struct {
	Node string `json:"node"`
	Addr string `json:"addr"`
	// Cost is the estimated time to first token in seconds.
	Cost float64 `json:"cost_seconds"`
}

// maxRouteAnswer bounds a router's answer, in bytes.
const maxRouteAnswer = 16 << 20

// Route asks for the best node: the router of Config.Router, or a node.
func (c *Client) Route(ctx context.Context, q RouteRequest) (Route, error) {
	if q.Keys == nil {
		q.Keys = []block.Key{}
	}
	body, err := json.Marshal(q)
	if err != nil {
		return Route{}, fmt.Errorf("cairn: route: %w", err)
	}
	answer, err := c.RouteJSON(ctx, body)
	if err != nil {
		return Route{}, err
	}
	r := Route{JSON: answer}
	if err := json.Unmarshal(answer, &r); err != nil {
		return Route{}, fmt.Errorf("cairn: route: answer: %w", err)
	}
	if r.Addr == "" {
		return Route{}, fmt.Errorf("cairn: route: %w: the answer names no node", ErrUnavailable)
	}
	return r, nil
}

// RouteJSON is Route for a request and an answer in JSON (docs/protocol.md), which
// can say more: token ids in place of keys, an explanation in words.
func (c *Client) RouteJSON(ctx context.Context, request []byte) (answer json.RawMessage, err error) {
	if c.cfg.Router != "" {
		return c.post(ctx, strings.TrimSuffix(c.cfg.Router, "/")+"/v1/route", request)
	}
	err = c.any(ctx, func(n *Node) error {
		answer, err = n.text(ctx, "route", "CAIRN.ROUTE", request)
		return err
	})
	return answer, err
}

// Done says that a routed request no longer weighs on its node: it is over, or its
// decoding need not count. It matters to routers under load; one that is never told
// forgets the request after a while.
func (c *Client) Done(ctx context.Context, id string) error { return c.done(ctx, id, false) }

// Prefilled says that the prefill of a routed request is over, so that the request no
// longer waits at its node but is being decoded there, until Done.
func (c *Client) Prefilled(ctx context.Context, id string) error { return c.done(ctx, id, true) }

func (c *Client) done(ctx context.Context, id string, decoding bool) error {
	if c.cfg.Router != "" {
		body, err := json.Marshal(struct {
			ID       string `json:"id"`
			Decoding bool   `json:"decoding,omitempty"`
		}{id, decoding})
		if err == nil {
			_, err = c.post(ctx, strings.TrimSuffix(c.cfg.Router, "/")+"/v1/done", body)
		}
		return err
	}
	args := [][]byte{[]byte(id)}
	if decoding {
		args = append(args, []byte("DECODING"))
	}
	// The node that is told tells the others.
	return c.any(ctx, func(n *Node) error { return n.command(ctx, "done", "CAIRN.DONE", args...) })
}

func (c *Client) post(ctx context.Context, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cairn: route: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cairn: route: %w: %w", ErrUnavailable, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxRouteAnswer))
	if err != nil {
		return nil, fmt.Errorf("cairn: route: %w: %w", ErrUnavailable, err)
	}
	if res.StatusCode == http.StatusOK {
		return answer, nil
	}
	var problem struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(answer, &problem) != nil || problem.Error == "" {
		problem.Error = res.Status
	}
	err = errors.New(problem.Error)
	if res.StatusCode >= http.StatusInternalServerError {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil, fmt.Errorf("cairn: route at %s: %w", c.cfg.Router, err)
}
