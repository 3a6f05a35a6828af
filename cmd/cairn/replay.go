package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/internal/replay"
	"cairn/internal/report"
	"cairn/internal/trace"

	"github.com/schollz/progressbar/v3"
)

// replayFlags are what replay and demo share.
type replayFlags struct {
	Block   size    `help:"Bytes of each block." default:"64KiB"`
	Workers int     `help:"Requests in progress at a time." default:"8"`
	Speed   float64 `help:"Play at the trace's own times, this many times as fast; 0 is as fast as possible." default:"0"`
	Report  string  `help:"HTML report to write; 'off' for none." default:"cairn-report.html" placeholder:"FILE"`
	Salt    string  `help:"Text that goes into every key: another salt starts cold on a cluster that has seen the trace." default:""`
}

type replayCmd struct {
	connection
	replayFlags
	Trace string `arg:"" optional:"" help:"Trace in Mooncake's format (JSON lines); the one that is built in by default." type:"path"`
	Limit int    `help:"Replay only so many requests; 0 is all." default:"0"`
}

func (c *replayCmd) Run(a *app) error {
	if c.Limit < 0 {
		return usage("--limit %d: want 0 for all, or more", c.Limit)
	}
	requests, name := trace.Bundled(), trace.BundledName
	if c.Trace != "" {
		requests, name = trace.ReadFile(c.Trace, trace.Limits{}), filepath.Base(c.Trace)
	}
	requests = first(requests, c.Limit)
	bound, err := trace.Measure(requests) // finds a broken line before any work is done
	if err != nil {
		return usageError{err}
	}
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	s, err := c.run(a, cl, requests, name, bound.Requests)
	return c.finish(a, s, err)
}

// first yields the first n requests; 0 is all.
func first(requests iter.Seq2[trace.Request, error], n int) iter.Seq2[trace.Request, error] {
	if n <= 0 {
		return requests
	}
	return func(yield func(trace.Request, error) bool) {
		left := n
		for r, err := range requests {
			if left == 0 || !yield(r, err) {
				return
			}
			left--
		}
	}
}

// run replays with a progress bar.
func (f replayFlags) run(a *app, cl *client.Client, requests iter.Seq2[trace.Request, error], name string, total int) (replay.Summary, error) {
	if f.Block < 1 || f.Block > block.MaxLength {
		return replay.Summary{}, usage("--block %v: want 1 B to %s", f.Block, bytesText(block.MaxLength))
	}
	if f.Workers < 1 || !(f.Speed >= 0) {
		return replay.Summary{}, usage("--workers %d, --speed %g: want 1 or more workers, and a speed of 0 or more", f.Workers, f.Speed)
	}
	bar := progress(a.err, total, "requests")
	target := &replayTarget{cl: cl, log: a.log, blockBytes: int64(f.Block), run: rand.Text(), addrs: map[string]string{}}
	s, err := replay.Run(a.ctx, requests, target, replay.Config{
		Name: name, Total: total, Workers: f.Workers, BlockBytes: int(f.Block), Speed: f.Speed, Salt: f.Salt,
		Status: target.status, ErrorKind: errorKind, Logger: a.log,
		Progress: func(p replay.Progress) {
			bar.Describe(fmt.Sprintf("hit %4.1f%% of %4.1f%% possible, read %s, put %s, wrong %d",
				100*p.HitRatio, 100*p.Bound, bytesText(p.BytesRead), bytesText(p.BytesPut), p.WrongBlocks))
			_ = bar.Set(p.Done) // a bar that cannot be drawn must not stop the work
		},
	})
	_ = bar.Exit()
	fmt.Fprintln(a.err)
	return s, err
}

// finish shows the result of a run that ended with err, writes the report, and
// makes wrong bytes a failure. What was done before an error is worth showing.
func (f replayFlags) finish(a *app, s replay.Summary, err error) error {
	if err != nil && s.Requests == 0 {
		return err
	}
	if a.json {
		if err := a.printJSON(s); err != nil {
			return err
		}
	} else if err := s.WriteTable(a.out); err != nil {
		return err
	}
	if f.Report != "off" && f.Report != "" {
		if err := writeReport(f.Report, s); err != nil {
			return err
		}
		fmt.Fprintf(a.err, "report: %s\n", f.Report)
	}
	switch {
	case s.WrongBlocks > 0:
		return fmt.Errorf("%w: %d bytes in %d blocks", errWrongBytes, s.WrongBytes, s.WrongBlocks)
	case s.Interrupted:
		return fmt.Errorf("interrupted: the figures are of what was done: %w", err)
	case s.FailedRequests > 0:
		return fmt.Errorf("%d requests failed", s.FailedRequests)
	}
	return nil
}

func writeReport(path string, s replay.Summary) error {
	f, err := os.Create(path)
	if err != nil {
		return usage("--report: %w", err)
	}
	machine := fmt.Sprintf("%d processors, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	params := []report.Parameter{{Name: "cairn", Value: version()}, {Name: "machine", Value: machine}}
	if err := report.Write(f, s, report.Options{Parameters: params}); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// progress is a bar on a terminal, and a line now and then elsewhere.
func progress(w io.Writer, total int, unit string) *progressbar.ProgressBar {
	opts := []progressbar.Option{
		progressbar.OptionSetWriter(w), progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit),
		progressbar.OptionSetPredictTime(true), progressbar.OptionSetWidth(20), progressbar.OptionThrottle(200 * time.Millisecond),
		progressbar.OptionUseANSICodes(true),
	}
	if f, ok := w.(*os.File); !ok || !terminal(f) {
		opts = append(opts, progressbar.OptionThrottle(10*time.Second), progressbar.OptionUseANSICodes(false))
	}
	return progressbar.NewOptions(total, opts...)
}

func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func errorKind(err error) string {
	for kind, sentinel := range map[string]error{
		"unavailable": client.ErrUnavailable, "full": client.ErrFull, "conflict": client.ErrConflict, "corrupt": client.ErrCorrupt,
		"no space": client.ErrNoSpace, "too large": client.ErrTooLarge,
	} {
		if errors.Is(err, sentinel) {
			return kind
		}
	}
	return ""
}

// traceBlockTokens is the size of a block in Mooncake's traces.
const traceBlockTokens = 512

// replayTarget is a cluster for a replay to run against.
type replayTarget struct {
	cl         *client.Client
	log        *slog.Logger
	blockBytes int64
	run        string // makes the ids of requests unique to this run
	requests   atomic.Uint64

	// mu guards addrs: the data address of every node that a route has named.
	mu    sync.Mutex
	addrs map[string]string
}

// Route implements replay.Cluster.
func (t *replayTarget) Route(ctx context.Context, keys []block.Key, tokens int, avoid []string) (string, func(), error) {
	id := fmt.Sprintf("%s-%d", t.run, t.requests.Add(1))
	r, err := t.cl.Route(ctx, client.RouteRequest{
		// The last block of a request may be partly filled, and counts as a block.
		Keys: keys, Tokens: max(tokens, len(keys)*traceBlockTokens),
		BlockTokens: traceBlockTokens, BlockBytes: t.blockBytes, Exclude: avoid, ID: id,
	})
	if err != nil {
		return "", nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range r.Candidates {
		t.addrs[c.Node] = c.Addr
	}
	t.addrs[r.Node] = r.Addr
	return r.Node, func() { t.done(ctx, id) }, nil
}

// done tells the router that a request is over. A router that does not hear it
// forgets the request by itself, so a failure costs nothing but precision.
func (t *replayTarget) done(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
	defer cancel()
	if err := t.cl.Done(ctx, id); err != nil {
		t.log.Debug("telling the router that a request is done", "id", id, "err", err)
	}
}

// Node implements replay.Cluster.
func (t *replayTarget) Node(name string) (replay.Node, error) {
	t.mu.Lock()
	addr := t.addrs[name]
	t.mu.Unlock()
	n, err := t.cl.Node(addr)
	if err != nil {
		return nil, err
	}
	return replayNode{n}, nil
}

// status asks every node that has been named so far.
func (t *replayTarget) status(ctx context.Context) ([]replay.NodeStatus, error) {
	t.mu.Lock()
	names := make(map[string]string, len(t.addrs))
	for name, addr := range t.addrs {
		names[name] = addr
	}
	t.mu.Unlock()
	var list []replay.NodeStatus
	var errs []error
	for name, addr := range names {
		st, err := nodeStatus(ctx, addr, statusTimeout)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s := replay.NodeStatus{Node: name, PeerHits: st.PeerHits}
		for _, ts := range st.Tiers {
			s.Tiers = append(s.Tiers, replay.TierStatus{Tier: ts.Tier, Objects: ts.Objects, Bytes: ts.Bytes, Capacity: ts.Capacity, Hits: ts.Hits})
		}
		list = append(list, s)
	}
	if len(list) == 0 && len(names) > 0 {
		return nil, errors.Join(errs...)
	}
	return list, nil
}

// statusTimeout bounds one question for a node's status.
const statusTimeout = 2 * time.Second

// replayNode makes a client's node one that a replay uses.
type replayNode struct{ n *client.Node }

func (r replayNode) Match(ctx context.Context, keys []block.Key) (prefix, local int, err error) {
	m, err := r.n.Match(ctx, keys)
	return m.Prefix, m.Local, err
}

func (r replayNode) Read(ctx context.Context, keys []block.Key, place func(int, block.Descriptor) []byte) ([]bool, error) {
	return r.n.GetBatch(ctx, keys, place)
}

func (r replayNode) Put(ctx context.Context, key, parent block.Key, data []byte) (bool, error) {
	return r.n.Put(ctx, key, parent, data)
}
