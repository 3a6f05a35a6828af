package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
	"cairn/resp"
	"cairn/tier"
	"cairn/wire"
)

// inquireTries is how often a node that gives no answer is asked what was staged
// there, and inquirePause the time between. inquireDead is the time for one that is no
// live member any more.
const (
	inquireTries = 5
	inquirePause = 100 * time.Millisecond
	inquireDead  = time.Second
)

// inquire asks every node that may be a home for the newest write that was staged
// under a token of a dead owner.
func (c *coherence) inquire(ctx context.Context, e protocol.Inquire) protocol.Event {
	p, _ := c.table.Load(e.Key)
	found := protocol.Found{Key: e.Key, Token: e.Token}
	homes := 0
	see := func(member uint16, w stagedWrite, ok bool) {
		if !ok || found.Any && w.Version < found.Version {
			return
		}
		if !found.Any || w.Version > found.Version {
			found.Any, found.Version, found.Value, homes = true, w.Version, w.Value, 0
			found.Value.Homes = ledger.Homes{}
		}
		if homes < ledger.MostHomes { // only who has said that it has the object
			found.Value.Homes[homes] = member
			homes++
		}
	}
	members := *c.members.Load()
	durable := false
	for _, m := range members {
		durable = durable || m.Durable
	}
	silent, later := 0, false // nodes that may have something, and did not answer
	for _, m := range members {
		switch {
		case m.ID == c.cfg.Node:
			w, ok := c.homed.newest(e.Key, e.Token)
			see(m.Number, w, ok)
			if !ok && !c.homed.remembers(e.Token) {
				silent++
			}
		case durable && !m.Durable && !m.Live:
			// It was no home while others could be.
		default:
			w, ok, err := c.askStaged(ctx, m, e.Key, e.Token)
			see(m.Number, w, ok)
			if err != nil {
				silent++
				later = later || m.Live && !errors.As(err, new(resp.ServerError)) // who answers so has lost it
			}
		}
	}
	// Every acknowledged write is on as many nodes as the ownership asks for.
	found.Complete = silent < int(p.Copies)
	if later && !found.Complete {
		return nil // a member will answer the next time, or is going to be expired (I9)
	}
	return found
}

// askStaged asks one node, several times if it does not answer. One that is no live member
// any more may only have been cut off from the log: it is asked once.
func (c *coherence) askStaged(ctx context.Context, m ledger.Member, key block.Key, token ledger.Version) (w stagedWrite, ok bool, err error) {
	tries, within := inquireTries, c.n.cfg.FetchTimeout
	if !m.Live {
		tries, within = 1, min(within, inquireDead)
	}
	for range tries {
		h, there := c.n.peers.Peer(m.ID)
		err = fmt.Errorf("%w: %s is not a member", ErrPeer, m.ID)
		if there {
			try, cancel := context.WithTimeout(ctx, within)
			w, ok, err = c.n.dialer.staged(try, h.Addr, key, token)
			cancel()
			if err == nil {
				return w, ok, nil
			}
			var answer resp.ServerError
			if errors.As(err, &answer) { // it has lost what it may have had
				return w, false, err
			}
		}
		select {
		case <-time.After(inquirePause):
		case <-ctx.Done():
			return w, false, ctx.Err()
		}
	}
	return w, false, err
}

// staged is CAIRN.STAGED at the node at addr.
func (d *dialer) staged(ctx context.Context, addr string, key block.Key, token ledger.Version) (w stagedWrite, ok bool, err error) {
	pool, err := d.pool(addr)
	if err != nil {
		return w, false, err
	}
	conn, err := pool.Get(ctx)
	if err != nil {
		return w, false, err
	}
	defer pool.Put(conn)
	conn.AppendHeader(3)
	conn.AppendString("CAIRN.STAGED")
	conn.AppendArg(key[:])
	conn.AppendInt(int64(token))
	var answer [stagedSize]byte
	n, err := conn.ReadBulkInto(answer[:])
	switch {
	case errors.Is(err, resp.ErrNil):
		return w, false, nil
	case err != nil:
		return w, false, err
	}
	w, err = parseStaged(answer[:n])
	return w, err == nil, err
}

// cairnStaged is CAIRN.STAGED key token, by which a node asks a home for the newest
// write that was staged here under a token; null if there is none, and an error if
// there may have been one before this node lost its home tier.
func (s *session) cairnStaged(_ context.Context, w *resp.Writer, args [][]byte) {
	key, token, err := parseKeyToken(args)
	if err != nil {
		fail(w, err)
		return
	}
	best, ok := s.n.coherence.homed.newest(key, token)
	switch {
	case ok:
		w.Bulk(best.append(nil))
	case s.n.coherence.homed.remembers(token):
		w.Null()
	default:
		w.Error(wire.CodeUnavailable + " the home tier of this node is younger than that ownership")
	}
}

func parseKeyToken(args [][]byte) (key block.Key, token ledger.Version, err error) {
	key, err = parseKey(args[1])
	v, ok := parseNumber(args[2])
	if err == nil && !ok {
		err = errNotInteger
	}
	return key, ledger.Version(v), err
}

// replicate copies an object of which this node is a home to further homes.
func (c *coherence) replicate(ctx context.Context, e protocol.Replicate) protocol.Event {
	end := protocol.Replicated{Key: e.Key, Version: e.Version, Homes: e.Homes}
	m, _ := c.member(uint16(c.number.Load()))
	stage := protocol.Stage{Key: e.Key, Incarnation: m.Incarnation, Value: e.Value, Homes: e.To}
	stage.Value.Homes = e.Homes
	done := make(chan error, 1)
	c.stager.begin(stage, func(err error) { done <- err })
	select {
	case err := <-done:
		if err == nil {
			c.counters.rehomed.Add(1)
			return end
		}
		c.log.Debug("an object could not be copied to another home", "object", e.Value.Object, "err", err)
	case <-ctx.Done():
	}
	end.Failed = true
	return end
}

// owned is what an owner says about a block.
type owned struct {
	version  ledger.Version
	sequence uint64
	value    ledger.Value
}

// The head of an answer to CAIRN.OWNED has 58 bytes, big-endian:
//
//	0       8        16       32       36  44        52       58
//	+-------+--------+--------+--------+---+---------+--------+
//	|version|sequence| object | length |sum| expires | homes  |
//	+-------+--------+--------+--------+---+---------+--------+
const ownedSize = 58

func (o *owned) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(o.version))
	b = binary.BigEndian.AppendUint64(b, o.sequence)
	b = append(b, o.value.Object[:]...)
	b = binary.BigEndian.AppendUint32(b, o.value.Length)
	b = binary.BigEndian.AppendUint64(b, o.value.Sum)
	b = binary.BigEndian.AppendUint64(b, uint64(o.value.Expires))
	for _, h := range o.value.Homes {
		b = binary.BigEndian.AppendUint16(b, h)
	}
	return b
}

func (o *owned) parse(b []byte) {
	o.version = ledger.Version(binary.BigEndian.Uint64(b))
	o.sequence = binary.BigEndian.Uint64(b[8:])
	o.value.Object = block.Key(b[16:])
	o.value.Length = binary.BigEndian.Uint32(b[32:])
	o.value.Sum = binary.BigEndian.Uint64(b[36:])
	o.value.Expires = int64(binary.BigEndian.Uint64(b[44:]))
	for i := range o.value.Homes {
		o.value.Homes[i] = binary.BigEndian.Uint16(b[52+2*i:])
	}
}

// askOwner asks the owner of a block for its newest version, and for the bytes, unless
// this node has them. The loan is nil when the bytes are not wanted, or the name is
// absent. Any error means that the owner has not answered.
func (c *coherence) askOwner(ctx context.Context, f protocol.Forward, bytes bool) (o owned, loan *Loan, err error) {
	c.counters.forwards.Add(1)
	h, ok := c.n.peers.Peer(f.Node)
	if !ok {
		return o, nil, fmt.Errorf("%w: %s is not a member", ErrPeer, f.Node)
	}
	ctx, cancel := context.WithTimeout(ctx, c.n.cfg.FetchTimeout)
	defer cancel()
	pool, err := c.n.dialer.pool(h.Addr)
	if err != nil {
		return o, nil, err
	}
	conn, err := pool.Get(ctx)
	if err != nil {
		return o, nil, err
	}
	defer pool.Put(conn)
	var have block.Key
	if p, known := c.table.lookup(f.Key); known && c.n.Holds(p.Value.Object) {
		have = p.Value.Object
	}
	if !bytes {
		have = block.Key{0xff} // none of its bytes
	}
	conn.AppendHeader(4)
	conn.AppendString("CAIRN.OWNED")
	conn.AppendArg(f.Key[:])
	conn.AppendInt(int64(f.Token))
	conn.AppendArg(have[:])
	size, err := conn.ReadArrayLen()
	if err != nil {
		return o, nil, err
	}
	var head [ownedSize]byte
	n, err := conn.ReadBulkInto(head[:])
	if err != nil {
		return o, nil, err
	}
	if n != ownedSize || size < 1 || size > 2 {
		return o, nil, fmt.Errorf("%w: malformed answer about an owned name", ErrPeer)
	}
	o.parse(head[:])
	if size == 1 {
		return o, nil, nil
	}
	loan, err = c.receiveOwned(ctx, conn, o.value)
	return o, loan, err
}

// receiveOwned reads the bytes of an owned object into the host tier, as a copy that may
// be evicted, and lends it.
func (c *coherence) receiveOwned(ctx context.Context, conn *resp.Conn, v ledger.Value) (*Loan, error) {
	d := block.Descriptor{Key: v.Object, Length: v.Length, Sum: v.Sum}
	if v.Length > block.MaxLength {
		return nil, fmt.Errorf("%w: an object of %d bytes", ErrPeer, v.Length)
	}
	r, evicted, err := c.n.host.Reserve(ctx, int(v.Length))
	c.n.evicted(block.Host, evicted)
	buf := []byte(nil)
	switch {
	case err == nil:
		buf = r.Bytes()
	case errors.Is(err, tier.ErrFull), errors.Is(err, tier.ErrTooLarge):
		r, buf = nil, make([]byte, v.Length)
	default:
		return nil, err
	}
	n, err := conn.ReadBulkInto(buf)
	if err == nil && (n != len(buf) || !d.Matches(buf)) {
		err = fmt.Errorf("%w: from the owner of a name", tier.ErrCorrupt)
	}
	if err != nil {
		if r != nil {
			r.Abort()
		}
		return nil, err
	}
	if r == nil {
		return &Loan{Descriptor: d, Bytes: buf, Origin: FromPeer}, nil
	}
	return c.n.cacheNamed(d, r)
}

// cairnOwned is CAIRN.OWNED key token have, by which a node asks the owner of a block for
// its newest version. It answers a head, and the bytes unless the name is absent or
// have is their object.
func (s *session) cairnOwned(ctx context.Context, w *resp.Writer, args [][]byte) {
	key, token, err := parseKeyToken(args)
	if err != nil {
		fail(w, err)
		return
	}
	have, err := parseKey(args[3])
	if err != nil {
		fail(w, err)
		return
	}
	c := s.n.coherence
	ctx, cancel := context.WithTimeout(ctx, s.n.cfg.NameWait)
	defer cancel()
	for range rereads {
		answer, err := c.ask(ctx, func(op protocol.Op) protocol.Event {
			return protocol.Read{Op: op, Key: key, Level: protocol.AsOwner, Token: token}
		})
		serve, ok := answer.(protocol.Serve)
		if err != nil || !ok {
			w.Error(wire.CodeUnavailable + " this node does not own the name")
			return
		}
		v := serve.Pointer.Value
		o := owned{version: serve.Pointer.Version, sequence: serve.Sequence, value: v}
		if !alive(v) || have == v.Object || have == (block.Key{0xff}) {
			w.Array(1)
			w.Bulk(o.append(nil))
			return
		}
		loans, _ := s.n.readNamed(ctx, []ledger.Value{v})
		if loans[0] == nil {
			continue // a newer version has taken its place
		}
		w.Array(2)
		w.Bulk(o.append(nil))
		w.BulkRef(loans[0].Bytes, loans[0])
		return
	}
	w.Error(wire.CodeUnavailable + " the bytes of the name cannot be read")
}
