package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/tier"
)

// A named block is a pointer, ordered by the cluster's log, to an immutable
// object that is stored, moved and evicted like any sealed block. A write stores
// a new object and then moves the pointer; a node that applies the move drops its
// copy of the object that the name left. So a reader finds the newest bytes that
// its node has applied, or newer ones, or misses; it never mixes two versions.

// names gives a node's changes of names their way through the log.
type names struct {
	log     NameLog
	table   nameTable
	applied broadcast
	base    uint64 // makes versions unique to this run of the node
	version atomic.Uint64
	wait    time.Duration

	applying sync.Mutex // keeps keyspace events in the order of the log
}

func newNames(log NameLog, cfg Config) *names {
	return &names{log: log, base: cfg.Incarnation, wait: cfg.NameWait}
}

// ErrNamespace: no such namespace is configured.
var ErrNamespace = errors.New("unknown namespace")

// ApplyName is called by the cluster for every change of a name, in the order of
// the log. A change of this node's own making may come twice, and after a newer
// one: a state that is older than what is known only drops its object.
func (n *Node) ApplyName(name Name) {
	defer n.applyingName(name)()
	if old := n.names.table.apply(name); !old.IsZero() {
		if n.Remove(old) > 0 {
			n.counters.invalidated.Add(1)
		}
	}
	n.names.applied.notify()
}

// applyingName is called before a state from the log of names is applied, and what
// it returns after that; it publishes the difference. A state may come twice.
func (n *Node) applyingName(next Name) (applied func()) {
	if n.pubsub.count.Load() == 0 {
		return func() {}
	}
	n.names.applying.Lock()
	before, _ := n.names.table.lookup(next.Key)
	return func() {
		defer n.names.applying.Unlock()
		if before.Sequence >= next.Sequence {
			return
		}
		name := next.Name
		if len(name) == 0 { // a mark that the log itself left
			name = before.Name
		}
		old, now := nameState{before.Object, before.Expires}, nameState{next.Object, next.Expires}
		for _, event := range nameEvents(old, now, time.Now()) {
			n.publishEvent(next.Namespace, name, event)
		}
	}
}

// LookupName returns the state of a name that has bytes and has not expired.
func (n *Node) LookupName(namespace string, name []byte) (Name, bool) {
	return n.lookupAlive(block.NamedKey(namespace, name, 0))
}

func (n *Node) lookupAlive(key block.Key) (Name, bool) {
	s, ok := n.names.table.lookup(key)
	if !ok || !alive(s, time.Now()) {
		return Name{}, false
	}
	return s, true
}

func alive(s Name, now time.Time) bool {
	return !s.Deleted() && (s.Expires == 0 || now.UnixMilli() < s.Expires)
}

// ReadName lends the bytes of a name; tier.ErrNotFound when there are none.
func (n *Node) ReadName(ctx context.Context, namespace string, name []byte) (*Loan, error) {
	loan, _ := n.readName(ctx, block.NamedKey(namespace, name, 0))
	if loan == nil {
		return nil, tier.ErrNotFound
	}
	return loan, nil
}

// readName lends the bytes of a name, nil if there are none, and returns the state
// that they belong to.
func (n *Node) readName(ctx context.Context, key block.Key) (*Loan, Name) {
	s, ok := n.lookupAlive(key)
	if !ok {
		n.counters.miss(tier.ErrNotFound)
		return nil, Name{}
	}
	loans, _ := n.Read(ctx, []block.Key{s.Object}, Cluster)
	states := []Name{s}
	n.readAgain(ctx, states, loans)
	return loans[0], states[0]
}

// rereads is how often a read of a name follows it to a newer state. Each time
// the name has changed while its bytes were on their way.
const rereads = 16

// readAgain fills the loans that are missing because their name has moved on:
// whoever held the bytes has applied a change that this node is about to apply. A
// state with a zero object stands for no name. states are updated to what was
// read.
func (n *Node) readAgain(ctx context.Context, states []Name, loans []*Loan) {
	for range rereads {
		var missing []int
		for i, l := range loans {
			if l == nil && !states[i].Deleted() {
				missing = append(missing, i)
			}
		}
		moved := n.follow(ctx, states, missing)
		if len(moved) == 0 {
			return
		}
		objects := make([]block.Key, len(moved))
		for j, i := range moved {
			objects[j] = states[i].Object
		}
		for at := 0; at < len(moved); {
			found, done := n.Read(ctx, objects[at:], Cluster)
			for j, l := range found {
				loans[moved[at+j]] = l
			}
			at += done
		}
	}
}

// follow brings the states at the given indexes up to date with the nodes that
// wrote them, and returns the indexes of those that point to another object now.
func (n *Node) follow(ctx context.Context, states []Name, indexes []int) (moved []int) {
	var unchanged []Name
	for _, i := range indexes {
		if now, _ := n.lookupAlive(states[i].Key); now.Object == states[i].Object {
			unchanged = append(unchanged, now)
		}
	}
	for j, answer := range n.askWriters(ctx, unchanged) {
		if answer.sequence > unchanged[j].Sequence {
			_ = n.awaitName(ctx, unchanged[j].Key, answer.sequence) // else by what is known
		}
	}
	for _, i := range indexes {
		now, _ := n.lookupAlive(states[i].Key)
		if !now.Deleted() && now.Object != states[i].Object {
			moved = append(moved, i)
		}
		now.Key = states[i].Key
		states[i] = now
	}
	return moved
}

// settled tells whether anyone is known to hold the bytes of a state. When the name
// has left the state meanwhile, and its bytes with it, the answer is about the
// state that it has now, which is returned.
func (n *Node) settled(s Name) (now Name, known bool) {
	for {
		if s.Deleted() || n.Known(s.Object) {
			return s, !s.Deleted()
		}
		now, _ := n.names.table.lookup(s.Key)
		if now.Sequence == s.Sequence {
			return s, false
		}
		s = now
	}
}

// Present tells for each state whether a read would find bytes. The index of
// where blocks are trails the log of names; so where it knows no holder, the
// node that wrote the name is asked.
func (n *Node) Present(ctx context.Context, states []Name) []bool {
	present := make([]bool, len(states))
	var unknown []Name
	var ask []int
	for i, s := range states {
		s, known := n.settled(s)
		switch {
		case !alive(s, time.Now()):
		case known:
			present[i] = true
		default:
			unknown = append(unknown, s)
			ask = append(ask, i)
		}
	}
	for j, answer := range n.askWriters(ctx, unknown) {
		if answer.sequence > unknown[j].Sequence {
			_ = n.awaitName(ctx, unknown[j].Key, answer.sequence) // else by what is known
			_, present[ask[j]] = n.lookupAlive(unknown[j].Key)
			continue
		}
		// A writer has the bytes before the log has the state.
		present[ask[j]] = answer.held || answer.behind
	}
	return present
}

// HasName tells whether ReadName would find bytes.
func (n *Node) HasName(ctx context.Context, namespace string, name []byte) (Name, bool) {
	s, ok := n.LookupName(namespace, name)
	if !ok || !n.Present(ctx, []Name{s})[0] {
		return Name{}, false
	}
	if now, ok := n.lookupAlive(s.Key); ok {
		return now, true
	}
	return Name{}, false
}

// writerOf is the peer that wrote a named object: the place to ask when no
// placement event of it has arrived yet.
func (n *Node) writerOf(object block.Key) (Holder, bool) {
	if !object.Named() {
		return Holder{}, false
	}
	s, ok := n.names.table.owner(object)
	if !ok {
		return Holder{}, false
	}
	return n.peers.Peer(s.Writer)
}

// awaitName waits until the name's state is at least as new as sequence, at most
// awaitTimeout.
func (n *Node) awaitName(ctx context.Context, key block.Key, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	return n.awaitTable(ctx, func() bool {
		s, _ := n.names.table.lookup(key)
		return s.Sequence >= sequence
	})
}

// awaitTable waits until done, which is asked again after each change that
// arrives from the log.
func (n *Node) awaitTable(ctx context.Context, done func() bool) error {
	for {
		changed := n.names.applied.wait()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("node: wait for the log of names: %w", ctx.Err())
		}
	}
}
