package eviction

import "time"

// LRU evicts the block that was used longest ago. Callers that touch the deepest block
// of a request first thereby evict leaves before their parents.
type LRU struct {
	links  chunks[link]
	groups []ends
	n      int
}

var _ Policy = (*LRU)(nil)

// link is a block's place in the order of its group. Neighbours are ids plus one; 0
// is none.
type link struct {
	older, newer uint32
	group        uint16
	parked       bool
}

// ends are the ids plus one of the oldest and the newest block of a group.
type ends struct{ oldest, newest uint32 }

// NewLRU is an empty policy.
func NewLRU() *LRU { return &LRU{} }

// Insert implements Policy.
func (l *LRU) Insert(id uint32, b Block, _ time.Duration) {
	l.links.grow(id)
	for len(l.groups) <= b.Group {
		l.groups = append(l.groups, ends{})
	}
	*l.links.at(id) = link{group: uint16(b.Group)}
	l.append(id)
	l.n++
}

// Touch implements Policy.
func (l *LRU) Touch(id uint32, _ time.Duration) {
	l.unlink(id)
	l.append(id)
}

// Victim implements Policy.
func (l *LRU) Victim(group int, _ time.Duration) (id uint32, ok bool) {
	if group >= len(l.groups) || l.groups[group].oldest == 0 {
		return 0, false
	}
	return l.groups[group].oldest - 1, true
}

// Evict implements Policy.
func (l *LRU) Evict(id uint32, _ time.Duration) { l.Remove(id) }

// Remove implements Policy.
func (l *LRU) Remove(id uint32) {
	l.unlink(id)
	l.n--
}

// Park implements Policy.
func (l *LRU) Park(id uint32) {
	l.unlink(id)
	l.links.at(id).parked = true
}

// Unpark implements Policy: the block returns as the most recently used.
func (l *LRU) Unpark(id uint32) {
	if l.links.at(id).parked {
		l.append(id)
	}
}

// SetCopied implements Policy; it makes no difference.
func (l *LRU) SetCopied(uint32, bool) {}

// Len implements Policy.
func (l *LRU) Len() int { return l.n }

func (l *LRU) append(id uint32) {
	n := l.links.at(id)
	g := &l.groups[n.group]
	n.older, n.newer, n.parked = g.newest, 0, false
	if g.newest != 0 {
		l.links.at(g.newest - 1).newer = id + 1
	} else {
		g.oldest = id + 1
	}
	g.newest = id + 1
}

// unlink takes a block out of its order, if it is in it.
func (l *LRU) unlink(id uint32) {
	n := l.links.at(id)
	if n.parked {
		return
	}
	g := &l.groups[n.group]
	if n.older != 0 {
		l.links.at(n.older - 1).newer = n.newer
	} else {
		g.oldest = n.newer
	}
	if n.newer != 0 {
		l.links.at(n.newer - 1).older = n.older
	} else {
		g.newest = n.older
	}
}
