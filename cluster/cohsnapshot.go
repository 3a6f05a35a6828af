package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// cohSnapshots begins the name of every snapshot of the coherence log.
	cohSnapshots = "coh/"
	// cohSnapshotTry bounds one attempt to read a snapshot: 1 GB at a tenth of what
	// the object store does.
	cohSnapshotTry = 2 * time.Minute

	// Metadata of a snapshot's object.
	metaChecksum = "cairn-checksum"       // of the bytes, in hexadecimal
	metaSequence = "cairn-sequence"       // up to which it covers the log
	metaStream   = "cairn-stream-created" // of which stream, in nanoseconds since 1970
)

// ErrSnapshot: a snapshot of the coherence log could not be saved, or a saved one is
// not what was saved.
var ErrSnapshot = errors.New("bad snapshot of the coherence log")

// cohSnapshot is a snapshot in the object store.
type cohSnapshot struct {
	sequence uint64
	info     *jetstream.ObjectInfo
}

func (c *Coherence) snapshotPrefix() string {
	return cohSnapshots + strconv.Itoa(c.cfg.Partition) + "/"
}

// snapshots are those in the store, the newest first.
func (c *Coherence) snapshots(ctx context.Context) ([]cohSnapshot, error) {
	objects, err := listObjects(ctx, c.conn.JS, BucketSnapshots, c.snapshotPrefix())
	if err != nil {
		return nil, fmt.Errorf("cluster: list snapshots: %w", err)
	}
	var all []cohSnapshot
	for _, o := range objects {
		digits, ok := strings.CutPrefix(o.Name, c.snapshotPrefix())
		sequence, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil {
			all = append(all, cohSnapshot{sequence, o})
		}
	}
	slices.SortFunc(all, func(a, b cohSnapshot) int { return cmp.Compare(b.sequence, a.sequence) })
	return all, nil
}

// SaveSnapshot keeps data as the state of the log at sequence: it writes it to the object
// store and reads it back. Only when that is the same, it deletes all but this, newer ones
// and the one before, and purges the log below the one before. So two ways to start
// remain, and a purge never rests on what was not verified. Several nodes may save at
// once. Errors wrap [ErrSnapshot], or [ErrLogRegressed] if the stream is not the one that
// Run reads. It keeps nothing of data.
func (c *Coherence) SaveSnapshot(ctx context.Context, sequence uint64, data []byte) error {
	stream, err := c.conn.JS.Stream(ctx, c.stream)
	if err != nil {
		return fmt.Errorf("cluster: %w: %w", ErrSnapshot, err)
	}
	c.mu.Lock()
	created := c.created
	c.mu.Unlock()
	if at := stream.CachedInfo().Created; !created.IsZero() && !at.Equal(created) {
		return fmt.Errorf("cluster: %w: %w: stream %s was made anew", ErrSnapshot, ErrLogRegressed, c.stream)
	} else if last := stream.CachedInfo().State.LastSeq; sequence > last {
		return fmt.Errorf("cluster: %w: of sequence %d, and stream %s ends at %d", ErrSnapshot, sequence, c.stream, last)
	} else {
		created = at
	}
	store, err := c.conn.JS.ObjectStore(ctx, BucketSnapshots)
	if err != nil {
		return fmt.Errorf("cluster: %w: %w", ErrSnapshot, err)
	}
	info, err := putObject(ctx, c.conn, store, BucketSnapshots, jetstream.ObjectMeta{
		Name:        c.snapshotPrefix() + strconv.FormatUint(sequence, 10),
		Description: fmt.Sprintf("the state of mutable blocks at sequence %d of %s", sequence, c.stream),
		Metadata: map[string]string{
			metaChecksum: checksum(data),
			metaSequence: strconv.FormatUint(sequence, 10),
			metaStream:   strconv.FormatInt(created.UnixNano(), 10),
		},
	}, data, nil)
	if err != nil {
		return fmt.Errorf("cluster: %w: write %d: %w", ErrSnapshot, sequence, err)
	}
	same, err := sameObject(ctx, c.conn, info, data, nil)
	if err != nil {
		return fmt.Errorf("cluster: %w: read %d back: %w", ErrSnapshot, sequence, err)
	}
	if !same {
		return fmt.Errorf("cluster: %w: %d reads back differently", ErrSnapshot, sequence)
	}
	return c.retire(ctx, store, stream, sequence)
}

// retire deletes what the verified snapshot at sequence, and the one before, make
// superfluous.
func (c *Coherence) retire(ctx context.Context, store jetstream.ObjectStore, stream jetstream.Stream, sequence uint64) error {
	all, err := c.snapshots(ctx)
	if err != nil {
		return fmt.Errorf("cluster: %w: %w", ErrSnapshot, err)
	}
	older := slices.DeleteFunc(all, func(s cohSnapshot) bool { return s.sequence >= sequence })
	if len(older) == 0 {
		return nil
	}
	for _, s := range older[1:] {
		if err := store.Delete(ctx, s.info.Name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
			return fmt.Errorf("cluster: %w: delete %d: %w", ErrSnapshot, s.sequence, err)
		}
	}
	// The message at that sequence stays, so that the stream is never empty.
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(older[0].sequence)); err != nil {
		return fmt.Errorf("cluster: %w: purge below %d: %w", ErrSnapshot, older[0].sequence, err)
	}
	return nil
}

// restoreTries is how often a start looks for a snapshot that can be used: another node
// may replace what it reads by a newer one.
const restoreTries = 3

// restore gives the newest good snapshot to the handler, and returns its sequence; 0 if
// there is none and the log is whole. What passes by itself is waited out.
func (r *cohReader) restore(ctx context.Context, info *jetstream.StreamInfo) (uint64, error) {
	for tries := 1; ; tries++ {
		all, err := r.list(ctx)
		if err != nil {
			return 0, err
		}
		for _, s := range all {
			if made := strconv.FormatInt(info.Created.UnixNano(), 10); s.info.Metadata[metaStream] != made {
				return 0, fmt.Errorf("cluster: %w: snapshot %s is of another stream %s than the one made at %v",
					ErrLogRegressed, s.info.Name, r.stream, info.Created)
			}
		}
		if len(all) > 0 {
			if info, err = r.reach(ctx, info, all[0].sequence); err != nil {
				return 0, err
			}
		}
		for _, s := range all {
			if s.sequence+1 < info.State.FirstSeq {
				continue // what came after it is gone
			}
			err := r.load(ctx, s)
			if err == nil {
				return s.sequence, nil
			}
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			r.cfg.Logger.Error("a snapshot of the coherence log cannot be used; trying the one before", "sequence", s.sequence, "error", err)
		}
		switch {
		case info.State.FirstSeq <= 1:
			return 0, nil
		case tries == restoreTries:
			return 0, fmt.Errorf("cluster: %w: stream %s begins at sequence %d, and of %d snapshots none can be used",
				ErrLogGap, r.stream, info.State.FirstSeq, len(all))
		}
		if info, err = r.again(ctx); err != nil {
			return 0, err
		}
	}
}

// list waits for the list of snapshots, the newest first.
func (r *cohReader) list(ctx context.Context) (all []cohSnapshot, err error) {
	var quiet pace
	for {
		err := r.conn.Retry(ctx, ensureTry, func(ctx context.Context) (err error) {
			all, err = r.snapshots(ctx)
			return err
		})
		if err == nil || errors.Is(err, jetstream.ErrBucketNotFound) {
			return all, nil
		}
		if ctx.Err() == nil && quiet.due() {
			r.cfg.Logger.Warn("the snapshots of the coherence log cannot be listed; trying again", "error", err)
		}
		if err := pauseFor(ctx, maxRetryPause); err != nil {
			return nil, err
		}
	}
}

// load reads one snapshot and gives it to the handler.
func (r *cohReader) load(ctx context.Context, s cohSnapshot) error {
	var data []byte
	passing := func(err error) bool { return Transient(err) || errors.Is(err, jetstream.ErrNoHeartbeat) }
	err := r.conn.retry(ctx, cohSnapshotTry, passing, func(ctx context.Context) (err error) {
		data, err = readObject(ctx, r.conn.JS, s.info)
		return err
	})
	if err != nil {
		return err
	}
	if got, want := checksum(data), s.info.Metadata[metaChecksum]; got != want {
		return fmt.Errorf("cluster: %w: checksum %s, want %s", ErrSnapshot, got, want)
	}
	return r.h.Restore(s.sequence, bytes.NewReader(data))
}

// mostCohSnapshot bounds what is read of a snapshot of the coherence log, in bytes.
const mostCohSnapshot = 1 << 30

// readObject reads the chunks of an object. The object store's own reader does not
// notice when ctx is cancelled, and waits for its deadline when a chunk is
// missing because the object has just been replaced.
func readObject(ctx context.Context, js jetstream.JetStream, info *jetstream.ObjectInfo) ([]byte, error) {
	if info.Size > mostCohSnapshot {
		return nil, fmt.Errorf("%w: object of %d bytes", ErrSnapshot, info.Size)
	}
	data := make([]byte, 0, info.Size)
	err := readChunks(ctx, js, info, func(chunk []byte) { data = append(data, chunk...) })
	return data, err
}
