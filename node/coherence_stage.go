package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
	"cairn/resp"
	"cairn/tier"
)

// stager brings objects to their homes. What waits for one home travels together, in
// one request with one flush at its end; while one batch is on its way the next
// one gathers.
type stager struct {
	c *coherence

	// mu guards queues, what is in them, and the maps below.
	mu      sync.Mutex
	queues  map[string]*stageQueue
	causes  map[protocol.Op]error // why clients' stagings failed
	reached map[string]uint64     // the last incarnation of a home of which the address was known
}

const (
	// stageLanes is how many batches are on their way to one home at once.
	stageLanes = 2
	// stageBatch is the most objects in a batch, stageBytes the bytes after
	// which it is full.
	stageBatch = 256
	stageBytes = 8 << 20
)

// stageQueue is what waits for one home.
type stageQueue struct {
	home  string
	items []*staging
	lanes int
}

// staging is a Stage that is under way.
type staging struct {
	protocol.Stage
	left  atomic.Int32 // homes that have not answered
	cause atomic.Pointer[error]
	ended func(error)
}

// stage begins a Stage, whose end is the event Staged.
func (s *stager) stage(e protocol.Stage) {
	c := s.c
	s.begin(e, func(err error) {
		if err == nil {
			c.counters.staged.Add(1)
		} else {
			c.counters.stageFail.Add(1)
			s.note(e.Op, err)
		}
		c.event(protocol.Staged{Op: e.Op, Failed: err != nil})
	})
}

// maxCauses bounds what is remembered for operations that may have nobody to ask.
const maxCauses = 1024

func (s *stager) note(op protocol.Op, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.causes == nil || len(s.causes) >= maxCauses {
		s.causes = map[protocol.Op]error{}
	}
	s.causes[op] = err
}

// causeOf returns why a client's staging failed, once.
func (s *stager) causeOf(op protocol.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.causes[op]
	delete(s.causes, op)
	return err
}

// begin brings an object to homes, and calls ended once, when all have answered.
func (s *stager) begin(e protocol.Stage, ended func(error)) {
	st := &staging{Stage: e, ended: ended}
	st.left.Store(int32(len(e.Homes)))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, home := range e.Homes {
		q := s.queues[home]
		if q == nil {
			if s.queues == nil {
				s.queues = map[string]*stageQueue{}
			}
			q = &stageQueue{home: home}
			s.queues[home] = q
		}
		q.items = append(q.items, st)
		if q.lanes < stageLanes {
			q.lanes++
			s.c.beside(func(ctx context.Context) { s.lane(ctx, q) })
		}
	}
}

// lane sends batches until nothing waits for the home.
func (s *stager) lane(ctx context.Context, q *stageQueue) {
	for {
		s.mu.Lock()
		n, bytes := 0, 0
		for n < len(q.items) && n < stageBatch && (n == 0 || bytes < stageBytes) {
			bytes += int(q.items[n].Value.Length)
			n++
		}
		batch := q.items[:n:n]
		q.items = q.items[n:]
		if n == 0 {
			q.items = nil
			q.lanes--
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		s.send(ctx, q.home, batch)
	}
}

func (s *stager) send(ctx context.Context, home string, batch []*staging) {
	items := make([]stagedWrite, len(batch))
	for i, st := range batch {
		items[i] = stagedWrite{Key: st.Key, Token: st.Token, Version: st.Version, Value: st.Value}
	}
	var errs []error
	ctx, cancel := context.WithTimeout(ctx, s.c.n.cfg.NameWait)
	defer cancel()
	author := stageAuthor{node: s.c.cfg.Node, incarnation: batch[0].Incarnation}
	if home == s.c.cfg.Node {
		errs = s.c.homed.store(ctx, author, items, nil)
	} else {
		errs = s.c.stageAt(ctx, home, author, items)
	}
	for i, st := range batch {
		if errs[i] != nil {
			s.c.log.Debug("stage", "home", home, "object", st.Value.Object, "err", errs[i])
			st.cause.Store(&errs[i])
		}
		if st.left.Add(-1) > 0 {
			continue
		}
		var err error
		if cause := st.cause.Load(); cause != nil {
			err = *cause
		}
		st.ended(err)
	}
}

// reachPause is the time between two looks for the address of a new home.
const reachPause = 10 * time.Millisecond

// reach is where a home is reached. The log may say that a node has joined before the
// cluster says where it is: that is waited for until ctx ends.
func (s *stager) reach(ctx context.Context, home string) (Holder, error) {
	for {
		h, ok, coming := s.look(home)
		switch {
		case ok:
			return h, nil
		case !coming:
			return h, fmt.Errorf("%w: %s is not a member", ErrPeer, home)
		}
		select {
		case <-time.After(reachPause):
		case <-ctx.Done():
			return h, fmt.Errorf("%w: where %s is cannot be found: %w", ErrPeer, home, ctx.Err())
		}
	}
}

// look is where a home is reached, if ok. coming: the log says that it is a member, and the
// cluster has not said yet where.
func (s *stager) look(home string) (h Holder, ok, coming bool) {
	h, ok = s.c.n.peers.Peer(home)
	incarnation, live := s.c.joined(home)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok {
		if s.reached == nil {
			s.reached = map[string]uint64{}
		}
		s.reached[home] = incarnation
	}
	return h, ok, live && s.reached[home] != incarnation
}

// joined is the incarnation with which a node joined last; ok: it is a live member of the log.
func (c *coherence) joined(node string) (incarnation uint64, ok bool) {
	for _, m := range *c.members.Load() {
		if m.ID == node {
			return m.Incarnation, m.Live
		}
	}
	return 0, false
}

// stageAuthor is who staged an object.
type stageAuthor struct {
	node        string
	incarnation uint64
}

// stagedWrite is one object of a batch, and the write that it is for.
type stagedWrite struct {
	Key     block.Key
	Token   ledger.Version
	Version ledger.Version
	Value   ledger.Value
}

// A stagedWrite travels, and lies on disk, as 74 bytes, big-endian:
//
//	0     16       32      40        48       52   60        68      74
//	+-----+--------+-------+---------+--------+----+---------+-------+
//	| key | object | token | version | length | sum| expires | homes |
//	+-----+--------+-------+---------+--------+----+---------+-------+
const stagedSize = 74

func (w *stagedWrite) append(b []byte) []byte {
	b = append(b, w.Key[:]...)
	b = append(b, w.Value.Object[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(w.Token))
	b = binary.BigEndian.AppendUint64(b, uint64(w.Version))
	b = binary.BigEndian.AppendUint32(b, w.Value.Length)
	b = binary.BigEndian.AppendUint64(b, w.Value.Sum)
	b = binary.BigEndian.AppendUint64(b, uint64(w.Value.Expires))
	for _, h := range w.Value.Homes {
		b = binary.BigEndian.AppendUint16(b, h)
	}
	return b
}

func parseStaged(b []byte) (w stagedWrite, err error) {
	if len(b) != stagedSize {
		return w, fmt.Errorf("%w: %d bytes about a staged write, want %d", ErrPeer, len(b), stagedSize)
	}
	w.Key, w.Value.Object = block.Key(b), block.Key(b[16:])
	w.Token = ledger.Version(binary.BigEndian.Uint64(b[32:]))
	w.Version = ledger.Version(binary.BigEndian.Uint64(b[40:]))
	w.Value.Length = binary.BigEndian.Uint32(b[48:])
	w.Value.Sum = binary.BigEndian.Uint64(b[52:])
	w.Value.Expires = int64(binary.BigEndian.Uint64(b[60:]))
	for i := range w.Value.Homes {
		w.Value.Homes[i] = binary.BigEndian.Uint16(b[68+2*i:])
	}
	return w, nil
}

// stageAt sends a batch to a home, which stores it durably before it answers.
func (c *coherence) stageAt(ctx context.Context, home string, author stageAuthor, items []stagedWrite) []error {
	errs := make([]error, len(items))
	fail := func(err error) []error {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
		return errs
	}
	h, err := c.stager.reach(ctx, home)
	if err != nil {
		return fail(err)
	}
	var loans []*Loan
	var sent []int
	defer func() {
		for _, l := range loans {
			l.Release()
		}
	}()
	for i := range items {
		loan, err := c.n.readLocal(ctx, items[i].Value.Object)
		if err != nil {
			errs[i] = err
			continue
		}
		loans, sent = append(loans, loan), append(sent, i)
	}
	if len(sent) == 0 {
		return errs
	}
	answers, err := c.n.dialer.stage(ctx, h.Addr, author, len(sent), func(conn *resp.Conn, j int) {
		var meta [stagedSize]byte
		conn.AppendArg(items[sent[j]].append(meta[:0]))
		conn.AppendArg(loans[j].Bytes)
	})
	if err != nil {
		return fail(fmt.Errorf("%w: %s: %w", ErrPeer, home, err))
	}
	for j, answer := range answers {
		switch answer {
		case stageDurable:
		case stageNoSpace:
			errs[sent[j]] = fmt.Errorf("%w: %s: %w for objects of names: delete names, or give it a larger disk", ErrPeer, home, tier.ErrNoSpace)
		default:
			errs[sent[j]] = fmt.Errorf("%w: %s could not store the object", ErrPeer, home)
		}
	}
	return errs
}

// What CAIRN.STAGE answers about an object.
const (
	stageRefused int64 = iota // it is not durable
	stageDurable
	stageNoSpace // it is not durable, for want of room
)

// stageAnswer is what a home answers about an object that it has stored, or not.
func stageAnswer(err error) int64 {
	switch {
	case err == nil:
		return stageDurable
	case errors.Is(err, tier.ErrNoSpace):
		return stageNoSpace
	}
	return stageRefused
}

// stage sends n objects in one CAIRN.STAGE and returns what the home answers about
// each.
func (d *dialer) stage(ctx context.Context, addr string, author stageAuthor, n int, add func(*resp.Conn, int)) ([]int64, error) {
	pool, err := d.pool(addr)
	if err != nil {
		return nil, err
	}
	conn, err := pool.Get(ctx)
	if err != nil {
		return nil, err
	}
	defer pool.Put(conn)
	conn.AppendHeader(3 + 2*n)
	conn.AppendString("CAIRN.STAGE")
	conn.AppendString(author.node)
	var inc [8]byte
	binary.BigEndian.PutUint64(inc[:], author.incarnation)
	conn.AppendArg(inc[:])
	for i := range n {
		add(conn, i)
	}
	size, err := conn.ReadArrayLen()
	if err == nil && size != n {
		err = fmt.Errorf("%w: %d answers about %d objects", ErrPeer, size, n)
	}
	if err != nil {
		return nil, err
	}
	answers := make([]int64, n)
	for i := range answers {
		if answers[i], err = conn.ReadInt(); err != nil {
			return nil, err
		}
	}
	return answers, nil
}
