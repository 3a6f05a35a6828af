package node

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/tier"
)

// Errors of sequences. What a caller can do about each is in its text.
var (
	// ErrSequence: there is no such open sequence.
	ErrSequence = errors.New("no such open sequence")
	// ErrSequenceLimit: a limit of the configuration on sequences.
	ErrSequenceLimit = errors.New("limit of sequences")
	// ErrPins: sequences have pinned as much of a tier as they may; [*PinsError].
	ErrPins = errors.New("too much pinned by sequences")
	// ErrNoTier: blocks cannot be onboarded into that tier.
	ErrNoTier = errors.New("no such tier for sequences")
	// ErrPosition: blocks that the sequence does not have.
	ErrPosition = errors.New("position outside the sequence")
)

// PinsError says how much of a tier sequences have pinned. errors.Is finds ErrPins.
type PinsError struct {
	Tier block.Tier
	// Length is of the block that there is no room for, Pinned what is pinned and
	// Limit what may be, all in bytes.
	Length, Pinned, Limit int64
}

func (e *PinsError) Error() string {
	return fmt.Sprintf("%v: %d of at most %d bytes of %s, and %d more are needed: close or truncate sequences, or raise sequence-pins",
		ErrPins, e.Pinned, e.Limit, e.Tier, e.Length)
}

// Unwrap is ErrPins.
func (e *PinsError) Unwrap() error { return ErrPins }

// sequences is every open sequence of a node, and what they pin.
type sequences struct {
	n     *Node
	limit [block.Tiers]int64 // bytes that may be pinned
	ahead [block.Tiers]int64 // of these, by prefetches

	claims claims

	opened      atomic.Int64
	expired     atomic.Int64
	onboards    atomic.Int64
	cancelled   atomic.Int64
	onboarding  atomic.Int64 // time, in nanoseconds
	blocks      [origins]atomic.Int64
	blockBytes  [origins]atomic.Int64
	refusedPins atomic.Int64
	missed      atomic.Int64
	usedAhead   atomic.Int64 // blocks

	// mu guards what follows.
	mu     sync.Mutex
	closed bool
	open   map[uint64]*Sequence
	last   uint64
	pins   [block.Tiers]map[block.Key]sharedPin
	pinned [block.Tiers]int64 // bytes, without those that only prefetches pin
	early  [block.Tiers]int64 // bytes that only prefetches pin
	held   [block.Tiers]int   // blocks that sequences pin
}

// sharedPin is a block that sequences pin: it counts once, however many they are, and as
// long as there is one it does not count for prefetches.
type sharedPin struct {
	refs   uint32 // of sequences
	ahead  uint32 // of prefetches
	length uint32
	used   bool // a sequence has pinned it since a prefetch has
}

func newSequences(n *Node) *sequences {
	q := &sequences{n: n, open: map[uint64]*Sequence{}}
	for t, store := range n.stores {
		q.pins[t] = map[block.Key]sharedPin{}
		if store != nil {
			capacity := float64(store.Stats().Capacity)
			q.limit[t] = int64(n.cfg.SequencePins * capacity)
			q.ahead[t] = min(int64(n.cfg.PrefetchPins*capacity), q.limit[t])
		}
	}
	return q
}

// enter makes s an open sequence.
func (q *sequences) enter(s *Sequence) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrClosed
	case len(q.open) >= q.n.cfg.Sequences:
		return fmt.Errorf("%w: this node has %d open, max-sequences is %d: close some, or use another node", ErrSequenceLimit, len(q.open), q.n.cfg.Sequences)
	}
	q.last++
	s.id = q.last
	q.open[s.id] = s
	q.opened.Add(1)
	return nil
}

func (q *sequences) leave(s *Sequence) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, s.id)
}

// find is the open sequence with this id.
func (q *sequences) find(id uint64) (*Sequence, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s, ok := q.open[id]
	return s, ok
}

// has tells whether a sequence, or a prefetch, has pinned the block in some tier.
func (q *sequences) has(key block.Key) bool {
	if q == nil { // the node is being made
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for t := range q.pins {
		if _, ok := q.pins[t][key]; ok {
			return true
		}
	}
	return false
}

// lose lets go of everything that sequences have in a tier whose device is gone. Onboards
// into it end.
func (q *sequences) lose(t block.Tier) {
	q.mu.Lock()
	open := make([]*Sequence, 0, len(q.open))
	for _, s := range q.open {
		open = append(open, s)
	}
	q.mu.Unlock()
	for _, s := range open {
		s.lose(t)
	}
}

// close closes every sequence; no more are opened.
func (q *sequences) close() {
	q.mu.Lock()
	q.closed = true
	var open []*Sequence
	for _, s := range q.open {
		open = append(open, s)
	}
	q.mu.Unlock()
	for _, s := range open {
		s.Close()
	}
}

// pinner is the store of a tier that sequences may use.
func (q *sequences) pinner(t block.Tier) (tier.Pinner, error) {
	if t != block.VRAM && t != block.Host {
		return nil, fmt.Errorf("%w: %s: want vram or host", ErrNoTier, t)
	}
	p, ok := q.n.stores[t].(tier.Pinner)
	if !ok || q.n.lost[t].Load() {
		return nil, fmt.Errorf("%w: this node has no %s", ErrNoTier, t)
	}
	return p, nil
}

// take lets one more sequence pin a block, if the tier's limit allows it. Prefetches are
// let go of where there is no room for both. give undoes it.
func (q *sequences) take(t block.Tier, key block.Key, length uint32) error {
	q.mu.Lock()
	p := q.pins[t][key]
	if p.refs == 0 {
		if q.pinned[t]+int64(length) > q.limit[t] {
			defer q.mu.Unlock()
			q.refusedPins.Add(1)
			return &PinsError{Tier: t, Length: int64(length), Pinned: q.pinned[t], Limit: q.limit[t]}
		}
		q.pinned[t] += int64(length)
		q.held[t]++
		if p.ahead > 0 {
			q.early[t] -= int64(p.length)
		}
	}
	if p.ahead > 0 && !p.used {
		p.used = true
		q.usedAhead.Add(1)
	}
	p.refs++
	p.length = length
	q.pins[t][key] = p
	crowded := q.crowdedLocked(t)
	q.mu.Unlock()
	if crowded {
		q.n.prefetches.giveWay(func() bool { return q.crowded(t) })
	}
	return nil
}

// takeAhead lets one more prefetch pin a block, if that leaves sequences what they have.
func (q *sequences) takeAhead(t block.Tier, key block.Key, length uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.pins[t][key]
	if p.refs == 0 && p.ahead == 0 {
		most := min(q.ahead[t], q.limit[t]-q.pinned[t])
		if q.early[t]+int64(length) > most {
			return &PinsError{Tier: t, Length: int64(length), Pinned: q.early[t], Limit: most}
		}
		q.early[t] += int64(length)
		p.length = length
	}
	p.ahead++
	q.pins[t][key] = p
	return nil
}

// give takes back what take, or takeAhead, has allowed.
func (q *sequences) give(t block.Tier, key block.Key, ahead bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.pins[t][key]
	switch {
	case ahead:
		if p.ahead--; p.ahead == 0 && p.refs == 0 {
			q.early[t] -= int64(p.length)
		}
	default:
		if p.refs--; p.refs == 0 {
			q.pinned[t] -= int64(p.length)
			q.held[t]--
			if p.ahead > 0 {
				q.early[t] += int64(p.length)
			}
		}
	}
	if p.refs == 0 && p.ahead == 0 {
		delete(q.pins[t], key)
		return
	}
	q.pins[t][key] = p
}

// crowded tells whether prefetches pin what sequences need.
func (q *sequences) crowded(t block.Tier) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.crowdedLocked(t)
}

func (q *sequences) crowdedLocked(t block.Tier) bool {
	return q.early[t] > 0 && q.early[t]+q.pinned[t] > q.limit[t]
}

// pinnedAhead is how many bytes of a tier only prefetches pin.
func (q *sequences) pinnedAhead(t block.Tier) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.early[t]
}

// hold is one sequence's pin on a block of a tier: a sequence.Pin. The zero value holds
// nothing. A user who removes the block overrides it.
type hold struct {
	q      *sequences
	tier   block.Tier
	key    block.Key
	object uint64 // of tier.Pinner.PinExact: a block that has come back has another
	// ahead: the sequence is a prefetch's.
	ahead bool
}

// Release lets the block be evicted, as far as this sequence is concerned.
func (h hold) Release() {
	if h.q == nil {
		return
	}
	if p, ok := h.q.n.stores[h.tier].(tier.Pinner); ok {
		p.UnpinExact(h.key, h.object)
	}
	h.q.give(h.tier, h.key, h.ahead)
	h.q.n.room.notify()
}

// count takes note of an onboard that has ended.
func (q *sequences) count(got Onboarded, err error) {
	q.onboards.Add(1)
	q.onboarding.Add(int64(got.Elapsed))
	for o := range origins {
		q.blocks[o].Add(int64(got.Blocks[o]))
		q.blockBytes[o].Add(got.Bytes[o])
	}
	switch {
	case got.Missing != "":
		q.missed.Add(1)
	case err != nil:
		q.cancelled.Add(1)
	}
}

// SequencesStatus sums up the sequences of a node. Counters count since the node
// started.
type SequencesStatus struct {
	Open   int   `json:"open"`
	Opened int64 `json:"opened"`
	// Expired were closed because nobody used them.
	Expired int64 `json:"expired"`
	// Pinned is what open sequences keep in the tiers that they may use.
	Pinned []PinnedStatus `json:"pinned"`
	// Onboards ended, of which Cancelled before their end; Seconds is the time of all.
	Onboards  int64   `json:"onboards"`
	Cancelled int64   `json:"cancelled"`
	Seconds   float64 `json:"onboard_seconds"`
	// Onboarded and OnboardedBytes are blocks by where they came from: vram, host,
	// disk or peer.
	Onboarded      map[string]int64 `json:"onboarded"`
	OnboardedBytes map[string]int64 `json:"onboarded_bytes"`
	// Missed counts onboards that ended before a block that could not be had.
	Missed int64 `json:"missed"`
	// RefusedPins counts blocks for which the share of sequences was too small.
	RefusedPins int64 `json:"refused_pins"`
}

// PinnedStatus is what open sequences keep in one tier. A block counts once.
type PinnedStatus struct {
	Tier   block.Tier `json:"tier"`
	Blocks int        `json:"blocks"`
	Bytes  int64      `json:"bytes"`
	Limit  int64      `json:"limit"` // bytes
}

func (q *sequences) status() SequencesStatus {
	st := SequencesStatus{
		Opened: q.opened.Load(), Expired: q.expired.Load(), Onboards: q.onboards.Load(), Cancelled: q.cancelled.Load(),
		Seconds: time.Duration(q.onboarding.Load()).Seconds(), Missed: q.missed.Load(), RefusedPins: q.refusedPins.Load(),
		Onboarded: map[string]int64{}, OnboardedBytes: map[string]int64{},
	}
	for o := range Origin(origins) {
		st.Onboarded[o.String()] = q.blocks[o].Load()
		st.OnboardedBytes[o.String()] = q.blockBytes[o].Load()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	st.Open = len(q.open)
	for _, t := range []block.Tier{block.VRAM, block.Host} {
		if q.n.stores[t] != nil {
			st.Pinned = append(st.Pinned, PinnedStatus{Tier: t, Blocks: q.held[t], Bytes: q.pinned[t], Limit: q.limit[t]})
		}
	}
	return st
}
