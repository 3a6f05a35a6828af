package router

import (
	"encoding/binary"
	"math/bits"
	"runtime"
	"sync/atomic"

	"cairn/block"
)

// The table is cut into shards by the top bits of the fingerprint, so that
// growing and sweeping stop the writer for a moment only. A shard is open
// addressing over buckets of one cache line: four fingerprints, which are compared
// at once, and their value words (holders.go), 16 bytes a block. What does not fit
// its home bucket is in the next one. There is no pointer in it, so the collector
// does not look at it.
//
// Large tables wait for memory and for little else. Of what was measured against this shape,
// buckets of eight slots in two lines lost (every search loads both), and so did tables that
// are less full and grow by less (they are copied more often). Huge pages save up to a fifth
// of a look-up at a million blocks and nothing at ten million; they are the operator's choice.
//
// How readers and the writer meet. There is one writer at a time (Index.mu), and
// every word that both touch is accessed atomically.
//
//   - A new slot gets its value before its fingerprint, and an inline value is
//     replaced by one store: a reader sees the block before or after.
//   - Whatever takes more than one store (a deletion, which moves slots; a set
//     in the arena) happens while the shard's version is odd. A reader notes
//     the version, reads, and starts over if the version was odd or has changed:
//     a seqlock (Boehm, "Can seqlocks get along with programming language memory
//     models?", MSPC 2012).
//   - A table that has grown is a new one, published by one store; readers of
//     the old one finish on what it held.
const (
	shardBits = 8
	shards    = 1 << shardBits

	firstBuckets = 4  // buckets of a new shard
	firstArena   = 64 // words of a new arena
	// A shard grows by growth when more than nine tenths of its slots are in use. The
	// shards begin with different sizes, growth apart from the first to the last, and so
	// grow one after the other: at any time some are full and some are not, and all
	// together they take 16/0.9 bytes a block times (growth−1)/ln growth, which is 23.
	loadNum, loadDen = 9, 10
	growth           = 1.65
	// An arena grows by a quarter.
	growNum, growDen = 5, 4
	// Large tables fill whole pages of the allocator, so that what is counted is
	// what is used.
	pageBuckets  = 8192 / bucketBytes
	pagesFrom    = 4 * pageBuckets
	bucketBytes  = 64
	bucketSlots  = 4
	bucketMask   = bucketSlots - 1
	bucketShift  = 2
	bucketValues = bucketSlots // where the values begin in a bucket
)

type shard struct {
	version atomic.Uint64
	table   atomic.Pointer[table]
	_       [48]byte // what every insertion writes stays out of the readers' cache line

	// Guarded by Index.mu.
	live   int     // slots in use
	full   int     // and how many may be
	size   float64 // buckets, before rounding
	memory *memory
	sets   allocator
}

// bucket is four fingerprints, those in use first, and then their values.
type bucket [bucketBytes / 8]uint64

// table is immutable but for the words that buckets and arena point to.
type table struct {
	buckets []bucket
	arena   []uint64
}

func newTable(buckets int) *table { return &table{buckets: make([]bucket, buckets)} }

// fit is how many buckets a table of at least n has.
func fit(n int) int {
	if n < pagesFrom {
		return n
	}
	return (n + pageBuckets/2) / pageBuckets * pageBuckets
}

// slots is how many blocks the table has room for.
func (t *table) slots() int { return len(t.buckets) * bucketSlots }

// fp and value are the words of slot at.
func (t *table) fp(at int) *uint64 { return &t.buckets[at>>bucketShift][at&bucketMask] }
func (t *table) value(at int) *uint64 {
	return &t.buckets[at>>bucketShift][bucketValues+at&bucketMask]
}

// fingerprint is 64 bits that stand for the key; never 0, which marks a free
// slot. It folds all of the key in, as wyhash does, because the keys of tests
// and of other hashers are not uniform. The low bits are the depth (memory.go).
func fingerprint(k *block.Key) uint64 {
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(k[:8])^0xa0761d6478bd642f, binary.LittleEndian.Uint64(k[8:])^0xe7037ed1a0b428db)
	return (hi^lo)&^depthMask | anyDepth | depthOf(k.Position())
}

func (ix *Index) shardOf(fp uint64) *shard { return &ix.shards[fp>>(64-shardBits)] }

// home is the bucket where the search for fp begins. The bits that chose the shard
// are shifted out.
func (t *table) home(fp uint64) int {
	at, _ := bits.Mul64(fp<<shardBits, uint64(len(t.buckets)))
	return int(at)
}

// same is 1 when a is b. The compiler makes it a comparison without a jump, which
// would be as likely to be taken as not.
func same(a, b uint64) uint64 {
	if a == b {
		return 1
	}
	return 0
}

// lookUp is the value word of fp in this bucket; ok is false when it is not there.
func (k *bucket) lookUp(fp uint64) (word uint64, ok bool) {
	hit := same(atomic.LoadUint64(&k[0]), fp) | same(atomic.LoadUint64(&k[1]), fp)<<1 |
		same(atomic.LoadUint64(&k[2]), fp)<<2 | same(atomic.LoadUint64(&k[3]), fp)<<3
	word = atomic.LoadUint64(&k[(bucketValues+bits.TrailingZeros64(hit))&(len(k)-1)])
	if hit == 0 {
		word = 0
	}
	return word, hit != 0
}

// find is the value word of fp, and its slot; without one, 0 and the free slot
// where the search ended.
func (t *table) find(fp uint64) (word uint64, at int) {
	b := t.home(fp)
	// The bound is for readers, who may see slots while they are moved.
	for range len(t.buckets) {
		k := &t.buckets[b]
		k0, k1, k2, k3 := atomic.LoadUint64(&k[0]), atomic.LoadUint64(&k[1]), atomic.LoadUint64(&k[2]), atomic.LoadUint64(&k[3])
		if hit := same(k0, fp) | same(k1, fp)<<1 | same(k2, fp)<<2 | same(k3, fp)<<3; hit != 0 {
			i := bits.TrailingZeros64(hit)
			return atomic.LoadUint64(&k[(bucketValues+i)&(len(k)-1)]), b<<bucketShift + i
		}
		if k3 == 0 {
			free := 3 - same(k0, 0) - same(k1, 0) - same(k2, 0)
			return 0, b<<bucketShift + int(free)
		}
		if b++; b == len(t.buckets) {
			b = 0
		}
	}
	return 0, b << bucketShift
}

// spins is how often a reader starts over before it waits for the writer.
const spins = 128

// read is the value word of fp and, when that is a set, its holders, in buf.
func (ix *Index) read(fp uint64, buf []lane) (uint64, []lane) {
	if fp&depthMask >= ix.memory.limit.Load() {
		return 0, buf[:0] // it is being swept out
	}
	s := ix.shardOf(fp)
	version := s.version.Load()
	if word, _ := s.table.Load().find(fp); !isSet(word) && version&1 == 0 && s.version.Load() == version {
		return word, buf[:0]
	}
	return ix.readAgain(s, fp, buf)
}

// readAgain is read for sets, and for shards that are being changed.
func (ix *Index) readAgain(s *shard, fp uint64, buf []lane) (uint64, []lane) {
	for i := range spins {
		version := s.version.Load()
		if version&1 == 0 {
			if word, lanes, ok := s.readOnce(fp, buf); ok && s.version.Load() == version {
				return word, lanes
			}
		}
		if i%16 == 15 {
			runtime.Gosched()
		}
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	word, lanes, _ := s.readOnce(fp, buf)
	return word, lanes
}

func (s *shard) readOnce(fp uint64, buf []lane) (word uint64, lanes []lane, ok bool) {
	t := s.table.Load()
	word, _ = t.find(fp)
	if !isSet(word) {
		return word, buf[:0], true
	}
	lanes, ok = arenaLanes(buf[:0], t.arena, word)
	return word, lanes, ok
}
