package router

import (
	"errors"
	"fmt"
	"math"
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
	shards [shards]shard // first, so that each begins with a cache line
	config IndexConfig
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
