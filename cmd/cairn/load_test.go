package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/internal/replay"
	"cairn/internal/testseed"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// loadPace is the time between two operations of a worker: what is tested is
	// behaviour under load, not the load that a small machine bears.
	loadPace = 3 * time.Millisecond
	// maxLoadBlock is the largest block of a load, in bytes.
	maxLoadBlock = 32 << 10
	// loadNames is how many names a load uses; each has one writer.
	loadNames = 24
	// loadTimeout bounds each operation.
	loadTimeout = 15 * time.Second
)

// load puts and reads blocks and names at all nodes, and verifies every byte.
type load struct {
	t     testing.TB
	seed  uint64
	nodes []*loadNode
	names [loadNames]loadName
	stop  context.CancelFunc
	work  sync.WaitGroup
	pause sync.RWMutex // held for writing: no operation runs

	ops, puts, gets, misses, wrong atomic.Int64
	ordered                        atomic.Int64 // reads of names whose order was checked
	next                           atomic.Int64 // number of the next block
	namesMayFail                   atomic.Bool  // writes need NATS; reads do not

	// mu guards what follows.
	mu      sync.Mutex
	put     []loadBlock // acknowledged
	latency *hdr.Histogram
	outside []error // the first failures at nodes that were up
}

// loadBlock is an acknowledged put: block number i, through a node.
type loadBlock struct {
	i, node int
	epoch   int64 // of the node when the put began
	flushed bool  // the node has acknowledged a flush since
}

// loadNode is a node as the workers see it.
type loadNode struct {
	id     string
	client *client.Node
	// epoch is odd while the node may fail; it changes with every kill and return.
	epoch atomic.Int64

	failures atomic.Int64 // while up
	// mu guards what follows.
	mu      sync.Mutex
	failing time.Time     // since when every operation has failed; zero: not
	longest time.Duration // that operations failed one after another
}

// loadName is a name with its one writer.
type loadName struct {
	mu      sync.Mutex
	version uint64 // of the newest attempt to write
	// unsure is when an attempt ended without a known outcome: it may still come
	// into the log, so order is not checked until a later write has succeeded.
	unsure time.Time
	// seen is the newest version that each node has shown or acknowledged in this era:
	// when a node is killed, what it had not flushed is declared lost, and a name goes
	// back for once.
	seen [8]uint64
	era  uint64
}

// startLoad runs so many workers until the test ends, or stopLoad.
func startLoad(s *system, workers int) *load {
	l := &load{t: s.t, seed: testseed.Of(s.t), latency: newHistogram()}
	for _, n := range s.nodes {
		l.nodes = append(l.nodes, &loadNode{id: n.id, client: s.dial(n, client.Config{Timeout: loadTimeout})})
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(s.t.Context()))
	l.stop = stop
	for w := range workers {
		l.work.Go(func() { l.worker(ctx, w, workers) })
	}
	s.t.Cleanup(func() { l.stop(); l.work.Wait() })
	return l
}

// finish stops the workers and fails the test where a byte was wrong.
func (l *load) finish() {
	l.t.Helper()
	l.stop()
	l.work.Wait()
	if n := l.wrong.Load(); n > 0 {
		l.t.Errorf("%d reads had wrong bytes", n)
	}
	if l.gets.Load() == 0 || l.puts.Load() == 0 {
		l.t.Errorf("no load: %d puts, %d gets", l.puts.Load(), l.gets.Load())
	}
}

// quiet runs f while no operation of the load runs.
func (l *load) quiet(f func()) {
	l.pause.Lock()
	defer l.pause.Unlock()
	f()
}

func (l *load) worker(ctx context.Context, w, workers int) {
	rng := rand.New(rand.NewPCG(l.seed, uint64(w)))
	buf := make([]byte, maxLoadBlock)
	tick := time.NewTicker(loadPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		at := rng.IntN(len(l.nodes))
		l.pause.RLock()
		switch p := rng.IntN(20); {
		case p < 2:
			l.putBlock(at, buf)
		case p < 4:
			l.putName(at, rng.IntN(loadNames/workers)*workers+w)
		case p < 8:
			l.getName(at, rng.IntN(loadNames))
		default:
			l.getBlock(at, rng, buf)
		}
		l.pause.RUnlock()
	}
}

// do runs an operation at a node, and counts its failure if the node was up all
// the while.
func (l *load) do(at int, f func(context.Context, *client.Node) error) error {
	n := l.nodes[at]
	epoch := n.epoch.Load()
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	began := time.Now()
	err := f(ctx, n.client)
	took := time.Since(began)
	l.ops.Add(1)
	failed := err != nil && !errors.Is(err, client.ErrNotFound) && !errors.As(err, new(errExpected))
	if errors.Is(err, client.ErrCorrupt) {
		l.bad("%v", err)
	}
	if epoch%2 == 1 || n.epoch.Load() != epoch {
		return err
	}
	n.observe(failed, began, took)
	l.mu.Lock()
	defer l.mu.Unlock()
	if failed && len(l.outside) < 10 {
		l.outside = append(l.outside, fmt.Errorf("at %s after %v: %w", n.id, took.Round(time.Millisecond), err))
	}
	_ = l.latency.RecordValue(took.Microseconds()) // what takes over a minute fails anyway
	return err
}

// errExpected is a failure that is no fault.
type errExpected struct{ error }

func (n *loadNode) observe(failed bool, began time.Time, took time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !failed:
		n.failing = time.Time{}
		return
	case n.failing.IsZero():
		n.failing = began
	}
	n.failures.Add(1)
	n.longest = max(n.longest, time.Since(n.failing))
}

// down tells the load that the node may fail from now on, up that it may not.
func (n *loadNode) down() { n.epoch.Add(1 - n.epoch.Load()%2) }

func (n *loadNode) up() {
	n.mu.Lock()
	n.failing = time.Time{}
	n.mu.Unlock()
	n.epoch.Add(n.epoch.Load() % 2)
}

func (l *load) bad(format string, args ...any) {
	l.wrong.Add(1)
	l.t.Errorf(format, args...)
}

func (l *load) key(i int) block.Key { return benchKey(l.seed, i) }

// length is that of block i: all sizes up to the largest.
func length(i int) int { return 1 + int(uint32(i)*2654435761>>8)%maxLoadBlock }

func (l *load) putBlock(at int, buf []byte) {
	i := int(l.next.Add(1)) - 1
	p := buf[:length(i)]
	replay.Fill(p, l.key(i))
	epoch := l.nodes[at].epoch.Load()
	err := l.do(at, func(ctx context.Context, n *client.Node) error {
		_, err := n.Put(ctx, l.key(i), block.Key{}, p)
		return err
	})
	if err != nil {
		return
	}
	l.puts.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put = append(l.put, loadBlock{i: i, node: at, epoch: epoch})
}

func (l *load) getBlock(at int, rng *rand.Rand, buf []byte) {
	l.mu.Lock()
	known := len(l.put)
	if known == 0 {
		l.mu.Unlock()
		return
	}
	b := l.put[rng.IntN(known)]
	l.mu.Unlock()
	var p []byte
	err := l.do(at, func(ctx context.Context, n *client.Node) (err error) {
		p, err = n.Get(ctx, l.key(b.i), buf)
		return err
	})
	l.gets.Add(1)
	switch {
	case err == nil:
		l.check(b.i, p)
	case errors.Is(err, client.ErrNotFound):
		l.misses.Add(1)
	}
}

// check verifies that p is block i.
func (l *load) check(i int, p []byte) {
	if len(p) != length(i) {
		l.bad("block %d has %d bytes, want %d", i, len(p), length(i))
	}
	if wrong, first := replay.Check(p, l.key(i)); wrong > 0 {
		l.bad("block %d: %d of %d bytes are wrong from %d on", i, wrong, len(p), first)
	}
}

// inFlight is how long a write whose writer has died may take into the log.
const inFlight = 5 * time.Second

// nameValue is a version of a name: the version, and then bytes that only this
// name at this version has.
func nameValue(name string, version uint64) []byte {
	p := binary.BigEndian.AppendUint64(make([]byte, 0, 8+length(int(version))/4), version)
	p = p[:cap(p)]
	replay.Fill(p[8:], block.NamedKey("load", []byte(name), version))
	return p
}

func (l *load) putName(at, i int) {
	if l.nodes[at].epoch.Load()%2 == 1 {
		return // it could not even be asked
	}
	s := &l.names[i]
	name := fmt.Sprintf("load-%02d", i)
	s.mu.Lock()
	s.version++
	version := s.version
	s.mu.Unlock()
	epoch := l.nodes[at].epoch.Load()
	mayFail := l.namesMayFail.Load()
	err := l.do(at, func(ctx context.Context, n *client.Node) error {
		err := n.PutName(ctx, name, nameValue(name, version))
		if err != nil && (mayFail || l.namesMayFail.Load() || ownerAway(err)) {
			return errExpected{err}
		}
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.unsure = time.Now()
		return
	}
	if !s.unsure.IsZero() && time.Since(s.unsure) > inFlight {
		s.unsure = time.Time{}
	}
	if l.nodes[at].epoch.Load() == epoch {
		s.see(l.era(), at, version)
	}
	l.puts.Add(1)
}

// era counts how often a node was killed or started.
func (l *load) era() uint64 {
	var n uint64
	for _, node := range l.nodes {
		n += uint64(node.epoch.Load())
	}
	return n
}

func (l *load) getName(at, i int) {
	s := &l.names[i]
	name := fmt.Sprintf("load-%02d", i)
	s.mu.Lock()
	era := l.era()
	before, unsure := s.seen[at], !s.unsure.IsZero() || s.era != era
	s.mu.Unlock()
	epoch := l.nodes[at].epoch.Load()
	var p []byte
	err := l.do(at, func(ctx context.Context, n *client.Node) error {
		v, err := n.GetName(ctx, name, nil)
		p = v.Value
		if ownerAway(err) {
			return errExpected{err}
		}
		return err
	})
	l.gets.Add(1)
	if errors.Is(err, client.ErrNotFound) {
		l.misses.Add(1)
	}
	if err != nil {
		return
	}
	if len(p) < 8 {
		l.bad("name %s has %d bytes", name, len(p))
		return
	}
	version := binary.BigEndian.Uint64(p)
	if want := nameValue(name, min(version, 1<<32)); string(p) != string(want) {
		l.bad("name %s at version %d: %d bytes that are not its own", name, version, len(p))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	same := l.nodes[at].epoch.Load() == epoch && epoch%2 == 0
	if l.era() == era {
		defer s.see(era, at, version)
	}
	if !same || unsure || !s.unsure.IsZero() || l.era() != era {
		return
	}
	l.ordered.Add(1)
	if version < before {
		l.bad("name %s at node %s went back from version %d to %d", name, l.nodes[at].id, before, version)
	}
}

// see notes a version that a node has shown; the lock is held.
func (s *loadName) see(era uint64, at int, version uint64) {
	if s.era != era {
		s.seen, s.era = [8]uint64{}, era
	}
	s.seen[at] = max(s.seen[at], version)
}

// ownerAway tells whether a name could not be had because the node that owns it, or
// its home, was killed: until its lease is over nobody else may speak for it.
func ownerAway(err error) bool {
	for _, e := range []error{client.ErrUnavailable, client.ErrUnknownOutcome, client.ErrUnreachable, client.ErrNoHome, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// putThrough are the numbers of the blocks that were put through a node.
func (l *load) putThrough(at int) []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []int
	for _, b := range l.put {
		if b.node == at {
			list = append(list, b.i)
		}
	}
	return list
}

// owed are those of putThrough that a flush makes durable: of what was acknowledged
// before the last kill the node may have lost all that no flush had followed.
func (l *load) owed(at int) []int {
	epoch := l.nodes[at].epoch.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []int
	for _, b := range l.put {
		if b.node == at && (b.flushed || b.epoch == epoch) {
			list = append(list, b.i)
		}
	}
	return list
}

// flushed notes that the node has acknowledged a flush of these blocks.
func (l *load) flushed(at int, blocks []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for j, b := range l.put {
		if b.node == at && slices.Contains(blocks, b.i) {
			l.put[j].flushed = true
		}
	}
}

// missing reads blocks through a node, verifies them, and returns those that are
// not there.
func (l *load) missing(ctx context.Context, at int, blocks []int) ([]int, error) {
	keys := make([]block.Key, len(blocks))
	bufs := make([][]byte, len(blocks))
	for j, i := range blocks {
		keys[j] = l.key(i)
	}
	found, err := l.nodes[at].client.GetBatch(ctx, keys, func(j int, d block.Descriptor) []byte {
		bufs[j] = make([]byte, d.Length)
		return bufs[j]
	})
	if err != nil {
		return nil, err
	}
	var lost []int
	for j, i := range blocks {
		if !found[j] {
			lost = append(lost, i)
			continue
		}
		l.check(i, bufs[j])
	}
	return lost, nil
}

// quantile is a latency at nodes that were up.
func (l *load) quantile(q float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Duration(l.latency.ValueAtQuantile(q)) * time.Microsecond
}

// failuresWhileUp fails the test where a node that was up failed for longer than bound.
func (l *load) failuresWhileUp(bound time.Duration) (count int64, longest time.Duration) {
	l.t.Helper()
	for _, n := range l.nodes {
		count += n.failures.Load()
		n.mu.Lock()
		longest = max(longest, n.longest)
		n.mu.Unlock()
	}
	if longest > bound {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.t.Errorf("nodes that were up failed for %v, want at most %v; first failures: %v", longest, bound, errors.Join(l.outside...))
	}
	return count, longest
}
