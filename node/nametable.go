package node

import (
	"sync"

	"cairn/block"
)

// nameTable is the newest state of every name of the cluster, as the log has it.
// Its entries hold no pointers; the names' bytes lie in a few large chunks.
type nameTable struct {
	// mu guards everything below.
	mu       sync.RWMutex
	shards   [shards]map[block.Key]nameEntry
	byObject map[block.Key]block.Key // object → name
	live     []int                   // entries that are not tombstones, by namespace
	interned map[string]uint32       // index into strings
	strings  []string                // namespaces and writers
	chunks   [][]byte
	used     int // bytes of names in chunks, dead ones included
	dead     int // of these, bytes of names that are gone
}

// nameEntry is a Name without pointers.
type nameEntry struct {
	object    block.Key
	sequence  uint64
	expires   int64
	length    uint32
	namespace uint32 // index into strings
	writer    uint32
	chunk     uint32
	offset    uint32
	size      uint32
}

// nameChunk is the size of a chunk of names in bytes; a longer name gets a chunk of
// its own.
const nameChunk = 1 << 20

// apply makes n the state of its name, and returns the object that no state
// points to any more: the one that the name pointed to before, or n's own if a
// newer state is known already.
func (t *nameTable) apply(n Name) (gone block.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	shard := &t.shards[shardOf(n.Key)]
	e, known := (*shard)[n.Key]
	switch {
	case known && e.sequence >= n.Sequence && e.object == n.Object:
		return block.Key{}
	case known && e.sequence >= n.Sequence:
		return n.Object
	}
	// A mark that the log itself leaves for a name has no text.
	if e.size == 0 && len(n.Name) > 0 {
		e.chunk, e.offset = t.store(n.Name)
		e.size = uint32(len(n.Name))
	}
	old := e.object
	if !old.IsZero() {
		delete(t.byObject, old)
		t.live[e.namespace]--
	}
	e.object, e.sequence, e.expires, e.length = n.Object, n.Sequence, n.Expires, n.Length
	e.namespace, e.writer = t.intern(n.Namespace), t.intern(n.Writer)
	if *shard == nil {
		*shard = make(map[block.Key]nameEntry)
	}
	(*shard)[n.Key] = e
	if !n.Deleted() {
		if t.byObject == nil {
			t.byObject = make(map[block.Key]block.Key)
		}
		t.byObject[n.Object] = n.Key
		t.live[e.namespace]++
	}
	if old == n.Object {
		return block.Key{}
	}
	return old
}

// forget removes an entry that is as old as sequence: its record has left the
// log.
func (t *nameTable) forget(key block.Key, sequence uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	shard := t.shards[shardOf(key)]
	e, ok := shard[key]
	if !ok || e.sequence > sequence {
		return
	}
	if !e.object.IsZero() {
		delete(t.byObject, e.object)
		t.live[e.namespace]--
	}
	delete(shard, key)
	t.dead += int(e.size)
	if t.dead > t.used/2 && t.dead > nameChunk {
		t.compact()
	}
}

// lookup returns the state of a name. Here and below, Name.Name is the table's
// memory, which stays as it is: it must not be written to.
func (t *nameTable) lookup(key block.Key) (Name, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e, ok := t.shards[shardOf(key)][key]
	if !ok {
		return Name{}, false
	}
	return t.expand(key, e), true
}

// owner returns the name that points to an object.
func (t *nameTable) owner(object block.Key) (Name, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	key, ok := t.byObject[object]
	if !ok {
		return Name{}, false
	}
	return t.expand(key, t.shards[shardOf(key)][key]), true
}

// scan returns the names of one shard, tombstones included.
func (t *nameTable) scan(shard int) []Name {
	t.mu.RLock()
	defer t.mu.RUnlock()
	names := make([]Name, 0, len(t.shards[shard]))
	for k, e := range t.shards[shard] {
		names = append(names, t.expand(k, e))
	}
	return names
}

// nameRef is what a sweep looks at of an entry.
type nameRef struct {
	key, object block.Key
	sequence    uint64
	expires     int64
	writer      string
}

// refs appends every entry of one shard, tombstones included.
func (t *nameTable) refs(shard int, to []nameRef) []nameRef {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for k, e := range t.shards[shard] {
		to = append(to, nameRef{key: k, object: e.object, sequence: e.sequence, expires: e.expires, writer: t.strings[e.writer]})
	}
	return to
}

// count is the number of names that are not deleted.
func (t *nameTable) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	total := 0
	for _, n := range t.live {
		total += n
	}
	return total
}

// countIn is count for one namespace.
func (t *nameTable) countIn(namespace string) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i, ok := t.interned[namespace]; ok {
		return t.live[i]
	}
	return 0
}

func (t *nameTable) expand(key block.Key, e nameEntry) Name {
	return Name{
		Key: key, Namespace: t.strings[e.namespace], Writer: t.strings[e.writer], Name: t.text(e),
		Object: e.object, Length: e.length, Expires: e.expires, Sequence: e.sequence,
	}
}

// text is what the user calls the name; a mark that the log left for one has none.
func (t *nameTable) text(e nameEntry) []byte {
	if e.size == 0 {
		return nil
	}
	return t.chunks[e.chunk][e.offset : e.offset+e.size : e.offset+e.size]
}

// writers returns the ids of nodes that names were ever written by; some of them
// are namespaces, which harm nobody.
func (t *nameTable) writers() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return append([]string(nil), t.strings...)
}

// intern returns the index of a namespace or writer.
func (t *nameTable) intern(s string) uint32 {
	if i, ok := t.interned[s]; ok {
		return i
	}
	if t.interned == nil {
		t.interned = make(map[string]uint32)
	}
	i := uint32(len(t.strings))
	t.strings = append(t.strings, s)
	t.live = append(t.live, 0)
	t.interned[s] = i
	return i
}

func (t *nameTable) store(name []byte) (chunk, offset uint32) {
	last := len(t.chunks) - 1
	if last < 0 || cap(t.chunks[last])-len(t.chunks[last]) < len(name) {
		t.chunks = append(t.chunks, make([]byte, 0, max(nameChunk, len(name))))
		last++
	}
	c := &t.chunks[last]
	offset = uint32(len(*c))
	*c = append(*c, name...)
	t.used += len(name)
	return uint32(last), offset
}

// compact writes the names that live into new chunks.
func (t *nameTable) compact() {
	old := t.chunks
	t.chunks, t.used, t.dead = nil, 0, 0
	for i := range t.shards {
		for k, e := range t.shards[i] {
			if e.size > 0 {
				e.chunk, e.offset = t.store(old[e.chunk][e.offset : e.offset+e.size])
				t.shards[i][k] = e
			}
		}
	}
}
