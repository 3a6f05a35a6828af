package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/resp"
)

// The reply to CAIRN.MGET is an array. Its first element is a bulk string with one
// record of 28 bytes for each key asked for, in order, all numbers big-endian; then
// follows one bulk string for each block found, in order:
//
//	0      4            12                28
//	+------+------------+-----------------+
//	|length|  checksum  |     parent      |
//	+------+------------+-----------------+
//
// Lengths first, so that the receiver can lay out its buffers before the first
// payload arrives. The two largest lengths stand for an absent block and for one
// that the batch had no room for, which is to be asked for again.
const (
	batchRecord   = 28
	batchAbsent   = 1<<32 - 1
	batchDeferred = 1<<32 - 2
)

// ErrBatch: the peer broke the format of a batch.
var ErrBatch = errors.New("malformed batch")

// BatchHeader is the first element of the reply, being made.
type BatchHeader []byte

// NewBatchHeader has room for n blocks.
func NewBatchHeader(n int) BatchHeader { return make(BatchHeader, 0, n*batchRecord) }

// Found adds a block whose bytes follow.
func (h *BatchHeader) Found(d block.Descriptor) {
	b := binary.BigEndian.AppendUint32(*h, d.Length)
	b = binary.BigEndian.AppendUint64(b, d.Sum)
	*h = append(b, d.Parent[:]...)
}

// Absent adds a block that the node does not have.
func (h *BatchHeader) Absent() { h.without(batchAbsent) }

// Deferred adds a block that is to be asked for again.
func (h *BatchHeader) Deferred() { h.without(batchDeferred) }

func (h *BatchHeader) without(why uint32) {
	b := binary.BigEndian.AppendUint32(*h, why)
	*h = append(b, make([]byte, batchRecord-4)...)
}

// Scope is the first argument of CAIRN.MGET.
type Scope string

// The scopes of a read.
const (
	Local Scope = "LOCAL" // the tiers of the node that is asked
	Any   Scope = "ANY"   // and its peers
)

// Place is called with the index and the descriptor of a block that is about to
// arrive. It returns the memory for it, of the block's length, or an error: then
// the block is thrown away.
type Place func(i int, d block.Descriptor) ([]byte, error)

// ReadBatch asks the node behind conn for blocks, at most window of them in one
// request. arrived is called for each block that lies in the memory from place,
// unverified. A block that the node does not have is not mentioned. An error
// means that the rest did not arrive.
func ReadBatch(conn *resp.Conn, scope Scope, keys []block.Key, window int, place Place, arrived func(i int)) error {
	indexes := make([]int, len(keys))
	for i := range indexes {
		indexes[i] = i
	}
	for len(indexes) > 0 {
		ask := indexes[:min(len(indexes), window)]
		deferred, err := readWindow(conn, scope, keys, ask, place, arrived)
		if err != nil {
			return err
		}
		if len(deferred) == len(ask) {
			return fmt.Errorf("%w: none of %d blocks answered", ErrBatch, len(ask))
		}
		indexes = append(deferred, indexes[len(ask):]...)
	}
	return nil
}

// readWindow asks for keys[i], i in ask, and returns those to be asked for again.
func readWindow(conn *resp.Conn, scope Scope, keys []block.Key, ask []int, place Place, arrived func(int)) (deferred []int, err error) {
	conn.AppendHeader(len(ask) + 2)
	conn.AppendString("CAIRN.MGET")
	conn.AppendString(string(scope))
	for _, i := range ask {
		conn.AppendArg(keys[i][:])
	}
	elements, err := conn.ReadArrayLen()
	if err != nil {
		return nil, err
	}
	header := make([]byte, len(ask)*batchRecord)
	n, err := conn.ReadBulkInto(header)
	if err != nil {
		return nil, err
	}
	if n != len(header) {
		return nil, fmt.Errorf("%w: header of %d bytes for %d blocks", ErrBatch, n, len(ask))
	}
	elements--
	for j, i := range ask {
		record := header[j*batchRecord:][:batchRecord]
		d := block.Descriptor{
			Key: keys[i], Length: binary.BigEndian.Uint32(record), Sum: binary.BigEndian.Uint64(record[4:]), Parent: block.Key(record[12:]),
		}
		switch d.Length {
		case batchDeferred:
			deferred = append(deferred, i)
			continue
		case batchAbsent:
			continue
		}
		if elements--; elements < 0 || d.Length > block.MaxLength {
			return nil, fmt.Errorf("%w: %d bytes for block %d of %d", ErrBatch, d.Length, j, len(ask))
		}
		dst, placeErr := place(i, d)
		n, err := conn.ReadBulkInto(dst)
		switch {
		case err == nil:
			if placeErr == nil && n == int(d.Length) {
				arrived(i)
			}
		case placeErr != nil && errors.Is(err, resp.ErrShort), refused(err):
			// The payload has been thrown away, or the node had no room to send it.
		default:
			return nil, err
		}
	}
	return deferred, nil
}

// refused tells whether err is an answer rather than a failure.
func refused(err error) bool {
	var reply resp.ServerError
	return errors.As(err, &reply)
}
