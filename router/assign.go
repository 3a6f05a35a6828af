package router

import (
	"fmt"
	"time"

	"cairn/block"
)

// Assignment is what others need to know of a decision: routers that share nodes tell
// each other, so that each counts what all have sent.
type Assignment struct {
	ID      string `json:"id,omitempty"` // of the request, as given to Route
	Node    string `json:"node"`
	Session string `json:"session,omitempty"`
	// Tokens is how many the node has to compute, Blocks the length of the prompt in
	// whole blocks.
	Tokens int `json:"tokens"`
	Blocks int `json:"blocks"`
	// Keys is what the node is taken to hold from now on, if it announces nothing.
	Keys []block.Key `json:"keys,omitempty"`
}

// Assignment is what the decision does to the chosen node.
func (d *Decision) Assignment(q *Request) Assignment {
	a := Assignment{ID: q.ID, Node: d.Node, Session: q.Session, Tokens: d.Candidates[0].PrefillTokens, Blocks: len(q.Keys)}
	if d.Learned {
		a.Keys = q.Keys
	}
	return a
}

// Observe takes over what another router has decided, at the time now, as if this one
// had. A node that it does not know is no error.
func (r *Router) Observe(a Assignment, now time.Time) error {
	if a.Node == "" || a.Tokens < 0 || a.Blocks < 0 {
		return fmt.Errorf("%w: assignment of %d tokens and %d blocks to node %q", ErrRequest, a.Tokens, a.Blocks, a.Node)
	}
	r.mu.Lock()
	r.expire(now)
	r.take(&a, now)
	r.mu.Unlock()
	r.learn(a.Node, a.Keys, now)
	return nil
}

// learn takes the blocks of a request for held by the node that it was sent to, and
// forgets what was learned long ago.
func (r *Router) learn(node string, keys []block.Key, now time.Time) bool {
	ttl := r.config.LearnTTL
	if ttl == 0 || len(keys) == 0 {
		return false
	}
	r.mu.Lock()
	due := now.Sub(r.aged).Seconds() >= ttl/2
	if due {
		r.aged = now
	}
	r.mu.Unlock()
	if due {
		// Without slots for all nodes, some forget later.
		_ = r.index.Age()
	}
	return r.index.Learn(node, keys)
}

// take counts a request where it was sent. Router.mu is held.
func (r *Router) take(a *Assignment, now time.Time) {
	r.assign(a, now)
	if a.Session != "" {
		r.sessions.put(a.Session, a.Node, now, r.config.SessionTTL, r.config.MaxSessions)
	}
}
