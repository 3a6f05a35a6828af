package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"cairn/router"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// strangerKeep is for how long events of a node that is not a member are kept:
	// its record may be a moment behind.
	strangerKeep = 30 * time.Second
	// maxStrangers bounds how many such nodes there may be.
	maxStrangers = 1024
	// primeTimeout bounds what Ready waits for the snapshot of one member.
	primeTimeout = 10 * time.Second
	// opSnapshot is the RPC by which a node is asked for a snapshot.
	opSnapshot = "snapshot"
	// opStatus is the RPC that answers how a node is.
	opStatus = "status"
	// opDrain is the RPC by which a node is asked to drain.
	opDrain = "drain"
)

// member takes note of a change of the membership.
func (v *View) member(ctx context.Context, e MemberEvent) {
	if e.Change == MembersSynced {
		close(v.synced)
		return
	}
	m := e.Member
	v.mu.Lock()
	defer v.mu.Unlock()
	all := maps.Clone(*v.members.Load())
	if e.Change == MemberLeft {
		delete(all, m.ID)
	} else {
		all[m.ID] = m
	}
	v.members.Store(&all)
	for _, handle := range v.handlers {
		handle(e)
	}
	s := v.sources[m.ID]
	if s != nil && (e.Change == MemberLeft || s.number != m.Incarnation) {
		v.leave(s)
		s = nil
	}
	if e.Change != MemberLeft {
		if s == nil {
			s = v.join(ctx, m)
		}
		info, err := nodeInfo(m, s.generation)
		if err != nil {
			v.cfg.Logger.Warn("a member's label is not understood", "member", m.ID, "error", err)
		}
		if err := v.index.SetNode(info); err != nil {
			v.refused.Add(1)
			v.cfg.Logger.Error("member is left out of the index", "member", m.ID, "error", err)
		}
		v.drain(s)
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

// join makes a source for a new member. View.mu is held.
func (v *View) join(ctx context.Context, m Member) *source {
	past := v.past[m.ID]
	key := incarnation{m.ID, m.Incarnation}
	s := v.strangers[key]
	delete(v.strangers, key)
	if s == nil {
		s = &source{id: m.ID, number: m.Incarnation}
	}
	s.generation = max(m.Incarnation, past.generation+1)
	ctx, s.cancel = context.WithCancel(ctx)
	s.spawn = func(work func(context.Context)) { v.wg.Go(func() { work(ctx) }) }
	for i := range s.stash {
		s.stash[i].Incarnation = s.generation
	}
	v.past[m.ID] = pastMember{m.Incarnation, s.generation}
	v.sources[m.ID] = s
	select {
	case <-v.synced:
	default:
		v.waiting[s] = struct{}{}
	}
	return s
}

// leave takes a member out of all answers at once. View.mu is held.
func (v *View) leave(s *source) {
	s.cancel()
	delete(v.sources, s.id)
	v.giveUp(s)
	v.index.RemoveNode(s.id, s.generation)
	v.settle(s)
	v.wg.Go(func() {
		for v.index.Sweep() {
		}
	})
}

// settle tells Ready that nothing is to be waited for from s. View.mu is held.
func (v *View) settle(s *source) {
	delete(v.waiting, s)
	if v.caught && len(v.waiting) == 0 {
		select {
		case <-v.ready:
		default:
			close(v.ready)
		}
	}
}

// follow reads the stream of events, beginning where the snapshots of the
// members end.
func (v *View) follow(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-v.synced:
	}
	after := v.prime(ctx)
	f := &follow{
		conn: v.conn, stream: StreamPlace, filter: PlaceFilter("*"),
		begin: func(info *jetstream.StreamInfo, again bool) (jetstream.OrderedConsumerConfig, error) {
			if again || after == 0 || after > info.State.LastSeq {
				// Another stream than the one that the snapshots speak of. What
				// is missing in it shows in the numbers of the changes.
				return jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}, nil
			}
			return jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1}, nil
		},
		message: func(msg jetstream.Msg, _ *jetstream.MsgMetadata) { v.message(msg) },
		caughtUp: func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.caught = true
			for s := range v.waiting {
				if !s.gap {
					v.settle(s)
				}
			}
			v.settle(nil)
		},
		lost: func(ctx context.Context) error { return makeLost(ctx, v.conn, v.cfg.Layout, StreamPlace) },
	}
	_ = f.run(ctx) // it ends only with ctx
}

// prime loads a snapshot of every member and returns the sequence of the stream
// after which all that is not in them was published; 0 when that is not known.
func (v *View) prime(ctx context.Context) (after uint64) {
	v.mu.Lock()
	sources := slices.Collect(maps.Values(v.sources))
	v.mu.Unlock()
	oldest := v.oldest(ctx)
	afters := make([]uint64, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Add(1)
		s.spawn(func(ctx context.Context) {
			defer wg.Done()
			try, cancel := context.WithTimeout(ctx, min(primeTimeout, v.cfg.LoadTimeout))
			defer cancel()
			after, err := v.load(try, s, 0, oldest)
			if ctx.Err() != nil {
				afters[i] = math.MaxUint64 // it has left
				return
			}
			if err != nil {
				v.cfg.Logger.Warn("no snapshot of a member yet; reading all of its events", "member", s.id, "error", err)
				return
			}
			afters[i] = after
		})
	}
	wg.Wait()
	if len(afters) == 0 || ctx.Err() != nil {
		return 0
	}
	return slices.Min(afters)
}

// message applies one placement event.
func (v *View) message(msg jetstream.Msg) {
	e, err := DecodePlacement(msg.Data())
	if id, ok := PlaceNode(msg.Subject()); err == nil && (!ok || id != e.Node) {
		err = fmt.Errorf("%w: event of node %s under %s", ErrPlacement, e.Node, msg.Subject())
	}
	if err != nil {
		v.bad.Add(1)
		v.cfg.Logger.Warn("placement event ignored", "subject", msg.Subject(), "error", err)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.sources[e.Node]
	switch {
	case s != nil && s.number == e.Incarnation:
		e.Incarnation = s.generation
		v.apply(s, e)
	case v.past[e.Node].number >= e.Incarnation && s != nil:
		v.old.Add(1)
	default:
		v.keep(v.stranger(e), e)
	}
}

// stranger is the source for events that run ahead of the sender's membership.
// View.mu is held.
func (v *View) stranger(e router.Event) *source {
	key := incarnation{e.Node, e.Incarnation}
	s := v.strangers[key]
	if s != nil {
		return s
	}
	now := time.Now()
	for k, o := range v.strangers {
		if now.Sub(o.since) > strangerKeep || len(v.strangers) >= maxStrangers {
			delete(v.strangers, k)
			v.giveUp(o)
		}
	}
	s = &source{id: e.Node, number: e.Incarnation, since: now}
	v.strangers[key] = s
	return s
}

// apply hands an event to the index, or stashes it behind a gap. View.mu is held.
func (v *View) apply(s *source, e router.Event) {
	err := v.index.Apply(e)
	switch {
	case err == nil && len(s.stash) == 0:
	case err == nil:
		v.drain(s)
	case errors.Is(err, router.ErrGap):
		v.keep(s, e)
		v.mind(s)
	default:
		v.bad.Add(1)
		v.cfg.Logger.Warn("placement event refused", "member", e.Node, "error", err)
	}
}
