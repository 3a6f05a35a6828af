package node

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"

	"cairn/block"
	"cairn/coherency/ledger"
)

// nameWords is a ledger.Pointer without Go pointers:
//
//	0  1   key                     8  token of the owner
//	2  3   object                  9  incarnation of the owner
//	4      version                10  chunk of the name | offset in it
//	5      checksum               11  length of the name | of the object
//	6      when it expires        12  homes (3 × 16 bits) | owner
//	7      place of last change   13  changes (32 bits) | namespace (16) | copies (8) | lease
type nameWords [14]uint64

const (
	wordVersion = 4
	wordText    = 10
	wordLengths = 11
	wordChanges = 13

	changing  = 1 << 32 // the entry is being written
	unchanged = changing - 1
)

// nameEntry is one pointer of the table in 120 bytes. One goroutine writes it while any
// number read, without a lock: a reader takes the words again until the count of changes
// is even and the same before and after.
type nameEntry struct {
	words [len(nameWords{})]atomic.Uint64
	// slot is where a reader has last seen the object in the host tier. It is a guess,
	// which the tier judges by the object's key, so any reader writes it.
	slot atomic.Uint64
}

func (e *nameEntry) read(w *nameWords) {
	for {
		changes := e.words[wordChanges].Load()
		for i := range wordChanges {
			w[i] = e.words[i].Load()
		}
		if w[wordChanges] = changes; changes&changing == 0 && e.words[wordChanges].Load() == changes {
			return
		}
		runtime.Gosched()
	}
}

// write is the one writer's.
func (e *nameEntry) write(w *nameWords) {
	changes := e.words[wordChanges].Load() &^ unchanged
	low := w[wordChanges] & unchanged
	e.words[wordChanges].Store(changes + changing | low)
	for i := range wordChanges {
		if e.words[i].Load() != w[i] {
			e.words[i].Store(w[i])
		}
	}
	e.words[wordChanges].Store(changes + 2*changing | low)
}

// pack leaves out the name.
func (w *nameWords) pack(p *ledger.Pointer, space uint16) {
	h := p.Value.Homes
	*w = nameWords{
		4: uint64(p.Version), p.Value.Sum, uint64(p.Value.Expires), uint64(p.Changed), uint64(p.Token), p.OwnerIncarnation,
		wordLengths: uint64(p.Value.Length),
		12:          uint64(h[0]) | uint64(h[1])<<16 | uint64(h[2])<<32 | uint64(p.Owner)<<48,
		wordChanges: uint64(space)<<16 | uint64(p.Copies)<<8,
	}
	w[0], w[1] = halves(p.Key)
	w[2], w[3] = halves(p.Value.Object)
	if p.Lease {
		w[wordChanges] |= 1
	}
}

func (w *nameWords) unpack(p *ledger.Pointer, namespace string, name []byte) {
	p.Key, p.Namespace, p.Name = join(w[0], w[1]), namespace, name
	p.Version, p.Changed = ledger.Version(w[wordVersion]), ledger.Place(w[7])
	p.Value = ledger.Value{Object: w.object(), Length: uint32(w[wordLengths]), Sum: w[5], Expires: int64(w[6]),
		Homes: ledger.Homes{uint16(w[12]), uint16(w[12] >> 16), uint16(w[12] >> 32)}}
	p.Token, p.Owner, p.OwnerIncarnation = ledger.Version(w[8]), uint16(w[12]>>48), w[9]
	p.Copies, p.Lease = uint8(w[wordChanges]>>8), w[wordChanges]&1 != 0
}

func (w *nameWords) key() block.Key    { return join(w[0], w[1]) }
func (w *nameWords) object() block.Key { return join(w[2], w[3]) }
func (w *nameWords) space() uint16     { return uint16(w[wordChanges] >> 16) }

// text says where the name is; size 0: it is not known.
func (w *nameWords) text() (chunk, offset, size uint32) {
	return uint32(w[wordText] >> 32), uint32(w[wordText]), uint32(w[wordLengths] >> 32)
}

func (w *nameWords) setText(chunk, offset, size uint32) {
	w[wordText] = uint64(chunk)<<32 | uint64(offset)
	w[wordLengths] = uint64(size)<<32 | w[wordLengths]&(1<<32-1)
}

// vacant tells whether the entry is on the list of free ones.
func (w *nameWords) vacant() bool { return w[0]|w[1] == 0 }

// counts is 1 for a name that is not absent.
func (w *nameWords) counts(cleared ledger.Version) int {
	if w[2]|w[3] == 0 || ledger.Version(w[wordVersion]) < cleared {
		return 0
	}
	return 1
}

func halves(k block.Key) (uint64, uint64) {
	return binary.LittleEndian.Uint64(k[:8]), binary.LittleEndian.Uint64(k[8:])
}

func join(a, b uint64) (k block.Key) {
	binary.LittleEndian.PutUint64(k[:8], a)
	binary.LittleEndian.PutUint64(k[8:], b)
	return k
}

// nameSlab has the entries by number, from 1. It grows by pieces that never move.
type nameSlab struct {
	pieces atomic.Pointer[[]*[slabPiece]nameEntry]
	next   uint32 // the writer's: the first that was never used
	free   uint32 // the writer's: the first of the free ones, whose version is the next; 0: none
}

const slabPiece = 1024

func (s *nameSlab) reset() {
	s.pieces.Store(new([]*[slabPiece]nameEntry))
	s.next, s.free = 1, 0
}

// at is nil for a number that a table had before it was reset.
func (s *nameSlab) at(id uint32) *nameEntry {
	pieces := *s.pieces.Load()
	if int(id/slabPiece) >= len(pieces) {
		return nil
	}
	return &pieces[id/slabPiece][id%slabPiece]
}

// take gives a vacant entry.
func (s *nameSlab) take() (id uint32, e *nameEntry) {
	if id = s.free; id != 0 {
		e = s.at(id)
		s.free = uint32(e.words[wordVersion].Load())
		return id, e
	}
	id = s.next
	s.next++
	if pieces := *s.pieces.Load(); int(id/slabPiece) == len(pieces) {
		more := append(pieces[:len(pieces):len(pieces)], new([slabPiece]nameEntry))
		s.pieces.Store(&more)
	}
	return id, s.at(id)
}

// give makes an entry vacant.
func (s *nameSlab) give(id uint32) {
	s.at(id).write(&nameWords{wordVersion: uint64(s.free)})
	s.free = id
}

// each calls yield for every entry in use until it returns false; it is for the writer.
func (s *nameSlab) each(yield func(e *nameEntry, w *nameWords) bool) {
	var w nameWords
	for id := uint32(1); id < s.next; id++ {
		e := s.at(id)
		if e.read(&w); !w.vacant() && !yield(e, &w) {
			return
		}
	}
}
