package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"

	"cairn/block"
)

// ErrFormat: a message or a snapshot does not follow its format, or is of a
// version that this program does not know.
var ErrFormat = errors.New("ledger: bad format")

// Format is the name of the encoding that [Message.Append] writes.
const Format = "coh.v1"

// A message begins with these bytes. Then, numbers as unsigned varints:
//
//	len node | incarnation | number | applied | digest (8 bytes, little-endian) | count | records
//
// and each record
//
//	kind (1 byte) | flags (1 byte) | what its kind has
//
//	join, leave, barrier   –
//	expire                 len member | incarnation | sequence
//	commit                 block | label | expect? | now? | value
//	own                    block | label | expect? | now? | copies (1 byte)
//	flush, revoke          block | token | version and value unless Unchanged
//	recall                 block | token
//	rehome                 block | version | home | home | home
//	ack, advance           epoch
//	clear                  namespace
//	forget                 sequence
//
//	block      options (1 byte: see below) | key (13 bytes if named, else 16)
//	label      namespace | len name
//	namespace  0: that of the nearest record before that has one; else len+1 namespace
//	value      options (1 byte) | object? (13 or 16) | length? sum? (8 bytes) | expires? | homes? (3)
//
// What is marked ? is there if the options say so. A change to any of this, a new
// kind and a new flag need a new version: nodes that skip a message which others
// understand no longer agree.
const (
	messageMagic   = 0xca
	messageVersion = 1
	messageHeader  = 2 + 5 + 8 // the least bytes of a message
	recordHeader   = 2         // the least bytes of a record
	knownFlags     = Durable<<1 - 1
)

// Options of a block.
const (
	optCondition = 0x03 // the Condition
	optLease     = 0x04
	optNamed     = 0x08 // the key is a block.NamedKey
	optExpect    = 0x10
	optNow       = 0x20
	optBlock     = 0x3f // all of them
)

// Options of a value.
const (
	optObject      = 0x01
	optObjectNamed = 0x02
	optContent     = 0x04 // length and sum
	optExpires     = 0x08
	optHomes       = 0x10
	optValue       = 0x1f // all of them
)

// namedPrefix is how the key of a named block begins; it need not be sent.
const namedPrefix = block.KeySize - block.HashSize

// Sum is the checksum of an encoded message, which [Ledger.Apply] wants.
func Sum(encoded []byte) uint64 { return block.Checksum(encoded) }

// Append appends the encoded message to dst and returns the extended slice. Of a
// record, fields that its kind does not use are left out. It keeps nothing of m.
// What has an invalid kind, condition or flag is written as it is, and refused by
// [Decode].
func (m *Message) Append(dst []byte) []byte {
	dst = append(dst, messageMagic, messageVersion)
	dst = appendString(dst, m.Node)
	dst = binary.AppendUvarint(dst, m.Incarnation)
	dst = binary.AppendUvarint(dst, m.Number)
	dst = binary.AppendUvarint(dst, m.Applied)
	dst = binary.LittleEndian.AppendUint64(dst, m.Digest)
	dst = binary.AppendUvarint(dst, uint64(len(m.Records)))
	namespace := ""
	for i := range m.Records {
		dst = m.Records[i].append(dst, &namespace)
	}
	return dst
}

// append writes the record; namespace is that of the record before.
func (r *Record) append(dst []byte, namespace *string) []byte {
	dst = append(dst, byte(r.Kind), byte(r.Flags))
	if r.Kind.aboutBlock() {
		dst = r.appendBlock(dst)
	}
	switch r.Kind {
	case Commit, Own:
		dst = appendNamespace(dst, r.Namespace, namespace)
		dst = binary.AppendUvarint(dst, uint64(len(r.Name)))
		dst = append(dst, r.Name...)
		if r.Expect != 0 {
			dst = binary.AppendUvarint(dst, uint64(r.Expect))
		}
		if r.Now != 0 {
			dst = binary.AppendUvarint(dst, uint64(r.Now))
		}
		if r.Kind == Own {
			return append(dst, r.Copies)
		}
		return r.Value.append(dst)
	case Flush, Revoke:
		dst = binary.AppendUvarint(dst, uint64(r.Token))
		if !r.Flags.Has(Unchanged) {
			dst = binary.AppendUvarint(dst, uint64(r.Version))
			dst = r.Value.append(dst)
		}
	case Recall:
		dst = binary.AppendUvarint(dst, uint64(r.Token))
	case Rehome:
		dst = binary.AppendUvarint(dst, uint64(r.Version))
		dst = r.Value.Homes.append(dst)
	case Expire:
		dst = appendString(dst, r.Member)
		dst = binary.AppendUvarint(dst, r.Incarnation)
		dst = binary.AppendUvarint(dst, r.Sequence)
	case Ack, Advance:
		dst = binary.AppendUvarint(dst, r.Epoch)
	case Clear:
		dst = appendNamespace(dst, r.Namespace, namespace)
	case Forget:
		dst = binary.AppendUvarint(dst, r.Sequence)
	}
	return dst
}

func (r *Record) appendBlock(dst []byte) []byte {
	options := byte(0)
	switch r.Kind {
	case Commit, Own:
		options = byte(r.If) & optCondition
		if r.Lease {
			options |= optLease
		}
		if r.Expect != 0 {
			options |= optExpect
		}
		if r.Now != 0 {
			options |= optNow
		}
	case Flush, Revoke:
		if r.Lease {
			options |= optLease
		}
	}
	if r.Key.Named() {
		return append(append(dst, options|optNamed), r.Key[namedPrefix:]...)
	}
	return append(append(dst, options), r.Key[:]...)
}

func (v *Value) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, 0)
	switch {
	case v.Object.IsZero():
	case v.Object.Named():
		dst[at] |= optObject | optObjectNamed
		dst = append(dst, v.Object[namedPrefix:]...)
	default:
		dst[at] |= optObject
		dst = append(dst, v.Object[:]...)
	}
	if v.Length != 0 || v.Sum != 0 {
		dst[at] |= optContent
		dst = binary.AppendUvarint(dst, uint64(v.Length))
		dst = binary.LittleEndian.AppendUint64(dst, v.Sum)
	}
	if v.Expires != 0 {
		dst[at] |= optExpires
		dst = binary.AppendUvarint(dst, uint64(v.Expires))
	}
	if v.Homes != (Homes{}) {
		dst[at] |= optHomes
		dst = v.Homes.append(dst)
	}
	return dst
}

func (h *Homes) append(dst []byte) []byte {
	for _, n := range h {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendNamespace writes ns, or that it is the last one again.
func appendNamespace(dst []byte, ns string, last *string) []byte {
	if ns == *last {
		return append(dst, 0)
	}
	*last = ns
	return append(binary.AppendUvarint(dst, uint64(len(ns))+1), ns...)
}

// Decode reads what [Message.Append] wrote, and nothing else: other data is an
// error that wraps [ErrFormat], after which m is not to be used. It uses the
// memory of m.Records again if there is enough. The names in the records are parts
// of data, which is not to be changed as long as they are in use.
func Decode(data []byte, m *Message) error {
	if len(data) < messageHeader || data[0] != messageMagic {
		return fmt.Errorf("%w: not a message", ErrFormat)
	}
	if data[1] != messageVersion {
		return fmt.Errorf("%w: message of version %d, want %d", ErrFormat, data[1], messageVersion)
	}
	d := reader{data: data, at: 2}
	m.Node = d.text(m.Node)
	m.Incarnation = d.number()
	m.Number = d.number()
	m.Applied = d.number()
	m.Digest = d.fixed()
	count := d.number()
	if d.bad || count > MostRecords || count > uint64(d.left()/recordHeader) {
		return fmt.Errorf("%w: message header, %d records", ErrFormat, count)
	}
	if uint64(cap(m.Records)) < count {
		m.Records = make([]Record, count)
	}
	m.Records = m.Records[:count]
	namespace := ""
	for i := range m.Records {
		r := &m.Records[i]
		old := r.Namespace
		*r = Record{}
		d.record(r, &namespace, old)
		if d.bad {
			return fmt.Errorf("%w: record %d, before byte %d", ErrFormat, i, d.at)
		}
	}
	if d.left() != 0 {
		return fmt.Errorf("%w: %d bytes after the last record", ErrFormat, d.left())
	}
	return nil
}
