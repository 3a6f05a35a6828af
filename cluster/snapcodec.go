package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/router"

	"github.com/zeebo/xxh3"
)

const (
	// snapshotFormat is the first member of every snapshot's header.
	snapshotFormat = "cairn.place.v1"
	// snapshotEntry is the size of one entry: key, then tier mask.
	snapshotEntry = block.KeySize + 1
	// maxSnapshotHeader bounds the header line, in bytes, and snapshotHeaderRoom is what a
	// builder leaves for it: numbers and a node's id take less.
	maxSnapshotHeader  = 4096
	snapshotHeaderRoom = 512
	// MaxSnapshotEntries bounds a placement snapshot: 64 Mi blocks, 1.1 GB.
	MaxSnapshotEntries = 64 << 20
)

// SnapshotHeader says what a snapshot is of. A snapshot is everything that a node held at one
// point of its stream of changes: in the object store, one line of JSON (the header)
// followed by 17 bytes a block, in no order: the key, and the [block.TierMask] of the tiers
// that hold it.
//
//	{"format":"cairn.place.v1","node":"n1","incarnation":1825…,
//	 "covered":812,"after":77,"count":3,"checksum":"…"}   \n
//	+----------------+----+----------------+----+----------------+----+
//	| key            |mask| key            |mask| key            |mask|
//	+----------------+----+----------------+----+----------------+----+
//
// It need not be a single instant: it contains every change up to Covered and
// perhaps later ones. Applying the changes after Covered makes it exact, because
// the last change of a block in a tier decides.
type SnapshotHeader struct {
	Format      string `json:"format"`
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	// Covered is the position of the last change that is certainly contained.
	Covered uint64 `json:"covered"`
	// After is a sequence of the stream of placement events: every change that
	// is not contained was published later than that.
	After uint64 `json:"after"`
	// Count is the number of blocks, and Checksum the xxh3-64 of their bytes.
	Count    int   `json:"count"`
	Checksum hex64 `json:"checksum"`
}

func (h *SnapshotHeader) validate() error {
	switch {
	case h.Format != snapshotFormat:
		return fmt.Errorf("%w: snapshot of format %.40q, want %q", ErrPlacement, h.Format, snapshotFormat)
	case h.Node == "" || h.Incarnation == 0:
		return fmt.Errorf("%w: snapshot without node or incarnation", ErrPlacement)
	case h.Covered > maxPosition:
		return fmt.Errorf("%w: snapshot covers position %d: out of range", ErrPlacement, h.Covered)
	case h.Count < 0 || h.Count > MaxSnapshotEntries:
		return fmt.Errorf("%w: snapshot of %d blocks", ErrPlacement, h.Count)
	}
	return nil
}

// SnapshotBuilder makes a snapshot.
type SnapshotBuilder struct{ data []byte }

// NewSnapshotBuilder has room for so many blocks; it grows as it must.
func NewSnapshotBuilder(blocks int) *SnapshotBuilder {
	return &SnapshotBuilder{make([]byte, snapshotHeaderRoom, snapshotHeaderRoom+blocks*snapshotEntry)}
}

// Add adds a block, which is in at least one tier.
func (b *SnapshotBuilder) Add(key block.Key, tiers block.TierMask) {
	b.data = append(append(b.data, key[:]...), byte(tiers))
}

// Len is how many blocks it has.
func (b *SnapshotBuilder) Len() int { return (len(b.data) - snapshotHeaderRoom) / snapshotEntry }

// Encode is the snapshot as it is stored; h needs no Format, Count and Checksum. The builder
// may not be used any more.
func (b *SnapshotBuilder) Encode(h SnapshotHeader) ([]byte, error) {
	h.Format, h.Count, h.Checksum = snapshotFormat, b.Len(), hex64(block.Checksum(b.data[snapshotHeaderRoom:]))
	line, err := json.Marshal(h)
	if err == nil && len(line) >= snapshotHeaderRoom {
		err = fmt.Errorf("header of %d bytes: is the node's id %.40q valid?", len(line), h.Node)
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: encode snapshot: %w", err)
	}
	room := b.data[:snapshotHeaderRoom]
	for i := copy(room, line); i < len(room); i++ {
		room[i] = ' '
	}
	room[len(room)-1] = '\n'
	return b.data, nil
}

// snapshotBatch is how many blocks a decoder hands on at once.
const snapshotBatch = 1024

// SnapshotDecoder reads a snapshot as it arrives, in pieces of any size. What is not as
// specified is an error that wraps [ErrPlacement]; whether all of it was there, and its
// checksum is right, shows at Close. It keeps nothing of what is written to it.
type SnapshotDecoder struct {
	// Header is called first, once, and Entries then with the blocks, in no order, no Tiers
	// empty; the slice is the decoder's again afterwards. An error ends the decoding.
	Header  func(SnapshotHeader) error
	Entries func([]router.Entry) error

	err     error
	rest    []byte // the header so far, or a part of an entry
	header  SnapshotHeader
	began   bool // the header is known
	seen    int  // entries
	sum     xxh3.Hasher
	entries []router.Entry
}

// Write decodes p. Its error is that of all later calls.
func (d *SnapshotDecoder) Write(p []byte) (int, error) {
	n := len(p)
	if d.err == nil && !d.began {
		p = d.begin(p)
	}
	if d.err == nil && d.began {
		_, _ = d.sum.Write(p) // cannot fail
		d.err = d.body(p)
	}
	if d.err != nil {
		return 0, d.err
	}
	return n, nil
}

// begin reads the header, and returns what comes behind it.
func (d *SnapshotDecoder) begin(p []byte) (behind []byte) {
	line, behind, whole := bytes.Cut(p, []byte{'\n'})
	d.rest = append(d.rest, line[:min(len(line), maxSnapshotHeader)]...)
	if len(d.rest) >= maxSnapshotHeader {
		d.err = fmt.Errorf("%w: snapshot has no header line within %d bytes", ErrPlacement, maxSnapshotHeader)
	}
	if d.err != nil || !whole {
		return nil
	}
	if err := json.Unmarshal(d.rest, &d.header); err != nil {
		d.err = fmt.Errorf("%w: snapshot header: %w", ErrPlacement, err)
	} else if d.err = d.header.validate(); d.err == nil {
		d.err = d.Header(d.header)
	}
	d.rest, d.began = d.rest[:0], true
	return behind
}

func (d *SnapshotDecoder) body(p []byte) error {
	if len(d.rest) > 0 {
		n := min(snapshotEntry-len(d.rest), len(p))
		d.rest, p = append(d.rest, p[:n]...), p[n:]
		if len(d.rest) < snapshotEntry {
			return nil
		}
		if err := d.entry(d.rest); err != nil {
			return err
		}
		d.rest = d.rest[:0]
	}
	for len(p) >= snapshotEntry {
		if err := d.entry(p); err != nil {
			return err
		}
		p = p[snapshotEntry:]
	}
	d.rest = append(d.rest, p...)
	return nil
}

func (d *SnapshotDecoder) entry(p []byte) error {
	e := router.Entry{Key: block.Key(p[:block.KeySize]), Tiers: block.TierMask(p[block.KeySize])}
	if e.Key.IsZero() || !e.Tiers.Any() || e.Tiers >= 1<<block.Tiers {
		return fmt.Errorf("%w: snapshot entry %s with tiers %#x", ErrPlacement, e.Key, uint8(e.Tiers))
	}
	if d.seen++; d.seen > d.header.Count {
		return fmt.Errorf("%w: snapshot of more than its %d blocks", ErrPlacement, d.header.Count)
	}
	if d.entries = append(d.entries, e); len(d.entries) < snapshotBatch {
		return nil
	}
	return d.flush()
}

func (d *SnapshotDecoder) flush() error {
	if len(d.entries) == 0 {
		return nil
	}
	err := d.Entries(d.entries)
	d.entries = d.entries[:0]
	return err
}

// Close ends the decoding; without an error, all that was handed on is right.
func (d *SnapshotDecoder) Close() error {
	switch {
	case d.err != nil:
	case !d.began:
		d.err = fmt.Errorf("%w: snapshot without a header line", ErrPlacement)
	case len(d.rest) > 0 || d.seen != d.header.Count:
		d.err = fmt.Errorf("%w: snapshot of %d blocks, and %d bytes; want %d blocks", ErrPlacement, d.seen, len(d.rest), d.header.Count)
	case d.sum.Sum64() != uint64(d.header.Checksum):
		d.err = fmt.Errorf("%w: snapshot checksum does not match", ErrPlacement)
	default:
		d.err = d.flush()
	}
	if d.err != nil {
		return d.err
	}
	d.err = errors.New("cluster: the snapshot's decoder is closed")
	return nil
}
