package eviction

import (
	"math/bits"
	"time"
)

// Idle time is divided into buckets, two to each doubling: bucket 0 is shorter than
// shortest, the last one has no end.
const (
	shortestBits = 8 // of milliseconds: 256 ms
	shortest     = 1 << shortestBits
	buckets      = 46 // the last one begins at 23 days
)

// bucketOf is the bucket of an idle time.
func bucketOf(idle time.Duration) int {
	ms := uint64(max(idle, 0) / time.Millisecond)
	if ms < shortest {
		return 0
	}
	top := bits.Len64(ms) - 1
	b := 1 + 2*(top-shortestBits) + int(ms>>(top-1)&1)
	return min(b, buckets-1)
}

// bucketStart is the least idle time of a bucket, in seconds.
func bucketStart(b int) float64 {
	if b == 0 {
		return 0
	}
	ms := uint64(shortest) << ((b - 1) / 2)
	if (b-1)%2 == 1 {
		ms += ms / 2
	}
	return float64(ms) / 1000
}

// A class is kind, uses up to countMost, and whether a block ever followed.
const (
	countMost = 8
	classes   = Kinds * countMost * 2
)

func classOf(kind, count uint8, inner bool) uint8 {
	c := (kind%Kinds)*countMost + count - 1
	if inner {
		return c*2 + 1
	}
	return c * 2
}

// spell is the time from one use of a block to the next, as far as it has been
// counted.
type spell struct {
	class uint8
	// bucket is the last one that the block was counted in.
	bucket uint8
}

// history counts, by class and bucket, spells that got so far and those that ended
// in a use there.
type history struct{ came, used [buckets]float64 }

// learner knows how blocks of each class are used again.
type learner struct {
	classes [classes]history
	// value is hits per second of room; higher with more idle time only
	// where the evidence says so.
	value [classes][buckets]float32
}

// start begins a spell.
func (l *learner) start(class uint8) spell {
	l.classes[class].came[0]++
	return spell{class: class}
}

// settle counts the buckets that a spell has come to.
func (l *learner) settle(s *spell, idle time.Duration) {
	to := uint8(bucketOf(idle))
	h := &l.classes[s.class]
	for s.bucket < to {
		s.bucket++
		h.came[s.bucket]++
	}
}

// end ends a spell by a use.
func (l *learner) end(s spell, idle time.Duration) {
	l.settle(&s, idle)
	l.classes[s.class].used[s.bucket]++
}

// change makes a spell that has just begun one of another class.
func (l *learner) change(s *spell, class uint8) {
	if s.bucket > 0 {
		return
	}
	l.classes[s.class].came[0]--
	l.classes[class].came[0]++
	s.class = class
}

const (
	// ignorance is the chance of use in each bucket of which nothing is known. The
	// same chance in buckets that get longer is a hazard that falls like 1/idle,
	// which orders blocks like LRU.
	ignorance = 0.03
	// shrinkage is how many spells' worth a class believes in what all classes
	// do, and all classes in ignorance.
	shrinkage = 20
)

// compute makes value from the counts, after they have faded by a factor.
func (l *learner) compute(fade float64) {
	var all history
	for c := range l.classes {
		h := &l.classes[c]
		for b := range buckets {
			h.came[b] *= fade
			h.used[b] *= fade
			all.came[b] += h.came[b]
			all.used[b] += h.used[b]
		}
	}
	var prior [buckets]float64
	for b := range prior {
		prior[b] = ignorance
	}
	prior = all.chances(&prior)
	var common [buckets]float32
	value(&prior, &common)
	for c := range l.classes {
		if l.classes[c].came[0] == 0 {
			l.value[c] = common
			continue
		}
		chance := l.classes[c].chances(&prior)
		value(&chance, &l.value[c])
	}
}

// chances is the chance of use in each bucket, once a spell has come to it.
func (h *history) chances(prior *[buckets]float64) (chance [buckets]float64) {
	for b := range chance {
		chance[b] = min((h.used[b]+shrinkage*prior[b])/(max(h.came[b], h.used[b])+shrinkage), 1)
	}
	return chance
}

// value is, for each bucket, the best ratio over all horizons of the chance of use to
// the time held. A use comes in the middle of its bucket, on average.
func value(chance *[buckets]float64, v *[buckets]float32) {
	for from := range buckets {
		best, alive, hits, held := 0.0, 1.0, 0.0, 0.0
		for b := from; b < buckets; b++ {
			width := bucketStart(b)
			if b < buckets-1 {
				width = bucketStart(b+1) - width
			}
			held += alive * (1 - chance[b]/2) * width
			hits += alive * chance[b]
			alive *= 1 - chance[b]
			best = max(best, hits/held)
		}
		v[from] = float32(best)
	}
}
