package replay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"cairn/internal/trace"
)

var (
	// ErrWrongBytes: a block came back with other bytes than were put.
	ErrWrongBytes = errors.New("wrong bytes")
	// ErrClusterDown: no request has succeeded for Config.GiveUp.
	ErrClusterDown = errors.New("the cluster answers no request")
)

type run struct {
	cfg     Config
	cluster Cluster
	order   *order
	collect *collector
	abort   context.CancelCauseFunc
}

// Run replays the requests against the cluster. The summary covers what was done,
// also when an error comes with it: that of the trace, of ctx, ErrClusterDown, or,
// after everything has been played, ErrWrongBytes. Requests that failed do not
// make an error; Summary.FailedRequests counts them.
func Run(ctx context.Context, requests iter.Seq2[trace.Request, error], cluster Cluster, cfg Config) (Summary, error) {
	if err := cfg.Validate(); err != nil {
		return Summary{}, err
	}
	cfg = cfg.withDefaults()
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	r := &run{cfg: cfg, cluster: cluster, order: newOrder(), collect: newCollector(cfg), abort: abort}

	occupancy := newSampler(cfg, r.collect)
	occupancy.sample(ctx)
	r.collect.start()
	stop := make(chan struct{})
	var watchers sync.WaitGroup
	watchers.Go(func() { occupancy.run(ctx, stop) })
	if cfg.Progress != nil {
		watchers.Go(func() { r.progress(stop) })
	}
	err := r.play(ctx, requests)
	r.collect.stop()
	close(stop)
	watchers.Wait()
	// The last state is worth having after an interruption as well.
	occupancy.sample(context.WithoutCancel(ctx))

	s := r.collect.summary(occupancy)
	s.Interrupted = err != nil
	if s.WrongBlocks > 0 {
		err = errors.Join(fmt.Errorf("replay: %w: %d blocks of %d read were not what was put", ErrWrongBytes, s.WrongBlocks, s.BlocksRead), err)
	}
	return s, err
}

// play hands the requests to the workers, in order, and waits for them.
func (r *run) play(ctx context.Context, requests iter.Seq2[trace.Request, error]) error {
	jobs := make(chan *job)
	var workers sync.WaitGroup
	for range r.cfg.Workers {
		workers.Go(func() {
			w := &worker{run: r, buffer: make([]byte, r.cfg.ReadBatch*r.cfg.BlockBytes)}
			for j := range jobs {
				if err := w.serve(ctx, j); err != nil {
					r.abort(err)
				}
			}
		})
	}
	err := r.dispatch(ctx, requests, jobs)
	close(jobs)
	workers.Wait()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

func (r *run) dispatch(ctx context.Context, requests iter.Seq2[trace.Request, error], jobs chan<- *job) error {
	salt := fmt.Sprintf("%s/%d", r.cfg.Salt, r.cfg.BlockBytes)
	var bound trace.Bound
	started := time.Now()
	for request, err := range requests {
		if err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		j := &job{request: request, index: bound.Requests, done: make(chan struct{}), mine: make([]bool, len(request.IDs))}
		if j.keys, err = request.Keys(nil, salt); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		if r.cfg.Speed > 0 {
			due := time.Duration(float64(request.Arrival) / r.cfg.Speed)
			if err := sleep(ctx, due-time.Since(started)); err != nil {
				return err
			}
		}
		j.bound = bound.Add(request)
		r.order.register(j)
		select {
		case jobs <- j:
		case <-ctx.Done():
			r.order.finish(j)
			return context.Cause(ctx)
		}
	}
	return nil
}

// sleep waits for d, not at all when it is 0 or less.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// progress reports until stop is closed, and once more then.
func (r *run) progress(stop <-chan struct{}) {
	t := time.NewTicker(r.cfg.ProgressEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.cfg.Progress(r.collect.progress())
		case <-stop:
			r.cfg.Progress(r.collect.progress())
			return
		}
	}
}
