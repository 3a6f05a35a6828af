package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"cairn/client"
)

const (
	// chaosWorkers do one operation after another, each with a client of its own.
	chaosWorkers = 56
	// mostBusy is how many of them may be at one key: in the time to find a linearization
	// it is in the exponent.
	mostBusy = 8
	// chaosPace is the least time between two operations of a worker.
	chaosPace = 8 * time.Millisecond
	// barrierPause is the time between two barriers.
	barrierPause = time.Second
	// shortDeadline and longDeadline bound an operation: below and above what a
	// node takes itself.
	shortDeadline = time.Second
	longDeadline  = 7 * time.Second
)

// chaosLoad does operations and records what came of them.
type chaosLoad struct {
	nodes []*chaosNode
	keys  []chaosKey
	seed  uint64
	began time.Time
	value atomic.Int64
	busy  []atomic.Int32 // operations under way, by key
	stop  context.CancelFunc
	work  sync.WaitGroup

	// mu guards what follows.
	mu    sync.Mutex
	ops   []chaosOp
	bars  []chaosBarrier
	wrong []string // answers that no history could explain
}

// chaosWorker is one client of the load.
type chaosWorker struct {
	l     *chaosLoad
	id    int
	rng   *rand.Rand
	ops   []chaosOp
	space map[string]*client.Client // one session for each namespace
	// last is what the worker has read last of each key, for cas.
	last   []chaosOp
	engine *chaosEngine // nil until it is used
}

func newChaosLoad(nodes []*chaosNode, keys []chaosKey, seed uint64) *chaosLoad {
	return &chaosLoad{nodes: nodes, keys: keys, seed: seed, began: time.Now(), busy: make([]atomic.Int32, len(keys))}
}

// clock is the time of the history.
func (l *chaosLoad) clock() time.Duration { return time.Since(l.began) }

// run starts the workers, until ctx ends or finish is called.
func (l *chaosLoad) run(ctx context.Context) {
	ctx, l.stop = context.WithCancel(ctx)
	for id := range chaosWorkers {
		w := l.worker(id)
		l.work.Go(func() { w.run(ctx) })
	}
	l.work.Go(func() { l.barriers(ctx) })
}

// barriers asks one node after another for a barrier.
func (l *chaosLoad) barriers(ctx context.Context) {
	w := l.worker(chaosWorkers + 1)
	defer w.close()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(barrierPause):
		}
		if _, err := w.session(0); err != nil {
			continue
		}
		n, err := w.space[l.keys[0].Space].Node(l.nodes[i%len(l.nodes)].at)
		if err != nil {
			continue
		}
		b := chaosBarrier{Call: l.clock()}
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), longDeadline)
		_, err = n.Barrier(within)
		cancel()
		if b.Return = l.clock(); err == nil {
			l.mu.Lock()
			l.bars = append(l.bars, b)
			l.mu.Unlock()
		}
	}
}

func (l *chaosLoad) worker(id int) *chaosWorker {
	return &chaosWorker{l: l, id: id, rng: rand.New(rand.NewPCG(l.seed, uint64(id))),
		space: map[string]*client.Client{}, last: make([]chaosOp, len(l.keys))}
}

// finish ends the load and waits for the operations under way.
func (l *chaosLoad) finish() {
	l.stop()
	l.work.Wait()
}

func (w *chaosWorker) run(ctx context.Context) {
	defer w.close()
	tick := time.NewTicker(chaosPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		deadline := longDeadline
		if w.rng.IntN(4) == 0 {
			deadline = shortDeadline
		}
		key := w.rng.IntN(len(w.l.keys))
		if w.l.busy[key].Add(1) <= mostBusy {
			w.do(context.WithoutCancel(ctx), deadline, w.rng.IntN(len(w.l.nodes)), key, w.choose())
		}
		w.l.busy[key].Add(-1)
	}
}

// choose picks what to do, mostly reads.
func (w *chaosWorker) choose() chaosKind {
	for p, k := w.rng.IntN(100), chaosKind(0); ; k++ {
		if p -= chaosShares[k]; p < 0 {
			return k
		}
	}
}

// chaosShares are per cent.
var chaosShares = [chaosKinds]int{readStrict: 42, readSession: 8, readLocal: 10, set: 18, cas: 12, setNX: 3, setXX: 3, del: 4}

// close ends the clients and hands over what was recorded.
func (w *chaosWorker) close() {
	if w.engine != nil {
		w.engine.close()
	}
	for _, c := range w.space {
		c.Close()
	}
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.ops = append(w.l.ops, w.ops...)
	w.ops = nil
}

// session numbers the sessions: one for each worker and namespace.
func (w *chaosWorker) session(key int) (id int, err error) {
	space := w.l.keys[key].Space
	for i, s := range chaosSpaces {
		if s == space {
			id = w.id*len(chaosSpaces) + i
		}
	}
	if w.space[space] == nil {
		var addrs []string
		for _, n := range w.l.nodes {
			addrs = append(addrs, n.at)
		}
		// Open only succeeds when a node answers, which one soon will.
		w.space[space], err = client.Open(context.Background(), client.Config{Nodes: addrs, Namespace: space, DialTimeout: time.Second, Timeout: longDeadline})
		if err != nil {
			delete(w.space, space)
		}
	}
	return id, err
}

// do does one operation and records it.
func (w *chaosWorker) do(ctx context.Context, deadline time.Duration, at, key int, kind chaosKind) *chaosOp {
	session, err := w.session(key)
	if err != nil {
		return nil
	}
	n, err := w.space[w.l.keys[key].Space].Node(w.l.nodes[at].at)
	if err != nil {
		return nil
	}
	o := chaosOp{Client: session, Node: at, Key: key, Kind: kind, Expect: w.last[key].Version}
	if kind.writes() && kind != del {
		o.Value = w.l.value.Add(1)
		space := w.l.keys[key].Space
		o.Through = space == spaceBack && w.rng.IntN(4) == 0
		o.Durable = o.Through || space != spaceBack
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	life := w.l.nodes[at].life.Load()
	o.InPlace = w.inPlace(kind)
	o.Call = w.l.clock()
	switch {
	case o.InPlace && kind.writes():
		err = w.changeInPlace(ctx, &o)
	case o.InPlace:
		err = w.readInPlace(ctx, &o)
	case kind.writes():
		err = o.change(ctx, n, w.l.keys[key].Name)
	default:
		err = w.read(ctx, &o, n)
	}
	o.Return = w.l.clock()
	if o.Life = int(life); w.l.nodes[at].life.Load() != life || life%2 == 1 {
		o.Life = -1
	}
	if err != nil {
		o.Err = err.Error()
	}
	if o.Outcome == done && (kind == readStrict || kind == cas) {
		w.last[key] = o
	} else if o.Outcome == refused {
		w.last[key] = chaosOp{}
	}
	w.ops = append(w.ops, o)
	return &w.ops[len(w.ops)-1]
}

// change carries out a write.
func (o *chaosOp) change(ctx context.Context, n *client.Node, name string) (err error) {
	var options []client.PutOption
	if o.Through {
		options = append(options, client.WithPolicy(client.WriteThrough))
	}
	switch o.Kind {
	case set:
		err = n.PutName(ctx, name, chaosValue(o.Value), options...)
	case setNX:
		err = n.PutName(ctx, name, chaosValue(o.Value), append(options, client.IfAbsent())...)
	case setXX:
		err = n.PutName(ctx, name, chaosValue(o.Value), append(options, client.IfPresent())...)
	case cas:
		o.Version, err = n.CompareAndSet(ctx, name, o.Expect, chaosValue(o.Value), options...)
		var conflict *client.ConflictError
		if errors.As(err, &conflict) {
			o.Version = conflict.Version
		} else if err != nil {
			o.Version = 0
		}
	case del:
		var was bool
		if was, err = n.DeleteName(ctx, name); err == nil && !was {
			o.Outcome = refused
			return nil
		}
	}
	o.Outcome = chaosOutcomeOf(err)
	return err
}

// read carries out a read, and verifies every byte.
func (w *chaosWorker) read(ctx context.Context, o *chaosOp, n *client.Node) error {
	level := map[chaosKind]client.GetOption{readStrict: client.Strict(), readSession: client.Session(), readLocal: client.Local()}[o.Kind]
	v, err := n.GetName(ctx, w.l.keys[o.Key].Name, nil, level)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return nil
	case err != nil:
		o.Outcome = failed
		if errors.Is(err, client.ErrCorrupt) {
			w.wrong("%s: %v", w.l.keys[o.Key], err)
		}
		return err
	}
	o.Version = v.Version
	if o.Value, err = chaosValueID(v.Value); err != nil {
		o.Outcome = failed
		w.wrong("%s at %s, %s: %v", w.l.keys[o.Key], w.l.nodes[o.Node].id, o.Kind, err)
	}
	return err
}

func (w *chaosWorker) wrong(format string, args ...any) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.wrong = append(w.l.wrong, fmt.Sprintf(format, args...))
}

// settle waits until every node serves strict reads and takes writes of every
// key (L1), and lets all nodes say the same in the end.
func (l *chaosLoad) settle(ctx context.Context, within time.Duration) error {
	errs := make([]error, len(l.keys))
	var work sync.WaitGroup
	for key := range l.keys {
		w := l.worker(chaosWorkers + 2 + key)
		work.Go(func() {
			defer w.close()
			for at := range l.nodes {
				_, err := awaitErr(ctx, within, func() error { return w.works(ctx, at, key) })
				errs[key] = errors.Join(errs[key], err)
			}
			for at := range l.nodes {
				w.do(ctx, longDeadline, at, key, readStrict)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// works tells why a node does not serve a key.
func (w *chaosWorker) works(ctx context.Context, at, key int) error {
	for _, kind := range []chaosKind{set, readStrict} {
		o := w.do(ctx, longDeadline, at, key, kind)
		if o == nil {
			return fmt.Errorf("%s does not answer", w.l.nodes[at].id)
		}
		if o.Outcome != done {
			return fmt.Errorf("%s of %s at %s: %s", kind, w.l.keys[key], w.l.nodes[at].id, o.Err)
		}
	}
	return nil
}
