package router

import (
	"cmp"
	"fmt"

	"cairn/block"
)

// Request asks where to send a prompt.
type Request struct {
	// ID, when there is one, lets [Router.Done] end the request. Routing an id
	// again replaces what was routed before.
	ID string `json:"id,omitempty"`
	// Keys names the prompt's whole blocks, in order (package sequence).
	Keys []block.Key `json:"keys"`
	// Tokens is the length of the prompt; 0 means exactly the blocks of Keys.
	Tokens int `json:"tokens,omitempty"`
	// BlockTokens and BlockBytes are the size of these blocks; 0 means those of
	// [Config].
	BlockTokens int   `json:"block_tokens,omitempty"`
	BlockBytes  int64 `json:"block_bytes,omitempty"`
	// Exclude lists nodes that must not be chosen; Only, when not empty, lists
	// all that may. Either way a node may serve as a peer.
	Exclude []string `json:"exclude,omitempty"`
	Only    []string `json:"only,omitempty"`
	// Zone and Labels are what the chosen node's labels must say; Zone is short for the
	// label "zone".
	Zone   string            `json:"zone,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Session, when there is one, keeps the requests that share it on one node while
	// that costs at most [Config].StickyFactor times as much as the cheapest.
	Session string `json:"session,omitempty"`
	// Hash and Salt say how Keys were made; what they say must agree with
	// [Config].Layout and with the node's.
	Hash string `json:"hash_version,omitempty"`
	Salt string `json:"salt,omitempty"`
	// Limit is the largest number of candidates in the answer; 0 means all.
	Limit int `json:"limit,omitempty"`
	// DryRun asks without adding the request to the chosen node's queue.
	DryRun bool `json:"dry_run,omitempty"`
}

// shape is the request in the units of cost.
func (q *Request) shape(c *Config) (shape, error) {
	if q.Tokens < 0 || q.BlockTokens < 0 || q.BlockBytes < 0 || q.Limit < 0 {
		return shape{}, fmt.Errorf("%w: tokens %d, block_tokens %d, block_bytes %d and limit %d must be at least 0",
			ErrRequest, q.Tokens, q.BlockTokens, q.BlockBytes, q.Limit)
	}
	s := shape{
		tokens:      q.Tokens,
		blockTokens: cmp.Or(q.BlockTokens, c.BlockTokens),
		blockBytes:  float64(cmp.Or(q.BlockBytes, c.BlockBytes)),
	}
	whole := len(q.Keys) * s.blockTokens
	if s.tokens == 0 {
		s.tokens = whole
	}
	if s.tokens < whole {
		return shape{}, fmt.Errorf("%w: %d tokens are fewer than the %d of %d blocks of %d: give the prompt's whole length, or correct block_tokens",
			ErrRequest, s.tokens, whole, len(q.Keys), s.blockTokens)
	}
	return s, nil
}

// layout is what the request says of its blocks.
func (q *Request) layout() Layout {
	return Layout{BlockTokens: q.BlockTokens, Hash: q.Hash, Salt: q.Salt}
}
