package router

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestCostTable(t *testing.T) {
	vram, host, disk := TierBlocks{1, 0, 0}, TierBlocks{0, 1, 0}, TierBlocks{0, 0, 1}
	times := func(b TierBlocks, n int) TierBlocks { return TierBlocks{b[0] * n, b[1] * n, b[2] * n} }
	slow := round
	slow.Bandwidth.Disk, slow.Bandwidth.Peer = 1e6, 5e6 // a block takes 1 s from disk, 0.2 s from a peer
	alone := round
	alone.NoPeers = true
	heavy := round
	heavy.QueueWeight = 3
	for _, c := range []struct {
		name   string
		config Config
		match  Match
		own    Overlap
		queue  float64
		want   Candidate
	}{
		{name: "nothing cached", config: round,
			want: Candidate{Terms: Terms{Prefill: 1}, PrefillTokens: 1000}},
		{name: "queue ahead", config: round, queue: 500,
			want: Candidate{Terms: Terms{Queue: 0.5, Prefill: 1}, PrefillTokens: 1000, QueueTokens: 500}},
		{name: "queue weight", config: heavy, queue: 500,
			want: Candidate{Terms: Terms{Queue: 1.5, Prefill: 1}, PrefillTokens: 1000, QueueTokens: 500}},
		{name: "own host", config: round, match: Match{Blocks: 4, Tiers: times(host, 4)},
			own:  Overlap{Prefix: 4, PrefixTiers: times(host, 4), Held: times(host, 4), best: times(host, 4)},
			want: Candidate{Terms: Terms{Prefill: 0.6, Host: 0.004}, Prefix: 4, Cached: 4, Overlap: times(host, 4), PrefillTokens: 600}},
		{name: "own disk, though a peer has it in memory", config: round, match: Match{Blocks: 4, Tiers: times(vram, 4)},
			own:  Overlap{Prefix: 4, PrefixTiers: times(disk, 4), Held: times(disk, 4), best: times(vram, 4)},
			want: Candidate{Terms: Terms{Prefill: 0.6, Disk: 0.04}, Prefix: 4, Cached: 4, Overlap: times(disk, 4), PrefillTokens: 600}},
		{name: "peers hold all", config: round, match: Match{Blocks: 10, Tiers: times(host, 10)},
			want: Candidate{Terms: Terms{Prefill: 0.001, Peer: 0.051}, Cached: 10, Peers: 10, PrefillTokens: 1}},
		{name: "a peer's disk is slower than the network", config: round, match: Match{Blocks: 2, Tiers: times(disk, 2)},
			want: Candidate{Terms: Terms{Prefill: 0.8, Peer: 0.021}, Cached: 2, Peers: 2, PrefillTokens: 800}},
		{name: "own prefix, a hole that a peer fills, own again", config: round, match: Match{Blocks: 6, Tiers: times(host, 6)},
			own:  Overlap{Prefix: 2, PrefixTiers: times(host, 2), Held: times(host, 5), best: times(host, 5)},
			want: Candidate{Terms: Terms{Prefill: 0.4, Host: 0.005, Peer: 0.006}, Prefix: 2, Cached: 6, Overlap: times(host, 5), Peers: 1, PrefillTokens: 400}},
		{name: "own disk, then peers' memory, which also has the former", config: round, match: Match{Blocks: 6, Tiers: times(host, 6)},
			own:  Overlap{Prefix: 4, PrefixTiers: times(disk, 4), Held: times(disk, 4), best: times(host, 4)},
			want: Candidate{Terms: Terms{Prefill: 0.4, Disk: 0.04, Peer: 0.011}, Prefix: 4, Cached: 6, Overlap: times(disk, 4), Peers: 2, PrefillTokens: 400}},
		{name: "no peers", config: alone, match: Match{Blocks: 6, Tiers: times(host, 6)},
			own:  Overlap{Prefix: 2, PrefixTiers: times(host, 2), Held: times(host, 5), best: times(host, 5)},
			want: Candidate{Terms: Terms{Prefill: 0.8, Host: 0.002}, Prefix: 2, Cached: 2, Overlap: times(host, 2), PrefillTokens: 800}},
		{name: "fetching is slower than computing", config: slow, match: Match{Blocks: 6, Tiers: times(host, 6)},
			own:  Overlap{Prefix: 2, PrefixTiers: times(host, 2), Held: times(host, 2), best: times(host, 2)},
			want: Candidate{Terms: Terms{Prefill: 0.8, Host: 0.002}, Prefix: 2, Cached: 2, Overlap: times(host, 2), PrefillTokens: 800}},
		{name: "even the own disk is", config: slow, match: Match{Blocks: 2, Tiers: times(disk, 2)},
			own:  Overlap{Prefix: 2, PrefixTiers: times(disk, 2), Held: times(disk, 2), best: times(disk, 2)},
			want: Candidate{Terms: Terms{Prefill: 1}, Prefix: 2, PrefillTokens: 1000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.config.withDefaults()
			d := got.cost(shape{tokens: 1000, blockTokens: 100, blockBytes: 1e6}, &c.match, &c.own, c.queue, 1000, Active{})
			c.want.Cost = c.want.Terms.Total()
			d.Terms.VRAM = 0
			if diff := cmp.Diff(c.want, d, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	_, err := New(newIndex(t, Exact, 0), Config{PrefillTokensPerSecond: -1, BlockTokens: -1, Temperature: math.NaN()})
	if !errors.Is(err, ErrConfig) {
		t.Fatal(err)
	}
	for _, name := range []string{"prefill_tokens_per_second", "block_tokens", "temperature_seconds"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not mention %s", err, name)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}
