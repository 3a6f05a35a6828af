package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"

	"cairn/engram"
)

// ErrUncommitted: the handle has changes that a Load would overwrite. Commit them, or
// Reload to give them up.
var ErrUncommitted = errors.New("changes that are not committed: Commit them, or Reload to give them up")

// errNoConflict: Keep and Merge were called without what they are to answer.
var errNoConflict = errors.New("no conflict is given: errors.As finds the EngramConflict in the error of Commit")

// Engram is a handle on an engram that is stored as a named block, in the encoding of
// package engram: bytes that any program can GET. The handle has a copy of its own, in host
// and device memory: [Engram.Local]. What is changed there becomes the block's next version
// with [Engram.Commit]. All methods may be called in parallel.
//
// Two kinds of versions meet here, of two types: [Version] counts what the cluster has
// had, engram.Version what this copy has.
type Engram struct {
	c        *Client
	ns, name string
	local    *engram.Engram
	turn     chan struct{} // holds one token, for who speaks with the cluster

	// mu guards what follows; it is changed only by who has the turn.
	mu     sync.Mutex
	base   Version        // what the copy was made from; 0: there was no block
	at     engram.Version // of the copy, when it was the same as base
	doubts []attempt      // what Commits may have written since
}

// attempt is a Commit of which nobody knows whether it was made.
type attempt struct {
	sum [sha256.Size]byte // of the bytes
	at  engram.Version    // of the copy
}

// Engram is a handle on the engram of that name, "" for the configured namespace. It
// asks nobody: until Load its copy is the zero vector, and Commit makes a new block of
// what it was changed to.
func (c *Client) Engram(ns, name string) *Engram {
	local := engram.New(make([]byte, engram.SparseVec{}.EncodedSize()))
	e := &Engram{c: c, ns: ns, name: name, local: local, turn: make(chan struct{}, 1), at: local.Version()}
	e.turn <- struct{}{}
	return e
}

// EngramConflict is the ErrConflict of a Commit: somebody else has changed the block
// since it was loaded. The handle's copy is as it was. Keep, Reload and Merge are the
// three ways on.
type EngramConflict struct {
	Base    Version          // what the handle's copy was made from
	Version Version          // what the block has; 0: it was deleted
	Theirs  engram.SparseVec // what is there
}

func (e *EngramConflict) Error() string {
	if e.Version == 0 {
		return fmt.Sprintf("conflict: the engram was made from version %s, and is deleted", e.Base)
	}
	return fmt.Sprintf("conflict: the engram was made from version %s, the newest is %s", e.Base, e.Version)
}

// Unwrap makes it a ConflictError, and so an ErrConflict.
func (e *EngramConflict) Unwrap() error { return &ConflictError{e.Version} }

// Local is the handle's copy: attach device memory to it, edit it on either side, and
// Commit. Its State is about host and device, not about the cluster.
func (e *Engram) Local() *engram.Engram { return e.local }

// Version is the version of the block that the copy was made from, or that it has become;
// 0 when there was none.
func (e *Engram) Version() Version {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.base
}

// Changed tells whether the copy has changes that are not committed.
func (e *Engram) Changed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.local.Version() != e.at
}

// Vector is the copy as a vector. engram.ErrStale: the device has a newer one; Sync.
func (e *Engram) Vector() (engram.SparseVec, error) { return e.local.Vector() }

// Edit changes the copy on host. It is for this handle only until Commit. An error of
// change is returned as it is, and changes nothing.
func (e *Engram) Edit(ctx context.Context, change func(engram.SparseVec) (engram.SparseVec, error)) error {
	_, err := e.local.UpdateVector(ctx, change)
	return err
}

// Load makes the copy what the block is, as fresh as the options say. ErrNotFound: there is
// no block. ErrUncommitted: the copy has changes. Bytes that are no engram are an error of
// package engram. None of them changes the copy.
func (e *Engram) Load(ctx context.Context, opts ...GetOption) error {
	return e.inTurn(ctx, "load", func() error {
		if e.Changed() {
			return ErrUncommitted
		}
		got, err := e.get(ctx, opts...)
		if err == nil {
			_, err = decodeStored(got.Value)
		}
		if err != nil {
			return err
		}
		return e.become(ctx, e.atNow(), got.Value, got.Version)
	})
}

// Commit makes the copy the block's next version and returns it, if the block still has
// the version that the copy was made from; else the error is an EngramConflict. What is
// newest on the device is downloaded first. A copy that is not changed is not sent. Bytes that
// are no engram, as a kernel may leave them, are an error of package engram. Of the
// options only WithPolicy and WithTTL count.
//
// After ErrUnknownOutcome commit again: if an earlier one was made after all, that is found
// out, and nothing is written twice.
func (e *Engram) Commit(ctx context.Context, opts ...PutOption) (v Version, err error) {
	err = e.inTurn(ctx, "commit", func() (err error) {
		v, err = e.commit(ctx, options(opts))
		return err
	})
	return v, err
}

func (e *Engram) commit(ctx context.Context, o putOptions) (Version, error) {
	for {
		p, at, err := e.newest(ctx)
		base := e.Version()
		if err != nil || at == e.atNow() {
			return base, err
		}
		var made Version
		err = e.c.named(ctx, func(n *Node) (err error) {
			made, err = n.compareAndSet(ctx, e.ns, e.name, base, p, o)
			return err
		})
		switch {
		case err == nil:
			e.settle(made, at)
			return made, nil
		case errors.Is(err, ErrUnknownOutcome):
			e.doubt(attempt{sha256.Sum256(p), at})
			return 0, err
		case !errors.Is(err, ErrConflict):
			return 0, err
		}
		settled, err := e.conflict(ctx, base, err)
		if err != nil || !settled {
			return 0, err
		}
	}
}

// conflict finds out what is there. settled tells that it is what this handle has
// written itself, without ever hearing of it.
func (e *Engram) conflict(ctx context.Context, base Version, why error) (settled bool, err error) {
	got, err := e.get(ctx, Strict())
	if errors.Is(err, ErrNotFound) {
		return false, &EngramConflict{Base: base}
	}
	if err != nil {
		return false, errors.Join(why, err)
	}
	sum := sha256.Sum256(got.Value)
	if i := slices.IndexFunc(e.doubts, func(a attempt) bool { return a.sum == sum }); i >= 0 {
		e.settle(got.Version, e.doubts[i].at)
		return true, nil
	}
	theirs, err := decodeStored(got.Value)
	if err != nil {
		return false, errors.Join(why, err)
	}
	return false, &EngramConflict{Base: base, Version: got.Version, Theirs: theirs}
}

// newest is the newest bytes of the copy, on host and known to be a vector.
func (e *Engram) newest(ctx context.Context) ([]byte, engram.Version, error) {
	if s := e.local.State(); s == engram.DeviceDirty || s == engram.DeviceOnly {
		if err := e.local.Download(ctx); err != nil {
			return nil, 0, err
		}
	}
	p, at, err := e.local.Snapshot()
	if err == nil {
		_, err = engram.Decode(p)
	}
	return p, at, err
}

// Keep makes the next Commit replace what the conflict found.
func (e *Engram) Keep(ctx context.Context, c *EngramConflict) error {
	return e.choose(ctx, "keep", c, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.base, e.doubts = c.Version, nil
		return nil
	})
}

// Reload makes the copy what the conflict found, and gives up its changes on both sides.
// Without a conflict, nil, it makes it what the block is now: the zero vector if there is
// none.
func (e *Engram) Reload(ctx context.Context, c *EngramConflict) error {
	if c == nil {
		return e.inTurn(ctx, "reload", func() error { return e.reloadNewest(ctx) })
	}
	return e.choose(ctx, "reload", c, func() error { return e.reload(ctx, c.Theirs, c.Version) })
}

func (e *Engram) reloadNewest(ctx context.Context) error {
	got, err := e.get(ctx, Strict())
	if errors.Is(err, ErrNotFound) {
		return e.reload(ctx, engram.SparseVec{}, 0)
	}
	if err != nil {
		return err
	}
	theirs, err := decodeStored(got.Value)
	if err != nil {
		return err
	}
	return e.reload(ctx, theirs, got.Version)
}

func (e *Engram) reload(ctx context.Context, theirs engram.SparseVec, base Version) error {
	p, err := theirs.Marshal()
	if err != nil {
		return err
	}
	if e.local.State() == engram.DeviceDirty {
		if _, err := e.local.Discard(engram.Device); err != nil {
			return err
		}
	}
	return e.become(ctx, 0, p, base)
}

// Merge bundles the copy with what the conflict found. Commit is to follow; where both sides
// are to count by how often they were bundled, Update is the better way.
func (e *Engram) Merge(ctx context.Context, c *EngramConflict) error {
	return e.choose(ctx, "merge", c, func() error {
		p, at, err := e.newest(ctx)
		if err != nil {
			return err
		}
		mine, err := engram.Decode(p)
		if err != nil {
			return err
		}
		if p, err = engram.Bundle(mine, c.Theirs).Marshal(); err != nil {
			return err
		}
		if _, err := e.local.ReplaceHost(ctx, at, p); err != nil {
			return err
		}
		e.settle(c.Version, 0) // the bundle is not committed, also where it is the same
		return nil
	})
}

// choose runs f if the conflict is still the handle's.
func (e *Engram) choose(ctx context.Context, op string, c *EngramConflict, f func() error) error {
	return e.inTurn(ctx, op, func() error {
		if c == nil {
			return errNoConflict
		}
		if base := e.Version(); base != c.Base {
			return fmt.Errorf("%w: the engram was made from version %s since, commit again", ErrConflict, base)
		}
		return f()
	})
}

// Update changes the block by a function of what it is, as Client.Update does: again and
// again until nobody has changed it in between. old is the zero vector where there is no
// block. It leaves the handle's copy alone; Load brings what has become of it.
func (e *Engram) Update(ctx context.Context, change func(old engram.SparseVec) (engram.SparseVec, error), opts ...PutOption) error {
	return e.c.Update(ctx, e.ns, e.name, func(p []byte) ([]byte, error) {
		var old engram.SparseVec
		if p != nil {
			var err error
			if old, err = decodeStored(p); err != nil {
				return nil, fmt.Errorf("cairn: update engram %.64q: %w", e.name, err)
			}
		}
		v, err := change(old)
		if err != nil {
			return nil, err
		}
		return v.Marshal()
	}, opts...)
}

func (e *Engram) get(ctx context.Context, opts ...GetOption) (v Versioned, err error) {
	err = e.c.named(ctx, func(n *Node) (err error) {
		v, err = n.getName(ctx, e.ns, e.name, nil, opts)
		return err
	})
	return v, err
}

// decodeStored decodes what a block has, which any program may have written.
func decodeStored(p []byte) (engram.SparseVec, error) {
	v, err := engram.Decode(p)
	if err != nil {
		return v, fmt.Errorf("what is stored is no engram: %w", err)
	}
	return v, nil
}

// become makes the copy, which has version expect, p of version base; 0 expects any.
func (e *Engram) become(ctx context.Context, expect engram.Version, p []byte, base Version) error {
	now, at, err := e.local.Snapshot()
	if err != nil || at != cmp.Or(expect, at) || !bytes.Equal(now, p) { // else there is nothing to upload again
		at, err = e.local.ReplaceHost(ctx, expect, p)
	}
	if errors.Is(err, engram.ErrConflict) {
		err = fmt.Errorf("%w: %w", ErrUncommitted, err)
	}
	if err == nil {
		e.settle(base, at)
	}
	return err
}

// settle notes that the copy of version at is the block's version base.
func (e *Engram) settle(base Version, at engram.Version) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.base, e.at, e.doubts = base, at, nil
}

func (e *Engram) doubt(a attempt) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.doubts, a) {
		e.doubts = append(e.doubts, a)
	}
}

func (e *Engram) atNow() engram.Version {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at
}

// inTurn runs f when no other call speaks with the cluster for this handle.
func (e *Engram) inTurn(ctx context.Context, op string, f func() error) error {
	err := ctx.Err()
	if err == nil {
		select {
		case <-e.turn:
			defer func() { e.turn <- struct{}{} }()
			err = f()
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("cairn: %s engram %.64q: %w", op, e.name, err)
	}
	return nil
}
