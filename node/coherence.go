package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// coherence is this node's part in the protocol of named blocks. One goroutine at a time
// runs the machine and carries out its effects: that of run, or a client's, or the
// log's reader. Whatever moves bytes or waits for the network runs beside it, and its
// end comes back as an event.
type coherence struct {
	n       *Node
	log     *slog.Logger
	ports   CoherenceLog
	cfg     protocol.Config
	table   *nameTable
	overlay overlay
	spaces  map[string]protocol.Space
	started time.Time

	ops     atomic.Uint64 // the last protocol.Op
	base    uint64        // makes object keys unique to this run of the node
	unique  atomic.Uint64
	applied atomic.Uint64 // sequence up to which the log has been applied
	news    broadcast     // applied has grown
	number  atomic.Uint32 // of this node as a member; 0 before it is one
	fresh   atomic.Int64  // when, on the machine's clock, what is applied was the newest, at least
	epoch   atomic.Uint64
	members atomic.Pointer[[]ledger.Member]
	alarm   atomic.Pointer[string] // why the log cannot be trusted

	leavers leavers

	counters coherenceCounters
	watches  watches
	stager   stager
	homed    homed
	dropper  dropper

	// mu guards queue, closed and busy.
	mu     sync.Mutex
	queue  []task
	closed bool
	queued atomic.Int64  // len(queue), to look at without mu
	busy   bool          // someone runs the machine
	wake   chan struct{} // holds a token when queue is not empty and nobody runs the machine
	room   chan struct{} // holds a token when queue has been emptied

	reading   atomic.Bool // the log, up to what was its end at the start
	leaving   atomic.Bool
	left      chan struct{} // closed when the node is no member any more
	ended     chan struct{} // closed when the goroutine has ended
	working   sync.WaitGroup
	waitLimit atomic.Pointer[waitLimit] // of those who begin to wait now
	slots     chan struct{}             // one per question or copy under way
	ctx       context.Context           // of the work beside the goroutine
	cancel    context.CancelFunc

	// The rest belongs to who runs the machine.
	machine  *protocol.Machine
	batch    []task // what it has taken from queue
	current  bool   // the log has been read up to its end: what comes now is news
	waiters  map[protocol.Op]*waiter
	answered int // operations, since the last message was sent
	pinned   pins
	asking   map[block.Key]struct{} // names about which peers are being asked, or that are being copied
	askings  atomic.Int64           // how many those are, for the scan
	scanning atomic.Int32           // bits of a Scan that is under way
	lastSave time.Time
	saving   atomic.Bool
	unsaved  int // records since the last snapshot; a message without any counts as one
}

// ErrClosed: the node is being closed.
var ErrClosed = errors.New("node closed")

func newCoherence(n *Node, log CoherenceLog) (*coherence, error) {
	cfg := n.cfg
	c := &coherence{
		n: n, log: cfg.Logger, ports: log, table: newNameTable(), spaces: map[string]protocol.Space{}, started: time.Now(),
		base: cfg.Incarnation, wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		left: make(chan struct{}), ended: make(chan struct{}),
		waiters: map[protocol.Op]*waiter{}, pinned: pins{name: map[block.Key]block.Key{}, objects: map[block.Key][]block.Key{}},
		asking: map[block.Key]struct{}{}, slots: make(chan struct{}, besideAtOnce), lastSave: time.Now(),
		cfg: protocol.Config{
			Node: cfg.ID, Incarnation: cfg.Incarnation, Durable: n.home == block.Disk,
			Lease: cfg.Lease, Renew: cfg.Renew, FlushAfter: cfg.FlushAfter, IdleAfter: cfg.IdleAfter,
			RecallEvery: cfg.RecallEvery, RevokeAfter: cfg.RevokeAfter, RehomeAfter: cfg.RehomeAfter, RehomeEvery: cfg.RehomeEvery,
			Records: recordsFor(cfg), Flushes: flushesAtOnce,
		},
	}
	for _, ns := range cfg.Namespaces {
		c.spaces[ns.Name] = protocol.Space{Homes: ns.Homes, Copies: ns.Copies, Lease: ns.Lease}
	}
	c.members.Store(new([]ledger.Member))
	c.leavers.members.Store(new([]string))
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.stager.c, c.homed.c, c.dropper.c = c, c, c
	c.reading.Store(true)
	c.homed.init()
	c.dropper.wake = make(chan struct{}, 1)
	if err := c.restart(ledger.New(c.table, historyOf(c.cfg))); err != nil {
		return nil, err
	}
	return c, nil
}

const (
	// flushesAtOnce is how many names are being flushed at once: enough to fill the
	// batches in which they travel.
	flushesAtOnce = 2 * stageLanes * stageBatch
	// besideAtOnce is how many questions and copies to peers are under way at once.
	besideAtOnce = 64
)

// recordsFor is how many records a message may have, so that it stays below maxMessage.
func recordsFor(cfg Config) int {
	const maxMessage, mostRecords, recordSize = 1000 << 10, 512, 256 // without names
	return max(min(maxMessage/(cfg.MaxName+recordSize), mostRecords), 1)
}

// historyOf is for how many sequences the ledger keeps digests.
func historyOf(c protocol.Config) int {
	const history = 4096
	switch {
	case c.History < 0:
		return 0
	case c.History > 0:
		return c.History
	}
	return history
}

// restart makes the machine of a node that has applied the log as far as led says.
func (c *coherence) restart(led *ledger.Ledger) error {
	m, err := protocol.New(c.cfg, led, c.now())
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	m.Step(c.now(), protocol.Draining{Members: *c.leavers.members.Load()}) // nothing follows from it before the node serves
	c.machine = m
	c.publishMembers()
	c.applied.Store(led.Sequence())
	c.epoch.Store(led.Epoch())
	return nil
}

// now is the machine's clock. It is monotonic, and does not stop while the machine
// runs.
func (c *coherence) now() time.Duration { return time.Since(c.started) }

// run is the goroutine. It ends when the node is closed.
func (c *coherence) run() {
	defer close(c.ended)
	ticker := time.NewTicker(c.tickEvery())
	defer ticker.Stop()
	for {
		select {
		case <-c.wake:
			c.work(mostBatches)
		case <-ticker.C:
			if c.submit(task{do: c.tick}) {
				c.work(mostBatches)
			}
		case <-c.ctx.Done():
			c.finish()
			return
		}
	}
}

func (c *coherence) tick() {
	c.step(protocol.Tick{})
	c.considerSnapshot(time.Now())
}

// work runs the machine on what has been submitted, unless someone else does: the
// goroutine, or who has submitted something and will wait for its end. Of batches it
// does not do more than most; the goroutine goes on.
func (c *coherence) work(most int) {
	if !c.enter() {
		return
	}
	for i := 1; ; i++ {
		batch := c.take()
		for i := range batch {
			c.handle(&batch[i])
			if i%mostGathered == mostGathered-1 {
				c.send()
			}
		}
		if len(batch) > 0 && c.gather() {
			continue // what they want shares the message
		}
		c.send()
		if c.exit(i >= most) {
			return
		}
	}
}

const (
	// manyAnswered is from how many answers on it pays to let those who got them go on
	// before the next message is sent.
	manyAnswered = 4
	// vainYields is how often in turn that is tried in vain.
	vainYields = 64
)

// gather lets those who were answered say what they want next, and tells whether anyone
// has. It does not wait for who has something else to do first.
func (c *coherence) gather() bool {
	answered := c.answered
	c.answered = 0
	if answered < manyAnswered {
		return false
	}
	came := int64(0)
	for vain := 0; vain < vainYields && came < int64(answered); vain++ {
		runtime.Gosched()
		if now := c.queued.Load(); now != came {
			came, vain = now, 0
		}
	}
	return came > 0
}

// mostBatches is how many batches the goroutine does before it looks at the clock, and
// mostHere how many someone else does, who has work of his own.
const (
	mostBatches = 64
	mostHere    = 2
)

// mostGathered is how many events share a message at most, so that a node that has to
// catch up goes on telling that it lives.
const mostGathered = 1024

// tickEvery is often enough for everything that the machine does by time.
func (c *coherence) tickEvery() time.Duration {
	cfg := c.n.cfg
	return max(min(cfg.Renew/4, cfg.FlushAfter/4, cfg.RecallEvery/2, 250*time.Millisecond), time.Millisecond)
}

func (c *coherence) handle(t *task) {
	if t.do != nil {
		t.do()
		return
	}
	if t.w != nil {
		c.waiters[t.w.op] = t.w
	}
	c.carryOutAll(c.machine.Gather(c.now(), t.event))
	switch e := t.event.(type) {
	case protocol.Delivered:
		c.delivered(e.Sequence, e.Message)
	case protocol.Skipped:
		c.delivered(e.Sequence, nil)
	case protocol.Cancel:
		delete(c.waiters, e.Op)
	}
}

// step gives the machine one event and carries out what it asks for.
func (c *coherence) step(e protocol.Event) { c.carryOutAll(c.machine.Step(c.now(), e)) }

// send publishes what the events since the last time have for the log.
func (c *coherence) send() { c.carryOutAll(c.machine.Send(c.now())) }

func (c *coherence) carryOutAll(effects []protocol.Effect) {
	for _, effect := range effects {
		c.carryOut(effect)
	}
}

// delivered retires the objects that pointers have left, and lets readers know how far
// the log is applied.
func (c *coherence) delivered(sequence uint64, m *ledger.Message) {
	left := c.table.takeLeft()
	for _, object := range left {
		c.unpin(object)
	}
	c.dropper.retire(left)
	c.unsaved++
	if m != nil {
		c.unsaved += max(len(m.Records)-1, 0)
		for i := range m.Records {
			if k := m.Records[i].Kind; k == ledger.Join || k == ledger.Leave || k == ledger.Expire {
				c.publishMembers()
				break
			}
		}
	}
	now := c.now()
	c.fresh.Store(int64(now - c.machine.Age(now)))
	c.applied.Store(sequence)
	c.news.notify()
}

// publishMembers lets readers know who is in the log.
func (c *coherence) publishMembers() {
	members := append([]ledger.Member(nil), c.machine.Ledger().Members()...)
	c.members.Store(&members)
	for _, m := range members {
		if m.ID == c.cfg.Node {
			c.number.Store(uint32(m.Number))
		}
	}
}

// member returns what the log said about a member when it last changed.
func (c *coherence) member(number uint16) (ledger.Member, bool) {
	list := *c.members.Load()
	if number == 0 || int(number) > len(list) {
		return ledger.Member{}, false
	}
	return list[number-1], true
}

// finish answers everyone who still waits, and keeps the machine for itself.
func (c *coherence) finish() {
	c.mu.Lock()
	c.closed = true
	for c.busy {
		c.mu.Unlock()
		<-c.wake // exit gives one
		c.mu.Lock()
	}
	c.busy = true
	rest := c.queue
	c.queue = nil
	c.mu.Unlock()
	for _, t := range rest {
		if t.w != nil {
			t.w.answer = nil
			t.w.done <- struct{}{}
		}
	}
	for _, w := range c.waiters {
		w.answer = nil
		w.done <- struct{}{}
	}
	clear(c.waiters)
}

// leave gives back what the node owns and ends its membership, and waits for that.
func (c *coherence) leave(ctx context.Context) error {
	if c.leaving.Swap(true) {
		return nil // once is enough: the log may be gone by now
	}
	c.event(protocol.Leave{})
	select {
	case <-c.left:
		return nil
	case <-c.ended:
		return ErrClosed
	case <-ctx.Done():
		var owned, dirty int
		c.call(func(m *protocol.Machine) { owned, dirty = m.Owned() })
		return fmt.Errorf("the log did not confirm that the node has left; %d names are still its own, %d of them not durable: %w",
			owned, dirty, ctx.Err())
	}
}

// stop ends the goroutine and the work beside it.
func (c *coherence) stop() {
	c.cancel()
	<-c.ended
	c.working.Wait()
}
