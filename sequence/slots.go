package sequence

// idSet is a set of ids: a word of 64 neighbours an entry, because the slots of
// a pool are numbered densely. A million of them need 16,000 entries, which stay
// in the processor's cache; ids far apart cost an entry each.
type idSet map[BlockID]uint64

func (s idSet) has(id BlockID) bool { return s[id/64]>>(id%64)&1 != 0 }

// add tells whether the id is new.
func (s idSet) add(id BlockID) bool {
	word, bit := s[id/64], uint64(1)<<(id%64)
	if word&bit != 0 {
		return false
	}
	s[id/64] = word | bit
	return true
}

func (s idSet) remove(id BlockID) {
	if word := s[id/64] &^ (1 << (id % 64)); word != 0 {
		s[id/64] = word
	} else {
		delete(s, id/64)
	}
}

// fifo is ids in order of arrival; ids[:head] have left.
type fifo struct {
	ids  []BlockID
	head int
}

func (q *fifo) waiting() []BlockID { return q.ids[q.head:] }

// cut keeps the first n that wait, or all, and returns the others, until the next call
// that adds ids.
func (q *fifo) cut(n int) []BlockID {
	end := min(q.head+n, len(q.ids))
	rest := q.ids[end:]
	q.ids = q.ids[:end]
	q.drop(0)
	return rest
}

// drop removes the first n, and closes the gap once that moves fewer ids than
// have left: constant time an id, and no allocation in steady state.
func (q *fifo) drop(n int) {
	q.head += n
	if 2*q.head >= len(q.ids) {
		q.ids = q.ids[:copy(q.ids, q.waiting())]
		q.head = 0
	}
}
