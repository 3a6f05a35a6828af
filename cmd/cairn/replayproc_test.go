package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/internal/replay"
	"cairn/internal/trace"
)

// call runs cairn to its end and returns what it wrote to standard output.
func call(t testing.TB, within time.Duration, args ...string) []byte {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append(cleanEnv(), childEnv+"=1")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("cairn %s: %v\n%s", strings.Join(args, " "), err, tail(strings.ReplaceAll(stderr.String(), "\r", "\n"), 20))
	}
	return stdout.Bytes()
}

// replayed runs cairn replay through the router and returns its summary.
func replayed(t testing.TB, within time.Duration, r *server, args ...string) (s replay.Summary) {
	t.Helper()
	text := call(t, within, append([]string{"replay", "--router", "http://" + r.addr, "--report", "off", "--json"}, args...)...)
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestReplayProcesses replays the start of the trace against three processes that
// have room for everything on disk: every hit that is possible must be had, and every
// block be stored once, whatever leaves host memory first. A node waits for what another
// has announced, a second at most: where that was not enough, the blocks behind it are
// computed again, and may be stored again.
func TestReplayProcesses(t *testing.T) {
	for _, eviction := range []string{"lru", "hazard"} {
		t.Run(eviction, func(t *testing.T) {
			t.Parallel()
			testReplayProcesses(t, eviction)
		})
	}
}

func testReplayProcesses(t *testing.T, eviction string) {
	const limit = 150
	s := startSystem(t, systemConfig{nodes: 3, flags: smallNode("--disk", "512MiB", "--segment", "16MiB", "--eviction", eviction, "--lease", "1m")})
	r := s.router()
	r.ready(patience)
	r.awaitMembers(3)
	s.acquainted()
	sum := replayed(t, time.Minute, r, "--limit", fmt.Sprint(limit), "--block", "4KiB")
	bound, err := trace.Measure(first(trace.Bundled(), limit))
	if err != nil {
		t.Fatal(err)
	}
	if sum.Requests != limit || sum.FailedRequests != 0 || sum.WrongBlocks != 0 || len(sum.Errors) != 0 {
		t.Errorf("%d requests, %d failed, %d wrong blocks, errors %v", sum.Requests, sum.FailedRequests, sum.WrongBlocks, sum.Errors)
	}
	var stored, inVain int64
	for _, n := range s.nodes {
		if err := s.flush(n); err != nil {
			t.Fatal(err)
		}
		st := s.status(n)
		stored += tierStatus(st, block.Disk).Sealed
		inVain += st.AwaitTimeouts
	}
	missed := sum.BoundHits - sum.Hits
	if sum.BoundHits != bound.Hits || missed < 0 || missed > 0 && inVain == 0 {
		t.Errorf("%d hits of %d that are possible (the trace has %d)", sum.Hits, sum.BoundHits, bound.Hits)
	}
	if sum.DuplicatePuts > int64(missed) || sum.DistinctStored != int64(bound.Distinct) {
		t.Errorf("%d different blocks stored and %d again, want %d and at most the %d that were missed", sum.DistinctStored, sum.DuplicatePuts, bound.Distinct, missed)
	}
	if want := int64(bound.Distinct) + sum.DuplicatePuts; stored != want {
		t.Errorf("the disks hold %d blocks, want %d: each as often as it was stored", stored, want)
		for _, n := range s.nodes {
			t.Logf("%s: %+v", n.id, s.status(n))
		}
	}
	t.Logf("replayed %d requests in %.1fs: hit ratio %.2f%% of %.2f%% (%d waits in vain), %d blocks stored, wrong bytes %d, read p99 %.0f µs",
		sum.Requests, sum.Seconds, 100*sum.HitRatio, 100*sum.BoundRatio, inVain, stored, sum.WrongBytes, sum.Latency.Read.P99)
}

// TestReplayWholeTrace is CAIRN_LONG=1 CAIRN_TRACE=conversation_trace.jsonl go test
// ./cmd/cairn -run ReplayWholeTrace -v -timeout 60m.
func TestReplayWholeTrace(t *testing.T) {
	path := os.Getenv("CAIRN_TRACE")
	if !long() || path == "" {
		t.Skip("set CAIRN_LONG=1 and CAIRN_TRACE to the whole conversation trace of Mooncake")
	}
	const host, vram, disk, spare = 1 << 30, 256 << 20, 8 << 30, 256 << 20
	s := startSystem(t, systemConfig{nodes: 3, flags: []string{
		"--host", fmt.Sprint(host), "--vram", fmt.Sprint(vram), "--disk", fmt.Sprint(disk), "--classes", "4KiB,64KiB", "--log-level", "warn"}})
	r := s.router()
	r.ready(patience)
	r.awaitMembers(3)
	sampled := s.sampleMemory()
	sum := replayed(t, 55*time.Minute, r, path)
	for _, n := range s.nodes { // what is still on its way to disk counts
		if err := s.flush(n); err != nil {
			t.Fatal(err)
		}
	}
	rss := sampled()
	bound, err := trace.Measure(trace.ReadFile(path, trace.Limits{}))
	if err != nil {
		t.Fatal(err)
	}
	if sum.Requests != bound.Requests || sum.FailedRequests != 0 || sum.WrongBlocks != 0 {
		t.Errorf("%d of %d requests, %d failed, %d wrong blocks, errors %v", sum.Requests, bound.Requests, sum.FailedRequests, sum.WrongBlocks, sum.Errors)
	}
	const best, points = 36.6, 2 // percent, of an infinite cache on this trace
	if got := 100 * sum.HitRatio; math.Abs(got-best) > points {
		t.Errorf("hit ratio %.2f%%, want %.1f%% within %d points (an infinite cache has %.2f%%)", got, best, points, 100*sum.BoundRatio)
	}
	t.Logf("%d requests in %.0fs: hit ratio %.2f%% of %.2f%%, %d blocks stored, %d again, wrong bytes %d, errors %v, read %s, put %s",
		sum.Requests, sum.Seconds, 100*sum.HitRatio, 100*sum.BoundRatio, sum.DistinctStored, sum.DuplicatePuts, sum.WrongBytes, sum.Errors,
		bytesText(sum.BytesRead), bytesText(sum.BytesPut))
	t.Logf("latency: read p50 %.0f p99 %.0f µs, put p50 %.0f p99 %.0f µs, route p99 %.0f µs", sum.Latency.Read.P50, sum.Latency.Read.P99,
		sum.Latency.Put.P50, sum.Latency.Put.P99, sum.Latency.Route.P99)
	for i, n := range s.nodes {
		peak, err := n.memory("VmHWM")
		if err != nil {
			t.Fatal(err)
		}
		const mib = 1 << 20
		t.Logf("%s: resident at most %d MiB sampled, %d MiB peak; arenas %d MiB, limit %d MiB", n.id, rss[i]/mib, peak/mib,
			(host+vram)/mib, (host+vram+spare)/mib)
		if rss[i] > host+vram+spare {
			t.Errorf("%s used %d MiB, want at most %d", n.id, rss[i]/mib, (host+vram+spare)/mib)
		}
	}
}

// acquainted waits until every node knows all others.
func (s *system) acquainted() {
	s.t.Helper()
	for _, n := range s.nodes {
		c, err := client.Open(s.t.Context(), client.Config{Nodes: []string{n.addr}})
		if err != nil {
			s.t.Fatal(err)
		}
		await(s.t, patience, n.id+" knows all nodes", func() error {
			r, err := c.Route(s.t.Context(), client.RouteRequest{DryRun: true})
			if err == nil && len(r.Candidates) != len(s.nodes) {
				err = fmt.Errorf("it knows %d", len(r.Candidates))
			}
			return err
		})
		c.Close()
	}
}

// flush makes a node's blocks durable.
func (s *system) flush(n *server) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	defer cancel()
	return s.dial(n, client.Config{Timeout: 2 * patience}).Flush(ctx)
}

// sampleMemory watches VmRSS of every node until the function it returns is called,
// which gives the largest of each.
func (s *system) sampleMemory() (largest func() []int64) {
	ctx, stop := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	most := make([]int64, len(s.nodes))
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			for i, n := range s.nodes {
				if rss, err := n.memory("VmRSS"); err == nil {
					most[i] = max(most[i], rss)
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() []int64 {
		stop()
		wg.Wait()
		return slices.Clone(most)
	}
}
