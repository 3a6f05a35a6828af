package main

import (
	"testing"
	"time"

	"cairn/node"
)

// TestBenchOnboard: every case measures something, for either tier.
func TestBenchOnboard(t *testing.T) {
	for _, to := range []string{"vram", "host"} {
		c := benchOnboardCmd{Blocks: 20, Size: 60 << 10, To: to, Transfers: 2, Batch: 3, Rounds: 3, Dir: t.TempDir()}
		list := resultsOf[onboardResult](t, c.Run)
		if len(list) != 4 {
			t.Fatalf("%d results", len(list))
		}
		for i, r := range list {
			if r.MBps <= 0 || r.Low > r.MBps || r.High < r.MBps || (r.Of > 0) != (i < 2) || (r.Faster > 0) != (i == 3) {
				t.Errorf("%s: %+v", to, r)
			}
		}
	}
	for _, c := range []benchOnboardCmd{{}, {Blocks: 1, Size: 0, Transfers: 1, Batch: 1, Rounds: 1}, {Blocks: 1 << 20, Size: 1 << 20, Transfers: 1, Batch: 1, Rounds: 1}} {
		if err := c.Run(&app{}); exitCode(err) != exitUsage {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestSequenceFlags(t *testing.T) {
	cfg, err := nodeDefaults("--sequence-batch", "7", "--sequence-pins", "0.25")
	if err != nil {
		t.Fatal(err)
	}
	var got node.Config
	cfg.Sequence.apply(&got)
	if err := cfg.Sequence.validate(); err != nil || got.SequenceBatch != 7 || got.SequencePins != 0.25 || got.Sequences != 1024 ||
		got.Prefetches != 2 || got.PrefetchQueue != 64 || got.PrefetchPins != 0.25 || got.PrefetchHold != 5*time.Second || got.KeepWithin != 2*time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	for _, args := range [][]string{{"--sequence-pins", "0"}, {"--sequence-pins", "1.5"}, {"--sequence-pins", "NaN"}, {"--max-sequences", "0"}, {"--sequence-idle", "-1s"},
		{"--prefetch-pins", "2"}, {"--max-prefetches", "0"}, {"--prefetch-queue", "-1"}, {"--prefetch-hold", "0s"}, {"--keep-within", "-1s"}} {
		cfg, err := nodeDefaults(args...)
		if err == nil {
			err = cfg.Sequence.validate()
		}
		if err == nil {
			t.Errorf("%q: taken", args)
		}
	}
}
