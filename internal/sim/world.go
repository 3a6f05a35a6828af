package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
)

// World is one cluster in virtual time. One goroutine uses it.
type World struct {
	plan   Plan
	now    time.Duration // true time, which no node knows
	serial uint64        // of events, so that equal times have an order
	queue  []event
	net    *rand.Rand // everything that chance decides while the world runs
	order  int64      // grows with every call and return of an operation

	log     simLog
	nodes   []*node
	clients []*client
	keys    []*keyState
	byKey   map[block.Key]*keyState
	cut     [][]int // cut[a][b]: how many faults keep a's messages from b
	lossy   int     // how many faults make RPC lossy
	healed  bool    // faults are over
	objects uint64  // numbers of objects given out
	lost    map[valueID]uint64
	asked   map[inquiry]map[int]bool   // who answered every Inquire of a node for a token
	made    map[valueID]ledger.Version // every value that ever was a version, at its owner or in the log
	history []*operation
	buf     []byte

	unsettled []unsettledLoss
	open      int // operations that have not ended
	ended     int

	tracing   bool
	trace     []string
	violation *Violation
}

// Violation is an invariant that did not hold.
type Violation struct {
	Invariant string
	Text      string
	At        time.Duration
}

// Error implements error.
func (v *Violation) Error() string {
	return fmt.Sprintf("%s violated at %v: %s", v.Invariant, v.At, v.Text)
}

// event is something that happens at a time.
type event struct {
	at     time.Duration
	serial uint64
	run    func()
}

func (a event) before(b event) bool { return a.at < b.at || a.at == b.at && a.serial < b.serial }

// after lets run happen d from now.
func (w *World) after(d time.Duration, run func()) {
	w.serial++
	w.queue = append(w.queue, event{w.now + d, w.serial, run})
	q, i := w.queue, len(w.queue)-1
	for i > 0 {
		up := (i - 1) / 2
		if !q[i].before(q[up]) {
			break
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
}

// next takes the earliest event from the queue.
func (w *World) next() event {
	q := w.queue
	first, n := q[0], len(q)-1
	q[0] = q[n]
	q[n] = event{}
	q = q[:n]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < n; child++ {
			if q[child].before(q[least]) {
				least = child
			}
		}
		if least == i {
			break
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
	w.queue = q
	return first
}

// runUntil lets everything happen up to a time, or until done.
func (w *World) runUntil(end time.Duration, done func() bool) {
	for len(w.queue) > 0 && w.violation == nil && w.queue[0].at <= end && !done() {
		e := w.next()
		w.now = e.at
		e.run()
	}
}

// chance is true with probability p.
func (w *World) chance(p float64) bool { return p > 0 && w.net.Float64() < p }

// span is a random duration in [from, to).
func (w *World) span(from, to time.Duration) time.Duration {
	return from + time.Duration(w.net.Int64N(int64(to-from)))
}

func (w *World) fail(invariant, format string, args ...any) {
	if w.violation == nil {
		w.violation = &Violation{invariant, fmt.Sprintf(format, args...), w.now}
		w.tracef("*** %s: %s", invariant, w.violation.Text)
	}
}

func (w *World) tracef(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%11.3fms ", float64(w.now)/1e6)+fmt.Sprintf(format, args...))
	}
}

// tick numbers a moment at which an operation begins or ends.
func (w *World) tick() int64 {
	w.order++
	return w.order
}

// object gives out a key that was never used.
func (w *World) object() block.Key {
	w.objects++
	return objectKey(w.objects)
}

func objectKey(n uint64) block.Key {
	var k block.Key
	k[0], k[1], k[2] = 0xfe, 0xff, 0xff
	for i := range 8 {
		k[3+i] = byte(n >> (56 - 8*i))
	}
	return k
}

// number is that of an object; 0 is none.
func number(k block.Key) uint64 {
	var n uint64
	for i := range 8 {
		n = n<<8 | uint64(k[3+i])
	}
	return n
}

// valueID names what a write has written: every write has its own.
type valueID struct {
	object  uint64
	expires int64
}

func idOf(v ledger.Value) valueID {
	if v.Object.IsZero() {
		return valueID{}
	}
	return valueID{number(v.Object), v.Expires}
}

func (v valueID) String() string {
	switch {
	case v.object == 0:
		return "nothing"
	case v.expires != 0:
		return fmt.Sprintf("#%d until %d", v.object, v.expires)
	default:
		return fmt.Sprintf("#%d", v.object)
	}
}

func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }
