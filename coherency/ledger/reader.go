package ledger

import (
	"encoding/binary"
	"math"

	"cairn/block"
)

// reader takes encoded data apart. After the first thing that is not right bad is
// set, and what is read then means nothing.
type reader struct {
	data []byte
	at   int
	bad  bool
}

func (d *reader) left() int { return len(d.data) - d.at }

// octet is the next byte.
func (d *reader) octet() byte {
	if d.at >= len(d.data) {
		d.bad = true
		return 0
	}
	d.at++
	return d.data[d.at-1]
}

// number is the next varint.
func (d *reader) number() uint64 {
	if d.at < len(d.data) && d.data[d.at] < 0x80 {
		d.at++
		return uint64(d.data[d.at-1])
	}
	n, size := binary.Uvarint(d.data[d.at:])
	if size <= 0 {
		d.bad = true
		return 0
	}
	d.at += size
	return n
}

// upTo is the next varint, which must not be above most.
func (d *reader) upTo(most uint64) uint64 {
	n := d.number()
	if n > most {
		d.bad = true
		return 0
	}
	return n
}

// fixed is a number of 8 bytes.
func (d *reader) fixed() uint64 {
	if d.left() < 8 {
		d.bad = true
		return 0
	}
	d.at += 8
	return binary.LittleEndian.Uint64(d.data[d.at-8:])
}

// take is the next n bytes, a part of the data; nil for none.
func (d *reader) take(n uint64) []byte {
	if n == 0 {
		return nil
	}
	if n > uint64(d.left()) {
		d.bad = true
		return nil
	}
	d.at += int(n)
	return d.data[d.at-int(n) : d.at : d.at]
}

// text is a string after its length; old if it is the same, to save the memory.
func (d *reader) text(old string) string { return same(d.take(d.number()), old) }

func same(b []byte, old string) string {
	if string(b) == old {
		return old
	}
	return string(b)
}

// key is a key, without its first bytes if it is that of a named block.
func (d *reader) key(named bool) (k block.Key) {
	if named {
		k[0], k[1], k[2] = block.NamedPosition>>16&0xff, block.NamedPosition>>8&0xff, block.NamedPosition&0xff
		copy(k[namedPrefix:], d.take(block.HashSize))
	} else {
		copy(k[:], d.take(block.KeySize))
	}
	return k
}

// namespace reads what appendNamespace wrote; old is a string that may be the same.
func (d *reader) namespace(last *string, old string) string {
	if n := d.number(); n > 0 {
		*last = same(d.take(n-1), old)
	}
	return *last
}

func (d *reader) homes() (h Homes) {
	for i := range h {
		h[i] = uint16(d.upTo(math.MaxUint16))
	}
	return h
}

func (d *reader) value(v *Value) {
	options := d.octet()
	d.bad = d.bad || options&^byte(optValue) != 0
	if options&optObject != 0 {
		v.Object = d.key(options&optObjectNamed != 0)
	}
	if options&optContent != 0 {
		v.Length = uint32(d.upTo(math.MaxUint32))
		v.Sum = d.fixed()
	}
	if options&optExpires != 0 {
		v.Expires = int64(d.number())
	}
	if options&optHomes != 0 {
		v.Homes = d.homes()
	}
}

// record reads into r, which is zero. last is the namespace of the record before,
// old a string that its namespace may be the same as.
func (d *reader) record(r *Record, last *string, old string) {
	r.Kind, r.Flags = Kind(d.octet()), Flags(d.octet())
	if !r.Kind.Valid() || r.Flags&^knownFlags != 0 {
		d.bad = true
		return
	}
	switch r.Kind {
	case Commit, Own:
		options := d.block(r, optBlock)
		r.If, r.Lease = Condition(options&optCondition), options&optLease != 0
		r.Namespace = d.namespace(last, old)
		r.Name = d.take(d.number())
		if options&optExpect != 0 {
			r.Expect = Version(d.number())
		}
		if options&optNow != 0 {
			r.Now = int64(d.number())
		}
		if r.Kind == Own {
			r.Copies = d.octet()
		} else {
			d.value(&r.Value)
		}
	case Flush, Revoke:
		r.Lease = d.block(r, optLease|optNamed)&optLease != 0
		r.Token = Version(d.number())
		if !r.Flags.Has(Unchanged) {
			r.Version = Version(d.number())
			d.value(&r.Value)
		}
	case Recall:
		d.block(r, optNamed)
		r.Token = Version(d.number())
	case Rehome:
		d.block(r, optNamed)
		r.Version = Version(d.number())
		r.Value.Homes = d.homes()
	case Expire:
		r.Member = d.text("")
		r.Incarnation = d.number()
		r.Sequence = d.number()
	case Ack, Advance:
		r.Epoch = d.number()
	case Clear:
		r.Namespace = d.namespace(last, old)
	case Forget:
		r.Sequence = d.number()
	}
}

// block reads the options, of which only those in allowed may be set, and the key.
func (d *reader) block(r *Record, allowed byte) byte {
	options := d.octet()
	d.bad = d.bad || options&^allowed != 0
	r.Key = d.key(options&optNamed != 0)
	return options
}
