package sim

import (
	"time"

	"cairn/coherency/ledger"

	"github.com/anishathalye/porcupine"
)

// anyVersion is the version of a state whose making nobody has seen.
const anyVersion = ^ledger.Version(0)

// checkTime is the most that the search for one linearization may take; what it has
// not decided by then counts as linearizable, and is counted.
const checkTime = 5 * time.Second

// register is a block as the model sees it.
type register struct {
	version ledger.Version
	value   valueID
}

func (r register) is(v ledger.Version, id valueID) bool {
	return r.value == id && (r.version == v || r.version == anyVersion)
}

func (r register) holds(o *operation) bool {
	if o.cond == ledger.Exactly {
		return r.version == o.expect || r.version == anyVersion
	}
	v := ledger.Value{Expires: r.value.expires}
	if r.value.object != 0 {
		v.Object = objectKey(r.value.object)
	}
	return o.cond.Holds(r.version, v, o.expect, o.now)
}

// apply is the model: what an operation may do to a block, and what it makes of it.
func (r register) apply(o *operation) (bool, register) {
	switch {
	case o.kind == opRead:
		return r.is(o.version, o.value), register{o.version, o.value}
	case o.kind == opLoss:
		return true, register{o.version, o.value}
	case o.kind == opClear:
		return true, register{version: anyVersion}
	case o.outcome == refused:
		// Versions only grow, so an Exactly is refused by any node; what it tells
		// of the block may be older.
		if o.cond == ledger.Exactly {
			return r.version != o.expect || r.version == anyVersion, r
		}
		return !r.holds(o) && r.is(o.version, o.value), r
	case o.outcome == done:
		return r.holds(o) && r.is(o.before.Version, idOf(o.before.Value)), register{o.version, o.wrote}
	default: // it may happen, or not
		if !r.holds(o) {
			return true, r
		}
		return true, register{o.version, o.wrote}
	}
}

var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := state.(register).apply(input.(*operation))
		return ok, next
	},
	Equal: func(a, b any) bool { return a.(register) == b.(register) },
	Hash: func(state any) uint64 {
		r := state.(register)
		return mix(uint64(r.version)) ^ mix(r.value.object+1)
	},
	DescribeOperation: func(input, _ any) string { return input.(*operation).text() },
}

// checkLinear: I4, the strict operations on a block can be put in one order, each
// between its beginning and its end.
func (w *World) checkLinear(k *keyState) {
	history := w.linearHistory(k)
	if len(history) < 2 {
		return
	}
	if porcupine.CheckOperationsTimeout(model, history, checkTime) == porcupine.Illegal {
		w.fail("I4", "the history of %s is not linearizable", k.name)
		w.explain(k, history)
	}
}

func (w *World) linearHistory(k *keyState) []porcupine.Operation {
	var history []porcupine.Operation
	add := func(o *operation) {
		ret := o.ret
		if o.outcome == unknown || o.outcome == pending {
			ret = ever
		}
		history = append(history, porcupine.Operation{ClientId: o.client, Input: o, Call: o.call, Return: ret})
	}
	for _, o := range w.history {
		switch {
		case o.outcome == nothing, o.kind == opBarrier, o.kind == opRead && (o.key != k || o.outcome != done || o.plan.level != 0):
		case o.kind == opClear && o.key.namespace == k.namespace:
			add(o)
		case o.kind == opClear, o.key != k:
		case o.kind == opWrite && o.outcome == unknown && o.wrote.object != 0:
			// Every value has its own name, so what nobody ever saw has not happened.
			if v, ok := w.made[o.wrote]; ok {
				o.version = v
				add(o)
			}
		case o.kind == opWrite && o.outcome == unknown:
			o.version = anyVersion
			add(o)
		default:
			add(o)
		}
	}
	for _, o := range k.losses {
		add(o)
	}
	return history
}
