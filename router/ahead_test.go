package router

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"cairn/block"
)

// aheadRouter knows a with ten blocks in host memory, b with none, and c with the first
// five on disk.
func aheadRouter(t *testing.T, prefetch string) (*Router, []block.Key) {
	t.Helper()
	ix := newIndex(t, Exact, 0)
	for _, id := range []string{"a", "b", "c"} {
		setNode(t, ix, NodeInfo{ID: id, Addr: id + ":1"})
	}
	keys := chain(rand.New(rand.NewPCG(1, 1)), 10)
	mustApply(t, ix, stored("a", 1, block.Host, keys), stored("c", 1, block.Disk, keys[:5]))
	c := round
	c.Prefetch = prefetch
	return newRouter(t, ix, c), keys
}

// What is fetched ahead costs only what it takes longer than the wait.
func TestPrefetchHidesTransfersBehindTheQueue(t *testing.T) {
	plain, keys := aheadRouter(t, "off")
	ahead, _ := aheadRouter(t, "host")
	q := Request{Keys: keys, DryRun: true}
	terms := func(r *Router, node string) Terms {
		t.Helper()
		d := route(t, r, q, at(0))
		for _, c := range d.Candidates {
			if c.Node == node {
				return c.Terms
			}
		}
		t.Fatalf("%s is no candidate", node)
		return Terms{}
	}
	full := terms(plain, "c")
	if full.Peer == 0 || full.Disk == 0 {
		t.Fatalf("the case has nothing to hide: %+v", full)
	}
	if got := terms(ahead, "c"); got != full {
		t.Errorf("without a queue: %+v, want %+v", got, full)
	}
	rate := plain.Config().PrefillTokensPerSecond
	for _, wait := range []float64{full.Peer / 2, full.Disk / 2, 10} {
		for _, r := range []*Router{plain, ahead} {
			if err := r.SetLoad("c", int(wait*rate), at(0)); err != nil {
				t.Fatal(err)
			}
		}
		p, got := terms(plain, "c"), terms(ahead, "c")
		if p.Peer != full.Peer || p.Disk != full.Disk {
			t.Errorf("without prefetch a wait of %v s hides something: %+v", wait, p)
		}
		if !near(got.Peer, max(0, full.Peer-p.Queue)) || !near(got.Disk, max(0, full.Disk-p.Queue)) || got.Queue != p.Queue {
			t.Errorf("a wait of %v s: %+v, without prefetch %+v", wait, got, p)
		}
	}
}

func TestAhead(t *testing.T) {
	for _, c := range []struct {
		prefetch, node string
		want           *Ahead
		says           string
	}{
		{"off", "b", nil, ""},
		{"", "b", nil, ""},
		{"host", "a", nil, ""},
		{"host", "b", &Ahead{Tier: block.Host, Blocks: 10, Lacking: 10}, "b would be told (this is a dry run) to have blocks 0-9 in host memory before the request comes; it lacks 10 of them there"},
		{"host", "c", &Ahead{Tier: block.Host, Blocks: 10, Lacking: 10}, "c would be told"},
		{"vram", "a", &Ahead{Tier: block.VRAM, Blocks: 10, Lacking: 10}, "in GPU memory"},
	} {
		r, keys := aheadRouter(t, c.prefetch)
		d := route(t, r, Request{Keys: keys, Only: []string{c.node}, DryRun: true}, at(0))
		switch {
		case c.want == nil && d.Ahead != nil, c.want != nil && (d.Ahead == nil || *d.Ahead != *c.want):
			t.Errorf("%s with prefetch %q: %+v, want %+v", c.node, c.prefetch, d.Ahead, c.want)
		}
		text := d.Explain()
		if !strings.Contains(text, c.says) || c.says == "" && strings.Contains(text, "told") {
			t.Errorf("%s with prefetch %q: %s", c.node, c.prefetch, text)
		}
		if d.Ahead != nil {
			d.Ahead.Told = true
			if text := d.Explain(); !strings.Contains(text, c.node+" has been told to have blocks 0-9 in ") {
				t.Errorf("%s: %s", c.node, text)
			}
		}
	}

	// How long the request waits is said, whatever the queue weighs.
	r, keys := aheadRouter(t, "host")
	r.config.QueueWeight = 3
	rate := r.Config().PrefillTokensPerSecond
	if err := r.SetLoad("b", int(2*rate), at(0)); err != nil {
		t.Fatal(err)
	}
	if d := route(t, r, Request{Keys: keys, Only: []string{"b"}, DryRun: true}, at(0)); d.Ahead == nil || !near(d.Ahead.Wait, 2) {
		t.Errorf("%+v", d.Ahead)
	}

	ix := newIndex(t, Exact, 0)
	if _, err := New(ix, Config{Prefetch: "disk"}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), `prefetch is "disk"`) {
		t.Errorf("prefetch to disk: %v", err)
	}
}
