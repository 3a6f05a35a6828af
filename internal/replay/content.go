package replay

import (
	"encoding/binary"
	"math/bits"

	"cairn/block"
)

// A block's content is the sequence of SplitMix64 (Steele, Lea, Flood: "Fast
// splittable pseudorandom number generators", OOPSLA 2014) started from its key,
// as little-endian words. Each word depends only on its place, so the processor
// computes those of a step side by side, and checking needs no second buffer.
const (
	golden    = 0x9e3779b97f4a7c15
	stepWords = 8
	stepBytes = 8 * stepWords
	stepGap   = golden * stepWords % (1 << 64)
)

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func seed(key block.Key) uint64 {
	high, low := binary.BigEndian.Uint64(key[:8]), binary.BigEndian.Uint64(key[8:])
	return mix(high) ^ bits.RotateLeft64(mix(low+golden), 32)
}

// step writes the part of the sequence that starts at x.
func step(d *[stepBytes]byte, x uint64) {
	for i := 0; i < stepBytes; i += 16 {
		binary.LittleEndian.PutUint64(d[i:i+8], mix(x))
		binary.LittleEndian.PutUint64(d[i+8:i+16], mix(x+golden))
		x += golden * 2 % (1 << 64)
	}
}

// same tells whether d is what step would write. It compares word by word: to
// write the step and compare wide costs three times as much, since the processor
// cannot forward narrow stores to wide loads.
func same(d *[stepBytes]byte, x uint64) bool {
	var diff uint64
	for i := 0; i < stepBytes; i += 16 {
		diff |= binary.LittleEndian.Uint64(d[i:i+8]) ^ mix(x)
		diff |= binary.LittleEndian.Uint64(d[i+8:i+16]) ^ mix(x+golden)
		x += golden * 2 % (1 << 64)
	}
	return diff == 0
}

// Fill writes the content of the block named key, of length len(dst).
func Fill(dst []byte, key block.Key) {
	x := seed(key)
	for ; len(dst) >= stepBytes; x += stepGap {
		step((*[stepBytes]byte)(dst), x)
		dst = dst[stepBytes:]
	}
	var last [stepBytes]byte
	step(&last, x)
	copy(dst, last[:])
}

// Check compares p with the content of the block named key. It returns how many
// bytes differ and the offset of the first one, 0 when none does.
func Check(p []byte, key block.Key) (wrong, first int) {
	x := seed(key)
	var want [stepBytes]byte
	at := 0
	for ; at+stepBytes <= len(p); x += stepGap {
		if got := (*[stepBytes]byte)(p[at:]); !same(got, x) {
			step(&want, x)
			wrong, first = differ(got[:], want[:], at, wrong, first)
		}
		at += stepBytes
	}
	step(&want, x)
	return differ(p[at:], want[:], at, wrong, first)
}

// differ adds the differences of one step at offset at to those before it.
func differ(got, want []byte, at, wrong, first int) (int, int) {
	for i := range got {
		if got[i] == want[i] {
			continue
		}
		if wrong == 0 {
			first = at + i
		}
		wrong++
	}
	return wrong, first
}
