package node

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/tier"
)

// counters count since the node started.
type counters struct {
	hits          [origins]atomic.Int64
	hitBytes      [origins]atomic.Int64
	misses        [missReasons]atomic.Int64
	puts          atomic.Int64
	putBytes      atomic.Int64
	putExisting   atomic.Int64
	putWaits      atomic.Int64
	readErrors    atomic.Int64
	peerErrors    atomic.Int64
	copiesKept    atomic.Int64
	offloaded     atomic.Int64
	offloadErrors atomic.Int64
	promoted      atomic.Int64
	promoteErrors atomic.Int64
	forgotten     atomic.Int64
	lost          atomic.Int64
	lostBytes     atomic.Int64
	followers     atomic.Int64
	invalidated   atomic.Int64
	recovered     atomic.Int64
	connections   atomic.Int64
	commands      atomic.Int64
	awaitTimeouts atomic.Int64
	taken         atomic.Int64
	takenBytes    atomic.Int64
}

type missReason uint8

const (
	missAbsent missReason = iota
	missCorrupt
	missPeer
	missFull
	missTimeout
	missOther

	missReasons
)

var missNames = [missReasons]string{"absent", "corrupt", "peer", "full", "timeout", "other"}

func (c *counters) hit(l *Loan) {
	c.hits[l.Origin].Add(1)
	c.hitBytes[l.Origin].Add(int64(l.Length))
}

func (c *counters) miss(err error) { c.misses[reasonOf(err)].Add(1) }

// reasonOf is the reason of a miss.
func reasonOf(err error) missReason {
	switch {
	case errors.Is(err, ErrPeer):
		return missPeer
	case errors.Is(err, tier.ErrNotFound):
		return missAbsent
	case errors.Is(err, tier.ErrCorrupt):
		return missCorrupt
	case errors.Is(err, tier.ErrFull), errors.Is(err, tier.ErrTooLarge), errors.Is(err, ErrPins):
		return missFull
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return missTimeout
	}
	return missOther
}

// TierStatus is one tier of a node. Sizes are in bytes.
type TierStatus struct {
	Tier      block.Tier `json:"tier"`
	Objects   int64      `json:"objects"`
	Sealed    int64      `json:"sealed"` // sealed blocks: what is announced to routers
	Bytes     int64      `json:"bytes"`
	Used      int64      `json:"used"`
	Capacity  int64      `json:"capacity"`
	Pinned    int64      `json:"pinned"`
	Kept      int64      `json:"kept,omitempty"`       // what names' objects occupy, which are never evicted
	KeptLimit int64      `json:"kept_limit,omitempty"` // and may occupy at most
	Evictions int64      `json:"evictions"`
	Corrupt   int64      `json:"corrupt"`
	Errors    int64      `json:"errors"`
	// Device is what the tier stores on, where it says so; Lost tells that it is gone.
	Device string `json:"device,omitempty"`
	Lost   bool   `json:"lost,omitempty"`
	// InFlight is the copies of batches under way, in bytes; Waits counts batches that had to
	// wait for others.
	InFlight int64 `json:"in_flight,omitempty"`
	Waits    int64 `json:"waits,omitempty"`
	Hits     int64 `json:"hits"`
	HitBytes int64 `json:"hit_bytes"`
}

// Status is a snapshot of a node for people and programs. Counters count since
// the node started.
type Status struct {
	Node          string           `json:"node"`
	Incarnation   uint64           `json:"incarnation"`
	UptimeSeconds float64          `json:"uptime_seconds"`
	Home          block.Tier       `json:"home"`
	Blocks        int64            `json:"blocks"`
	Names         int              `json:"names"`
	Dirty         int              `json:"dirty"`
	Tiers         []TierStatus     `json:"tiers"`
	Hits          int64            `json:"hits"`
	PeerHits      int64            `json:"peer_hits"`
	PeerHitBytes  int64            `json:"peer_hit_bytes"`
	Misses        int64            `json:"misses"`
	MissReasons   map[string]int64 `json:"miss_reasons"`
	Puts          int64            `json:"puts"`
	PutBytes      int64            `json:"put_bytes"`
	PutExisting   int64            `json:"put_existing"`
	PutWaits      int64            `json:"put_waits"`
	Offloaded     int64            `json:"offloaded"`
	OffloadErrors int64            `json:"offload_errors"`
	Promoted      int64            `json:"promoted"`
	PromoteErrors int64            `json:"promote_errors"`
	Demoted       DemotionStatus   `json:"demoted"`
	Recovered     int64            `json:"recovered"`
	Forgotten     int64            `json:"forgotten"`
	Followers     int64            `json:"followers"` // blocks dropped because one before them left
	// Lost are blocks that were not durable and went with a device, as far as is known from
	// everywhere; LostBytes their bytes.
	Lost        int64 `json:"lost"`
	LostBytes   int64 `json:"lost_bytes"`
	Invalidated int64 `json:"invalidated"`
	ReadErrors  int64 `json:"read_errors"`
	PeerErrors  int64 `json:"peer_errors"`
	// KeptCopies counts blocks of peers of which a copy was kept, because they were fetched
	// again soon.
	KeptCopies    int64           `json:"kept_copies"`
	Connections   int64           `json:"connections"`
	Commands      int64           `json:"commands"`
	AwaitTimeouts int64           `json:"await_timeouts"`
	Taken         int64           `json:"taken"` // blocks of nodes that drained
	TakenBytes    int64           `json:"taken_bytes"`
	Handover      HandoverStatus  `json:"handover"`
	Sequences     SequencesStatus `json:"sequences"`
	Prefetch      PrefetchStatus  `json:"prefetch"`
	Devices       DevicesStatus   `json:"devices"`
	// Coherency sums up the states of all blocks; only the answer to CAIRN.STAT has
	// it, because it takes a walk through the directory.
	Coherency *coherency.Stats `json:"coherency,omitempty"`
	// Coherence is this node's part in the protocol of names; only the answer to
	// CAIRN.STAT has it.
	Coherence *CoherenceStatus `json:"coherence,omitempty"`
	// Trouble is the last failure of the home tier; empty when there was none.
	Trouble string `json:"trouble,omitempty"`
}

// Status takes the snapshot.
func (n *Node) Status() Status {
	c := &n.counters
	s := Status{
		Node: n.cfg.ID, Incarnation: n.Incarnation(), UptimeSeconds: time.Since(n.started).Seconds(),
		Home: n.home, Blocks: n.dir.blocks.Load(), Names: n.coherence.live(""),
		PeerHits: c.hits[FromPeer].Load(), PeerHitBytes: c.hitBytes[FromPeer].Load(),
		MissReasons: map[string]int64{},
		Puts:        c.puts.Load(), PutBytes: c.putBytes.Load(), PutExisting: c.putExisting.Load(), PutWaits: c.putWaits.Load(),
		Offloaded: c.offloaded.Load(), OffloadErrors: c.offloadErrors.Load(),
		Promoted: c.promoted.Load(), PromoteErrors: c.promoteErrors.Load(), Demoted: n.demoter.status(), Lost: c.lost.Load(), LostBytes: c.lostBytes.Load(),
		Recovered: c.recovered.Load(), Forgotten: c.forgotten.Load(), Followers: c.followers.Load(),
		Invalidated: c.invalidated.Load(), ReadErrors: c.readErrors.Load(), PeerErrors: c.peerErrors.Load(), KeptCopies: c.copiesKept.Load(),
		Connections: c.connections.Load(), Commands: c.commands.Load(), AwaitTimeouts: c.awaitTimeouts.Load(),
		Sequences: n.sequences.status(), Prefetch: n.prefetches.status(), Devices: n.devices.status(),
	}
	s.Handover, s.Taken, s.TakenBytes = n.Handover(), c.taken.Load(), c.takenBytes.Load()
	n.offloadMu.Lock()
	s.Dirty = n.offloads.Pending() + n.offloads.InFlight()
	n.offloadMu.Unlock()
	for r := range missReasons {
		v := c.misses[r].Load()
		s.Misses += v
		s.MissReasons[missNames[r]] = v
	}
	for t := range block.Tier(block.Tiers) {
		store := n.stores[t]
		if store == nil {
			continue
		}
		st := store.Stats()
		hits := c.hits[t].Load()
		s.Hits += hits
		ts := TierStatus{
			Tier: t, Objects: st.Objects, Sealed: n.dir.held[t].Load(), Bytes: st.Bytes, Used: st.Used, Capacity: st.Capacity, Pinned: st.Pinned,
			Kept: st.Kept, KeptLimit: st.KeptLimit,
			Evictions: st.Evictions, Corrupt: st.Corrupt, Errors: st.Errors, Hits: hits, HitBytes: c.hitBytes[t].Load(),
			Lost: n.lost[t].Load(),
		}
		if d, ok := store.(tier.Describer); ok {
			ts.Device = d.Describe()
		}
		if f, ok := store.(tier.Flyer); ok {
			flights := f.Flights()
			ts.InFlight, ts.Waits = flights.Bytes, flights.Waits
		}
		s.Tiers = append(s.Tiers, ts)
	}
	s.Hits += s.PeerHits
	n.troubleMu.Lock()
	if n.trouble != nil {
		s.Trouble = n.trouble.Error()
	}
	n.troubleMu.Unlock()
	return s
}

// Coherency sums up the states of the blocks and what is owed to the home tier.
func (n *Node) Coherency() coherency.Stats {
	var sum coherency.Stats
	for shard := range shards {
		n.dir.scan(shard, func(_ block.Key, e entry) bool {
			sum.Add(e.state)
			return true
		})
	}
	n.offloadMu.Lock()
	defer n.offloadMu.Unlock()
	sum.AddQueue(n.offloads)
	return sum
}

// BlockStatus says where a block is, for people.
type BlockStatus struct {
	Key     block.Key      `json:"key"`
	Node    string         `json:"node"`
	Here    []block.Tier   `json:"here"`
	Durable bool           `json:"durable"`
	Length  uint32         `json:"length,omitempty"`
	Sum     uint64         `json:"sum,omitempty"`
	Parent  *block.Key     `json:"parent,omitempty"`
	Peers   []HolderStatus `json:"peers"`
}

// HolderStatus is a peer that holds a block.
type HolderStatus struct {
	Node  string       `json:"node"`
	Addr  string       `json:"addr"`
	Tiers []block.Tier `json:"tiers"`
}

// Explain says where this node believes the block to be.
func (n *Node) Explain(key block.Key) BlockStatus {
	b := BlockStatus{Key: key, Node: n.cfg.ID, Here: []block.Tier{}, Peers: []HolderStatus{}}
	if e, ok := n.dir.get(key); ok {
		for t := range e.state.Valid().All() {
			b.Here = append(b.Here, t)
		}
		b.Durable, b.Length, b.Sum = e.state.Durable(), e.length, e.sum
		if !e.parent.IsZero() {
			b.Parent = &e.parent
		}
	}
	for _, h := range n.peers.Locate([]block.Key{key})[0] {
		p := HolderStatus{Node: h.Node, Addr: h.Addr}
		for t := range h.Tiers.All() {
			p.Tiers = append(p.Tiers, t)
		}
		b.Peers = append(b.Peers, p)
	}
	return b
}
