package main

import (
	"bytes"
	"fmt"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/cluster"
	"cairn/router"
	"cairn/sequence"
)

// TestFetchedAheadOfTheRequest: a router sends a prompt past the queue of its holder, and its
// blocks are at the other node before anybody has asked that node for anything.
func TestFetchedAheadOfTheRequest(t *testing.T) {
	t.Parallel()
	// What a router was told of a node's load ends with its lease, which must not lapse here.
	s := startSystem(t, systemConfig{nodes: 2, flags: smallNode("--vram", "0", "--prefetch-hold", "1h", "--lease", "1m")})
	defer s.stop()
	r := s.router()
	r.awaitMembers(2)
	n1, n2 := s.nodes[0], s.nodes[1]
	holder, chosen := s.dial(n1, client.Config{}), s.dial(n2, client.Config{})

	const blocks, size = 20, 64 << 10
	keys, err := sequence.KeysOf(nil, sequence.Salt{}, 1, make([]uint32, blocks))
	if err != nil {
		t.Fatal(err)
	}
	payload := func(i int) []byte { return bytes.Repeat([]byte{byte(i + 1)}, size) }
	var parent block.Key
	for i, k := range keys {
		if _, err := holder.Put(t.Context(), k, parent, payload(i)); err != nil {
			t.Fatal(err)
		}
		parent = k
	}
	if err := postJSON(t.Context(), "http://"+r.addr+"/v1/load", cluster.LoadRequest{Node: "n1", Load: router.Load{QueuedTokens: 1 << 20}}, &struct{}{}); err != nil {
		t.Fatal(err)
	}
	q := cluster.RouteRequest{Request: router.Request{Keys: keys, BlockTokens: 512, BlockBytes: size, DryRun: true}, Explain: true}
	var a cluster.RouteAnswer
	await(t, patience, "the router knows n1's blocks", func() error { // a dry run tells nobody
		a = cluster.RouteAnswer{}
		err := postJSON(t.Context(), "http://"+r.addr+"/v1/route", q, &a)
		if err == nil && (a.Node != "n2" || a.Ahead == nil || a.Ahead.Lacking != blocks || a.Ahead.Told) {
			err = fmt.Errorf("%s: %+v", a.Explanation, a.Ahead)
		}
		return err
	})
	q.DryRun = false
	await(t, patience, "n2 knows them as well", func() error {
		m, err := chosen.Match(t.Context(), keys)
		if err == nil && m.Prefix != blocks {
			err = fmt.Errorf("%+v", m)
		}
		return err
	})
	if err := postJSON(t.Context(), "http://"+r.addr+"/v1/route", q, &a); err != nil || a.Node != "n2" || a.Ahead == nil || !a.Ahead.Told {
		t.Fatalf("%s: %+v, %v", a.Explanation, a.Ahead, err)
	}
	await(t, patience, "the blocks at n2", func() error {
		if p := s.status(n2).Prefetch; p.Blocks["peer"] != blocks || p.Ended == 0 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	if st := s.status(n2); st.Sequences.Opened != 0 || st.Hits+st.Misses != 0 || tierStatus(st, block.Host).Objects != blocks {
		t.Errorf("n2: %+v", st)
	}

	// The request comes.
	q2, m, err := chosen.OpenSequenceKeys(t.Context(), keys)
	if err != nil || m.Local != blocks {
		t.Fatalf("n2 has %d blocks, %v", m.Local, err)
	}
	got, err := q2.Onboard(t.Context(), block.Host, sequence.Range{})
	if err != nil || got.Range.End != blocks || got.From["host"] != blocks {
		t.Errorf("onboarded: %+v, %v", got, err)
	}
	for i, k := range keys {
		b, err := chosen.Get(t.Context(), k, nil)
		if err != nil || !bytes.Equal(b, payload(i)) {
			t.Fatalf("block %d: %v, or wrong bytes", i, err)
		}
	}
	if err := q2.Close(); err != nil {
		t.Error(err)
	}
	if p := s.status(n2).Prefetch; p.Used != blocks {
		t.Errorf("%+v", p)
	}
}
