package replay

import (
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"cairn/block"
)

type operation uint8

const (
	opRoute operation = iota
	opMatch
	opRead
	opPut

	operations
)

func (o operation) String() string { return [operations]string{"route", "match", "read", "put"}[o] }

const (
	// The series of a summary has between half of this and this many points.
	seriesPoints = 200
	// A summary shows this many wrong blocks.
	wrongShown = 20

	// Latencies are kept from 1 µs to 10 minutes with three digits.
	shortest, longest, digits = int64(time.Microsecond), int64(10 * time.Minute), 3
)

// totals is what has been counted up to some moment.
type totals struct {
	elapsed                time.Duration
	requests, failed       int
	references, hits, warm int
	local, peer, bound     int
	bytesRead, bytesPut    int64
}

// collector counts; workers use it in parallel.
type collector struct {
	cfg Config

	blocksRead, bytesRead, gaps        atomic.Int64
	puts, bytesPut, existed, duplicate atomic.Int64

	mu         sync.Mutex
	began      time.Time
	duration   time.Duration // 0 while the run goes on
	success    time.Time
	totals     totals
	series     thinned[totals]
	latency    [operations]*hdr.Histogram
	perBlock   *hdr.Histogram
	errors     map[string]int64
	wrongs     []WrongBlock
	wrongCount int64
	wrongBytes int64
}

func newCollector(cfg Config) *collector {
	c := &collector{cfg: cfg, errors: map[string]int64{}, series: thinned[totals]{most: seriesPoints}}
	for o := range c.latency {
		c.latency[o] = hdr.New(shortest, longest, digits)
	}
	c.perBlock = hdr.New(shortest, longest, digits)
	c.start()
	return c
}

func (c *collector) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = time.Now()
	c.success = c.began
}

func (c *collector) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.duration = time.Since(c.began)
}

func (c *collector) elapsedLocked() time.Duration {
	if c.duration > 0 {
		return c.duration
	}
	return time.Since(c.began)
}

// finished counts a request that was played to its end.
func (c *collector) finished(j *job, found outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.success = time.Now()
	hits := found.local + found.peer
	c.totals.local += found.local
	c.totals.peer += found.peer
	c.totals.hits += hits
	c.totals.warm += max(0, hits-j.bound)
	c.countLocked(j)
}

// failed counts a request that no node could serve: all its references missed.
func (c *collector) failed(j *job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.totals.failed++
	c.countLocked(j)
}

func (c *collector) countLocked(j *job) {
	t := &c.totals
	t.elapsed = c.elapsedLocked()
	t.requests++
	t.references += len(j.keys)
	t.bound += j.bound
	t.bytesRead, t.bytesPut = c.bytesRead.Load(), c.bytesPut.Load()
	c.series.add(*t)
}

func (c *collector) lastSuccess() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.success
}

func (c *collector) put(stored, first bool, n int) {
	c.puts.Add(1)
	switch {
	case !stored:
		c.existed.Add(1)
		return
	case !first:
		c.duplicate.Add(1)
	}
	c.bytesPut.Add(int64(n))
}

// took records the time of an operation on a number of blocks.
func (c *collector) took(o operation, d time.Duration, blocks int) {
	v := clamp(d)
	c.mu.Lock()
	defer c.mu.Unlock()
	// The values are within the histogram's range: there is no error to lose.
	_ = c.latency[o].RecordValue(v)
	if o == opRead && blocks > 0 {
		_ = c.perBlock.RecordValues(clamp(d/time.Duration(blocks)), int64(blocks))
	}
}

func clamp(d time.Duration) int64 { return min(max(int64(d), shortest), longest) }

func (c *collector) error(o operation, err error) { c.errorKind(o.String(), c.cfg.kind(err)) }

func (c *collector) errorKind(what, kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errors[what+": "+kind]++
}

// WrongBlock is a block that came back with other bytes than were put.
type WrongBlock struct {
	Key block.Key `json:"key"`
	// Node is who was asked for it.
	Node string `json:"node"`
	// Length is what the node says; Bytes of them differ, the first at offset
	// First. A block of another length than was put counts as wrong throughout.
	Length int `json:"length"`
	Bytes  int `json:"bytes"`
	First  int `json:"first"`
}

func (c *collector) wrong(b WrongBlock) {
	c.cfg.Logger.Error("wrong bytes in a block", "key", b.Key, "node", b.Node, "length", b.Length, "wrong", b.Bytes, "first", b.First)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrongCount++
	c.wrongBytes += int64(b.Bytes)
	if len(c.wrongs) < wrongShown {
		c.wrongs = append(c.wrongs, b)
	}
}

// Progress is how far a run has come.
type Progress struct {
	// Done requests of Total; Total is 0 when it is not known.
	Done, Total int
	Elapsed     time.Duration
	// HitRatio is that of the blocks so far, Bound what an infinite cache has on
	// the same requests; 0 to 1.
	HitRatio, Bound float64
	// BytesRead and BytesPut are totals of payload.
	BytesRead, BytesPut int64
	WrongBlocks, Errors int64
}

func (c *collector) progress() Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := Progress{
		Done: c.totals.requests, Total: c.cfg.Total, Elapsed: c.elapsedLocked(),
		HitRatio: share(c.totals.hits, c.totals.references), Bound: share(c.totals.bound, c.totals.references),
		BytesRead: c.bytesRead.Load(), BytesPut: c.bytesPut.Load(), WrongBlocks: c.wrongCount,
	}
	for _, n := range c.errors {
		p.Errors += n
	}
	return p
}

func share[T int | int64](part, whole T) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// thinned keeps evenly spaced ones of the values added, at most most of them and
// at least half as many once that many have come.
type thinned[T any] struct {
	most   int
	kept   []T
	stride int
	skip   int
	last   T
	any    bool
}

func (t *thinned[T]) add(v T) {
	t.last, t.any = v, true
	if t.skip++; t.skip < max(1, t.stride) {
		return
	}
	t.skip = 0
	t.kept = append(t.kept, v)
	if len(t.kept) < t.most {
		return
	}
	half := t.kept[:0]
	for i := 1; i < len(t.kept); i += 2 {
		half = append(half, t.kept[i])
	}
	t.kept = half
	t.stride = 2 * max(1, t.stride)
}

// values are those kept, and the last one.
func (t *thinned[T]) values() []T {
	v := append([]T(nil), t.kept...)
	if t.any && t.skip > 0 {
		v = append(v, t.last)
	}
	return v
}
