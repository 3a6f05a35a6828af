package main

import (
	"fmt"
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
	namespace := sequence.Namespace{Model: "m", BlockSize: 16}
	e, err := serving.New(serving.Config{
		Cache: cache, Model: model, Tier: block.VRAM, Draft: 3, Namespace: namespace,
	})
	if err != nil {
		t.Fatal(err)
	}
	know := func(what string, keys []block.Key, blocks int) { // an announcement takes its time
		t.Helper()
		for _, n := range s.nodes {
			c, err := client.Open(t.Context(), client.Config{Nodes: []string{n.addr}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			await(t, patience, n.id+" knows "+what, func() error {
				r, err := c.Route(t.Context(), client.RouteRequest{Keys: keys, Tokens: 1000, BlockTokens: 16, DryRun: true})
				if err == nil && (len(r.Candidates) != len(s.nodes) || r.ClusterBlocks != blocks) {
					err = fmt.Errorf("%d candidates, %d blocks", len(r.Candidates), r.ClusterBlocks)
				}
				return err
			})
		}
	}
	know("both nodes", nil, 0)
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
	know("the first request", keysOf(t, namespace, prompt), 9)
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

// keysOf are the keys of the whole blocks of a prompt.
func keysOf(t *testing.T, ns sequence.Namespace, prompt []uint32) []block.Key {
	t.Helper()
	salt, err := ns.Salt()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := sequence.KeysOf(nil, salt, ns.BlockSize, prompt)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
