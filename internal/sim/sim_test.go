package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cairn/internal/mutant"
	"cairn/internal/testseed"
)

var (
	seedFlag   = flag.Uint64("sim.seed", 0, "the seed that TestReplay runs, or the first one of TestSim")
	configFlag = flag.String("sim.config", "all", "what TestReplay keeps of the seed's faults and operations")
)

// What a long run must reach on two cores.
const (
	longTime       = 60 * time.Second
	longHistories  = 20_000
	longOperations = 1_000_000
	shortTime      = 2 * time.Second
	workers        = 2
)

// tally counts what a search has seen.
type tally struct {
	histories, operations, messages, losses atomic.Int64
}

// search runs plan after plan, from a seed on, until the time is over or one fails.
func search(first uint64, d time.Duration, count *tally) (failed *Result) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // the worlds are small, and soon gone
	var next atomic.Uint64
	next.Store(first)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var stop atomic.Bool
	began := time.Now()
	for range workers {
		wg.Go(func() {
			for !stop.Load() && time.Since(began) < d {
				r := Run(NewPlan(next.Add(1)-1, Keep{}), false)
				count.histories.Add(1)
				count.operations.Add(int64(r.Operations))
				count.messages.Add(int64(r.Messages))
				count.losses.Add(int64(r.Losses))
				if r.Violation != nil {
					stop.Store(true)
					mu.Lock()
					failed = &r
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// TestSim lets clusters live by random plans.
func TestSim(t *testing.T) {
	d, long := shortTime, os.Getenv("CAIRN_LONG") == "1"
	if long {
		d = longTime
	}
	first := *seedFlag
	if first == 0 {
		first = testseed.Of(t)
	}
	mutant.Choose(mutant.None)
	var count tally
	began, before := time.Now(), processorTime(t)
	failed := search(first, d, &count)
	t.Logf("from seed %d: %d histories, %d operations, %d messages of the log, %d declared losses in %v on %d processors", first,
		count.histories.Load(), count.operations.Load(), count.messages.Load(), count.losses.Load(), time.Since(began).Round(time.Millisecond),
		min(workers, runtime.GOMAXPROCS(0)))
	if failed != nil {
		report(t, *failed)
		return
	}
	// Other processes may have had a part of the processors.
	share := float64(processorTime(t)-before) / float64(workers*longTime)
	if wantHistories, wantOperations := int64(share*longHistories), int64(share*longOperations); long && !raceEnabled &&
		(count.histories.Load() < wantHistories || count.operations.Load() < wantOperations) {
		t.Errorf("want at least %d histories and %d operations in %.0f %% of %d processors for %v", wantHistories, wantOperations,
			100*share, workers, longTime)
	}
}

// processorTime is what this process has had of the processors.
func processorTime(t *testing.T) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// report shrinks a failing run, and says how to see it again.
func report(t *testing.T, failed Result) {
	t.Helper()
	keep, v := Shrink(failed.Plan.Seed, failed.Violation)
	t.Errorf("seed %d: %v\nshrunk: %v\n%s\nreplay: go test ./internal/sim -run TestReplay -v -sim.seed=%d -sim.config=%v",
		failed.Plan.Seed, failed.Violation, v, NewPlan(failed.Plan.Seed, keep).describe(), failed.Plan.Seed, keep)
}

// TestReplay runs one seed, with a trace if -v is given.
func TestReplay(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("no -sim.seed")
	}
	keep, err := ParseKeep(*configFlag)
	if err != nil {
		t.Fatal(err)
	}
	plan := NewPlan(*seedFlag, keep)
	r := Run(plan, testing.Verbose())
	fmt.Println(plan.describe())
	fmt.Println(strings.Join(r.Trace, "\n"))
	if r.Violation != nil {
		t.Error(r.Violation)
	}
}

// TestSameSeed: a run is the same whenever it is run.
func TestSameSeed(t *testing.T) {
	for seed := range uint64(20) {
		a, b := Run(NewPlan(seed+1, Keep{}), true), Run(NewPlan(seed+1, Keep{}), true)
		if len(a.Trace) != len(b.Trace) {
			t.Errorf("seed %d: %d events, then %d", seed+1, len(a.Trace), len(b.Trace))
		}
		for i := range min(len(a.Trace), len(b.Trace)) {
			if a.Trace[i] != b.Trace[i] {
				t.Fatalf("seed %d: %q, then %q", seed+1, a.Trace[i], b.Trace[i])
			}
		}
	}
}

func TestKeep(t *testing.T) {
	k := everything()
	k.faults[0], k.ops[0], k.ops[1] = 0xf0f, 0xfeed, 0
	got, err := ParseKeep(k.String())
	if err != nil || got != k {
		t.Fatalf("%v, %v, want %v", got, err, k)
	}
	for _, bad := range []string{"1", "x.1.2", "1.1.1.1"} {
		if _, err := ParseKeep(bad); err == nil {
			t.Errorf("%q is a configuration", bad)
		}
	}
}
