package simulate

import (
	"time"

	"cairn/block"
	"cairn/eviction"
	"cairn/router"
)

// store is the memory of a virtual node. It gives its blocks ids 0 to room−1.
type store struct {
	policy eviction.Policy
	ids    []uint32 // by number in the workload: id plus one, 0 when absent
	held   []uint32 // by id: the number
	keys   []block.Key
	room   int
	// changes are those since the index was last told, when it is.
	changes []router.Change
	indexed bool
}

func newStore(blocks, room int, indexed bool) *store {
	return &store{ids: make([]uint32, blocks), room: room, indexed: indexed}
}

func (s *store) has(number uint32) bool { return s.ids[number] != 0 }

// prefix is how many blocks of the request, from the first on, are here.
func (s *store) prefix(r *Request) int {
	for i, n := range r.numbers {
		if !s.has(n) {
			return i
		}
	}
	return len(r.numbers)
}

// touch is a use of blocks from…to−1 of the request, as far as they are here.
func (s *store) touch(r *Request, from, to int) {
	for i := to - 1; i >= from; i-- {
		if id := s.ids[r.numbers[i]]; id != 0 {
			s.policy.Touch(id-1, r.At)
		}
	}
}

// put stores blocks from…to−1 of the request that are not here.
func (s *store) put(r *Request, from, to int) {
	for at := from; at < to; at++ {
		number := r.numbers[at]
		if s.has(number) {
			continue
		}
		id, ok := s.slot(r.At)
		if !ok {
			return
		}
		s.ids[number], s.held[id], s.keys[id] = id+1, number, r.Keys[at]
		s.policy.Insert(id, eviction.Block{Key: r.Keys[at], Parent: r.parent(at)}, r.At)
		s.tell(r.Keys[at], true)
	}
}

// slot is the id of a free slot, made free if it must be.
func (s *store) slot(now time.Duration) (id uint32, ok bool) {
	if len(s.held) < s.room {
		s.held, s.keys = append(s.held, 0), append(s.keys, block.Key{})
		return uint32(len(s.held) - 1), true
	}
	id, ok = s.policy.Victim(0, now)
	if !ok {
		return 0, false
	}
	s.policy.Evict(id, now)
	s.ids[s.held[id]] = 0
	s.tell(s.keys[id], false)
	return id, true
}

func (s *store) tell(k block.Key, stored bool) {
	if s.indexed {
		s.changes = append(s.changes, router.Change{Key: k, Tier: block.Host, Stored: stored})
	}
}
