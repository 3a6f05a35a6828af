package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"cairn/block"
)

// DrainOptions say how a node that drains hands over its blocks.
type DrainOptions struct {
	// Evict is the share of its capacity, 0 to 1, for which each receiver may evict
	// blocks of its own beyond giving its free room. 0: none.
	Evict float64
}

// HandoverStatus is how far a node that drains is. Blocks are sealed blocks of which no
// other member holds a copy in its home tier; counters count since the drain began.
type HandoverStatus struct {
	Draining bool `json:"draining"`
	// Phase is what it does at present; see the constants.
	Phase HandoverPhase `json:"phase"`
	// Safe: the last look found nothing that would be lost with the node, and nothing
	// has come there since.
	Safe bool `json:"safe"`
	// Blocks and Bytes have been handed over.
	Blocks int64 `json:"blocks"`
	Bytes  int64 `json:"bytes"`
	// LeftBlocks and LeftBytes are still only here.
	LeftBlocks int64 `json:"left_blocks"`
	LeftBytes  int64 `json:"left_bytes"`
	// Names have got another home since the drain began; of LeftNames this node is still
	// the only home.
	Names     int64 `json:"names"`
	LeftNames int64 `json:"left_names"`
	// Refused are those of the blocks left that nobody has taken since the last look, by
	// reason.
	Refused map[TakeRefusal]int64 `json:"refused,omitempty"`
	// Receivers are the members that take part, by name.
	Receivers []ReceiverStatus `json:"receivers,omitempty"`
	// Trouble is why nothing can be handed over at all; else empty.
	Trouble string `json:"trouble,omitempty"`
}

// Left tells whether something would be lost with the node.
func (s HandoverStatus) Left() bool { return s.LeftBlocks > 0 || s.LeftNames > 0 }

// ReceiverStatus is what one member has taken over.
type ReceiverStatus struct {
	Node   string `json:"node"`
	Blocks int64  `json:"blocks"`
	Bytes  int64  `json:"bytes"`
	Room   int64  `json:"room"` // bytes that it may be given yet
	// Refuses is why it takes no more for now; empty while it does.
	Refuses TakeRefusal `json:"refuses,omitempty"`
}

// HandoverPhase is what a drain does at present.
type HandoverPhase string

// The phases. A drain goes from Looking over Giving back to Looking until a look finds
// nothing to give, and then waits for blocks to come, members to change, or room.
const (
	HandoverOff     HandoverPhase = "off"
	HandoverLooking HandoverPhase = "looking"
	HandoverGiving  HandoverPhase = "giving"
	HandoverWaiting HandoverPhase = "waiting"
)

// TakeNobody: there is no other member that stays.
const TakeNobody TakeRefusal = "nobody"

// tally counts what a receiver has taken over.
type tally struct{ blocks, bytes int64 }

// handover gives the blocks that only this node has to other members, while it drains.
// One goroutine runs it (loop); the chains of a pass are carried by several.
type handover struct {
	n    *Node
	wake chan struct{} // something was asked for; holds one
	pace pace
	// placed is who took which block in the last pass; the loop's. The index may not show it:
	// its memory can be bounded.
	placed map[block.Key][]*receiver

	// mu guards what follows.
	mu        sync.Mutex
	options   DrainOptions
	status    HandoverStatus
	gained    int64 // by the node, when the last look began
	open      bool  // then it did not know yet of what name an object is that only it has
	receivers map[string]*receiver
	tally     map[string]*tally  // by receiver, since the drain began
	cancel    context.CancelFunc // of the drain under way, or nil
}

func (h *handover) init(n *Node) {
	h.n, h.wake = n, make(chan struct{}, 1)
	h.pace.rate = n.cfg.HandoverRate
	h.status = HandoverStatus{Phase: HandoverOff}
}

// Drain begins to hand over the blocks that only this node has, and goes on doing so
// with those that come, until Undrain or Close. Called again it looks anew, by the new
// options, and asks the receivers again for their room. It does not wait.
func (n *Node) Drain(o DrainOptions) error {
	if !(o.Evict >= 0 && o.Evict <= 1) {
		return fmt.Errorf("node: drain: evict %v: want 0 to 1", o.Evict)
	}
	h := &n.handover
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.status.Draining {
		h.status, h.tally = HandoverStatus{Draining: true}, map[string]*tally{}
	}
	h.options, h.receivers = o, map[string]*receiver{}
	h.status.Phase, h.status.Safe, h.status.Receivers = HandoverLooking, false, nil
	h.restart()
	return nil
}

// Undrain ends a drain. What has been handed over stays where it is.
func (n *Node) Undrain() {
	h := &n.handover
	h.mu.Lock()
	h.status.Draining, h.status.Phase, h.status.Safe = false, HandoverOff, false
	h.restart()
	h.mu.Unlock()
	n.coherence.tellDraining()
}

// drains tells whether the node drains.
func (n *Node) drains() bool {
	n.handover.mu.Lock()
	defer n.handover.mu.Unlock()
	return n.handover.status.Draining
}

// restart ends the drain under way, if there is one, and has the loop look at what is
// wanted now. The caller holds mu.
func (h *handover) restart() {
	if h.cancel != nil {
		h.cancel()
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Handover is how far the node's drain is.
func (n *Node) Handover() HandoverStatus {
	h := &n.handover
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.status
	s.Safe = s.Safe && h.gained == n.gained()
	s.Refused = maps.Clone(s.Refused)
	for _, id := range slices.Sorted(maps.Keys(h.receivers)) {
		r := h.receivers[id]
		receiver := ReceiverStatus{Node: id, Room: max(r.grant-r.given, 0), Refuses: r.refused}
		if t := h.tally[id]; t != nil {
			receiver.Blocks, receiver.Bytes = t.blocks, t.bytes
		}
		s.Receivers = append(s.Receivers, receiver)
	}
	return s
}

// loop drains whenever that is asked for, until ctx ends.
func (h *handover) loop(ctx context.Context) {
	for {
		select {
		case <-h.wake:
			h.drain(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// drain passes over what the node holds again and again until it is undone.
func (h *handover) drain(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.mu.Lock()
	if !h.status.Draining {
		h.mu.Unlock()
		return
	}
	h.cancel = cancel
	h.mu.Unlock()
	for ctx.Err() == nil {
		if h.pass(ctx) == 0 { // else there may be more by now
			h.await(ctx)
		}
	}
}

// glances is how often within HandoverEvery a node looks whether anything was put into it
// that it should hand over, and which members drain.
const glances = 10

func (c Config) glance() time.Duration { return max(c.HandoverEvery/glances, time.Millisecond) }

// gained counts what has come to the node to stay: what was put here, taken over from others, or
// staged because this node is a home of it.
func (n *Node) gained() int64 {
	return n.counters.puts.Load() + n.counters.taken.Load() + n.coherence.counters.arrived.Load()
}

// await returns when something has come to the node, or after
// Config.HandoverEvery: members may have come or gone, and copies with them.
func (h *handover) await(ctx context.Context) {
	tick := time.NewTicker(h.n.cfg.glance())
	defer tick.Stop()
	for range glances {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		h.mu.Lock()
		news, open := h.gained != h.n.gained(), h.open
		h.mu.Unlock()
		if news || open && !h.n.coherence.homed.open() {
			return
		}
	}
}

// set changes the status, unless the drain was undone meanwhile.
func (h *handover) set(ctx context.Context, change func(s *HandoverStatus)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() == nil {
		change(&h.status)
	}
}

// pass looks at all that the node holds and hands over what is only here. It returns how
// many blocks it has handed over.
func (h *handover) pass(ctx context.Context) (handed int64) {
	h.set(ctx, func(s *HandoverStatus) { s.Phase = HandoverLooking })
	// What comes from here on is found missing in gained, if not by this look. An object whose name
	// the log has not told yet is among the names that are counted later, or open.
	gained := h.n.gained()
	open := h.n.coherence.homed.open()
	staying, trouble := h.probe(ctx)
	h.rehome(ctx, len(staying) > 0)
	sole, blocks, bytes := h.soles(ctx, staying)
	h.placed = nil
	h.set(ctx, func(s *HandoverStatus) {
		h.gained, h.open = gained, open
		s.LeftBlocks, s.LeftBytes, s.Refused = blocks, bytes, map[TakeRefusal]int64{}
		s.Trouble = ""
		if s.Safe = !s.Left() && !open; s.Left() {
			s.Trouble = trouble
		}
		s.Phase = HandoverGiving
	})
	if len(sole) > 0 {
		p := newPass(h, staying)
		handed = p.run(ctx, chains(sole))
		h.placed = p.placed
	}
	if handed == 0 {
		h.set(ctx, func(s *HandoverStatus) { s.Phase = HandoverWaiting })
	}
	return handed
}

// rehome has other homes made for the names of which this node is the only one, and returns
// when they have them, or none has got one although there was time for a copy.
func (h *handover) rehome(ctx context.Context, anybody bool) {
	c := h.n.coherence
	left := c.drain(ctx)
	h.set(ctx, func(s *HandoverStatus) {
		s.Names += max(s.LeftNames-left, 0) // after the last look had lost its patience
		s.LeftNames = left
	})
	most := h.n.cfg.NameWait + rehomePatience
	patience := time.NewTimer(most)
	defer patience.Stop()
	for anybody && left > 0 {
		select {
		case <-time.After(rehomePoll):
		case <-patience.C:
			return
		case <-ctx.Done():
			return
		}
		now := c.soleHomes()
		if now < left {
			patience.Reset(most)
		}
		h.set(ctx, func(s *HandoverStatus) {
			s.Names += max(left-now, 0)
			s.LeftNames = now
		})
		left = now
	}
}

const (
	// rehomePatience is how much longer than a copy may take, which is Config.NameWait, a look waits
	// for names to get another home while none does, rehomePoll how often it counts them.
	rehomePatience = 2 * time.Second
	rehomePoll     = 50 * time.Millisecond
)

// probe asks the other members for their room. staying are those that answer and do not
// drain: what they hold stays in the cluster. trouble says why there are none.
func (h *handover) probe(ctx context.Context) (staying map[string]*receiver, trouble string) {
	staying = map[string]*receiver{}
	var silent, draining []string
	for _, m := range h.n.peers.Others() {
		if m.Draining {
			draining = append(draining, m.Node)
			continue
		}
		t, err := h.ask(ctx, m.Addr, nil)
		switch {
		case err != nil:
			silent = append(silent, m.Node)
			h.n.log.Debug("member does not answer to a hand-over", "member", m.Node, "err", err)
		case t.Refused == TakeDraining: // its record does not say so yet
			draining = append(draining, m.Node)
		default:
			staying[m.Node] = h.receiver(m, t)
		}
	}
	switch {
	case len(staying) > 0:
	case len(silent) > 0:
		trouble = "no other node answers: " + strings.Join(silent, ", ")
	case len(draining) > 0:
		trouble = "every other node drains: " + strings.Join(draining, ", ")
	default:
		trouble = "there is no other node"
	}
	return staying, trouble
}

// receiver is what is known of a member from earlier passes. What it may be given is
// counted from the room that it had when this drain first met it.
func (h *handover) receiver(m Neighbour, t Taken) *receiver {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.receivers[m.Node]
	if r == nil {
		r = &receiver{grant: int64(h.n.cfg.HandoverShare*float64(t.Free) + h.options.Evict*float64(t.Capacity))}
		h.receivers[m.Node] = r
	}
	if r.refused != TakeFull || t.Free > r.free { // it need not be asked again and again
		r.refused = ""
	}
	r.Neighbour, r.free = m, t.Free
	return r
}

// ask has the member at addr take over blocks of this node; without keys it tells its
// room.
func (h *handover) ask(ctx context.Context, addr string, keys []block.Key) (Taken, error) {
	n := h.n
	h.mu.Lock()
	evict := h.options.Evict > 0
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.FetchTimeout) // the other waits for this node as long as FetchTimeout
	defer cancel()
	return n.dialer.take(ctx, addr, n.cfg.ID, evict, keys)
}

// lookBlocks is the most blocks that are handed over between two looks, each of which takes
// some 200 bytes meanwhile.
const lookBlocks = 1 << 20

// soles are the sealed blocks that no staying member holds in its home tier, at most
// lookBlocks of them, and how many blocks and bytes they are all together.
func (h *handover) soles(ctx context.Context, staying map[string]*receiver) (sole []soleBlock, blocks, bytes int64) {
	var found []soleBlock
	var keys []block.Key
	for shard := range shards {
		if ctx.Err() != nil {
			return nil, 0, 0
		}
		found, keys = found[:0], keys[:0]
		h.n.dir.scan(shard, func(k block.Key, e entry) bool {
			if !k.Named() {
				found, keys = append(found, soleBlock{e.descriptor(k), e.worth()}), append(keys, k)
			}
			return true
		})
		for i, holders := range h.n.peers.Locate(keys) {
			if h.kept(keys[i], holders, staying) {
				continue
			}
			blocks++
			bytes += int64(found[i].Length)
			if len(sole) < lookBlocks {
				sole = append(sole, found[i])
			}
		}
	}
	return sole, blocks, bytes
}

// kept tells whether a staying member has the block in its home tier, by the index or by
// its own word in the last pass.
func (h *handover) kept(key block.Key, holders []Holder, staying map[string]*receiver) bool {
	return slices.ContainsFunc(holders, func(o Holder) bool { return staying[o.Node].keeps(o.Tiers) }) ||
		slices.ContainsFunc(h.placed[key], func(r *receiver) bool { return staying[r.Node] == r })
}

// keeps tells whether a member that has a block in tiers has it in its home; r is nil for
// one that does not stay.
func (r *receiver) keeps(tiers block.TierMask) bool {
	if r == nil {
		return false
	}
	if r.Disk {
		return tiers.Has(block.Disk)
	}
	return tiers.Has(block.Host)
}

// worth compares blocks by what the directory knows of their use: those that are still in
// memory have been used later than those only on disk, and reads are counted.
func (e entry) worth() uint32 {
	w := uint32(e.uses)
	if e.state.Has(block.Host) || e.state.Has(block.VRAM) {
		w += inMemory
	}
	return w
}

// inMemory is more than any number of reads that an entry counts.
const inMemory = 1 << 8

// pace spreads bytes over time. The zero value does not.
type pace struct {
	rate int64 // bytes a second; 0 is no limit

	// mu guards next, the time at which the bytes granted so far are through.
	mu   sync.Mutex
	next time.Time
}

// wait returns when bytes more may follow; false: ctx has ended.
func (p *pace) wait(ctx context.Context, bytes int64) bool {
	if p.rate <= 0 {
		return ctx.Err() == nil
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	due := p.next
	p.next = due.Add(time.Duration(float64(bytes) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	timer := time.NewTimer(due.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// handoverProblem is what is wrong with the limits of a hand-over.
func (c Config) handoverProblem() error {
	var errs []error
	if !(c.HandoverShare >= 0 && c.HandoverShare <= 1) { // also refuses NaN
		errs = append(errs, fmt.Errorf("handover-share %v: want above 0, to 1", c.HandoverShare))
	}
	if c.HandoverChains < 0 || c.HandoverRate < 0 || c.HandoverEvery < 0 {
		errs = append(errs, fmt.Errorf("handover-chains %d, handover-rate %d, handover-every %v: must not be negative", c.HandoverChains, c.HandoverRate, c.HandoverEvery))
	}
	return errors.Join(errs...)
}
