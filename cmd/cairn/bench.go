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
	"text/tabwriter"
	"time"

	"cairn/block"
	"cairn/client"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// benchCmd measures; what, its subcommand says.
type benchCmd struct {
	Blocks    benchBlocksCmd    `cmd:"" default:"withargs" help:"Measure reads and writes of blocks at a running node."`
	Coherence benchCoherenceCmd `cmd:"" help:"Measure linearizable names in a cluster of its own, against bare JetStream."`
	Onboard   benchOnboardCmd   `cmd:"" help:"Measure the onboarding of a sequence from a peer into GPU memory, against the link."`
	Placement benchPlacementCmd `cmd:"" help:"Measure how announcements of many changes reach a router, and how a router starts beside them."`

	PlacementView benchPlacementViewCmd `cmd:"" hidden:""`
}

// benchBlocksCmd measures a running node's data plane from this process.
type benchBlocksCmd struct {
	connection
	Size     []size        `help:"Sizes of blocks." default:"64KiB,512KiB,2MiB"`
	Clients  []int         `help:"Numbers of clients at once." default:"1,8"`
	Batch    int           `help:"Blocks in one read." default:"1"`
	Blocks   int           `help:"Blocks of each size; they should fit the node's host memory." default:"64"`
	Duration time.Duration `help:"Time of each measurement." default:"2s"`
	Rounds   int           `help:"Measurements of each case, taken in turn; the median is shown." default:"5"`
}

// benchResult is the median of the rounds of one case.
type benchResult struct {
	Op      string  `json:"op"`
	Size    int64   `json:"size"`
	Clients int     `json:"clients"`
	MBps    float64 `json:"mb_per_second"`
	Low     float64 `json:"lowest_mb_per_second"`
	High    float64 `json:"highest_mb_per_second"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
}

func (c *benchBlocksCmd) Run(a *app) error {
	if c.Rounds < 1 || c.Blocks < 1 || c.Batch < 1 || c.Duration <= 0 {
		return usage("--rounds, --blocks, --batch and --duration must be positive")
	}
	for _, s := range c.Size {
		if s < 1 || s > block.MaxLength {
			return usage("--size %v: want 1 B to %s", s, bytesText(block.MaxLength))
		}
	}
	if err := c.find(a.ctx); err != nil {
		return err
	}
	cl, err := client.Open(a.ctx, client.Config{Nodes: c.Nodes, MaxConnections: maxBenchClients})
	if err != nil {
		return err
	}
	defer cl.Close()
	n, err := cl.Node(c.Nodes[0])
	if err != nil {
		return err
	}
	var cases []*benchCase
	for _, s := range c.Size {
		for _, k := range c.Clients {
			if k < 1 || k > maxBenchClients {
				return usage("--clients %d: want 1 to %d", k, maxBenchClients)
			}
			for _, op := range []string{"put", "get"} {
				cases = append(cases, &benchCase{c: c, n: n, op: op, size: int(s), clients: k, hist: newHistogram()})
			}
		}
	}
	bar := progress(a.err, c.Rounds*len(cases), "runs")
	for range c.Rounds { // cases take turns, so that a slow moment of the machine hits all
		for _, k := range cases {
			if err := k.measure(a.ctx); err != nil {
				return err
			}
			_ = bar.Add(1)
		}
	}
	_ = bar.Exit()
	fmt.Fprintln(a.err)
	var results []benchResult
	for _, k := range cases {
		results = append(results, k.result())
	}
	if a.json {
		return a.printJSON(results)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "op\tsize\tclients\tMB/s\tlow\thigh\tp50 µs\tp99 µs\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t\n", r.Op, bytesText(r.Size), r.Clients, r.MBps, r.Low, r.High, r.P50, r.P99)
	}
	return w.Flush()
}

const maxBenchClients = 256

// newHistogram spans 1 µs to a minute with three digits.
func newHistogram() *hdr.Histogram { return hdr.New(1, time.Minute.Microseconds(), 3) }

// benchCase is one operation at one size with a number of clients.
type benchCase struct {
	c       *benchBlocksCmd
	n       *client.Node
	op      string
	size    int
	clients int
	rates   []float64 // bytes a second, of each round
	hist    *hdr.Histogram
	mu      sync.Mutex // guards hist
}

// benchKey is block i of a set of this run.
func benchKey(run uint64, i int) block.Key {
	var hash [block.HashSize]byte
	binary.BigEndian.PutUint64(hash[:], run)
	binary.BigEndian.PutUint32(hash[8:], uint32(i))
	k, err := block.NewKey(i&block.MaxPosition, hash)
	if err != nil {
		return block.Key{} // not reached: the position is masked
	}
	return k
}

// measure runs the case once. Puts are of new blocks; gets are of blocks put
// before.
func (k *benchCase) measure(ctx context.Context) error {
	run := rand.Uint64()
	payload := make([]byte, k.size)
	for i := 0; i+8 <= len(payload); i += 8 {
		binary.LittleEndian.PutUint64(payload[i:], rand.Uint64())
	}
	if k.op == "get" {
		for i := range k.c.Blocks {
			if _, err := k.n.Put(ctx, benchKey(run, i), block.Key{}, payload); err != nil {
				return err
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, k.c.Duration)
	defer cancel()
	var moved, next atomic.Int64
	errs := make([]error, k.clients)
	var wg sync.WaitGroup
	began := time.Now()
	for w := range k.clients {
		wg.Go(func() {
			one := k.putter(run, payload, &next)
			if k.op == "get" {
				one = k.getter(run, w)
			}
			errs[w] = k.loop(ctx, one, &moved)
		})
	}
	wg.Wait()
	k.rates = append(k.rates, float64(moved.Load())/time.Since(began).Seconds())
	return errors.Join(errs...)
}

// loop repeats one operation, which returns the bytes it moved, until the time is up.
func (k *benchCase) loop(ctx context.Context, one func(context.Context) (int, error), moved *atomic.Int64) error {
	hist := newHistogram()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.hist.Merge(hist)
	}()
	for ctx.Err() == nil {
		start := time.Now()
		n, err := one(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		if err := hist.RecordValue(time.Since(start).Microseconds()); err != nil {
			return err
		}
		moved.Add(int64(n))
	}
	return nil
}

func (k *benchCase) putter(run uint64, payload []byte, next *atomic.Int64) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		_, err := k.n.Put(ctx, benchKey(run, int(next.Add(1))), block.Key{}, payload)
		return len(payload), err
	}
}

func (k *benchCase) getter(run uint64, worker int) func(context.Context) (int, error) {
	rng := rand.New(rand.NewPCG(run, uint64(worker)))
	buffers := make([][]byte, k.c.Batch)
	for i := range buffers {
		buffers[i] = make([]byte, k.size)
	}
	keys := make([]block.Key, k.c.Batch)
	return func(ctx context.Context) (int, error) {
		for i := range keys {
			keys[i] = benchKey(run, rng.IntN(k.c.Blocks))
		}
		found, err := k.n.GetBatch(ctx, keys, func(i int, d block.Descriptor) []byte { return buffers[i][:d.Length] })
		n := 0
		for _, ok := range found {
			if ok {
				n += k.size
			}
		}
		return n, err
	}
}

func (k *benchCase) result() benchResult {
	sorted := slices.Sorted(slices.Values(k.rates))
	const mb = 1e6
	return benchResult{
		Op: k.op, Size: int64(k.size), Clients: k.clients,
		MBps: sorted[len(sorted)/2] / mb, Low: sorted[0] / mb, High: sorted[len(sorted)-1] / mb,
		P50: float64(k.hist.ValueAtQuantile(50)), P99: float64(k.hist.ValueAtQuantile(99)),
	}
}
