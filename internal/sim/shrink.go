package sim

import (
	"fmt"
	"strings"
)

// mostRuns bounds the work of Shrink.
const mostRuns = 600

// Shrink looks for fewer faults and operations of a failing plan with which it still
// fails, in the same invariant.
func Shrink(seed uint64, v *Violation) (Keep, *Violation) {
	keep, runs := everything(), 0
	plan := NewPlan(seed, keep)
	try := func(k Keep) bool {
		if runs++; runs > mostRuns {
			return false
		}
		r := Run(NewPlan(seed, k), false)
		if r.Violation == nil || r.Violation.Invariant != v.Invariant {
			return false
		}
		keep, v = k, r.Violation
		return true
	}
	for again := true; again && runs < mostRuns; {
		again = false
		for size := len(plan.Ops) / 2; size > 0; size /= 2 {
			for from := 0; from < len(plan.Ops); from += size {
				k, less := keep, false
				for i := from; i < min(from+size, len(plan.Ops)); i++ {
					less = less || k.op(i)
					k.ops[i/64] &^= 1 << (i % 64)
				}
				again = less && try(k) || again
			}
		}
		for i := range plan.Faults {
			if k := keep; k.fault(i) {
				k.faults[i/64] &^= 1 << (i % 64)
				again = try(k) || again
			}
		}
	}
	for i := len(plan.Faults); i < mostFaults; i++ {
		keep.faults[i/64] &^= 1 << (i % 64)
	}
	for i := len(plan.Ops); i < mostOps; i++ {
		keep.ops[i/64] &^= 1 << (i % 64)
	}
	return keep, v
}

// describe is the plan for people.
func (p Plan) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes, %d names, %d clients; spaces %+v; clocks %v‰; diskless %d; dedup %v; publish loss %v late %v; RPC loss %v twice %v\n",
		p.Nodes, p.Names, p.Users, p.Spaces, p.Rates, p.Diskless, p.Dedup, p.PublishLoss, p.Late, p.RPCLoss, p.RPCDup)
	fmt.Fprintf(&b, "flights %d, records %d, flush after %v, flushes %d, idle after %v, revoke after %v, rehome after %v\n", p.Config.Flights,
		p.Config.Records, p.Config.FlushAfter, p.Config.Flushes, p.Config.IdleAfter, p.Config.RevokeAfter, p.Config.RehomeAfter)
	for i, f := range p.Faults {
		if p.keep.fault(i) {
			fmt.Fprintf(&b, "  fault %d: %s n%d (n%d) at %v for %v\n", i, faultNames[f.kind], f.node+1, f.other+1, f.at, f.lasts)
		}
	}
	for i, o := range p.Ops {
		if p.keep.op(i) {
			fmt.Fprintf(&b, "  op %d: c%d %s name %d at %v", i, o.user, kindNames[o.kind], o.name, o.at)
			if o.move >= 0 {
				fmt.Fprintf(&b, " at n%d", o.move+1)
			}
			switch o.kind {
			case opRead:
				fmt.Fprintf(&b, " %s", levelNames[o.level])
			case opWrite:
				fmt.Fprintf(&b, " %v if %s", o.policy, condNames[o.cond])
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
