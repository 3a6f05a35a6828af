package node

import (
	"sync"

	"cairn/block"
)

// families knows which blocks of the directory follow which in their sequences, so that
// none is forgotten while others need it. Only blocks of which the directory knows the
// parent are in it; the parent may be missing, or come later. Like the directory it holds
// no Go pointer per block.
type families [shards]family

// family is the children of the parents of one shard.
type family struct {
	// mu comes after the lock of a directory shard, and nothing after it.
	mu sync.Mutex
	// newest is, of a parent, the child that came last.
	newest map[block.Key]block.Key
	// siblings are the neighbours of a child that is not alone, by age.
	siblings map[block.Key]siblings
}

// siblings are the next children of the same parent, zero for none.
type siblings struct{ older, newer block.Key }

// follows tells whether a block has a block before it: one that claims to come after it
// is none, so that no line of parents ends where it began.
func follows(key, parent block.Key) bool {
	return !parent.IsZero() && !key.Named() && parent.Position() < key.Position()
}

// link makes key, which is not linked, a child of parent.
func (f *families) link(key, parent block.Key) {
	s := &f[shardOf(parent)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil {
		s.newest = map[block.Key]block.Key{}
	}
	if older, ok := s.newest[parent]; ok {
		if s.siblings == nil {
			s.siblings = map[block.Key]siblings{}
		}
		s.siblings[key] = siblings{older: older}
		s.siblings[older] = siblings{older: s.siblings[older].older, newer: key}
	}
	s.newest[parent] = key
}

// unlink undoes link.
func (f *families) unlink(key, parent block.Key) {
	s := &f[shardOf(parent)]
	s.mu.Lock()
	defer s.mu.Unlock()
	of, ok := s.siblings[key]
	if !ok {
		delete(s.newest, parent)
		return
	}
	delete(s.siblings, key)
	if of.newer.IsZero() {
		s.newest[parent] = of.older
	} else {
		s.set(of.newer, siblings{older: of.older, newer: s.siblings[of.newer].newer})
	}
	if !of.older.IsZero() {
		s.set(of.older, siblings{older: s.siblings[of.older].older, newer: of.newer})
	}
}

// set notes who is next to a child, if anyone is.
func (s *family) set(key block.Key, of siblings) {
	if of == (siblings{}) {
		delete(s.siblings, key)
		return
	}
	s.siblings[key] = of
}

// child is the newest of the blocks that follow key.
func (f *families) child(key block.Key) (child block.Key, ok bool) {
	s := &f[shardOf(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	child, ok = s.newest[key]
	return child, ok
}
