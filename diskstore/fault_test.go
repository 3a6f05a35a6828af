package diskstore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"cairn/block"
	"cairn/internal/testseed"
)

// long tells whether the long tests are asked for, by CAIRN_LONG=1.
func long() bool { return os.Getenv("CAIRN_LONG") == "1" }

// TestEveryFault fails each call of a scripted life in each way, once a run.
func TestEveryFault(t *testing.T) {
	t.Run("cache", func(t *testing.T) { everyFault(t, tiny) })
	kept := tiny
	kept.Keep = func(k block.Key) bool { return k[14]%8 == 3 }
	t.Run("kept", func(t *testing.T) { everyFault(t, kept) })
}

func everyFault(t *testing.T, cfg Config) {
	if n := script(t, cfg, 0, noFault); n < 200 {
		t.Fatalf("the script makes %d calls only", n)
	} else {
		// Each seed takes other calls; CAIRN_LONG=1 takes all of them.
		stride, start := 12, int(testseed.Of(t)%12)
		if long() {
			stride, start = 1, 0
		}
		for kind := failEIO; kind < faultKinds; kind++ {
			for call := 1 + start; call <= n; call += stride {
				script(t, cfg, call, kind)
			}
		}
		t.Logf("%d calls × %d faults, stride %d", n, faultKinds-1, stride)
	}
}

// TestFaultyDevice fails a good part of all calls for a while.
func TestFaultyDevice(t *testing.T) {
	seeds := uint64(20)
	if long() {
		seeds = 2000
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 1))
		cfg := tiny
		objects, deletions := 50, 5
		if seed%2 == 1 {
			cfg.Keep = keepTwoOfThree
		}
		if seed%4 == 3 {
			objects, deletions = 70, 50 // as full of kept ones as can be
		}
		ops := faultyOps(r)
		m := newModel(t, cfg)
		m.faulty = true
		m.note("seed %d", seed)
		if err := m.open(); err != nil {
			t.Fatal(err)
		}
		for round := range 6 {
			m.fs.mu.Lock()
			m.fs.fault = nil
			if round%2 == 1 {
				fr := rand.New(rand.NewPCG(seed, uint64(round)))
				m.fs.fault = func(_ int, op string) faultKind {
					if ops[op] && fr.IntN(4) == 0 {
						return failEIO + faultKind(fr.IntN(3))
					}
					return noFault
				}
			}
			m.fs.mu.Unlock()
			for range 80 {
				switch i := r.IntN(objects); {
				case r.IntN(deletions) == 0:
					m.delete(i)
				case r.IntN(4) == 0:
					_ = m.get(i)
				case r.IntN(3) == 0:
					_ = m.sync()
				default:
					_ = m.put(i)
				}
			}
			if round%2 == 1 {
				m.mustHeal()
			}
		}
		m.powerLoss(r)
		closeModel(m)
	}
}

// faultyOps are the calls that fail: now all, now some.
func faultyOps(r *rand.Rand) map[string]bool {
	all := r.IntN(2) == 0
	ops := map[string]bool{}
	for _, op := range []string{"create", "read", "remove", "sync", "syncdir", "truncate", "write"} {
		ops[op] = all || r.IntN(2) == 0
	}
	return ops
}

// mustHeal wants the store to work again once the device does.
func (m *model) mustHeal() {
	m.t.Helper()
	m.fs.mu.Lock()
	m.fs.fault = nil
	m.fs.mu.Unlock()
	m.s.background.Wait() // for calls that have failed already
	if err := m.sync(); err != nil {
		m.fatalf("sync without a fault: %v", err)
	}
	// More than a few segments can take.
	for i := 100; i < 140; i++ {
		if err := m.put(i); err != nil {
			m.fatalf("put without a fault: %v", err)
		}
		if err := m.get(i); err != nil {
			m.fatalf("get without a fault: %v", err)
		}
	}
	if err := m.sync(); err != nil {
		m.fatalf("sync without a fault: %v", err)
	}
	for i := 100; i < 140; i++ {
		m.delete(i)
	}
}

// script is a life of a store with one fault at the given call. It returns the
// number of calls.
func script(t *testing.T, cfg Config, call int, kind faultKind) int {
	m := newModel(t, cfg)
	m.faulty = true
	m.note("fault at call %d: %v", call, kind)
	fault := func(n int, op string) faultKind {
		if n == call {
			return kind
		}
		return noFault
	}
	m.fs.inject(fault, 0)
	r := rand.New(rand.NewPCG(uint64(call), uint64(kind)))
	defer func() {
		if e := recover(); e != nil {
			m.fatalf("panic: %v", e)
		}
	}()
	if err := m.open(); err != nil {
		m.fs = m.fs.afterPowerLoss(r)
		m.reopen()
	}
	m.live(0)
	if calls, down := m.fs.state(); down {
		m.powerLoss(r)
		m.mustHeal()
		closeModel(m)
		return calls
	}
	// A restart, with the same fault still to come.
	closeErr := m.close()
	seen, down := m.fs.state()
	if down || closeErr != nil {
		m.fs = m.fs.afterPowerLoss(r)
		m.reopen()
	} else {
		m.restart(r, fault, seen, call)
	}
	m.live(1)
	calls, _ := m.fs.state()
	m.fs.inject(nil, calls) // background work cannot crash the machine from here on
	if _, down := m.fs.state(); !down {
		m.mustHeal()
	}
	m.powerLoss(r)
	closeModel(m)
	return calls
}

// restart opens the store that was closed after seen calls, with a fault that
// may hit the opening.
func (m *model) restart(r *rand.Rand, fault func(int, string) faultKind, seen, call int) {
	m.t.Helper()
	m.fs = m.fs.afterKill()
	m.fs.inject(fault, seen)
	if err := m.open(); err != nil {
		m.note("open again: %v", err)
		m.fs = m.fs.afterPowerLoss(r)
		m.reopen()
		return
	}
	now, _ := m.fs.state()
	if seen < call && call <= now {
		// A fault while reading may hide objects from this process, not from
		// the next.
		m.kill()
		return
	}
	m.fs.inject(nil, 0)
	m.compare()
	m.fs.inject(fault, now)
}

func closeModel(m *model) {
	if err := m.close(); err != nil {
		m.fatalf("close: %v", err)
	}
}

// live is what the script does between restarts: enough to fill the store more
// than once, with deletions, and reads that lead to rescues. Errors are what the
// faults make of it; the model judges the rest.
func (m *model) live(part int) {
	for i := range 90 {
		n := part*45 + i
		_ = m.put(n)
		if i%4 == 3 {
			_ = m.get(n - 3)
		}
		if i%9 == 8 {
			m.delete(n - 2)
			_ = m.put(n - 2)
			m.delete(n - 5)
		}
		if i%6 == 5 {
			_ = m.sync()
		}
	}
	if len(m.log) == 0 {
		panic(fmt.Sprint("nothing happened in part ", part))
	}
}
