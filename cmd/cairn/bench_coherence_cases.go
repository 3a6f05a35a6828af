package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/coherency"
	"cairn/node"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// benchCoherenceCase is one thing to measure. prepare runs once at each node before the
// rounds, measure once a round.
type benchCoherenceCase struct {
	name    string
	prepare func(context.Context, *benchNode) error
	measure func(context.Context, *benchRound) error
}

// benchCaseNames are what --only may name.
var benchCaseNames = []string{"commit", "through", "records", "throughs", "strict", "stricts", "back", "backs", "resp", "read"}

// benchCases are the baseline and what the command asks for.
func benchCases(c *benchCoherenceCmd) []benchCoherenceCase {
	owned := func(ctx context.Context, n *benchNode) error {
		return n.fill(ctx, "own", benchOwned, int(c.Size), coherency.WriteBack)
	}
	through := func(ctx context.Context, n *benchNode) error {
		return n.fill(ctx, "w", max(c.Writers, c.Readers), int(c.Size), coherency.WriteThrough)
	}
	all := []benchCoherenceCase{
		{"publish", nil, measurePublish},
		{"commit", through, measureCommit},
		{"through", nil, measureThrough},
		{"records", nil, measureCommits},
		{"throughs", nil, measureThroughs},
		{"strict", nil, measureStrict},
		{"stricts", nil, measureStricts},
		{"back", owned, measureBack},
		{"backs", nil, measureBacks},
		{"resp", nil, measureRESP},
		{"read", prepareSealed(int(c.Size)), measureReads},
	}
	if len(c.Only) == 0 {
		return all
	}
	kept := all[:1]
	for _, k := range all[1:] {
		if !slices.Contains(c.Only, k.name) {
			k.measure = nil // others use what it has prepared
		}
		if k.measure != nil || k.prepare != nil {
			kept = append(kept, k)
		}
	}
	return kept
}

// benchOwned is how many names a node owns for write-back writes.
const benchOwned = 256

// fill writes names of the node's own.
func (n *benchNode) fill(ctx context.Context, prefix string, count, size int, p coherency.WritePolicy) error {
	for i := range count {
		if err := n.set(ctx, n.nameOf(prefix, i), size, p); err != nil {
			return err
		}
	}
	return nil
}

func (n *benchNode) nameOf(prefix string, i int) []byte {
	return fmt.Appendf(nil, "%s-%s-%d", n.id, prefix, i)
}

func (n *benchNode) namesOf(prefix string, count int) [][]byte {
	names := make([][]byte, count)
	for i := range names {
		names[i] = n.nameOf(prefix, i)
	}
	return names
}

// set writes a value through the node's Go API.
func (n *benchNode) set(ctx context.Context, name []byte, size int, p coherency.WritePolicy) error {
	in, err := n.node.Reserve(ctx, size)
	if err != nil {
		return err
	}
	_, err = n.node.SetName(ctx, benchSpace, name, in, node.NameOptions{Policy: p})
	return err
}

// repoint commits a new version of a name with the same object: one record through
// machine and log, without moving bytes.
func (n *benchNode) repoint(ctx context.Context, name []byte, end int64) error {
	_, changed, err := n.node.ExpireName(ctx, benchSpace, name, coherency.WriteThrough, func(int64) (int64, bool) { return end, true })
	if err == nil && !changed {
		err = errors.New("the name is gone")
	}
	return err
}

// far is an end that does not come during a measurement, in milliseconds since 1970.
func far(i int) int64 { return time.Now().Add(24*time.Hour).UnixMilli() + int64(i) }

// read reads a name through the node's Go API, and gives its bytes back at once.
func (n *benchNode) read(ctx context.Context, name []byte, level node.ReadLevel) error {
	loan, _, err := n.node.ReadName(ctx, benchSpace, name, node.ReadOptions{Level: level})
	if err == nil {
		loan.Release()
	}
	return err
}

// timed runs op again and again until the time is up, at least once, and returns its
// latencies in ns.
func timed(ctx context.Context, d time.Duration, op func(i int) error) (*hdr.Histogram, error) {
	h := hdr.New(1, time.Minute.Nanoseconds(), 3)
	for i, began := 0, time.Now(); i == 0 || time.Since(began) < d; i++ {
		start := time.Now()
		if err := op(i); err != nil {
			return nil, err
		}
		if err := h.RecordValue(time.Since(start).Nanoseconds()); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return h, nil
}

// rate is what a number of workers did.
type rate struct {
	ops     int64
	elapsed time.Duration
	cpu     time.Duration // of the whole process
}

func (r rate) perSecond() float64 { return float64(r.ops) / r.elapsed.Seconds() }
func (r rate) cpuMicros() float64 { return float64(r.cpu.Nanoseconds()) / 1e3 / float64(max(r.ops, 1)) }

// together runs op in many workers until the time is up, at least once in each.
func together(ctx context.Context, d time.Duration, workers int, op func(worker, i int) error) (rate, error) {
	var ops atomic.Int64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	began, cpu := time.Now(), processCPU()
	for w := range workers {
		wg.Go(func() {
			for i := 0; (i == 0 || time.Since(began) < d) && ctx.Err() == nil; i++ {
				if errs[w] = op(w, i); errs[w] != nil {
					return
				}
				ops.Add(1)
			}
		})
	}
	wg.Wait()
	return rate{ops.Load(), time.Since(began), processCPU() - cpu}, errors.Join(errs...)
}

// processCPU is the processor time that this process has taken.
func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const micro = 1e3 // nanoseconds

// latency adds the median of a histogram, and its ratio to the bare publish.
func (r *benchRound) latency(id, target string, h *hdr.Histogram) float64 {
	p50 := float64(h.ValueAtQuantile(50)) / micro
	g := r.f.add(id, "µs", target, p50)
	g.ratios = append(g.ratios, p50/r.publish)
	return p50
}

func measurePublish(ctx context.Context, r *benchRound) error {
	h, err := timed(ctx, r.c.Duration, func(int) error { return r.n.publish(ctx) })
	if err != nil {
		return err
	}
	r.publish = float64(h.ValueAtQuantile(50)) / micro
	r.f.add("bare publish, p50", "µs", "", r.publish)
	p99 := float64(h.ValueAtQuantile(99)) / micro
	g := r.f.add("bare publish, p99", "µs", "", p99)
	g.ratios = append(g.ratios, p99/r.publish)
	return nil
}

func measureCommit(ctx context.Context, r *benchRound) error {
	name := r.n.nameOf("w", 0)
	h, err := timed(ctx, r.c.Duration, func(i int) error { return r.n.repoint(ctx, name, far(i)) })
	if err == nil {
		r.latency("write-through, one writer, protocol alone, p50", "≤ 2.5 ×", h)
	}
	return err
}

func measureThrough(ctx context.Context, r *benchRound) error {
	name := r.n.nameOf("w", 0)
	h, err := timed(ctx, r.c.Duration, func(int) error { return r.n.set(ctx, name, int(r.c.Size), coherency.WriteThrough) })
	if err != nil {
		return err
	}
	r.latency("write-through "+r.c.Size.String()+", one writer, p50", "", h)
	return r.measureSync(ctx)
}

// measureSync times what the disk takes for the same bytes: a write in place and fsync.
func (r *benchRound) measureSync(ctx context.Context) error {
	f, err := os.Create(filepath.Join(r.n.dir, "sync"))
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, r.c.Size)
	h, err := timed(ctx, r.c.Duration/4, func(int) error {
		if _, err := f.WriteAt(p, 0); err != nil {
			return err
		}
		return f.Sync()
	})
	if err == nil {
		r.latency("  for comparison, a file: write in place and fsync, p50", "", h)
	}
	return err
}

// everywhere runs op in as many workers on each of the nodes.
func (r *benchRound) everywhere(ctx context.Context, op func(n *benchNode, name []byte, i int) error) (rate, error) {
	per := r.c.Writers
	names := make([][]byte, 0, per*len(r.cl.nodes))
	for _, n := range r.cl.nodes {
		names = append(names, n.namesOf("w", per)...)
	}
	return together(ctx, r.c.Duration, len(names), func(w, i int) error { return op(r.cl.nodes[w/per], names[w], i) })
}

// messages is how many messages the nodes have sent to the log.
func (r *benchRound) messages() (sum int64) {
	for _, n := range r.cl.nodes {
		sum += n.node.Coherence().Published
	}
	return sum
}

// measureCommits compares with as many publishers of one record each at once.
func measureCommits(ctx context.Context, r *benchRound) error {
	bare, err := r.everywhere(ctx, func(n *benchNode, _ []byte, _ int) error { return n.publish(ctx) })
	if err != nil {
		return err
	}
	r.f.add(fmt.Sprintf("bare publishes, %d × %d publishers", len(r.cl.nodes), r.c.Writers), "/s", "", bare.perSecond())
	end, before := far(0), r.messages()
	got, err := r.everywhere(ctx, func(n *benchNode, name []byte, i int) error { return n.repoint(ctx, name, end+int64(i)) })
	if err != nil {
		return err
	}
	id := fmt.Sprintf("commits without bytes, %d × %d writers", len(r.cl.nodes), r.c.Writers)
	r.f.add(id, "/s", "≥ 100000", got.perSecond())
	r.f.add("  as a multiple of the bare publishes", "×", "", got.perSecond()/bare.perSecond())
	r.f.add("  processor time of one, everything in it", "µs", "", got.cpuMicros())
	r.f.add("  records in a message", "", "", float64(got.ops)/float64(max(r.messages()-before, 1)))
	return nil
}

func measureThroughs(ctx context.Context, r *benchRound) error {
	got, err := r.everywhere(ctx, func(n *benchNode, name []byte, _ int) error {
		return n.set(ctx, name, int(r.c.Size), coherency.WriteThrough)
	})
	if err == nil {
		r.f.add(fmt.Sprintf("commits of %v with fsync, %d × %d writers", r.c.Size, len(r.cl.nodes), r.c.Writers), "/s", "", got.perSecond())
	}
	return err
}

func measureStrict(ctx context.Context, r *benchRound) error {
	name := r.n.nameOf("w", 0)
	h, err := timed(ctx, r.c.Duration, func(int) error { return r.n.read(ctx, name, node.ReadStrict) })
	if err == nil {
		r.latency("strict read, one reader, p50", "≤ 2 ×", h)
	}
	return err
}

func measureStricts(ctx context.Context, r *benchRound) error {
	names := r.n.namesOf("w", r.c.Readers)
	before := r.n.node.Coherence().Published
	got, err := together(ctx, r.c.Duration, r.c.Readers, func(w, _ int) error { return r.n.read(ctx, names[w], node.ReadStrict) })
	if err != nil {
		return err
	}
	fences := r.n.node.Coherence().Published - before
	r.f.add(fmt.Sprintf("strict reads, %d readers on one node", r.c.Readers), "/s", "", got.perSecond())
	r.f.add("  reads for each fence", "", "≥ 10", float64(got.ops)/float64(max(fences, 1)))
	return nil
}

func measureBack(ctx context.Context, r *benchRound) error {
	names := r.n.namesOf("own", benchOwned)
	h, err := timed(ctx, r.c.Duration, func(i int) error {
		return r.n.set(ctx, names[i%len(names)], int(r.c.Size), coherency.WriteBack)
	})
	if err == nil {
		r.latency("write-back "+r.c.Size.String()+" by the owner, one writer, p50", "≤ 20 µs", h)
	}
	return err
}

func measureBacks(ctx context.Context, r *benchRound) error {
	names := r.n.namesOf("own", benchOwned)
	got, err := together(ctx, r.c.Duration, r.c.Owners, func(w, i int) error {
		return r.n.set(ctx, names[(i*r.c.Owners+w)%len(names)], int(r.c.Size), coherency.WriteBack)
	})
	if err != nil {
		return err
	}
	r.f.add(fmt.Sprintf("write-back %v by the owner, %d writers on one node", r.c.Size, r.c.Owners), "/s", "≥ 100000", got.perSecond())
	r.f.add("  processor time of one write", "µs", "", got.cpuMicros())
	return nil
}

func measureRESP(ctx context.Context, r *benchRound) error {
	names, value := r.n.namesOf("own", benchOwned), make([]byte, r.c.Size)
	h, err := timed(ctx, r.c.Duration, func(i int) error {
		return r.n.client.PutName(ctx, string(names[i%len(names)]), value, client.WithPolicy("write-back"))
	})
	if err == nil {
		r.latency("  over RESP on a unix socket, one client, p50", "", h)
	}
	return err
}

// benchSealed is the number of blocks, and of names, that reads go through.
const benchSealed = 64

func prepareSealed(size int) func(context.Context, *benchNode) error {
	return func(ctx context.Context, n *benchNode) error {
		payload := make([]byte, size)
		for i := range benchSealed {
			if _, err := n.node.Put(ctx, benchKey(1, i), block.Key{}, payload, coherency.WriteThrough); err != nil {
				return err
			}
		}
		return n.fill(ctx, "read", benchSealed, size, coherency.WriteThrough)
	}
}

// measureReads times short reads as many together: a clock for each would count.
func measureReads(ctx context.Context, r *benchRound) error {
	names := r.n.namesOf("read", benchSealed)
	keys := make([]block.Key, benchSealed)
	for i := range keys {
		keys[i] = benchKey(1, i)
	}
	var sealed float64
	for _, k := range []struct {
		id  string
		one func(i int) error
	}{
		{"read of a sealed block", func(i int) error {
			loans, _ := r.n.node.Read(ctx, keys[i:i+1], node.Local)
			if loans[0] == nil {
				return errors.New("the block is gone")
			}
			loans[0].Release()
			return nil
		}},
		{"local read of a name", func(i int) error { return r.n.read(ctx, names[i], node.ReadLocal) }},
		{"session read of a name", func(i int) error { return r.n.read(ctx, names[i], node.ReadSession) }},
	} {
		count := 0
		began := time.Now()
		for ; count == 0 || time.Since(began) < r.c.Duration/2; count += benchSealed {
			for i := range benchSealed {
				if err := k.one(i); err != nil {
					return fmt.Errorf("%s: %w", k.id, err)
				}
			}
		}
		ns := float64(time.Since(began).Nanoseconds()) / float64(count)
		r.f.add(k.id, "ns", "", ns)
		if sealed == 0 {
			sealed = ns
			continue
		}
		r.f.add("  "+strings.TrimSuffix(k.id, " of a name")+" / sealed block", "", "about 1", ns/sealed)
	}
	return nil
}
