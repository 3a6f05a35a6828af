package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
	"cairn/internal/trace"
)

// requests makes a trace of the given blocks, a second apart.
func requests(ids ...[]uint64) iter.Seq2[trace.Request, error] {
	return func(yield func(trace.Request, error) bool) {
		for i, r := range ids {
			if !yield(trace.Request{Arrival: time.Duration(i) * time.Second, Input: len(r) * trace.BlockTokens, IDs: r}, nil) {
				return
			}
		}
	}
}

func play(t *testing.T, c *fakeCluster, requests iter.Seq2[trace.Request, error], cfg Config) Summary {
	t.Helper()
	cfg.BlockBytes = or(cfg.BlockBytes, 64)
	s, err := Run(t.Context(), requests, c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// With room enough, whatever the number of workers, every block is put once and
// the hits are exactly those of an infinite cache, at every moment of a run in order.
func TestEqualsBound(t *testing.T) {
	bound, err := trace.Measure(trace.Bundled())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ nodes, workers int }{{1, 1}, {3, 8}, {4, 64}} {
		t.Run(fmt.Sprintf("%d nodes, %d workers", c.nodes, c.workers), func(t *testing.T) {
			cluster := newFake(c.nodes, 0)
			s := play(t, cluster, trace.Bundled(), Config{Workers: c.workers, Status: cluster.status})
			if s.Hits != bound.Hits || s.BoundHits != bound.Hits || s.Requests != bound.Requests || s.References != bound.References {
				t.Errorf("%d hits of %d in %d requests, bound %d; want %+v", s.Hits, s.References, s.Requests, s.BoundHits, bound)
			}
			if s.LocalHits+s.PeerHits != s.Hits || int64(s.Hits) != s.BlocksRead || s.BytesRead != 64*s.BlocksRead {
				t.Errorf("%d local and %d peer hits of %d, %d read", s.LocalHits, s.PeerHits, s.Hits, s.BlocksRead)
			}
			if s.Puts != int64(bound.Distinct) || s.DistinctStored != s.Puts || s.DuplicatePuts != 0 || s.PutsExisted != 0 || s.WarmHits != 0 {
				t.Errorf("%d puts of %d blocks, %d again, %d there already, %d warm", s.Puts, bound.Distinct, s.DuplicatePuts, s.PutsExisted, s.WarmHits)
			}
			if len(cluster.orphan) > 0 {
				t.Errorf("put before its parent: %v", cluster.orphan[0])
			}
			var served int64
			for _, h := range s.TierHits {
				served += h.Hits
			}
			if served != int64(s.Hits) {
				t.Errorf("tiers served %d of %d", served, s.Hits)
			}
			if n := len(s.Series); n < seriesPoints/2 || n > seriesPoints {
				t.Errorf("series of %d points", n)
			}
			last := s.Series[len(s.Series)-1]
			if last.Requests != s.Requests || last.HitRatio != s.HitRatio || last.Bound != s.BoundRatio {
				t.Errorf("the series ends with %+v", last)
			}
			for _, p := range s.Series {
				if p.HitRatio != p.Bound || p.WindowHit != p.WindowBound {
					t.Fatalf("off the bound: %+v", p)
				}
			}
			if s.Latency.Put.Count != s.Puts || s.Latency.ReadBlock.Count != s.BlocksRead || s.Latency.Read.Count == 0 {
				t.Errorf("latencies of %d puts and %d blocks", s.Latency.Put.Count, s.Latency.ReadBlock.Count)
			}
		})
	}
}

// The whole trace, whose figures are published in its README, with eight workers.
func TestWholeConversationTrace(t *testing.T) {
	const variable = "CAIRN_TRACE"
	path := os.Getenv(variable)
	if path == "" {
		t.Skipf("set %s to Mooncake's conversation_trace.jsonl to play the whole trace", variable)
	}
	s := play(t, newFake(4, 0), trace.ReadFile(path, trace.Limits{}), Config{})
	if s.Hits != 105710 || s.BoundHits != 105710 || s.References != 288500 || s.DistinctStored != 182790 || s.DuplicatePuts != 0 || s.PutsExisted != 0 {
		t.Errorf("%d hits of %d, bound %d, %d stored, %d again, %d there", s.Hits, s.References, s.BoundHits, s.DistinctStored, s.DuplicatePuts, s.PutsExisted)
	}
}

func TestSmallCacheStaysUnderBound(t *testing.T) {
	cluster := newFake(3, 800)
	s := play(t, cluster, trace.Bundled(), Config{})
	if s.Hits == 0 || s.Hits >= s.BoundHits {
		t.Errorf("%d hits, bound %d", s.Hits, s.BoundHits)
	}
	if s.DuplicatePuts == 0 || int(s.Puts) != s.References-s.Hits || s.Hits+int(s.Puts) != s.References {
		t.Errorf("%d hits and %d puts, %d again, of %d", s.Hits, s.Puts, s.DuplicatePuts, s.References)
	}
}

// A block that goes away between match and read is a miss, and is put again.
func TestEvictedBetweenMatchAndRead(t *testing.T) {
	cluster := newFake(1, 3)
	cluster.stale = true
	s := play(t, cluster, requests([]uint64{1, 2, 3}, []uint64{1, 7, 8}, []uint64{1, 2, 3}), Config{Workers: 1})
	// The second evicts 2 and 3, and 1 is then the newest but two: 8, 7, 1.
	if s.Hits != 2 || s.BoundHits != 4 || s.Gaps != 1 || s.DuplicatePuts != 2 || s.Puts != 7 {
		t.Errorf("%d hits, bound %d, %d gaps, %d puts, %d of them again", s.Hits, s.BoundHits, s.Gaps, s.Puts, s.DuplicatePuts)
	}
}

func TestSecondRunIsWarm(t *testing.T) {
	cluster := newFake(2, 0)
	trace := requests([]uint64{1, 2, 3}, []uint64{1, 4})
	play(t, cluster, trace, Config{})
	s := play(t, cluster, trace, Config{})
	if s.Hits != 5 || s.WarmHits != 4 || s.Puts != 0 {
		t.Errorf("%d hits, %d warm, %d puts", s.Hits, s.WarmHits, s.Puts)
	}
	for name, cfg := range map[string]Config{"salt": {Salt: "again"}, "block size": {BlockBytes: 100}} {
		if s := play(t, cluster, trace, cfg); s.Hits != 1 || s.WarmHits != 0 {
			t.Errorf("another %s: %d hits, %d warm", name, s.Hits, s.WarmHits)
		}
	}
}

// A request waits for an earlier one that puts its blocks, and for no other.
func TestWaitsForTheOneThatPuts(t *testing.T) {
	first, err := trace.Key("/64", 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		cluster := newFake(1, 0)
		var routes, puts atomic.Int32
		release, done := make(chan struct{}), make(chan Summary)
		cluster.onOp = func(_ context.Context, _, op string) error {
			if op == "route" {
				routes.Add(1)
			}
			return nil
		}
		cluster.onPut = func(k block.Key) {
			if k == first {
				<-release
			}
			puts.Add(1)
		}
		go func() {
			s, err := Run(t.Context(), requests([]uint64{1, 2}, []uint64{1, 2, 3}, []uint64{9}), cluster, Config{BlockBytes: 64, Workers: 3})
			if err != nil {
				t.Error(err)
			}
			done <- s
		}()
		synctest.Wait()
		// The first hangs in its first put, the third is over, the second waits.
		if routes.Load() != 2 || puts.Load() != 1 {
			t.Errorf("%d requests are on their way and %d puts done; want 2 and 1", routes.Load(), puts.Load())
		}
		close(release)
		if s := <-done; s.Hits != 2 || s.Puts != 4 || s.DuplicatePuts != 0 || s.PutsExisted != 0 {
			t.Errorf("%d hits, %d puts, %d again, %d there", s.Hits, s.Puts, s.DuplicatePuts, s.PutsExisted)
		}
	})
}

func TestWrongBytesAreFound(t *testing.T) {
	tr := requests([]uint64{1, 2, 3}, []uint64{1, 2, 3})
	var bad block.Key
	for r := range tr {
		keys, err := r.Keys(nil, "/64")
		if err != nil {
			t.Fatal(err)
		}
		bad = keys[1]
	}
	for name, c := range map[string]struct {
		damage func([]byte) []byte
		want   WrongBlock
	}{
		"a flipped bit": {func(p []byte) []byte { p[40] ^= 1; return p }, WrongBlock{Key: bad, Node: "node-1", Length: 64, Bytes: 1, First: 40}},
		"cut short":     {func(p []byte) []byte { return p[:10] }, WrongBlock{Key: bad, Node: "node-1", Length: 10, Bytes: 64}},
		"too long":      {func(p []byte) []byte { return append(p, 0) }, WrongBlock{Key: bad, Node: "node-1", Length: 65, Bytes: 64}},
		"empty":         {func(p []byte) []byte { return nil }, WrongBlock{Key: bad, Node: "node-1", Length: 0, Bytes: 64}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newFake(1, 0)
			cluster.onRead = func(_ string, k block.Key, p []byte) []byte {
				if k == bad {
					return c.damage(p)
				}
				return p
			}
			s, err := Run(t.Context(), tr, cluster, Config{BlockBytes: 64})
			if !errors.Is(err, ErrWrongBytes) {
				t.Fatalf("got %v, want ErrWrongBytes", err)
			}
			if d := cmp.Diff([]WrongBlock{c.want}, s.Wrong); d != "" || s.WrongBlocks != 1 || s.WrongBytes != int64(c.want.Bytes) {
				t.Errorf("%d blocks, %d bytes: %s", s.WrongBlocks, s.WrongBytes, d)
			}
			if s.Hits != 1 || s.Requests != 2 {
				t.Errorf("%d hits in %d requests: what follows a wrong block is no hit", s.Hits, s.Requests)
			}
			if !strings.Contains(s.Verdict(), "WRONG") {
				t.Errorf("the verdict hides it: %s", s.Verdict())
			}
		})
	}
}

func TestDeadNodeIsAvoided(t *testing.T) {
	for _, op := range []string{"match", "read", "put"} {
		t.Run(op, func(t *testing.T) {
			cluster := newFake(3, 0)
			var calls atomic.Int32
			cluster.onOp = func(_ context.Context, node, o string) error {
				if node == "node-2" && o == op && calls.Add(1) > 5 {
					return errDown
				}
				return nil
			}
			kind := func(err error) string {
				if errors.Is(err, errDown) {
					return "down"
				}
				return ""
			}
			s := play(t, cluster, trace.Bundled(), Config{ErrorKind: kind})
			if s.FailedRequests != 0 || s.Requests != 1000 || s.WrongBlocks != 0 {
				t.Errorf("%d of %d requests failed", s.FailedRequests, s.Requests)
			}
			if n := s.Errors[op+": down"]; n == 0 || len(s.Errors) != 1 {
				t.Errorf("errors are %v", s.Errors)
			}
			// Data of the fake survives, so a second attempt finds what the first put:
			// these are no hits.
			if s.Hits > s.BoundHits || s.WarmHits != 0 {
				t.Errorf("%d hits, bound %d, %d warm", s.Hits, s.BoundHits, s.WarmHits)
			}
		})
	}
}

func TestRequestThatFailsEverywhereIsLeft(t *testing.T) {
	cluster := newFake(2, 0)
	poison, err := trace.Key("/64", 666, 0)
	if err != nil {
		t.Fatal(err)
	}
	failing := &failing{fakeCluster: cluster, key: poison}
	var ids [][]uint64
	for i := range uint64(50) {
		ids = append(ids, []uint64{1, 100 + i})
	}
	ids[3] = []uint64{666, 2}
	synctest.Test(t, func(t *testing.T) {
		s, err := Run(t.Context(), requests(ids...), failing, Config{BlockBytes: 64, Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		if s.FailedRequests != 1 || s.Requests != 50 || s.Hits != 48 {
			t.Errorf("%d of %d requests failed, %d hits", s.FailedRequests, s.Requests, s.Hits)
		}
		if s.Errors["route: other"] == 0 {
			t.Errorf("errors are %v", s.Errors)
		}
	})
}

// failing refuses to route requests that begin with one key.
type failing struct {
	*fakeCluster
	key block.Key
}

func (f *failing) Route(ctx context.Context, keys []block.Key, tokens int, avoid []string) (string, func(), error) {
	if keys[0] == f.key {
		return "", nil, errDown
	}
	time.Sleep(10 * time.Millisecond) // in a bubble: others succeed while one waits
	return f.fakeCluster.Route(ctx, keys, tokens, avoid)
}

func TestGivesUpOnADeadCluster(t *testing.T) {
	cluster := newFake(3, 0)
	var calls atomic.Int32
	cluster.onOp = func(_ context.Context, node, op string) error {
		if calls.Add(1) > 40 {
			return errDown
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s, err := Run(t.Context(), trace.Bundled(), cluster, Config{BlockBytes: 64, GiveUp: 5 * time.Second})
		if !errors.Is(err, ErrClusterDown) || !errors.Is(err, errDown) {
			t.Fatalf("got %v, want ErrClusterDown", err)
		}
		if d := time.Since(began); d < 5*time.Second || d > 7*time.Second {
			t.Errorf("gave up after %v", d)
		}
		if !s.Interrupted || s.Requests > 40 {
			t.Errorf("interrupted %v after %d requests", s.Interrupted, s.Requests)
		}
	})
}

func TestHangingNodeTimesOut(t *testing.T) {
	cluster := newFake(2, 0)
	cluster.onOp = func(ctx context.Context, node, op string) error {
		if node == "node-1" && op == "match" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		s := play(t, cluster, requests([]uint64{1}, []uint64{2}), Config{OpTimeout: time.Second})
		if s.Errors["match: timeout"] == 0 || s.FailedRequests != 0 || s.Puts != 2 {
			t.Errorf("errors %v, %d puts", s.Errors, s.Puts)
		}
	})
}

func TestCancelKeepsWhatWasDone(t *testing.T) {
	cluster := newFake(2, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var routes atomic.Int32
	cluster.onOp = func(_ context.Context, _, op string) error {
		if op == "route" && routes.Add(1) == 100 {
			cancel()
		}
		return nil
	}
	s, err := Run(ctx, trace.Bundled(), cluster, Config{BlockBytes: 64, Status: cluster.status})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if !s.Interrupted || s.Requests == 0 || s.Requests > 100 || s.FailedRequests != 0 || len(s.Errors) != 0 {
		t.Errorf("interrupted %v, %d requests, %d failed, errors %v", s.Interrupted, s.Requests, s.FailedRequests, s.Errors)
	}
	if len(s.Samples) < 2 {
		t.Error("the last state of the tiers is missing")
	}
}

func TestSpeedFollowsTheTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := play(t, newFake(1, 0), requests([]uint64{1}, []uint64{2}, []uint64{3}), Config{Speed: 4})
		if d := time.Since(began); d != 500*time.Millisecond || s.Requests != 3 {
			t.Errorf("%d requests over two seconds took %v at four times the speed", s.Requests, d)
		}
	})
}

func TestBadTraceEndsTheRun(t *testing.T) {
	s, err := Run(t.Context(), trace.Read(strings.NewReader(`{"timestamp": 0, "input_length": 512, "output_length": 0, "hash_ids": [1]}
oops
`), trace.Limits{}), newFake(1, 0), Config{BlockBytes: 64})
	if !errors.Is(err, trace.ErrFormat) || !strings.Contains(err.Error(), "line 2") || s.Requests != 1 {
		t.Errorf("%d requests, %v", s.Requests, err)
	}
}

func TestConfigReportsEverything(t *testing.T) {
	_, err := Run(t.Context(), trace.Bundled(), newFake(1, 0), Config{
		Workers: -1, BlockBytes: block.MaxLength + 1, ReadBatch: -1, Speed: math.NaN(), GiveUp: -1, RetryWait: -1, OpTimeout: -1, SampleEvery: -1, ProgressEvery: -1,
	})
	if err == nil || strings.Count(err.Error(), "replay: ") != 9 {
		t.Errorf("want nine problems, got %v", err)
	}
}

func TestTierHitsAcrossRestarts(t *testing.T) {
	var at int
	counts := [][]int64{{100, 5}, {150, 5}, {20, 9}, {30, 9}} // node-1 starts again after the second
	s := newSampler(Config{OpTimeout: time.Second, Status: func(context.Context) ([]NodeStatus, error) {
		c := counts[at]
		nodes := []NodeStatus{{Node: "node-1", Tiers: []TierStatus{{Tier: block.Host, Hits: c[0]}, {Tier: block.Disk, Hits: c[1]}}}}
		if at == 3 {
			nodes = append(nodes, NodeStatus{Node: "node-2", Tiers: []TierStatus{{Tier: block.Host, Hits: 7}}})
		}
		return nodes, nil
	}}, newCollector(Config{}))
	for at = range counts {
		s.sample(t.Context())
	}
	want := []TierHits{{"node-1", "host", 80}, {"node-1", "disk", 4}, {"node-2", "host", 7}}
	if d := cmp.Diff(want, s.byTier()); d != "" {
		t.Error(d)
	}
}

func TestThinned(t *testing.T) {
	for n := range 1000 {
		th := thinned[int]{most: 10}
		for i := range n {
			th.add(i + 1)
		}
		v := th.values()
		if n > 0 && v[len(v)-1] != n || len(v) > 10 || n >= 10 && len(v) < 5 {
			t.Fatalf("%d values: kept %v", n, v)
		}
		for i := 2; i < len(v)-1; i++ {
			if v[i]-v[i-1] != v[1]-v[0] {
				t.Fatalf("%d values: uneven %v", n, v)
			}
		}
	}
}

func TestTable(t *testing.T) {
	cluster := newFake(2, 0)
	s := play(t, cluster, requests([]uint64{1, 2, 3}, []uint64{1, 2, 4}), Config{Status: cluster.status})
	var b bytes.Buffer
	if err := s.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"prefix hit ratio", "33.33 %", "infinite cache", "get, a batch", "node-1", "Every one of 2 blocks read was right."} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range [][2]string{
		{Percent(0.36641), "36.64 %"}, {Count(0), "0"}, {Count(999), "999"}, {Count(12031), "12,031"}, {Count(-1234567), "-1,234,567"},
		{Bytes(0), "0 B"}, {Bytes(1000), "0.98 KiB"}, {Bytes(65536), "64.0 KiB"}, {Bytes(1.5 * (1 << 30)), "1.50 GiB"},
		{Micros(0.5), "0.50 µs"}, {Micros(12.34), "12.3 µs"}, {Micros(1840), "1.84 ms"}, {Micros(2.5e6), "2.50 s"}, {Seconds(3723), "1h2m3s"},
	} {
		if c[0] != c[1] {
			t.Errorf("got %q, want %q", c[0], c[1])
		}
	}
}

func BenchmarkRun(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Run(b.Context(), trace.Bundled(), newFake(3, 0), Config{BlockBytes: 64}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestEveryRouteIsDone(t *testing.T) {
	c := newFake(3, 0)
	if _, err := Run(t.Context(), trace.Bundled(), c, Config{BlockBytes: 64}); err != nil {
		t.Fatal(err)
	}
	if c.routed == 0 || c.routed != c.done {
		t.Errorf("%d requests routed, %d said to be done", c.routed, c.done)
	}
}
