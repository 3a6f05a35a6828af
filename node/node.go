package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/protocol"
	"cairn/tier"
	"cairn/wire"
)

// Node is one machine's part of the cache. All methods may be called in
// parallel.
type Node struct {
	cfg     Config
	log     *slog.Logger
	started time.Time
	home    block.Tier // where blocks become durable: disk, or host without one
	host    tier.Memory
	slotted tier.Slotted            // host, or nil
	stores  [block.Tiers]tier.Store // nil: the node lacks this tier
	lost    [block.Tiers]atomic.Bool

	announcer Announcer
	peers     Peers
	coherence *coherence
	router    Router

	dir         directory
	announced   atomic.Uint64 // position of the newest announcement
	incarnation atomic.Uint64
	staging     flights
	fetches     fetches
	dialer      *dialer
	counters    counters
	commands    commandTable
	room        broadcast // blocks became evictable
	pubsub      *pubsub
	late        late
	handover    handover
	takes       takes
	sequences   *sequences
	prefetches  *prefetches
	devices     *devices
	lately      recent // fetched from peers

	promotes    bool // reads are counted for copies in GPU memory
	promotions  chan block.Key
	batchBytes  int // of host memory that a batch of copies from or to GPU memory keeps in place
	demoter     *demoter
	offloadWake chan struct{}

	// offloadMu guards offloads, offloadPins and refused.
	offloadMu   sync.Mutex
	offloads    *coherency.SyncQueue
	offloadPins map[block.Key]uint64 // the object of host memory that is pinned, for each in offloads
	refused     refused
	settling    chan struct{} // held by who tries the refused again

	// troubleMu guards trouble and troubleAt: the last failure of the home tier.
	troubleMu sync.Mutex
	trouble   error
	troubleAt time.Time

	stop    context.CancelFunc
	working sync.WaitGroup
}

// New makes a node of tiers and starts its background work. What the disk tier
// holds becomes part of the node at once, and is announced.
func New(cfg Config, tiers Tiers, ports Ports) (*Node, error) {
	cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if tiers.Host == nil || ports.Announcer == nil || ports.Peers == nil || ports.Coherence == nil || ports.Router == nil {
		return nil, errors.New("node: the host tier and all ports are required")
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, started: time.Now(),
		home: block.Host, host: tiers.Host, announcer: ports.Announcer, peers: ports.Peers, router: ports.Router,
		dialer:      newDialer(cfg),
		commands:    newCommands(),
		pubsub:      newPubsub(cfg.Namespaces),
		promotions:  make(chan block.Key, promotionQueue),
		offloadWake: make(chan struct{}, 1),
		offloads:    coherency.NewSyncQueue(coherency.WriteBack),
		offloadPins: make(map[block.Key]uint64),
		refused:     newRefused(),
		settling:    make(chan struct{}, 1),
	}
	n.fetches.room = &n.room
	n.takes.slots = make(chan struct{}, cfg.HandoverChains)
	n.handover.init(n)
	n.stores[block.Host] = tiers.Host
	if tiers.VRAM != nil {
		n.stores[block.VRAM] = tiers.VRAM
	}
	if tiers.Disk != nil {
		n.stores[block.Disk] = tiers.Disk
		n.home = block.Disk
	}
	n.slotted, _ = tiers.Host.(tier.Slotted)
	n.demoter = newDemoter(n)
	n.batchBytes = int(min(mostBatchBytes, n.host.Stats().Capacity/batchShare))
	n.promotes = n.stores[block.VRAM] != nil && cfg.PromoteAfter > 0
	n.incarnation.Store(cfg.Incarnation)
	n.dir.announce = n.announce
	var err error
	if n.coherence, err = newCoherence(n, ports.Coherence); err != nil {
		return nil, err
	}
	if err := n.recover(); err != nil {
		return nil, err
	}
	n.sequences = newSequences(n)
	n.advise()
	n.prefetches = newPrefetches(n)
	n.devices = newDevices(n)
	n.lately.within = cfg.KeepWithin
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	for range cfg.OffloadWorkers {
		n.working.Go(func() { n.offloadLoop(ctx) })
	}
	n.working.Go(func() { n.promoteLoop(ctx) })
	n.working.Go(func() { n.demoter.run(ctx) })
	n.working.Go(func() { n.sweepLoop(ctx) })
	n.working.Go(func() { n.prefetches.run(ctx) })
	n.working.Go(func() { n.coherence.dropper.run(ctx) })
	go n.coherence.run()
	n.working.Go(func() { n.handover.loop(ctx) })
	n.working.Go(func() { n.coherence.watchDraining(ctx) })
	return n, nil
}

// promotionQueue is how many promotions may wait; more are dropped, and asked
// for again by the block's next read.
const promotionQueue = 256

// recover takes what the disk tier kept from an earlier run into the directory.
func (n *Node) recover() error {
	disk := n.stores[block.Disk]
	if disk == nil {
		return nil
	}
	state, err := coherency.New(block.Disk, n.home)
	if err != nil {
		return fmt.Errorf("node: recover: %w", err)
	}
	var named []block.Descriptor
	disk.All(func(d block.Descriptor) bool {
		if d.Key.Named() {
			named = append(named, d)
		}
		if !isLabel(d) {
			n.dir.change(d.Key, func(e *entry, _ bool) { *e = newEntry(d, state) })
			n.counters.recovered.Add(1)
		}
		return true
	})
	for _, d := range named { // outside of All, which must not call the store
		n.coherence.homed.recover(context.Background(), d, disk)
	}
	return nil
}

func (n *Node) announce(changes []Change) uint64 {
	p := n.announcer.Announce(changes)
	for { // shards announce in parallel: keep the newest position
		old := n.announced.Load()
		if p <= old || n.announced.CompareAndSwap(old, p) {
			return p
		}
	}
}

// ID is the node's id.
func (n *Node) ID() string { return n.cfg.ID }

// Incarnation tells one life of the node in the cluster from another.
func (n *Node) Incarnation() uint64 { return n.incarnation.Load() }

// Reincarnate is called when the node's lease had lapsed and it joined again:
// the cluster takes it for a new member.
func (n *Node) Reincarnate(incarnation uint64) { n.incarnation.Store(incarnation) }

func (n *Node) token(position uint64) wire.Token {
	return wire.Token{Node: n.cfg.ID, Incarnation: n.Incarnation(), Position: position}
}

// Await returns when this node knows what the token's node announced up to the
// token, or that the node is gone; otherwise with ctx's error. What could not be
// waited for is not waited for again for a while: a node that has died with its
// last announcements unsent would hold up everyone until its lease ends.
func (n *Node) Await(ctx context.Context, t wire.Token) error {
	if t.Node == n.cfg.ID || n.late.excuses(t) {
		return nil
	}
	err := n.peers.Await(ctx, t)
	if errors.Is(err, context.DeadlineExceeded) {
		n.late.note(t)
	}
	return err
}

// Holdings calls yield for every sealed block of this node with the tiers that hold
// it, and returns a position in the node's stream of changes that the answer
// covers: changes after it may or may not be included, and applying them again
// does no harm.
func (n *Node) Holdings(yield func(block.Key, block.TierMask) bool) (position uint64) {
	position = n.announced.Load()
	for s := range shards {
		if !n.dir.scan(s, func(k block.Key, e entry) bool { return k.Named() || yield(k, e.state.Valid()) }) {
			break
		}
	}
	return position
}

// Ready returns when this node is a member in the coherence log and serves names.
func (n *Node) Ready(ctx context.Context) error {
	c := n.coherence
	for {
		news := c.news.wait()
		serving := false
		if !c.call(func(m *protocol.Machine) { serving = m.Serving(c.now()) }) {
			return ErrClosed
		}
		if serving {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			progress := "stopped"
			c.call(func(m *protocol.Machine) { progress = m.Progress(c.now()) })
			return fmt.Errorf("node: join the coherence log: %w (%s)", ctx.Err(), progress)
		}
	}
}

// Leave gives back the names that this node owns, with all that is written to them,
// and ends its membership in the coherence log. It waits for both; the log must still
// run. Afterwards the node serves no names.
func (n *Node) Leave(ctx context.Context) error {
	if err := n.coherence.leave(ctx); err != nil {
		return fmt.Errorf("node: leave: %w", err)
	}
	return nil
}

// Close closes the sequences, takes back what engines hold of GPU memory, leaves, makes
// dirty blocks durable, both at most for Config.CloseWait, and stops the background work.
// Nobody may be using the node any more. The tiers are left to the caller. What their home
// tier refuses is logged.
func (n *Node) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.CloseWait)
	defer cancel()
	n.sequences.close()
	n.devices.close()
	err := n.coherence.leave(ctx)
	flushErr := n.Flush(ctx)
	if errors.Is(flushErr, errOwed) {
		n.log.Warn("this node goes without what its home tier refused", "err", flushErr)
		flushErr = nil
	}
	err = errors.Join(err, flushErr)
	n.coherence.stop()
	n.stop()
	n.working.Wait()
	n.dialer.close()
	if err != nil {
		return fmt.Errorf("node: close: %w", err)
	}
	return nil
}
