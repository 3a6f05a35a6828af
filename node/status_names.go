package node

import (
	"fmt"

	"cairn/block"
	"cairn/coherency/protocol"
)

// CoherenceStatus is this node's part in the protocol of names. Counters count since
// the node started.
type CoherenceStatus struct {
	// Serving: the node is a member with a lease, which lasts for LeaseLeftMillis.
	Serving         bool   `json:"serving"`
	LeaseLeftMillis int64  `json:"lease_left_ms"`
	Incarnation     uint64 `json:"incarnation"`
	Members         int    `json:"members"` // live ones
	Applied         uint64 `json:"applied"` // sequence of the log
	Digest          string `json:"digest"`  // of the log up to there, the same at every node
	Epoch           uint64 `json:"epoch"`
	Names           int    `json:"names"`    // pointers, deleted ones included
	Owned           int    `json:"owned"`    // blocks that this node owns
	Dirty           int    `json:"dirty"`    // of these, not flushed
	Orphaned        int    `json:"orphaned"` // blocks that dead incarnations own
	Undecided       int    `json:"undecided"`
	Published       int64  `json:"published"` // messages of this node, each of which is a fence
	Replies         int64  `json:"replies"`   // writes, barriers and failed reads that have ended
	Conflicts       int64  `json:"conflicts"`
	Forwards        int64  `json:"forwards"`
	Losses          uint64 `json:"losses"` // declared since the log began
	LossesSeen      int64  `json:"losses_seen"`
	Barriers        int64  `json:"barriers"`
	Staged          int64  `json:"staged"`
	StageFailures   int64  `json:"stage_failures"`
	Arrived         int64  `json:"arrived"`
	Collected       int64  `json:"collected"`
	Rehomed         int64  `json:"rehomed"`
	Expired         int64  `json:"expired"`
	// Alarm says why the log cannot be trusted; empty when it can.
	Alarm string `json:"alarm,omitempty"`
}

// Coherence takes the snapshot. It walks through the blocks that the node owns.
func (n *Node) Coherence() CoherenceStatus {
	c := n.coherence
	k := &c.counters
	s := CoherenceStatus{
		Names: c.table.Len(), Undecided: c.homed.undecided(),
		Published: k.messages.Load(), Replies: k.replies.Load(), Conflicts: k.conflicts.Load(), Forwards: k.forwards.Load(),
		LossesSeen: k.losses.Load(), Barriers: k.passed.Load(), Staged: k.staged.Load(), StageFailures: k.stageFail.Load(),
		Arrived: k.arrived.Load(), Collected: k.collected.Load(), Rehomed: k.rehomed.Load(), Expired: k.expired.Load(),
	}
	if reason := c.alarm.Load(); reason != nil {
		s.Alarm = *reason
	}
	c.call(func(m *protocol.Machine) {
		led := m.Ledger()
		now := c.now()
		s.Serving, s.Incarnation, s.Applied = m.Serving(now), m.Incarnation(), led.Sequence()
		if s.Serving {
			s.LeaseLeftMillis = (n.cfg.Lease - m.Age(now)).Milliseconds()
		}
		s.Digest, s.Epoch, s.Losses = fmt.Sprintf("%016x", led.Digest()), led.Epoch(), led.Losses()
		s.Owned, s.Dirty = m.Owned()
		s.Orphaned = led.Orphaned()
		for _, mem := range led.Members() {
			if mem.Live {
				s.Members++
			}
		}
	})
	return s
}

// live is the number of names of a namespace that this node knows to be there; of all
// namespaces if it is "".
func (c *coherence) live(namespace string) (count int) {
	// In the goroutine the table and the overlay stand still.
	c.call(func(*protocol.Machine) {
		if namespace == "" {
			count = c.table.liveAll()
		} else {
			count = c.table.live(namespace)
		}
		c.overlay.each(func(key block.Key, v localValue) bool {
			if namespace != "" && v.namespace != namespace {
				return true
			}
			p, _ := c.table.lookup(key)
			switch was, is := !p.Value.Object.IsZero(), !v.value.Object.IsZero(); {
			case is && !was:
				count++
			case was && !is:
				count--
			}
			return true
		})
	})
	return count
}

// NameStatus says what a name is, and where its bytes are, for people.
type NameStatus struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Key       block.Key `json:"key"`
	Node      string    `json:"node"` // who says so
	Version   uint64    `json:"version"`
	Absent    bool      `json:"absent,omitempty"`
	Object    block.Key `json:"object"`
	Length    uint32    `json:"length"`
	Expires   int64     `json:"expires_ms,omitempty"`
	Homes     []string  `json:"homes"`
	// Owner, if any, writes without the log under the token.
	Owner      string `json:"owner,omitempty"`
	OwnerAlive bool   `json:"owner_alive,omitempty"`
	Token      uint64 `json:"token,omitempty"`
	// Dirty is the version that this node has written and the log does not have.
	Dirty uint64 `json:"dirty_version,omitempty"`
	// Here are the tiers of this node that hold the object of the newest version known here.
	Here []block.Tier `json:"here"`
}

// ExplainName says what this node knows of a name; false if it was never written.
func (n *Node) ExplainName(namespace string, name []byte) (NameStatus, bool) {
	c, key := n.coherence, block.NamedKey(namespace, name, 0)
	v, own := c.overlay.get(key)
	p, known := c.table.lookup(key)
	if !known && !own {
		return NameStatus{}, false
	}
	s := NameStatus{
		Namespace: namespace, Name: string(name), Key: key, Node: n.cfg.ID, Version: uint64(p.Version), Absent: p.Value.Object.IsZero(),
		Object: p.Value.Object, Length: p.Value.Length, Expires: p.Value.Expires, Homes: []string{}, Here: []block.Tier{}, Token: uint64(p.Token),
	}
	for _, h := range p.Value.Homes {
		if m, ok := c.member(h); ok {
			s.Homes = append(s.Homes, m.ID)
		}
	}
	if m, ok := c.member(p.Owner); ok && p.Owned() {
		s.Owner, s.OwnerAlive = m.ID, m.Live && m.Incarnation == p.OwnerIncarnation
	}
	object := p.Value.Object
	if own && v.version > p.Version {
		s.Dirty, object = uint64(v.version), v.value.Object
	}
	if e, ok := n.dir.get(object); ok {
		for t := range e.state.Valid().All() {
			s.Here = append(s.Here, t)
		}
	}
	return s, true
}
