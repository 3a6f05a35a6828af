package diskstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"

	"cairn/block"
)

// The byte layouts are drawn in the package comment.
const (
	formatVersion     = 1
	segmentHeaderSize = 4096
	headerCopyAt      = 2048
	cellSize          = 64 // headers, table entries and the trailer
	checkAt           = 56 // where a cell's own checksum, or a table entry's offset, is
	minAlign          = 64
	maxAlign          = 4096
)

const (
	segmentMagic = "CAIRNSEG"
	tableMagic   = "CAIRNTBL"
)

// kind tells records apart; its value is the record's magic number.
type kind uint32

const (
	kindObject    kind = 'C' | 'R'<<8 | 'e'<<16 | 'c'<<24
	kindTombstone kind = 'C' | 'T'<<8 | 'm'<<16 | 'b'<<24
)

// ErrVersion reports a segment file of a format that this program does not know.
var ErrVersion = errors.New("segment format of another version")

var le = binary.LittleEndian

// record is what a record header says; off is where it stands.
type record struct {
	kind   kind
	length uint32
	order  uint64
	sum    uint64
	key    block.Key
	parent block.Key
	off    int64
}

func (r *record) encode(p []byte) {
	le.PutUint32(p[0:], uint32(r.kind))
	le.PutUint32(p[4:], r.length)
	le.PutUint64(p[8:], r.order)
	le.PutUint64(p[16:], r.sum)
	copy(p[24:40], r.key[:])
	copy(p[40:56], r.parent[:])
}

func (r *record) decode(p []byte) {
	r.kind = kind(le.Uint32(p[0:]))
	r.length = le.Uint32(p[4:])
	r.order = le.Uint64(p[8:])
	r.sum = le.Uint64(p[16:])
	r.key = block.Key(p[24:40])
	r.parent = block.Key(p[40:56])
}

// encodeHeader writes the record's header for its place r.off into p[:64].
func (r *record) encodeHeader(p []byte, salt uint64) {
	r.encode(p)
	le.PutUint64(p[checkAt:], xxh3.HashSeed(p[:checkAt], salt+uint64(r.off)))
}

// decodeHeader reads p[:64] as the header of a record at off; false when it is
// none.
func decodeHeader(p []byte, salt uint64, off int64) (r record, ok bool) {
	k := kind(le.Uint32(p))
	if k != kindObject && k != kindTombstone {
		return r, false
	}
	if le.Uint64(p[checkAt:]) != xxh3.HashSeed(p[:checkAt], salt+uint64(off)) {
		return r, false
	}
	r.decode(p)
	r.off = off
	return r, r.plausible()
}

func (r *record) plausible() bool {
	switch r.kind {
	case kindObject:
		return r.length <= block.MaxLength
	case kindTombstone:
		return r.length == 0
	}
	return false
}

// size is the number of bytes that the record takes in a segment of alignment
// align, its header and padding included.
func (r *record) size(align int64) int64 {
	if r.kind == kindTombstone {
		return align
	}
	return recordSize(int64(r.length), align)
}

func recordSize(length, align int64) int64 { return align + roundUp(length, align) }

func roundUp(n, align int64) int64 { return (n + align - 1) / align * align }

// footerSize is the size of the table of n entries with its trailer.
func footerSize(n int) int64 { return int64(n+1) * cellSize }

// segmentHeader is the head of a segment file.
type segmentHeader struct {
	id    uint32
	align uint32
	salt  uint64
}

// encode returns the first segmentHeaderSize bytes of the file.
func (h segmentHeader) encode() []byte {
	p := make([]byte, segmentHeaderSize)
	copy(p, segmentMagic)
	le.PutUint32(p[8:], formatVersion)
	le.PutUint32(p[12:], h.align)
	le.PutUint32(p[16:], h.id)
	le.PutUint64(p[24:], h.salt)
	le.PutUint64(p[checkAt:], xxh3.Hash(p[:checkAt]))
	copy(p[headerCopyAt:], p[:cellSize])
	return p
}

var errNoHeader = errors.New("no valid segment header")

// decodeSegmentHeader reads the head of a file; either copy will do.
func decodeSegmentHeader(p []byte) (h segmentHeader, err error) {
	err = errNoHeader
	for _, at := range []int{0, headerCopyAt} {
		if len(p) < at+cellSize {
			break
		}
		if h, err = decodeHeaderCopy(p[at : at+cellSize]); err == nil || errors.Is(err, ErrVersion) {
			break
		}
	}
	return h, err
}

func decodeHeaderCopy(p []byte) (h segmentHeader, err error) {
	if string(p[:8]) != segmentMagic || le.Uint64(p[checkAt:]) != xxh3.Hash(p[:checkAt]) {
		return h, errNoHeader
	}
	if v := le.Uint32(p[8:]); v != formatVersion {
		return h, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, v, formatVersion)
	}
	h = segmentHeader{align: le.Uint32(p[12:]), id: le.Uint32(p[16:]), salt: le.Uint64(p[24:])}
	if !validAlign(h.align) {
		return h, errNoHeader
	}
	return h, nil
}

func validAlign(a uint32) bool { return a == minAlign || a == maxAlign }

// trailer is the end of a sealed segment file.
type trailer struct {
	segmentHeader
	entries uint32
	start   int64 // where the table begins
	sum     uint64
}

// encodeFooter returns the table of the records and its trailer, to be written
// at start.
func encodeFooter(h segmentHeader, records []record, start int64) []byte {
	p := make([]byte, footerSize(len(records)))
	for i := range records {
		cell := p[i*cellSize:]
		records[i].encode(cell)
		le.PutUint64(cell[checkAt:], uint64(records[i].off))
	}
	table, t := p[:len(p)-cellSize], p[len(p)-cellSize:]
	copy(t, tableMagic)
	le.PutUint32(t[8:], formatVersion)
	le.PutUint32(t[12:], uint32(len(records)))
	le.PutUint64(t[16:], uint64(start))
	le.PutUint64(t[24:], h.salt)
	le.PutUint64(t[32:], xxh3.HashSeed(table, h.salt))
	le.PutUint32(t[40:], h.id)
	le.PutUint32(t[44:], h.align)
	le.PutUint64(t[checkAt:], xxh3.Hash(t[:checkAt]))
	return p
}

// decodeTrailer reads the last 64 bytes of a file of the given size.
func decodeTrailer(p []byte, size int64) (t trailer, ok bool) {
	if string(p[:8]) != tableMagic || le.Uint32(p[8:]) != formatVersion ||
		le.Uint64(p[checkAt:]) != xxh3.Hash(p[:checkAt]) {
		return t, false
	}
	t.entries = le.Uint32(p[12:])
	t.start = int64(le.Uint64(p[16:]))
	t.salt = le.Uint64(p[24:])
	t.sum = le.Uint64(p[32:])
	t.id = le.Uint32(p[40:])
	t.align = le.Uint32(p[44:])
	ok = validAlign(t.align) && t.start >= segmentHeaderSize && t.start%int64(t.align) == 0 &&
		t.start+footerSize(int(t.entries)) == size
	return t, ok
}

// decodeTable reads the entries of the table p; false when it is damaged.
func (t trailer) decodeTable(p []byte) ([]record, bool) {
	if xxh3.HashSeed(p, t.salt) != t.sum {
		return nil, false
	}
	align := int64(t.align)
	records := make([]record, t.entries)
	for i := range records {
		cell := p[i*cellSize:]
		r := &records[i]
		r.decode(cell)
		r.off = int64(le.Uint64(cell[checkAt:]))
		if !r.plausible() || r.off < segmentHeaderSize || r.off > t.start || r.off%align != 0 || r.off+r.size(align) > t.start {
			return nil, false
		}
	}
	return records, true
}
