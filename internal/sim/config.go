package sim

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// The unit of time is the lease; everything else is measured by it.
const (
	lease     = time.Second
	renew     = lease / 5
	tickEvery = renew / 4

	// drift is what machines allow for, in parts per thousand; clocks differ by
	// a little less than that.
	drift     = 50
	clockRate = 24 // the most that a clock is faster or slower than true time, in the same

	rpcTimeout = 60 * time.Millisecond
	republish  = 120 * time.Millisecond

	// settleWithin is how long a cluster may take to settle once faults have stopped (L1).
	settleWithin = 15 * lease

	mostOps    = 128
	mostFaults = 64
)

// Plan is everything about a run that its seed decides beforehand.
type Plan struct {
	Seed   uint64
	Nodes  int
	Names  int
	Spaces [2]protocol.Space // of the two namespaces
	Config protocol.Config   // of every machine, but for its name and incarnation

	Dedup       time.Duration // for how long the log remembers messages
	PublishLoss float64
	Late        float64 // the part of publishes that take very long
	RPCLoss     float64
	RPCDup      float64
	Gaps        float64 // between sequences
	Rates       []int   // of the nodes' clocks, in parts per thousand
	Diskless    int     // the node that cannot be a home, or -1
	Late1       bool    // the last node starts late

	Faults []fault
	Ops    []plannedOp
	Users  int
	// Patience is how long a client waits for an operation.
	Patience time.Duration
	keep     Keep
}

// Keep says which faults and operations of a plan happen. The zero value: all.
type Keep struct {
	set    bool
	faults [1]uint64
	ops    [mostOps / 64]uint64
}

func everything() Keep {
	k := Keep{set: true, faults: [1]uint64{^uint64(0)}}
	for i := range k.ops {
		k.ops[i] = ^uint64(0)
	}
	return k
}

func (k Keep) fault(i int) bool { return !k.set || k.faults[i/64]>>(i%64)&1 == 1 }
func (k Keep) op(i int) bool    { return !k.set || k.ops[i/64]>>(i%64)&1 == 1 }

// String is Keep as the flag -sim.config takes it.
func (k Keep) String() string {
	if !k.set {
		return "all"
	}
	return fmt.Sprintf("%x.%x.%x", k.faults[0], k.ops[0], k.ops[1])
}

// ParseKeep reads what [Keep.String] writes.
func ParseKeep(s string) (Keep, error) {
	if s == "" || s == "all" {
		return Keep{}, nil
	}
	var n [3]uint64
	parts := strings.Split(s, ".")
	if len(parts) != len(n) {
		return Keep{}, fmt.Errorf("sim: config %q: want all, or faults.operations.operations in hexadecimal", s)
	}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 16, 64)
		if err != nil {
			return Keep{}, fmt.Errorf("sim: config %q: %w", s, err)
		}
		n[i] = v
	}
	return Keep{set: true, faults: [1]uint64{n[0]}, ops: [2]uint64{n[1], n[2]}}, nil
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// NewPlan derives a plan from a seed.
func NewPlan(seed uint64, keep Keep) Plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := Plan{
		Seed: seed, keep: keep,
		Nodes: 2 + r.IntN(3), Names: pick(r, 1, 1, 2, 3), Users: 2 + r.IntN(4),
		Dedup:       pick(r, 0, 0, lease/2, 120*lease),
		PublishLoss: pick(r, 0, 0.02, 0.1),
		Late:        pick(r, 0, 0, 0.01, 0.05),
		RPCLoss:     pick(r, 0, 0, 0.02, 0.1),
		RPCDup:      pick(r, 0, 0.05),
		Gaps:        pick(r, 0, 0, 0.1),
		Diskless:    -1,
		Patience:    pick(r, 300*time.Millisecond, lease, 5*lease/2),
		Late1:       r.IntN(4) == 0,
	}
	for i := range p.Spaces {
		p.Spaces[i] = protocol.Space{Homes: 1 + r.IntN(3), Copies: pick(r, 0, 0, 2), Lease: r.IntN(2) == 0}
	}
	p.Config = protocol.Config{
		Durable: true, Lease: lease, Renew: renew, Drift: drift,
		Flights:     pick(r, 1, 3),
		Records:     pick(r, 2, 512),
		FlushAfter:  pick(r, 50*time.Millisecond, 300*time.Millisecond, lease),
		Flushes:     pick(r, 1, 64),
		IdleAfter:   pick(r, 250*time.Millisecond, 3*lease),
		Yield:       pick(r, 5*time.Millisecond, 50*time.Millisecond),
		RevokeAfter: pick(r, 20*time.Millisecond, 150*time.Millisecond, lease),
		RehomeAfter: pick(r, 400*time.Millisecond, 2*lease),
		RehomeEvery: 5 * lease,
		History:     256,
	}
	for range p.Nodes {
		p.Rates = append(p.Rates, r.IntN(2*clockRate+1)-clockRate)
	}
	if p.Nodes > 2 && r.IntN(4) == 0 {
		p.Diskless = r.IntN(p.Nodes)
	}
	p.Ops = planOps(rand.New(rand.NewPCG(seed, 2)), &p)
	p.Faults = planFaults(rand.New(rand.NewPCG(seed, 3)), &p)
	return p
}

// opKind is what a client does.
type opKind uint8

const (
	opRead opKind = iota
	opWrite
	opBarrier
	opClear
	opLoss // not a client's: a loss was declared
)

// plannedOp is one thing that a client will do.
type plannedOp struct {
	user      int
	at        time.Duration // not before
	move      int           // the node to go to before it, or -1
	kind      opKind
	name      int
	policy    coherency.WritePolicy
	cond      ledger.Condition
	remove    bool
	touch     bool          // change only the end
	expires   time.Duration // from now; 0: never
	level     protocol.Level
	session   bool // Session with what the client has seen; else with 0
	bound     time.Duration
	impatient bool // gives up early
}

func planOps(r *rand.Rand, p *Plan) []plannedOp {
	style := r.IntN(5) // some runs have one policy only
	think := pick(r, 10*time.Millisecond, 60*time.Millisecond, 300*time.Millisecond)
	reads := pick(r, 30, 45, 45, 75)
	ops := make([]plannedOp, 46+r.IntN(24))
	clock := make([]time.Duration, p.Users)
	for i := range ops {
		o := plannedOp{
			user: r.IntN(p.Users), move: -1, name: r.IntN(p.Names),
			impatient: r.IntN(12) == 0,
		}
		// Bursts, and time for faults between them.
		clock[o.user] += time.Duration(r.Int64N(int64(pick(r, think, think, think, lease))))
		o.at = clock[o.user]
		if r.IntN(6) == 0 {
			o.move = r.IntN(p.Nodes)
		}
		switch n := r.IntN(100); {
		case n < reads:
			o.kind = opRead
			o.level = pick(r, protocol.Strict, protocol.Strict, protocol.Strict, protocol.Session, protocol.Bounded)
			o.session = r.IntN(3) > 0
			o.bound = pick(r, 50*time.Millisecond, 400*time.Millisecond, 2*lease)
		case n < 95:
			o.kind = opWrite
			o.policy = coherency.WritePolicy(style)
			if style >= 3 {
				o.policy = coherency.WritePolicy(r.IntN(3))
			}
			o.cond = pick(r, ledger.Always, ledger.Always, ledger.Always, ledger.Exactly, ledger.Absent, ledger.Present)
			switch r.IntN(12) {
			case 0, 1:
				o.remove = true
			case 2:
				o.touch, o.cond = true, ledger.Exactly
			case 3:
				o.expires = time.Duration(r.Int64N(int64(2 * lease)))
			}
		case n < 98:
			o.kind = opBarrier
		default:
			o.kind = opClear
		}
		ops[i] = o
	}
	return ops
}

// faultKind is something that goes wrong.
type faultKind uint8

const (
	crash    faultKind = iota // the process dies
	wipe                      // and its disk is lost
	crashMid                  // it dies while it carries out the effects of a step
	pause                     // the process is stopped for a while
	pauseMid                  // while it carries out the effects of a step
	split                     // two nodes cannot reach each other
	oneWay                    // one of them cannot
	cutLog                    // a node does not reach the log
	mute                      // a node reads the log, but its messages are lost
	logDown                   // nobody reaches the log
	slow                      // a node reads the log slowly
	full                      // a disk has no room
	lossy                     // many RPC messages are lost
	leave                     // a node leaves, and comes back
	evict                     // a node drops what it may drop
	gone                      // unflushed bytes are lost
	garbage                   // a message that nobody can read
	trim                      // the log forgets its beginning
	distrust                  // a node is told that the log cannot be trusted, and is started again
	drain                     // a node is about to leave, and then stays
	faultKinds
)

var faultNames = [faultKinds]string{"crash", "wipe", "crash within a step", "pause", "pause within a step", "split",
	"one-way split", "cut from log", "mute", "log down", "slow consumer", "disk full", "lossy network", "leave", "evict",
	"bytes gone", "garbage in the log", "trim", "distrust", "drain"}

// fault is one thing that goes wrong at a time, for a time.
type fault struct {
	kind  faultKind
	at    time.Duration
	lasts time.Duration
	node  int
	other int
	n     int
}

// lasting is how long a fault lasts: mostly short, now and then longer than everyone's
// patience, or just about that.
func lasting(r *rand.Rand) time.Duration {
	if r.IntN(4) == 0 {
		return 4*lease/5 + time.Duration(r.Int64N(int64(lease/2)))
	}
	return time.Duration(r.Int64N(int64(pick(r, lease/5, lease/2, 3*lease/2, 3*lease))))
}

func planFaults(r *rand.Rand, p *Plan) []fault {
	faults := make([]fault, pick(r, 0, 1, 2, 3, 4, 6, 8))
	span := lease
	for _, o := range p.Ops {
		span = max(span, o.at)
	}
	favourite := faultKind(r.IntN(int(faultKinds)))
	for i := range faults {
		f := fault{
			kind:  faultKind(r.IntN(int(faultKinds))),
			at:    lease/20 + time.Duration(r.Int64N(int64(span))),
			lasts: lasting(r),
			node:  r.IntN(p.Nodes), other: r.IntN(p.Nodes), n: r.IntN(4),
		}
		if r.IntN(3) == 0 {
			f.kind = favourite
		}
		if f.kind == wipe && r.IntN(3) > 0 {
			f.kind = crash
		}
		faults[i] = f
	}
	return faults
}
