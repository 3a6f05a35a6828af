package serving

import (
	"crypto/sha256"

	"cairn/block"
)

// Model stands for a real one: its attention states and tokens follow from the tokens
// before, as a real model's do, but cost nothing.
type Model struct {
	BlockBytes int // of the attention state of one block
	Vocabulary uint32
}

// Block is the attention state of a block. Its key covers all tokens up to its end, on which
// a real state depends as well.
func (m Model) Block(key block.Key) []byte {
	state := make([]byte, 0, m.BlockBytes+sha256.Size)
	for sum := sha256.Sum256(key[:]); len(state) < m.BlockBytes; sum = sha256.Sum256(sum[:]) {
		state = append(state, sum[:]...)
	}
	return state[:m.BlockBytes]
}

// next is the token that follows.
func (m Model) next(tokens []uint32) uint32 {
	h := uint32(2166136261)
	for _, t := range tokens[max(0, len(tokens)-8):] {
		h = (h ^ t) * 16777619
	}
	return (h ^ h>>15) % m.Vocabulary
}

// Guess is up to n tokens that may follow: those of a small, fast model, which is wrong one
// time in eight.
func (m Model) Guess(tokens []uint32, n int) []uint32 {
	all := append([]uint32{}, tokens...)
	for range max(n, 1) {
		t := m.next(all)
		if (uint32(len(all))+t)%8 == 0 {
			t = (t + 1) % m.Vocabulary
		}
		all = append(all, t)
	}
	return all[len(tokens):]
}

// Verify tells how many of the guesses are right, from the first on, and the token in the
// place of the first wrong one.
func (m Model) Verify(tokens, guesses []uint32) (right int, next uint32) {
	all := append([]uint32{}, tokens...)
	for i, g := range guesses {
		if next = m.next(all); next != g {
			return i, next
		}
		all = append(all, g)
	}
	return len(guesses), 0
}

// Words are n tokens of somebody's text, the same for the same seed.
func Words(seed, n int) []uint32 {
	words := make([]uint32, n)
	x := uint32(seed)*2654435761 + 1
	for i := range words {
		x = x*1664525 + 1013904223
		words[i] = x >> 17
	}
	return words
}
