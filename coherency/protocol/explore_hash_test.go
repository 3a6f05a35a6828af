package protocol

import (
	"math/bits"
	"time"
)

// hasher makes words canonical and hashes them to 64 bits.
type hasher struct {
	all  words
	rank [1024]uint16
}

// sum hashes the words of a state. Two states have the same with a probability of
// 2^-64, so that of n states two have with about n²/2^65: 10^-5 for 20 million.
func (h *hasher) sum(u *universe, from uint64) uint64 {
	top := u.oracle.Sequence()
	rank := h.rank[:top+1]
	clear(rank)
	for i := from; i <= top; i++ {
		rank[i] = 1 // what is still to be delivered has its place among the others
	}
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
	return h.sum(u, from)
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
