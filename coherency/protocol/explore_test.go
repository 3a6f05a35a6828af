package protocol

import (
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"testing"
	"time"
)

// TestExplore goes through the states of small clusters of the real Machine: a part of
// them, or with CAIRN_LONG=1 as many as there are, or as the time CAIRN_EXPLORE
// allows (5m by default).
func TestExplore(t *testing.T) {
	each, times, workers, long := 500, 6, 1, os.Getenv("CAIRN_LONG") != ""
	limit := time.Minute
	percent, memory := 800, int64(-1)
	if long {
		each, times, workers, limit = 10_000, 12, 2, 5*time.Minute
		if d, err := time.ParseDuration(os.Getenv("CAIRN_EXPLORE")); err == nil {
			limit = d
		}
		// States are garbage soon, so it is better to collect seldom.
		percent, memory = -1, 2<<30
	}
	defer debug.SetGCPercent(debug.SetGCPercent(percent))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(memory))
	list := instances()
	started := time.Now()
	end := started.Add(limit)
	var mu sync.Mutex // guards what follows
	next, total, transitions := 0, 0, 0
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for {
				mu.Lock()
				if next == len(list) {
					mu.Unlock()
					return
				}
				in := list[next]
				next++
				// What is left is shared by what is left.
				share := time.Until(end) * time.Duration(workers) / time.Duration(len(list)-next+workers)
				mu.Unlock()
				r := in.explore(each, times, long, share)
				mu.Lock()
				total, transitions = total+r.states, transitions+r.transitions
				report(t, in, r)
				mu.Unlock()
			}
		})
	}
	running.Wait()
	t.Logf("%d instances: %d states, %d transitions, %.0f s", len(list), total, transitions, time.Since(started).Seconds())
}

func report(t *testing.T, in *instance, r result) {
	whole := "all"
	if !r.complete {
		whole = fmt.Sprintf("part, %d too long", r.cut)
	}
	t.Logf("%-36s %9d states %10d transitions %7d at rest, depth %3d, %6.1f s, %s",
		in.name, r.states, r.transitions, r.rests, r.depth, r.took.Seconds(), whole)
	if r.err != nil {
		t.Errorf("%s: %v\n%s", in.name, r.err, in.trace(r))
	}
}
