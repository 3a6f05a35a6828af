package replay

import (
	"bytes"
	"testing"

	"cairn/block"
)

func TestContentIsThatOfItsKey(t *testing.T) {
	for _, size := range []int{0, 1, 7, 63, 64, 65, 1000, 4096} {
		p, q := make([]byte, size), make([]byte, size)
		Fill(p, block.Key{1})
		Fill(q, block.Key{15: 1})
		if size >= 7 && bytes.Equal(p, q) {
			t.Errorf("%d bytes: two keys share their content", size)
		}
		if wrong, first := Check(p, block.Key{1}); wrong != 0 || first != 0 {
			t.Errorf("%d bytes: own content differs in %d bytes from %d", size, wrong, first)
		}
		if wrong, _ := Check(p, block.Key{15: 1}); size >= 64 && wrong < size*9/10 {
			t.Errorf("%d bytes: another key's content differs in %d bytes only", size, wrong)
		}
		longer := make([]byte, size+100)
		Fill(longer, block.Key{1})
		if !bytes.Equal(p, longer[:size]) {
			t.Errorf("%d bytes: content depends on the length", size)
		}
	}
}

func TestCheckFindsEveryFlippedByte(t *testing.T) {
	const size = 200
	p := make([]byte, size)
	Fill(p, block.Key{1})
	for i := range p {
		p[i] ^= 1
		if wrong, first := Check(p, block.Key{1}); wrong != 1 || first != i {
			t.Fatalf("byte %d flipped: %d wrong, the first at %d", i, wrong, first)
		}
		p[i] ^= 1
	}
	p[70] ^= 4
	p[199] ^= 4
	if wrong, first := Check(p, block.Key{1}); wrong != 2 || first != 70 {
		t.Errorf("%d wrong, the first at %d; want 2 from 70", wrong, first)
	}
}

func BenchmarkFill(b *testing.B) {
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		Fill(p, block.Key{1})
	}
}

func BenchmarkCheck(b *testing.B) {
	p := make([]byte, 64<<10)
	Fill(p, block.Key{1})
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if wrong, _ := Check(p, block.Key{1}); wrong != 0 {
			b.Fatal(wrong)
		}
	}
}
