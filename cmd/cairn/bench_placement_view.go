package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/router"
	"cairn/wire"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// benchPlacementViewCmd is the process that `cairn bench placement` measures: a router's view
// of the cluster and nothing else, so that memory and processor time are its own. It reads
// a question a line from standard input, answers on standard output, and ends with its input.
type benchPlacementViewCmd struct {
	NATS          string `name:"nats" help:"URL of NATS."`
	MaxIndexBytes size   `help:"Memory of the index."`
	Profile       string `help:"Write a profile of the processor to this file."`
}

// viewQuestion is one line for the process; one of its fields is set.
type viewQuestion struct {
	// Sample is a change that was announced at At, in nanoseconds since 1970: how long after
	// that is it in the index? It is not answered, but counted.
	Sample *wire.Token `json:"sample,omitempty"`
	At     int64       `json:"at,omitempty"`
	// Ready is answered when the view has what there was when it was opened.
	Ready bool `json:"ready,omitempty"`
	// Await is answered when the index has these changes.
	Await []wire.Token `json:"await,omitempty"`
	// Check compares the index with what nodes hold, where they hold anything; Count is how
	// many blocks it looks up, drawn by Seed.
	Check []placementSpan `json:"check,omitempty"`
	Count int             `json:"count,omitempty"`
	Seed  uint64          `json:"seed,omitempty"`
	// Gone is answered when no answer names this node.
	Gone *wire.Token `json:"gone,omitempty"`
	// Report asks for figures; the samples begin anew. With Settle the samples under way
	// are waited for.
	Report bool `json:"report,omitempty"`
	Settle bool `json:"settle,omitempty"`
}

// viewAnswer is the answer.
type viewAnswer struct {
	Error string `json:"error,omitempty"`
	At    int64  `json:"at"` // when it was ready

	// Of a check: of the Checked blocks, Missing should have holders and have none, and Wrong
	// have others than they should.
	Checked int `json:"checked,omitempty"`
	Missing int `json:"missing,omitempty"`
	Wrong   int `json:"wrong,omitempty"`

	// Of a report.
	Samples  *hdr.Snapshot     `json:"samples,omitempty"` // in µs
	Lost     int               `json:"lost,omitempty"`    // samples that were given up
	LiveHeap uint64            `json:"live_heap,omitempty"`
	Resident uint64            `json:"resident,omitempty"`
	CPU      time.Duration     `json:"cpu,omitempty"`
	Stats    cluster.ViewStats `json:"stats,omitzero"`
}

// sampleWait is how long a sample is waited for before it counts as lost.
const sampleWait = 10 * time.Second

func (c *benchPlacementViewCmd) Run(a *app) error {
	if c.Profile != "" {
		out, err := os.Create(c.Profile)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	conn, err := cluster.Connect(a.ctx, cluster.ConnConfig{URLs: []string{c.NATS}, Name: "bench-view", Logger: a.log})
	if err != nil {
		return err
	}
	defer conn.Close()
	view, err := cluster.OpenView(a.ctx, conn, cluster.ViewConfig{Index: router.IndexConfig{MaxBytes: int64(c.MaxIndexBytes)}, Logger: a.log})
	if err != nil {
		return err
	}
	defer view.Close()
	w := &viewWatch{view: view, hist: newHistogram()}
	return w.serve(a.ctx, os.Stdin, a.out)
}

// viewWatch answers questions about a view.
type viewWatch struct {
	view *cluster.View
	busy sync.WaitGroup // samples under way

	// mu guards the samples since the last report.
	mu   sync.Mutex
	hist *hdr.Histogram
	lost int
}

func (w *viewWatch) serve(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	enc := json.NewEncoder(out)
	for lines.Scan() {
		var q viewQuestion
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		if q.Sample != nil {
			w.busy.Go(func() { w.sample(ctx, *q.Sample, q.At) })
			continue
		}
		answer, err := w.answer(ctx, q)
		if err != nil {
			answer.Error = err.Error()
		}
		if answer.At == 0 {
			answer.At = time.Now().UnixNano()
		}
		if err := enc.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (w *viewWatch) sample(ctx context.Context, token wire.Token, at int64) {
	ctx, cancel := context.WithTimeout(ctx, sampleWait)
	defer cancel()
	err := w.view.Await(ctx, token)
	took := time.Now().UnixNano() - at
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		err = w.hist.RecordValue(took / 1e3)
	}
	if err != nil {
		w.lost++
	}
}

func (w *viewWatch) answer(ctx context.Context, q viewQuestion) (viewAnswer, error) {
	switch {
	case q.Ready:
		return viewAnswer{}, w.view.Ready(ctx)
	case q.Await != nil:
		for _, token := range q.Await {
			if err := w.view.Await(ctx, token); err != nil {
				return viewAnswer{}, err
			}
		}
		return viewAnswer{}, nil
	case q.Check != nil:
		return w.check(q), nil
	case q.Gone != nil:
		err := w.view.Await(ctx, wire.Token{Node: q.Gone.Node, Incarnation: q.Gone.Incarnation, Position: 1 << 52})
		return viewAnswer{}, err
	case q.Report:
		if q.Settle {
			w.busy.Wait()
		}
		return w.report()
	}
	return viewAnswer{}, errors.New("no question")
}

// check looks blocks up one by one, of sequences that the nodes hold and of some that they
// held before or will hold.
func (w *viewWatch) check(q viewQuestion) (r viewAnswer) {
	rng := rand.New(rand.NewPCG(q.Seed, 0))
	for range q.Count {
		s := &q.Check[rng.IntN(len(q.Check))]
		first, end := s.chains()
		more := (end - first) / 16
		chain := first - min(first, more)
		chain += rng.Uint64N(end + more - chain + 1)
		position := rng.IntN(placementChain)
		var want, got block.TierMask
		if s.holds(chain, position) {
			want = block.MaskOf(placementTier)
		}
		for _, h := range w.view.Locate([]block.Key{s.key(chain, position)})[0] {
			if h.Node != s.Node {
				got = 0xff // nobody else has it
				break
			}
			got |= h.Tiers
		}
		r.Checked++
		switch {
		case got == want:
		case got == 0:
			r.Missing++
		default:
			r.Wrong++
		}
	}
	return r
}

func (w *viewWatch) report() (viewAnswer, error) {
	r := viewAnswer{CPU: processCPU(), Stats: w.view.Stats(), Resident: resident(), LiveHeap: liveAfterGC()}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Samples, r.Lost = w.hist.Export(), w.lost
	w.hist.Reset()
	w.lost = 0
	return r, nil
}

// liveAfterGC is what the last collection has found in use, in bytes.
func liveAfterGC() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// resident is the memory of this process that is in use, in bytes; 0 where the system does
// not tell.
func resident() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

func (a *viewAnswer) err() error {
	if a.Error != "" {
		return fmt.Errorf("the router's process: %s", a.Error)
	}
	return nil
}
