package node

import (
	"context"
	"sync"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/resp"
	"cairn/tier"
)

// mGet reads in windows, so that the loans of one are given back while the next
// is read.
func (s *session) mGet(ctx context.Context, w *resp.Writer, args [][]byte) {
	w.Array(len(args) - 1)
	for args = args[1:]; len(args) > 0; {
		loans, errs := s.readWindow(ctx, args[:min(len(args), s.n.cfg.MaxBatch)])
		for i, l := range loans {
			replyLoan(w, l, errs[i])
		}
		args = args[len(loans):]
	}
}

// readWindow lends what the first of the given Redis keys name, at least one of
// them. A nil loan has its error, tier.ErrNotFound for a miss. Names that this node can
// answer are read as a single GET does; the others, and sealed blocks, together.
func (s *session) readWindow(ctx context.Context, args [][]byte) ([]*Loan, []error) {
	loans, errs, rest := s.readHere(ctx, args)
	if len(rest) == 0 {
		return loans, errs
	}
	var names [][]byte
	for _, i := range rest {
		if t := parseTarget(args[i]); !t.sealed {
			names = append(names, t.name)
		}
	}
	states, err := s.n.statesOf(ctx, s.namespace.Name, names, s.reads())
	var keys []block.Key // of what may be there
	var values []ledger.Value
	var places []int // where in loans
	for _, i := range rest {
		t := parseTarget(args[i])
		errs[i] = tier.ErrNotFound
		var v ledger.Value
		if !t.sealed {
			if err != nil {
				errs[i] = err
				continue
			}
			s.saw(states[0].Sequence)
			v, states = states[0].Value, states[1:]
			if !alive(v) {
				s.n.counters.miss(tier.ErrNotFound)
				continue
			}
			t.key, errs[i] = v.Object, nil
		}
		keys, values, places = append(keys, t.key), append(values, v), append(places, i)
	}
	if len(keys) == 0 {
		return loans, errs
	}
	found, done := s.n.readMany(ctx, keys, Cluster, func(i int) []Holder { return s.n.coherence.holders(values[i].Homes) })
	if done < len(keys) {
		for _, l := range loans[places[done]:] {
			if l != nil {
				l.Release() // it is read again with the next window
			}
		}
		loans, errs = loans[:places[done]], errs[:places[done]]
	}
	for j, l := range found {
		if loans[places[j]] = l; l != nil {
			errs[places[j]] = nil
		}
	}
	s.readRest(ctx, args, loans, errs)
	return loans, errs
}

// readHere begins a window: it lends the names whose newest version this node knows and has.
// It ends before the key where that is Config.MaxBatchBytes. rest is which keys have
// neither a loan nor an error yet.
func (s *session) readHere(ctx context.Context, args [][]byte) (loans []*Loan, errs []error, rest []int) {
	loans, errs = make([]*Loan, len(args)), make([]error, len(args))
	total, o := 0, s.reads()
	for i, arg := range args {
		if i > 0 && total >= s.n.cfg.MaxBatchBytes {
			return loans[:i], errs[:i], rest
		}
		if t := parseTarget(arg); !t.sealed {
			var state NameState
			loans[i], state, errs[i] = s.n.readNameHere(ctx, s.namespace.Name, t.name, o)
			if loans[i] != nil {
				total += len(loans[i].Bytes)
			}
			if loans[i] != nil || errs[i] != nil {
				s.saw(state.Sequence)
				continue
			}
		}
		rest = append(rest, i)
	}
	return loans, errs, rest
}

// readRest reads names one by one whose bytes were not where they had been a moment
// ago: they have newer ones, or an owner that has them.
func (s *session) readRest(ctx context.Context, args [][]byte, loans []*Loan, errs []error) {
	var g parallel
	for i := range loans {
		if loans[i] != nil || errs[i] != nil {
			continue
		}
		g.do(func() error {
			loans[i], errs[i] = s.read(ctx, parseTarget(args[i]))
			return nil
		})
	}
	_ = g.wait() // each has its error in errs
}

// parallel runs the parts of one command that wait for the network, a few at a
// time.
type parallel struct {
	wg    sync.WaitGroup
	slots chan struct{}

	// mu guards err: the first that there was.
	mu  sync.Mutex
	err error
}

// commandParallel is how many parts of one command run at once.
const commandParallel = 64

func (g *parallel) do(f func() error) {
	if g.slots == nil {
		g.slots = make(chan struct{}, commandParallel)
	}
	g.slots <- struct{}{}
	g.wg.Go(func() {
		defer func() { <-g.slots }()
		if err := f(); err != nil {
			g.fail(err)
		}
	})
}

func (g *parallel) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
}

func (g *parallel) wait() error {
	g.wg.Wait()
	return g.err
}
