package eviction

import (
	"time"

	"cairn/tier"
)

// LRU evicts the leaf that was used longest ago, or one of those used nearly as long ago
// that has another copy; the package comment says more.
type LRU struct {
	cfg    Config
	links  chunks[link]
	groups []lists
	family family
	n      int
}

var _ Policy = (*LRU)(nil)

// link is a block's place in a list of its group. Neighbours are ids plus one; 0
// is none.
type link struct {
	kin
	older, newer uint32
	group        uint16
	in           list
}

// list says in which order of its group a block is.
type list uint8

const (
	parkedList list = iota // in none
	useList                // by use, with the leaves
	asideList              // parents that Victim has met
	listCount
)

// lists are the ids plus one of the oldest and the newest block in each list of a group.
type lists [listCount]struct{ oldest, newest uint32 }

// NewLRU is an empty policy, or tells what is wrong with cfg.
func NewLRU(cfg Config) (*LRU, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l := &LRU{cfg: cfg.withDefaults()}
	l.family = newFamily(func(id uint32) *kin { return &l.links.at(id).kin })
	return l, nil
}

// Insert implements Policy.
func (l *LRU) Insert(id uint32, b Block, _ time.Duration) {
	l.links.grow(id)
	for len(l.groups) <= b.Group {
		l.groups = append(l.groups, lists{})
	}
	*l.links.at(id) = link{group: uint16(b.Group)}
	l.family.join(id, &b)
	l.append(id, useList)
	l.n++
}

// Touch implements Policy.
func (l *LRU) Touch(id uint32, _ time.Duration) {
	l.unlink(id)
	l.append(id, useList)
}

// Victim implements Policy.
func (l *LRU) Victim(group int, _ time.Duration) (id uint32, ok bool) {
	if group >= len(l.groups) {
		return 0, false
	}
	g := &l.groups[group]
	oldest, needed := uint32(0), 0
	for at, looked := g[useList].oldest, 0; at != 0 && looked < l.cfg.Look; {
		n := l.links.at(at - 1)
		here, next := at, n.newer
		at = next
		if n.children > 0 {
			l.unlink(here - 1)
			l.append(here-1, asideList)
			continue
		}
		switch hint := l.cfg.Hint(here - 1); {
		case hint&tier.Copied != 0:
			return here - 1, true
		case hint&tier.Needed != 0 && needed < l.cfg.Look:
			needed++
			l.Touch(here-1, 0) // by the blocks that need it
			continue
		case oldest == 0:
			oldest = here
		}
		looked++
	}
	for _, of := range []uint32{oldest, g[useList].oldest, g[asideList].oldest} {
		if of != 0 {
			return of - 1, true
		}
	}
	return 0, false
}

// Evict implements Policy.
func (l *LRU) Evict(id uint32, _ time.Duration) { l.Remove(id) }

// Remove implements Policy. A parent that was set aside and has lost its last child takes
// the place of that, which was used after it.
func (l *LRU) Remove(id uint32) {
	n := l.links.at(id)
	parent, ok := l.family.leave(id)
	l.n--
	if ok {
		if p := l.links.at(parent); p.in == asideList && p.children == 0 {
			l.unlink(parent)
			if n.in == useList && n.group == p.group {
				l.replace(id, parent)
				return
			}
			l.append(parent, useList)
		}
	}
	l.unlink(id)
}

// Park implements Policy.
func (l *LRU) Park(id uint32) { l.unlink(id) }

// Unpark implements Policy: the block returns as the most recently used.
func (l *LRU) Unpark(id uint32) {
	if l.links.at(id).in == parkedList {
		l.append(id, useList)
	}
}

// Len implements Policy.
func (l *LRU) Len() int { return l.n }

// append makes a block that is in no list the newest of one.
func (l *LRU) append(id uint32, to list) {
	n := l.links.at(id)
	g := &l.groups[n.group][to]
	n.older, n.newer, n.in = g.newest, 0, to
	if g.newest != 0 {
		l.links.at(g.newest - 1).newer = id + 1
	} else {
		g.oldest = id + 1
	}
	g.newest = id + 1
}

// unlink takes a block out of its list, if it is in one.
func (l *LRU) unlink(id uint32) {
	n := l.links.at(id)
	if n.in == parkedList {
		return
	}
	l.join(n, n.older, n.newer)
	n.in = parkedList
}

// replace puts a block that is in no list into the place of another.
func (l *LRU) replace(old, id uint32) {
	o, n := l.links.at(old), l.links.at(id)
	n.older, n.newer, n.in = o.older, o.newer, o.in
	l.join(n, id+1, id+1)
	o.in = parkedList
}

// join makes older and newer, ids plus one, what comes next to n on either side: to the
// newer neighbour, and to the older one.
func (l *LRU) join(n *link, older, newer uint32) {
	g := &l.groups[n.group][n.in]
	if n.older != 0 {
		l.links.at(n.older - 1).newer = newer
	} else {
		g.oldest = newer
	}
	if n.newer != 0 {
		l.links.at(n.newer - 1).older = older
	} else {
		g.newest = older
	}
}
