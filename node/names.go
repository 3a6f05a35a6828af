package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
	"cairn/tier"
)

// A named block is a pointer, ordered by the coherence log, to an immutable object
// that is stored, moved and evicted like any sealed block. This file reads names:
// first what the newest version is, then its bytes, from this node's tiers, from the
// node that owns the block, or from its homes. Most reads need neither the log
// nor the coherence goroutine.

// ReadLevel says how fresh a read of a name must be.
type ReadLevel uint8

const (
	// ReadSession is never older than what the same client has written or read
	// before: ReadOptions.Session says how far that is.
	ReadSession ReadLevel = iota
	// ReadStrict is never older than any write that was acknowledged before, by any
	// node.
	ReadStrict
	// ReadBounded is at most ReadOptions.Bound old.
	ReadBounded
	// ReadLocal is what this node knows, however old.
	ReadLocal

	readLevels
)

var readLevelNames = [readLevels]string{"session", "strict", "bounded", "local"}

// String is the level as ParseReadLevel reads it.
func (l ReadLevel) String() string {
	if l >= readLevels {
		return "unknown"
	}
	return readLevelNames[l]
}

// ParseReadLevel reads "session", "strict" or "local", which can be a namespace's
// default.
func ParseReadLevel(s string) (ReadLevel, error) {
	for _, l := range []ReadLevel{ReadSession, ReadStrict, ReadLocal} {
		if s == l.String() {
			return l, nil
		}
	}
	return 0, fmt.Errorf("consistency %.32q: want session, strict or local", s)
}

// ReadOptions are the choices of a read.
type ReadOptions struct {
	Level ReadLevel
	// Session is the sequence of the log that the client has seen, from earlier
	// answers; it counts with ReadSession.
	Session uint64
	// Bound is how old the answer of ReadBounded may be.
	Bound time.Duration
}

// NameState is what a read found.
type NameState struct {
	ledger.Pointer
	// Sequence is what the client has seen of the log by this.
	Sequence uint64
	// Age is for how long, at most, the answer may have been out of date.
	Age time.Duration
}

var (
	// ErrNamespace: no such namespace is configured.
	ErrNamespace = errors.New("unknown namespace")
	// ErrBytesUnreachable: the name exists, and no node that has its bytes can be
	// reached.
	ErrBytesUnreachable = errors.New("the bytes of the name cannot be reached")
	// ErrUnavailable: the log does not answer, or this node may not serve. A write
	// that ends so may still happen.
	ErrUnavailable = protocol.ErrUnavailable
)

// alive tells whether a name has bytes now.
func alive(v ledger.Value) bool {
	return !v.Object.IsZero() && (v.Expires == 0 || v.Alive(time.Now().UnixMilli()))
}

// rereads is how often a read follows a name to a newer version, because the bytes of
// the one that it found are gone.
const rereads = 16

// ReadName lends the bytes of a name; tier.ErrNotFound when it is absent.
func (n *Node) ReadName(ctx context.Context, namespace string, name []byte, o ReadOptions) (loan *Loan, s NameState, err error) {
	if loan, s, err = n.readNameHere(ctx, namespace, name, o); loan == nil && err == nil {
		loan, s, err = n.readFar(ctx, s.Key, n.coherence.spaces[namespace], o)
	}
	return loan, s, err
}

// readNameHere is ReadName where this node alone can answer; without a loan and an error it
// cannot, and only the key of the state counts.
func (n *Node) readNameHere(ctx context.Context, namespace string, name []byte, o ReadOptions) (loan *Loan, s NameState, err error) {
	e, known := n.coherence.glance(namespace, name, o, &s)
	loan, err = n.lend(ctx, &s, e, known)
	return loan, s, err
}

// readKey is ReadName by the name's key.
func (n *Node) readKey(ctx context.Context, key block.Key, space protocol.Space, o ReadOptions) (loan *Loan, s NameState, err error) {
	known := n.coherence.glanceKey(key, space, o, &s)
	if loan, err = n.lend(ctx, &s, nil, known); loan == nil && err == nil {
		loan, s, err = n.readFar(ctx, key, space, o)
	}
	return loan, s, err
}

// lend lends what a glance has found, from this node's tiers. Without a loan and an
// error it is not enough. The entry remembers where in the host tier the object was, so
// that a read finds it there without the directory: an object never changes, so that
// what lies there under its key is right.
func (n *Node) lend(ctx context.Context, s *NameState, e *nameEntry, known bool) (*Loan, error) {
	switch {
	case !known:
		return nil, nil
	case !alive(s.Value):
		n.counters.miss(tier.ErrNotFound)
		return nil, tier.ErrNotFound
	}
	if e != nil && n.slotted != nil && (!n.promotes || rand.Uint32()%promotionSample != 0) {
		if v, ok := n.slotted.ViewSlot(e.slot.Load(), s.Value.Object); ok {
			loan := &Loan{Descriptor: v.Descriptor, Bytes: v.Bytes, Origin: FromHost, view: v, room: &n.room}
			n.counters.hit(loan)
			return loan, nil
		}
	}
	loan, _ := n.readLocal(ctx, s.Value.Object)
	if loan == nil {
		return nil, nil // whatever the reason: it is asked for elsewhere
	}
	if e != nil && (!n.promotes || n.wasConsidered(s.Value.Object)) {
		e.slot.Store(loan.view.Slot())
	}
	n.counters.hit(loan)
	return loan, nil
}

// readFar reads a name whose bytes, or newest version, have to be asked for.
func (n *Node) readFar(ctx context.Context, key block.Key, space protocol.Space, o ReadOptions) (*Loan, NameState, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.NameWait)
	defer cancel()
	var last ledger.Version
	for tries := 0; tries < rereads; tries++ {
		news := n.coherence.news.wait()
		s, loan, err := n.resolve(ctx, key, space, o, true)
		switch {
		case err != nil:
			n.counters.miss(err)
			return nil, s, err
		case !alive(s.Value):
			if loan != nil {
				loan.Release()
			}
			n.counters.miss(tier.ErrNotFound)
			return nil, s, tier.ErrNotFound
		case loan != nil:
			n.counters.hit(loan)
			return loan, s, nil
		}
		coming := n.coherence.coming(s.Value.Homes)
		loans, errs := n.readNamed(ctx, []ledger.Value{s.Value})
		if loans[0] != nil {
			return loans[0], s, nil
		}
		if coming {
			tries-- // there may be nothing wrong with this version
		}
		if s.Version == last {
			// Nobody has them, and there is no newer version: unless one is on its way.
			select {
			case <-news:
			case <-time.After(rereadPause):
			case <-ctx.Done():
				return nil, s, fmt.Errorf("%w: %w", ErrBytesUnreachable, errs[0])
			}
		}
		last = s.Version
		if o.Level != ReadLocal {
			o.Level = ReadStrict
		}
	}
	return nil, NameState{}, fmt.Errorf("%w: %d versions were tried", ErrBytesUnreachable, rereads)
}

// rereadPause is how long a read waits before it asks again for bytes that nobody
// had.
const rereadPause = 20 * time.Millisecond

// glance is what a name is, without the coherence goroutine, where this node's own
// knowledge is enough for the level. s.Key is set in any case; e is nil of a name that the
// table does not know.
func (c *coherence) glance(namespace string, name []byte, o ReadOptions, s *NameState) (e *nameEntry, ok bool) {
	sequence := c.applied.Load() // before the look: what it shows is at least as new
	unflushed := c.overlay.count.Load() > 0
	e = c.table.find(namespace, name, &s.Pointer)
	switch {
	case e == nil:
		return nil, c.glanceKey(block.NamedKey(namespace, name, 0), c.spaces[namespace], o, s)
	case s.Owned() && uint32(s.Owner) == c.number.Load() && unflushed:
		// What is newer here than in the log is of a block that this node owns. The overlay
		// has to be looked at before the table.
		return e, c.glanceKey(s.Key, c.spaces[namespace], o, s)
	}
	return e, c.enough(sequence, o, s)
}

// glanceKey is glance by the name's key.
func (c *coherence) glanceKey(key block.Key, space protocol.Space, o ReadOptions, s *NameState) bool {
	sequence := c.applied.Load()
	v, own := c.overlay.get(key)
	s.Pointer, _ = c.table.lookup(key)
	if !c.enough(sequence, o, s) || own && space.Copies > 0 && o.Level == ReadSession {
		return false
	}
	if own && v.version >= s.Version {
		s.Version, s.Value = v.version, v.value
	}
	return true
}

// enough tells whether a pointer of the table, found when sequence had been applied, may
// answer a read.
func (c *coherence) enough(sequence uint64, o ReadOptions, s *NameState) bool {
	s.Sequence = max(sequence, o.Session, s.Changed.Sequence())
	switch o.Level {
	case ReadLocal:
		return true
	case ReadSession:
		return sequence >= o.Session && (!s.Owned() || uint32(s.Owner) == c.number.Load())
	}
	return false
}

// keyOf is the key of a name; of one that the table knows it need not be computed.
func (c *coherence) keyOf(namespace string, name []byte) block.Key {
	var p ledger.Pointer
	if c.table.find(namespace, name, &p) != nil {
		return p.Key
	}
	return block.NamedKey(namespace, name, 0)
}

// resolve finds the newest version of a name, as the level asks. When the owner of
// the block has to be asked, it may give the bytes at once: then they are lent,
// if they are wanted.
func (n *Node) resolve(ctx context.Context, key block.Key, space protocol.Space, o ReadOptions, bytes bool) (NameState, *Loan, error) {
	c := n.coherence
	var s NameState
	if c.glanceKey(key, space, o, &s) {
		return s, nil, nil
	}
	var refused ledger.Version
	for {
		answer, err := c.ask(ctx, readEvent(key, space, o, refused))
		if err != nil {
			return NameState{}, nil, err
		}
		s, loan, again, err := c.readAnswer(ctx, answer, bytes)
		if again == 0 {
			return s, loan, err
		}
		refused = again
	}
}

func readEvent(key block.Key, space protocol.Space, o ReadOptions, refused ledger.Version) func(protocol.Op) protocol.Event {
	level := protocol.Strict
	switch o.Level {
	case ReadSession:
		level = protocol.Session
	case ReadBounded:
		level = protocol.Bounded
	}
	return func(op protocol.Op) protocol.Event {
		return protocol.Read{Op: op, Key: key, Level: level, Space: space, Session: o.Session, Bound: o.Bound, Refused: refused}
	}
}

// readAnswer makes a state of what the machine has answered. again is the token of an
// owner that could not be asked: then the machine is to be asked again.
func (c *coherence) readAnswer(ctx context.Context, answer protocol.Effect, bytes bool) (s NameState, loan *Loan, again ledger.Version, err error) {
	switch a := answer.(type) {
	case protocol.Serve:
		return NameState{a.Pointer, a.Sequence, a.Age}, nil, 0, nil
	case protocol.Forward:
		o, loan, err := c.askOwner(ctx, a, bytes)
		switch {
		case err == nil:
			p, _ := c.table.lookup(a.Key)
			p.Version, p.Value = o.version, o.value
			return NameState{p, max(c.applied.Load(), o.sequence), 0}, loan, 0, nil
		case ctx.Err() != nil:
			return s, nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
		c.log.Debug("the owner of a name did not answer", "owner", a.Node, "err", err)
		return s, nil, a.Token, nil
	case protocol.Reply:
		return s, nil, 0, a.Err
	}
	return s, nil, 0, ErrClosed
}

// StateOf finds the newest version of a name without its bytes.
func (n *Node) StateOf(ctx context.Context, namespace string, name []byte, o ReadOptions) (NameState, error) {
	var s NameState
	if _, ok := n.coherence.glance(namespace, name, o, &s); ok {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.NameWait)
	defer cancel()
	s, _, err := n.resolve(ctx, s.Key, n.coherence.spaces[namespace], o, false)
	return s, err
}

// statesOf is StateOf for many names of one namespace. What has to wait for the log
// waits together.
func (n *Node) statesOf(ctx context.Context, namespace string, names [][]byte, o ReadOptions) ([]NameState, error) {
	c, space := n.coherence, n.coherence.spaces[namespace]
	states := make([]NameState, len(names))
	var asked []int
	var waiting []*waiter
	for i, name := range names {
		if _, ok := c.glance(namespace, name, o, &states[i]); ok {
			continue
		}
		w, err := c.begin(readEvent(states[i].Key, space, o, 0))
		if err != nil {
			return nil, err
		}
		asked, waiting = append(asked, i), append(waiting, w)
	}
	if len(asked) == 0 {
		return states, nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.NameWait)
	defer cancel()
	var g parallel
	for j, w := range waiting {
		answer, err := c.await(ctx, w)
		if err != nil {
			g.fail(err)
			continue
		}
		if serve, ok := answer.(protocol.Serve); ok {
			states[asked[j]] = NameState{serve.Pointer, serve.Sequence, serve.Age}
			continue
		}
		g.do(func() error {
			s, _, again, err := c.readAnswer(ctx, answer, false)
			if again != 0 {
				o := o
				s, _, err = n.resolve(ctx, states[asked[j]].Key, space, o, false)
			}
			states[asked[j]] = s
			return err
		})
	}
	return states, g.wait()
}

// readNamed lends the objects of versions, from this node's tiers or from their
// homes. A nil loan has its error.
func (n *Node) readNamed(ctx context.Context, values []ledger.Value) ([]*Loan, []error) {
	loans, errs := make([]*Loan, len(values)), make([]error, len(values))
	keys := make([]block.Key, len(values))
	var missing []int
	for i, v := range values {
		keys[i] = v.Object
		if v.Object.IsZero() {
			errs[i] = tier.ErrNotFound
			continue
		}
		if loans[i], errs[i] = n.readLocal(ctx, v.Object); errs[i] != nil {
			missing = append(missing, i)
		}
	}
	if len(missing) > 0 {
		n.fetchMissing(ctx, keys, missing, loans, errs, func(i int) []Holder { return n.coherence.holders(values[i].Homes) })
	}
	for _, l := range loans {
		if l != nil {
			n.counters.hit(l)
		}
	}
	return loans, errs
}

// coming tells whether a home of an object has joined and it is not known yet where it is.
func (c *coherence) coming(homes ledger.Homes) bool {
	for _, number := range homes {
		if m, ok := c.member(number); ok && m.ID != c.cfg.Node {
			if _, _, coming := c.stager.look(m.ID); coming {
				return true
			}
		}
	}
	return false
}

// holders are the homes of an object that can be reached, less this node.
func (c *coherence) holders(homes ledger.Homes) []Holder {
	var list []Holder
	for _, number := range homes {
		if m, ok := c.member(number); ok && m.ID != c.cfg.Node {
			if h, ok := c.n.peers.Peer(m.ID); ok {
				list = append(list, h)
			}
		}
	}
	return list
}
