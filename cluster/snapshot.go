package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// Metadata of a snapshot's object, so that the right one is found without
	// reading any.
	metaIncarnation = "cairn-incarnation"
	metaCovered     = "cairn-covered"
	metaAfter       = "cairn-after"
)

// SnapshotInfo says which snapshot of a node is the newest.
type SnapshotInfo struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	// Covered is the position of the last change that it contains.
	Covered uint64 `json:"covered"`
	Blocks  int    `json:"blocks"`
	Bytes   int    `json:"bytes"`
	// Object is its name in the object store cairn_snapshots.
	Object  string    `json:"object"`
	Written time.Time `json:"written"`
}

// snapshotSlots is how many objects each node keeps, written in turn: a reader
// of the newest is never disturbed by the writing of the next.
const snapshotSlots = 2

func placeSnapshotName(node string, slot int) string {
	return placeSnapshots + node + "/" + strconv.Itoa(slot)
}

// placeSnapshots begins the name of every placement snapshot.
const placeSnapshots = "place/"

// errNoSnapshot: the object store has no snapshot of this incarnation.
var errNoSnapshot = errors.New("no snapshot of this incarnation")

// storeSnapshot writes a snapshot to a slot, reads it back and compares. It keeps nothing of
// data.
func storeSnapshot(ctx context.Context, conn *Conn, store jetstream.ObjectStore, h SnapshotHeader, data []byte, slot int, pace unhurried) error {
	name := placeSnapshotName(h.Node, slot)
	info, err := putObject(ctx, conn, store, BucketSnapshots, jetstream.ObjectMeta{
		Name:        name,
		Description: fmt.Sprintf("what node %s holds, up to change %d", h.Node, h.Covered),
		Metadata: map[string]string{
			metaIncarnation: strconv.FormatUint(h.Incarnation, 10),
			metaCovered:     strconv.FormatUint(h.Covered, 10),
			metaAfter:       strconv.FormatUint(h.After, 10),
		},
	}, data, pace)
	if err != nil {
		return fmt.Errorf("cluster: write snapshot %s: %w", name, err)
	}
	same, err := sameObject(ctx, conn, info, data, pace)
	if err != nil {
		return fmt.Errorf("cluster: read snapshot %s back: %w", name, err)
	}
	if !same {
		return fmt.Errorf("cluster: %w: snapshot %s reads back differently", ErrPlacement, name)
	}
	return nil
}

// placeSnapshot is a snapshot in the object store, and what its metadata says.
type placeSnapshot struct {
	info           *jetstream.ObjectInfo
	covered, after uint64
}

// findSnapshot is the newest snapshot of one incarnation of a node, or fails with
// errNoSnapshot.
func findSnapshot(ctx context.Context, store jetstream.ObjectStore, node string, incarnation uint64) (best placeSnapshot, err error) {
	for slot := range snapshotSlots {
		name := placeSnapshotName(node, slot)
		info, err := store.GetInfo(ctx, name)
		if errors.Is(err, jetstream.ErrObjectNotFound) {
			continue
		}
		if err != nil {
			return placeSnapshot{}, fmt.Errorf("cluster: look for snapshot %s: %w", name, err)
		}
		s := placeSnapshot{info: info}
		var errs [2]error
		s.covered, errs[0] = strconv.ParseUint(info.Metadata[metaCovered], 10, 64)
		s.after, errs[1] = strconv.ParseUint(info.Metadata[metaAfter], 10, 64)
		if errors.Join(errs[:]...) != nil || info.Metadata[metaIncarnation] != strconv.FormatUint(incarnation, 10) {
			continue
		}
		if best.info == nil || s.covered >= best.covered {
			best = s
		}
	}
	if best.info == nil {
		return best, errNoSnapshot
	}
	return best, nil
}

// retireSnapshots deletes the placement snapshots that nobody has renewed for
// longer than age: their nodes are gone for good.
func retireSnapshots(ctx context.Context, js jetstream.JetStream, store jetstream.ObjectStore, age time.Duration) (int, error) {
	objects, err := listObjects(ctx, js, BucketSnapshots, placeSnapshots)
	if err != nil {
		return 0, fmt.Errorf("cluster: list snapshots: %w", err)
	}
	n := 0
	for _, o := range objects {
		if time.Since(o.ModTime) < age {
			continue
		}
		if err := store.Delete(ctx, o.Name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
			return n, fmt.Errorf("cluster: delete snapshot %s: %w", o.Name, err)
		}
		n++
	}
	return n, nil
}
