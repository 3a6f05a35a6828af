package protocol

import (
	"math/bits"
	"slices"
	"strings"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
)

// The encoding of a state is a list of words. A part of it, a machine or a message,
// is encoded once and kept; what depends on the rest of the state is marked by
// a tag in the highest bits, and made canonical when the whole is hashed:
//
//   - A sequence, alone or in a place or version, becomes its rank among all that
//     the state has. Nothing looks at more of it than its order, and what comes
//     later is higher than all.
//   - The number of a message counts back from the last of its author's incarnation.
//   - A time becomes an age up to the one above which nothing depends on it, or what
//     is left until a deadline, down to 0.
//   - The number of a flush counts back from its machine's last.
const (
	tagSequence = iota + 1
	tagNumber
	tagAge
	tagDeadline
	tagInner
	tagShift = 61
)

type words []uint64

func (w *words) plain(list ...uint64) { *w = append(*w, list...) }

func (w *words) flag(list ...bool) {
	n := uint64(0)
	for _, f := range list {
		n <<= 1
		if f {
			n |= 1
		}
	}
	*w = append(*w, n)
}

func (w *words) version(v ledger.Version) {
	switch v {
	case 0:
		*w = append(*w, 0)
	case ^ledger.Version(0):
		*w = append(*w, 1<<60)
	default:
		*w = append(*w, tagSequence<<tagShift|uint64(v))
	}
}

func (w *words) sequence(s uint64) { w.version(ledger.Version(ledger.At(s, 0))) }

func (w *words) number(node int, incarnation, number uint64) {
	*w = append(*w, tagNumber<<tagShift|uint64(node)<<56|incarnation<<32|number)
}

func (w *words) age(t, most time.Duration) {
	*w = append(*w, tagAge<<tagShift|uint64(most/time.Millisecond)<<32|uint64(t/time.Millisecond))
}

func (w *words) deadline(t time.Duration) {
	*w = append(*w, tagDeadline<<tagShift|uint64(t/time.Millisecond))
}

func (w *words) inner(node int, id Op) {
	if id == 0 {
		*w = append(*w, 0)
		return
	}
	*w = append(*w, tagInner<<tagShift|uint64(node)<<56|uint64(id&^internalOp))
}

func (w *words) list(ops []Op) {
	n := uint64(0)
	for _, id := range ops {
		n = n<<10 | uint64(id) | 1<<9
	}
	*w = append(*w, n&(1<<60-1))
}

func (w *words) value(v ledger.Value) {
	n := v.Sum
	for _, h := range v.Homes {
		n = n<<4 | uint64(h)
	}
	*w = append(*w, n)
}

func (in *instance) record(w *words, r *ledger.Record) {
	w.plain(uint64(r.Kind)<<32|uint64(r.Flags)<<24|uint64(r.If)<<16|uint64(r.Copies)<<8|in.blockOf(r.Key), r.Incarnation<<8|r.Epoch)
	w.flag(r.Lease, r.Namespace != "")
	w.version(r.Expect)
	w.version(r.Token)
	w.version(r.Version)
	w.value(r.Value)
	if r.Kind == ledger.Expire {
		w.plain(uint64(nodeOf(r.Member)))
		w.sequence(r.Sequence)
	}
}

// blockOf numbers the blocks from 1.
func (in *instance) blockOf(key block.Key) uint64 { return uint64(slices.Index(in.keys, key) + 1) }

// nodeOf is the index of a node by its name, n1 and so on.
func nodeOf(id string) int { return int(id[1] - '1') }

func (in *instance) message(msg *ledger.Message) []uint64 {
	var w words
	w.number(nodeOf(msg.Node), msg.Incarnation, msg.Number)
	w.plain(uint64(nodeOf(msg.Node)), uint64(len(msg.Records)), msg.Incarnation)
	if in.settles {
		w.sequence(msg.Applied)
	}
	for i := range msg.Records {
		in.record(&w, &msg.Records[i])
	}
	return slices.Clip(w)
}

// ledger leaves out what no step depends on: how far members have applied the log if
// nothing waits for that, and when they were last heard of if nobody is expired.
func (in *instance) ledger(l *ledger.Ledger) []uint64 {
	w := make(words, 0, 64)
	w.sequence(l.Sequence())
	w.version(ledger.Version(l.Barrier()))
	w.plain(l.Epoch(), uint64(l.Orphaned()), min(l.Losses(), 2))
	for i := range l.Members() {
		mem := &l.Members()[i]
		w.number(i, mem.Incarnation, mem.Last)
		w.flag(mem.Live, mem.Durable)
		w.plain(mem.Incarnation<<16 | mem.Acked<<8 | uint64(mem.Owned))
		if in.budget[advances] > 0 {
			w.sequence(mem.Sequence)
		}
		if in.settles {
			w.sequence(mem.Applied)
		}
	}
	for _, key := range in.keys {
		p, ok := l.Table().Load(key)
		if !ok {
			w.plain(0)
			continue
		}
		in.pointer(&w, p)
	}
	if in.clears {
		w.version(ledger.Version(l.Cleared(space)))
	}
	return w
}

// space is the one namespace.
const space = "t"

func (in *instance) pointer(w *words, p ledger.Pointer) {
	w.version(p.Version)
	w.value(p.Value)
	w.version(ledger.Version(p.Changed))
	w.version(p.Token)
	n := uint64(p.Owner)<<40 | p.OwnerIncarnation<<8 | uint64(p.Copies)<<4
	if p.Lease {
		n |= 1
	}
	w.plain(n)
}

// Times above which nothing depends on an age.
const (
	leaseTime = time.Second
	patience  = leaseTime + leaseTime*50/1000 + 1*time.Millisecond
	mostAge   = 2 * leaseTime
)

func (in *instance) machine(node int, m *Machine) []uint64 {
	w := make(words, 0, 128)
	w.flag(m.away, m.owes, m.acking, true)
	w.plain(uint64(m.phase)<<48|m.incarnation<<8|uint64(m.number), uint64(m.flushes)<<16|uint64(m.musts))
	w.deadline(m.leased)
	w.age(m.lastSent, leaseTime)
	if in.budget[advances] > 0 {
		for _, o := range m.members {
			w.age(o.heard, patience)
			w.age(o.died, mostAge)
			w.flag(o.rehomed)
		}
		w.age(m.orphans, leaseTime)
	}
	for _, a := range m.asked {
		w.plain(uint64(a.what[0])<<8 | uint64(a.what[len(a.what)-1]))
		w.age(a.at, leaseTime)
	}
	w.plain(uint64(len(m.out)), uint64(len(m.flights)))
	for i := range m.out {
		in.record(&w, &m.out[i].rec)
		w.plain(uint64(m.out[i].op))
	}
	// What a flight's message says is in the outbox or in the log.
	for _, f := range m.flights {
		w.number(node, f.incarnation, f.number)
		w.deadline(f.sent + leaseTime)
		w.list(f.readers)
		for _, e := range f.entries {
			w.plain(uint64(e.op))
		}
	}
	for _, list := range [...][]Op{m.readers, m.early, m.sessions, m.unsealed, m.barriers} {
		w.list(list)
	}
	in.operations(&w, m)
	for i, key := range in.keys {
		if b := m.blocks[key]; b != nil {
			w.plain(uint64(i + 1))
			in.local(&w, node, b)
		}
		for _, s := range m.staged[key] {
			w.plain(1<<40|in.objectOf(s.object), uint64(nodeOf(s.author))<<32|s.incarnation)
			w.version(s.token)
			w.version(s.version)
		}
	}
	for _, list := range [...][]due{m.dirty, m.idle} {
		w.plain(uint64(len(list)))
		for _, d := range list {
			w.plain(in.blockOf(d.key))
			w.version(d.token)
			w.deadline(d.at)
		}
	}
	for _, key := range m.contended {
		w.plain(in.blockOf(key))
	}
	var ids [8]Op
	n := 0
	for id := range m.flushOps {
		ids[n] = id
		n++
	}
	slices.Sort(ids[:n])
	for _, id := range ids[:n] {
		w.inner(node, id)
		w.plain(in.blockOf(m.flushOps[id]))
	}
	return slices.Clip(w)
}

func (in *instance) operations(w *words, m *Machine) {
	var ids [32]Op
	n := 0
	for id := range m.ops {
		ids[n] = id
		n++
	}
	slices.Sort(ids[:n])
	for _, id := range ids[:n] {
		o := m.ops[id]
		w.plain(uint64(id)<<32 | uint64(o.kind)<<16 | o.born)
		w.flag(o.fenced, o.staged, o.staging, o.dead, o.done, o.asked)
		w.value(ledger.Value{Homes: o.homes})
		w.version(o.version)
		w.sequence(o.settle)
		w.version(ledger.Version(o.barrier))
		if o.done || o.version != 0 {
			w.version(o.result.After.Version)
			w.plain(o.result.Before.Value.Sum)
			w.flag(o.result.Err != nil)
		}
		if o.kind == reading {
			w.version(o.read.Refused)
			w.version(o.read.Token)
			w.plain(uint64(o.read.Level))
			w.sequence(o.read.Session)
		} else {
			w.version(o.write.Expect)
		}
	}
}

func (in *instance) local(w *words, node int, b *local) {
	w.list(b.waiting)
	w.deadline(b.nextAsk)
	w.flag(b.contended, b.asking, b.recalled, b.undecided)
	w.plain(uint64(b.staging))
	if b.token == 0 {
		return
	}
	w.version(b.token)
	w.sequence(b.since)
	for _, v := range [...]ledger.Version{b.from, b.last, b.version, b.base, b.must} {
		w.version(v)
	}
	w.value(b.value)
	w.plain(b.owner)
	w.age(b.lastWrite, mostAge)
	w.inner(node, b.flushing)
	if b.flushing != 0 || b.undecided {
		w.version(b.flushed)
		w.value(b.flushValue)
	}
	w.list(b.flushWaiters)
}

// hasher makes words canonical and hashes them to 64 bits.
type hasher struct {
	all  words
	rank [1024]uint16
}

// sum hashes the words of a state. Two states have the same with a probability of
// 2^-64, so that of n states two have with about n²/2^65: 10^-5 for 20 million.
func (h *hasher) sum(u *universe) uint64 {
	top := u.oracle.Sequence()
	rank := h.rank[:top+1]
	clear(rank)
	for _, x := range h.all {
		if x>>tagShift == tagSequence {
			rank[x&(1<<tagShift-1)>>20] = 1
		}
	}
	n := uint16(0)
	for i := range rank {
		n += rank[i]
		rank[i] = n
	}
	a, b := uint64(0x9e3779b97f4a7c15), uint64(len(h.all))
	for _, x := range h.all {
		switch x >> tagShift {
		case tagSequence:
			x &= 1<<tagShift - 1
			x = tagSequence<<tagShift | uint64(rank[x>>20])<<20 | x&(1<<20-1)
		case tagNumber:
			node, incarnation, number := x>>56&0x1f, x>>32&0xffffff, x&0xffffffff
			if m := u.sites[node].m; m != nil && m.incarnation == incarnation {
				x = tagNumber<<tagShift | (m.sent - number)
			}
		case tagAge:
			most, t := x>>32&0x1fffffff, x&0xffffffff
			x = tagAge<<tagShift | min(uint64(u.now/time.Millisecond)-t, most)
		case tagDeadline:
			t := x & (1<<tagShift - 1)
			x = tagDeadline<<tagShift | (max(uint64(u.now/time.Millisecond), t) - uint64(u.now/time.Millisecond))
		case tagInner:
			node, id := x>>56&0x1f, x&0xffffffff
			if m := u.sites[node].m; m != nil {
				x = tagInner<<tagShift | (uint64(m.inner)-id)&0xffff
			}
		}
		hi, lo := bits.Mul64(a^x, 0xd6e8feb86659fd93)
		a = hi ^ lo + 0x9e3779b97f4a7c15
		b = bits.RotateLeft64((b+x)*0xbf58476d1ce4e5b9, 29) ^ a
	}
	hi, lo := bits.Mul64(a^0xa0761d6478bd642f, b|1)
	return hi ^ lo ^ b
}

// hash is that of the canonical encoding of the state.
func (u *universe) hash(h *hasher) uint64 {
	in := u.in
	w := &h.all
	*w = append((*w)[:0], u.prefix[u.oracle.Sequence()]...)
	from := u.oracle.Sequence()
	for i := range in.nodes {
		s := u.sites[i]
		w.plain(s.disk, uint64(len(s.outbox))<<16|uint64(len(s.events)))
		for _, e := range s.homed {
			w.plain(in.objectOf(e.Value.Object), uint64(nodeOf(e.Author))<<32|e.Incarnation)
			w.version(e.Token)
			w.version(e.Version)
		}
		if s.m == nil {
			w.plain(0)
			continue
		}
		at := s.m.led.Sequence()
		from = min(from, at)
		w.sequence(at)
		if at != u.oracle.Sequence() {
			*w = append(*w, u.prefix[at]...)
		}
		*w = append(*w, s.words...)
		for _, p := range s.outbox {
			*w = append(*w, p.words...)
		}
		for _, e := range s.events {
			w.plain(in.blockOf(e.(Check).Key))
		}
	}
	for _, p := range u.log[from:] {
		*w = append(*w, p.words...)
	}
	w.plain(uint64(len(u.ghosts)))
	for _, p := range u.ghosts {
		*w = append(*w, p.words...)
	}
	u.hashWork(w)
	u.hashHistory(w)
	return h.sum(u)
}

// hashWork adds what moves bytes or waits for other nodes.
func (u *universe) hashWork(w *words) {
	in := u.in
	for _, s := range u.stages {
		w.plain(uint64(s.author)<<48|uint64(s.todo)<<40|s.e.Incarnation, in.objectOf(s.e.Value.Object))
		w.flag(s.generation == u.sites[s.author].generation, s.replicate, true)
		if s.e.Op&internalOp != 0 {
			w.inner(s.author, s.e.Op)
		} else {
			w.plain(uint64(s.e.Op))
		}
		w.version(s.e.Token)
		w.version(s.e.Version)
		w.value(s.e.Value)
	}
	for _, c := range u.calls {
		w.plain(uint64(c.op)<<32 | uint64(c.from)<<16 | uint64(c.to)<<8)
		w.flag(c.asked, c.generation == u.sites[c.to].generation, true)
		w.version(c.token)
	}
	for _, q := range u.inquiries {
		w.plain(uint64(q.node)<<8 | in.blockOf(q.e.Key) | 1<<20)
		w.version(q.e.Token)
	}
}

// hashHistory adds what clients have done and may have seen, and what may go wrong yet.
func (u *universe) hashHistory(w *words) {
	for _, c := range u.clients {
		w.plain(uint64(c.at)<<32 | uint64(c.saw)<<8)
		w.flag(c.busy)
		w.version(c.version)
		w.sequence(c.session)
	}
	n := uint64(0)
	for _, b := range u.budget {
		n = n<<4 | uint64(b)
	}
	w.plain(n, uint64(u.ticks))
	if u.in.compares {
		for i := 0; i < len(u.expect); i += 8 {
			n = 0
			for _, v := range u.expect[i : i+8] {
				n = n<<7 | uint64(v)
			}
			w.plain(n)
		}
	}
	for i := range u.in.keys {
		l := &u.history[i]
		w.plain(uint64(len(l.configs))<<32|uint64(l.pending)<<1, l.losses)
		for _, c := range l.configs {
			c.words(w)
		}
		w.version(u.durable[i])
		if u.in.barriers {
			w.version(u.acked[i])
			w.version(u.must[i])
		}
	}
}

// objectOf numbers the objects from 1; those of an instance are one a write.
func (in *instance) objectOf(key block.Key) uint64 {
	if key.IsZero() {
		return 0
	}
	return uint64(key[block.KeySize-1])
}

func (in *instance) object(b int, id Op) block.Key {
	key := in.keys[b]
	for i := 3; i < block.KeySize; i++ {
		key[i] ^= 0xa5
	}
	key[block.KeySize-1] = byte(id)
	return key
}

// describe shows a record for people.
func describe(msg *ledger.Message) string {
	var s strings.Builder
	for i := range msg.Records {
		r := &msg.Records[i]
		if i > 0 {
			s.WriteString("; ")
		}
		s.WriteString(r.Kind.String())
		recordDetail(&s, r)
	}
	if len(msg.Records) == 0 {
		return "heartbeat"
	}
	return s.String()
}
