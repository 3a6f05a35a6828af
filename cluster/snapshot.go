package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn/block"
	"cairn/router"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// snapshotFormat is the first member of every snapshot's header.
	snapshotFormat = "cairn.place.v1"
	// snapshotEntry is the size of one entry: key, then tier mask.
	snapshotEntry = block.KeySize + 1
	// maxSnapshotHeader bounds the header line, in bytes.
	maxSnapshotHeader = 4096
	// MaxSnapshotEntries bounds a placement snapshot: 64 Mi blocks, 1.1 GB.
	MaxSnapshotEntries = 64 << 20

	// Metadata of a snapshot's object, so that the right one is found without
	// reading any.
	metaIncarnation = "cairn-incarnation"
	metaCovered     = "cairn-covered"
)

// Snapshot is everything that a node held at one point of its stream of changes.
// In the object store it is one line of JSON (the header) followed by 17 bytes
// a block, in no order: the key, and the [block.TierMask] of the tiers that hold it.
//
//	{"format":"cairn.place.v1","node":"n1","incarnation":1825…,
//	 "covered":812,"after":77,"count":3,"checksum":"…"}\n
//	+----------------+----+----------------+----+----------------+----+
//	| key            |mask| key            |mask| key            |mask|
//	+----------------+----+----------------+----+----------------+----+
//
// It need not be a single instant: it contains every change up to Covered and
// perhaps later ones. Applying the changes after Covered makes it exact, because
// the last change of a block in a tier decides.
type Snapshot struct {
	Node        string
	Incarnation uint64
	// Covered is the position of the last change that is certainly contained.
	Covered uint64
	// After is a sequence of the stream of placement events: every change that
	// is not contained was published later than that.
	After uint64
	// Entries are the blocks, in no order; no Tiers is empty.
	Entries []router.Entry
}

type snapshotHeader struct {
	Format      string `json:"format"`
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Covered     uint64 `json:"covered"`
	After       uint64 `json:"after"`
	Count       int    `json:"count"`
	Checksum    hex64  `json:"checksum"`
}

// Encode is the snapshot as it is stored.
func (s *Snapshot) Encode() ([]byte, error) {
	body := make([]byte, 0, len(s.Entries)*snapshotEntry)
	for i := range s.Entries {
		body = append(append(body, s.Entries[i].Key[:]...), byte(s.Entries[i].Tiers))
	}
	header, err := json.Marshal(snapshotHeader{Format: snapshotFormat, Node: s.Node, Incarnation: s.Incarnation,
		Covered: s.Covered, After: s.After, Count: len(s.Entries), Checksum: hex64(block.Checksum(body))})
	if err != nil {
		return nil, fmt.Errorf("cluster: encode snapshot: %w", err)
	}
	return slices.Concat(header, []byte{'\n'}, body), nil
}

// DecodeSnapshot reads what [Snapshot.Encode] writes. Anything else is an error
// that wraps [ErrPlacement]. It keeps nothing of data.
func DecodeSnapshot(data []byte) (*Snapshot, error) {
	line, _, ok := bytes.Cut(data[:min(len(data), maxSnapshotHeader)], []byte{'\n'})
	if !ok {
		return nil, fmt.Errorf("%w: snapshot has no header line within %d bytes", ErrPlacement, maxSnapshotHeader)
	}
	body := data[len(line)+1:]
	var h snapshotHeader
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, fmt.Errorf("%w: snapshot header: %w", ErrPlacement, err)
	}
	switch {
	case h.Format != snapshotFormat:
		return nil, fmt.Errorf("%w: snapshot of format %.40q, want %q", ErrPlacement, h.Format, snapshotFormat)
	case h.Node == "" || h.Incarnation == 0:
		return nil, fmt.Errorf("%w: snapshot without node or incarnation", ErrPlacement)
	case h.Covered > maxPosition:
		return nil, fmt.Errorf("%w: snapshot covers position %d: out of range", ErrPlacement, h.Covered)
	case h.Count < 0 || h.Count > MaxSnapshotEntries || h.Count*snapshotEntry != len(body):
		return nil, fmt.Errorf("%w: snapshot of %d blocks in %d bytes", ErrPlacement, h.Count, len(body))
	case block.Checksum(body) != uint64(h.Checksum):
		return nil, fmt.Errorf("%w: snapshot checksum does not match", ErrPlacement)
	}
	s := &Snapshot{Node: h.Node, Incarnation: h.Incarnation, Covered: h.Covered, After: h.After,
		Entries: make([]router.Entry, h.Count)}
	for i := range s.Entries {
		e := &s.Entries[i]
		e.Key, e.Tiers = block.Key(body[:block.KeySize]), block.TierMask(body[block.KeySize])
		if e.Key.IsZero() || !e.Tiers.Any() || e.Tiers >= 1<<block.Tiers {
			return nil, fmt.Errorf("%w: snapshot entry %s with tiers %#x", ErrPlacement, e.Key, uint8(e.Tiers))
		}
		body = body[snapshotEntry:]
	}
	return s, nil
}

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

// storeSnapshot writes s to a slot, reads it back and compares.
func storeSnapshot(ctx context.Context, js jetstream.JetStream, store jetstream.ObjectStore, s *Snapshot, slot int) (SnapshotInfo, error) {
	name := placeSnapshotName(s.Node, slot)
	data, err := s.Encode()
	if err != nil {
		return SnapshotInfo{}, err
	}
	info, err := store.Put(ctx, jetstream.ObjectMeta{
		Name:        name,
		Description: fmt.Sprintf("what node %s holds, up to change %d", s.Node, s.Covered),
		Metadata: map[string]string{
			metaIncarnation: strconv.FormatUint(s.Incarnation, 10),
			metaCovered:     strconv.FormatUint(s.Covered, 10),
		},
	}, bytes.NewReader(data))
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("cluster: write snapshot %s: %w", name, err)
	}
	back, err := readObject(ctx, js, info)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("cluster: read snapshot %s back: %w", name, err)
	}
	if !bytes.Equal(back, data) {
		return SnapshotInfo{}, fmt.Errorf("cluster: %w: snapshot %s reads back differently", ErrPlacement, name)
	}
	return SnapshotInfo{Node: s.Node, Incarnation: s.Incarnation, Covered: s.Covered, Blocks: len(s.Entries),
		Bytes: len(data), Object: name, Written: time.Now().UTC()}, nil
}

// loadSnapshot reads the newest snapshot of one incarnation of a node, or fails
// with errNoSnapshot.
func loadSnapshot(ctx context.Context, js jetstream.JetStream, store jetstream.ObjectStore, node string, incarnation uint64) (*Snapshot, error) {
	var best *jetstream.ObjectInfo
	var covered uint64
	for slot := range snapshotSlots {
		name := placeSnapshotName(node, slot)
		info, err := store.GetInfo(ctx, name)
		if errors.Is(err, jetstream.ErrObjectNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cluster: look for snapshot %s: %w", name, err)
		}
		c, err := strconv.ParseUint(info.Metadata[metaCovered], 10, 64)
		if err != nil || info.Metadata[metaIncarnation] != strconv.FormatUint(incarnation, 10) {
			continue
		}
		if best == nil || c >= covered {
			best, covered = info, c
		}
	}
	if best == nil {
		return nil, errNoSnapshot
	}
	data, err := readObject(ctx, js, best)
	if err != nil {
		return nil, fmt.Errorf("cluster: read snapshot %s: %w", best.Name, err)
	}
	s, err := DecodeSnapshot(data)
	if err != nil {
		return nil, err
	}
	if s.Node != node || s.Incarnation != incarnation {
		return nil, errNoSnapshot // the slot was taken over meanwhile
	}
	return s, nil
}

// readObject reads the chunks of an object. The object store's own reader does not
// notice when ctx is cancelled, and waits for its deadline when a chunk is
// missing because the object has just been replaced.
func readObject(ctx context.Context, js jetstream.JetStream, info *jetstream.ObjectInfo) ([]byte, error) {
	if info.Size > MaxSnapshotEntries*snapshotEntry+maxSnapshotHeader {
		return nil, fmt.Errorf("%w: object of %d bytes", ErrPlacement, info.Size)
	}
	data := make([]byte, 0, info.Size)
	err := readChunks(ctx, js, info, func(chunk []byte) { data = append(data, chunk...) })
	return data, err
}

// retireSnapshots deletes the placement snapshots that nobody has renewed for
// longer than age: their nodes are gone for good.
func retireSnapshots(ctx context.Context, store jetstream.ObjectStore, age time.Duration) (int, error) {
	objects, err := store.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cluster: list snapshots: %w", err)
	}
	n := 0
	for _, o := range objects {
		if !strings.HasPrefix(o.Name, placeSnapshots) || time.Since(o.ModTime) < age {
			continue
		}
		if err := store.Delete(ctx, o.Name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
			return n, fmt.Errorf("cluster: delete snapshot %s: %w", o.Name, err)
		}
		n++
	}
	return n, nil
}
