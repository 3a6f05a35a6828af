package eviction

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	last := 0
	for ms := int64(0); ms < 1<<33; ms += 1 + ms/64 {
		idle := time.Duration(ms) * time.Millisecond
		b := bucketOf(idle)
		if b < last || b > last+1 {
			t.Fatalf("%v is in bucket %d after %d", idle, b, last)
		}
		last = b
		if s := idle.Seconds(); s < bucketStart(b) || b < buckets-1 && s >= bucketStart(b+1) {
			t.Fatalf("%v is in bucket %d, which begins at %g s", idle, b, bucketStart(b))
		}
	}
	if last != buckets-1 {
		t.Errorf("the last bucket is %d, want %d", last, buckets-1)
	}
	if bucketOf(-time.Second) != 0 {
		t.Error("time that goes back must not be outside all buckets")
	}
}

// With nothing known, value falls with idle time; within a doubling it may stay, and
// the time of use decides. Bucket 0 is guarded.
func TestIgnoranceIsLRU(t *testing.T) {
	h := newHazard(t, Config{})
	v := &h.learner.value[0]
	for b := 2; b < buckets-1; b++ {
		if v[b] > v[b-1] || b > 2 && !(v[b] < v[b-2]) {
			t.Errorf("value %g in bucket %d after %g", v[b], b, v[b-1])
		}
	}
}

// Spells that end after 30 to 45 s make the time before valuable, and the time after worthless.
func TestValueLooksAhead(t *testing.T) {
	var l learner
	rng := rand.New(rand.NewPCG(1, 1))
	class := classOf(0, 1, false)
	for range 5000 {
		s := l.start(class)
		if rng.IntN(2) == 0 {
			l.end(s, 30*time.Second+time.Duration(rng.IntN(15000))*time.Millisecond)
		} else {
			l.settle(&s, time.Hour)
		}
	}
	l.compute(1)
	at := func(d time.Duration) float64 { return float64(l.value[class][bucketOf(d)]) }
	if at(20*time.Second) < at(5*time.Second) || at(5*time.Second) < 3*at(2*time.Minute) {
		t.Errorf("values at 5 s, 20 s, 2 min: %g, %g, %g", at(5*time.Second), at(20*time.Second), at(2*time.Minute))
	}
	// Half of the blocks are used about 32.5 s after 5 s from now: 0.5 / 32.5 s.
	if got := at(5 * time.Second); math.Abs(got-0.5/32.5)/got > 0.25 {
		t.Errorf("value at 5 s is %g, want about %g", got, 0.5/32.5)
	}
}

// One kind of block comes back, the other never does; after a while, those go first,
// though they are used as often and as late.
func TestLearnsKinds(t *testing.T) {
	const room = 256
	h := newHazard(t, Config{})
	ids := map[int]uint32{}
	var owner [room]int
	var free []uint32
	for i := range uint32(room) {
		owner[i] = -1
		free = append(free, i)
	}
	hits, asked := 0, 0
	now := time.Duration(0)
	use := func(n int, late bool) {
		if id, ok := ids[n]; ok {
			h.Touch(id, now)
			if late {
				hits++
			}
			return
		}
		if len(free) == 0 {
			id, _ := h.Victim(0, now)
			h.Evict(id, now)
			delete(ids, owner[id])
			free = append(free, id)
		}
		id := free[len(free)-1]
		free = free[:len(free)-1]
		h.Insert(id, Block{Key: keyOf(n, 0), Kind: uint8(n & 1)}, now)
		ids[n], owner[id] = id, n
	}
	for step := range 40000 {
		now += 100 * time.Millisecond
		if step%4 != 0 {
			use(step*2, false) // even: never again
			continue
		}
		// Odd ones are used again 200 s, 2000 uses, later: LRU of 256 never finds them.
		if step%8 == 0 || step < 4000 {
			use(step*2+1, false)
		} else {
			old := step - 2000 - step%8
			late := step > 20000
			if late {
				asked++
			}
			use(old*2+1, late)
		}
	}
	if hits*10 < asked*7 {
		t.Errorf("%d hits of %d: want most", hits, asked)
	}
}

// An evicted block that returns has the count it left with, and its time away is
// evidence.
func TestGhosts(t *testing.T) {
	h := newHazard(t, Config{})
	h.Insert(7, blockOf(1, 0), 0)
	h.Touch(7, time.Second)
	h.Evict(7, 10*time.Second)
	if h.ghosts.n != 1 || h.Len() != 0 {
		t.Fatalf("%d ghosts, %d blocks, want 1 and 0", h.ghosts.n, h.Len())
	}
	h.Insert(3, blockOf(1, 0), 31*time.Second)
	if e := h.entries.at(3); e.count != 3 || h.ghosts.n != 0 {
		t.Errorf("it came back with count %d, %d ghosts; want 3 and none", e.count, h.ghosts.n)
	}
	if used := h.learner.classes[classOf(0, 2, false)].used[bucketOf(30*time.Second)]; used != 1 {
		t.Errorf("its return after 30 s counts %g times, want once", used)
	}
	h.Remove(3)
	if h.ghosts.n != 0 {
		t.Error("a block that was deleted must not become a ghost")
	}
}

func TestGhostsAreBounded(t *testing.T) {
	h := newHazard(t, Config{Ghosts: 2, GhostsMost: 4096})
	for i := range 100_000 {
		id := uint32(i % 1000)
		now := time.Duration(i) * 10 * time.Millisecond
		if i >= 1000 {
			h.Evict(id, now)
		}
		h.Insert(id, Block{Key: keyOf(i, 0)}, now)
	}
	if n := len(h.ghosts.sets) * ways; n < 1024 || n > 4096 {
		t.Errorf("room for %d ghosts, want about 2048", n)
	}
	if none := newHazard(t, Config{Ghosts: -1}); len(none.ghosts.sets) != 0 {
		t.Error("ghosts though there should be none")
	}
}

// fill makes a policy with n blocks in sequences of 32.
func fill(p Policy, n int) {
	for i := range n {
		p.Insert(uint32(i), blockOf(i/32, i%32), time.Duration(i)*time.Microsecond)
	}
}

func TestMemory(t *testing.T) {
	const n = 1 << 18
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	h := newHazard(t, Config{})
	fill(h, n)
	for i := range n { // until the ghosts have grown
		h.Touch(uint32(i), time.Minute)
		if i%2 == 0 {
			h.Evict(uint32(i), time.Minute)
			h.Insert(uint32(i), blockOf(n+i, 0), time.Minute)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	got := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f bytes a block", got)
	if got > BytesPerBlock {
		t.Errorf("%.0f bytes a block, want at most %d", got, BytesPerBlock)
	}
	runtime.KeepAlive(h)
}

func BenchmarkTouch(b *testing.B) {
	const n = 1 << 20
	for name, p := range map[string]Policy{"lru": newLRU(b, Config{}), "hazard": newHazard(b, Config{})} {
		fill(p, n)
		rng := rand.New(rand.NewPCG(1, 1))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			now := time.Second
			for b.Loop() {
				now += 10 * time.Microsecond
				p.Touch(rng.Uint32N(n), now)
			}
		})
	}
}

func BenchmarkEvict(b *testing.B) {
	const n = 1 << 20
	for name, p := range map[string]Policy{"lru": newLRU(b, Config{}), "hazard": newHazard(b, Config{})} {
		fill(p, n)
		i := n
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			now := time.Second
			for b.Loop() {
				now += 10 * time.Microsecond
				id, _ := p.Victim(0, now)
				p.Evict(id, now)
				p.Insert(id, blockOf(i/32, i%32), now)
				i++
			}
		})
	}
}
