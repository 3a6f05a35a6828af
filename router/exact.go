package router

import (
	"sync/atomic"

	"cairn/block"
)

// matchAhead is how many blocks of a prompt are looked up together: see touchAhead.
const matchAhead = 64

// exact looks up one block after the other, a batch of them at a time.
func (m *Match) exact(ix *Index, keys []block.Key) {
	var b batch
	for len(keys) > 0 {
		n := min(matchAhead, len(keys))
		b.touch(ix, keys[:n])
		b.look(n)
		limit := ix.memory.limit.Load()
		for i := range n {
			fp, word := b.fps[i], b.words[i]
			if word == 0 || isSet(word) || fp&depthMask >= limit || b.versions[i]&1 != 0 || ix.shardOf(fp).version.Load() != b.versions[i] {
				word = m.read(ix, fp)
			}
			if word == m.word && !isSet(word) && m.next > m.start {
				m.next++ // the run goes on, as in most cases
			} else if !m.step(word, 1) {
				return
			}
		}
		keys = keys[n:]
	}
}

// batch is up to matchAhead look-ups that wait for memory together.
type batch struct {
	fps      [matchAhead]uint64
	versions [matchAhead]uint64 // of the shards, before anything was read
	homes    [matchAhead]*bucket
	nexts    [matchAhead]*bucket // after the homes
	words    [matchAhead]uint64  // 0 where the block is in neither
	late     [matchAhead]uint8   // which are not in their homes
}

// touch finds out where the blocks are, and then loads all of their homes at once.
func (b *batch) touch(ix *Index, keys []block.Key) {
	for i := range keys {
		fp := fingerprint(&keys[i])
		s := ix.shardOf(fp)
		b.versions[i] = s.version.Load()
		t := s.table.Load()
		home := t.home(fp)
		b.fps[i], b.homes[i], b.nexts[i] = fp, &t.buckets[home], &t.buckets[min(home+1, len(t.buckets)-1)]
	}
	// Nothing but loads: the processor has as many of them on their way as it can.
	for _, home := range b.homes[:len(keys)] {
		atomic.LoadUint64(&home[0])
	}
}

// look reads the first n value words. A tenth of the blocks are not in their homes: they are
// set aside, without a jump that the processor could not foresee, and wait for memory together
// too.
func (b *batch) look(n int) {
	late := 0
	for i := range n {
		word, ok := b.homes[i].lookUp(b.fps[i])
		b.words[i], b.late[late&(matchAhead-1)] = word, uint8(i)
		if !ok {
			late++
		}
	}
	for _, i := range b.late[:late] {
		atomic.LoadUint64(&b.nexts[i][0])
	}
	for _, i := range b.late[:late] {
		b.words[i], _ = b.nexts[i].lookUp(b.fps[i])
	}
}
