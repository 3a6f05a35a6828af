package main

import (
	"fmt"

	"cairn/client"

	"github.com/anishathalye/porcupine"
)

// Values that no read has shown.
const (
	somethingElse int64 = -1 // of a loss: it may be any
	unseen        int64 = -2 // of all writes whose value nobody has read: they are alike
)

// register is a block as the model sees it: a value, and the least version that it
// can have.
//
// Of the changes of unknown outcome most are never seen, and each may have happened at
// any time after its call. As operations of their own they would make the search
// exponential. So the model counts them: where an answer can only be explained by one
// more deletion, or one more write that nobody has read, one is taken.
type register struct {
	value        int64
	version      client.Version
	dels, writes int // taken
	// known counts the operations so far whose version is known. Versions grow, so all with
	// a lower one must have come before; that is said at once rather than found in the end.
	known int
}

// modelOp is an operation with all that the whole history tells about it.
type modelOp struct {
	*chaosOp
	loss         *chaosLoss
	version      client.Version // that the operation has made or read; 0: not known
	expected     int64          // the value that the expected version has
	value        int64          // that the operation writes or reads
	maybe        bool           // nobody knows whether it has happened
	dels, writes int            // unseen changes of unknown outcome that began before its end
	below        int            // operations whose version is known, and lower
}

// apply is the sequential specification.
func (r register) apply(o *modelOp) (bool, register) {
	if o.ordered() {
		if r.known < o.below {
			return false, r
		}
		r.known++
	}
	switch {
	case o.loss != nil:
		ok := o.loss.Version > r.version
		r.value, r.version = o.value, o.loss.Version
		return ok, r
	case o.Kind == readStrict && o.value == 0:
		return r.absent(o)
	case o.Kind == readStrict:
		ok := r.is(o.value) && r.version <= o.version
		r.value, r.version = o.value, o.version
		return ok, r
	case o.Outcome == refused:
		return r.refuse(o)
	}
	ok, next := r.holds(o)
	if !ok && o.maybe {
		return true, r
	}
	next.value = o.value
	if o.version != 0 {
		ok = ok && o.version > next.version
		next.version = o.version
	}
	return ok, next
}

// ordered tells whether the operation's version is known to be the block's at its place.
func (o *modelOp) ordered() bool {
	return o.loss != nil || o.version != 0 && o.Outcome != refused && !o.maybe
}

func (r register) is(value int64) bool {
	return r.value == value || r.value == somethingElse && value != 0
}

// absent is the block if it has no value, and whether that is possible.
func (r register) absent(o *modelOp) (bool, register) {
	if r.value == 0 {
		return true, r
	}
	r.value, r.dels = 0, r.dels+1
	return r.dels <= o.dels, r
}

// present is the block if it has a value, and whether that is possible.
func (r register) present(o *modelOp) (bool, register) {
	if r.value != 0 {
		return true, r
	}
	r.value, r.writes = unseen, r.writes+1
	return r.writes <= o.writes, r
}

// holds is the block if the condition of a change holds.
func (r register) holds(o *modelOp) (bool, register) {
	switch {
	case o.Kind == cas && o.Expect != 0:
		return r.is(o.expected) && r.version <= o.Expect, r
	case o.Kind == cas, o.Kind == setNX:
		return r.absent(o)
	case o.Kind == setXX, o.Kind == del:
		return r.present(o)
	}
	return true, r
}

// refuse is the block if the condition does not hold. Of a version that only has a bound
// nobody knows whether it is the expected one.
func (r register) refuse(o *modelOp) (bool, register) {
	switch {
	case o.Kind == cas && o.Expect != 0:
		if r.value != o.expected || r.version != o.Expect {
			return true, r
		}
		if ok, next := r.absent(o); ok {
			return true, next
		}
		r.value = 0
		return r.present(o) // written over
	case o.Kind == cas, o.Kind == setNX:
		return r.present(o)
	default:
		return r.absent(o)
	}
}

var chaosModel = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := state.(register).apply(input.(*modelOp))
		return ok, next
	},
	Equal:             func(a, b any) bool { return a.(register) == b.(register) },
	DescribeOperation: func(input, _ any) string { return input.(*modelOp).describe() },
	DescribeState: func(state any) string {
		r := state.(register)
		return fmt.Sprintf("%d at %s or later", r.value, r.version)
	},
}

func (o *modelOp) describe() string {
	if o.loss != nil {
		return fmt.Sprintf("LOSS back to %d (base %s), now %s", o.value, o.loss.Base, o.loss.Version)
	}
	text := fmt.Sprintf("n%d %s", o.Node+1, o.Kind)
	if o.Kind == cas {
		text += " if " + o.Expect.String()
	}
	if o.value != 0 {
		text += fmt.Sprintf(" %d", o.Value)
	}
	text += " " + o.Outcome.String()
	if o.version != 0 {
		text += " " + o.version.String()
	}
	return text
}
