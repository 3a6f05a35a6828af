package protocol

import (
	"fmt"
	"slices"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

// verb is what a client's action does.
type verb uint8

const (
	put     verb = iota
	cas          // writes if the version is the one that the client saw last
	create       // writes if the block is absent
	replace      // writes if it is present
	remove       // deletes
	get          // strict
	getSession
	barrier
	wipe // clears the namespace
)

var verbs = [...]string{"put", "cas", "create", "replace", "remove", "get", "session get", "barrier", "clear"}

// action is one operation of a client's program: at a node, on a block.
type action struct {
	node   int
	do     verb
	block  int
	policy coherency.WritePolicy
}

// The bounds on what may go wrong.
const (
	crashes    = iota
	advances   // of the clock, by advanceBy
	duplicates // messages that are published twice
	reorders   // messages of one author that overtake another
	refusals   // stagings that fail, though the homes are up
	timeouts   // questions to an owner that get no answer, though it is up
	leaves
	budgets
)

// advanceBy is one step of all clocks: two are more than a lease and what others wait.
const advanceBy = 600 * time.Millisecond

// instance is one small cluster with what its clients do and what may go wrong.
type instance struct {
	name    string
	count   int        // of nodes; default 2
	names   []string   // of the blocks; default a
	homeAt  int        // which node is the first home of the first block, from 1; 0: any
	clients [][]action // each does its actions in order, at most 4
	space   Space
	budget  [budgets]uint8
	crash   []int // the nodes that may crash; default all
	flush   bool  // owners flush what is old; else only what they are asked for
	idle    bool  // owners give back what they do not use
	flights int   // default 2
	fine    bool  // the homes get a staged object one after another

	nodes    []string
	keys     []block.Key
	settles  bool // somebody waits until all have applied something
	clears   bool
	barriers bool
	compares bool
}

// site is one node. One that is part of a state is not changed any more.
type site struct {
	m          *Machine // nil: down
	generation uint8    // counts its processes
	outbox     []*packet
	events     []Event // of this node's own, that it has not handled
	words      []uint64
	// What survives a crash: the objects on the disk, by number, and what was staged
	// there and is not decided.
	disk  uint64
	homed []Arrived
}

// packet is a message on its way.
type packet struct {
	msg   *ledger.Message
	sum   uint64
	words []uint64
}

type staging struct {
	author     int
	generation uint8
	todo       uint8 // homes that have not got it, as a set
	e          Stage
	replicate  bool // ends with Replicated
	replicated Replicated
}

// question asks an owner on behalf of a read.
type question struct {
	op         Op
	from, to   int
	generation uint8 // of the process at to
	token      ledger.Version
	asked      bool
}

type inquiry struct {
	node       int
	generation uint8
	e          Inquire
}

type client struct {
	at      int // of its program
	busy    bool
	saw     uint8 // the value that it saw last
	version ledger.Version
	session uint64
}

// asOwner marks the operation at an owner that is asked.
const asOwner Op = 256

// universe is one state of an instance. It is copied before each move; what it points to
// is never changed, except for sites that were copied for the move.
type universe struct {
	in      *instance
	now     time.Duration
	sites   [3]*site
	mine    [3]bool // sites that were copied for this move
	own     [3]bool // those of which the machine was, too
	log     []*packet
	prefix  [][]uint64 // the encoded ledger, by sequence
	oracle  *ledger.Ledger
	ghosts  []*packet // that may enter the log, or never
	stages  []staging
	calls   []question
	clients [4]client
	budget  [budgets]uint8
	ticks   uint8 // nodes that have not looked at the clock since it was advanced

	history   [2]history
	durable   [2]ledger.Version // newest that was acknowledged as durable
	acked     [2]ledger.Version // newest that was acknowledged
	must      [2]ledger.Version // acked when the open barrier began
	expect    [16]uint8         // the value that a conditional write expects
	finals    int               // reads of settle that are not answered
	inquiries []inquiry
	err       error
	say       func(string, ...any) // not nil: tell what happens
}

func (u *universe) fail(format string, args ...any) {
	if u.err == nil {
		u.err = fmt.Errorf(format, args...)
	}
}

// copy is the state to be changed by a move.
func (u *universe) copy() *universe {
	c := *u
	c.mine, c.own = [3]bool{}, [3]bool{}
	c.log, c.prefix, c.ghosts = slices.Clip(u.log), slices.Clip(u.prefix), slices.Clip(u.ghosts)
	c.stages, c.calls = slices.Clone(u.stages), slices.Clone(u.calls)
	c.inquiries = slices.Clip(u.inquiries)
	return &c
}

// shell is a node of which all but the machine is to be changed.
func (u *universe) shell(i int) *site {
	if !u.mine[i] {
		s := *u.sites[i]
		s.outbox, s.events, s.homed = slices.Clone(s.outbox), slices.Clip(s.events), slices.Clone(s.homed)
		u.sites[i], u.mine[i] = &s, true
	}
	return u.sites[i]
}

// site is a node to be changed.
func (u *universe) site(i int) *site {
	s := u.shell(i)
	if s.m != nil && !u.own[i] {
		s.m = cloneMachine(s.m)
	}
	u.own[i] = true
	return s
}

// setup makes the first state: all nodes are members, and have applied everything.
func (in *instance) setup() *universe {
	if in.count == 0 {
		in.count = 2
	}
	if in.flights == 0 {
		in.flights = 2
	}
	if in.space.Homes == 0 {
		in.space.Homes = 1
	}
	in.nodes = []string{"n1", "n2", "n3"}[:in.count]
	if in.names == nil {
		in.names = []string{"a"}
	}
	in.settles = in.space.Lease
	for _, program := range in.clients {
		for _, a := range program {
			in.settles = in.settles || a.policy == coherency.WriteAll && a.do < get || a.do == wipe
			in.clears = in.clears || a.do == wipe
			in.barriers = in.barriers || a.do == barrier
			in.compares = in.compares || a.do == cas
		}
	}
	in.keys = nil
	u := &universe{in: in, now: 10 * time.Second, oracle: ledger.New(&smallTable{}, 0), budget: in.budget}
	u.prefix = [][]uint64{in.ledger(u.oracle)}
	for i := range in.nodes {
		u.sites[i] = &site{}
		u.mine[i], u.own[i] = true, true
		u.boot(i)
		for len(u.sites[i].outbox) > 0 {
			u.append(i, 0)
			for j := range i + 1 {
				u.deliver(j)
			}
		}
	}
	for i, name := range in.names {
		for n := 0; ; n++ {
			key := block.NamedKey(space, []byte(fmt.Sprint(name, n)), 0)
			homes, _ := u.sites[0].m.homes(key, 1)
			if i > 0 || in.homeAt == 0 || int(homes[0]) == in.homeAt {
				in.keys = append(in.keys, key)
				break
			}
		}
		u.history[i] = history{configs: []config{{seen: [4]uint32{1, 1, 1, 1}}}}
	}
	for i := range u.prefix {
		u.prefix[i] = nil
	}
	u.prefix[u.oracle.Sequence()] = in.ledger(u.oracle)
	for i := range in.nodes {
		u.encode(i)
	}
	u.mine, u.own = [3]bool{}, [3]bool{}
	return u
}

// boot starts a process of a node, from a snapshot of all that is in the log.
func (u *universe) boot(i int) {
	in, s := u.in, u.site(i)
	cfg := Config{
		Node: in.nodes[i], Incarnation: 1, Durable: true, Lease: leaseTime, Renew: leaseTime / 2, Flights: in.flights,
		FlushAfter: time.Hour, IdleAfter: time.Hour, RehomeAfter: leaseTime,
	}
	if in.flush {
		cfg.FlushAfter = leaseTime / 2
	}
	if in.idle {
		cfg.IdleAfter = leaseTime / 2
	}
	m, err := New(cfg, cloneLedger(u.oracle), u.now)
	if err != nil {
		panic(err)
	}
	s.m = m
	s.generation++
	named := uint64(0)
	for _, key := range in.keys {
		p, _ := u.oracle.Lookup(key)
		named |= 1 << in.objectOf(p.Value.Object) &^ 1
	}
	s.homed = slices.DeleteFunc(s.homed, func(e Arrived) bool {
		p, _ := u.oracle.Lookup(e.Key)
		return s.disk>>in.objectOf(e.Value.Object)&1 == 0 || p.Value.Object == e.Value.Object
	})
	for _, e := range s.homed {
		named |= 1 << in.objectOf(e.Value.Object)
	}
	s.disk &= named
	for _, e := range slices.Clone(s.homed) {
		u.step(i, e)
	}
	u.step(i, CaughtUp{})
}

// encode renews what is kept of a node's encoding.
func (u *universe) encode(i int) {
	if s := u.sites[i]; s.m != nil {
		s.words = u.in.machine(i, s.m)
	}
}
