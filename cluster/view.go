package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/node"
	"cairn/router"
	"cairn/wire"
)

// Defaults of [ViewConfig].
const (
	DefaultStashChanges = 4 << 20
	DefaultGapPatience  = 500 * time.Millisecond
	DefaultLoaders      = 8
	DefaultLoadTimeout  = time.Minute

	// memberWait is how long Await gives a node that nobody has heard of to
	// become known: the token may have been faster than the node's record.
	memberWait = time.Second
)

// ViewConfig says how a view is kept. The zero value of a field means its default.
type ViewConfig struct {
	// Self is the id of the node that looks, which Locate and Peer leave out;
	// empty in a process that is not a node.
	Self string
	// Index configures the index of blocks.
	Index router.IndexConfig
	// StashChanges bounds the changes, of all nodes together, that wait for missing ones
	// before them, 18 bytes each: what nodes announce while a snapshot of them is written
	// and loaded. Beyond it they are dropped, and a later snapshot has to cover them.
	// Default 4,194,304.
	StashChanges int
	// GapPatience is how long missing events may still arrive before the
	// node's snapshot is loaded. Default 500 ms.
	GapPatience time.Duration
	// Loaders is how many snapshots are loaded at a time. Default 8.
	Loaders int
	// LoadTimeout bounds one attempt to load one. Default 1 min.
	LoadTimeout time.Duration
	// Layout is used to make the stream when it is not there.
	Layout Layout
	// Logger gets what goes wrong. Default: that of the connection.
	Logger *slog.Logger
}

// Validate reports every problem of c at once.
func (c ViewConfig) Validate() error {
	errs := []error{c.Index.Validate(), c.Layout.Validate()}
	if c.Self != "" {
		errs = append(errs, ValidID(c.Self))
	}
	if c.StashChanges < 0 || c.GapPatience < 0 || c.Loaders < 0 || c.LoadTimeout < 0 {
		errs = append(errs, fmt.Errorf("cluster: StashChanges %d, GapPatience %v, Loaders %d, LoadTimeout %v: want none negative",
			c.StashChanges, c.GapPatience, c.Loaders, c.LoadTimeout))
	}
	return errors.Join(errs...)
}

// View is what one process knows of the cluster: its members, and which block
// is where. It follows the members' bucket and the stream of placement events, repairs
// what it has missed from snapshots, and trails the truth by a millisecond
// or so. It implements node.Peers. All methods may run in parallel.
type View struct {
	cfg     ViewConfig
	conn    *Conn
	index   *router.Index
	seed    maphash.Seed
	turn    atomic.Uint64
	members atomic.Pointer[map[string]Member] // replaced, never changed
	loaders chan struct{}                     // one per snapshot being loaded
	synced  chan struct{}                     // closed when the first members are known
	ready   chan struct{}
	stop    context.CancelFunc
	wg      sync.WaitGroup

	bad, old, repairs, failures, refused atomic.Uint64

	// mu guards what follows. The index may be changed under it; nothing blocks.
	mu        sync.Mutex
	sources   map[string]*source      // the members, by id
	stashed   int                     // changes in the stashes of all sources and strangers
	strangers map[incarnation]*source // who has sent events and is not a member yet
	past      map[string]pastMember   // who has been a member, by id
	changed   chan struct{}           // closed at the next change of the membership
	handlers  []func(MemberEvent)     // see OnMember
	closed    bool                    // no goroutine may be started any more
	caught    bool                    // all that was in the stream has been read
	waiting   map[*source]struct{}    // initial members that Ready waits for
}

// incarnation names one run of a node.
type incarnation struct {
	id     string
	number uint64
}

// pastMember is what is remembered of the newest incarnation of a node.
type pastMember struct {
	number     uint64
	generation uint64
}

var _ node.Peers = (*View)(nil)

// OpenView starts to follow the cluster, until Close; ctx bounds only the call,
// which does not wait for NATS: see [View.Ready].
func OpenView(ctx context.Context, conn *Conn, cfg ViewConfig) (*View, error) {
	if err := errors.Join(cfg.Validate(), ctx.Err()); err != nil {
		return nil, err
	}
	cfg.StashChanges = or(cfg.StashChanges, DefaultStashChanges)
	cfg.GapPatience = or(cfg.GapPatience, DefaultGapPatience)
	cfg.Loaders = or(cfg.Loaders, DefaultLoaders)
	cfg.LoadTimeout = or(cfg.LoadTimeout, DefaultLoadTimeout)
	if cfg.Logger == nil {
		cfg.Logger = conn.Log
	}
	index, err := router.NewIndex(cfg.Index)
	if err != nil {
		return nil, err
	}
	v := &View{
		cfg: cfg, conn: conn, index: index, seed: maphash.MakeSeed(),
		loaders: make(chan struct{}, cfg.Loaders), synced: make(chan struct{}), ready: make(chan struct{}),
		sources: map[string]*source{}, strangers: map[incarnation]*source{}, past: map[string]pastMember{},
		changed: make(chan struct{}), waiting: map[*source]struct{}{},
	}
	v.members.Store(&map[string]Member{})
	run, stop := context.WithCancel(context.Background())
	v.stop = stop
	v.wg.Go(func() { _ = WatchMembers(run, conn, func(e MemberEvent) { v.member(run, e) }) })
	v.wg.Go(func() { v.follow(run) })
	v.wg.Go(func() { v.tend(run) })
	return v, nil
}

// Close stops following; what the view knows stays readable and grows old.
func (v *View) Close() {
	v.stop()
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.wg.Wait()
}

// Index is the index that the view keeps, for a [router.Router]. The caller only
// asks it. Its incarnations are those of the members, or one more where a member
// has come back after it had been taken for gone.
func (v *View) Index() *router.Index { return v.index }

// Ready returns when all members of the time at which the view was opened are in
// it, with what they had announced by then; else with ctx's error.
func (v *View) Ready(ctx context.Context) error {
	select {
	case <-v.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cluster: view is not ready: %w", ctx.Err())
	}
}

// Members is the live members, by id. The caller owns the slice; what is in it is
// shared and must not be changed.
func (v *View) Members() []Member {
	m := *v.members.Load()
	return slices.SortedFunc(maps.Values(m), func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
}

// OnMember has handle called for each present member and for every change of the
// membership from now on, from one goroutine at a time. It must not block or call
// OnMember.
func (v *View) OnMember(handle func(MemberEvent)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.Members() {
		handle(MemberEvent{Change: MemberJoined, Member: m})
	}
	v.handlers = append(v.handlers, handle)
}

// Member is the live member with this id.
func (v *View) Member(id string) (Member, bool) {
	m, ok := (*v.members.Load())[id]
	return m, ok
}

// Peer implements node.Peers.
func (v *View) Peer(id string) (node.Holder, bool) {
	m, ok := v.Member(id)
	if !ok || id == v.cfg.Self {
		return node.Holder{}, false
	}
	return node.Holder{Node: m.ID, Addr: m.Addr}, true
}

// Others implements node.Peers.
func (v *View) Others() []node.Neighbour {
	var list []node.Neighbour
	for _, m := range v.Members() {
		if m.ID == v.cfg.Self {
			continue
		}
		info, _ := nodeInfo(m, m.Incarnation) // a label that cannot be read has been reported when the member came
		disk := slices.ContainsFunc(m.Tiers, func(t TierInfo) bool { return t.Tier == block.Disk })
		list = append(list, node.Neighbour{Node: m.ID, Addr: m.Addr, Draining: info.Draining, Disk: disk})
	}
	return list
}

// Locate implements node.Peers. The holders of a block are ordered by their
// fastest tier. Among equals the order changes from call to call, to spread the
// load, but is one order for all keys of a call, so that a batch goes to few peers.
func (v *View) Locate(keys []block.Key) [][]node.Holder {
	turn := v.turn.Add(1)
	out := make([][]node.Holder, len(keys))
	all := make([]node.Holder, 0, len(keys))
	var few [16]router.Holder
	for i, key := range keys {
		begin := len(all)
		for _, h := range v.index.Holders(key, few[:0]) {
			if h.Node != v.cfg.Self {
				all = append(all, node.Holder(h))
			}
		}
		holders := all[begin:len(all):len(all)]
		if len(holders) > 1 {
			slices.SortFunc(holders, func(a, b node.Holder) int { return v.better(turn, a, b) })
		}
		out[i] = holders
	}
	return out
}

// better orders holders: faster tier first, then by a number that is random in
// the node and the turn.
func (v *View) better(turn uint64, a, b node.Holder) int {
	ta, _ := a.Tiers.Fastest()
	tb, _ := b.Tiers.Fastest()
	if ta != tb {
		return cmp.Compare(ta, tb)
	}
	return cmp.Or(cmp.Compare(v.rank(turn, a.Node), v.rank(turn, b.Node)), cmp.Compare(a.Node, b.Node))
}

func (v *View) rank(turn uint64, id string) uint64 {
	h := (maphash.String(v.seed, id) ^ turn) * 0x9e3779b97f4a7c15
	return (h ^ h>>29) * 0xbf58476d1ce4e5b9
}

// Await implements node.Peers.
func (v *View) Await(ctx context.Context, t wire.Token) error {
	var patience <-chan time.Time
	for {
		v.mu.Lock()
		s, past, changed := v.sources[t.Node], v.past[t.Node], v.changed
		v.mu.Unlock()
		switch {
		case s != nil && s.number == t.Incarnation:
			if err := v.index.Await(ctx, t.Node, s.generation, t.Position); err != nil {
				return fmt.Errorf("cluster: await change %d of node %s: %w", t.Position, t.Node, err)
			}
			return nil
		case past.number >= t.Incarnation:
			return nil // gone
		}
		if patience == nil {
			patience = time.After(memberWait)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster: await node %s: %w", t.Node, ctx.Err())
		case <-patience:
			return nil
		case <-changed:
		}
	}
}

// ViewStats is the state of a view and its counters since it was opened.
type ViewStats struct {
	Ready   bool         `json:"ready"`
	Members int          `json:"members"`
	Behind  int          `json:"behind"`  // members of whom changes are missing right now
	Stashed int          `json:"stashed"` // changes that wait for those
	Bad     uint64       `json:"bad"`     // events that could not be read
	Old     uint64       `json:"old"`     // events of incarnations that are gone
	Repairs uint64       `json:"repairs"` // snapshots loaded
	Errors  uint64       `json:"errors"`  // attempts to load one that failed
	Refused uint64       `json:"refused"` // descriptions of members that the index did not take
	Index   router.Stats `json:"index"`
}

// Stats may be called at any time.
func (v *View) Stats() ViewStats {
	s := ViewStats{Members: len(*v.members.Load()), Bad: v.bad.Load(), Old: v.old.Load(), Repairs: v.repairs.Load(),
		Errors: v.failures.Load(), Refused: v.refused.Load(), Index: v.index.Stats()}
	select {
	case <-v.ready:
		s.Ready = true
	default:
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Stashed = v.stashed
	for _, src := range v.sources {
		if src.gap {
			s.Behind++
		}
	}
	return s
}
