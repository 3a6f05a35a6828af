package protocol

import (
	"errors"
	"fmt"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
)

// Config configures a Machine. The zero value of each field but Node and Incarnation
// stands for its default.
type Config struct {
	// Node is the node's name. Required.
	Node string
	// Incarnation must be higher than any that this node ever had. The machine counts
	// on from it, by one for each lapse of the lease.
	Incarnation uint64
	// Durable: this node can be a home.
	Durable bool

	// Lease is how long a message that the node has sent makes it a member; default 15 s.
	Lease time.Duration
	// Renew is how often it sends one at least; default Lease/5.
	Renew time.Duration
	// Drift is by how much more than the lease others wait before they expire a
	// member, in parts per thousand; default 50. It must be more than the clocks'
	// rates differ.
	Drift int
	// Flights is how many messages may be on their way at once; default 3.
	Flights int
	// Records is the most records in one message; default 512.
	Records int
	// FlushAfter is for how long a write-back write may stay unflushed; default 1 s.
	FlushAfter time.Duration
	// Flushes is how many flushes are on their way at once at most; default 64.
	Flushes int
	// IdleAfter is after how long without a write an owner gives a block back;
	// default 10 s.
	IdleAfter time.Duration
	// Yield is for how long a node that has given a block back, because another wants to
	// commit a write, leaves it to that one; default Renew/30. It should be more than
	// it takes to stage an object and to commit it.
	Yield time.Duration
	// RecallEvery is how often a node that waits for an owner asks again; default Renew.
	RecallEvery time.Duration
	// RevokeAfter is how long a dead owner's node may take, once it is a member again,
	// to offer what it has not flushed; and after how long blocks that nobody asks
	// for are taken from dead owners. Default Lease.
	RevokeAfter time.Duration
	// RehomeAfter is for how long a home may be away before its objects are copied to
	// others, and after how long that is tried again; default 2 × Lease. For members
	// that have joined it is looked another 2 × Lease later what has too few homes: what
	// was staged before everyone knew them is decided by then.
	RehomeAfter time.Duration
	// RehomeEvery is how often all blocks are looked through for homes that they lack, for
	// whatever reason that was not seen; 0: never.
	RehomeEvery time.Duration
	// History is for how many sequences digests are compared; default 4096. Negative:
	// none.
	History int
}

func (c *Config) withDefaults() {
	setDefault(&c.Lease, 15*time.Second)
	setDefault(&c.Renew, c.Lease/5)
	setDefault(&c.Drift, 50)
	setDefault(&c.Flights, 3)
	setDefault(&c.Records, 512)
	setDefault(&c.FlushAfter, time.Second)
	setDefault(&c.Flushes, 64)
	setDefault(&c.IdleAfter, 10*time.Second)
	setDefault(&c.Yield, c.Renew/30)
	setDefault(&c.RecallEvery, c.Renew)
	setDefault(&c.RevokeAfter, c.Lease)
	setDefault(&c.RehomeAfter, 2*c.Lease)
	setDefault(&c.History, 4096)
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	c.withDefaults()
	var errs []error
	if c.Node == "" || c.Incarnation == 0 {
		errs = append(errs, errors.New("a node and an incarnation are required"))
	}
	if c.Renew*2 > c.Lease {
		errs = append(errs, fmt.Errorf("renew %v: want at most half of the lease, %v", c.Renew, c.Lease))
	}
	if c.Records > ledger.MostRecords {
		errs = append(errs, fmt.Errorf("records %d: want at most %d", c.Records, ledger.MostRecords))
	}
	for _, d := range []time.Duration{c.Lease, c.Renew, c.FlushAfter, c.IdleAfter, c.Yield, c.RecallEvery, c.RevokeAfter, c.RehomeAfter} {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("%v: times must be positive", d))
		}
	}
	if c.Drift < 0 || c.Flights < 1 || c.Records < 1 || c.Flushes < 1 {
		errs = append(errs, errors.New("drift, flights, records and flushes must be positive"))
	}
	if c.RehomeEvery < 0 {
		errs = append(errs, fmt.Errorf("look for homes every %v: want a positive time, or 0 for never", c.RehomeEvery))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("coherency: configuration: %w", err)
	}
	return nil
}

// phase is how far a machine is in the life of its node.
type phase uint8

const (
	starting phase = iota // reads the log up to its end
	joining               // its Join is on its way, for the first time or after a lapse
	serving               // a member, with a lease
	left                  // no member any more
	stopped               // the log cannot be trusted
)

func (p phase) String() string {
	return [...]string{"starting", "joining", "a member", "has left", "stopped"}[p]
}

// Machine is one node's part in the protocol. One goroutine uses it.
type Machine struct {
	cfg         Config
	led         *ledger.Ledger
	now         time.Duration // of the event that is being handled
	phase       phase
	away        bool // it is to give back what it owns, and to leave
	incarnation uint64
	number      uint16 // as a member; 0 before the first Join

	// leased is until when this node may act as a member, confirmed when it sent the
	// last message that came back.
	leased, confirmed time.Duration
	members           []watched     // by number-1
	orphans           time.Duration // since when there are blocks that dead incarnations own
	homeless          time.Duration // when blocks that lack a home are looked for again; 0: no need
	draining          []string      // members that are about to leave
	swept             time.Duration // when all homes were last looked after for no reason
	asked             attempts      // records that are repeated until they are no longer needed

	out      []entry  // records that wait for a message
	usual    int      // records that the last message with any had
	readers  []Op     // reads that wait for a fence
	flights  []flight // messages on their way, in order
	sent     uint64   // number of the last message of this incarnation
	lastSent time.Duration
	owes     bool // a message is due, with or without records

	ops       map[Op]*op
	early     []Op // operations that came before this node was a member
	blocks    map[block.Key]*local
	dirty     []due            // owned blocks with unflushed writes, oldest first
	idle      []due            // owned blocks, by when they may be given back
	contended []block.Key      // blocks whose owner is asked to give them back, or that this node has left to others
	flushes   int              // flushes that are being staged or decided
	flushOps  map[Op]block.Key // of those that are being staged
	inner     Op               // the last internal Op

	sessions []Op // reads that wait for a sequence
	unsealed []Op // operations that wait until all members have applied something
	barriers []Op // operations that wait for a barrier
	acking   bool // the open barrier is not acknowledged yet
	musts    int  // blocks that the open barrier waits for
	staged   map[block.Key][]stagedObject

	effects []Effect
	moves   []Moved     // that effects point to
	woken   []block.Key // blocks to go on with when the message at hand is applied
}

// watched is what this node knows about the life of another.
type watched struct {
	heard   time.Duration // when its last message was delivered here
	died    time.Duration // when its incarnation was seen to end
	rehomed bool          // homes have been looked after since
}

// due says when a block is to be looked at.
type due struct {
	key   block.Key
	token ledger.Version // of the ownership that it is about
	at    time.Duration
}

// New makes the machine of a node that has applied the log as far as led says. now is
// the node's monotonic clock, from any origin.
func New(cfg Config, led *ledger.Ledger, now time.Duration) (*Machine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.withDefaults()
	m := &Machine{
		cfg: cfg, led: led, now: now, swept: now, incarnation: cfg.Incarnation,
		ops: map[Op]*op{}, blocks: map[block.Key]*local{}, flushOps: map[Op]block.Key{}, staged: map[block.Key][]stagedObject{},
	}
	m.grow()
	return m, nil
}

// Step handles one event at the time now, which never goes back, and returns what
// has to be done. The slice is the machine's, until the next Step.
func (m *Machine) Step(now time.Duration, ev Event) []Effect {
	m.begin(now)
	m.handle(ev)
	m.publish()
	return m.effects
}

// Gather is Step for one of many events that are there at once: what it has for the
// log waits for Send, or the next Step, so that all of them share messages.
func (m *Machine) Gather(now time.Duration, ev Event) []Effect {
	m.begin(now)
	m.handle(ev)
	return m.effects
}

// Send ends what Gather has begun. Its slice is as that of Step.
func (m *Machine) Send(now time.Duration) []Effect {
	m.begin(now)
	m.publish()
	return m.effects
}

func (m *Machine) begin(now time.Duration) {
	clear(m.effects)
	m.effects = m.effects[:0]
	m.moves = m.moves[:0]
	m.now = max(m.now, now)
	m.lapse()
}

func (m *Machine) handle(ev Event) {
	switch e := ev.(type) {
	case Tick:
		m.tick()
	case Delivered:
		m.deliver(e)
	case Skipped:
		m.led.Skip(e.Sequence, e.Sum)
	case CaughtUp:
		m.join()
	case Write:
		m.write(&e)
	case *Write:
		m.write(e)
	case Read:
		m.read(e)
	case Cancel:
		m.cancel(e.Op)
	case Staged:
		m.stagingEnded(e)
	case Arrived:
		m.arrived(e)
	case Found:
		m.found(e)
	case Check:
		m.check(e)
	case Replicated:
		m.replicated(e)
	case Barrier:
		m.startBarrier(e.Op)
	case Clear:
		m.clear(e)
	case Gone:
		m.gone(e)
	case Leave:
		m.leave()
	case Draining:
		m.drain(e)
	case Stop:
		m.stop(e.Err)
	}
}

func (m *Machine) do(e Effect) { m.effects = append(m.effects, e) }

// Ledger is the state of the log as far as it was delivered.
func (m *Machine) Ledger() *ledger.Ledger { return m.led }

// Serving tells whether the node is a member with a lease at the time now.
func (m *Machine) Serving(now time.Duration) bool {
	return m.phase == serving && now < m.leased
}

// Progress says for people how far the node has come on its way into the log.
func (m *Machine) Progress(now time.Duration) string {
	if m.phase == starting {
		return fmt.Sprintf("still reading the log, at %d", m.led.Sequence())
	}
	return fmt.Sprintf("%s as incarnation %d, log read to %d, %d messages on their way, the last sent %v ago",
		m.phase, m.incarnation, m.led.Sequence(), len(m.flights), (now - m.lastSent).Round(time.Millisecond))
}

// Incarnation is the present one.
func (m *Machine) Incarnation() uint64 { return m.incarnation }

// Age is how old what the ledger says may be at the time now.
func (m *Machine) Age(now time.Duration) time.Duration { return now - m.confirmed }

// Owned is how many blocks this node owns, and Dirty how many of them have writes that
// are not flushed.
func (m *Machine) Owned() (owned, dirty int) {
	for _, b := range m.blocks {
		if b.token != 0 {
			owned++
			if b.version > b.base {
				dirty++
			}
		}
	}
	return owned, dirty
}
