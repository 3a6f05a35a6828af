package protocol

import (
	"slices"
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
//   - The number of a message counts back from the last of its author's incarnation. Those
//     of earlier incarnations stay as they are: some states that are the same count as two.
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
	mostDeath = 3 * leaseTime // RehomeAfter, and two leases
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
			w.age(o.died, mostDeath)
			w.flag(o.rehomed)
		}
		w.age(m.orphans, leaseTime)
		w.deadline(m.homeless)
		w.flag(m.homeless != 0)
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
	in.blocks(&w, node, m)
	return slices.Clip(w)
}

// blocks adds what the machine knows of blocks, and when it looks at them.
func (in *instance) blocks(w *words, node int, m *Machine) {
	for i, key := range in.keys {
		if b := m.blocks[key]; b != nil {
			w.plain(uint64(i + 1))
			in.local(w, node, b)
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
		if o.result != nil {
			w.version(o.result.After.Version)
			w.plain(o.result.Before.Value.Sum)
			w.flag(o.result.Err != nil)
		}
		if o.kind == reading {
			w.version(o.read.Refused)
			w.version(o.read.Token)
			w.plain(uint64(o.read.Level))
			w.sequence(o.read.Session)
		} else if o.write != nil {
			w.version(o.write.Expect)
		}
	}
}

func (in *instance) local(w *words, node int, b *local) {
	w.list(b.waiting)
	w.deadline(b.nextAsk)
	w.deadline(b.yield)
	w.flag(b.contended, b.asking, b.recalled, b.wanted, b.undecided)
	w.plain(uint64(b.staging)<<32 | uint64(b.first))
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
