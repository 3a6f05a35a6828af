package router

import (
	"math/bits"
	"sync/atomic"

	"cairn/block"
)

// fan is into how many parts a stretch of blocks is cut whose ends differ. The
// blocks between are looked up together, so that the processor waits for memory
// once: 512 blocks take three such rounds, where halving takes nine waits.
const fan = 8

// signature stands for the holders of a block: the inline value word, or the
// hash of a set. 0 is nobody.
type signature uint64

// cuts are the places where a stretch of blocks is cut into parts, its two ends
// included, and the signatures of the blocks there.
type cuts struct {
	parts int
	at    [fan + 1]int
	sig   [fan + 1]signature
}

// cut divides the stretch from…to.
func cut(from, to int) cuts {
	c := cuts{parts: min(fan, to-from)}
	for i := range c.parts + 1 {
		c.at[i] = from + (to-from)*i/max(c.parts, 1)
	}
	return c
}

// look looks up the blocks at the cuts first…last.
func (c *cuts) look(ix *Index, keys []block.Key, first, last int) {
	var (
		fps   [fan + 1]uint64
		homes [fan + 1]*bucket
	)
	for i := first; i <= last; i++ {
		fp := fingerprint(&keys[c.at[i]])
		t := ix.shardOf(fp).table.Load()
		fps[i], homes[i] = fp, &t.buckets[t.home(fp)]
	}
	for i := first; i <= last; i++ {
		atomic.LoadUint64(&homes[i][0])
	}
	for i := first; i <= last; i++ {
		c.sig[i] = ix.signature(fps[i])
	}
}

// bisect finds where the holders change between the first block and the last.
// Nodes hold prefix-closed sets, so the holders only get fewer as the position
// grows, and between two blocks with the same holders all have these.
func (m *Match) bisect(ix *Index, keys []block.Key) {
	if len(keys) == 0 {
		return
	}
	c := cut(0, len(keys)-1)
	c.look(ix, keys, 0, c.parts)
	if m.parts(ix, keys, &c) {
		m.emit(ix, keys, len(keys)-1, 1, c.sig[c.parts])
	}
}

// parts steps over all parts of a stretch, but for the block at its end.
func (m *Match) parts(ix *Index, keys []block.Key, c *cuts) bool {
	for i := range c.parts {
		if !m.between(ix, keys, c.at[i], c.at[i+1], c.sig[i], c.sig[i+1]) {
			return false
		}
	}
	return true
}

// between steps over the blocks from…to-1, given the signatures of both ends.
func (m *Match) between(ix *Index, keys []block.Key, from, to int, first, last signature) bool {
	if first == last || to == from+1 {
		return m.emit(ix, keys, from, to-from, first)
	}
	c := cut(from, to)
	c.sig[0], c.sig[c.parts] = first, last
	c.look(ix, keys, 1, c.parts-1)
	return m.parts(ix, keys, &c)
}

// emit steps over count blocks from at on with this signature. The holders of a set
// are read now, but for one that goes on from the blocks before.
func (m *Match) emit(ix *Index, keys []block.Key, at, count int, sig signature) bool {
	if sig == m.sig && m.next > m.start {
		m.next += count
		return true
	}
	word := uint64(sig)
	if isSet(word) {
		word = m.read(ix, fingerprint(&keys[at]))
	}
	m.sig = sig
	return m.step(word, count)
}

// signature is that of the block with this fingerprint.
func (ix *Index) signature(fp uint64) signature {
	if fp&depthMask >= ix.memory.limit.Load() {
		return 0
	}
	s := ix.shardOf(fp)
	version := s.version.Load()
	t := s.table.Load()
	word, _ := t.find(fp)
	sig, ok := signature(word), true
	if isSet(word) {
		sig, ok = t.setSignature(word)
	}
	if ok && version&1 == 0 && s.version.Load() == version {
		return sig
	}
	var buf [64]lane
	word, lanes := ix.readAgain(s, fp, buf[:0])
	if !isSet(word) {
		return signature(word)
	}
	return signatureOf(lanes)
}

// mix folds one word of a set into its signature, as wyhash does.
func mix(h, word uint64) uint64 {
	hi, lo := bits.Mul64(h^word, 0xa0761d6478bd642f)
	return hi ^ lo
}

const signatureSeed = 0xe7037ed1a0b428db

// setSignature is the hash of a set. It reports false where arenaLanes does.
func (t *table) setSignature(word uint64) (signature, bool) {
	class, at := setClass(word), setOffset(word)
	if class >= classes || at+setWords(class) > len(t.arena) {
		return 0, false
	}
	n := int(atomic.LoadUint64(&t.arena[at]))
	if n > setLanes(class) {
		return 0, false
	}
	h := uint64(signatureSeed)
	for i := range (n + 3) / 4 {
		h = mix(h, atomic.LoadUint64(&t.arena[at+1+i]))
	}
	return signature(h | setFlag), true
}

// signatureOf is the signature of a set that has been read.
func signatureOf(lanes []lane) signature {
	h := uint64(signatureSeed)
	for i := 0; i < len(lanes); i += 4 {
		h = mix(h, packWord(lanes[i:]))
	}
	return signature(h | setFlag)
}
