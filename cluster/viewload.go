package cluster

import (
	"context"
	"errors"
	"fmt"

	"cairn/router"
)

// load loads a snapshot that covers needed, and then what was stashed. After is the
// sequence of the stream that goes on from it. Snapshots that go on from before oldest are
// replaced by fresh ones first.
func (v *View) load(ctx context.Context, s *source, needed, oldest uint64) (after uint64, err error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case v.loaders <- struct{}{}:
	}
	defer func() { <-v.loaders }()
	found, err := v.find(ctx, s, needed, oldest)
	if err != nil {
		return 0, err
	}
	if err := v.read(ctx, s, found); err != nil {
		return 0, fmt.Errorf("cluster: read snapshot %s: %w", found.info.Name, err)
	}
	v.repairs.Add(1)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sources[s.id] == s {
		v.drain(s)
	}
	return found.after, nil
}

// read brings a snapshot into the index, piece by piece.
func (v *View) read(ctx context.Context, s *source, found placeSnapshot) error {
	var loading *router.Loading
	d := SnapshotDecoder{
		Header: func(h SnapshotHeader) (err error) {
			if h.Node != s.id || h.Incarnation != s.number {
				return errNoSnapshot // the slot was taken over meanwhile
			}
			loading, err = v.index.BeginLoad(s.id, s.generation, h.Covered)
			return err
		},
		Entries: func(entries []router.Entry) error { return loading.Add(entries) },
	}
	err := readChunks(ctx, v.conn.JS, found.info, func(chunk []byte) { _, _ = d.Write(chunk) }) // Close says what it was
	if err == nil {
		err = d.Close()
	}
	switch {
	case loading == nil:
	case err != nil:
		loading.Abandon()
	default:
		loading.Finish()
	}
	return err
}

// find is the newest snapshot; when it does not do, the node is asked to write another one.
func (v *View) find(ctx context.Context, s *source, needed, oldest uint64) (placeSnapshot, error) {
	store, err := v.conn.JS.ObjectStore(ctx, BucketSnapshots)
	if err != nil {
		return placeSnapshot{}, fmt.Errorf("cluster: snapshots: %w", err)
	}
	found, err := findSnapshot(ctx, store, s.id, s.number)
	covers := err == nil && found.covered >= needed
	if covers && found.after >= oldest {
		return found, nil
	}
	if covers {
		needed = found.covered + 1
	}
	_, err = Call[SnapshotRequest, SnapshotInfo](ctx, v.conn, RPCSubject(s.id, opSnapshot),
		SnapshotRequest{Incarnation: s.number, AtLeast: needed})
	if covers && errors.Is(err, &RPCError{Code: CodeBadRequest}) {
		return found, nil // nothing has changed since
	}
	if err != nil {
		return placeSnapshot{}, err
	}
	if found, err = findSnapshot(ctx, store, s.id, s.number); err != nil {
		return placeSnapshot{}, err
	}
	if found.covered < needed {
		return placeSnapshot{}, fmt.Errorf("cluster: snapshot of node %s covers %d, not %d: a replica lags", s.id, found.covered, needed)
	}
	return found, nil
}

// oldest is the sequence of the stream of events from which on a snapshot may go on: what
// comes before has been dropped, or will have been by the time at which the snapshots are
// loaded. 0 means that any will do.
func (v *View) oldest(ctx context.Context) uint64 {
	try, cancel := context.WithTimeout(ctx, ensureTry)
	defer cancel()
	stream, err := v.conn.JS.Stream(try, StreamPlace)
	if err != nil {
		return 0 // what is missing shows in the numbers of the changes
	}
	state := stream.CachedInfo().State
	if state.FirstSeq <= 1 {
		return 0 // nothing has been dropped yet
	}
	return state.FirstSeq - 1 + state.Msgs/oldestShare
}

// oldestShare is the part of the stream, one in so many, that may be dropped while snapshots
// are loaded.
const oldestShare = 4
