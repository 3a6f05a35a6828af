package diskstore

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"cairn/block"
)

const segmentSuffix = ".seg"

func segmentName(id uint32) string { return fmt.Sprintf("%08x%s", id, segmentSuffix) }

func parseSegmentName(name string) (id uint32, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	return uint32(n), err == nil && segmentName(uint32(n)) == name
}

// placed is an object that was written to a segment: it lives there if the
// index still says so.
type placed struct {
	key  block.Key
	unit uint32 // offset / minAlign
}

func (p placed) off() int64 { return int64(p.unit) * minAlign }

// tombstone hides the records of key whose order is at most order.
type tombstone struct {
	key   block.Key
	order uint64
}

type span struct{ from, to int64 }

// segment is one file. It takes records while it is the store's active segment,
// is then retired, and sealed with a table once its last writer is done.
type segment struct {
	segmentHeader
	file  file
	quiet chan struct{} // closed when the segment is retired and has no writers

	// syncing lets one flush of the file run at a time, because the kernel reports
	// a lost page to one of them only. It is taken before Store.mu.
	syncing sync.Mutex
	// sealing lets one table be written at a time. It is taken before syncing.
	sealing sync.Mutex

	// What follows is guarded by Store.mu.

	tail    int64    // where the next record goes
	size    int64    // bytes of the file, known once sealed
	slots   int      // records reserved, which need room in the table
	holes   []span   // given back by writes that failed, not yet at the tail
	placed  []placed // objects written, in no order
	tombs   []tombstone
	copies  []tombstone // for copies of its objects that were given up, once it is gone
	live    int         // objects that the index has here
	kept    int64       // bytes that the kept ones of them count
	writers int         // reservations not yet finished
	users   int         // calls that need the file open

	// floor is the first order that was free when the segment became the active one:
	// no object's record in it, nor in a younger one, has a lower order.
	floor uint64

	writes uint64 // changes that a flush must cover
	synced uint64 // the value of writes that the last good flush covered

	retired bool // takes no more records
	sealed  bool // size is final
	flushed bool // a flush succeeded once, maybe in an earlier life
	suspect bool // a flush failed: what it holds may not reach the device
	emptied bool // what lives in a suspect segment was copied elsewhere
	moved   bool // an object of it was copied elsewhere
	needed  bool // what was copied is not to be lost
	gone    bool // removed; the file closes when the last user is done

	// stuck numbers the last time that a kept object of it could not be read; 0: none was.
	stuck uint64
}

func newSegment(h segmentHeader, f file) *segment {
	return &segment{segmentHeader: h, file: f, tail: segmentHeaderSize, quiet: make(chan struct{})}
}

func (g *segment) unit() int64 { return int64(g.align) }

// idle tells whether nothing is written to the segment any more.
func (g *segment) idle() bool { return g.retired && g.writers == 0 }

// blocked tells whether an object that must be moved could not be.
func (g *segment) blocked() bool { return g.stuck > 0 && g.kept > 0 }

// dirty tells whether a flush is due.
func (g *segment) dirty() bool { return g.writes != g.synced }

// charge is what the segment may occupy in the end.
func (g *segment) charge(full int64) int64 {
	switch {
	case g.sealed:
		return g.size
	case g.idle() && !g.suspect: // about to be sealed
		return g.tail + footerSize(g.slots)
	}
	return max(full, g.used())
}

// used is what the segment occupies.
func (g *segment) used() int64 {
	if g.sealed {
		return g.size
	}
	return g.tail
}

// reserve takes the next size bytes for the given number of records, unless
// they, and the table, would exceed full.
func (g *segment) reserve(size int64, records int, full int64) (off int64, ok bool) {
	if g.tail+size+footerSize(g.slots+records) > full {
		return 0, false
	}
	off = g.tail
	g.tail += size
	g.slots += records
	g.writers++
	return off, true
}

// giveBack returns a reservation whose write failed. Otherwise a device that
// fails every write would use the segments up and evict everything.
func (g *segment) giveBack(off, size int64, records int) {
	g.slots -= records
	g.holes = append(g.holes, span{off, off + size})
	for i := 0; i < len(g.holes); {
		if h := g.holes[i]; h.to == g.tail {
			g.tail = h.from
			last := len(g.holes) - 1
			g.holes[i] = g.holes[last]
			g.holes = g.holes[:last]
			i = 0
			continue
		}
		i++
	}
}

// settle closes quiet when the time has come, and tells whether it did.
func (g *segment) settle() bool {
	if !g.retired || g.writers > 0 {
		return false
	}
	select {
	case <-g.quiet:
		return false
	default:
		close(g.quiet)
		return true
	}
}

// createSegment makes the file of a new segment, with a header that is not yet
// durable and a name that is.
func (s *Store) createSegment() (*segment, error) {
	s.mu.Lock()
	id := s.nextID
	s.nextID++
	s.mu.Unlock()
	var salt [8]byte
	rand.Read(salt[:])
	h := segmentHeader{id: id, align: uint32(s.cfg.PayloadAlign), salt: binary.LittleEndian.Uint64(salt[:])}
	f, err := s.fs.Create(segmentName(id))
	if err != nil {
		return nil, s.ioError(err)
	}
	if err = writeFull(f, [][]byte{h.encode()}, 0); err == nil {
		err = s.fs.SyncDir()
	}
	if err != nil {
		// The name may stay behind; recovery removes files without a header.
		f.Close()
		_ = s.fs.Remove(segmentName(id))
		return nil, s.ioError(err)
	}
	g := newSegment(h, f)
	g.writes++
	return g, nil
}

// retireLocked ends the writing to g. s.mu is held.
func (s *Store) retireLocked(g *segment) {
	g.retired = true
	if s.active == g {
		s.active = nil
	}
	s.settleLocked(g)
}

// finishLocked ends one reservation in g. s.mu is held.
func (s *Store) finishLocked(g *segment) {
	g.writers--
	s.settleLocked(g)
}

func (s *Store) settleLocked(g *segment) {
	if g.settle() && !s.closed {
		g.users++
		s.background.Go(func() {
			defer s.release(g)
			if err := s.seal(g); err != nil {
				s.cfg.Logger.Warn("sealing a segment failed; it will be scanned at the next start",
					"segment", segmentName(g.id), "error", err)
			}
		})
	}
}

// seal flushes g, which is quiet, and writes its table.
func (s *Store) seal(g *segment) error {
	g.sealing.Lock()
	defer g.sealing.Unlock()
	s.mu.Lock()
	skip := g.sealed || g.suspect || g.gone
	tail := g.tail
	s.mu.Unlock()
	if skip {
		return nil
	}
	if err := s.syncSegment(g); err != nil {
		return err
	}
	footer := encodeFooter(g.segmentHeader, s.tableOf(g), tail)
	if err := writeFull(g.file, [][]byte{footer}, tail); err != nil {
		return s.ioError(err)
	}
	// A failed write beyond the tail may have left bytes behind the trailer.
	if err := g.file.Truncate(tail + int64(len(footer))); err != nil {
		return s.ioError(err)
	}
	s.mu.Lock()
	g.sealed = true
	g.writes++
	g.size = tail + int64(len(footer))
	s.mu.Unlock()
	return nil
}

// chunk is how many objects are handled under the lock at once.
const chunk = 512

// tableOf lists what lives in g and its tombstones. What dies meanwhile may be
// in the list: its tombstone has a higher order.
func (s *Store) tableOf(g *segment) []record {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := make([]record, 0, g.live+len(g.tombs))
	for i, p := range g.placed {
		if i%chunk == chunk-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
		if e, ok := s.index[p.key]; ok && e.at(g, p) {
			records = append(records, record{
				kind: kindObject, length: e.length, order: e.order, sum: e.sum,
				key: p.key, parent: e.parent, off: p.off(),
			})
		}
	}
	for _, t := range g.tombs {
		// Tombstones have no place that anyone looks up.
		records = append(records, record{kind: kindTombstone, order: t.order, key: t.key, off: segmentHeaderSize})
	}
	return records
}

// release ends a use of g, whose file closes with the last one after removal.
func (s *Store) release(g *segment) {
	s.mu.Lock()
	g.users--
	last := g.gone && g.users == 0
	s.mu.Unlock()
	if last {
		g.file.Close()
	}
}
