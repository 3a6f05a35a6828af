package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/tier"
)

// Condition restricts a change of a name.
type Condition uint8

// The conditions of SET.
const (
	Always    Condition = iota
	IfAbsent            // NX
	IfPresent           // XX
)

var (
	// ErrCondition: the condition of a change does not hold; nothing was changed.
	ErrCondition = errors.New("condition does not hold")
	// ErrNameLog: the log of names gave no answer, or refused. Unless the error says
	// otherwise the outcome of the change is unknown: it may still happen.
	ErrNameLog = errors.New("the log of names does not answer")
)

// NameOptions are the choices of SetName.
type NameOptions struct {
	If      Condition
	Expires int64 // milliseconds since 1970; 0: never
	KeepTTL bool  // keep the end that the name had
	Old     bool  // lend the bytes that the name had, in one step with the change
	Policy  coherency.WritePolicy
}

// SetName makes the received bytes the newest version of a name. It returns once
// the change is in the log and applied here, so that later reads of this node see
// it. ErrCondition and ErrNameConflict leave the name as it is. In every case in
// is used up. With Options.Old, old is what the name had, nil for nothing, also
// with ErrCondition; the caller releases it.
func (n *Node) SetName(ctx context.Context, namespace string, name []byte, in *Incoming, o NameOptions) (old *Loan, err error) {
	if len(name) > n.cfg.MaxName {
		in.Abort()
		return nil, fmt.Errorf("%w: name of %d bytes, max-name-bytes is %d", tier.ErrTooLarge, len(name), n.cfg.MaxName)
	}
	version := n.names.base + n.names.version.Add(1)
	next := Name{
		Key: block.NamedKey(namespace, name, 0), Namespace: namespace, Name: name,
		Object: block.NamedKey(namespace, name, max(version, 1)),
		Length: uint32(len(in.Bytes())), Expires: o.Expires, Writer: n.cfg.ID,
	}
	if o.If != Always && !o.Old { // spare a write that cannot succeed
		s, _ := n.names.table.lookup(next.Key)
		if _, err := n.expectation(ctx, s, next, o); err != nil {
			in.Abort()
			return nil, err
		}
	}
	if _, err := in.Commit(ctx, next.Object, block.Key{}, o.Policy); err != nil {
		return nil, err
	}
	old, err = n.move(ctx, next, o)
	if errors.Is(err, ErrCondition) || errors.Is(err, ErrNameConflict) {
		n.Remove(next.Object)
	}
	return old, err
}

// DeleteName removes a name; it reports whether it had bytes.
func (n *Node) DeleteName(ctx context.Context, namespace string, name []byte) (bool, error) {
	_, err := n.delete(ctx, namespace, name, false)
	if errors.Is(err, ErrCondition) {
		return false, nil
	}
	return err == nil, err
}

// TakeName removes a name and lends the bytes that it had; tier.ErrNotFound when
// it had none. Of several concurrent calls, in the whole cluster, one gets them.
func (n *Node) TakeName(ctx context.Context, namespace string, name []byte) (*Loan, error) {
	old, err := n.delete(ctx, namespace, name, true)
	if old == nil && (err == nil || errors.Is(err, ErrCondition)) {
		return nil, tier.ErrNotFound
	}
	return old, err
}

func (n *Node) delete(ctx context.Context, namespace string, name []byte, lend bool) (*Loan, error) {
	if _, ok := n.LookupName(namespace, name); !ok {
		return nil, ErrCondition
	}
	dead := n.tombstone(block.NamedKey(namespace, name, 0), namespace, name)
	return n.move(ctx, dead, NameOptions{If: IfPresent, Old: lend})
}

// tombstone is the state of a deleted name.
func (n *Node) tombstone(key block.Key, namespace string, name []byte) Name {
	return Name{Key: key, Namespace: namespace, Name: name, Expires: time.Now().UnixMilli(), Writer: n.cfg.ID}
}

// ExpireName changes when a name ends: choose is given the present end and returns
// the new one, or false to leave it; 0 is never. It is called again when the name
// changes meanwhile. The answer is whether the name was changed.
func (n *Node) ExpireName(ctx context.Context, namespace string, name []byte, choose func(old int64) (int64, bool)) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, n.names.wait)
	defer cancel()
	for {
		s, ok := n.HasName(ctx, namespace, name)
		if !ok {
			return false, nil
		}
		expect := s.Sequence
		if s.Expires, ok = choose(s.Expires); !ok {
			return false, nil
		}
		err := n.append(ctx, s, &expect)
		if !errors.Is(err, ErrNameConflict) {
			return err == nil, err
		}
		if err := n.awaitChange(ctx, s.Key, expect); err != nil {
			return false, err
		}
	}
}

// move appends a change, and tries again when another writer of the same name
// came between, as long as the condition allows it and at most for the time that
// a change may take.
func (n *Node) move(ctx context.Context, next Name, o NameOptions) (old *Loan, err error) {
	ctx, cancel := context.WithTimeout(ctx, n.names.wait)
	defer cancel()
	for {
		s, _ := n.names.table.lookup(next.Key)
		if o.Old {
			if loan, of := n.readName(ctx, next.Key); loan != nil {
				old, s = loan, of
			}
		}
		expect, err := n.expectation(ctx, s, next, o)
		if now, _ := n.names.table.lookup(next.Key); err != nil && now.Sequence != s.Sequence && ctx.Err() == nil {
			if old != nil { // the name has left the state that it is of
				old.Release()
				old = nil
			}
			continue
		}
		if err != nil {
			return old, err
		}
		if o.KeepTTL && alive(s, time.Now()) {
			next.Expires = s.Expires
		}
		if err = n.append(ctx, next, expect); err == nil {
			return old, nil
		}
		if old != nil {
			old.Release()
			old = nil
		}
		if !errors.Is(err, ErrNameConflict) {
			return nil, err
		}
		// The record that won is on its way here: apply it, then look again.
		if err := n.awaitChange(ctx, next.Key, *expect); err != nil {
			return nil, err
		}
	}
}

// expectation is the sequence that a change of a name in state s expects; nil
// where any will do.
func (n *Node) expectation(ctx context.Context, s, next Name, o NameOptions) (*uint64, error) {
	if o.If == Always && !o.KeepTTL && !o.Old {
		return nil, nil
	}
	if o.If != Always && n.live(ctx, s, next.Deleted()) != (o.If == IfPresent) {
		return nil, ErrCondition
	}
	return &s.Sequence, nil
}

// live tells whether a state counts as present in a condition. A name whose bytes
// have been evicted everywhere does not; but one whose writer cannot be asked
// does, so that two writers never both find it absent. Any name that is not
// deleted can be deleted.
func (n *Node) live(ctx context.Context, s Name, deleting bool) bool {
	if deleting {
		return alive(s, time.Now())
	}
	s, known := n.settled(s)
	switch {
	case !alive(s, time.Now()):
		return false
	case known:
		return true
	}
	answer := n.askWriters(ctx, []Name{s})[0]
	return answer.held || answer.failed || answer.behind || answer.sequence > s.Sequence
}

// append publishes a state and applies it here. The log gives it back to this node
// as well, as to every other; applying it at once spares the writer the wait.
func (n *Node) append(ctx context.Context, next Name, expect *uint64) error {
	sequence, err := n.names.log.Append(ctx, next, expect)
	switch {
	case errors.Is(err, ErrNameConflict):
		return fmt.Errorf("node: change name: %w", err)
	case err != nil:
		return fmt.Errorf("node: change name: %w: %w", ErrNameLog, err)
	}
	next.Sequence = sequence
	n.ApplyName(next)
	return nil
}

// awaitChange waits until the name has another sequence than the one that lost.
// A tombstone may have left the log by age: then the name counts as never written.
func (n *Node) awaitChange(ctx context.Context, key block.Key, lost uint64) error {
	err := n.awaitTable(ctx, func() bool {
		s, known := n.names.table.lookup(key)
		switch {
		case s.Sequence != lost:
			return true
		case known && s.Deleted():
			n.names.table.forget(key, lost)
			return true
		}
		return false
	})
	if err != nil {
		return fmt.Errorf("%w: the newer state has not arrived: %w", ErrNameConflict, err)
	}
	return nil
}
