package protocol

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
)

// TestScripts runs the scenarios in testdata, one file a situation. Each begins with
// what it shows and the rules and invariants that it is about. After a change on purpose:
//
//	go test ./coherency/protocol -run TestScripts -rewrite
//
// and then read every line that differs: the output is the argument.
//
// Commands; NODE is n1, n2 …, an operation is called op1, op2 … in the order of the
// script, and a message by the number that its author gave it:
//
//	cluster nodes=3 [mode=lease] [durable=(n3)] [homes=1] [copies=0] [lease=1s] [flush-after=] [idle-after=] [revoke-after=] [rehome-after=] [flights=]
//	put NODE BLOCK=VALUE [write-through|write-back|write-all] [if=absent|present|VERSION]
//	del NODE BLOCK [as put]
//	get NODE BLOCK [session=OP] [bounded=500ms] [owner=TOKEN]
//	barrier NODE | clear NODE | leave NODE | cancel NODE OP | gone NODE BLOCK
//	stabilize        everything that can move moves, without time passing
//	pass 500ms       time passes in ticks of 25 ms, and what can move moves
//	deliver NODE [n] the next messages of the log, to one node only
//	slow NODE        stabilize and pass deliver nothing to it; fast ends that
//	hold NODE        its messages are kept on their way; release lets all into the log
//	send NODE n…     lets messages into the log that were held, in the order named
//	drop NODE n…     loses messages that were held; resend is duty 3 of the caller
//	dup NODE n       puts a message into the log once more
//	staging NODE hold|auto, stage NODE ok|fail|first|arrive   by hand, the oldest first; first: only
//	                 the first home stores it; arrive: all do, and the author does not learn it
//	full NODE        no copies can be made there; room ends that
//	crash NODE, restart NODE, freeze NODE, thaw NODE (it is stopped, and its clock is not)
//	restart NODE snapshot=NODE   from the other's ledger as it is, instead of the whole log
//	garbage          puts something into the log that is no message
//	corrupt NODE     it reads something else than the others as its next message
//	log [from=n], state [BLOCK] [node=NODE], members, homes BLOCK…
//	do               several commands, one a line
//	verdicts KIND    what the ledger makes of a record, for each state of a block
//
// A place is sequence.index. A version that was written under ownership is token+count.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Ext(path) != ".txt" {
			return
		}
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
	})
}

// call is one directive: its arguments by position, and by name.
type call struct {
	t     testing.TB
	pos   string
	plain []string
	named map[string][]string
}

func (c *call) fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("%s: %s", c.pos, fmt.Sprintf(format, args...))
}

// arg is the plain argument number i.
func (c *call) arg(i int) string {
	if i >= len(c.plain) {
		c.fatalf("want %d arguments or more", i+1)
	}
	return c.plain[i]
}

func (c *call) text(name, standard string) string {
	if v, ok := c.named[name]; ok {
		return v[0]
	}
	return standard
}

func (c *call) number(name string, standard int) int {
	n, err := strconv.Atoi(c.text(name, strconv.Itoa(standard)))
	if err != nil {
		c.fatalf("%s: %v", name, err)
	}
	return n
}

func (c *call) duration(name string, standard time.Duration) time.Duration {
	d, err := time.ParseDuration(c.text(name, standard.String()))
	if err != nil {
		c.fatalf("%s: %v", name, err)
	}
	return d
}

// run carries out one directive, or the lines of a do, and returns what came of it.
func (s *script) run(t testing.TB, d *datadriven.TestData) string {
	s.out.Reset()
	if d.Cmd != "do" {
		s.command(t, d)
	}
	for line := range strings.Lines(d.Input) {
		cmd, args, err := datadriven.ParseLine(line)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		s.command(t, &datadriven.TestData{Pos: d.Pos, Cmd: cmd, CmdArgs: args})
	}
	if s.out.Len() == 0 {
		return "ok\n"
	}
	return s.out.String()
}

func (s *script) command(t testing.TB, d *datadriven.TestData) {
	c := &call{t: t, pos: d.Pos, named: map[string][]string{}}
	for _, a := range d.CmdArgs {
		if len(a.Vals) == 0 {
			c.plain = append(c.plain, a.Key)
		} else {
			c.named[a.Key] = a.Vals
		}
	}
	s.call = c
	switch d.Cmd {
	case "cluster":
		*s = script{call: c}
		s.cluster()
	case "put", "del":
		s.put(d)
	case "get":
		s.get()
	case "barrier":
		s.ask(s.node(c.arg(0)), "barrier", func(op Op) Event { return Barrier{Op: op} })
	case "clear":
		s.ask(s.node(c.arg(0)), "clear", func(op Op) Event { return Clear{Op: op, Namespace: scriptNamespace} })
	case "cancel":
		delete(s.asks, s.op(c.arg(1)))
		s.step(s.node(c.arg(0)), Cancel{Op: s.op(c.arg(1))})
	case "gone":
		n, key := s.node(c.arg(0)), s.key(c.arg(1))
		s.step(n, Gone{Key: key, Object: n.m.blocks[key].value.Object})
	case "leave":
		s.step(s.node(c.arg(0)), Leave{})
	case "draining":
		s.step(s.node(c.arg(0)), Draining{Members: c.plain[1:]})
	case "garbage":
		s.garbage()
	case "verdicts":
		s.verdicts(c.arg(0))
	default:
		if !s.drive(d.Cmd) && !s.show(d.Cmd) {
			c.fatalf("no such command: %s", d.Cmd)
		}
	}
	s.check()
	s.flushBeats()
}

// drive are the commands that move messages, nodes and time; false: it is none.
func (s *script) drive(cmd string) bool {
	c := s.call
	switch cmd {
	case "stabilize":
		s.stabilize()
		return true
	case "pass":
		d, err := time.ParseDuration(c.arg(0))
		if err != nil {
			c.fatalf("%v", err)
		}
		s.pass(d)
		return true
	}
	do := map[string]func(*scriptNode){
		"deliver": s.deliverSome, "slow": func(n *scriptNode) { n.slow = true }, "fast": func(n *scriptNode) { n.slow = false },
		"hold": func(n *scriptNode) { n.held = true }, "release": s.release, "send": s.send, "drop": s.drop,
		"resend": s.resend, "dup": s.dup, "staging": func(n *scriptNode) { n.byHand = c.arg(1) == "hold" }, "stage": s.stageByHand,
		"crash": s.crash, "restart": s.restart, "freeze": func(n *scriptNode) { n.frozen = true },
		"thaw": func(n *scriptNode) { n.frozen = false }, "corrupt": func(n *scriptNode) { n.corrupt = true },
		"full": func(n *scriptNode) { n.full = true }, "room": func(n *scriptNode) { n.full = false },
	}[cmd]
	if do == nil {
		return false
	}
	do(s.node(c.arg(0)))
	return true
}

func (s *script) cluster() {
	c := s.call
	s.objects, s.labels, s.results = map[block.Key]string{}, map[Op]string{}, map[string]scriptResult{}
	s.keys, s.tokens, s.floor, s.floors = map[block.Key]string{}, map[block.Key][]ledger.Version{}, map[block.Key]ledger.Version{}, map[Op]ledger.Version{}
	s.aliases, s.asks, s.whose = map[Op]Op{}, map[Op]Read{}, map[Op]*scriptNode{}
	s.ref = ledger.New(ledger.NewMapTable(), 0)
	s.space = Space{Homes: c.number("homes", 1), Copies: c.number("copies", 0), Lease: c.text("mode", "fence") == "lease"}
	cfg := Config{Lease: c.duration("lease", time.Second), FlushAfter: c.duration("flush-after", 0), IdleAfter: c.duration("idle-after", 0),
		RevokeAfter: c.duration("revoke-after", 0), RehomeAfter: c.duration("rehome-after", 0), Flights: c.number("flights", 0)}
	s.quiet = true
	for i := range c.number("nodes", 3) {
		name := fmt.Sprintf("n%d", i+1)
		cfg.Node, cfg.Incarnation = name, 1
		durable, ok := c.named["durable"]
		cfg.Durable = !ok || slices.Contains(durable, name)
		n := &scriptNode{name: name, cfg: cfg}
		s.nodes = append(s.nodes, n)
		s.boot(n, ledger.New(ledger.NewMapTable(), scriptHistory))
	}
	s.stabilize()
	s.quiet = false
	s.printf("%d members, log up to %d", len(s.nodes), len(s.log))
}

// ask begins an operation at a node.
func (s *script) ask(n *scriptNode, what string, event func(Op) Event) Op {
	s.ops++
	s.labels[s.ops] = fmt.Sprintf("op%d %s", s.ops, what)
	ev := event(s.ops)
	s.begin(s.ops, ev)
	s.whose[s.ops] = n
	s.printf("%s: %s", n.name, s.labels[s.ops])
	s.step(n, ev)
	return s.ops
}

func (s *script) put(d *datadriven.TestData) {
	c := s.call
	n := s.node(c.arg(0))
	w := Write{Namespace: scriptNamespace, Space: s.space, Policy: coherency.WriteThrough}
	what := d.Cmd
	name := ""
	for _, a := range d.CmdArgs[1:] {
		switch {
		case a.Key == "if":
			s.condition(&w, a.Vals[0])
		case len(a.Vals) == 1 || d.Cmd == "del" && name == "":
			name = a.Key
			w.Name, w.Key = []byte(name), s.key(name)
			if len(a.Vals) == 1 {
				s.words++
				w.Value = ledger.Value{Object: block.NamedKey(scriptNamespace, w.Name, s.words), Length: uint32(len(a.Vals[0])), Sum: s.words}
				s.objects[w.Value.Object] = a.Vals[0]
			}
		default:
			p, err := coherency.ParseWritePolicy(a.Key)
			if err != nil {
				c.fatalf("%v", err)
			}
			w.Policy = p
		}
		what += " " + a.String()
	}
	s.ask(n, what, func(op Op) Event {
		w.Op = op
		return w
	})
}

func (s *script) condition(w *Write, text string) {
	switch text {
	case "absent":
		w.If = ledger.Absent
	case "present":
		w.If = ledger.Present
	default:
		w.If, w.Expect = ledger.Exactly, s.version(text)
	}
}

func (s *script) get() {
	c := s.call
	r := Read{Key: s.key(c.arg(1)), Namespace: scriptNamespace, Space: s.space}
	what := "get " + c.arg(1)
	if v, ok := c.named["session"]; ok {
		r.Level, r.Session = Session, s.results[v[0]].sequence
		what += " session=" + v[0]
	}
	if v, ok := c.named["bounded"]; ok {
		r.Level, r.Bound = Bounded, c.duration("bounded", 0)
		what += " bounded=" + v[0]
	}
	if v, ok := c.named["owner"]; ok {
		r.Level, r.Token = AsOwner, s.version(v[0])
		what += " owner=" + v[0]
	}
	s.ask(s.node(c.arg(0)), what, func(op Op) Event {
		r.Op = op
		s.asks[op] = r
		return r
	})
}

// op is the operation with the given name.
func (s *script) op(name string) Op {
	n, err := strconv.ParseUint(strings.TrimPrefix(name, "op"), 10, 64)
	if err != nil {
		s.call.fatalf("%v", err)
	}
	return Op(n)
}

// version reads 4.0, 4.0+2, or the version that an operation ended with.
func (s *script) version(text string) ledger.Version {
	if r, ok := s.results[text]; ok {
		return r.version
	}
	var sequence uint64
	var index, count int
	if n, err := fmt.Sscanf(text, "%d.%d+%d", &sequence, &index, &count); n < 2 {
		s.call.fatalf("version %q: %v", text, err)
	}
	return ledger.Version(ledger.At(sequence, index)) + ledger.Version(count)
}
