package router

import (
	"container/list"
	"fmt"
	"math"
	"time"
)

// The queue of a node is estimated from three sources: what the node reported,
// less what it computes in the meantime; the tokens of requests routed without
// an id since then, likewise; and the tokens of requests with an id that are not
// done. A report covers what was routed before it, so nothing counts twice.

// nodeLoad is the estimate for one node. Router.mu guards it.
type nodeLoad struct {
	fluid    float64   // tokens that drain at the node's prefill rate
	at       time.Time // when fluid was right
	open     int       // tokens of requests with an id that are not done
	requests map[*routed]struct{}
	reported time.Time
	assigned uint64 // requests ever routed to the node
}

// routed is a request with an id that was routed and is not done.
type routed struct {
	id     string
	load   *nodeLoad
	tokens int
	at     time.Time
	age    *list.Element // in Router.age
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

// SetLoad takes a node's report: at the time now, prefill of queued tokens was
// waiting or running there. It covers every request routed before now, and those
// without an id that were routed until the report came. A report older than
// the last one is ignored.
func (r *Router) SetLoad(node string, queued int, now time.Time) error {
	if node == "" || queued < 0 {
		return fmt.Errorf("%w %q: load of %d tokens queued", ErrNode, node, queued)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.loadOf(node)
	if now.Before(l.reported) {
		return nil
	}
	l.fluid, l.at, l.reported = float64(queued), now, now
	for q := range l.requests {
		if q.at.Before(now) {
			r.forget(q)
		}
	}
	return nil
}

// Done says that the prefill of the request is over, or that it will not happen.
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
	q.load.open -= q.tokens
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
func (r *Router) assign(id, node string, tokens int, now time.Time) {
	l := r.loadOf(node)
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
	q := &routed{id: id, load: l, tokens: tokens, at: now}
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

// roundCost makes costs that differ by less than a microsecond equal, so that
// ties are ties.
func roundCost(seconds float64) int64 { return int64(math.Round(seconds * 1e6)) }
