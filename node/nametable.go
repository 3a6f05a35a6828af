package node

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"cairn/block"
	"cairn/coherency/ledger"
)

// nameTable is the newest pointer of every named block of the cluster, as the log
// has it. It is a ledger.Table whose readers run in parallel with its one writer, and
// wait for nothing. Its entries hold no Go pointers, so that a million of them cost the
// collector nothing; the names' bytes lie in a few large chunks.
//
// Names have an index of their own, so that a read need not compute a name's key, which
// is a SHA-256: the hash is seeded, and the whole name compared.
type nameTable struct {
	seed    maphash.Seed
	entries nameSlab
	names   nameIndex                    // shard and tag by hashName
	keys    nameIndex                    // shard by shardOf, tag by tagOf
	spaces  atomic.Pointer[[]*nameSpace] // by number; only grows
	chunks  atomic.Pointer[[][]byte]     // by number; nil where one was given back
	size    atomic.Int64

	// The rest is the writer's alone.
	interned map[string]uint16
	open     int         // the chunk that is being filled, -1: none
	fill     int         // bytes of it that are taken
	used     int         // bytes of names in all chunks, dead ones included
	dead     int         // of these, bytes of names that are gone
	left     []block.Key // objects that no pointer names any more, since takeLeft
}

// nameSpace is what the table knows of one namespace.
type nameSpace struct {
	name    string
	live    atomic.Int64  // names that are not absent
	cleared atomic.Uint64 // place of the last Clear
}

// nameShardBits: shards of the index of names are few, so that their heads stay in the
// processor's cache, and each copies at most some 100 KB when a million names grow.
const nameShardBits = 8

// nameChunk is the size of a chunk of names in bytes; a longer name gets a chunk of
// its own.
const nameChunk = 1 << 20

var _ ledger.Table = (*nameTable)(nil)

func newNameTable() *nameTable {
	t := &nameTable{seed: maphash.MakeSeed(), names: newNameIndex(1 << nameShardBits), keys: newNameIndex(shards), interned: map[string]uint16{}, open: -1}
	t.entries.reset()
	t.spaces.Store(new([]*nameSpace))
	t.chunks.Store(new([][]byte))
	return t
}

func (t *nameTable) hashName(namespace string, name []byte) (shard int, tag uint32) {
	h := maphash.Bytes(t.seed, name) + bits.RotateLeft64(maphash.String(t.seed, namespace), 32)
	return int(h >> (64 - nameShardBits)), uint32(h)
}

func (t *nameTable) tagOf(key block.Key) uint32 { return uint32(maphash.Bytes(t.seed, key[:])) }

// find reads the pointer of a name, as lookup does, and returns its entry; nil: it is not
// known by its name. A pointer whose name is empty or not known is found only by its key.
func (t *nameTable) find(namespace string, name []byte, p *ledger.Pointer) *nameEntry {
	if len(name) == 0 {
		return nil
	}
	var w nameWords
	shard, tag := t.hashName(namespace, name)
again:
	chunks := t.chunks.Load()
	at := t.names.probe(shard, tag)
	for id := at.next(); id != 0; id = at.next() {
		e := t.entries.at(id)
		if e == nil {
			continue
		}
		e.read(&w)
		chunk, offset, size := w.text()
		if int(size) != len(name) {
			continue
		}
		if t.chunks.Load() != chunks { // the name may lie in a chunk that is not among these
			goto again
		}
		text := (*chunks)[chunk][offset : offset+size : offset+size]
		sp := (*t.spaces.Load())[w.space()]
		if sp.name == namespace && bytes.Equal(text, name) {
			w.unpack(p, sp.name, text)
			sp.mask(p)
			return e
		}
	}
	return nil
}

// entry finds an entry by its key.
func (t *nameTable) entry(key block.Key, w *nameWords) (id uint32, e *nameEntry) {
	a, b := halves(key)
	at := t.keys.probe(shardOf(key), t.tagOf(key))
	for id := at.next(); id != 0; id = at.next() {
		if e := t.entries.at(id); e != nil {
			if e.read(w); w[0] == a && w[1] == b {
				return id, e
			}
		}
	}
	return 0, nil
}

// Load implements ledger.Table. Pointer.Name, here and below, is the table's memory,
// which stays as it is and must not be written to.
func (t *nameTable) Load(key block.Key) (p ledger.Pointer, ok bool) {
	if !t.load(key, &p) {
		return ledger.Pointer{Key: key}, false
	}
	return p, true
}

func (t *nameTable) load(key block.Key, p *ledger.Pointer) bool {
	var w nameWords
	for {
		chunks := t.chunks.Load()
		if _, e := t.entry(key, &w); e == nil {
			return false
		}
		if t.expand(&w, chunks, p) {
			return true
		}
	}
}

// expand fails when there are other chunks by now: then the words are to be read again.
func (t *nameTable) expand(w *nameWords, chunks *[][]byte, p *ledger.Pointer) bool {
	if t.chunks.Load() != chunks {
		return false
	}
	var text []byte
	if chunk, offset, size := w.text(); size > 0 {
		text = (*chunks)[chunk][offset : offset+size : offset+size]
	}
	w.unpack(p, (*t.spaces.Load())[w.space()].name, text)
	return true
}

// lookup is Load for readers: a name that was cleared with its namespace is absent.
func (t *nameTable) lookup(key block.Key) (ledger.Pointer, bool) {
	p, ok := t.Load(key)
	if ok {
		t.mask(&p)
	}
	return p, ok
}

// mask shows what a Clear has made of a pointer, as the ledger does.
func (t *nameTable) mask(p *ledger.Pointer) {
	if sp := t.space(p.Namespace); sp != nil {
		sp.mask(p)
	}
}

func (sp *nameSpace) mask(p *ledger.Pointer) {
	if c := ledger.Place(sp.cleared.Load()); ledger.Version(c) > p.Version {
		p.Version, p.Value = ledger.Version(c), ledger.Value{}
		p.Changed = max(p.Changed, c)
	}
}

// space finds a namespace among the few that there are.
func (t *nameTable) space(name string) *nameSpace {
	for _, sp := range *t.spaces.Load() {
		if sp.name == name {
			return sp
		}
	}
	return nil
}

// Store implements ledger.Table.
func (t *nameTable) Store(p ledger.Pointer) {
	number := t.intern(p.Namespace)
	sp := (*t.spaces.Load())[number]
	var old, now nameWords
	id, e := t.entry(p.Key, &old)
	known := e != nil
	if !known {
		old = nameWords{}
		id, e = t.entries.take()
	}
	now.pack(&p, number)
	if o := old.object(); o != p.Value.Object && !o.IsZero() {
		t.left = append(t.left, o)
	}
	chunk, offset, size := old.text()
	named := size == 0 && len(p.Name) > 0
	if named {
		chunk, offset = t.keep(p.Name)
		size = uint32(len(p.Name))
	}
	now.setText(chunk, offset, size)
	cleared := ledger.Version(sp.cleared.Load())
	delta := now.counts(cleared)
	if known {
		delta -= old.counts(cleared)
	} else {
		t.size.Add(1)
	}
	if delta != 0 {
		sp.live.Add(int64(delta))
	}
	e.write(&now)
	if !known {
		t.keys.insert(shardOf(p.Key), t.tagOf(p.Key), id)
	}
	if named {
		shard, tag := t.hashName(p.Namespace, p.Name)
		t.names.insert(shard, tag, id)
	}
}

// takeLeft returns the objects that pointers have left since the last call. What a Clear
// hides stays in the table until its name changes.
func (t *nameTable) takeLeft() []block.Key {
	list := t.left
	t.left = nil
	return list
}

// Delete implements ledger.Table.
func (t *nameTable) Delete(key block.Key) {
	var w nameWords
	id, e := t.entry(key, &w)
	if e == nil {
		return
	}
	sp := (*t.spaces.Load())[w.space()]
	sp.live.Add(-int64(w.counts(ledger.Version(sp.cleared.Load()))))
	chunk, offset, size := w.text()
	if size > 0 {
		shard, tag := t.hashName(sp.name, (*t.chunks.Load())[chunk][offset:offset+size])
		t.names.remove(shard, tag, id)
	}
	t.keys.remove(shardOf(key), t.tagOf(key), id)
	t.entries.give(id)
	t.size.Add(-1)
	if o := w.object(); !o.IsZero() { // it was hidden by a Clear
		t.left = append(t.left, o)
	}
	t.dead += int(size)
	if t.dead > t.used/2 && t.dead > nameChunk {
		t.compact()
	}
}

// Range implements ledger.Table. What changes meanwhile may be seen before or after
// its change; yield may use the table.
func (t *nameTable) Range(yield func(ledger.Pointer) bool) {
	var list []ledger.Pointer
	for shard := range shards {
		list = t.scan(shard, list[:0])
		for _, p := range list {
			if !yield(p) {
				return
			}
		}
	}
}

// scan appends the pointers of one shard, as Load returns them. A name that changes
// meanwhile may come twice.
func (t *nameTable) scan(shard int, to []ledger.Pointer) []ledger.Pointer {
	t.keys.each(shard, func(id uint32) bool {
		var w nameWords
		var p ledger.Pointer
		for e := t.entries.at(id); e != nil; {
			chunks := t.chunks.Load()
			if e.read(&w); w.vacant() || shardOf(w.key()) != shard {
				break
			}
			if t.expand(&w, chunks, &p) {
				to = append(to, p)
				break
			}
		}
		return true
	})
	return to
}

// reset forgets everything.
func (t *nameTable) reset() {
	t.names.reset()
	t.keys.reset()
	t.chunks.Store(new([][]byte))
	t.entries.reset()
	t.size.Store(0)
	for _, sp := range *t.spaces.Load() {
		sp.live.Store(0)
		sp.cleared.Store(0)
	}
	t.open, t.fill, t.used, t.dead = -1, 0, 0, 0
}

// Len implements ledger.Table.
func (t *nameTable) Len() int { return int(t.size.Load()) }

// live is the number of names that are not absent in a namespace.
func (t *nameTable) live(namespace string) int {
	if sp := t.space(namespace); sp != nil {
		return int(sp.live.Load())
	}
	return 0
}

// liveAll is live of all namespaces.
func (t *nameTable) liveAll() int {
	total := 0
	for _, sp := range *t.spaces.Load() {
		total += int(sp.live.Load())
	}
	return total
}

// clear makes every name of a namespace absent whose version is older than place, and
// calls hidden, if it is not nil, for each that had an object.
func (t *nameTable) clear(namespace string, place ledger.Place, hidden func(name, object block.Key)) {
	number := t.intern(namespace)
	sp := (*t.spaces.Load())[number]
	sp.cleared.Store(uint64(place))
	live := 0
	t.entries.each(func(_ *nameEntry, w *nameWords) bool {
		if w.space() == number {
			n := w.counts(ledger.Version(place))
			live += n
			if o := w.object(); n == 0 && hidden != nil && !o.IsZero() {
				hidden(w.key(), o)
			}
		}
		return true
	})
	sp.live.Store(int64(live))
}

// intern returns the number of a namespace.
func (t *nameTable) intern(name string) uint16 {
	if i, ok := t.interned[name]; ok {
		return i
	}
	list := *t.spaces.Load()
	i := uint16(len(list))
	list = append(list[:i:i], &nameSpace{name: name})
	t.spaces.Store(&list)
	t.interned[name] = i
	return i
}
