package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"cairn/block"
	"cairn/coherency"
	"cairn/resp"
	"cairn/tier"
)

// read lends the bytes of what a Redis key names.
func (s *session) read(ctx context.Context, t target) (*Loan, error) {
	if !t.sealed {
		return s.n.ReadName(ctx, s.namespace.Name, t.name)
	}
	loans, _ := s.n.Read(ctx, []block.Key{t.key}, Cluster)
	if loans[0] == nil {
		return nil, tier.ErrNotFound
	}
	return loans[0], nil
}

// replyLoan answers with what a read has lent, null when there was nothing.
func replyLoan(w *resp.Writer, loan *Loan, err error) {
	switch {
	case err == nil:
		w.BulkRef(loan.Bytes, loan)
	case errors.Is(err, tier.ErrNotFound):
		w.Null()
	default:
		fail(w, err)
	}
}

func (s *session) get(ctx context.Context, w *resp.Writer, args [][]byte) {
	loan, err := s.read(ctx, parseTarget(args[1]))
	replyLoan(w, loan, err)
}

// mGet reads in windows, so that the loans of one are given back while the next
// is read.
func (s *session) mGet(ctx context.Context, w *resp.Writer, args [][]byte) {
	w.Array(len(args) - 1)
	for args = args[1:]; len(args) > 0; {
		loans := s.readWindow(ctx, args[:min(len(args), s.n.cfg.MaxBatch)])
		for _, l := range loans {
			if l == nil {
				w.Null()
			} else {
				w.BulkRef(l.Bytes, l)
			}
		}
		args = args[len(loans):]
	}
}

// readWindow lends what the first of the given Redis keys name, at least one of
// them; nil is a miss.
func (s *session) readWindow(ctx context.Context, args [][]byte) []*Loan {
	states := make([]Name, len(args)) // zero for sealed blocks
	loans := make([]*Loan, len(args))
	var keys []block.Key // of what may be there
	var places []int     // where in loans
	for i, arg := range args {
		t := parseTarget(arg)
		if !t.sealed {
			state, ok := s.n.LookupName(s.namespace.Name, t.name)
			if !ok {
				s.n.counters.miss(tier.ErrNotFound)
				continue
			}
			states[i], t.key = state, state.Object
		}
		keys = append(keys, t.key)
		places = append(places, i)
	}
	if len(keys) == 0 {
		return loans
	}
	found, done := s.n.Read(ctx, keys, Cluster)
	if done < len(keys) {
		loans = loans[:places[done]]
	}
	for j, l := range found {
		loans[places[j]] = l
	}
	s.n.readAgain(ctx, states[:len(loans)], loans)
	return loans
}

// parseSet reads what follows the value of a SET.
func (s *session) parseSet(args [][]byte) (NameOptions, error) {
	o := NameOptions{Policy: s.namespace.Policy}
	ends := 0
	for i := 0; i < len(args); i++ {
		word := strings.ToUpper(string(args[i]))
		switch word {
		case "NX", "XX":
			want := IfAbsent
			if word == "XX" {
				want = IfPresent
			}
			if o.If != Always && o.If != want {
				return o, errSyntax
			}
			o.If = want
		case "GET":
			o.Old = true
		case "KEEPTTL":
			o.KeepTTL = true
			ends++
		case "POLICY": // not of Redis: the write policy of this value
			if i++; i == len(args) {
				return o, errSyntax
			}
			policy, err := coherency.ParseWritePolicy(string(args[i]))
			if err != nil {
				return o, err
			}
			o.Policy = policy
		case "EX", "PX", "EXAT", "PXAT":
			if i++; i == len(args) {
				return o, errSyntax
			}
			at, err := deadline(word, args[i], "set")
			if err != nil {
				return o, err
			}
			o.Expires = at
			ends++
		default:
			return o, errSyntax
		}
	}
	if ends > 1 {
		return o, errSyntax
	}
	return o, nil
}

var errSyntax = resp.ServerError("ERR syntax error")

var errNotInteger = resp.ServerError("ERR value is not an integer or out of range")

func (s *session) set(ctx context.Context, w *resp.Writer, args [][]byte) {
	o, err := s.parseSet(args[3:])
	if err != nil {
		fail(w, err)
		return
	}
	old, err := s.store(ctx, parseTarget(args[1]), args, 2, o)
	switch {
	case o.Old && (err == nil || errors.Is(err, ErrCondition)):
		replyOld(w, old)
	case err == nil:
		w.Status("OK")
	case errors.Is(err, ErrCondition):
		w.Null()
	default:
		fail(w, err)
	}
}

func replyOld(w *resp.Writer, old *Loan) {
	if old == nil {
		w.Null()
		return
	}
	w.BulkRef(old.Bytes, old)
}

// store makes argument arg the bytes of what a Redis key names. A sealed block
// has its bytes for ever: storing the same again is no error, other bytes are a
// conflict.
func (s *session) store(ctx context.Context, t target, args [][]byte, arg int, o NameOptions) (old *Loan, err error) {
	if t.sealed && (o.If != Always || o.Expires != 0 || o.KeepTTL || o.Old) {
		return nil, fmt.Errorf("a sealed block (%s…) takes no options", blockPrefix)
	}
	in, err := s.take(ctx, args, arg)
	switch {
	case err != nil:
		return nil, err
	case t.sealed:
		_, err = in.Commit(ctx, t.key, block.Key{}, o.Policy)
		return nil, err
	}
	return s.n.SetName(ctx, s.namespace.Name, t.name, in, o)
}

func (s *session) setNX(ctx context.Context, w *resp.Writer, args [][]byte) {
	_, err := s.store(ctx, parseTarget(args[1]), args, 2, NameOptions{If: IfAbsent, Policy: s.namespace.Policy})
	switch {
	case err == nil:
		w.Int(1)
	case errors.Is(err, ErrCondition):
		w.Int(0)
	default:
		fail(w, err)
	}
}

// setEX is SETEX and PSETEX.
func (s *session) setEX(ctx context.Context, w *resp.Writer, args [][]byte) {
	unit := "EX"
	if args[0][0]|0x20 == 'p' {
		unit = "PX"
	}
	at, err := deadline(unit, args[2], strings.ToLower(string(args[0])))
	if err == nil {
		_, err = s.store(ctx, parseTarget(args[1]), args, 3, NameOptions{Expires: at, Policy: s.namespace.Policy})
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Status("OK")
}

func (s *session) getSet(ctx context.Context, w *resp.Writer, args [][]byte) {
	old, err := s.store(ctx, parseTarget(args[1]), args, 2, NameOptions{Old: true, Policy: s.namespace.Policy})
	if err != nil {
		fail(w, err)
		return
	}
	replyOld(w, old)
}

func (s *session) getDel(ctx context.Context, w *resp.Writer, args [][]byte) {
	t := parseTarget(args[1])
	var old *Loan
	var err error
	if !t.sealed {
		old, err = s.n.TakeName(ctx, s.namespace.Name, t.name)
	} else if old, err = s.read(ctx, t); err == nil {
		if _, err = s.remove(ctx, t); err != nil {
			old.Release()
		}
	}
	replyLoan(w, old, err)
}

// mSet stores every value and moves the names, many at once; it is not atomic
// across them. Of a key that comes twice the last value stays, as in Redis.
func (s *session) mSet(ctx context.Context, w *resp.Writer, args [][]byte) {
	if len(args)%2 == 0 {
		wrongArity(w, args[0])
		return
	}
	last := make(map[string]int, len(args)/2)
	for i := 1; i < len(args); i += 2 {
		last[string(args[i])] = i
	}
	var g parallel
	for i := 1; i < len(args); i += 2 {
		t := parseTarget(args[i])
		if last[string(args[i])] != i && !t.sealed {
			continue
		}
		in, err := s.take(ctx, args, i+1)
		if err != nil {
			g.fail(err)
			break
		}
		g.do(func() error {
			if t.sealed {
				_, err := in.Commit(ctx, t.key, block.Key{}, s.namespace.Policy)
				return err
			}
			_, err := s.n.SetName(ctx, s.namespace.Name, t.name, in, NameOptions{Policy: s.namespace.Policy})
			return err
		})
	}
	if err := g.wait(); err != nil {
		fail(w, err)
		return
	}
	w.Status("OK")
}

// has tells for each Redis key whether it has bytes, and how many.
func (s *session) has(ctx context.Context, args ...[]byte) (lengths []int, present []bool) {
	lengths, present = make([]int, len(args)), make([]bool, len(args))
	var states []Name
	var places []int
	for i, arg := range args {
		t := parseTarget(arg)
		if t.sealed {
			e, here := s.n.dir.get(t.key)
			lengths[i], present[i] = int(e.length), here || s.n.Known(t.key)
		} else if state, ok := s.n.LookupName(s.namespace.Name, t.name); ok {
			states = append(states, state)
			places = append(places, i)
		}
	}
	for j, ok := range s.n.Present(ctx, states) {
		lengths[places[j]], present[places[j]] = int(states[j].Length), ok
	}
	return lengths, present
}

func (s *session) exists(ctx context.Context, w *resp.Writer, args [][]byte) {
	var found int64
	_, present := s.has(ctx, args[1:]...)
	for _, ok := range present {
		if ok {
			found++
		}
	}
	w.Int(found)
}

func (s *session) typeOf(ctx context.Context, w *resp.Writer, args [][]byte) {
	if _, present := s.has(ctx, args[1]); present[0] {
		w.Status("string")
		return
	}
	w.Status("none")
}

func (s *session) strLen(ctx context.Context, w *resp.Writer, args [][]byte) {
	t := parseTarget(args[1])
	lengths, present := s.has(ctx, args[1])
	length := lengths[0]
	if present[0] && length == 0 && t.sealed { // only a peer has it: its length is not in the index
		if loan, err := s.read(ctx, t); err == nil {
			length = len(loan.Bytes)
			loan.Release()
		}
	} else if !present[0] {
		length = 0
	}
	w.Int(int64(length))
}

func (s *session) getRange(ctx context.Context, w *resp.Writer, args [][]byte) {
	start, err1 := strconv.Atoi(string(args[2]))
	end, err2 := strconv.Atoi(string(args[3]))
	if err1 != nil || err2 != nil {
		fail(w, errNotInteger)
		return
	}
	loan, err := s.read(ctx, parseTarget(args[1]))
	if errors.Is(err, tier.ErrNotFound) {
		w.Bulk(nil)
		return
	}
	if err != nil {
		fail(w, err)
		return
	}
	length := len(loan.Bytes)
	backwards := start < 0 && end < 0 && start > end
	if start < 0 {
		start = max(start+length, 0)
	}
	if end < 0 {
		end = max(end+length, 0) // in Redis an end before the first byte is the first byte
	}
	end = min(end, length-1)
	if backwards || start > end {
		loan.Release()
		w.Bulk(nil)
		return
	}
	w.BulkRef(loan.Bytes[start:end+1], loan)
}

// remove deletes what a Redis key names, everywhere.
func (s *session) remove(ctx context.Context, t target) (bool, error) {
	if t.sealed {
		return s.n.RemoveEverywhere(ctx, t.key)
	}
	return s.n.DeleteName(ctx, s.namespace.Name, t.name)
}

func (s *session) del(ctx context.Context, w *resp.Writer, args [][]byte) {
	if len(args) == 2 {
		removed, err := s.remove(ctx, parseTarget(args[1]))
		replyChanged(w, removed, err)
		return
	}
	var removed atomic.Int64
	var g parallel
	seen := make(map[string]bool, len(args)-1)
	for _, arg := range args[1:] {
		if seen[string(arg)] {
			continue // it counts once
		}
		seen[string(arg)] = true
		g.do(func() error {
			ok, err := s.remove(ctx, parseTarget(arg))
			if ok {
				removed.Add(1)
			}
			return err
		})
	}
	if err := g.wait(); err != nil {
		fail(w, err)
		return
	}
	w.Int(removed.Load())
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
