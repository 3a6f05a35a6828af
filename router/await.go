package router

import "context"

// Position is the incarnation in which a node is known and the number of the
// last change applied; ok is false for a node that is unknown or gone.
func (ix *Index) Position(id string) (incarnation, position uint64, ok bool) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	n := ix.nodes[id]
	if n == nil || n.gone {
		return 0, 0, false
	}
	return n.incarnation, n.position, true
}

// Await returns nil when the index has applied the node's change number
// position in that incarnation, and at once when there is nothing to wait for:
// the node is unknown or gone, or runs in a newer incarnation. Otherwise it
// returns ctx's error when ctx ends.
func (ix *Index) Await(ctx context.Context, id string, incarnation, position uint64) error {
	for {
		wait := ix.waitFor(id, incarnation, position)
		if wait == nil {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitFor is nil when Await is over, else closed at the node's next change.
func (ix *Index) waitFor(id string, incarnation, position uint64) <-chan struct{} {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	n := ix.nodes[id]
	if n == nil || n.gone || n.incarnation > incarnation || n.incarnation == incarnation && n.position >= position {
		return nil
	}
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

// wake lets everyone who waits for the node look again. Index.mu is held.
func (n *node) wake() {
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}
