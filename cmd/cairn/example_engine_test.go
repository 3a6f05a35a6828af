package main

import (
	"slices"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/examples/engine/serving"
	"cairn/sequence"
)

// The example of an engine against real processes: what was computed once is found, also
// at another node, and a node that dies costs time, not answers.
func TestExampleEngine(t *testing.T) {
	s := startSystem(t, systemConfig{nodes: 2, flags: smallNode()})
	cache, err := client.Open(t.Context(), client.Config{Nodes: []string{s.nodes[0].addr, s.nodes[1].addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	model := serving.Model{BlockBytes: 10_000, Vocabulary: 1000}
	e, err := serving.New(serving.Config{
		Cache: cache, Model: model, Tier: block.VRAM, Draft: 3, Namespace: sequence.Namespace{Model: "m", BlockSize: 16},
	})
	if err != nil {
		t.Fatal(err)
	}
	prompt := serving.Words(1, 100)
	serve := func(id string) serving.Answer {
		t.Helper()
		a, err := e.Serve(t.Context(), serving.Request{ID: id, Prompt: prompt, Generate: 50})
		if err != nil {
			t.Fatal(err)
		}
		all := slices.Concat(prompt, a.Tokens)
		if right, _ := model.Verify(prompt, a.Tokens); right != 50 || len(a.Tokens) != 50 {
			t.Fatalf("request %s: %d of %d tokens are right", id, right, len(a.Tokens))
		}
		if blocks := len(all) / 16; a.Cached+a.Computed != blocks {
			t.Errorf("request %s: %d blocks cached and %d computed of %d", id, a.Cached, a.Computed, blocks)
		}
		prompt = all
		return a
	}
	first := serve("r1")
	if first.Cached != 0 || first.Committed != 9 || first.Unwound == 0 {
		t.Errorf("the first request: %+v", first)
	}
	if second := serve("r2"); second.Cached != 9 || second.Committed != 3 {
		t.Errorf("the second request, which begins with the first and its answer: %+v", second)
	}
	for _, n := range s.nodes {
		if n.id == first.Node {
			n.kill()
		}
	}
	if third := serve("r3"); third.Node == first.Node {
		t.Errorf("answered by a node that is dead: %+v", third)
	}
}
