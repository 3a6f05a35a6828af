package router

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cairn/block"
)

// activeOf is what the router believes that a node decodes.
func activeOf(t *testing.T, r *Router, node string, now time.Time) Active {
	t.Helper()
	return route(t, r, Request{Tokens: 1, Only: []string{node}, DryRun: true}, now).Candidates[0].Active
}

func TestDecodingRequestsCount(t *testing.T) {
	ix := newIndex(t, Exact, 1)
	r := newRouter(t, ix, round)
	check := func(what string, now float64, queue int, active Active) {
		t.Helper()
		if q := queueOf(t, r, "node-0", at(now)); q != queue {
			t.Errorf("%s: %d tokens wait, want %d", what, q, queue)
		}
		if a := activeOf(t, r, "node-0", at(now)); a != active {
			t.Errorf("%s: %+v, want %+v", what, a, active)
		}
	}
	requests := make([]Request, 2)
	for i := range requests {
		requests[i] = Request{ID: string(rune('a' + i)), Keys: someKeys(10 * (i + 1))}
		route(t, r, requests[i], at(0))
	}
	check("routed", 0, 3000, Active{})
	r.Prefilled("a")
	r.Prefilled("a")
	r.Prefilled("unknown")
	check("one decodes", 1, 2000, Active{1, 10})
	report := func(l Load, now float64) {
		t.Helper()
		if err := r.Report("node-0", l, at(now)); err != nil {
			t.Fatal(err)
		}
	}
	report(Load{QueuedTokens: 500}, 2)
	check("a report of the queue covers what waits", 2, 500, Active{1, 10})
	report(Load{Active: &Active{Requests: 4, Blocks: 300}}, 3)
	check("a report of both covers both", 3, 0, Active{4, 300})
	route(t, r, Request{ID: "c", Keys: someKeys(5)}, at(4))
	r.Prefilled("c")
	check("what came after it is added", 5, 0, Active{5, 305})
	r.Done("c")
	r.Done("a")
	check("until it is done", 5, 0, Active{4, 300})
	for _, l := range []Load{{QueuedTokens: -1}, {Active: &Active{Requests: -1}}, {Active: &Active{Blocks: -1}}} {
		if err := r.Report("node-0", l, at(9)); !errors.Is(err, ErrNode) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

// someKeys is some keys; which does not matter.
func someKeys(n int) (keys []block.Key) { return make([]block.Key, n) }

func TestDecodeTerm(t *testing.T) {
	ix := newIndex(t, Exact, 2)
	c := round
	c.ChunkTokens, c.Bandwidth.VRAM = 500, 1e9
	r := newRouter(t, ix, c)
	if err := r.Report("node-0", Load{QueuedTokens: 200, Active: &Active{Requests: 10, Blocks: 30}}, at(0)); err != nil {
		t.Fatal(err)
	}
	d := route(t, r, Request{Tokens: 1000, DryRun: true}, at(0))
	// 1,200 tokens in chunks of 500 leave room for 3 steps of 10 tokens (10 ms) and 30 blocks
	// of 1 ms.
	busy := d.Candidates[1]
	if d.Node != "node-1" || !near(busy.Terms.Decode, 3*(0.010+0.030)) || !near(busy.Cost, 1+0.2+0.12) {
		t.Errorf("%+v", d.Candidates)
	}
	text := d.Explain()
	for _, want := range []string{"+ decode", "120 ms"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	d = route(t, r, Request{Tokens: 1000, Only: []string{"node-0"}, DryRun: true}, at(0))
	if text := d.Explain(); !strings.Contains(text, "beside 10 requests of 30 blocks that it decodes") {
		t.Error(text)
	}
}

// Two routers that tell each other what they decide count alike, whoever decided.
func TestRoutersThatObserveEachOther(t *testing.T) {
	ix := newIndex(t, Exact, 3)
	a, b := newRouter(t, ix, round), newRouter(t, ix, round)
	for i := range 9 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		q := Request{Tokens: 1000 + i, ID: string(rune('a' + i)), Session: string(rune('a' + i%2))}
		d := route(t, from, q, at(0))
		if err := to.Observe(d.Assignment(&q), at(0)); err != nil {
			t.Fatal(err)
		}
	}
	// Alone, each would have made one node's queue a third of its own requests.
	total := 0
	for i := range 3 {
		qa, qb := queueOf(t, a, nodeName(i), at(0)), queueOf(t, b, nodeName(i), at(0))
		if qa != qb {
			t.Errorf("%s: %d and %d tokens", nodeName(i), qa, qb)
		}
		total += qa
	}
	if total != 9036 {
		t.Errorf("%d tokens in all", total)
	}
	if n := a.sessions.at("a", at(0), 60); n == "" || n != b.sessions.at("a", at(0), 60) {
		t.Errorf("session a is at %q and %q", n, b.sessions.at("a", at(0), 60))
	}
	for _, bad := range []Assignment{{}, {Node: "node-0", Tokens: -1}, {Node: "node-0", Blocks: -1}} {
		if err := a.Observe(bad, at(0)); !errors.Is(err, ErrRequest) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// queueOf is what the router believes of a node.
func queueOf(t *testing.T, r *Router, node string, now time.Time) int {
	t.Helper()
	d := route(t, r, Request{Tokens: 1, Only: []string{node}, DryRun: true}, now)
	return d.Candidates[0].QueueTokens
}

func TestQueueEstimate(t *testing.T) {
	ix := newIndex(t, Exact, 1)
	r := newRouter(t, ix, round)
	send := func(id string, tokens int, now time.Time) { route(t, r, Request{ID: id, Tokens: tokens}, now) }
	check := func(what string, now time.Time, want int) {
		t.Helper()
		if got := queueOf(t, r, "node-0", now); got != want {
			t.Errorf("%s: %d tokens, want %d", what, got, want)
		}
	}
	check("at first", at(0), 0)
	send("", 3000, at(0))
	check("routed without an id", at(0), 3000)
	check("it drains at the prefill rate", at(1), 2000)
	check("to nothing", at(9), 0)
	send("a", 500, at(10))
	send("b", 700, at(11))
	check("requests with an id stay", at(12), 1200)
	r.Done("a")
	check("until they are done", at(12), 700)
	r.Done("a")
	r.Done("unknown")
	check("once", at(12), 700)
	send("b", 900, at(12))
	check("routing again replaces", at(12), 900)
	send("c", 100, at(14))
	if err := r.SetLoad("node-0", 5000, at(13)); err != nil {
		t.Fatal(err)
	}
	check("a report covers what was routed before it", at(13), 5100)
	check("and drains", at(15), 3100)
	r.Done("b")
	check("what it covers is not taken off again", at(15), 3100)
	if err := r.SetLoad("node-0", 9999, at(12)); err != nil {
		t.Fatal(err)
	}
	check("an older report is ignored", at(15), 3100)
	check("a request never reported done", at(14+DefaultRoutedTTL), 100)
	check("expires", at(14.1+DefaultRoutedTTL), 0)
	for _, err := range []error{r.SetLoad("", 1, at(0)), r.SetLoad("node-0", -1, at(0))} {
		if !errors.Is(err, ErrNode) {
			t.Error(err)
		}
	}
}

func TestLoadOfDepartedNodesIsForgotten(t *testing.T) {
	ix := newIndex(t, Exact, 1)
	r := newRouter(t, ix, round)
	for i := 1; i < 200; i++ {
		if err := ix.SetNode(NodeInfo{ID: nodeName(i), Incarnation: 1}); err != nil {
			t.Fatal(err)
		}
		route(t, r, Request{ID: nodeName(i), Tokens: 10, Only: []string{nodeName(i)}}, at(0))
		ix.RemoveNode(nodeName(i), 1)
	}
	route(t, r, Request{Tokens: 1}, at(0))
	if len(r.loads) > 20 || len(r.open) > 20 {
		t.Errorf("%d loads and %d requests of nodes that are gone", len(r.loads), len(r.open))
	}
}
