package diskstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/zeebo/xxh3"

	"cairn/block"
)

// Recovery says what Open found in the directory.
type Recovery struct {
	Segments   int           // segment files
	Scanned    int           // of these, read whole for want of a valid table
	Objects    int64         // objects that are there
	Corrupt    int64         // damaged records that were passed over
	Torn       int64         // bytes cut off behind the last good records
	Unreadable int           // segments that gave input/output errors
	Took       time.Duration // how long it took
}

// loaded is one segment file as found.
type loaded struct {
	*segment
	records []record
	headed  bool // has a valid header, so that it can be written to
	table   bool // has a valid table
	broken  bool // gave input/output errors: leave the file as it is
	corrupt int64
	length  int64 // of the file
}

// recover rebuilds the index from the files, and leaves the store ready for
// writing. It runs before anybody else knows the store.
func (s *Store) recover() error {
	began := time.Now()
	names, err := s.fs.List()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var ids []uint32
	for _, name := range names {
		known[name] = true
		if id, ok := parseSegmentName(name); ok {
			ids = append(ids, id)
		}
	}
	if s.id, err = identity(s.fs, known); err != nil {
		return err
	}
	slices.Sort(ids)
	hidden := map[block.Key]uint64{}
	var last *loaded
	for _, id := range ids {
		s.nextID = id + 1
		l, err := s.load(id)
		if err != nil {
			return fmt.Errorf("%s: %w", segmentName(id), err)
		}
		if l != nil {
			s.adopt(l, hidden)
			last = l
			s.settleLoaded(l, id == ids[len(ids)-1])
		}
	}
	if last != nil && !last.retired {
		s.active = last.segment
	}
	s.recovered.Segments = len(s.segments)
	s.recovered.Objects = s.stats.Objects
	s.stats.Corrupt = s.recovered.Corrupt
	s.recovered.Took = time.Since(began)
	r := s.recovered
	log := s.cfg.Logger.Info
	if r.Corrupt > 0 || r.Torn > 0 || r.Unreadable > 0 {
		log = s.cfg.Logger.Warn
	}
	log("disk store recovered", "dir", s.dir, "id", s.id, "segments", r.Segments, "scanned", r.Scanned, "objects", r.Objects,
		"corrupt", r.Corrupt, "torn_bytes", r.Torn, "unreadable_segments", r.Unreadable, "took", r.Took)
	return nil
}

// load reads one file. The result is nil when the file is no segment, and then
// it is removed, unless it could not be read.
func (s *Store) load(id uint32) (*loaded, error) {
	f, err := s.fs.Open(segmentName(id))
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l := &loaded{length: size}
	h, herr := l.readHeader(f)
	if errors.Is(herr, ErrVersion) {
		return nil, errors.Join(herr, f.Close())
	}
	l.headed = herr == nil && h.id == id
	t, table := l.readTable(f, id)
	switch {
	case table:
		l.segment = newSegment(t.segmentHeader, f)
		l.table, l.tail = true, t.start
		l.size = size
	case l.headed:
		l.segment = newSegment(h, f)
		l.scan()
		s.recovered.Scanned++
	default:
		return nil, errors.Join(s.reject(l, id), f.Close())
	}
	if l.broken {
		s.recovered.Unreadable++
		s.stats.Errors++
	}
	return l, nil
}

// reject disposes of a file that has neither header nor table.
func (s *Store) reject(l *loaded, id uint32) error {
	if l.broken {
		s.recovered.Unreadable++
		s.stats.Errors++
		return nil
	}
	// A crash while the segment was made leaves at most a header.
	if l.length > segmentHeaderSize {
		s.recovered.Corrupt++
	}
	s.recovered.Torn += l.length
	if err := s.fs.Remove(segmentName(id)); err != nil {
		return err
	}
	s.dirDirty = true
	return nil
}

func (l *loaded) readHeader(f file) (segmentHeader, error) {
	p := make([]byte, min(l.length, segmentHeaderSize))
	if err := readFull(f, [][]byte{p}, 0); err != nil {
		l.broken = l.broken || !errors.Is(err, io.EOF)
		return segmentHeader{}, errNoHeader
	}
	return decodeSegmentHeader(p)
}

// readTable reads the trailer and the table, if they are there and good.
func (l *loaded) readTable(f file, id uint32) (t trailer, ok bool) {
	if l.length < segmentHeaderSize+cellSize {
		return t, false
	}
	var cell [cellSize]byte
	if err := readFull(f, [][]byte{cell[:]}, l.length-cellSize); err != nil {
		l.broken = l.broken || !errors.Is(err, io.EOF)
		return t, false
	}
	if t, ok = decodeTrailer(cell[:], l.length); !ok || t.id != id {
		return t, false
	}
	p := make([]byte, l.length-cellSize-t.start)
	if err := readFull(f, [][]byte{p}, t.start); err != nil {
		l.broken = l.broken || !errors.Is(err, io.EOF)
		return t, false
	}
	l.records, ok = t.decodeTable(p)
	return t, ok
}

// scan finds the good records of a segment without a table. What is between
// them was never finished, or is damaged.
func (l *loaded) scan() {
	w := window{file: l.file, size: l.length}
	damaged, gap := int64(0), false // since the last good record
	for off := int64(segmentHeaderSize); off+cellSize <= l.length; {
		p, err := w.at(off, cellSize)
		if err != nil {
			l.broken, gap = true, true
			off = roundUp(off+1, unreadableStep)
			continue
		}
		r, ok := decodeHeader(p, l.salt, off)
		if !ok {
			// Where a record is expected, zeros are a write that never came.
			if !gap && !bytes.Equal(p, zeros[:cellSize]) {
				damaged++
			}
			gap = true
			off += l.unit()
			continue
		}
		good, err := w.verify(&r, l.unit())
		l.broken = l.broken || err != nil
		if !good {
			damaged++
			gap = true
			off += l.unit()
			continue
		}
		l.records = append(l.records, r)
		l.corrupt += damaged
		damaged, gap = 0, false
		off += r.size(l.unit())
		l.tail = off
	}
}

const (
	windowSize     = 1 << 20
	unreadableStep = 64 << 10 // how far a scan goes on after what cannot be read
)

// window is a buffered view of a file.
type window struct {
	file file
	size int64
	buf  []byte
	base int64 // where buf[0] is in the file
}

// at returns up to n bytes from off on, fewer only at the end of the file. They
// are valid until the next call.
func (w *window) at(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.size-off))
	if from := off - w.base; from >= 0 && from+int64(n) <= int64(len(w.buf)) {
		return w.buf[from : from+int64(n)], nil
	}
	if cap(w.buf) == 0 {
		w.buf = make([]byte, min(windowSize, w.size))
	}
	w.base = off
	w.buf = w.buf[:min(int64(cap(w.buf)), w.size-off)]
	if err := readFull(w.file, [][]byte{w.buf}, off); err != nil {
		w.buf = w.buf[:0]
		return nil, err
	}
	return w.buf[:n], nil
}

// verify tells whether the payload of r is all there.
func (w *window) verify(r *record, align int64) (bool, error) {
	if r.kind == kindTombstone {
		return true, nil
	}
	off, left := r.off+align, int64(r.length)
	if off+left > w.size {
		return false, nil
	}
	h := xxh3.New()
	for left > 0 {
		p, err := w.at(off, int(min(left, windowSize/4)))
		if err != nil {
			return false, err
		}
		h.Write(p)
		off += int64(len(p))
		left -= int64(len(p))
	}
	return h.Sum64() == r.sum, nil
}

// adopt enters the records of a segment into the index. hidden has the highest
// order of the tombstones of each key so far.
func (s *Store) adopt(l *loaded, hidden map[block.Key]uint64) {
	g := l.segment
	s.segments = append(s.segments, g)
	s.byID[g.id] = g
	g.floor = s.nextOrder
	s.recovered.Corrupt += l.corrupt
	// What a process wrote before it was killed may not be on the device.
	g.writes++
	g.flushed = true
	g.slots = len(l.records)
	for _, r := range l.records {
		s.nextOrder = max(s.nextOrder, r.order+1)
		e, there := s.index[r.key]
		if r.kind == kindTombstone {
			g.tombs = append(g.tombs, tombstone{key: r.key, order: r.order})
			hidden[r.key] = max(hidden[r.key], r.order)
			if there && e.order <= r.order {
				s.forgetLocked(r.key, e)
			}
			continue
		}
		if hidden[r.key] >= r.order {
			continue
		}
		if there && e.order >= r.order {
			s.duplicate(g, g, r.key)
			continue
		}
		if there {
			s.duplicate(s.byID[e.segment], g, r.key)
			s.forgetLocked(r.key, e)
		}
		p := placed{key: r.key, unit: uint32(r.off / minAlign)}
		g.placed = append(g.placed, p)
		s.enterLocked(g, r.key, entry{
			parent: r.parent, sum: r.sum, order: r.order,
			segment: g.id, unit: p.unit, length: r.length,
		})
	}
}

// duplicate notes that a record in the segment old, which another in g overrules,
// must not outlive it.
func (s *Store) duplicate(old, g *segment, key block.Key) {
	if old != g {
		old.moved = true
		old.needed = old.needed || s.cfg.Keep(key)
	}
}

// settleLoaded makes the newest segment ready for more records, and seals an
// older one that has no table.
func (s *Store) settleLoaded(l *loaded, newest bool) {
	g := l.segment
	if l.broken {
		// Its unreadable parts may be readable another time.
		g.retired, g.sealed, g.size = true, true, l.length
		g.settle()
		return
	}
	if !l.table {
		s.recovered.Torn += max(0, l.length-l.tail)
	}
	if newest && l.headed && int(g.align) == s.cfg.PayloadAlign && g.tail+footerSize(g.slots+1)+2*g.unit() <= s.cfg.SegmentSize {
		// Cut the table, or the torn tail, and go on from there.
		err := g.file.Truncate(g.tail)
		if err == nil {
			g.sealed, g.size = false, 0
			_ = s.syncSegment(g) // a failure is counted, and retires the segment
			return
		}
		_ = s.ioError(err)
	}
	g.retired = true
	g.settle()
	g.sealed = l.table
	if !l.table {
		if err := s.seal(g); err != nil {
			s.cfg.Logger.Warn("sealing a recovered segment failed; it will be scanned at the next start",
				"segment", segmentName(g.id), "error", err)
		}
	}
}
