package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/node"
	"cairn/router"

	"github.com/nats-io/nats.go/jetstream"
)

// Defaults of [PublisherConfig].
const (
	DefaultBatchChanges     = 1024
	DefaultBatchDelay       = time.Millisecond
	DefaultQueueChanges     = 1 << 20
	DefaultPlaceInFlight    = 4
	DefaultPlaceAckTimeout  = 2 * time.Second
	DefaultPlaceHeartbeat   = 5 * time.Second
	DefaultSnapshotChanges  = 1 << 16
	DefaultSnapshotInterval = 10 * time.Minute
	DefaultSnapshotTimeout  = time.Minute
	DefaultSnapshotRetire   = 24 * time.Hour

	// maxBatchChanges keeps an event whose every change is a run of its own
	// under MaxPlacementBytes.
	maxBatchChanges = 12 << 10
)

// PublisherConfig says how a node tells the others what it holds. The zero
// value of a field means its default.
type PublisherConfig struct {
	// Node is the id of this node; required.
	Node string
	// Incarnation of this node, not zero; required.
	Incarnation uint64
	// BatchChanges is the most changes that go into one event, at most 12,288.
	// A change takes about 35 bytes. Default 1,024.
	BatchChanges int
	// BatchDelay is how long a change may wait for others to share its event.
	// Default 1 ms.
	BatchDelay time.Duration
	// QueueChanges bounds the changes that wait for NATS, 18 bytes each. Beyond
	// it they are dropped and a snapshot takes their place. Default 1,048,576.
	QueueChanges int
	// InFlight is how many events may wait for their acknowledgement. Default 4.
	InFlight int
	// AckTimeout is how long one of them may take before it is sent again.
	// Default 2 s.
	AckTimeout time.Duration
	// Heartbeat is how often an idle node repeats its position, from which
	// readers learn that they have missed something. Default 5 s.
	Heartbeat time.Duration
	// SnapshotChanges and SnapshotInterval: a snapshot is written after that many
	// changes, or half as many as the node holds blocks if that is more, and after that
	// time when there were any. Defaults 65,536 and 10 min.
	SnapshotChanges  int
	SnapshotInterval time.Duration
	// SnapshotTimeout bounds writing and verifying one. Default 1 min.
	SnapshotTimeout time.Duration
	// SnapshotRetire is the age at which snapshots of nodes that have gone for
	// good are deleted; a live node renews its own well before. Default 24 h.
	SnapshotRetire time.Duration
	// Layout is used to make the stream again when NATS has lost it (it is kept in
	// memory).
	Layout Layout
	// Logger gets what goes wrong. Default: that of the connection.
	Logger *slog.Logger
}

// Validate reports every problem of c at once.
func (c PublisherConfig) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("cluster: "+format, args...)) }
	errs = append(errs, ValidID(c.Node), c.Layout.Validate())
	if c.Incarnation == 0 {
		bad("Incarnation is zero: want a random number")
	}
	if c.BatchChanges < 0 || c.BatchChanges > maxBatchChanges {
		bad("BatchChanges %d: want 1 to %d", c.BatchChanges, maxBatchChanges)
	}
	for name, n := range map[string]int{"QueueChanges": c.QueueChanges, "InFlight": c.InFlight, "SnapshotChanges": c.SnapshotChanges} {
		if n < 0 {
			bad("%s %d is negative", name, n)
		}
	}
	for name, d := range map[string]time.Duration{"BatchDelay": c.BatchDelay, "AckTimeout": c.AckTimeout, "Heartbeat": c.Heartbeat,
		"SnapshotInterval": c.SnapshotInterval, "SnapshotTimeout": c.SnapshotTimeout, "SnapshotRetire": c.SnapshotRetire} {
		if d < 0 {
			bad("%s %v is negative", name, d)
		}
	}
	return errors.Join(errs...)
}

func (c PublisherConfig) withDefaults(log *slog.Logger) PublisherConfig {
	c.BatchChanges = or(c.BatchChanges, DefaultBatchChanges)
	c.BatchDelay = or(c.BatchDelay, DefaultBatchDelay)
	c.QueueChanges = or(c.QueueChanges, DefaultQueueChanges)
	c.InFlight = or(c.InFlight, DefaultPlaceInFlight)
	c.AckTimeout = or(c.AckTimeout, DefaultPlaceAckTimeout)
	c.Heartbeat = or(c.Heartbeat, DefaultPlaceHeartbeat)
	c.SnapshotChanges = or(c.SnapshotChanges, DefaultSnapshotChanges)
	c.SnapshotInterval = or(c.SnapshotInterval, DefaultSnapshotInterval)
	c.SnapshotTimeout = or(c.SnapshotTimeout, DefaultSnapshotTimeout)
	c.SnapshotRetire = or(c.SnapshotRetire, DefaultSnapshotRetire)
	if c.Logger == nil {
		c.Logger = log
	}
	return c
}

// PublisherStats counts since the publisher was made.
type PublisherStats struct {
	Position   uint64 `json:"position"`   // of the newest change
	Queued     int    `json:"queued"`     // changes that wait
	Events     uint64 `json:"events"`     // events acknowledged
	Changes    uint64 `json:"changes"`    // changes acknowledged
	Resent     uint64 `json:"resent"`     // events sent again after an unknown outcome
	Collapses  uint64 `json:"collapses"`  // times the queue gave way to a snapshot
	Snapshots  uint64 `json:"snapshots"`  // snapshots written and verified
	SnapErrors uint64 `json:"snapErrors"` // snapshots that could not be written
}

// Publisher publishes what this node holds: changes as numbered events, and
// snapshots of the whole from time to time. It implements node.Announcer. All
// methods may run in parallel.
//
// One subject carries all tiers of a node, because the order of its changes
// counts over all of them: a block that moves from host to disk is two changes.
type Publisher struct {
	cfg     PublisherConfig
	conn    *Conn
	js      jetstream.JetStream // with its own time-out for acknowledgements
	subject string
	wake    chan struct{} // something for publishLoop to do; capacity 1
	snaps   *snapshotter

	beat atomic.Bool // a heartbeat is due now

	events, changes, resent, collapses atomic.Uint64

	// mu guards what follows. Announce holds it for a copy only.
	mu          sync.Mutex
	incarnation uint64
	position    uint64          // of the newest change
	queue       []router.Change // the changes up to position
	spare       []router.Change // emptied queue, to be used again
	taken       int             // changes that the loop has taken and not sent
	began       uint64          // position that every snapshot covers: see begin
	collapsed   bool            // changes were dropped: nothing is queued until a snapshot is due
}

var _ node.Announcer = (*Publisher)(nil)

// NewPublisher makes a publisher; changes are queued until [Publisher.Run].
func NewPublisher(conn *Conn, cfg PublisherConfig) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults(conn.Log)
	js, err := jetstream.New(conn.NC, jetstream.WithPublishAsyncTimeout(cfg.AckTimeout))
	if err != nil {
		return nil, fmt.Errorf("cluster: placement: %w", err)
	}
	p := &Publisher{cfg: cfg, conn: conn, js: js, subject: PlaceSubject(cfg.Node, "all"),
		wake: make(chan struct{}, 1), incarnation: cfg.Incarnation}
	p.snaps = newSnapshotter(p)
	return p, nil
}

// Announce implements node.Announcer. It copies the changes and returns at
// once; with none it returns the present position.
func (p *Publisher) Announce(changes []node.Change) (position uint64) {
	p.mu.Lock()
	p.position += uint64(len(changes))
	position = p.position
	if len(changes) > 0 && !p.collapsed {
		if p.taken+len(p.queue)+len(changes) > p.cfg.QueueChanges {
			p.collapsed = true
			p.collapses.Add(1)
			p.queue = p.queue[:0]
		} else {
			for _, c := range changes {
				p.queue = append(p.queue, router.Change(c))
			}
		}
	}
	p.mu.Unlock()
	if len(changes) > 0 {
		p.poke()
	}
	return position
}

func (p *Publisher) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Reincarnate goes on under a new incarnation, after a lease has lapsed. The
// numbers of the changes go on; a snapshot under the new incarnation
// is written.
func (p *Publisher) Reincarnate(incarnation uint64) {
	p.mu.Lock()
	p.incarnation = incarnation
	p.mu.Unlock()
	p.snaps.ask()
	p.beat.Store(true)
	p.poke()
}

// Snapshot returns the newest verified snapshot of this incarnation, after writing a
// fresh one if that does not cover position atLeast. Callers share the writing.
func (p *Publisher) Snapshot(ctx context.Context, atLeast uint64) (SnapshotInfo, error) {
	return p.snaps.ensure(ctx, atLeast)
}

// Stats may be called at any time.
func (p *Publisher) Stats() PublisherStats {
	p.mu.Lock()
	s := PublisherStats{Position: p.position, Queued: len(p.queue) + p.taken}
	p.mu.Unlock()
	s.Events, s.Changes, s.Resent = p.events.Load(), p.changes.Load(), p.resent.Load()
	s.Collapses = p.collapses.Load()
	s.Snapshots, s.SnapErrors = p.snaps.written.Load(), p.snaps.failed.Load()
	return s
}

func (p *Publisher) at() (incarnation, position uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.incarnation, p.position
}

// Run publishes until ctx ends. walk yields every block that this node holds.
// It first writes a snapshot, so that a node that starts with a full disk
// announces its blocks. What is queued when ctx ends is not sent: the node is
// leaving, and its blocks with it.
func (p *Publisher) Run(ctx context.Context, walk Walk) error {
	p.begin(walk)
	var done sync.WaitGroup
	done.Go(func() { p.snaps.run(ctx, walk) })
	p.publishLoop(ctx)
	done.Wait()
	return ctx.Err()
}

// begin leaves a number unused for the blocks that a node holds before it has announced
// anything: an earlier run left them on its disk. Readers find it missing, and load the
// snapshot, also those who were there before the node.
func (p *Publisher) begin(walk Walk) {
	if _, position := p.at(); position > 0 {
		return
	}
	holds := false
	walk(func(block.Key, block.TierMask) bool { holds = true; return false })
	if !holds {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = p.queue[:0] // what has been announced meanwhile is in the snapshot too
	p.position = max(p.position, 1)
	p.began = p.position
}
