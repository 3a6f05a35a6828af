package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/resp"
	"cairn/tier"
)

// read lends the bytes of what a Redis key names.
func (s *session) read(ctx context.Context, t target) (*Loan, error) {
	if !t.sealed {
		loan, state, err := s.n.ReadName(ctx, s.namespace.Name, t.name, s.reads())
		s.saw(state.Sequence)
		return loan, err
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

// parseSet reads what follows the value of a SET.
func (s *session) parseSet(args [][]byte) (NameOptions, error) {
	o := NameOptions{Policy: s.namespace.Policy}
	ends := 0
	for i := 0; i < len(args); i++ {
		word := strings.ToUpper(string(args[i]))
		switch word {
		case "NX", "XX":
			want := ledger.Absent
			if word == "XX" {
				want = ledger.Present
			}
			if o.If != ledger.Always && o.If != want {
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
	if t.sealed && (o.If != ledger.Always || o.Expires != 0 || o.KeepTTL || o.Old) {
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
	c, err := s.n.SetName(ctx, s.namespace.Name, t.name, in, o)
	s.saw(c.Sequence)
	return c.Old, err
}

func (s *session) setNX(ctx context.Context, w *resp.Writer, args [][]byte) {
	_, err := s.store(ctx, parseTarget(args[1]), args, 2, NameOptions{If: ledger.Absent, Policy: s.namespace.Policy})
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
		old, err = s.takeName(ctx, t.name)
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
			c, err := s.n.SetName(ctx, s.namespace.Name, t.name, in, NameOptions{Policy: s.namespace.Policy})
			s.saw(c.Sequence)
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
func (s *session) has(ctx context.Context, args ...[]byte) (lengths []int, present []bool, err error) {
	lengths, present = make([]int, len(args)), make([]bool, len(args))
	var names [][]byte
	var places []int
	for i, arg := range args {
		t := parseTarget(arg)
		if t.sealed {
			e, here := s.n.dir.get(t.key)
			lengths[i], present[i] = int(e.length), here || s.n.Known(t.key)
		} else {
			names, places = append(names, t.name), append(places, i)
		}
	}
	states, err := s.n.statesOf(ctx, s.namespace.Name, names, s.reads())
	if err != nil {
		return nil, nil, err
	}
	for j, state := range states {
		s.saw(state.Sequence)
		if alive(state.Value) {
			lengths[places[j]], present[places[j]] = int(state.Value.Length), true
		}
	}
	return lengths, present, nil
}

func (s *session) exists(ctx context.Context, w *resp.Writer, args [][]byte) {
	_, present, err := s.has(ctx, args[1:]...)
	if err != nil {
		fail(w, err)
		return
	}
	var found int64
	for _, ok := range present {
		if ok {
			found++
		}
	}
	w.Int(found)
}

func (s *session) typeOf(ctx context.Context, w *resp.Writer, args [][]byte) {
	_, present, err := s.has(ctx, args[1])
	switch {
	case err != nil:
		fail(w, err)
	case present[0]:
		w.Status("string")
	default:
		w.Status("none")
	}
}

func (s *session) strLen(ctx context.Context, w *resp.Writer, args [][]byte) {
	t := parseTarget(args[1])
	lengths, present, err := s.has(ctx, args[1])
	if err != nil {
		fail(w, err)
		return
	}
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
	c, err := s.deleteName(ctx, t.name, false)
	if errors.Is(err, ErrCondition) {
		return false, nil
	}
	return err == nil && alive(c.Before.Value), err
}

// deleteName deletes a name, and lends what it had if that is wanted; ErrCondition when
// it is absent: at its place in the log, because what this node knows may be older than
// a write that somebody has been told of.
func (s *session) deleteName(ctx context.Context, name []byte, old bool) (NameChange, error) {
	c := s.n.coherence
	key := c.keyOf(s.namespace.Name, name)
	ch, err := s.n.DeleteName(ctx, s.namespace.Name, name, NameOptions{Old: old, Policy: c.deletePolicy(key, s.namespace.Policy)})
	s.saw(ch.Sequence)
	return ch, err
}

// takeName deletes a name and lends what it had.
func (s *session) takeName(ctx context.Context, name []byte) (*Loan, error) {
	c, err := s.deleteName(ctx, name, true)
	if errors.Is(err, ErrCondition) || err == nil && c.Old == nil {
		return nil, tier.ErrNotFound
	}
	return c.Old, err
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
