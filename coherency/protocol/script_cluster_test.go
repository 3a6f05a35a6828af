package protocol

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
)

// scriptNamespace is the one that all blocks of the scripts are in.
const scriptNamespace = "t"

// scriptHistory is of how many sequences a node keeps the digests.
const scriptHistory = 64

// scriptTick is how often a node gets a Tick.
const scriptTick = 25 * time.Millisecond

// script is a cluster of machines, the log between them, and what their callers do.
// Nothing happens but by a command.
type script struct {
	*call
	out   strings.Builder
	quiet bool

	now   time.Duration
	log   []scriptMessage
	ref   *ledger.Ledger // what the log says, up to its end
	nodes []*scriptNode
	space Space

	ops     Op
	hidden  Op // operations of the callers themselves
	words   uint64
	objects map[block.Key]string // the value of each object
	keys    map[block.Key]string // the names of the blocks
	tokens  map[block.Key][]ledger.Version
	labels  map[Op]string
	results map[string]scriptResult
	asks    map[Op]Read // reads that are not over, by what their caller knows of them
	aliases map[Op]Op   // what an owner was asked for: the read that it is for
	whose   map[Op]*scriptNode
	passing bool // time passes: heartbeats are only counted
	beats   int  // heartbeats that were not printed yet

	diverged bool // the digests of the nodes differ (I8)

	floor  map[block.Key]ledger.Version // the newest version that anybody knows by an operation that has ended (I4)
	floors map[Op]ledger.Version        // what it was when an operation began
}

type scriptResult struct {
	version  ledger.Version
	sequence uint64
}

type scriptMessage struct {
	data []byte
	text []string
}

// scriptNode is a machine and its caller.
type scriptNode struct {
	m       *Machine
	name    string
	cfg     Config
	applied int // messages of the log
	todo    []func()
	stages  []Stage
	store   []Arrived // what it holds durably as a home, and no record has named

	down, frozen, slow, held, byHand, corrupt, full bool

	outbox []*ledger.Message // held
	lost   []*ledger.Message
}

func (s *script) node(name string) *scriptNode {
	for _, n := range s.nodes {
		if n.name == name {
			return n
		}
	}
	s.fatalf("no node %s", name)
	return nil
}

func (s *script) key(name string) block.Key {
	key := block.NamedKey(scriptNamespace, []byte(name), 0)
	s.keys[key] = name
	return key
}

func (n *scriptNode) runs() bool { return !n.down && !n.frozen }

// boot starts the node's process: it reads the log and joins.
func (s *script) boot(n *scriptNode, led *ledger.Ledger) {
	m, err := New(n.cfg, led, s.now)
	if err != nil {
		s.fatalf("%v", err)
	}
	n.m, n.applied, n.down = m, int(led.Sequence()), false
	for n.applied < len(s.log) {
		s.deliver(n)
	}
	for _, a := range slices.Clone(n.store) {
		s.step(n, a)
	}
	s.step(n, CaughtUp{})
}

func (s *script) crash(n *scriptNode) {
	n.down, n.frozen, n.todo, n.stages, n.lost = true, false, nil, nil, nil
	n.cfg.Incarnation = n.m.Incarnation() + 1
}

// restart begins the node's next life: from an empty ledger and the whole log, or from
// a snapshot of another node's ledger and what follows it.
func (s *script) restart(n *scriptNode) {
	led := ledger.New(ledger.NewMapTable(), scriptHistory)
	if from := s.text("snapshot", ""); from != "" {
		var data bytes.Buffer
		if err := s.node(from).m.Ledger().Snapshot(&data); err != nil {
			s.fatalf("%v", err)
		}
		var err error
		if led, err = ledger.LoadSnapshot(&data, ledger.NewMapTable(), scriptHistory); err != nil {
			s.fatalf("%v", err)
		}
	}
	s.boot(n, led)
}

// step gives the node one event and does what it asks for.
func (s *script) step(n *scriptNode, ev Event) {
	if !n.runs() {
		s.fatalf("%s does not run", n.name)
	}
	for _, eff := range slices.Clone(n.m.Step(s.now, ev)) {
		s.effect(n, eff)
	}
}

// publish is the way of a message from a node into the log.
func (s *script) publish(n *scriptNode, msg *ledger.Message) {
	if n.held {
		n.outbox = append(n.outbox, msg)
		s.printf("%s: held %s", n.name, s.messageText(n, msg))
		return
	}
	s.append(n, msg)
}

func (s *script) release(n *scriptNode) {
	n.held = false
	for _, msg := range n.outbox {
		s.append(n, msg)
	}
	n.outbox = nil
}

// take removes the message with a number from the ones that are held.
func (s *script) take(n *scriptNode, number string) *ledger.Message {
	i := slices.IndexFunc(n.outbox, func(m *ledger.Message) bool { return strconv.FormatUint(m.Number, 10) == number })
	if i < 0 {
		s.fatalf("%s holds no message %s", n.name, number)
	}
	msg := n.outbox[i]
	n.outbox = slices.Delete(n.outbox, i, i+1)
	return msg
}

func (s *script) send(n *scriptNode) {
	for _, number := range s.plain[1:] {
		s.append(n, s.take(n, number))
	}
}

func (s *script) drop(n *scriptNode) {
	for _, number := range s.plain[1:] {
		n.lost = append(n.lost, s.take(n, number))
	}
}

func (s *script) resend(n *scriptNode) {
	for _, msg := range n.lost {
		s.append(n, msg)
	}
	n.lost = nil
}

// garbage puts something into the log that is no message.
func (s *script) garbage() {
	data := []byte("garbage")
	s.ref.Skip(uint64(len(s.log)+1), ledger.Sum(data))
	s.log = append(s.log, scriptMessage{data, []string{fmt.Sprintf("%d   not a message", len(s.log)+1)}})
	s.printf("%s", s.log[len(s.log)-1].text[0])
}

func (s *script) dup(n *scriptNode) {
	for _, l := range s.log {
		var msg ledger.Message
		if err := ledger.Decode(l.data, &msg); err != nil {
			continue
		}
		if msg.Node == n.name && msg.Incarnation == n.m.Incarnation() && strconv.FormatUint(msg.Number, 10) == s.arg(1) {
			s.append(n, &msg)
			return
		}
	}
	s.fatalf("no message %s of %s in the log", s.arg(1), n.name)
}

// deliver gives the node the next message of the log.
func (s *script) deliver(n *scriptNode) {
	data := s.log[n.applied].data
	n.applied++
	sum := ledger.Sum(data)
	msg := &ledger.Message{}
	if err := ledger.Decode(data, msg); err != nil {
		s.step(n, Skipped{Sequence: uint64(n.applied), Sum: sum})
		return
	}
	if n.corrupt {
		n.corrupt = false
		sum++
	}
	s.step(n, Delivered{Sequence: uint64(n.applied), Message: msg, Sum: sum})
}

func (s *script) deliverSome(n *scriptNode) {
	count := 1
	if len(s.plain) > 1 {
		var err error
		if count, err = strconv.Atoi(s.plain[1]); err != nil {
			s.fatalf("%v", err)
		}
	}
	for range count {
		if n.applied == len(s.log) {
			s.fatalf("%s has the whole log", n.name)
		}
		s.deliver(n)
	}
}

// mostMoves is after how many rounds a cluster that still moves never stops.
const mostMoves = 10_000

// stabilize goes on until nothing moves any more.
func (s *script) stabilize() {
	rounds := 0
	for moved := true; moved; rounds++ {
		if rounds == mostMoves {
			s.fatalf("L1: the cluster does not come to rest")
		}
		moved = false
		for _, n := range s.nodes {
			moved = s.move(n) || moved
		}
	}
}

// move does what the node and its caller can do at once; false: nothing.
func (s *script) move(n *scriptNode) bool {
	moved := false
	for n.runs() && len(n.todo) > 0 {
		f := n.todo[0]
		n.todo = n.todo[1:]
		f()
		moved = true
	}
	for n.runs() && !n.byHand && len(n.stages) > 0 && !s.anyFrozen(n.stages[0].Homes) {
		s.stage(n, "ok")
		moved = true
	}
	if n.runs() && !n.slow && n.applied < len(s.log) {
		s.deliver(n)
		moved = true
	}
	return moved
}

func (s *script) anyFrozen(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return s.node(name).frozen })
}

// stage ends the oldest Stage of a node: "ok" if the homes run, "fail" at all of them,
// "first" at all but the first one, or "arrive": all have it, but the author does not learn it.
func (s *script) stage(n *scriptNode, how string) {
	if len(n.stages) == 0 {
		s.fatalf("%s stages nothing", n.name)
	}
	e := n.stages[0]
	n.stages = n.stages[1:]
	failed := how == "fail"
	for i, name := range e.Homes {
		h := s.node(name)
		if h.down || how == "first" && i > 0 {
			failed = true
		} else if how != "fail" {
			a := Arrived{Key: e.Key, Author: n.name, Incarnation: e.Incarnation, Token: e.Token, Version: e.Version, Value: e.Value}
			h.store = append(h.store, a)
			s.printf("%s: has %s of %s", name, s.value(e.Value), n.name)
			s.step(h, a)
		}
	}
	if how != "arrive" {
		s.step(n, Staged{Op: e.Op, Failed: failed})
	}
}

func (s *script) stageByHand(n *scriptNode) { s.stage(n, s.arg(1)) }

// pass lets time go by.
func (s *script) pass(d time.Duration) {
	s.passing = true
	for end := s.now + d; s.now < end; {
		s.now += scriptTick
		for _, n := range s.nodes {
			if n.runs() {
				s.step(n, Tick{})
			}
		}
		s.stabilize()
	}
	s.passing = false
}
