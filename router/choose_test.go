package router

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

// setNode makes a node with labels visible.
func setNode(t *testing.T, ix *Index, info NodeInfo) {
	t.Helper()
	info.Incarnation = 1
	if err := ix.SetNode(info); err != nil {
		t.Fatal(err)
	}
}

func TestFilters(t *testing.T) {
	ix := newIndex(t, Exact, 0)
	setNode(t, ix, NodeInfo{ID: "a1", Labels: map[string]string{"zone": "a", "gpu": "h200"}})
	setNode(t, ix, NodeInfo{ID: "a2", Labels: map[string]string{"zone": "a", "gpu": "a100"}})
	setNode(t, ix, NodeInfo{ID: "b1", Labels: map[string]string{"zone": "b", "gpu": "h200"}})
	setNode(t, ix, NodeInfo{ID: "old", Labels: map[string]string{"zone": "a", "gpu": "h200"}, Draining: true})
	keys := chain(rand.New(rand.NewPCG(1, 1)), 10)
	mustApply(t, ix, stored("old", 1, block.Host, keys))
	r := newRouter(t, ix, round)
	for name, c := range map[string]struct {
		q    Request
		want []string
		out  LeftOut
	}{
		"all but the draining": {Request{}, []string{"a1", "a2", "b1"}, LeftOut{Draining: 1}},
		"zone":                 {Request{Zone: "a"}, []string{"a1", "a2"}, LeftOut{Draining: 1, Labels: 1}},
		"label":                {Request{Labels: map[string]string{"gpu": "h200"}}, []string{"a1", "b1"}, LeftOut{Draining: 1, Labels: 1}},
		"both":                 {Request{Zone: "b", Labels: map[string]string{"gpu": "h200"}}, []string{"b1"}, LeftOut{Draining: 1, Labels: 2}},
		"empty is not absent":  {Request{Labels: map[string]string{"rack": ""}}, nil, LeftOut{Draining: 1, Labels: 3}},
		"names":                {Request{Only: []string{"a1", "b1", "old"}, Exclude: []string{"a1"}}, []string{"b1"}, LeftOut{Draining: 1, Excluded: 2}},
	} {
		c.q.Keys, c.q.DryRun = keys, true
		d, err := r.Route(c.q, at(0))
		if c.want == nil {
			if !errors.Is(err, ErrNoNodes) || !strings.Contains(err.Error(), c.out.text()) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var got []string
		for _, n := range d.Candidates {
			got = append(got, n.Node)
		}
		if diff := cmp.Diff(c.want, got); diff != "" || d.LeftOut != c.out || err != nil {
			t.Errorf("%s: left out %+v, %v:\n%s", name, d.LeftOut, err, diff)
		}
		if text := d.Explain(); !strings.Contains(text, "left out: "+c.out.text()) {
			t.Errorf("%s: %s", name, text)
		}
		// What drains still serves the others.
		if len(d.Plan) != 1 || d.Plan[0].From != "old" || d.Plan[0].Count != 10 {
			t.Errorf("%s: plan %+v", name, d.Plan)
		}
	}
	// A node is back as soon as it drains no longer.
	setNode(t, ix, NodeInfo{ID: "old", Labels: map[string]string{"zone": "a"}})
	if d := route(t, r, Request{Keys: keys, DryRun: true}, at(0)); d.Node != "old" || d.LeftOut != (LeftOut{}) {
		t.Errorf("%+v", d)
	}
}

func TestLayoutsThatDifferAreRefused(t *testing.T) {
	want := Layout{BlockTokens: 100, Hash: "sha256/1", Salt: "feed"}
	ix, err := NewIndex(IndexConfig{Layout: want})
	if err != nil {
		t.Fatal(err)
	}
	good := NodeInfo{ID: "good", Incarnation: 1, Layout: want}
	if err := ix.SetNode(good); err != nil {
		t.Fatal(err)
	}
	c := round
	c.Layout = want
	r := newRouter(t, ix, c)
	for _, l := range []struct {
		layout          Layout
		field, got, has string
	}{
		{Layout{BlockTokens: 16}, "block_tokens", "16", "100"},
		{Layout{Hash: "xxh3/1"}, "hash_version", "xxh3/1", "sha256/1"},
		{Layout{Salt: "beef"}, "salt", "beef", "feed"},
	} {
		for who, err := range map[string]error{
			"node n": ix.SetNode(NodeInfo{ID: "n", Incarnation: 1, Layout: l.layout}),
			"the request": func() error {
				_, err := r.Route(Request{BlockTokens: l.layout.BlockTokens, Hash: l.layout.Hash, Salt: l.layout.Salt}, at(0))
				return err
			}(),
		} {
			var m *MismatchError
			kind := ErrRequest
			if who == "node n" {
				kind = ErrNode
			}
			if !errors.As(err, &m) || !errors.Is(err, ErrMismatch) || !errors.Is(err, kind) ||
				m.Who != who || m.Field != l.field || m.Want != l.has || m.Got != l.got {
				t.Errorf("%s with %+v: %v", who, l.layout, err)
				continue
			}
			for _, word := range []string{who, l.field, l.has, l.got} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %s", err, word)
				}
			}
		}
	}
	if n := ix.Nodes(); len(n) != 1 {
		t.Errorf("nodes %+v", n)
	}
	// A node that changes its mind is hidden; what says nothing agrees.
	good.Layout.Salt = "other"
	if err := ix.SetNode(good); !errors.Is(err, ErrMismatch) || len(ix.Nodes()) != 0 {
		t.Errorf("%v, %+v", err, ix.Nodes())
	}
	setNode(t, ix, NodeInfo{ID: "silent"})
	if d := route(t, r, Request{Tokens: 10}, at(0)); d.Node != "silent" {
		t.Errorf("%+v", d)
	}
	if err := (Config{BlockTokens: 16, Layout: want}).Validate(); !errors.Is(err, ErrMismatch) {
		t.Errorf("a configuration that contradicts itself: %v", err)
	}
}

// Without a layout of its own, a router keeps a request from nodes whose layout it says
// is another.
func TestRequestsGoToNodesOfTheirLayout(t *testing.T) {
	ix := newIndex(t, Exact, 0)
	setNode(t, ix, NodeInfo{ID: "large", Layout: Layout{BlockTokens: 100}})
	setNode(t, ix, NodeInfo{ID: "small", Layout: Layout{BlockTokens: 16}})
	r := newRouter(t, ix, round)
	d := route(t, r, Request{Tokens: 100, BlockTokens: 16}, at(0))
	if d.Node != "small" || d.LeftOut.Layout != 1 || !strings.Contains(d.Explain(), "1 with blocks of another layout") {
		t.Errorf("%s", d.Explain())
	}
	_, err := r.Route(Request{Tokens: 100, BlockTokens: 32}, at(0))
	var m *MismatchError
	if !errors.Is(err, ErrNoNodes) || !errors.As(err, &m) || m.Want != "100" || m.Got != "32" {
		t.Errorf("nobody has blocks of 32: %v", err)
	}
}

func TestSessionsStayWhileItIsCheap(t *testing.T) {
	ix := newIndex(t, Exact, 2)
	c := round
	c.StickyFactor, c.SessionTTL, c.MaxSessions = 2, 60, 2
	r := newRouter(t, ix, c)
	load := func(node string, tokens int, now float64) {
		t.Helper()
		if err := r.SetLoad(node, tokens, at(now)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(session string, now float64) Decision {
		return route(t, r, Request{Tokens: 1000, Session: session, DryRun: now < 0}, at(max(now, -now)))
	}
	load("node-0", 100, 0)
	if d := ask("s", 0); d.Node != "node-1" || d.Sticky {
		t.Fatalf("%+v", d)
	}
	// node-1 has 500 tokens waiting: 1.5 s against 1 s.
	load("node-0", 0, 1)
	load("node-1", 500, 1)
	d := ask("s", -1)
	if d.Node != "node-1" || !d.Sticky || d.Candidates[1].Node != "node-0" {
		t.Errorf("a session leaves for a third: %+v", d)
	}
	if text := d.Explain(); !strings.Contains(text, "The session stays there; node-0 is cheapest, at 1.00 s.") {
		t.Error(text)
	}
	if d := ask("other", -1); d.Node != "node-0" || d.Sticky {
		t.Errorf("another session: %+v", d)
	}
	// 2.5 s is more than twice as much.
	load("node-1", 1500, 2)
	if d := ask("s", -2); d.Node != "node-0" || d.Sticky {
		t.Errorf("a session stays at any price: %+v", d)
	}
	if d := ask("s", 2); d.Node != "node-0" {
		t.Errorf("%+v", d)
	}
	// From now on it is at home there.
	load("node-0", 500, 3)
	load("node-1", 0, 3)
	if d := ask("s", -3); d.Node != "node-0" || !d.Sticky {
		t.Errorf("it does not follow: %+v", d)
	}
	if d := ask("s", -63); d.Sticky {
		t.Error("it is remembered for too long")
	}
	// Two more sessions drive it out.
	ask("t", 4)
	ask("u", 4)
	if n := len(r.sessions.byID); n != 2 || r.sessions.used.Len() != 2 || r.sessions.at("s", at(4), 60) != "" {
		t.Errorf("%d sessions", n)
	}
	// A node that left or drains loses its sessions.
	node := ask("u", -4).Node
	setNode(t, ix, NodeInfo{ID: node, Draining: true})
	if d := ask("u", -4); d.Node == node || d.Sticky {
		t.Errorf("%+v", d)
	}
}

func TestScorers(t *testing.T) {
	ix := newIndex(t, Exact, 2)
	keys := chain(rand.New(rand.NewPCG(1, 1)), 10)
	mustApply(t, ix, stored("node-0", 1, block.Host, keys))
	for name, want := range map[string]string{ScoreTTFT: "node-1", ScoreAffinity: "node-1", ScorePrefix: "node-0", ScoreLoad: "node-1"} {
		c := round
		var err error
		if c.Scorer, err = NamedScorer(name, ScorerConfig{}); err != nil {
			t.Fatal(err)
		}
		r := newRouter(t, ix, c)
		// Fetching ten blocks takes 51 ms, the queue of node-0 5 s.
		if err := r.SetLoad("node-0", 5000, at(0)); err != nil {
			t.Fatal(err)
		}
		d := route(t, r, Request{Keys: keys, DryRun: true}, at(0))
		first := d.Candidates[0]
		if d.Node != want || !near(first.Cost, first.Terms.Total()) {
			t.Errorf("%s: %+v", name, d.Candidates)
		}
		text := d.Explain()
		if name == ScoreTTFT {
			if d.Scorer != "" || strings.Contains(text, "score") {
				t.Errorf("%s: %s", name, text)
			}
		} else if d.Scorer != name || !strings.Contains(text, "score: "+name) || !strings.Contains(text, "By "+name+", where the least score is first, "+d.Node+" has ") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if _, err := NamedScorer("best", ScorerConfig{}); !errors.Is(err, ErrConfig) {
		t.Errorf("unknown: %v", err)
	}
}
