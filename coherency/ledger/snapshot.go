package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"cairn/block"

	"github.com/zeebo/xxh3"
)

// A snapshot is, numbers as unsigned varints unless they say otherwise:
//
//	"CAIRNCOH" | version (1 byte)
//	sequence | digest (8 bytes) | epoch | barrier | orphaned | losses
//	count | members:  len id | incarnation | options (1 byte) | last | sequence | applied | acked | owned
//	count | cleared:  len namespace | place | count
//	count | pointers, by key: options (1 byte) | key (13 or 16 bytes) | len namespace | len name |
//	                  version | changed? | value | token? owner? incarnation? copies? (1 byte)
//	xxh3 of all before (8 bytes)
//
// A key and a value are as in a message. Equal ledgers make equal snapshots. The
// digests of earlier sequences are not in it: they decide nothing.
const (
	snapshotMagic   = "CAIRNCOH"
	snapshotVersion = 1
	snapshotTrailer = 8
	snapshotBuffer  = 64 << 10
	typicalPointer  = 96                             // bytes that one takes
	pointerBytes    = 1 + block.HashSize + 2 + 1 + 1 // the least that one takes
)

// Options of a member in a snapshot.
const (
	optLive    = 0x01
	optDurable = 0x02
	optMember  = 0x03 // all of them
)

// Options of a pointer in a snapshot; also optLease and optNamed.
const (
	optOwned   = 0x01
	optChanged = 0x02 // the place of the change is not the version's
	optPointer = optOwned | optChanged | optLease | optNamed
)

// Snapshot writes all that decides the future of the ledger: [LoadSnapshot] of it,
// and the rest of the log, give what the whole log gives (I8). It belongs to the
// goroutine that applies, which it holds up: it wants a w that does not block, such
// as a buffer. A million pointers with names of 20 bytes make 80 MB; writing them
// needs 200 ms, one Range of the table included if that has its pointers side by side,
// and 130 MB more meanwhile. The only errors are those of w.
func (l *Ledger) Snapshot(w io.Writer) error {
	s := snapshotWriter{w: w, sum: xxh3.New(), buf: make([]byte, 0, snapshotBuffer)}
	s.buf = l.appendHead(s.buf)
	data, order := l.encodeTable()
	s.buf = binary.AppendUvarint(s.buf, uint64(len(order)))
	for _, e := range order {
		if s.buf = append(s.buf, data[e.at:e.at+e.size]...); len(s.buf) > snapshotBuffer/2 {
			s.flush()
		}
	}
	s.flush()
	s.buf = binary.LittleEndian.AppendUint64(s.buf, s.sum.Sum64())
	s.flush()
	if s.err != nil {
		return fmt.Errorf("ledger: write snapshot: %w", s.err)
	}
	return nil
}

// snapshotWriter sums what it writes. After an error it writes nothing more.
type snapshotWriter struct {
	w   io.Writer
	sum *xxh3.Hasher
	buf []byte
	err error
}

func (s *snapshotWriter) flush() {
	if s.err == nil {
		_, _ = s.sum.Write(s.buf) // cannot fail
		_, s.err = s.w.Write(s.buf)
	}
	s.buf = s.buf[:0]
}

// appendHead writes all but the pointers.
func (l *Ledger) appendHead(dst []byte) []byte {
	dst = append(append(dst, snapshotMagic...), snapshotVersion)
	dst = binary.AppendUvarint(dst, l.sequence)
	dst = binary.LittleEndian.AppendUint64(dst, l.digest)
	for _, n := range []uint64{l.epoch, uint64(l.barrier), uint64(l.orphaned), l.losses, uint64(len(l.members))} {
		dst = binary.AppendUvarint(dst, n)
	}
	for i := range l.members {
		m := &l.members[i]
		options := byte(0)
		if m.Live {
			options |= optLive
		}
		if m.Durable {
			options |= optDurable
		}
		dst = append(binary.AppendUvarint(appendString(dst, m.ID), m.Incarnation), options)
		for _, n := range []uint64{m.Last, m.Sequence, m.Applied, m.Acked, uint64(m.Owned)} {
			dst = binary.AppendUvarint(dst, n)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(l.cleared)))
	for _, c := range l.cleared {
		dst = appendString(dst, c.namespace)
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(c.place)), c.count)
	}
	return dst
}

// encoded is one pointer in the snapshot to be: where its bytes are, and the first
// bytes of its key as a number.
type encoded struct {
	prefix uint64
	at     int
	size   int
}

// encodeTable writes every pointer, in the order of the table, which is faster than
// to look for them in another; the second result has them by key.
func (l *Ledger) encodeTable() (data []byte, order []encoded) {
	data = make([]byte, 0, l.table.Len()*typicalPointer)
	order = make([]encoded, 0, l.table.Len())
	l.table.Range(func(p Pointer) bool {
		at := len(data)
		data = p.append(data)
		order = append(order, encoded{binary.BigEndian.Uint64(p.Key[:]), at, len(data) - at})
		return true
	})
	order = sortByPrefix(order)
	for i := 1; i < len(order); i++ { // prefixes are of hashes: hardly ever the same
		for j := i; j > 0 && order[j].prefix == order[j-1].prefix && keyAt(data, order[j]).Compare(keyAt(data, order[j-1])) < 0; j-- {
			order[j], order[j-1] = order[j-1], order[j]
		}
	}
	return data, order
}

// keyAt is the key of an encoded pointer.
func keyAt(data []byte, e encoded) block.Key {
	d := reader{data: data, at: e.at}
	return d.key(d.octet()&optNamed != 0)
}

// sortByPrefix sorts by one byte of the prefix after the other, the last one first.
// What all have in common, as the position of named blocks, takes no time.
func sortByPrefix(order []encoded) []encoded {
	var counts [8][256]int
	for i := range order {
		for b := range counts {
			counts[b][byte(order[i].prefix>>(8*b))]++
		}
	}
	other := make([]encoded, len(order))
	for b := range counts {
		c := &counts[b]
		if len(order) == 0 || c[byte(order[0].prefix>>(8*b))] == len(order) {
			continue
		}
		next := 0
		for i, n := range c {
			c[i], next = next, next+n
		}
		for _, e := range order {
			at := &c[byte(e.prefix>>(8*b))]
			other[*at] = e
			*at++
		}
		order, other = other, order
	}
	return order
}

func (p *Pointer) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, 0)
	if p.Lease {
		dst[at] |= optLease
	}
	if p.Key.Named() {
		dst[at] |= optNamed
		dst = append(dst, p.Key[namedPrefix:]...)
	} else {
		dst = append(dst, p.Key[:]...)
	}
	dst = appendString(dst, p.Namespace)
	dst = append(binary.AppendUvarint(dst, uint64(len(p.Name))), p.Name...)
	dst = binary.AppendUvarint(dst, uint64(p.Version))
	if p.Changed != p.Version.Place() {
		dst[at] |= optChanged
		dst = binary.AppendUvarint(dst, uint64(p.Changed))
	}
	dst = p.Value.append(dst)
	if p.Owned() {
		dst[at] |= optOwned
		dst = binary.AppendUvarint(dst, uint64(p.Token))
		dst = binary.AppendUvarint(dst, uint64(p.Owner))
		dst = binary.AppendUvarint(dst, p.OwnerIncarnation)
		dst = append(dst, p.Copies)
	}
	return dst
}

// LoadSnapshot is the ledger whose snapshot r holds to its end, over an empty table;
// history is that of [New]. What is not a whole, undamaged snapshot is an error that
// wraps [ErrFormat]; the table is then not to be used. It holds the snapshot in
// memory while it reads it.
func LoadSnapshot(r io.Reader, table Table, history int) (*Ledger, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("ledger: read snapshot: %w", err)
	}
	head := len(snapshotMagic) + 1
	switch {
	case len(data) < head+snapshotTrailer || string(data[:head-1]) != snapshotMagic:
		return nil, fmt.Errorf("%w: not a snapshot", ErrFormat)
	case data[head-1] != snapshotVersion:
		return nil, fmt.Errorf("%w: snapshot of version %d, want %d", ErrFormat, data[head-1], snapshotVersion)
	}
	body := data[:len(data)-snapshotTrailer]
	if xxh3.Hash(body) != binary.LittleEndian.Uint64(data[len(body):]) {
		return nil, fmt.Errorf("%w: snapshot is damaged or not whole: its checksum differs", ErrFormat)
	}
	l := New(table, history)
	d := reader{data: body, at: head}
	if err := l.load(&d); err != nil {
		return nil, fmt.Errorf("%w: snapshot, before byte %d: %w", ErrFormat, d.at, err)
	}
	if len(l.history) > 0 {
		l.history[l.sequence%uint64(len(l.history))] = mark{l.sequence, l.digest}
	}
	return l, nil
}

var (
	errValue = errors.New("value out of range")
	errOrder = errors.New("pointers out of order")
	errAfter = errors.New("more than the pointers")
)

func (l *Ledger) load(d *reader) error {
	l.sequence = d.number()
	l.digest = d.fixed()
	l.epoch = d.number()
	l.barrier = Place(d.number())
	l.orphaned = int(d.upTo(math.MaxInt))
	l.losses = d.number()
	for range d.upTo(MostMembers) {
		m := Member{Number: uint16(len(l.members) + 1)}
		m.ID = d.text("")
		m.Incarnation = d.number()
		options := d.octet()
		m.Live, m.Durable = options&optLive != 0, options&optDurable != 0
		m.Last, m.Sequence, m.Applied, m.Acked = d.number(), d.number(), d.number(), d.number()
		m.Owned = int(d.upTo(math.MaxInt))
		if d.bad || options&^byte(optMember) != 0 {
			return errValue
		}
		l.members = append(l.members, m)
	}
	for range d.upTo(uint64(d.left())) {
		l.cleared = append(l.cleared, clearance{namespace: d.text(""), place: Place(d.number()), count: d.number()})
		if d.bad {
			return errValue
		}
	}
	return l.loadPointers(d)
}

func (l *Ledger) loadPointers(d *reader) error {
	count := d.upTo(uint64(d.left() / pointerBytes))
	namespaces := map[string]string{} // each once in memory
	var last block.Key
	for i := range count {
		p, ok := d.pointer(len(l.members), namespaces)
		if !ok {
			return errValue
		}
		if i > 0 && last.Compare(p.Key) >= 0 {
			return errOrder
		}
		last = p.Key
		l.table.Store(p)
	}
	if d.bad {
		return errValue
	}
	if d.left() != 0 {
		return errAfter
	}
	return nil
}

func (d *reader) pointer(members int, namespaces map[string]string) (p Pointer, ok bool) {
	options := d.octet()
	p.Key = d.key(options&optNamed != 0)
	p.Lease = options&optLease != 0
	name := d.take(d.number())
	if p.Namespace, ok = namespaces[string(name)]; !ok {
		p.Namespace = string(name)
		namespaces[p.Namespace] = p.Namespace
	}
	p.Name = d.take(d.number())
	p.Version = Version(d.number())
	p.Changed = p.Version.Place()
	if options&optChanged != 0 {
		p.Changed = Place(d.number())
	}
	d.value(&p.Value)
	if options&optOwned != 0 {
		p.Token = Version(d.number())
		p.Owner = uint16(d.upTo(uint64(members)))
		p.OwnerIncarnation = d.number()
		p.Copies = d.octet()
		d.bad = d.bad || p.Token == 0 || p.Owner == 0
	}
	return p, !d.bad && options&^byte(optPointer) == 0
}
