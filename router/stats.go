package router

import (
	"slices"
	"strings"
)

type counters struct {
	events, ignored, gaps, changes, loads, staleLoads, retracted, doubts, learned uint64
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
