package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"cairn/internal/faultproxy"
)

// faultKind is one way of doing harm.
type faultKind string

// The kinds of faults. Those that end in "nats" are about a node's way there, the last
// four about NATS itself.
const (
	faultKill       faultKind = "kill -9 a node"
	faultRestart    faultKind = "restart a node in good order"
	faultFreeze     faultKind = "stop a node for less than the lease"
	faultFreezeLong faultKind = "stop a node for longer than the lease"
	faultCutNATS    faultKind = "cut a node from NATS"
	faultHangNATS   faultKind = "let nothing through between a node and NATS"
	faultCutPeers   faultKind = "cut a node from its peers"
	faultSlow       faultKind = "slow links of a node"
	faultDiskFull   faultKind = "full disk of a node"

	faultStepDown   faultKind = "step-down of the log's leader"
	faultKillNATS   faultKind = "kill -9 a NATS server"
	faultFreezeNATS faultKind = "stop a NATS server"
)

// The lanes of a schedule: in each one fault follows the other, and the lanes run side by side.
var (
	nodeFaults = []faultKind{faultKill, faultKill, faultRestart, faultFreeze, faultFreezeLong, faultCutNATS, faultHangNATS,
		faultCutPeers, faultSlow, faultDiskFull}
	natsFaults = []faultKind{faultStepDown, faultStepDown, faultKillNATS, faultFreezeNATS}
)

// injected is a fault that was there.
type injected struct {
	Kind   faultKind     `json:"kind"`
	Target string        `json:"target"`
	From   time.Duration `json:"from"`
	Until  time.Duration `json:"until"`
	Err    string        `json:"err,omitempty"`
}

// chaosFaults injects faults while a load runs.
type chaosFaults struct {
	c    *chaosCluster
	l    *chaosLoad
	seed uint64

	// mu guards what follows.
	mu   sync.Mutex
	list []injected
	errs []error
}

// plannedFault is a fault with what chance decides about it.
type plannedFault struct {
	kind  faultKind
	at    int           // which node or server
	hold  time.Duration // how long it lasts, or how long a process is down
	pause time.Duration // until the next
	rng   *rand.Rand
}

// plan is the sequence of faults of one lane: it depends on the seed and on nothing else.
func plan(seed, lane uint64, kinds []faultKind, pause time.Duration) func() plannedFault {
	rng := rand.New(rand.NewPCG(seed, 1000+lane))
	var left []faultKind
	return func() plannedFault {
		if len(left) == 0 { // each kind once before any comes again
			left = append(left, kinds...)
			rng.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
		}
		f := plannedFault{kind: left[0], at: rng.IntN(3), rng: rng}
		left = left[1:]
		between := func(a, b time.Duration) time.Duration { return a + time.Duration(rng.Int64N(int64(b-a))) }
		switch f.kind {
		case faultFreeze:
			f.hold = between(chaosLease/10, chaosLease*3/5)
		case faultFreezeLong:
			f.hold = between(chaosLease*6/5, chaosLease*2)
		case faultStepDown:
		case faultKillNATS, faultFreezeNATS:
			f.hold = between(200*time.Millisecond, 2*time.Second)
		default:
			f.hold = between(0, 2*chaosLease)
			if rng.IntN(4) == 0 {
				f.hold = 0
			}
		}
		f.pause = between(pause/2, pause*3/2)
		return f
	}
}

// lane injects one fault after another until ctx ends; the last one is ended in any
// case.
func (f *chaosFaults) lane(ctx context.Context, next func() plannedFault) {
	for {
		p := next()
		select {
		case <-time.After(p.pause):
		case <-ctx.Done():
			return
		}
		f.inject(ctx, p)
	}
}

// inject does harm, holds it, and repairs it.
func (f *chaosFaults) inject(ctx context.Context, p plannedFault) {
	if p.kind == faultDiskFull {
		for i, n := range f.c.nodes {
			if n.disk != "" {
				p.at = i
			}
		}
		if f.c.nodes[p.at].disk == "" {
			p.kind = faultKill
		}
	}
	in := injected{Kind: p.kind, Target: f.c.nodes[p.at].id, From: f.l.clock()}
	switch p.kind {
	case faultKillNATS, faultFreezeNATS:
		in.Target = f.c.nats[p.at].id
	case faultStepDown:
		in.Target = cohStream
	}
	err := f.harm(ctx, p)
	in.Until = f.l.clock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		in.Err = err.Error()
		if p.kind != faultStepDown { // which may meet an election
			f.errs = append(f.errs, fmt.Errorf("%s: %w", p.kind, err))
		}
	}
	f.list = append(f.list, in)
}

func (f *chaosFaults) harm(ctx context.Context, p plannedFault) error {
	n := f.c.nodes[p.at]
	hold := func() {
		select {
		case <-time.After(p.hold):
		case <-ctx.Done():
		}
	}
	switch p.kind {
	case faultKill:
		n.life.Add(1)
		n.kill()
		hold()
		return n.up()
	case faultRestart:
		n.life.Add(1)
		n.stop()
		return n.up()
	case faultFreeze, faultFreezeLong:
		n.signal(syscall.SIGSTOP)
		hold()
		n.signal(syscall.SIGCONT)
	case faultCutNATS, faultHangNATS, faultCutPeers, faultSlow:
		f.network(p, n)
		hold()
		n.heal()
	case faultDiskFull:
		full, err := fillDisk(n.disk)
		if err != nil {
			return err
		}
		hold()
		return os.Remove(full)
	case faultStepDown:
		return f.c.stepDown(cohStream)
	case faultKillNATS:
		s := f.c.nats[p.at]
		s.kill()
		hold()
		return s.again()
	case faultFreezeNATS:
		s := f.c.nats[p.at]
		s.signal(syscall.SIGSTOP)
		hold()
		s.signal(syscall.SIGCONT)
	}
	return nil
}

// network does harm to the ways of a node.
func (f *chaosFaults) network(p plannedFault, n *chaosNode) {
	each := func(do func(*faultproxy.Proxy)) {
		for _, x := range n.nats {
			do(x)
		}
	}
	switch p.kind {
	case faultCutNATS:
		each((*faultproxy.Proxy).Cut)
	case faultHangNATS:
		each((*faultproxy.Proxy).Hang)
	case faultCutPeers:
		if p.hold%2 == 0 {
			n.data.Cut()
		} else {
			n.data.Hang()
		}
	case faultSlow:
		d := 5*time.Millisecond + p.hold%(100*time.Millisecond)
		each(func(x *faultproxy.Proxy) { x.Delay(d) })
		n.data.Delay(d)
	}
}

// fillDisk takes all the room of a file system.
func fillDisk(dir string) (path string, err error) {
	path = filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		return path, err
	}
	defer f.Close()
	for size := 1 << 20; size >= 1<<12; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return path, nil
}
