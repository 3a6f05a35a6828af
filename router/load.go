package router

import (
	"container/list"
	"fmt"
	"time"
)

// The load of a node is estimated from three sources: what the node reported, its queue
// less what it computes in the meantime; the tokens of requests routed without
// an id since then, likewise; and the requests with an id that are not done. Of
// these, a request's tokens wait until its prefill is over, and its blocks are active
// from then on. A report covers what was routed before it, so nothing counts twice.

// Active is what a node is decoding.
type Active struct {
	Requests int `json:"requests"`
	Blocks   int `json:"blocks"` // of all of them together
}

// Load is a node's report of what it has to do.
type Load struct {
	// QueuedTokens is how many tokens wait for prefill or are in it.
	QueuedTokens int `json:"queued_tokens"`
	// Active is what is being decoded; nil when the node does not say.
	Active *Active `json:"active,omitempty"`
}

// nodeLoad is the estimate for one node. Router.mu guards it.
type nodeLoad struct {
	fluid    float64   // tokens that drain at the node's prefill rate
	at       time.Time // when fluid was right
	open     int       // tokens of requests with an id whose prefill is not over
	told     Active    // as the node reported it
	active   Active    // requests with an id that are being decoded
	requests map[*routed]struct{}
	reported time.Time
	assigned uint64 // requests ever routed to the node
}

// routed is a request with an id that was routed and is not done.
type routed struct {
	id       string
	load     *nodeLoad
	tokens   int
	blocks   int
	decoding bool
	at       time.Time
	age      *list.Element // in Router.age
}

// loadOf is the estimate for a node, made when there is none. Router.mu is held.
func (r *Router) loadOf(node string) *nodeLoad {
	l := r.loads[node]
	if l == nil {
		l = &nodeLoad{requests: map[*routed]struct{}{}}
		r.loads[node] = l
	}
	return l
}

// drain brings fluid up to date.
func (l *nodeLoad) drain(now time.Time, rate float64) {
	if d := now.Sub(l.at).Seconds(); d > 0 {
		l.fluid = max(0, l.fluid-d*rate)
		l.at = now
	}
}

// tokens is the estimated queue.
func (l *nodeLoad) tokens() float64 { return l.fluid + float64(l.open) }

// decoding is what the node is estimated to decode.
func (l *nodeLoad) decoding() Active {
	return Active{Requests: l.told.Requests + l.active.Requests, Blocks: l.told.Blocks + l.active.Blocks}
}

// SetLoad takes a node's report that prefill of queued tokens was waiting or running
// there at the time now; see [Router.Report].
func (r *Router) SetLoad(node string, queued int, now time.Time) error {
	return r.Report(node, Load{QueuedTokens: queued}, now)
}

// Report takes a node's report of its load at the time now. It covers every request
// routed before now that waits for prefill, and those without an id that were routed
// until the report came; one that says what is active covers those that are being decoded
// as well. A report older than the last one is ignored.
func (r *Router) Report(node string, load Load, now time.Time) error {
	active := Active{}
	if load.Active != nil {
		active = *load.Active
	}
	if node == "" || load.QueuedTokens < 0 || active.Requests < 0 || active.Blocks < 0 {
		return fmt.Errorf("%w %q: load of %d tokens queued, %d requests with %d blocks active",
			ErrNode, node, load.QueuedTokens, active.Requests, active.Blocks)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.loadOf(node)
	if now.Before(l.reported) {
		return nil
	}
	l.fluid, l.at, l.reported = float64(load.QueuedTokens), now, now
	if load.Active != nil {
		l.told = active
	}
	for q := range l.requests {
		if q.at.Before(now) && (!q.decoding || load.Active != nil) {
			r.forget(q)
		}
	}
	return nil
}

// Prefilled says that the prefill of the request is over and that it is being decoded
// until [Router.Done]. An unknown id is no error.
func (r *Router) Prefilled(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := r.open[id]; q != nil && !q.decoding {
		q.decoding = true
		q.load.open -= q.tokens
		q.load.active.Requests++
		q.load.active.Blocks += q.blocks
	}
}

// Done says that the request weighs on its node no longer: it is over, or its decoding
// need not count, or it will not happen.
// An unknown id, or one that a report has covered, is no error.
func (r *Router) Done(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := r.open[id]; q != nil {
		r.forget(q)
	}
}

// forget ends a routed request. Router.mu is held.
func (r *Router) forget(q *routed) {
	delete(r.open, q.id)
	delete(q.load.requests, q)
	r.age.Remove(q.age)
	if q.decoding {
		q.load.active.Requests--
		q.load.active.Blocks -= q.blocks
	} else {
		q.load.open -= q.tokens
	}
}

// expire ends routed requests that were never reported done. Router.mu is held.
func (r *Router) expire(now time.Time) {
	for e := r.age.Front(); e != nil; e = r.age.Front() {
		q := e.Value.(*routed)
		if now.Sub(q.at).Seconds() <= r.config.RoutedTTL {
			return
		}
		r.forget(q)
	}
}

// assign adds a request to the queue of a node. Router.mu is held.
func (r *Router) assign(a *Assignment, now time.Time) {
	id, tokens := a.ID, a.Tokens
	l := r.loadOf(a.Node)
	l.assigned++
	if id == "" {
		l.fluid += float64(tokens)
		if l.at.Before(now) {
			l.at = now
		}
		return
	}
	if q := r.open[id]; q != nil {
		// The request was routed again, elsewhere or with another overlap.
		r.forget(q)
	}
	q := &routed{id: id, load: l, tokens: tokens, blocks: a.Blocks, at: now}
	q.age = r.age.PushBack(q)
	r.open[id] = q
	l.requests[q] = struct{}{}
	l.open += tokens
}

// forgetDeparted drops the load of nodes that the index no longer shows, now and
// then. Router.mu is held.
func (r *Router) forgetDeparted(v *view) {
	if len(r.loads) <= 2*len(v.list)+16 {
		return
	}
	here := make(map[string]bool, len(v.list))
	for i := range v.list {
		here[v.list[i].ID] = true
	}
	for id, l := range r.loads {
		if !here[id] {
			for q := range l.requests {
				r.forget(q)
			}
			delete(r.loads, id)
		}
	}
}
