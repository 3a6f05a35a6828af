package node

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// tombstoneKeep is how long a deleted name is remembered; the log forgets it
	// sooner.
	tombstoneKeep = 25 * time.Hour
	// absentKeep is how long a node must have been away before its names without
	// bytes are ended by others: it may come back with them on its disk.
	absentKeep = 24 * time.Hour
	// sweepParallel is how many names a sweep ends at once.
	sweepParallel = 64
)

// sweeper ends names: those of this node's writing that have expired or whose
// bytes no one holds any more, and the latter also of writers long gone.
type sweeper struct {
	n      *Node
	absent map[string]time.Time // since when a writer has been missing
	refs   []nameRef
}

func newSweeper(n *Node) *sweeper { return &sweeper{n: n, absent: map[string]time.Time{}} }

func (n *Node) sweepLoop(ctx context.Context) {
	tick := time.NewTicker(n.cfg.SweepEvery)
	defer tick.Stop()
	s := newSweeper(n)
	for {
		select {
		case now := <-tick.C:
			s.sweep(ctx, now)
		case <-ctx.Done():
			return
		}
	}
}

// sweep goes through all names once. It stops when the log does not answer.
func (s *sweeper) sweep(ctx context.Context, now time.Time) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s.members(now)
	var ending sync.WaitGroup
	defer ending.Wait()
	slots := make(chan struct{}, sweepParallel)
	for shard := range shards {
		s.refs = s.n.names.table.refs(shard, s.refs[:0])
		for _, r := range s.refs {
			if !s.due(r, now) {
				continue
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			ending.Go(func() {
				defer func() { <-slots }()
				if err := s.n.endName(ctx, r); errors.Is(err, ErrNameLog) {
					stop()
				}
			})
		}
	}
}

// members notes which writers are missing.
func (s *sweeper) members(now time.Time) {
	for _, id := range s.n.names.table.writers() {
		_, member := s.n.peers.Peer(id)
		since, missing := s.absent[id]
		switch {
		case member || id == s.n.cfg.ID:
			delete(s.absent, id)
		case !missing || since.After(now):
			s.absent[id] = now
		}
	}
}

// due tells whether a name is to be ended by this node. Entries that only this
// node's memory still has are forgotten on the way.
func (s *sweeper) due(r nameRef, now time.Time) bool {
	n := s.n
	deleted := r.object.IsZero()
	expired := r.expires != 0 && now.UnixMilli() >= r.expires
	if longGone := now.UnixMilli()-r.expires > tombstoneKeep.Milliseconds(); longGone && (deleted || expired && r.writer != n.cfg.ID) {
		n.names.table.forget(r.key, r.sequence)
		if !deleted {
			n.Remove(r.object)
		}
		return false
	}
	switch {
	case deleted:
		return false
	case r.writer == n.cfg.ID:
		return expired || !n.Known(r.object)
	}
	since, missing := s.absent[r.writer]
	return missing && now.Sub(since) > absentKeep && !n.Known(r.object)
}

// endName deletes a name that has not changed since it was found due.
func (n *Node) endName(ctx context.Context, r nameRef) error {
	state, ok := n.names.table.lookup(r.key)
	if !ok || state.Sequence != r.sequence {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.names.wait)
	defer cancel()
	err := n.append(ctx, n.tombstone(r.key, state.Namespace, state.Name), &r.sequence)
	if err == nil {
		n.counters.namesSwept.Add(1)
	}
	return err
}
