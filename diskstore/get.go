package diskstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"cairn/block"
	"cairn/tier"
)

// Get implements [tier.Store]. The header of the record on the disk and the
// checksum of the bytes are verified; when they do not match, the object is
// dropped and the error is ErrCorrupt. After an input/output error, which is
// returned as it is, the object stays.
func (s *Store) Get(ctx context.Context, key block.Key, dst []byte) (block.Descriptor, error) {
	d, err := s.get(ctx, key, dst)
	return d, fail("get", key, err)
}

func (s *Store) get(ctx context.Context, key block.Key, dst []byte) (block.Descriptor, error) {
	if err := s.begin(); err != nil {
		return block.Descriptor{}, err
	}
	defer s.end()
	if err := ctx.Err(); err != nil {
		return block.Descriptor{}, err
	}
	for {
		d, err := s.getOnce(key, dst)
		if !errors.Is(err, errMoved) {
			return d, err
		}
	}
}

// errMoved: while the object was read it was moved, and its old place was used again.
var errMoved = errors.New("moved while it was read")

// getOnce is get from where the object is now.
func (s *Store) getOnce(key block.Key, dst []byte) (block.Descriptor, error) {
	s.mu.Lock()
	e, ok := s.index[key]
	if !ok {
		s.stats.Misses++
		s.mu.Unlock()
		return block.Descriptor{}, tier.ErrNotFound
	}
	d := e.descriptor(key)
	if len(dst) < int(d.Length) {
		s.mu.Unlock()
		return d, fmt.Errorf("%w: %d bytes, the block has %d", tier.ErrShortBuffer, len(dst), d.Length)
	}
	if !e.read {
		e.read = true
		s.index[key] = e
	}
	g := s.byID[e.segment]
	g.users++
	s.mu.Unlock()

	defer s.release(g)
	err := s.read(g, key, e, dst[:d.Length])
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.stats.Hits++
		return d, nil
	}
	if now, ok := s.index[key]; ok && errors.Is(err, tier.ErrCorrupt) && (now.segment != e.segment || now.unit != e.unit) {
		err = errMoved
	}
	return block.Descriptor{}, err
}

// read fills dst with the object that e describes, verified. g must be held by a
// use. An object that turns out to be damaged is dropped.
func (s *Store) read(g *segment, key block.Key, e entry, dst []byte) error {
	b := scratches.Get().(*scratch)
	defer scratches.Put(b)
	off := int64(e.unit) * minAlign
	b.bufs = [3][]byte{b.head[:g.align], dst}
	err := readFull(g.file, b.bufs[:2], off)
	b.bufs = [3][]byte{}
	if err != nil && !errors.Is(err, io.EOF) {
		return s.ioError(err)
	}
	why := "the file ends before it"
	if err == nil {
		r, ok := decodeHeader(b.head[:], g.salt, off)
		switch {
		case !ok:
			why = "damaged header"
		case r.kind != kindObject || r.key != key || r.order != e.order || r.length != e.length || r.sum != e.sum:
			why = "another record in its place"
		case block.Checksum(dst) != e.sum:
			why = "damaged bytes"
		default:
			return nil
		}
	}
	s.mu.Lock()
	if now, ok := s.index[key]; ok && now.segment == e.segment && now.unit == e.unit {
		s.dropLocked(key)
		s.stats.Corrupt++
	}
	s.mu.Unlock()
	return fmt.Errorf("%w: %s in %s at %d", tier.ErrCorrupt, why, segmentName(g.id), off)
}
