package engram

import (
	"encoding/binary"
	"fmt"
)

// The encoding of a vector, all numbers unsigned, 32 bits, little-endian:
//
//	0        number of positive dimensions, p
//	4        number of negative dimensions, n
//	8        p positive dimensions, ascending
//	8 + 4p   n negative dimensions, ascending
//	8 + 4p + 4n   end
//
// A vector has exactly one encoding, and Decode takes no other.
const (
	headerSize = 8
	dimSize    = 4
)

// EncodedSize is the length of v's encoding in bytes.
func (v SparseVec) EncodedSize() int { return headerSize + dimSize*v.Len() }

// Append appends v's encoding to p. A vector that is not valid gives the error of
// Validate, and p as it was.
func (v SparseVec) Append(p []byte) ([]byte, error) {
	if err := v.check(); err != nil {
		return p, fmt.Errorf("engram: encode: %w", err)
	}
	p = binary.LittleEndian.AppendUint32(p, uint32(len(v.Pos)))
	p = binary.LittleEndian.AppendUint32(p, uint32(len(v.Neg)))
	for _, list := range [][]uint32{v.Pos, v.Neg} {
		for _, d := range list {
			p = binary.LittleEndian.AppendUint32(p, d)
		}
	}
	return p, nil
}

// Marshal is v's encoding in new memory.
func (v SparseVec) Marshal() ([]byte, error) {
	p, err := v.Append(make([]byte, 0, v.EncodedSize()))
	if err != nil {
		return nil, err
	}
	return p, nil
}

// MarshalBinary implements encoding.BinaryMarshaler.
func (v SparseVec) MarshalBinary() ([]byte, error) { return v.Marshal() }

// UnmarshalBinary implements encoding.BinaryUnmarshaler; see Decode.
func (v *SparseVec) UnmarshalBinary(p []byte) error {
	d, err := Decode(p)
	if err == nil {
		*v = d
	}
	return err
}

// Decode reads what Append writes, and nothing else: ErrTruncated, ErrTrailing,
// ErrOverflow, ErrUnsorted, ErrDuplicate and ErrBothSigns say what is wrong with
// other bytes. The vector shares no memory with p, and takes as much as p's
// dimensions do, whatever the counts in it claim.
func Decode(p []byte) (SparseVec, error) {
	v, err := decode(p)
	if err != nil {
		return SparseVec{}, fmt.Errorf("engram: decode: %w", err)
	}
	return v, nil
}

func decode(p []byte) (SparseVec, error) {
	if len(p) < headerSize {
		return SparseVec{}, fmt.Errorf("%w: %d bytes, the counts alone take %d", ErrTruncated, len(p), headerSize)
	}
	pos := uint64(binary.LittleEndian.Uint32(p))
	neg := uint64(binary.LittleEndian.Uint32(p[4:]))
	if pos+neg > MaxNonZero {
		return SparseVec{}, fmt.Errorf("%w: %d + %d, at most %d", ErrOverflow, pos, neg, MaxNonZero)
	}
	switch size, want := uint64(len(p)), headerSize+dimSize*(pos+neg); {
	case size < want:
		return SparseVec{}, fmt.Errorf("%w: %d bytes, %d + %d dimensions take %d", ErrTruncated, size, pos, neg, want)
	case size > want:
		return SparseVec{}, fmt.Errorf("%w: %d bytes, %d + %d dimensions take %d", ErrTrailing, size, pos, neg, want)
	}
	if pos+neg == 0 {
		return SparseVec{}, nil
	}
	dims := make([]uint32, pos+neg)
	for i := range dims {
		dims[i] = binary.LittleEndian.Uint32(p[headerSize+dimSize*i:])
	}
	// The capacity of Pos ends with it, so that who appends to it cannot reach Neg.
	v := SparseVec{Pos: dims[:pos:pos], Neg: dims[pos:]}
	return v, v.check()
}
