package router

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"cairn/block"
)

// Mode is how [Index.Match] looks for prefixes.
type Mode uint8

const (
	// Exact looks every block of the prefix up.
	Exact Mode = iota
	// Bisect takes for granted that whoever holds a block holds the blocks
	// before it (nodes advertise prefix-closed sets): between two blocks with the
	// same holders in the same tiers it takes the same for all, so a prompt costs
	// a few look-ups. An exact match audits one of [IndexConfig.AuditEvery] calls, and
	// repairs what it finds (audit.go).
	Bisect
)

// DefaultAuditEvery is the default of [IndexConfig.AuditEvery].
const DefaultAuditEvery = 1024

// IndexConfig says how an [Index] works. The zero value is usable.
type IndexConfig struct {
	// Mode is Exact unless said otherwise.
	Mode Mode
	// AuditEvery is how many calls of Match in mode Bisect have one among them that is
	// repeated exactly and compared; 0 means [DefaultAuditEvery], negative never.
	AuditEvery int
	// MaxBytes bounds the memory of the table, at least [LeastMaxBytes]; 0 means no
	// bound. Where it is reached, the blocks deepest in their sequences are forgotten, for
	// all nodes, and none as deep are taken in: prefixes stay whole and are taken for
	// shorter than they are. While a part of the table grows, it exists twice.
	MaxBytes int64
	// Layout is what nodes have to agree with, where they say anything: see
	// [Index.SetNode].
	Layout Layout
}

// LeastMaxBytes is the least bound of an index's memory.
const LeastMaxBytes = 1 << 20

// Validate reports every problem at once; each matches [ErrConfig].
func (c IndexConfig) Validate() error {
	var problems []error
	if c.Mode > Bisect {
		problems = append(problems, fmt.Errorf("%w: mode %d is neither Exact nor Bisect", ErrConfig, c.Mode))
	}
	if c.MaxBytes != 0 && c.MaxBytes < LeastMaxBytes {
		problems = append(problems, fmt.Errorf("%w: an index of at most %d bytes: want 0 for no bound, or at least %d", ErrConfig, c.MaxBytes, LeastMaxBytes))
	}
	return errors.Join(problems...)
}

// NodeInfo is what is to be known of a node besides its blocks.
type NodeInfo struct {
	// ID names the node; it is not empty.
	ID string `json:"node"`
	// Incarnation grows with every start of the node.
	Incarnation uint64 `json:"incarnation"`
	// Addr is host:port of the node's data plane.
	Addr string `json:"addr"`
	// PrefillTokensPerSecond is how fast the node computes; 0 means
	// [Config.PrefillTokensPerSecond].
	PrefillTokensPerSecond float64 `json:"prefill_tokens_per_second,omitempty"`
	// Labels are what requests choose nodes by. The index keeps the map: it must not be
	// changed any more.
	Labels map[string]string `json:"labels,omitempty"`
	// Draining says that no new request should go to the node. What it holds still
	// serves others.
	Draining bool `json:"draining,omitempty"`
	// Layout is that of the node's blocks, as far as it says so.
	Layout Layout `json:"layout,omitzero"`
}

// Holder is a node that holds a block.
type Holder struct {
	Node  string         `json:"node"`
	Addr  string         `json:"addr"`
	Tiers block.TierMask `json:"tiers"`
}

// Index knows which node holds which block. All methods may be called in
// parallel; look-ups take no lock.
type Index struct {
	config IndexConfig
	shards [shards]shard
	view   atomic.Pointer[view]

	matches    atomic.Uint64
	audits     atomic.Uint64
	violations atomic.Uint64

	// mu is held by the one who changes anything.
	mu       sync.Mutex
	nodes    map[string]*node
	removed  []string // ids of nodes that are gone, oldest first
	slots    slotPool
	sweeping sweeper
	memory   memory
	buf      []lane
	holes    []Hole // found and not told yet
	stats    counters
}

// view is what readers know of nodes. It is immutable; a change makes a new one.
type view struct {
	// list is the visible nodes, by id.
	list []visible
	// bySlot is where in list the node of a slot is; -1 when it is not visible.
	bySlot []int32
}

// visible is a node that answers may mention.
type visible struct {
	ID, Addr string // those of info, close to what is read along with them
	info     *NodeInfo
	slot     int32
	past     int32 // its second slot (learn.go); -1 when it has none
}

type counters struct {
	events, ignored, gaps, changes, loads, staleLoads, retracted, doubts, learned uint64
}

// NewIndex is an empty index.
func NewIndex(config IndexConfig) (*Index, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.AuditEvery == 0 {
		config.AuditEvery = DefaultAuditEvery
	}
	ix := &Index{config: config, nodes: map[string]*node{}, buf: make([]lane, 0, MaxNodes+1)}
	ix.memory.most, ix.memory.swept = config.MaxBytes, anyDepth
	ix.memory.limit.Store(anyDepth)
	for i := range ix.shards {
		ix.shards[i].memory = &ix.memory
		size := firstBuckets * math.Pow(growth, float64(i)/shards)
		ix.shards[i].publish(newTable(int(size)))
		ix.shards[i].size = size
	}
	ix.view.Store(&view{})
	return ix, nil
}

// Holders appends the nodes that hold the block to dst, in no particular order,
// and returns it. It allocates only when dst is too small.
func (ix *Index) Holders(key block.Key, dst []Holder) []Holder {
	// Most blocks have few holders; those with more than this cost an
	// allocation.
	var buf [64]lane
	before := len(dst)
	for {
		v := ix.view.Load()
		word, lanes := ix.read(fingerprint(&key), buf[:0])
		if !isSet(word) {
			lanes = inlineLanes(buf[:0], word)
		}
		for _, l := range lanes {
			if at := v.at(laneSlot(l)); at >= 0 {
				dst = append(dst, Holder{Node: v.list[at].ID, Addr: v.list[at].Addr, Tiers: laneTiers(l)})
			}
		}
		// With another view, a slot may belong to another node.
		if ix.view.Load() == v {
			return dst
		}
		dst = dst[:before]
	}
}

// HeldBesides tells whether a visible node other than the one with this id holds the
// block. Unlike Holders it is content with an answer about a view that has just changed.
func (ix *Index) HeldBesides(key block.Key, id string) bool {
	var buf [64]lane
	v := ix.view.Load()
	word, lanes := ix.read(fingerprint(&key), buf[:0])
	if !isSet(word) {
		lanes = inlineLanes(buf[:0], word)
	}
	for _, l := range lanes {
		if at := v.at(laneSlot(l)); at >= 0 && v.list[at].ID != id {
			return true
		}
	}
	return false
}

// Nodes is the visible nodes, by id. The caller owns the slice.
func (ix *Index) Nodes() []NodeInfo {
	v := ix.view.Load()
	out := make([]NodeInfo, len(v.list))
	for i, n := range v.list {
		out[i] = *n.info
	}
	return out
}

// NodeStats is what the index knows of one node.
type NodeStats struct {
	NodeInfo
	// Position is the number of the last change applied.
	Position uint64 `json:"position"`
	// Blocks is how many blocks the node holds in each tier; a block in two
	// tiers counts in both.
	Blocks TierBlocks `json:"blocks"`
	// Announced tells whether the node is visible: [Index.SetNode] named it.
	Announced bool `json:"announced"`
	// Learned tells whether Blocks are those of decisions rather than announcements.
	Learned bool `json:"learned,omitempty"`
}

// Stats are the size of an index and its counters since it was made.
type Stats struct {
	// Blocks is how many different blocks the table holds, with those of nodes that
	// are gone and not swept yet; Bytes is the table's memory.
	Blocks int   `json:"blocks"`
	Bytes  int64 `json:"bytes"`
	// MaxBytes is its bound, or 0. Because of it, Evicted blocks were taken out and
	// Refused changes not taken in; Depth is the position from which on no block is
	// kept, 0 while there is no such.
	MaxBytes int64  `json:"max_bytes,omitempty"`
	Evicted  uint64 `json:"evicted,omitempty"`
	Refused  uint64 `json:"refused,omitempty"`
	Depth    int    `json:"depth,omitempty"`
	// Nodes is by id.
	Nodes []NodeStats `json:"nodes"`
	// Events is how many were applied, Changes how many changes of these were new;
	// Ignored is how many events were old or of an old incarnation; Gaps is how many were refused.
	Events  uint64 `json:"events"`
	Changes uint64 `json:"changes"`
	Ignored uint64 `json:"ignored"`
	Gaps    uint64 `json:"gaps"`
	// Loads is how many snapshots were taken, StaleLoads how many came too late.
	Loads      uint64 `json:"loads"`
	StaleLoads uint64 `json:"stale_loads"`
	// Matches counts calls of Match, Audits those that were repeated exactly,
	// Violations the nodes that were found to hold a block and not one before it,
	// Retracted the blocks behind such holes that were taken out, Doubts the times that
	// a node's state was asked for anew because of it.
	Matches    uint64 `json:"matches"`
	Audits     uint64 `json:"audits"`
	Violations uint64 `json:"violations"`
	Retracted  uint64 `json:"retracted"`
	Doubts     uint64 `json:"doubts"`
	// Learned counts the blocks that were taken for granted ([Index.Learn]).
	Learned uint64 `json:"learned,omitempty"`
}

// Stats is a snapshot.
func (ix *Index) Stats() Stats {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	s := Stats{
		Events: ix.stats.events, Changes: ix.stats.changes, Ignored: ix.stats.ignored, Gaps: ix.stats.gaps,
		Loads: ix.stats.loads, StaleLoads: ix.stats.staleLoads,
		Matches: ix.matches.Load(), Audits: ix.audits.Load(), Violations: ix.violations.Load(),
		Retracted: ix.stats.retracted, Doubts: ix.stats.doubts, Learned: ix.stats.learned,
	}
	s.Bytes, s.MaxBytes, s.Evicted, s.Refused = ix.memory.bytes, ix.memory.most, ix.memory.evicted, ix.memory.refused
	s.Depth = depthFloor(ix.memory.limit.Load())
	for i := range ix.shards {
		s.Blocks += ix.shards[i].live
	}
	for _, n := range ix.nodes {
		if !n.gone {
			var info NodeInfo
			if n.info != nil {
				info = *n.info
			}
			info.ID, info.Incarnation = n.id, n.incarnation
			s.Nodes = append(s.Nodes, NodeStats{NodeInfo: info, Position: n.position, Blocks: n.known(), Announced: n.announced, Learned: n.learned})
		}
	}
	slices.SortFunc(s.Nodes, func(a, b NodeStats) int { return strings.Compare(a.ID, b.ID) })
	return s
}
