package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"text/tabwriter"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/sequence"
)

// benchOnboardCmd measures what an onboard makes of the link: two nodes in this process,
// the second of which brings a prefix from the first one's host memory into its GPU memory,
// once when the request is there, and once with the prefix fetched ahead of it.
// Every round measures each case in turn, so that ratios mean something on a machine that
// others use as well.
type benchOnboardCmd struct {
	Blocks    int    `help:"Blocks of the prefix." default:"256"`
	Size      size   `help:"Size of a block." default:"512KiB"`
	To        string `help:"Tier that it is brought into: ${enum}." enum:"vram,host" default:"vram"`
	Transfers int    `help:"Transfers at once; connections of the other cases." default:"4"`
	Batch     int    `help:"Blocks of one transfer." default:"16"`
	Rounds    int    `help:"Measurements of each case, taken in turn; medians are shown." default:"5"`
	Profile   string `help:"Write a profile of the processor to this file, of onboards alone, after the rounds." type:"path" placeholder:"FILE"`
	Dir       string `help:"Directory for temporary data; the system's by default." type:"path" placeholder:"DIR"`
}

// mostOnboard bounds the bytes of the prefix: each node has them in memory, twice.
const mostOnboard = 8 << 30

func (c *benchOnboardCmd) validate() error {
	switch {
	case c.Blocks < 1 || c.Rounds < 1 || c.Transfers < 1 || c.Batch < 1:
		return usage("--blocks, --rounds, --transfers and --batch must be positive")
	case c.Size < 1 || c.Size > block.MaxLength || int64(c.Size)*int64(c.Blocks) > mostOnboard:
		return usage("--size, --blocks: want blocks of 1 B to %s, and at most %s together", bytesText(block.MaxLength), bytesText(mostOnboard))
	}
	return nil
}

func (c *benchOnboardCmd) Run(a *app) error {
	if err := c.validate(); err != nil {
		return err
	}
	return inTemporary(c.Dir, func(dir string) error {
		b := &onboardBench{c: c}
		err := b.start(a, dir)
		if err == nil {
			err = b.measure(a)
		}
		if err := errors.Join(err, b.stop()); err != nil {
			return err
		}
		return b.report(a)
	})
}

// onboardBench is the nodes and what was measured. Rates are in bytes a second.
type onboardBench struct {
	c       *benchOnboardCmd
	cluster benchCluster
	from    *runningNode
	to      *runningNode
	client  *client.Client
	keys    []block.Key
	closers []func() error

	tcp, reads, onboards, ahead onboardCase
}

// onboardCase is the rounds of one case: rates in bytes a second, and the time of the
// processor, sender and receiver together, in seconds.
type onboardCase struct {
	rates, cpu []float64
}

// start makes the nodes and puts the blocks.
func (b *onboardBench) start(a *app, dir string) error {
	if err := b.cluster.startServers(dir, 1); err != nil {
		return err
	}
	// Room for all and a little more, so that the rounds use the same memory.
	room := strconv.FormatInt(int64(b.c.Size)*int64(b.c.Blocks)*9/8+64<<20, 10)
	for i, n := range []**runningNode{&b.from, &b.to} {
		id := "n" + strconv.Itoa(i)
		cfg, err := nodeDefaults("--id", id, "--data", filepath.Join(dir, id), "--listen", "127.0.0.1:0", "--nats", b.cluster.servers[0].ClientURL(),
			"--host", room, "--disk", "0", "--vram", room, "--classes", b.c.class(), "--prefault",
			"--sequence-pins", "1", "--prefetch-pins", "1", "--sequence-transfers", strconv.Itoa(b.c.Transfers), "--sequence-batch", strconv.Itoa(b.c.Batch))
		if err != nil {
			return err
		}
		if *n, err = startNode(a, cfg); err != nil {
			return err
		}
		b.closers = append(b.closers, (*n).stop)
	}
	var err error
	if b.client, err = client.Open(a.ctx, client.Config{Nodes: []string{b.from.addr}, Timeout: time.Minute}); err != nil {
		return err
	}
	b.closers = append(b.closers, b.client.Close)
	if err := b.put(a.ctx); err != nil {
		return err
	}
	return b.announced(a.ctx)
}

// announced waits until the second node has heard of all blocks.
func (b *onboardBench) announced(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		found := b.to.node.Match(b.keys).Prefix
		if found == len(b.keys) {
			return nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d blocks were found: %w", found, len(b.keys), err)
		}
	}
}

// class is the slots' size: that of the blocks.
func (c *benchOnboardCmd) class() string {
	const page = 4 << 10
	return strconv.FormatInt((int64(c.Size)+page-1)/page*page, 10)
}

func (b *onboardBench) put(ctx context.Context) error {
	var err error
	if b.keys, err = sequence.KeysOf(nil, sequence.Salt{}, 1, make([]uint32, b.c.Blocks)); err != nil {
		return err
	}
	var parent block.Key
	payload := make([]byte, b.c.Size)
	for i, key := range b.keys {
		for j := i % 256; j < len(payload); j += 256 {
			payload[j]++
		}
		if _, err := b.client.Put(ctx, key, parent, payload); err != nil {
			return err
		}
		parent = key
	}
	return nil
}

func (b *onboardBench) stop() error {
	var errs []error
	for i := len(b.closers) - 1; i >= 0; i-- {
		errs = append(errs, b.closers[i]())
	}
	return errors.Join(append(errs, b.cluster.stop())...)
}

func (b *onboardBench) measure(a *app) error {
	if _, err := b.onboard(a.ctx); err != nil { // memory is touched, connections are made
		return err
	}
	link := &loopback{connections: b.c.Transfers, pieces: b.c.Blocks, size: int(b.c.Size), batch: b.c.Batch}
	bar := progress(a.err, b.c.Rounds, "rounds")
	for range b.c.Rounds {
		for _, k := range []struct {
			into    *onboardCase
			measure func(context.Context) (rate, error)
		}{
			{&b.tcp, link.tcp},
			{&b.reads, func(ctx context.Context) (rate, error) { return link.reads(ctx, b.from.addr, b.keys) }},
			{&b.onboards, b.onboard},
			{&b.ahead, b.onboardAhead},
		} {
			runtime.GC() // what the case before has left is not this one's
			r, err := k.measure(a.ctx)
			if err != nil {
				return err
			}
			k.into.cpu = append(k.into.cpu, r.cpu.Seconds())
			k.into.rates = append(k.into.rates, float64(b.c.Size)*float64(b.c.Blocks)/r.elapsed.Seconds())
		}
		_ = bar.Add(1)
	}
	_ = bar.Exit()
	fmt.Fprintln(a.err)
	if b.c.Profile == "" {
		return nil
	}
	return profiled(b.c.Profile, func() error { // onboards alone, after the rounds
		for range profiledOnboards {
			if _, err := b.onboard(a.ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// profiledOnboards is how many onboards a profile is of.
const profiledOnboards = 30

// onboardAhead is onboard of blocks that were fetched into host memory before.
func (b *onboardBench) onboardAhead(ctx context.Context) (r rate, err error) {
	n, err := b.client.Node(b.to.addr)
	if err != nil {
		return r, err
	}
	here, err := n.Prefetch(ctx, block.Host, b.keys, time.Minute)
	if err == nil && here != len(b.keys) {
		err = fmt.Errorf("%d of %d blocks were fetched ahead", here, len(b.keys))
	}
	if err != nil {
		return r, err
	}
	return b.bringIn(ctx, n, len(b.keys))
}

// onboard brings a sequence in from the other node.
func (b *onboardBench) onboard(ctx context.Context) (r rate, err error) {
	n, err := b.client.Node(b.to.addr)
	if err != nil {
		return r, err
	}
	return b.bringIn(ctx, n, 0)
}

// bringIn opens a sequence of which the node has so many blocks, onboards it, and takes
// everything away again.
func (b *onboardBench) bringIn(ctx context.Context, n *client.Node, local int) (r rate, err error) {
	s, m, err := n.OpenSequenceKeys(ctx, b.keys)
	if err != nil {
		return r, err
	}
	defer s.Close()
	if m.Prefix != len(b.keys) || m.Local != local {
		return r, fmt.Errorf("%d of %d blocks were found, %d of them at the node itself", m.Prefix, len(b.keys), m.Local)
	}
	tier, err := block.ParseTier(b.c.To)
	if err != nil {
		return r, err
	}
	watch := startWatch()
	got, err := s.Onboard(ctx, tier, sequence.Range{})
	r = watch.read(1)
	if err != nil {
		return r, err
	}
	if got.Range.Len() != len(b.keys) {
		return r, fmt.Errorf("%d of %d blocks were onboarded: %s", got.Range.Len(), len(b.keys), got.Missing)
	}
	if err := s.Close(); err != nil {
		return r, err
	}
	b.to.node.Remove(b.keys...)
	return r, nil
}

// ratios are a[i]/b[i].
func ratios(a, b []float64) []float64 {
	r := make([]float64, len(a))
	for i := range r {
		r[i] = a[i] / b[i]
	}
	return r
}

// onboardResult is the median of one case.
type onboardResult struct {
	Case string  `json:"case"`
	MBps float64 `json:"mb_per_second"`
	Low  float64 `json:"lowest_mb_per_second"`
	High float64 `json:"highest_mb_per_second"`
	// Of is the median of the onboards' shares of this case's rate in the same round.
	Of     float64 `json:"onboard_share,omitempty"`
	OfLow  float64 `json:"onboard_share_low,omitempty"`
	OfHigh float64 `json:"onboard_share_high,omitempty"`
	// Faster is how many times as fast as the onboard of the same round it was, for what was
	// fetched ahead.
	Faster     float64 `json:"times_as_fast,omitempty"`
	FasterLow  float64 `json:"times_as_fast_low,omitempty"`
	FasterHigh float64 `json:"times_as_fast_high,omitempty"`
	// Milliseconds is the median time of all blocks.
	Milliseconds float64 `json:"milliseconds"`
	// CPU is the processor's time for all blocks, and OfCPU the onboards' as a multiple.
	CPU   float64 `json:"processor_ms"`
	OfCPU float64 `json:"onboard_processor_times,omitempty"`
}

func (b *onboardBench) report(a *app) error {
	var results []onboardResult
	for _, k := range []struct {
		name string
		onboardCase
	}{{"raw TCP", b.tcp}, {"batched peer reads", b.reads}, {"onboard to " + b.c.To, b.onboards}, {"the same, fetched ahead", b.ahead}} {
		r := onboardResult{Case: k.name}
		r.MBps, r.Low, r.High = medianOf(k.rates)
		const mb = 1e6
		r.MBps, r.Low, r.High = r.MBps/mb, r.Low/mb, r.High/mb
		r.Milliseconds = float64(b.c.Size) * float64(b.c.Blocks) / r.MBps / 1e3
		r.CPU, _, _ = medianOf(k.cpu)
		r.CPU *= 1e3
		switch &k.rates[0] {
		case &b.onboards.rates[0]:
		case &b.ahead.rates[0]:
			r.Faster, r.FasterLow, r.FasterHigh = medianOf(ratios(b.ahead.rates, b.onboards.rates))
		default:
			r.Of, r.OfLow, r.OfHigh = medianOf(ratios(b.onboards.rates, k.rates))
			r.OfCPU, _, _ = medianOf(ratios(b.onboards.cpu, k.cpu))
		}
		results = append(results, r)
	}
	if a.json {
		return a.printJSON(results)
	}
	fmt.Fprintf(a.out, "%d blocks of %v, %d connections, %d blocks a batch\n", b.c.Blocks, b.c.Size, b.c.Transfers, b.c.Batch)
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tms\tMB/s\tlow–high\tonboard has of it\ttarget\tprocessor ms\tonboard takes")
	for i, r := range results {
		share, target, times := "", "", ""
		if r.Of > 0 {
			share = fmt.Sprintf("%.0f %% (%.0f–%.0f)", 100*r.Of, 100*r.OfLow, 100*r.OfHigh)
			times = fmt.Sprintf("%.2f ×", r.OfCPU)
		}
		if i == 1 {
			target = "≥ 80 %"
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.0f\t%.0f–%.0f\t%s\t%s\t%.0f\t%s\n", r.Case, r.Milliseconds, r.MBps, r.Low, r.High, share, target, r.CPU, times)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	last := results[len(results)-1]
	_, err := fmt.Fprintf(a.out, "fetched ahead into host memory, the onboard is %.1f times as fast (%.1f–%.1f)\n", last.Faster, last.FasterLow, last.FasterHigh)
	return err
}
