package cluster

import (
	"context"
	"time"

	"cairn/router"
)

const (
	// tendInterval is how often the view looks after its index.
	tendInterval = time.Second
	// doubtInterval is how often at most one node is asked for a snapshot because the
	// index and the rule of prefix-closed sets disagree: a node that breaks the rule would
	// be asked for ever.
	doubtInterval = time.Minute
)

// tend repairs what the index finds wrong with itself, until ctx ends.
func (v *View) tend(ctx context.Context) {
	asked := map[string]time.Time{}
	for wait(ctx, tendInterval) {
		for _, h := range v.index.Holes() {
			if now := time.Now(); now.Sub(asked[h.Node]) >= doubtInterval {
				asked[h.Node] = now
				v.doubt(h)
			}
		}
		if v.index.Relax() {
			// Each node's next heartbeat shows that its changes are wanted again.
			v.cfg.Logger.Info("the index has room again; asking all nodes for what it has forgotten")
		}
	}
}

// doubt has a fresh snapshot of the node loaded.
func (v *View) doubt(h router.Hole) {
	v.cfg.Logger.Warn("a node is known to hold blocks without the one before them; asking it for a snapshot",
		"member", h.Node, "missing", h.Key, "behind", h.Behind)
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.sources[h.Node]
	if s == nil || s.generation != h.Incarnation {
		return
	}
	_, position, _ := v.index.Position(h.Node)
	v.index.Doubt(h.Node, h.Incarnation)
	s.floor = max(s.floor, position)
	v.mind(s)
}
